//! As much of gdb's remote protocol as it takes to stop the emulator at a function and to speak to its monitor.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A connection to the stub in an emulator that is halted.
pub(crate) struct Stub {
    stream: UnixStream,
    input: BufReader<UnixStream>,
}

impl Stub {
    /// Connects, as soon as the emulator listens.
    pub(crate) fn connect(socket: &Path) -> Result<Self, String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(format!("gdb stub: {error}"));
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        let input = stream.try_clone().map_err(|error| format!("gdb stub: {error}"))?;
        Ok(Self { stream, input: BufReader::new(input) })
    }

    /// Lets the processor run until it is about to execute the instruction at `address`.
    pub(crate) fn run_to(&mut self, address: u32) -> Result<(), String> {
        self.expect(&format!("Z0,{address:x},4"), "OK")?;
        let stopped = self.ask("c")?;
        if !stopped.starts_with('T') && !stopped.starts_with('S') {
            return Err(format!("the image did not reach {address:#x}: gdb stub says {stopped}"));
        }
        self.expect(&format!("z0,{address:x},4"), "OK")
    }

    /// Gives the emulator's monitor a command that answers nothing.
    pub(crate) fn monitor(&mut self, command: &str) -> Result<(), String> {
        let packet =
            command.bytes().fold("qRcmd,".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        self.expect(&packet, "OK")
    }

    /// Ends the emulator.
    pub(crate) fn kill(mut self) {
        // It may be gone before it answers.
        let _ = self.stream.write_all(framed("k").as_bytes());
    }

    fn expect(&mut self, packet: &str, wanted: &str) -> Result<(), String> {
        let answer = self.ask(packet)?;
        if answer == wanted { Ok(()) } else { Err(format!("gdb stub: {packet}: {answer}")) }
    }

    fn ask(&mut self, packet: &str) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("gdb stub: {packet}: {error}");
        self.stream.write_all(framed(packet).as_bytes()).map_err(failed)?;
        let answer = unframed(&mut self.input).map_err(failed)?;
        self.stream.write_all(b"+").map_err(failed)?;
        Ok(answer)
    }
}

/// A packet: its text between `$` and `#`, and a sum.
fn framed(text: &str) -> String {
    let sum = text.bytes().fold(0_u8, u8::wrapping_add);
    format!("${text}#{sum:02x}")
}

/// The text of the next packet; acknowledgements before it are passed over.
fn unframed(input: &mut impl Read) -> std::io::Result<String> {
    let mut byte = [0];
    while byte != *b"$" {
        input.read_exact(&mut byte)?;
    }
    let mut text = Vec::new();
    loop {
        input.read_exact(&mut byte)?;
        if byte == *b"#" {
            break;
        }
        text.push(byte[0]);
    }
    input.read_exact(&mut [0; 2])?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_carry_their_sum_and_are_read_without_it() {
        assert_eq!(framed("OK"), "$OK#9a", "as gdb's manual has it");
        let mut input = "++$T05thread:01;#07$OK#9a".as_bytes();
        assert_eq!(unframed(&mut input).ok().as_deref(), Some("T05thread:01;"));
        assert_eq!(unframed(&mut input).ok().as_deref(), Some("OK"));
        assert!(unframed(&mut input).is_err(), "nothing is left");
    }
}
