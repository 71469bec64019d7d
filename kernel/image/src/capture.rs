//! What is logged meanwhile: for tests of lines that are interface.
//!
//! The console prints as ever; a capture only reads along.

use core::fmt::{self, Write};

use arch::lock::IrqSpinLock;
use kerncore::lock::Class;

/// Bytes that a capture keeps: a message and a backtrace, with room to spare.
const BYTES: usize = 4096;

static CAPTURE: IrqSpinLock<Option<CapturedLog>> = IrqSpinLock::new(Class::LogCapture, None);

/// The messages of a while, one a line, without level or mark. What does not fit is left out, from the first on.
pub struct CapturedLog {
    text: [u8; BYTES],
    len: usize,
    full: bool,
}

impl CapturedLog {
    /// All of it.
    pub fn text(&self) -> &str {
        // Only whole strings were put in.
        core::str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }

    /// How many messages are exactly this one.
    pub fn count(&self, message: &str) -> usize {
        self.text().lines().filter(|&line| line == message).count()
    }
}

impl Write for CapturedLog {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.text.get_mut(self.len..self.len + text.len()) {
            Some(room) if !self.full => {
                room.copy_from_slice(text.as_bytes());
                self.len += text.len();
                Ok(())
            }
            _ => {
                self.full = true;
                Err(fmt::Error)
            }
        }
    }
}

impl fmt::Debug for CapturedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

/// Runs `act`, and says what was logged until it returned. One at a time: an inner capture ends the outer one.
pub fn capture_log<R>(act: impl FnOnce() -> R) -> (R, CapturedLog) {
    let empty = || CapturedLog { text: [0; BYTES], len: 0, full: false };
    CAPTURE.with(|capture| *capture = Some(empty()));
    let result = act();
    let captured = CAPTURE.with(Option::take);
    (result, captured.unwrap_or_else(empty))
}

/// Notes a message, if somebody reads along.
pub(crate) fn note(message: &fmt::Arguments<'_>) {
    CAPTURE.with(|capture| {
        if let Some(log) = capture {
            // A full capture keeps what it has.
            let _ = writeln!(log, "{message}");
        }
    });
}
