//! From reset to the kernel at high addresses.
//!
//! ```text
//!   every CPU ──▶ _start (physical)           empty TLB and caches
//!                   │          │
//!                   │ CPU 0    └──▶ wait_for_boot_cpu
//!                   │ SCU on, zero .bss,      │
//!                   │ build the first tables  │ let in by secondaries::let_in
//!                   ▼                         ▼
//!                join_coherency, turn_mmu_on  the same tables
//!                   ▼                         ▼
//!                boot_high (virtual)          identity mapping gone, vectors, a stack for each mode, TPIDRPRW
//!                   ▼                         ▼
//!                kernel_main(r0, r1, r2)      kernel_secondary()     the binary's
//! ```
//!
//! The code is assembly, because it runs before there is a stack, zeroed memory or a mapping; everything that can
//! wait until Rust runs is left to Rust. The addresses come from `linker.ld`.
#![cfg_attr(not(test), no_std)]

#[cfg(target_arch = "arm")]
pub mod layout;
#[cfg(target_arch = "arm")]
pub mod secondaries;

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
