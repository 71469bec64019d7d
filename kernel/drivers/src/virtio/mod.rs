//! Virtio devices over memory-mapped registers, by the `virtio-drivers` crate.
//!
//! The crate is used unmodified. What is ours is the [`transport`] that speaks to either generation of registers
//! with the barriers that real hardware wants, and the Hal (crate `virtio-hal`) that gives it coherent memory.

pub mod block;
pub mod completion;
pub mod entropy;
mod legacy;
pub mod network;
mod request;
mod start;
pub mod transport;
mod wait;

use request::most_of_a_request;
pub use start::{DeviceError, RequestError};
pub use wait::Wait;
