//! The Hal of the `virtio-drivers` crate: where its devices' memory comes from.
//!
//! `virtio-drivers` asks for two kinds of memory. Rings, and what says what a request is, are coherent memory, taken once. Buffers of
//! requests belong to whoever made the request and may lie anywhere (on the stack, in the heap, at odd addresses): they are mapped
//! for the device before the crate hears of the request, in place where that can be, else by a copy; so that who has no room for a
//! copy gets an error, and nothing has happened. Buffers that are coherent memory, the atomic pool's too, are the device's as they
//! are.
//!
//! It is a crate of its own because `Hal` is an unsafe trait and `drivers` forbids `unsafe`; for the same reason all requests are
//! made here.
#![no_std]
#![cfg(target_arch = "arm")]

extern crate alloc;

mod blocks;
mod entropy;
mod error;
mod hal;
mod link;
mod mapped;
mod slot;

pub use blocks::Blocks;
pub use entropy::{EntropySource, Notices};
pub use error::RequestError;
pub use link::{Link, QUEUE, Steady, Waits};
pub use mapped::{Mapped, shared_buffers};
pub use slot::{Slot, modern_transport};
