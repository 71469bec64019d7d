//! The CPU that this code runs on.

use crate::cp15::Mpidr;

/// How many CPUs a Cortex-A9 cluster can have.
pub const MAX_CPUS: usize = 4;

/// The number of this CPU in its cluster, 0 to 3 (MPIDR, affinity level 0; A9 TRM 4.3.5).
///
/// It is the number of the CPU that asked: with interrupts on, ask again after anything that may migrate.
#[inline(always)]
pub fn id() -> u32 {
    Mpidr::read().0 & 3
}

/// Waits until an interrupt is pending, masked or not.
#[inline(always)]
pub fn wait_for_interrupt() {
    // SAFETY: changes no register or memory of this program. The DSB before it completes what the interrupt's
    // source may be waiting for; no `nomem`, since a handler may run here and change anything.
    unsafe { core::arch::asm!("dsb", "wfi", options(nostack, preserves_flags)) };
}

/// Stops this CPU for good, with interrupts masked.
pub fn halt() -> ! {
    // SAFETY: masking costs nothing but attention, and this CPU has none to give any more.
    unsafe { core::arch::asm!("cpsid aif", options(nostack, preserves_flags)) };
    loop {
        wait_for_interrupt();
    }
}
