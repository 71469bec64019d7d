//! What can go wrong with a request.

use core::fmt;

use dma::streaming::{MapError, UnmapError};
use kerncore::addr::DmaAddr;
use virtio_drivers::Error;

/// Why a request was not carried out. Nothing of it is left with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// What the device did wrong or refuses; or nobody could do that.
    Device(Error),
    /// The device cannot have a buffer, and was not asked.
    Buffer {
        /// The device.
        device: &'static str,
        /// The buffer's size.
        bytes: u32,
        /// Why.
        error: MapError,
    },
    /// A buffer could not be taken back, though the device is done: what that wrote is not there, and nobody else may have the buffer.
    Back {
        /// The device.
        device: &'static str,
        /// Where it has the buffer.
        dma: DmaAddr,
        /// The buffer's size.
        bytes: u32,
        /// Why.
        error: UnmapError,
    },
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        Self::Device(error)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Buffer { device, bytes, error } => {
                write!(f, "{device}: no request with a buffer of {bytes} bytes: {error}")
            }
            Self::Back { device, dma, bytes, error } => {
                write!(f, "{device}: {bytes} bytes at {dma} were not taken back: {error}")
            }
        }
    }
}

impl core::error::Error for RequestError {}
