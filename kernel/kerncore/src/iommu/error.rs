//! What can go wrong with a domain, one enum an operation.

use core::fmt;

use crate::addr::DmaAddr;
use crate::frames::AllocateError;
use crate::page_table::MapError;
use crate::pool::NewError;

/// Why a domain was not made. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The window does not begin with a page.
    Unaligned {
        /// Where it begins.
        base: DmaAddr,
    },
    /// The window holds no page.
    NoPages {
        /// How large it is.
        bytes: u32,
    },
    /// The window has the last page of all addresses, or passes it.
    Wraps {
        /// Where it begins.
        base: DmaAddr,
        /// How large it is.
        bytes: u32,
    },
    /// The memory of its bitmaps will not do.
    Bits(NewError),
    /// No memory for the first-level table.
    Frames(AllocateError),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unaligned { base } => {
                write!(f, "a domain cannot begin inside a page, at {base}")
            }
            Self::NoPages { bytes } => write!(f, "{bytes} bytes of device addresses hold no page"),
            Self::Wraps { base, bytes } => {
                write!(f, "{bytes} bytes of device addresses from {base} pass the last that can be")
            }
            Self::Bits(error) => error.fmt(f),
            Self::Frames(error) => error.fmt(f),
        }
    }
}

/// Why device addresses were not given, or not taken back. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IovaError {
    /// No page was asked for.
    Empty,
    /// No aligned run of so many pages is free.
    Exhausted {
        /// Pages wanted.
        pages: u32,
        /// Pages of the largest run that could be given.
        largest: u32,
        /// Pages that are free, in whatever runs.
        free: u32,
    },
    /// There are addresses, but none as low as the device's mask demands (S100).
    OutOfReach {
        /// The lowest.
        start: DmaAddr,
        /// The last that the device reaches.
        last: DmaAddr,
    },
    /// The address does not lie in the domain's window.
    Outside {
        /// The address.
        start: DmaAddr,
    },
    /// Nothing is mapped there: it never was, or is no more.
    Free {
        /// The address.
        start: DmaAddr,
    },
    /// Somebody else is ending what is mapped there just now.
    Claimed {
        /// The address.
        start: DmaAddr,
    },
    /// What is mapped there begins elsewhere, or has another size.
    OtherRun {
        /// The address.
        start: DmaAddr,
        /// How many pages were named.
        pages: u32,
        /// Where that begins which the address lies in.
        found: DmaAddr,
        /// How many pages it has.
        has: u32,
    },
}

impl fmt::Display for IovaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("a mapping of no pages"),
            Self::Exhausted { pages, largest, free } => write!(
                f,
                "no run of {pages} pages of device addresses: {free} are free, at most {largest} in a run"
            ),
            Self::OutOfReach { start, last } => {
                write!(f, "no device addresses below {start}, and the device reaches up to {last}")
            }
            Self::Outside { start } => write!(f, "{start} is no address of the device's domain"),
            Self::Free { start } => write!(f, "nothing is mapped for the device at {start}"),
            Self::Claimed { start } => {
                write!(f, "what is mapped for the device at {start} is being unmapped already")
            }
            Self::OtherRun { start, pages, found, has } => {
                write!(
                    f,
                    "{pages} pages at {start}: what is mapped there has {has} from {found} on"
                )
            }
        }
    }
}

/// Why frames were not mapped for a device. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainMapError {
    /// No addresses.
    Iova(IovaError),
    /// The tables: no memory for one, or a slot in use.
    Map(MapError),
}

impl fmt::Display for DomainMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iova(error) => error.fmt(f),
            Self::Map(error) => write!(f, "device addresses: {error}"),
        }
    }
}

impl core::error::Error for CreateError {}
impl core::error::Error for IovaError {}
impl core::error::Error for DomainMapError {}

impl From<IovaError> for DomainMapError {
    fn from(error: IovaError) -> Self {
        Self::Iova(error)
    }
}
