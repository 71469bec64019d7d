//! Why the address space refused: one enum an operation, with the offender in the variant.

use core::fmt;

use crate::addr::VirtAddr;
use crate::owned_range::OwnedRange;

use super::{FIRST_REFUSED_SIZE, VaStorage};

/// Why [`super::VaSpace::new`] refused. What was lent and given comes back.
#[derive(Debug)]
pub enum NewError<'s, R> {
    /// The space has no page.
    EmptySpace {
        /// The range that was given.
        space: OwnedRange,
        /// The storage that was lent.
        storage: VaStorage<'s, R>,
    },
    /// One of the storage's arrays is shorter than a space of this size needs.
    StorageTooSmall {
        /// The range that was given.
        space: OwnedRange,
        /// The storage that was lent.
        storage: VaStorage<'s, R>,
        /// Which array.
        array: StorageArray,
        /// Elements needed.
        wanted: usize,
        /// Elements lent.
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
    /// [`VaStorage::records`].
    Records,
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

/// Why [`super::VaSpace::publish`] refused. Nothing has changed, and the record comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishError<R> {
    /// No area begins at this address.
    NotReserved {
        /// The address.
        base: VirtAddr,
        /// The record as it was given.
        record: R,
    },
    /// The area was published before.
    AlreadyLive {
        /// The area's base.
        base: VirtAddr,
        /// The record as it was given; the area keeps the one that it has.
        record: R,
    },
    /// The area was retired and is on its way out.
    Dying {
        /// The area's base.
        base: VirtAddr,
        /// The record as it was given.
        record: R,
    },
}

/// Why [`super::VaSpace::release`] refused. Nothing has changed, and the range comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum ReleaseError {
    /// These are not exactly the usable pages of one area of this space.
    NotReserved {
        /// The pages as they were given.
        usable: OwnedRange,
    },
    /// Lookups still find the area; it must be retired first (S14a).
    StillLive {
        /// The pages as they were given.
        usable: OwnedRange,
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

impl<R> fmt::Display for PublishError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReserved { base, .. } => write!(f, "no area begins at {base}"),
            Self::AlreadyLive { base, .. } => write!(f, "the area at {base} is live already"),
            Self::Dying { base, .. } => write!(f, "the area at {base} is dying"),
        }
    }
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReserved { usable } => write!(f, "{} is not an area", usable.pages()),
            Self::StillLive { usable } => write!(f, "the area {} is live", usable.pages()),
        }
    }
}
