//! A client of QEMU's machine protocol: one command, one answer, each a line of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The most that the emulator may take to come up, or to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session with an emulator.
#[derive(Debug)]
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Opens a session at `socket`, which the emulator may still have to make.
    pub(crate) fn connect(socket: &Path) -> Result<Self, String> {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                Err(error) => return Err(format!("{}: {error}", socket.display())),
            }
        };
        Self::over(stream)
    }

    /// Opens a session over a stream: takes the greeting, and agrees to no capability.
    fn over(stream: UnixStream) -> Result<Self, String> {
        let said = |error: std::io::Error| format!("QMP: {error}");
        stream.set_read_timeout(Some(PATIENCE)).map_err(said)?;
        let writer = stream.try_clone().map_err(said)?;
        let mut qmp = Self { reader: BufReader::new(stream), writer };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            return Err(format!("this is no greeting of QMP's: {greeting}"));
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Stops all CPUs.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        self.execute("stop", &json!({})).map(drop)
    }

    /// Lets them go on.
    pub(crate) fn go_on(&mut self) -> Result<(), String> {
        self.execute("cont", &json!({})).map(drop)
    }

    /// Where a privileged load by `cpu` would be led, by the emulator's own walker; `None` if it would fault.
    pub(crate) fn translate(&mut self, cpu: u32, address: u32) -> Result<Option<u64>, String> {
        let answer = self.monitor(cpu, &format!("gva2gpa {address:#x}"))?;
        match answer.trim() {
            "Unmapped" => Ok(None),
            // The one number that C prints without its 0x.
            "gpa: 0" => Ok(Some(0)),
            other => match other.strip_prefix("gpa: 0x") {
                Some(digits) => u64::from_str_radix(digits, 16)
                    .map(Some)
                    .map_err(|_| format!("gva2gpa said: {other}")),
                None => Err(format!("gva2gpa said: {other}")),
            },
        }
    }

    /// The 16 words of physical memory from `address` on, a multiple of 64.
    pub(crate) fn words(&mut self, address: u64) -> Result<[u32; 16], String> {
        let answer = self.monitor(0, &format!("xp /16wx {address:#x}"))?;
        read_words(&answer).ok_or_else(|| format!("xp said: {answer}"))
    }

    /// Writes what the first screen shows to `file`, as a PPM.
    pub(crate) fn dump_screen(&mut self, file: &str) -> Result<(), String> {
        self.execute("screendump", &json!({ "filename": file })).map(drop)
    }

    /// A command for a human reader.
    fn monitor(&mut self, cpu: u32, line: &str) -> Result<String, String> {
        let arguments = json!({ "command-line": line, "cpu-index": cpu });
        match self.execute("human-monitor-command", &arguments)? {
            Value::String(text) => Ok(text),
            other => Err(format!("QMP: {line}: {other}")),
        }
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.writer
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|error| format!("QMP: {command}: {error}"))?;
        loop {
            let mut answer = self.line()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // What happens meanwhile is announced between command and answer.
            if answer.get("event").is_none() {
                return Err(format!("QMP: {command}: {answer}"));
            }
        }
    }

    fn line(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err("QMP: the emulator is gone".into()),
            Ok(_) => serde_json::from_str(&line).map_err(|error| format!("QMP: {error}: {line}")),
            Err(error) => Err(format!("QMP: {error}")),
        }
    }
}

/// Four lines of `ADDRESS: 0x… 0x… 0x… 0x…`.
fn read_words(text: &str) -> Option<[u32; 16]> {
    let words = text.lines().flat_map(|line| {
        line.split_once(": ").into_iter().flat_map(|(_, words)| words.split_whitespace())
    });
    let words: Option<Vec<u32>> = words
        .map(|word| word.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok()))
        .collect();
    words?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;

    /// An emulator that has `answers`, one a command, and hands back what it was asked.
    fn emulator(answers: &'static [&'static str]) -> (UnixStream, thread::JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let thread = thread::spawn(move || {
            let mut reader = BufReader::new(theirs.try_clone().expect("a second handle"));
            let mut writer = theirs;
            let mut asked = Vec::new();
            writeln!(writer, "{GREETING}").expect("somebody reads");
            for answer in answers {
                let mut line = String::new();
                if reader.read_line(&mut line).expect("somebody writes") == 0 {
                    break;
                }
                asked.push(line);
                writeln!(writer, "{answer}").expect("somebody reads");
            }
            asked
        });
        (ours, thread)
    }

    #[test]
    fn an_address_is_asked_of_one_cpu_and_events_are_no_answers() {
        let (stream, emulator) = emulator(&[
            r#"{"return": {}}"#,
            "{\"event\": \"STOP\"}\n{\"return\": \"gpa: 0x60440000\\r\\n\"}",
            r#"{"return": "Unmapped\r\n"}"#,
            r#"{"return": "gpa: 0\r\n"}"#,
        ]);
        let mut qmp = Qmp::over(stream).expect("a session");
        assert_eq!(qmp.translate(3, 0xc000_0000), Ok(Some(0x6044_0000)));
        assert_eq!(qmp.translate(3, 0), Ok(None));
        assert_eq!(qmp.translate(3, 0), Ok(Some(0)));
        drop(qmp);
        let asked = emulator.join().expect("it ends");
        let second: Value = serde_json::from_str(&asked[1]).expect("JSON");
        assert_eq!(second["arguments"]["cpu-index"], 3);
        assert_eq!(second["arguments"]["command-line"], "gva2gpa 0xc0000000");
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_so_is_a_silent_end() {
        let errors = [
            r#"{"error": {"class": "GenericError", "desc": "no such CPU"}}"#,
            r#"{"return": "gpa: nowhere"}"#,
            r#"{"return": 7}"#,
            "nothing",
        ];
        for error in errors {
            let answers = Box::leak(Box::new([r#"{"return": {}}"#, error]));
            let (stream, _emulator) = emulator(answers);
            let mut qmp = Qmp::over(stream).expect("a session");
            assert!(qmp.translate(0, 0).is_err(), "{error}");
        }
        let (stream, _emulator) = emulator(&[r#"{"return": {}}"#]);
        let mut qmp = Qmp::over(stream).expect("a session");
        assert!(qmp.stop().is_err(), "nobody is there");
    }

    #[test]
    fn words_are_read_from_four_lines_of_four() {
        let line = "0000000060010000: 0x00000000 0x00000001 0xffffffff 0x60000c01\r\n";
        let words = read_words(&line.repeat(4)).expect("sixteen");
        assert_eq!(words[..4], [0, 1, u32::MAX, 0x6000_0c01]);
        assert_eq!(read_words(&line.repeat(3)), None);
        assert_eq!(read_words(&line.repeat(4).replace("0x60000c01", "60000c01")), None);
    }
}
