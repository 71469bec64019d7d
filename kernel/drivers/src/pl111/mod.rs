//! The LCD controller, Arm's PL111 (ARM DDI 0293).
//!
//! It masters the bus: from its start to its stop it reads the picture's memory, frame after frame, whatever lies there. So a
//! [`Screen`] owns that memory, and stops the controller before it goes.
//!
//! ```text
//!   embedded-graphics ──pixels──▶ Screen<colour> ──stores──▶ frame memory ◀──scans── controller ──▶ panel
//!                                 (draw)                     (frame)
//! ```
//!
//! The pixel clock is not divided here: it is that of the board's oscillator, as the firmware has set it.

mod draw;
mod frame;

pub use draw::Colour;
pub use frame::Frame;

use core::fmt;
use core::marker::PhantomData;

use dma::write_combined::drain;
use kerncore::addr::DmaAddr;
use kerncore::lcd::{Mode, PixelFormat};
use mm::io_mem::IoMem;
use safe_mmio::fields::{ReadPure, ReadPureWrite, WriteOnly};
use safe_mmio::{field, field_shared};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The registers (DDI 0293, 3.1).
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Registers {
    timings: [ReadPureWrite<u32>; 3],
    line_end: ReadPureWrite<u32>,
    upper_base: ReadPureWrite<u32>,
    lower_base: ReadPureWrite<u32>,
    control: ReadPureWrite<u32>,
    interrupt_mask: ReadPureWrite<u32>,
    raw_interrupts: ReadPure<u32>,
    interrupts: ReadPure<u32>,
    clear_interrupts: WriteOnly<u32>,
    _upper_current: ReadPure<u32>,
    _lower_current: ReadPure<u32>,
    _reserved: [u32; 0x3eb],
    identification: [ReadPure<u32>; 8],
}

// Fixed by the manual.
const _: () = {
    assert!(core::mem::offset_of!(Registers, upper_base) == 0x10);
    assert!(core::mem::offset_of!(Registers, control) == 0x18);
    assert!(core::mem::offset_of!(Registers, clear_interrupts) == 0x28);
    assert!(core::mem::offset_of!(Registers, identification) == 0xfe0);
    assert!(size_of::<Registers>() == 0x1000);
};

/// The controller reads memory and drives the panel's signals.
const ENABLE: u32 = 1;
/// The panel is of thin-film transistors.
const THIN_FILM: u32 = 1 << 5;
/// The panel has power.
const POWER: u32 = 1 << 11;
/// All four interrupts.
const INTERRUPTS: u32 = 0x1e;
/// A picture begins at a multiple of this.
const BASE_ALIGNMENT: u32 = 8;

/// What identifies a PL111 (DDI 0293, 3.2.21): part number and designer, then the `PrimeCell`'s mark.
const IDENTIFICATION: [u32; 8] = [0x11, 0x11, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// Why there is no screen. The mapping of the registers and the picture's memory were given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The registers identify something else.
    NotAPl111 {
        /// Which of the eight identification registers differs.
        register: usize,
        /// What it reads.
        found: u32,
    },
    /// The controller is on: somebody else shows a picture, whose memory it reads. Who knows that nobody does may [`stop`] it.
    Running {
        /// What it was told.
        control: u32,
    },
    /// The memory does not hold the picture.
    TooSmall {
        /// Its size in bytes.
        bytes: u32,
        /// The picture's.
        wanted: u32,
    },
    /// The controller does not begin to read there.
    Misaligned {
        /// Where it would have to.
        dma: DmaAddr,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPl111 { register, found } => {
                write!(f, "no PL111: identification register {register} reads {found:#x}")
            }
            Self::Running { control } => {
                write!(f, "the controller shows a picture already: its control is {control:#x}")
            }
            Self::TooSmall { bytes, wanted } => {
                write!(f, "the picture has {wanted} bytes, and its memory {bytes}")
            }
            Self::Misaligned { dma } => {
                write!(f, "a picture at {dma}: it must begin at a multiple of {BASE_ALIGNMENT}")
            }
        }
    }
}

impl core::error::Error for StartError {}

