//! `vmalloc_sync_all`, the hook after tables were made: weak, so that whoever links something else to it is called (S47).
//!
//! The kernel itself has nothing to do there: all address spaces share its tables.

core::arch::global_asm!(
    ".pushsection .text.vmalloc_sync_all, \"ax\"",
    ".weak vmalloc_sync_all",
    ".type vmalloc_sync_all, %function",
    ".arm",
    "vmalloc_sync_all:",
    "bx lr",
    ".size vmalloc_sync_all, . - vmalloc_sync_all",
    ".popsection",
);

unsafe extern "C" {
    /// Called when tables for kernel addresses were made ahead of their use. Does nothing, unless an image defines it. Any
    /// context that may make an area.
    // Ours does nothing, and another keeps C's contract of a function without arguments.
    pub safe fn vmalloc_sync_all();
}
