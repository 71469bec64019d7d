//! The CPUs other than 0, which wait in the stub until they are let in.
//!
//! ```text
//!   ELF loader: every CPU is in the stub from the start     ──▶ the word, an event
//!   Linux's protocol: they wait in the loader's pen, and    ──▶ the word, then whatever opens the pen
//!   enter the stub when that is opened
//! ```

use core::sync::atomic::{AtomicU32, Ordering};

use arch::{barrier, cache, cpu};
use kerncore::addr::{PhysAddr, VirtAddr};

unsafe extern "C" {
    static boot_secondaries_may_enter: AtomicU32;
    static boot_cpus: AtomicU32;
    static _start: u8;
}

/// How many CPUs there are, as the snoop control unit says: 1 to 4.
pub fn count() -> u32 {
    // SAFETY: the stub's word, aligned, which lives for ever; CPU 0 wrote it before any Rust ran.
    unsafe { &boot_cpus }.load(Ordering::Relaxed)
}

/// Where a CPU begins that comes out of a pen: the stub, at its physical address.
pub fn entry() -> PhysAddr {
    PhysAddr::new((&raw const _start) as u32)
}

/// Lets the others in: those that wait in the stub, and those that come there later.
///
/// # Safety
/// Whatever `kernel_secondary` of the image relies on is ready: first of all the kernel's memory.
pub unsafe fn let_in() {
    // SAFETY: the stub's word, aligned, which lives for ever.
    let word = unsafe { &boot_secondaries_may_enter };
    word.store(1, Ordering::Release);
    // They read it with their caches off, from memory itself.
    let address = VirtAddr::new((&raw const *word) as u32);
    barrier::dmb();
    cache::clean(address, 4);
    cpu::send_event();
}