/// A picture that is shown, of pixels of colour `C`, in memory `F`. Dropped, the controller is stopped, and then the memory goes.
#[derive(Debug)]
#[must_use = "dropped, nothing is shown any more"]
pub struct Screen<C: Colour, F: Frame> {
    // Before the memory: what is stopped reads no more.
    _controller: Controller,
    frame: F,
    mode: Mode,
    colour: PhantomData<C>,
}

impl<C: Colour, F: Frame> Screen<C, F> {
    /// The format of its pixels.
    pub const FORMAT: PixelFormat = C::FORMAT;

    /// Shows what lies in `frame` as a picture of `mode`. Any context.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(registers: IoMem<Registers>, frame: F, mode: Mode) -> Result<Self, StartError> {
        let (bytes, wanted) = (frame.bytes(), mode.frame_bytes(C::FORMAT));
        if bytes < wanted {
            return Err(StartError::TooSmall { bytes, wanted });
        }
        let dma = frame.dma_address();
        if !dma.raw().is_multiple_of(BASE_ALIGNMENT) {
            return Err(StartError::Misaligned { dma });
        }
        let mut registers = identified(registers)?;
        drain();
        show(&mut registers, dma, mode, C::FORMAT);
        Ok(Self { _controller: Controller(registers), frame, mode, colour: PhantomData })
    }

    /// Its size and timings.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The memory that is scanned.
    pub const fn frame(&self) -> &F {
        &self.frame
    }

    /// Waits until the controller sees all that was drawn. Any context.
    #[expect(
        clippy::unused_self,
        reason = "what is waited for are the stores to this one's memory"
    )]
    pub fn flush(&mut self) {
        drain();
    }

    /// Stores `pixels` from column `x` of line `y` on, as many as the line has left, if it is one.
    fn store(&mut self, x: u32, y: u32, pixels: impl Iterator<Item = C>) {
        if let Some(place) = self.mode.place(x, y) {
            let left = (self.mode.width() - x) as usize;
            let words = pixels.take(left).map(C::word);
            self.frame.store(place * C::FORMAT.bytes(), words);
        }
    }
}

/// Makes sure that they are those of a PL111 that is off.
fn identified(registers: IoMem<Registers>) -> Result<IoMem<Registers>, StartError> {
    let mut registers = registers;
    let block = registers.registers();
    let identification = field_shared!(block, identification);
    for (register, expected) in IDENTIFICATION.into_iter().enumerate() {
        let found = identification.get(register).map_or(0, |register| register.read()) & 0xff;
        // The revision's four bits are any.
        let relevant = if register == 2 { 0x0f } else { 0xff };
        if found & relevant != expected {
            return Err(StartError::NotAPl111 { register, found });
        }
    }
    let control = field_shared!(block, control).read();
    if control & ENABLE != 0 {
        return Err(StartError::Running { control });
    }
    Ok(registers)
}

/// Turns the controller on: its signals first, then the panel's power (DDI 0293, 3.2.7).
fn show(registers: &mut IoMem<Registers>, dma: DmaAddr, mode: Mode, format: PixelFormat) {
    let mut block = registers.registers();
    let [across, down, signals] = mode.timings();
    let [mut first, mut second, mut third] = field!(block, timings).split();
    first.write(across);
    second.write(down);
    third.write(signals);
    field!(block, line_end).write(0);
    field!(block, upper_base).write(dma.raw());
    // For panels in two halves.
    field!(block, lower_base).write(0);
    field!(block, interrupt_mask).write(0);
    field!(block, clear_interrupts).write(INTERRUPTS);
    let on = format.control() | THIN_FILM | ENABLE;
    field!(block, control).write(on);
    field!(block, control).write(on | POWER);
}

/// A controller that is on. Dropped, it is off, and its registers are unmapped.
#[derive(Debug)]
struct Controller(IoMem<Registers>);

impl Drop for Controller {
    fn drop(&mut self) {
        stop(&mut self.0);
    }
}

/// Stops a controller that may be on, such as one whose picture the firmware shows. When this returns, it reads no memory any more.
pub fn stop(registers: &mut IoMem<Registers>) {
    let mut block = registers.registers();
    let control = field_shared!(block, control).read();
    field!(block, control).write(control & !POWER);
    field!(block, control).write(control & !(POWER | ENABLE));
    // It is answered behind what was written.
    let _posted = field_shared!(block, control).read();
}
