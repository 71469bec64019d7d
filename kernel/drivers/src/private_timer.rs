//! The timer that each CPU has of its own (Cortex-A9 `MPCore` TRM, ARM DDI 0407, 4.2).
//!
//! It counts down at the clock of the CPU's private peripherals. The registers are banked: through one mapping each CPU
//! reaches its own timer, so whoever sets one up sets up that of the CPU it runs on.

use mm::io_mem::IoMem;
use safe_mmio::fields::ReadPureWrite;
use safe_mmio::{field, field_shared};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The registers.
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Registers {
    load: ReadPureWrite<u32>,
    counter: ReadPureWrite<u32>,
    control: ReadPureWrite<u32>,
    status: ReadPureWrite<u32>,
}

const ENABLE: u32 = 1;
const RELOAD: u32 = 1 << 1;
const INTERRUPT: u32 = 1 << 2;
/// Of the status register: the counter has reached zero. Cleared by writing one.
const EVENT: u32 = 1;

/// What a timer does when it has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Stops.
    Once,
    /// Begins again.
    Periodic,
}

/// The timer of the CPU that uses it. Dropped, it is unmapped, and counts on as it was set up.
#[derive(Debug)]
pub struct PrivateTimer(IoMem<Registers>);

impl PrivateTimer {
    /// Takes the timers over, of all CPUs; this CPU's is stopped.
    pub fn new(registers: IoMem<Registers>) -> Self {
        let mut timer = Self(registers);
        timer.stop();
        timer
    }

    /// Raises this CPU's interrupt after `ticks`, at least one, then again every so many ticks if it is to `repeat`.
    pub fn start(&mut self, ticks: u32, repeat: Repeat) {
        self.stop();
        // It counts its load value and zero.
        let mut registers = self.0.registers();
        field!(registers, load).write(ticks.saturating_sub(1));
        let reload = if repeat == Repeat::Periodic { RELOAD } else { 0 };
        field!(registers, control).write(ENABLE | INTERRUPT | reload);
    }

    /// Stops it, and takes back an interrupt that was not served.
    pub fn stop(&mut self) {
        let mut registers = self.0.registers();
        field!(registers, control).write(0);
        field!(registers, status).write(EVENT);
    }

    /// Lowers the interrupt, and says whether it was raised. For handlers.
    pub fn acknowledge(&mut self) -> bool {
        let mut registers = self.0.registers();
        let event = field_shared!(registers, status).read() & EVENT != 0;
        field!(registers, status).write(EVENT);
        event
    }

    /// What is left to count.
    pub fn counter(&mut self) -> u32 {
        field_shared!(self.0.registers(), counter).read()
    }
}
