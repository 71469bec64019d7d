//! The algorithms and types of Mapwright.
//!
//! What this crate believes:
//!
//! * **Pure core.** Whatever can run on the host lives here and does: no hardware, no `unsafe`, no dependency.
//!   Hardware is a [`machine::Machine`], a lock is a [`lock::Lock`], memory for bookkeeping is lent by the caller.
//! * **Addresses are types.** Four of them ([`addr`]), checked arithmetic, no conversion from bare integers.
//! * **States are types.** Who may write a descriptor holds an [`owned_range::OwnedRange`]; what was unmapped hides its
//!   addresses and frames until it was flushed.
//! * **Errors name the offender.** One enum an operation, with the address in the variant.
//!
//! The lints are strict because a rule that no lint enforces is kept by nobody.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
pub mod area;
pub mod attributes;
pub mod audit;
pub mod bounce;
pub mod bus;
pub mod coherent;
pub mod config;
pub mod contiguous;
pub mod descriptor;
pub mod dma_attributes;
pub mod dma_mask;
pub mod dma_pool;
pub mod failure;
pub mod frames;
pub mod gfp;
pub mod handover;
pub mod holder;
pub mod iommu;
pub mod kernel_space;
pub mod kmap;
pub mod layout;
pub mod lcd;
pub mod ledger;
pub mod linear_map;
pub mod lines;
pub mod lock;
pub mod machine;
pub mod map_ram;
pub mod misuse;
pub mod owned_range;
pub mod page_table;
pub mod physical_index;
pub mod pool;
pub mod scatter;
pub mod slab;
pub mod streaming;
pub mod user;
pub mod va_space;
pub mod zones;
