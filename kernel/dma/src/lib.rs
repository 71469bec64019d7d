//! Memory that devices reach.
//!
//! ```text
//!   caller            back end (kerncore::coherent)        memory
//!   ──────            ─────────────────────────────        ──────
//!   may sleep     ──▶ remap                           ──▶  contiguous frames, uncached, no cacheable view left
//!   may not sleep ──▶ atomic pool                     ──▶  a piece of uncached memory made at boot
//!   any, and the device snoops ──▶ simple             ──▶  ordinary frames
//!   any, and the device has its own ──▶ declared      ──▶  a piece of that
//! ```
//!
//! Memory that a device has for one transfer is ordinary memory, and stays where it is ([`streaming`]), or is copied
//! ([`bounce`]).
//!
//! What this crate believes: a free finds its back end by asking, never by guessing (S75); memory that a device may
//! write is not a Rust slice ([`coherent::Coherent`]), memory that only the processor owns is
//! ([`coherent::CoherentBox`]).
#![no_std]
#![cfg(target_arch = "arm")]

extern crate alloc;

pub mod atomic_pool;
pub mod attributes;
mod book;
pub mod bounce;
pub mod coherent;
mod coherent_owners;
pub mod debug;
pub mod declared;
mod declared_claims;
pub mod device;
mod direct;
pub mod dma_pool;
mod error;
pub mod in_place;
mod index;
pub mod iommu;
pub mod list;
pub mod listing;
pub mod mapping;
pub mod mapping_list;
pub mod names;
mod pinning;
mod pool_error;
pub mod pool_growth;
pub mod scatter;
mod shown;
pub mod streaming;
mod streaming_error;
mod streaming_sync;
pub mod write_combined;
