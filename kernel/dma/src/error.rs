//! Why a coherent buffer was not given, or not taken back.

use core::fmt;

use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::dma_mask::DmaMask;
use kerncore::frames;
use kerncore::kernel_space::{CoherentError, RemoveError};
use kerncore::pool;

use crate::atomic_pool::PoolError;

/// Why there is no buffer. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateError {
    /// A size of zero.
    ZeroSize,
    /// The atomic pool has none.
    Pool(PoolError),
    /// No contiguous memory, or no addresses.
    Remap(CoherentError),
    /// No contiguous memory.
    Simple(frames::AllocateError),
    /// There is memory, but not as low as the device's mask demands (S100).
    OutOfReach {
        /// The device.
        device: &'static str,
        /// How high it reaches.
        mask: DmaMask,
        /// What was wanted.
        bytes: u32,
        /// What there is of that kind of memory.
        found: Found,
    },
}

/// What there was for a device that does not reach all memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many frames are free that it reaches, none or too few of them adjacent.
    Frames(u32),
    /// What the atomic pool would give, which lies here.
    Pool(DmaAddr),
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("a size of zero"),
            Self::Pool(error) => error.fmt(f),
            Self::Remap(error) => error.fmt(f),
            Self::Simple(error) => error.fmt(f),
            Self::OutOfReach { device, mask, bytes, found } => {
                write!(f, "{device} reaches up to {mask}, and no {bytes} bytes are free there: ")?;
                match found {
                    Found::Frames(free) => write!(f, "{free} frames are"),
                    Found::Pool(dma) => write!(f, "the atomic pool has {dma}"),
                }
            }
        }
    }
}

impl core::error::Error for AllocateError {}

/// Why a buffer was not freed. Nothing has changed; the error was printed, with a backtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The atomic pool knows the address and refuses (S74).
    Pool(pool::FreeError),
    /// No coherent buffer begins there (S67).
    Invalid(RemoveError),
    /// Not memory that a coherent device was given.
    Simple(frames::FreeError),
    /// The address is not the device's view of the buffer.
    Handle {
        /// The buffer.
        address: VirtAddr,
        /// Where the device should see it.
        wanted: DmaAddr,
        /// What was given.
        given: DmaAddr,
    },
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(error) => error.fmt(f),
            Self::Invalid(error) => error.fmt(f),
            Self::Simple(error) => error.fmt(f),
            Self::Handle { address, wanted, given } => {
                write!(f, "the buffer at {address} is the device's {wanted}, not {given}")
            }
        }
    }
}

impl core::error::Error for FreeError {}
