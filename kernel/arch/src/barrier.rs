//! Barriers (ARM ARM A3.8.3).
//!
//! All of them act on the full system and are barriers to the compiler, too: none is marked `nomem`.

macro_rules! barrier {
    ($(#[$meta:meta])* $name:ident, $instruction:literal) => {
        $(#[$meta])*
        #[inline(always)]
        pub fn $name() {
            // SAFETY: a barrier changes no register, flag or memory.
            unsafe { core::arch::asm!($instruction, options(nostack, preserves_flags)) };
        }
    };
}

barrier! {
    /// Data memory barrier: accesses before it are observed before accesses after it.
    dmb, "dmb"
}
barrier! {
    /// Data synchronization barrier: every access and every cache, TLB and branch-predictor operation before it is
    /// complete, on every CPU that it concerns, when the next instruction begins.
    dsb, "dsb"
}
barrier! {
    /// Instruction synchronization barrier: what comes next is fetched anew, with every completed change of
    /// translation, CP15 and code in effect.
    isb, "isb"
}
