//! What each CPU has of its own.
//!
//! ```text
//!   TPIDRPRW of CPU n ──▶ CPU_BLOCKS[n]   what this crate needs to know of a CPU, one load away
//!                         PerCpu<T>[n]    whatever else there is one of for each CPU
//! ```
//!
//! The boot stub sets TPIDRPRW before Rust runs, so that all of this works in any context from the first instruction
//! on. Nothing here migrates: a reference that this CPU has got stays its own.

use core::sync::atomic::AtomicU32;

use crate::cp15::Tpidrprw;
use crate::cpu::MAX_CPUS;
use crate::smp::Slot;

/// What this crate keeps for each CPU. Words that other CPUs may look at; none of them is written by two.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct CpuBlock {
    /// The CPU's number.
    pub(crate) number: u32,
    /// How far it has come, as `smp` counts.
    pub(crate) state: AtomicU32,
    /// How often it has begun or finished something: while this changes, who waits for the CPU has patience.
    pub(crate) beats: AtomicU32,
    /// What it is to do.
    pub(crate) slot: Slot,
}

// boot/src/stub.S finds a block by a shift.
const _: () = assert!(size_of::<CpuBlock>() == 128);

impl CpuBlock {
    const fn new(number: u32) -> Self {
        Self { number, state: AtomicU32::new(0), beats: AtomicU32::new(0), slot: Slot::new() }
    }
}

/// The blocks. The boot stub knows the name.
#[unsafe(no_mangle)]
static CPU_BLOCKS: [CpuBlock; MAX_CPUS] =
    [CpuBlock::new(0), CpuBlock::new(1), CpuBlock::new(2), CpuBlock::new(3)];

/// This CPU's block.
#[inline(always)]
pub(crate) fn this() -> &'static CpuBlock {
    let block: *const CpuBlock = core::ptr::with_exposed_provenance(Tpidrprw::read());
    // SAFETY: the boot stub has put the address of one of `CPU_BLOCKS` there before any Rust ran, and nobody changes it.
    // They live for ever, and change by atomics only.
    unsafe { &*block }
}

/// The block of the CPU with this number.
#[inline(always)]
pub(crate) fn of(cpu: u32) -> Option<&'static CpuBlock> {
    CPU_BLOCKS.get(cpu as usize)
}

/// One `T` for each CPU that there can be. They lie side by side: a `T` that is written often wants the alignment of a
/// cache line, lest two CPUs fight for one.
#[derive(Debug)]
pub struct PerCpu<T>([T; MAX_CPUS]);

impl<T> PerCpu<T> {
    /// These, in the order of the CPUs' numbers.
    pub const fn new(each: [T; MAX_CPUS]) -> Self {
        Self(each)
    }

    /// This CPU's. A handler that interrupts the caller gets the same one.
    #[inline(always)]
    pub fn here(&self) -> &T {
        // The number is less than MAX_CPUS by the way the blocks are made; the mask tells the compiler so.
        &self.0[this().number as usize % MAX_CPUS]
    }

    /// That of the CPU with this number, if there can be one.
    pub fn of(&self, cpu: u32) -> Option<&T> {
        self.0.get(cpu as usize)
    }

    /// All of them, in the order of the CPUs' numbers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}
