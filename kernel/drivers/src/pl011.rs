//! The board's serial port, an Arm `PrimeCell` PL011, by the `arm-pl011-uart` crate.

use core::fmt;

use arm_pl011_uart::{
    DataBits, Error, Interrupts, LineConfig, PL011Registers, Parity, StopBits, Uart,
};
use mm::io_mem::IoMem;

const BAUD: u32 = 115_200;
const LINE: LineConfig =
    LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };

/// Bytes wait that came in.
const RECEIVED: Interrupts = Interrupts::RXI.union(Interrupts::RTI);

/// The registers of one port.
pub type Registers = PL011Registers;

/// Why there is no serial port. Its mapping was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortError {
    /// The registers identify something else.
    NotAPl011 {
        /// The part that they name.
        part: u16,
        /// Its designer, by JEP106 code.
        designer: u8,
    },
    /// The crate's error: a baud rate that the clock cannot make, or a byte that came in damaged.
    Line(Error),
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPl011 { part, designer } => {
                write!(f, "part {part:#05x} of designer {designer:#04x} is no PL011")
            }
            Self::Line(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PortError {}

/// A port that is set up and stays mapped for good.
pub struct SerialPort(Uart<'static>);

impl SerialPort {
    /// Sets the port up for 115,200 baud, 8N1, from a reference clock of `clock` hertz.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn new(mut registers: IoMem<Registers>, clock: u32) -> Result<Self, PortError> {
        identify(&mut registers)?;
        Uart::new(registers.registers()).enable(LINE, BAUD, clock).map_err(PortError::Line)?;
        Ok(Self(Uart::new(registers.leak())))
    }

    /// From here on the port's interrupt is raised while bytes wait that came in: at half a FIFO, or when no more has come for
    /// a while.
    pub fn raise_interrupts(&mut self) {
        self.0.set_interrupt_masks(RECEIVED);
    }

    /// Lowers the interrupt. For handlers, which then [`read`](Self::read) until nothing waits.
    pub fn acknowledge(&mut self) {
        self.0.clear_interrupts(RECEIVED);
    }

    /// The next byte that came in, if there is one.
    ///
    /// # Errors
    /// What went wrong on the line with that byte, which is lost.
    pub fn read(&mut self) -> Result<Option<u8>, PortError> {
        self.0.read_word().map_err(PortError::Line)
    }
}

/// Makes sure that `registers` are those of a PL011. (DDI 0183, 3.3.16 and 3.3.17.)
///
/// # Errors
/// [`PortError::NotAPl011`].
pub fn identify(registers: &mut IoMem<Registers>) -> Result<(), PortError> {
    let found = Uart::new(registers.registers()).read_identification();
    let (part, designer) = (found.part_number, found.designer);
    if found.is_valid() { Ok(()) } else { Err(PortError::NotAPl011 { part, designer }) }
}

/// Writes wait for room in the FIFO. Bytes go out as they are: the terminal behind the emulator makes a new line of a
/// line feed by itself, and whoever reads a pipe wants no carriage returns.
impl fmt::Write for SerialPort {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(text)
    }
}

impl fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SerialPort")
    }
}
