//! The CPU's own interrupt mask, CPSR.I.
//!
//! (The `free` of the `aarch32-cpu` crate's `interrupt` module does the opposite of its name, hence none of it here.)

use core::marker::PhantomData;

/// CPSR.I: IRQs are masked.
const MASKED: u32 = 1 << 7;

/// How interrupts were masked before [`save_and_mask`]. It belongs to the CPU, and to the mode, that saved it.
#[derive(Debug)]
#[must_use = "interrupts stay masked until it is restored"]
pub struct Saved {
    cpsr: u32,
    /// Another CPU has a mask of its own.
    not_send: PhantomData<*const ()>,
}

/// Masks IRQs and says how it was before. Such sections nest.
#[inline(always)]
pub fn save_and_mask() -> Saved {
    let cpsr;
    // SAFETY: changes the I bit only. No `nomem`: what follows is not to be moved before it.
    unsafe {
        core::arch::asm!("mrs {cpsr}, cpsr", "cpsid i", cpsr = out(reg) cpsr, options(nostack, preserves_flags));
    }
    Saved { cpsr, not_send: PhantomData }
}

impl Saved {
    /// Undoes the [`save_and_mask`] that gave this.
    #[inline(always)]
    pub fn restore(self) {
        // SAFETY: the control bits of the CPSR as they were in this mode: mode, state and F are what they are, I is
        // what it was. No `nomem`: what came before is not to be moved behind it.
        unsafe {
            core::arch::asm!("msr cpsr_c, {cpsr}", cpsr = in(reg) self.cpsr, options(nostack, preserves_flags));
        }
    }
}

/// Runs `section` with IRQs masked.
#[inline(always)]
pub fn masked<R>(section: impl FnOnce() -> R) -> R {
    let saved = save_and_mask();
    let result = section();
    saved.restore();
    result
}

/// Whether IRQs are masked on this CPU.
#[inline(always)]
pub fn are_masked() -> bool {
    let cpsr: u32;
    // SAFETY: reads a register. No `nomem`, so that it is read here and not earlier.
    unsafe {
        core::arch::asm!("mrs {cpsr}, cpsr", cpsr = out(reg) cpsr, options(nostack, preserves_flags));
    };
    cpsr & MASKED != 0
}

/// Masks IRQs.
#[inline(always)]
pub fn mask() {
    // SAFETY: changes the I bit only.
    unsafe { core::arch::asm!("cpsid i", options(nostack, preserves_flags)) };
}

/// Unmasks IRQs.
///
/// # Safety
/// The image's `kernel_exception` must be ready to serve interrupts, and no lock may be held and no section run that
/// relies on their being masked.
#[inline(always)]
pub unsafe fn unmask() {
    // SAFETY: by the caller's promise.
    unsafe { core::arch::asm!("cpsie i", options(nostack, preserves_flags)) };
}
