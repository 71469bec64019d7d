//! From reset to the kernel at high addresses.
//!
//! ```text
//!   all CPUs ──▶ _start (physical)           CPU 0: empty caches and TLB, zero .bss, build the first tables,
//!                   │         │                      MMU on
//!                   │ CPU 0   └──▶ park      the others wait
//!                   ▼
//!                boot_high (virtual)         identity mapping gone, vectors, a stack for each mode
//!                   ▼
//!                kernel_main(r0, r1, r2)     the binary's
//! ```
//!
//! The code is assembly, because it runs before there is a stack, zeroed memory or a mapping; everything that can
//! wait until Rust runs is left to Rust. The addresses come from `linker.ld`.
#![cfg_attr(not(test), no_std)]

#[cfg(target_arch = "arm")]
pub mod layout;

// The stub installs the vectors of `arch`, so whoever links the one needs the other.
#[cfg(target_arch = "arm")]
core::arch::global_asm!(include_str!("stub.S"), options(raw));

/// Makes the linker keep this crate: a binary calls it once, from `kernel_main`.
///
/// A crate that nothing refers to is not linked, whatever its assembly defines.
#[inline(always)]
pub fn link() {
    #[cfg(target_arch = "arm")]
    arch::exception::link();
}
