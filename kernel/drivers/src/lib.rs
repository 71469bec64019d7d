//! Drivers: small, safe code over typed registers ([`mm::io_mem::IoMem`]) and DMA memory.
//!
//! A driver never sees a raw address: the image hands it a mapped register block, and memory for its device comes
//! from the `dma` crate. So this crate needs no `unsafe`; the one piece that does, the Hal of `virtio-drivers`
//! (an unsafe trait), is a crate of its own, `virtio-hal`. That nobody but an owner of `mm` maps registers, or makes a
//! pointer to them, a test of the host reads in the sources (S98).
#![no_std]
#![cfg(target_arch = "arm")]
#![forbid(unsafe_code)]

pub mod gic;
pub mod interrupts;
pub mod pen;
pub mod pl011;
pub mod pl111;
pub mod pl310;
pub mod private_timer;
pub mod sp804;
pub mod virtio;
