//! Memory that devices reach.
//!
//! ```text
//!   caller            back end (kerncore::coherent)        memory
//!   ──────            ─────────────────────────────        ──────
//!   may sleep     ──▶ remap                           ──▶  contiguous frames, uncached, no cacheable view left
//!   may not sleep ──▶ atomic pool                     ──▶  a piece of uncached memory made at boot
//!   any, and the device snoops ──▶ simple             ──▶  ordinary frames
//! ```
//!
//! What this crate believes: a free finds its back end by asking, never by guessing (S75); memory that a device may
//! write is not a Rust slice ([`coherent::Coherent`]), memory that only the processor owns is
//! ([`coherent::CoherentBox`]).
#![no_std]
#![cfg(target_arch = "arm")]

extern crate alloc;

pub mod atomic_pool;
pub mod coherent;
pub mod device;
mod error;
