//! The Hal of the `virtio-drivers` crate: where its devices' memory comes from.
//!
//! `virtio-drivers` asks for two kinds of memory. Rings are coherent memory, taken once. Buffers of requests belong to
//! whoever made the request and may lie anywhere (on the stack, in the heap, at odd addresses): `share` maps them for the device,
//! in place where that can be, else by a copy, and `unshare` ends that. Buffers that are coherent memory, the atomic pool's too,
//! are the device's as they are.
//!
//! It is a crate of its own because `Hal` is an unsafe trait and `drivers` forbids `unsafe`; for the same reason requests that
//! are not waited for at once are made here.
#![no_std]
#![cfg(target_arch = "arm")]

extern crate alloc;

mod entropy;
mod hal;
mod link;
mod requests;
mod slot;
mod tracked;

pub use entropy::{EntropySource, Notices};
pub use hal::{CoherentHal, shared_buffers};
pub use link::{Link, QUEUE, Steady, Waits};
pub use requests::{read_blocks, write_blocks};
pub use slot::{Slot, modern_transport};
