//! The Hal of the `virtio-drivers` crate: where its devices' memory comes from.
//!
//! `virtio-drivers` asks for two kinds of memory. Rings are coherent memory, taken once. Buffers of requests belong to
//! whoever made the request and may lie anywhere (on the stack, in the heap, at odd addresses): `share` maps them for the device,
//! in place where that can be, else by a copy, and `unshare` ends that.
//!
//! It is a crate of its own because `Hal` is an unsafe trait and `drivers` forbids `unsafe`.
#![no_std]
#![cfg(target_arch = "arm")]

mod hal;
mod requests;
mod slot;

pub use hal::{CoherentHal, shared_buffers};
pub use requests::read_blocks;
pub use slot::{Slot, modern_transport};
