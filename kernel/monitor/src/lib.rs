//! The console's commands: each shows what a layer reports, and changes nothing.
//!
//! What this crate believes:
//!
//! * **It only looks.** No unsafe code, no allocation: a command must work when memory is what is broken.
//! * **One table.** What can be typed stands in [`COMMANDS`], and `help` prints that.
//! * **Where the line comes from and where text goes is the caller's business.**
#![no_std]
#![cfg(target_arch = "arm")]
#![forbid(unsafe_code)]

mod commands;

use core::fmt::{self, Write};

pub use commands::{COMMANDS, Command};

/// Why a line did nothing, or not all that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError<'line> {
    /// No command is called that.
    Unknown {
        /// What was typed.
        name: &'line str,
    },
    /// The command takes no arguments.
    Argument {
        /// The command.
        command: &'static str,
        /// What followed it.
        argument: &'line str,
    },
    /// The output did not take all of the text.
    Output,
    /// The audit found rules broken; each was printed.
    Violations {
        /// How many.
        count: u32,
    },
}

impl fmt::Display for CommandError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => write!(f, "{name}: no such command; `help` lists them"),
            Self::Argument { command, argument } => {
                write!(f, "{command} takes no argument, {argument} was given")
            }
            Self::Output => f.write_str("the output did not take all of the text"),
            Self::Violations { count } => write!(f, "{count} rules are broken"),
        }
    }
}

impl core::error::Error for CommandError<'_> {}

impl From<fmt::Error> for CommandError<'_> {
    fn from(_: fmt::Error) -> Self {
        Self::Output
    }
}

/// Runs the command in `line` and writes what it shows to `out`. An empty line does nothing.
///
/// Not in interrupt context, and with no lock held: commands take the locks of what they show.
///
/// # Errors
/// [`CommandError`].
pub fn execute<'line>(line: &'line str, out: &mut dyn Write) -> Result<(), CommandError<'line>> {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next() else { return Ok(()) };
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.ok_or(CommandError::Unknown { name })?;
    if let Some(argument) = words.next() {
        return Err(CommandError::Argument { command: command.name, argument });
    }
    (command.run)(out)
}
