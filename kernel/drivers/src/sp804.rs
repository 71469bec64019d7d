//! Dual timers, Arm's SP804 (ARM DDI 0271).
//!
//! One block has two counters of 32 bits and one interrupt for both. The board clocks them at 1 MHz.

use core::fmt;

use mm::io_mem::IoMem;
use safe_mmio::fields::{ReadPure, ReadPureWrite, WriteOnly};
use safe_mmio::{SharedMmioPointer, UniqueMmioPointer, field, field_shared};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use crate::private_timer::Repeat;

/// The registers of one of the two timers (DDI 0271, 3.2).
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct TimerRegisters {
    load: ReadPureWrite<u32>,
    value: ReadPure<u32>,
    control: ReadPureWrite<u32>,
    clear: WriteOnly<u32>,
    raw: ReadPure<u32>,
    masked: ReadPure<u32>,
    background_load: ReadPureWrite<u32>,
    _reserved: u32,
}

/// The registers of a block. Those beyond the timers identify it.
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Registers {
    timers: [TimerRegisters; 2],
    _reserved: [u32; 0x3e8],
    identification: [ReadPure<u32>; 8],
}

// Fixed by the manual.
const _: () = {
    assert!(size_of::<TimerRegisters>() == 0x20);
    assert!(core::mem::offset_of!(Registers, identification) == 0xfe0);
};

const ENABLE: u32 = 1 << 7;
const PERIODIC: u32 = 1 << 6;
const INTERRUPT: u32 = 1 << 5;
const BITS_32: u32 = 1 << 1;
const ONE_SHOT: u32 = 1;
/// One tick for 256 of the clock (DDI 0271, 3.2.3).
const PRESCALE_256: u32 = 2 << 2;

/// What identifies an SP804 (DDI 0271, 3.4): part number and designer, then the `PrimeCell`'s mark.
const IDENTIFICATION: [u32; 8] = [0x04, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The registers identify something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnSp804 {
    /// Which of the eight identification registers differs.
    pub register: usize,
    /// What it reads.
    pub found: u32,
}

impl fmt::Display for NotAnSp804 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no SP804: identification register {} reads {:#x}", self.register, self.found)
    }
}

impl core::error::Error for NotAnSp804 {}

/// Lets the first timer of a block count down for good from all ones, and then anew, once in 256 ticks of its clock, without
/// interrupts: its counter. Nobody else has the block.
///
/// # Errors
/// [`NotAnSp804`]; the mapping was given back.
pub fn count_down(
    registers: IoMem<Registers>,
) -> Result<SharedMmioPointer<'static, ReadPure<u32>>, NotAnSp804> {
    let mut registers = DualTimer::new(registers)?.0.leak();
    let timers = field!(registers, timers);
    let [mut timer, _] = timers.split();
    field!(timer, load).write(u32::MAX);
    field!(timer, control).write(ENABLE | BITS_32 | PRESCALE_256);
    let registers: SharedMmioPointer<'static, Registers> = registers.into();
    let timers = field_shared!(registers, timers);
    let [first, _] = timers.split();
    Ok(field_shared!(first, value))
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one at the block's base.
    First,
    /// The one behind it.
    Second,
}

/// A block of two timers. Dropped, it is unmapped, and counts on as it was set up.
#[derive(Debug)]
pub struct DualTimer(IoMem<Registers>);

impl DualTimer {
    /// Takes the block over; both timers are stopped.
    ///
    /// # Errors
    /// [`NotAnSp804`]; the mapping was given back.
    pub fn new(mut registers: IoMem<Registers>) -> Result<Self, NotAnSp804> {
        for (register, expected) in IDENTIFICATION.into_iter().enumerate() {
            let block = registers.registers();
            let identification = field_shared!(block, identification);
            let found = identification.get(register).map_or(0, |register| register.read()) & 0xff;
            // The revision's four bits are any.
            let known =
                if register == 2 { found & 0x0f == expected & 0x0f } else { found == expected };
            if !known {
                return Err(NotAnSp804 { register, found });
            }
        }
        let mut timers = Self(registers);
        timers.stop(Which::First);
        timers.stop(Which::Second);
        Ok(timers)
    }

    /// Raises the interrupt after `ticks`, at least one, then again every so many ticks if it is to `repeat`.
    pub fn start(&mut self, which: Which, ticks: u32, repeat: Repeat) {
        self.stop(which);
        let mode = if repeat == Repeat::Periodic { PERIODIC } else { ONE_SHOT };
        self.with(which, |mut timer| {
            // With nought to count, one of this board counts no more.
            field!(timer, load).write(ticks.max(1));
            field!(timer, control).write(ENABLE | INTERRUPT | BITS_32 | mode);
        });
    }

    /// Stops it, and takes back an interrupt that was not served.
    pub fn stop(&mut self, which: Which) {
        self.with(which, |mut timer| {
            field!(timer, control).write(0);
            field!(timer, clear).write(1);
        });
    }

    /// Lowers the interrupt, and says whether this timer had raised it. For handlers.
    pub fn acknowledge(&mut self, which: Which) -> bool {
        self.with(which, |mut timer| {
            let raised = field_shared!(timer, masked).read() & 1 != 0;
            field!(timer, clear).write(1);
            raised
        })
    }

    fn with<R>(
        &mut self,
        which: Which,
        use_timer: impl FnOnce(UniqueMmioPointer<'_, TimerRegisters>) -> R,
    ) -> R {
        let mut registers = self.0.registers();
        let [first, second] = field!(registers, timers).split();
        use_timer(match which {
            Which::First => first,
            Which::Second => second,
        })
    }
}
