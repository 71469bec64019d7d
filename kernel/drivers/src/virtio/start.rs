//! What can go wrong with a device.

use core::fmt;

pub use virtio_hal::RequestError;

use super::transport::SlotError;

/// Why a device is not there, or did not come up. Nothing was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// The slot gives no transport to such a device.
    Slot(SlotError),
    /// The device did not come up.
    Device(RequestError),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DeviceError {}
