//! Why a coherent buffer was not given, or not taken back.

use core::fmt;

use kerncore::addr::{DmaAddr, PhysAddr, VirtAddr};
use kerncore::dma_mask::DmaMask;
use kerncore::frames;
use kerncore::iommu::{DomainMapError, IovaError};
use kerncore::kernel_space::{CoherentError, FramesError, RemoveError, ScatteredError};
use kerncore::pool;
use mm::report::dump_stack;

use crate::atomic_pool::PoolError;
use crate::device::Device;
use crate::pool_growth;

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
    /// For a device behind an IOMMU no memory, in whatever pieces, or no addresses of the processor's.
    Scattered(ScatteredError),
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
    /// No memory for the kernel's own note of a buffer that has no other record, or is given out by a cookie.
    NoEntry {
        /// What was wanted.
        bytes: u32,
    },
    /// The device is behind an IOMMU, by which it cannot see the buffer (S108).
    Iommu {
        /// The device.
        device: &'static str,
        /// Why.
        error: DomainMapError,
    },
    /// The memory that was declared for the device has none; no other is used (S102).
    Declared {
        /// The device.
        device: &'static str,
        /// Why.
        error: pool::AllocateError,
    },
}

/// What there was for a device that does not reach all memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many frames are free that it reaches, none or too few of them adjacent.
    Frames(u32),
    /// What the atomic pool would give, which lies here.
    Pool(DmaAddr),
    /// What the memory that was declared for the device would give (S102).
    Declared {
        /// It lies here.
        lowest: DmaAddr,
        /// Where the device sees that memory.
        region: DmaAddr,
        /// How many pages that has.
        pages: u32,
    },
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("a size of zero"),
            Self::Pool(error) => error.fmt(f),
            Self::Remap(error) => error.fmt(f),
            Self::Simple(error) => error.fmt(f),
            Self::Scattered(error) => error.fmt(f),
            Self::OutOfReach { device, mask, bytes, found } => {
                write!(f, "{device} reaches up to {mask}, and no {bytes} bytes are free there: ")?;
                match found {
                    Found::Frames(free) => write!(f, "{free} frames are"),
                    Found::Pool(dma) => write!(f, "the atomic pool has {dma}"),
                    Found::Declared { lowest, region, pages } => {
                        write!(f, "of its own {pages} pages at {region} the lowest are at {lowest}")
                    }
                }
            }
            Self::NoEntry { bytes } => {
                write!(f, "no memory for the note of a buffer of {bytes} bytes")
            }
            Self::Iommu { device, error } => write!(f, "the IOMMU of {device} has {error}"),
            Self::Declared { device, error } => write!(f, "the memory of {device} has {error}"),
        }
    }
}

impl core::error::Error for AllocateError {}

impl AllocateError {
    /// Says what the atomic pool had, and who has the rest, if that is why there were no `bytes` for `device` (S104). Any context.
    #[cold]
    pub fn complain(&self, device: &Device, bytes: u32) {
        if let Self::Pool(PoolError::Refused(refusal)) = *self {
            pool_growth::complain(device, bytes, refusal);
        }
    }
}

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
    /// What was given is no cookie of a buffer without a mapping (S99).
    Cookie {
        /// What was given.
        given: VirtAddr,
        /// The device's address that was given with it.
        dma: DmaAddr,
    },
    /// The device is behind an IOMMU, and sees no buffer of that size there (S67).
    Iommu {
        /// The device.
        device: &'static str,
        /// Why.
        error: IovaError,
    },
    /// The buffer was given out by a cookie, and goes back by that (S99).
    Hidden {
        /// What was given: where only the kernel knows it.
        given: VirtAddr,
        /// The cookie.
        cookie: VirtAddr,
    },
    /// A device sees it through an IOMMU, and goes on seeing it (S67, S81).
    Seen {
        /// The buffer.
        address: VirtAddr,
        /// Where that device sees it.
        start: DmaAddr,
    },
    /// It lies in the memory that was declared for the device, which refuses (S102).
    Declared {
        /// The device.
        device: &'static str,
        /// Why.
        error: pool::FreeError,
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
            Self::Cookie { given, dma } => {
                write!(f, "{given} is no cookie of a buffer that the device sees at {dma}")
            }
            Self::Iommu { device, error } => {
                write!(f, "a free of a buffer of {device} behind its IOMMU was refused: {error}")
            }
            Self::Hidden { given, cookie } => {
                write!(f, "the buffer at {given} was given out by the cookie {cookie}")
            }
            Self::Seen { address, start } => {
                write!(
                    f,
                    "the buffer at {address} is seen at {start} through an IOMMU, by a device of which the free does not speak"
                )
            }
            Self::Declared { device, error } => {
                write!(f, "a free of memory of {device} was refused: {error}")
            }
        }
    }
}

impl core::error::Error for FreeError {}

/// Says that nothing that can be freed is at `address`.
#[cold]
pub(crate) fn invalid(address: VirtAddr, why: &dyn fmt::Display) {
    log::error!("trying to free invalid coherent area: {address}");
    log::error!("DMA: {why}");
    dump_stack();
}

/// The error of a buffer at `address` whose memory did not come back, and stays out of use.
#[cold]
pub(crate) fn out_of_use(address: VirtAddr, error: FramesError) -> FreeError {
    let error = RemoveError::Frames { address, error };
    invalid(address, &error);
    FreeError::Invalid(error)
}

/// The error of a buffer that lies at `physical`, and was given back as if it lay elsewhere.
#[cold]
pub(crate) fn wrong_handle(
    device: &Device,
    address: VirtAddr,
    physical: PhysAddr,
    given: DmaAddr,
) -> FreeError {
    wrong_view(address, device.dma_address(physical), given)
}

/// The error of a buffer that a device sees at `start` through an IOMMU, and another was named.
#[cold]
pub(crate) fn seen_by_another(address: VirtAddr, start: DmaAddr) -> FreeError {
    let error = FreeError::Seen { address, start };
    log::error!("DMA: {error}");
    dump_stack();
    error
}

/// The error of a buffer that the device sees at `wanted`.
#[cold]
pub(crate) fn wrong_view(address: VirtAddr, wanted: DmaAddr, given: DmaAddr) -> FreeError {
    let error = FreeError::Handle { address, wanted, given };
    log::error!("DMA: {error}");
    dump_stack();
    error
}
