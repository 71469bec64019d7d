//! What can go wrong with a streaming mapping, one enum an operation.

use core::fmt;

use kerncore::addr::{DmaAddr, Pfn, VirtAddr};
use kerncore::area::AreaSummary;
use kerncore::bounce::{Exhausted, GiveBackError};
use kerncore::iommu::{DomainMapError, IovaError};
use kerncore::kmap::KmapError;
use kerncore::streaming::{Bounced, Refusal};

/// Why memory was not mapped. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The size.
    Refused(Refusal),
    /// The address is not linear, so that what lies there need not be in one piece on the bus.
    NotLinear {
        /// The address.
        address: VirtAddr,
        /// The area that it lies in.
        area: Option<AreaSummary>,
    },
    /// It is not ordinary memory that is in use.
    Memory(KmapError),
    /// The device is behind an IOMMU, by which it cannot see it.
    Iommu(DomainMapError),
    /// It is lent by the contiguous region, which is just asking for it: what it holds will be elsewhere in a moment (S101).
    Moving {
        /// The first such frame.
        frame: Pfn,
    },
    /// There is no room for the copy that would have to be made.
    Exhausted {
        /// Why it would.
        why: Bounced,
        /// What there is.
        error: Exhausted,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::NotLinear { address, area: None } => {
                write!(f, "{address} is no linear address")
            }
            Self::NotLinear { address, area: Some(area) } => {
                let (kind, start) = (area.kind, area.pages.start());
                let caller = area.caller;
                write!(
                    f,
                    "{address} is no linear address, but in the area {kind:?} at {start} of {caller}"
                )
            }
            Self::Memory(error) => error.fmt(f),
            Self::Iommu(error) => error.fmt(f),
            Self::Moving { frame } => {
                write!(f, "{frame} is being moved out of the contiguous region")
            }
            Self::Exhausted { why, error } => write!(f, "{why}, and {error}"),
        }
    }
}

impl core::error::Error for MapError {}

/// Why a mapping was not ended, or not synchronised. Nothing has changed; but of memory that is gone ([`UnmapError::Memory`]) the
/// slots of a copy are free again, and a device behind an IOMMU does not see it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapError {
    /// The size.
    Refused(Refusal),
    /// What is no mapping: a call that failed gave this.
    MappingError,
    /// Slots of bounce buffers.
    Bounce(GiveBackError),
    /// More than the mapping has.
    Outside {
        /// Where.
        dma: DmaAddr,
        /// How many bytes.
        bytes: u32,
        /// How many there are from there on.
        left: u32,
    },
    /// It is not ordinary memory that is in use: somebody has freed it while the device had it.
    Memory(KmapError),
    /// The device is behind an IOMMU, and sees nothing of that size there.
    Iommu(IovaError),
    /// The device is behind an IOMMU, and what it sees there is made of other pieces than were named.
    OtherPieces {
        /// Where.
        dma: DmaAddr,
        /// How many bytes.
        bytes: u32,
    },
    /// The device is behind an IOMMU, and what it sees there is a coherent buffer, which ends by a free of it.
    Coherent {
        /// Where.
        dma: DmaAddr,
    },
}

impl fmt::Display for UnmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::MappingError => f.write_str("the mapping failed, so that there is none"),
            Self::Bounce(error) => error.fmt(f),
            Self::Outside { dma, bytes, left } => {
                write!(f, "{bytes} bytes from {dma}: the mapping has {left} from there on")
            }
            Self::Memory(error) => error.fmt(f),
            Self::Iommu(error) => error.fmt(f),
            Self::OtherPieces { dma, bytes } => {
                write!(f, "the {bytes} bytes at {dma} were mapped for the device in other pieces")
            }
            Self::Coherent { dma } => {
                write!(f, "{dma} is a coherent buffer's, which is freed and not unmapped")
            }
        }
    }
}

impl core::error::Error for UnmapError {}
