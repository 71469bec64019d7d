//! A client of QEMU's machine protocol: one command, one answer, each a line of JSON. Several commands may be under way, for what
//! takes long is to wake the emulator and to be woken by it; answers come in the commands' order.

use std::collections::VecDeque;
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
    /// Commands whose answers have not been read.
    under_way: VecDeque<String>,
}

/// What a stopped emulator may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Where a privileged load by this CPU from this address would be led.
    Translation(u32, u32),
    /// The 16 words of physical memory from this address on, a multiple of 64.
    Words(u64),
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// By its own walker; `None` if the load would fault.
    Translation(Option<u64>),
    /// As it has them.
    Words([u32; 16]),
}

impl Question {
    /// The command for it, and for which CPU.
    fn command(self) -> (u32, String) {
        match self {
            Self::Translation(cpu, address) => (cpu, format!("gva2gpa {address:#x}")),
            Self::Words(address) => (0, format!("xp /16wx {address:#x}")),
        }
    }

    /// The answer in what the emulator prints.
    fn read(self, text: &str) -> Result<Answer, String> {
        match self {
            Self::Translation(..) => read_translation(text.trim()).map(Answer::Translation),
            Self::Words(_) => {
                let words = read_words(text).map(Answer::Words);
                words.ok_or_else(|| format!("xp said: {text}"))
            }
        }
    }
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
        let under_way = VecDeque::new();
        let mut qmp = Self { reader: BufReader::new(stream), writer, under_way };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            return Err(format!("this is no greeting of QMP's: {greeting}"));
        }
        qmp.send("qmp_capabilities", &json!({}))?;
        qmp.answer().map(|_| qmp)
    }

    /// Stops all CPUs, and asks all that.
    pub(crate) fn stop_and_ask(&mut self, questions: &[Question]) -> Result<Vec<Answer>, String> {
        self.send("stop", &json!({}))?;
        for question in questions {
            let (cpu, line) = question.command();
            self.send("human-monitor-command", &monitor(cpu, &line))?;
        }
        while self.under_way.len() > questions.len() {
            self.answer()?;
        }
        questions.iter().map(|question| question.read(&self.text()?)).collect()
    }

    /// Asks that.
    pub(crate) fn ask(&mut self, question: Question) -> Result<Answer, String> {
        let (cpu, line) = question.command();
        self.send("human-monitor-command", &monitor(cpu, &line))?;
        while self.under_way.len() > 1 {
            self.answer()?;
        }
        question.read(&self.text()?)
    }

    /// Lets the CPUs go on. Whether the emulator did so is read with the next answer.
    pub(crate) fn go_on(&mut self) -> Result<(), String> {
        self.send("cont", &json!({}))
    }

    /// Writes what the first screen shows to `file`, as a PPM.
    pub(crate) fn dump_screen(&mut self, file: &str) -> Result<(), String> {
        self.send("screendump", &json!({ "filename": file }))?;
        while self.under_way.len() > 1 {
            self.answer()?;
        }
        self.answer().map(drop)
    }

    /// The answer to a command for a human reader, the first that is under way.
    fn text(&mut self) -> Result<String, String> {
        match self.answer()? {
            Value::String(text) => Ok(text),
            other => Err(format!("QMP: this is no text: {other}")),
        }
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<(), String> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        self.writer
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|error| format!("QMP: {line}: {error}"))?;
        self.under_way.push_back(line);
        Ok(())
    }

    /// The answer to the first command that is under way.
    fn answer(&mut self) -> Result<Value, String> {
        let command = self.under_way.pop_front().unwrap_or_default();
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

/// The arguments of a command for a human reader.
fn monitor(cpu: u32, line: &str) -> Value {
    json!({ "command-line": line, "cpu-index": cpu })
}

/// `Unmapped`, or `gpa: ADDRESS`.
fn read_translation(text: &str) -> Result<Option<u64>, String> {
    let digits = match text {
        "Unmapped" => return Ok(None),
        // The one number that C prints without its 0x.
        "gpa: 0" => Some("0"),
        other => other.strip_prefix("gpa: 0x"),
    };
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.map(Some).ok_or_else(|| format!("gva2gpa said: {text}"))
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
        assert_eq!(
            qmp.ask(Question::Translation(3, 0xc000_0000)),
            Ok(Answer::Translation(Some(0x6044_0000)))
        );
        assert_eq!(qmp.ask(Question::Translation(3, 0)), Ok(Answer::Translation(None)));
        assert_eq!(qmp.ask(Question::Translation(3, 0)), Ok(Answer::Translation(Some(0))));
        drop(qmp);
        let asked = emulator.join().expect("it ends");
        let second: Value = serde_json::from_str(&asked[1]).expect("JSON");
        assert_eq!(second["arguments"]["cpu-index"], 3);
        assert_eq!(second["arguments"]["command-line"], "gva2gpa 0xc0000000");
    }

    #[test]
    fn questions_ahead_are_answered_in_their_order_behind_what_was_under_way() {
        let words = "0: 0x00000001 0x00000002 0x00000003 0x00000004\\r\\n".repeat(4);
        let words = format!(r#"{{"return": "{words}"}}"#);
        let words: &'static str = Box::leak(words.into_boxed_str());
        let empty = r#"{"return": {}}"#;
        let answers = vec![empty, empty, empty, r#"{"return": "gpa: 0x40\r\n"}"#, words, words];
        let (stream, emulator) = emulator(Box::leak(answers.into_boxed_slice()));
        let mut qmp = Qmp::over(stream).expect("a session");
        qmp.go_on().expect("somebody reads");
        let asked = [Question::Translation(1, 0x8000_0040), Question::Words(0x6000_0000)];
        let words = Answer::Words([1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]);
        let answered = qmp.stop_and_ask(&asked);
        assert_eq!(answered, Ok(vec![Answer::Translation(Some(0x40)), words]));
        assert_eq!(qmp.ask(Question::Words(0x6000_0040)), Ok(words));
        drop(qmp);
        let asked = emulator.join().expect("it ends");
        let commands: Vec<Value> =
            asked.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let executed: Vec<&str> =
            commands.iter().filter_map(|command| command["execute"].as_str()).collect();
        let monitor = "human-monitor-command";
        assert_eq!(executed[..4], ["qmp_capabilities", "cont", "stop", monitor]);
        assert_eq!(executed[4..], [monitor, monitor]);
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
            assert!(qmp.ask(Question::Translation(0, 0)).is_err(), "{error}");
        }
        let (stream, _emulator) = emulator(&[r#"{"return": {}}"#]);
        let mut qmp = Qmp::over(stream).expect("a session");
        assert!(qmp.stop_and_ask(&[]).is_err(), "nobody is there");
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
