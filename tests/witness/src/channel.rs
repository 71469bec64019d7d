//! The way to the host: UART1, one request at a time, and patience that ends.

use core::fmt::{self, Write};

use arch::cp15::{Dacr, Sctlr, SysRegRead, Ttbcr, Ttbr0, Ttbr1};
use arch::lock::IrqSpinLock;
use board::vexpress_a9::{UART_CLOCK_HZ, UARTS};
use drivers::pl011::SerialPort;
use kerncore::lock::Class;
use mm::io_mem::IoMem;

use crate::{Picture, Testimony};

/// How long a request waits for its answer, in hundredths of a second of the emulator's processor time.
pub const PATIENCE: u32 = 30_00;
/// How often the port is looked at between two looks at the clock, which is the host's and costs a call of it.
const LOOKS: u32 = 10_000;
/// Without a clock, how often it is looked at.
const LOOKS_WITHOUT_A_CLOCK: u32 = 50_000_000;
/// The longest answer.
const LINE: usize = 900;

struct Channel {
    port: SerialPort,
    /// How many requests there have been.
    requests: u32,
}

static CHANNEL: IrqSpinLock<Option<Channel>> = IrqSpinLock::new(Class::WitnessChannel, None);

/// Why a request did not end well. Its text quotes the host's last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The host says that not all witnesses agree, and who says what.
    Disagreement,
    /// It has not said anything.
    Silence,
    /// It has said something else.
    Garbled,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LAST.with(|line| match self {
            Self::Disagreement => write!(f, "the witnesses disagree: {}", line.text()),
            Self::Silence => f.write_str("the host has not answered for the witnesses"),
            Self::Garbled => write!(f, "no answer for the witnesses: {:?}", line.text()),
        })
    }
}

/// A line from the host, or as much of it as there is room for.
struct Line {
    bytes: [u8; LINE],
    length: usize,
}

/// The last one.
static LAST: IrqSpinLock<Line> =
    IrqSpinLock::new(Class::WitnessAnswer, Line { bytes: [0; LINE], length: 0 });

impl Line {
    fn text(&self) -> &str {
        let bytes = &self.bytes[..self.length];
        core::str::from_utf8(bytes).unwrap_or("what is no text")
    }
}

/// Opens the channel that `witness=` names; without one nobody is asked. Once, at boot, where one may sleep; the port
/// stays mapped for good.
///
/// # Errors
/// In words: there is no such port, or it could not be set up.
pub fn open(name: Option<&str>) -> Result<(), &'static str> {
    let uart = match name {
        None => return Ok(()),
        Some("uart1") => UARTS[1],
        Some(_) => return Err("witness= knows uart1"),
    };
    let registers = IoMem::map(uart.base).map_err(|_| "the witnesses' port cannot be mapped")?;
    let port = SerialPort::new(registers, UART_CLOCK_HZ);
    let port = port.map_err(|_| "the witnesses' port cannot be set up")?;
    CHANNEL.with(|channel| *channel = Some(Channel { port, requests: 0 }));
    Ok(())
}

/// Whether there is a host to be asked.
pub fn is_open() -> bool {
    CHANNEL.with(|channel| channel.is_some())
}

/// Sends `testimonies` to the host and waits until it has compared them with its own witnesses; without a host, nothing.
/// Any context; allocates nothing.
///
/// # Errors
/// [`Failure`].
pub fn ask(testimonies: &[Testimony]) -> Result<(), Failure> {
    if testimonies.is_empty() {
        return Ok(());
    }
    request(testimonies)
}

/// Asks the host whether the emulator's screen shows `picture`; without a host, nothing. Any context; allocates nothing.
///
/// # Errors
/// [`Failure`].
pub fn ask_screen(picture: Picture) -> Result<(), Failure> {
    request(&[picture])
}

/// Sends a request of these lines, and waits for the answer.
fn request(lines: &[impl fmt::Display]) -> Result<(), Failure> {
    if !is_open() {
        return Ok(());
    }
    let number = CHANNEL.with(|channel| {
        channel.as_mut().map_or(0, |channel| {
            channel.requests += 1;
            channel.requests
        })
    });
    let test = ktest::running().unwrap_or("-");
    let (cpu, ttbr0, ttbr1) = (arch::cpu::id(), Ttbr0::read_raw(), Ttbr1::read_raw());
    let (ttbcr, dacr, sctlr) = (Ttbcr::read_raw(), Dacr::read_raw(), Sctlr::read_raw());
    say(format_args!(
        "q {number} {cpu} {ttbr0:#x} {ttbr1:#x} {ttbcr:#x} {dacr:#x} {sctlr:#x} {test}\n"
    ));
    for line in lines {
        say(format_args!("{line}\n"));
    }
    say(format_args!("e {number}\n"));
    answer(number, PATIENCE)
}

/// Sends `text` as it is.
pub fn say(text: fmt::Arguments<'_>) {
    CHANNEL.with(|channel| {
        if let Some(channel) = channel {
            // The port takes everything; what the host does not get, it does not answer.
            let _ = channel.port.write_fmt(text);
        }
    });
}

/// Waits for the answer to request `number`, for `patience` hundredths of a second.
///
/// # Errors
/// [`Failure`].
pub fn answer(number: u32, patience: u32) -> Result<(), Failure> {
    let whole = LAST.with(|line| {
        CHANNEL.with(|channel| read_line(&mut channel.as_mut()?.port, line, patience))
    });
    if whole.is_none() {
        return Err(Failure::Silence);
    }
    LAST.with(|line| {
        let verdict = line.text().split(' ').next().unwrap_or_default();
        let is_this = verdict.get(1..).and_then(|digits| digits.parse().ok()) == Some(number);
        match verdict.as_bytes().first() {
            Some(b'+') if is_this => Ok(()),
            Some(b'-') if is_this => Err(Failure::Disagreement),
            _ => Err(Failure::Garbled),
        }
    })
}

/// Reads up to the end of a line; `None` if that does not come in time.
fn read_line(port: &mut SerialPort, line: &mut Line, patience: u32) -> Option<()> {
    line.length = 0;
    let started = arch::semihosting::clock();
    let mut looks = 0;
    loop {
        match port.read() {
            Ok(Some(b'\n')) => return Some(()),
            Ok(Some(byte)) => {
                if let Some(place) = line.bytes.get_mut(line.length) {
                    *place = byte;
                    line.length += 1;
                }
                continue;
            }
            Ok(None) | Err(_) => looks += 1,
        }
        let late = match started {
            Some(started) if looks % LOOKS == 0 => {
                arch::semihosting::clock().is_none_or(|now| now.wrapping_sub(started) > patience)
            }
            Some(_) => false,
            None => looks > LOOKS_WITHOUT_A_CLOCK,
        };
        if late {
            return None;
        }
    }
}
