//! Where text goes: to the host until there is a serial port, then to that.

use core::fmt::{self, Write};

use arch::lock::IrqSpinLock;
use drivers::pl011::SerialPort;
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

struct State {
    port: Option<SerialPort>,
    style: LogStyle,
}

static STATE: IrqSpinLock<State> =
    IrqSpinLock::new(Class::Console, State { port: None, style: LogStyle::Level });

/// The console, for `write!`. Any context.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        STATE.with(|state| match &mut state.port {
            Some(port) => port.write_str(text),
            None => arch::semihosting::Console.write_str(text),
        })
    }
}

/// From here on text goes to `port`.
pub fn use_port(port: SerialPort) {
    STATE.with(|state| state.port = Some(port));
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
        let mark = match STATE.with(|state| state.style) {
            LogStyle::Level => "",
            LogStyle::Diagnostic => "# ",
        };
        // A console that does not take text cannot be told so.
        let _ = writeln!(Console, "{mark}{level}{}", record.args());
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
