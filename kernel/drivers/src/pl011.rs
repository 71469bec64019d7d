//! The board's serial port, an Arm PrimeCell PL011, by the `arm-pl011-uart` crate.

use core::fmt;

use arm_pl011_uart::{DataBits, Error, LineConfig, PL011Registers, Parity, StopBits, Uart};
use mm::io_mem::IoMem;

const BAUD: u32 = 115_200;
const LINE: LineConfig =
    LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };

/// The registers of one port.
pub type Registers = PL011Registers;

/// A port that is set up and stays mapped for good.
pub struct SerialPort(Uart<'static>);

impl SerialPort {
    /// Sets the port up for 115,200 baud, 8N1, from a reference clock of `clock` hertz.
    ///
    /// # Errors
    /// Those of the crate: a baud rate that the clock cannot make.
    pub fn new(registers: IoMem<PL011Registers>, clock: u32) -> Result<Self, Error> {
        let mut uart = Uart::new(registers.leak());
        uart.enable(LINE, BAUD, clock)?;
        Ok(Self(uart))
    }
}

/// Writes wait for room in the FIFO; a line feed becomes carriage return and line feed.
impl fmt::Write for SerialPort {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, line) in text.split('\n').enumerate() {
            if index != 0 {
                self.0.write_str("\r\n")?;
            }
            self.0.write_str(line)?;
        }
        Ok(())
    }
}

impl fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SerialPort")
    }
}
