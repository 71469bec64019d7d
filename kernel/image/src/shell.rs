//! The monitor on the serial port: a line comes in, its command runs.

use core::fmt::Write;

use heapless::String;

use crate::console::{self, Console};

/// The longest line.
const LINE: usize = 80;
const PROMPT: &str = "> ";
/// What a terminal sends for the end of a text: Ctrl-D.
const END_OF_TEXT: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

/// Runs the commands that are typed until `exit` is, or the text ends. Where one may sleep, after [`console::listen`].
pub fn run() {
    // A console that takes no text cannot be told so.
    let _ = writeln!(Console, "\nThe monitor: `help` lists the commands, `exit` ends it.");
    while let Some(line) = read_line() {
        if line.trim() == "exit" {
            return;
        }
        if let Err(error) = monitor::execute(&line, &mut Console) {
            let _ = writeln!(Console, "{error}");
        }
    }
}

/// A line without its end, echoed as it is typed; `None` at the end of the text.
fn read_line() -> Option<String<LINE>> {
    let mut line = String::new();
    let _ = Console.write_str(PROMPT);
    loop {
        match console::read() {
            b'\r' | b'\n' => {
                let _ = writeln!(Console);
                return Some(line);
            }
            END_OF_TEXT => {
                let _ = writeln!(Console);
                return None;
            }
            BACKSPACE | DELETE if line.pop().is_some() => {
                let _ = Console.write_str("\x08 \x08");
            }
            // What does not fit is not echoed either.
            byte @ b' '..=b'~' if line.push(char::from(byte)).is_ok() => {
                let _ = Console.write_char(char::from(byte));
            }
            _ => {}
        }
    }
}
