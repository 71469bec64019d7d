//! Where text goes: to the host until there is a serial port, then to that; and what comes in at the port.

use core::fmt::{self, Write};

use arch::lock::IrqSpinLock;
use drivers::interrupts::{self, InterruptError};
use drivers::pl011::SerialPort;
use heapless::Deque;
use kerncore::lock::Class;
use log::{LevelFilter, Log, Metadata, Record};

/// What stands before each line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStyle {
    /// The level: for people.
    Level,
    /// A `#` and the level: a diagnostic of the test protocol.
    Diagnostic,
}

/// Bytes that came in and wait to be read: more than is typed, or pasted, before somebody looks.
const INPUT: usize = 1024;

struct State {
    port: Option<SerialPort>,
    style: LogStyle,
    input: Deque<u8, INPUT>,
}

static STATE: IrqSpinLock<State> = IrqSpinLock::new(
    Class::Console,
    State { port: None, style: LogStyle::Level, input: Deque::new() },
);

/// The console, for `write!`. Any context.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl Write for State {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match &mut self.port {
            Some(port) => port.write_str(text),
            None => arch::semihosting::Console.write_str(text),
        }
    }
}

/// Each call is one piece, and so is each formatted one: no other CPU's text comes between.
impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        STATE.with(|state| state.write_str(text))
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        STATE.with(|state| state.write_fmt(text))
    }
}

/// From here on text goes to `port`.
pub fn use_port(port: SerialPort) {
    STATE.with(|state| state.port = Some(port));
}

/// From here on the port's interrupt, `line`, takes in what is typed. After [`use_port`].
///
/// # Errors
/// [`InterruptError`].
pub fn listen(line: u16) -> Result<(), InterruptError> {
    interrupts::register(line, &take_input)?;
    STATE.with(|state| state.port.as_mut().map(SerialPort::raise_interrupts));
    Ok(())
}

/// The port's handler. What comes in damaged is left out, and so is what comes when nobody has read for long.
fn take_input() {
    STATE.with(|state| {
        let Some(port) = &mut state.port else { return };
        port.acknowledge();
        loop {
            match port.read() {
                Ok(Some(byte)) => _ = state.input.push_back(byte),
                Ok(None) => return,
                Err(_damaged) => {}
            }
        }
    });
}

/// The next byte that came in, for which it waits asleep. Where one may sleep, after [`listen`].
pub fn read() -> u8 {
    let mut byte = None;
    arch::cpu::wait_until(|| {
        byte = STATE.with(|state| state.input.pop_front());
        byte.is_some()
    });
    byte.unwrap_or_default()
}

struct Logger;

static LOGGER: Logger = Logger;

impl Log for Logger {
    /// What other people's crates find merely informative is not for this console.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn || !metadata.target().starts_with("virtio_drivers")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        crate::capture::note(record.args());
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            log::Level::Info => "",
            log::Level::Debug => "debug: ",
            log::Level::Trace => "trace: ",
        };
        STATE.with(|state| {
            let mark = match state.style {
                LogStyle::Level => "",
                LogStyle::Diagnostic => "# ",
            };
            // A console that does not take text cannot be told so.
            let _ = writeln!(state, "{mark}{level}{}", record.args());
        });
    }

    fn flush(&self) {}
}

/// Sends the log to the console, in `style`.
pub fn init_log(style: LogStyle) {
    STATE.with(|state| state.style = style);
    // Fails only if there is a logger already, which then is this one.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

/// Prints messages whose severity number is smaller than `level`, in Linux's numbers: 4 is an error, 8 everything.
pub fn set_log_level(level: u8) {
    log::set_max_level(match level {
        0..=3 => LevelFilter::Off,
        4 => LevelFilter::Error,
        5 => LevelFilter::Warn,
        6 | 7 => LevelFilter::Info,
        _ => LevelFilter::Trace,
    });
}
