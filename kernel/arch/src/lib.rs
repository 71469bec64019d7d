//! The processor: Cortex-A9, ARMv7-A.
//!
//! Everything the kernel asks of the processor itself goes through here: CP15 registers, caches, the TLB, barriers,
//! exceptions, interrupt masks, and the host's semihosting. No device, no memory policy.
//!
//! What this crate believes:
//!
//! * **One register, one file** (`cp15`), with the manual's names for its fields.
//! * **Ordering is visible to the compiler.** Every barrier and every TLB, cache or table-register operation is
//!   assembly without `nomem`, so that no store moves across it.
//! * **A fault can be a value.** `probe` accesses any address and says what happened, with no state kept anywhere.
//! * **What needs no processor compiles without one**: the decoding of faults and frames, backtraces, symbols, and the addresses
//!   that maintenance names are tested on the host.
//!
//! References: "ARM ARM" is ARM DDI 0406C, "A9 TRM" is ARM DDI 0388.
#![cfg_attr(not(test), no_std)]

pub mod backtrace;
#[cfg(target_arch = "arm")]
pub mod barrier;
#[cfg(any(test, target_arch = "arm"))]
mod by_address;
#[cfg(target_arch = "arm")]
pub mod cache;
#[cfg(target_arch = "arm")]
pub mod cp15;
#[cfg(target_arch = "arm")]
pub mod cpu;
pub mod exception;
#[cfg(target_arch = "arm")]
pub mod failure;
#[cfg(target_arch = "arm")]
pub mod irq;
#[cfg(target_arch = "arm")]
pub mod lines;
#[cfg(target_arch = "arm")]
pub mod lock;
#[cfg(target_arch = "arm")]
pub mod machine;
#[cfg(target_arch = "arm")]
pub mod memory;
#[cfg(target_arch = "arm")]
pub mod outer;
#[cfg(target_arch = "arm")]
pub mod per_cpu;
#[cfg(target_arch = "arm")]
pub mod probe;
#[cfg(target_arch = "arm")]
pub mod semihosting;
#[cfg(target_arch = "arm")]
pub mod smp;
#[cfg(target_arch = "arm")]
mod stream;
pub mod symbols;
#[cfg(target_arch = "arm")]
pub mod tlb;
pub mod translate;
#[cfg(target_arch = "arm")]
pub mod user;
