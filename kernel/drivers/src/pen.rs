//! The pen in which a loader of Linux's boot protocol holds the CPUs other than 0.
//!
//! ```text
//!   CPU n:  waits for an interrupt ──▶ looks into SYS_FLAGS ──▶ zero: waits again
//!                                                           ──▶ an address: jumps there, MMU off
//! ```
//!
//! The boot monitor of the board does so, and QEMU for a raw image. Where there is no pen, nobody reads the flags.

use kerncore::addr::PhysAddr;
use mm::io_mem::IoMem;
use safe_mmio::field;
use safe_mmio::fields::WriteOnly;
use zerocopy::{FromBytes, Immutable};

/// `SYS_FLAGSSET` and `SYS_FLAGSCLR` of the board's system registers.
#[derive(Debug, FromBytes, Immutable)]
#[repr(C)]
pub struct Flags {
    /// Sets the bits that are written as one.
    set: WriteOnly<u32>,
    /// Clears the bits that are written as one.
    clear: WriteOnly<u32>,
}

/// Writes down that whoever is in the pen is to go to `entry`. They look when an interrupt has woken them.
pub fn open(flags: &mut IoMem<Flags>, entry: PhysAddr) {
    let mut flags = flags.registers();
    field!(flags, clear).write(u32::MAX);
    field!(flags, set).write(entry.raw());
}
