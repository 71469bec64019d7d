//! What can go wrong with contiguous memory, one enum an operation.

use core::fmt;

use crate::addr::Pfn;
use crate::contiguous::RegionUse;
use crate::frames::AllocateError;

/// Why a borrower still has a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmovable {
    /// Somebody reads or writes it just now, through so many guards.
    Pinned {
        /// How many.
        guards: u32,
    },
    /// It is mapped for devices, which work on it.
    Mapped {
        /// By so many mappings.
        devices: u16,
    },
    /// It is being given to its borrower, or taken from him, or nobody knows whose it is.
    Busy,
    /// There is no memory to move it to.
    NoMemory(AllocateError),
}

/// Why no contiguous memory was given. Nothing was taken; pages that were moved out on the way are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContiguousError {
    /// No region was set aside on this kernel.
    Absent,
    /// Zero pages were asked for.
    Zero,
    /// The region is not so large.
    TooLarge {
        /// Pages asked for.
        pages: u32,
        /// Pages of the region.
        region: u32,
    },
    /// No run of so many pages is free of buffers.
    Exhausted {
        /// Pages asked for.
        pages: u32,
        /// Who has what.
        usage: RegionUse,
    },
    /// The only runs of so many pages have some that their borrowers keep: this was the first.
    Unmovable {
        /// Pages asked for.
        pages: u32,
        /// The page that stays.
        frame: Pfn,
        /// Why.
        why: Unmovable,
    },
}

/// Why contiguous memory was not taken back. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveBackError {
    /// It is not the region's.
    Outside {
        /// Its first frame.
        frame: Pfn,
    },
    /// Nobody has this page of it, or it is a borrower's.
    NotHeld {
        /// The page.
        frame: Pfn,
    },
}

impl fmt::Display for Unmovable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned { guards } => write!(f, "it is pinned by {guards} guards"),
            Self::Mapped { devices } => write!(f, "it is mapped for devices, {devices} times"),
            Self::Busy => f.write_str("it is changing hands"),
            Self::NoMemory(error) => write!(f, "nowhere to move it: {error}"),
        }
    }
}

impl fmt::Display for ContiguousError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Absent => f.write_str("no contiguous region: cma=<size> sets one aside"),
            Self::Zero => f.write_str("no contiguous pages were asked for"),
            Self::TooLarge { pages, region } => {
                write!(
                    f,
                    "{pages} pages wanted, the contiguous region has {region}; raise it with cma=<size>"
                )
            }
            Self::Exhausted { pages, usage: RegionUse { pages: region, held, lent, largest } } => {
                write!(
                    f,
                    "no run of {pages} contiguous pages: buffers have {held} of {region}, {lent} are lent, at most {largest} in a \
                     run; raise it with cma=<size>"
                )
            }
            Self::Unmovable { pages, frame, why } => {
                write!(
                    f,
                    "no run of {pages} contiguous pages: frame {frame} cannot be moved out: {why}"
                )
            }
        }
    }
}

impl fmt::Display for GiveBackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { frame } => write!(f, "frame {frame} is not the contiguous region's"),
            Self::NotHeld { frame } => {
                write!(f, "no buffer has frame {frame} of the contiguous region")
            }
        }
    }
}

impl core::error::Error for Unmovable {}
impl core::error::Error for ContiguousError {}
impl core::error::Error for GiveBackError {}
