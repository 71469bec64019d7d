//! Why the address space refused: one enum an operation, with the offender in the variant.

use core::fmt;

use crate::addr::VirtAddr;
use crate::owned_range::OwnedRange;

use super::{FIRST_REFUSED_SIZE, RecordId, VaStorage};

/// Why [`super::VaSpace::new`] refused. What was lent and given comes back.
#[derive(Debug)]
pub enum NewError<'s> {
    /// The space has no page.
    EmptySpace {
        /// The range that was given.
        space: OwnedRange,
        /// The storage that was lent.
        storage: VaStorage<'s>,
    },
    /// One of the storage's arrays has fewer words than a space of this size needs.
    StorageTooSmall {
        /// The range that was given.
        space: OwnedRange,
        /// The storage that was lent.
        storage: VaStorage<'s>,
        /// Which array.
        array: StorageArray,
        /// Words needed.
        wanted: usize,
        /// Words lent.
        had: usize,
    },
}

/// One of the arrays of a [`VaStorage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageArray {
    /// [`VaStorage::tags`].
    Tags,
    /// [`VaStorage::holes`].
    Holes,
    /// [`VaStorage::starts`].
    Starts,
}

/// Why [`super::VaSpace::reserve`] refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReserveError {
    /// No bytes were asked for (S3).
    ZeroSize,
    /// With rounding and the guard the size would pass 2³² (S3).
    TooLarge {
        /// The size asked for.
        bytes: u32,
    },
    /// No free run in the window holds the area and its guard at the alignment (S7, S8).
    NoSpace {
        /// Pages wanted, the guard included.
        wanted: u32,
        /// The alignment wanted, as a power of two of pages.
        order: u32,
        /// Pages in the largest free run of the whole space, whatever the window.
        largest_hole: u32,
    },
}

/// Why [`super::VaSpace::publish`] refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishError {
    /// No area begins at this address.
    NotReserved {
        /// The address.
        base: VirtAddr,
    },
    /// The area was published before.
    AlreadyLive {
        /// The area's base.
        base: VirtAddr,
        /// The record that it has.
        record: RecordId,
    },
    /// The area was retired and is on its way out.
    Dying {
        /// The area's base.
        base: VirtAddr,
    },
}

/// Why [`super::VaSpace::release`] refused. Nothing has changed, and the ranges come back.
#[derive(Debug, PartialEq, Eq)]
pub enum ReleaseError {
    /// The two are not exactly the usable pages and the guard of one area of this space.
    NotReserved {
        /// The usable pages as they were given.
        usable: OwnedRange,
        /// The guard as it was given.
        guard: OwnedRange,
    },
    /// Lookups still find the area; it must be retired first (S14a).
    StillLive {
        /// The usable pages as they were given.
        usable: OwnedRange,
        /// The guard as it was given.
        guard: OwnedRange,
        /// The area's record.
        record: RecordId,
    },
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroSize => f.write_str("a size of zero"),
            Self::TooLarge { bytes } => {
                write!(f, "a size of {bytes:#x} bytes, beyond {:#x}", FIRST_REFUSED_SIZE - 1)
            }
            Self::NoSpace { wanted, order, largest_hole } => write!(
                f,
                "no room for {wanted} pages aligned to 2^{order} pages; the largest hole has {largest_hole}"
            ),
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotReserved { base } => write!(f, "no area begins at {base}"),
            Self::AlreadyLive { base, record } => {
                write!(f, "the area at {base} is live as record {}", record.index())
            }
            Self::Dying { base } => write!(f, "the area at {base} is dying"),
        }
    }
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReserved { usable, guard } => {
                write!(f, "{} with guard {} is not an area", usable.pages(), guard.pages())
            }
            Self::StillLive { usable, record, .. } => {
                write!(f, "the area {} is live as record {}", usable.pages(), record.index())
            }
        }
    }
}
