//! Changing what a live area maps, without the lock of areas.
//!
//! ```text
//!   Live, found by lookups       ──take──▶   Away: still found, not removed, not shown   ──put──▶   Live
//!   mapping in its record                    mapping with whoever changes it
//! ```
//!
//! Descriptors are written under no lock, so who maps into an area that others can find takes its mapping out of the record
//! for as long as that lasts. A removal meanwhile is refused, as one of an area that programs see is.

use core::{fmt, mem};

use crate::addr::VirtAddr;
use crate::area::{AreaKind, AreaRecord, Mapping};
use crate::kernel_space::KernelSpace;
use crate::lock::{Lock, Locks};
use crate::machine::Machine;

/// Why what an area maps was not changed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// Not the address of a page, so it cannot be an area's.
    Misaligned {
        /// The address given.
        address: VirtAddr,
    },
    /// No live area begins there.
    Unknown {
        /// The address given.
        address: VirtAddr,
    },
    /// What the area is, its owner alone may change.
    WrongKind {
        /// The address given.
        address: VirtAddr,
        /// What lies there.
        found: AreaKind,
    },
    /// Programs see the area; their windows must end first.
    InUse {
        /// The address given.
        address: VirtAddr,
        /// How many windows.
        users: u16,
    },
    /// It is mapped by sections or large pages, and the change would split them (S90).
    Large {
        /// The address given.
        address: VirtAddr,
    },
    /// Somebody else is changing it.
    Busy {
        /// The address given.
        address: VirtAddr,
    },
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { address } => write!(f, "{address} is not the address of a page"),
            Self::Unknown { address } => write!(f, "no area begins at {address}"),
            Self::WrongKind { address, found } => {
                write!(f, "the area at {address} is of kind {found}")
            }
            Self::InUse { address, users } => {
                write!(f, "the area at {address} is seen by programs, in {users} windows")
            }
            Self::Large { address } => {
                write!(f, "the area at {address} is a large mapping, which is never split")
            }
            Self::Busy { address } => {
                write!(f, "what the area at {address} maps is being changed")
            }
        }
    }
}

impl core::error::Error for ChangeError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Takes the mapping of the area at `base` out of its record, if `may` says that it is one whose mapping the caller may
    /// change. Whoever takes it puts it back by [`KernelSpace::put`], on every path.
    pub(super) fn take(
        &self,
        base: VirtAddr,
        may: impl FnOnce(&AreaRecord) -> bool,
    ) -> Result<Mapping, ChangeError> {
        if !base.is_page_aligned() {
            return Err(ChangeError::Misaligned { address: base });
        }
        let taken = self.areas.with(|areas| {
            let record = areas.find_mut(base).ok_or(ChangeError::Unknown { address: base })?;
            match record.users {
                AreaRecord::BUSY => return Err(ChangeError::Busy { address: base }),
                _ if !may(record) => {
                    return Err(ChangeError::WrongKind { address: base, found: record.kind });
                }
                0 => {}
                users => return Err(ChangeError::InUse { address: base, users }),
            }
            record.users = AreaRecord::BUSY;
            let pages = record.pages();
            Ok(mem::replace(&mut record.mapping, Mapping::Away { pages }))
        })?;
        // Whoever began to copy from or to it before ends; whoever begins now is shown no memory of it.
        self.readers.wait_for(base);
        Ok(taken)
    }

    /// Puts a mapping back that [`KernelSpace::take`] took, and changes the record by `change`.
    pub(super) fn put<R>(
        &self,
        base: VirtAddr,
        mapping: Mapping,
        change: impl FnOnce(&mut AreaRecord) -> R,
    ) -> Option<R> {
        self.areas.with(|areas| {
            let record = areas.find_mut(base);
            debug_assert!(
                record.as_ref().is_some_and(|record| record.users == AreaRecord::BUSY),
                "removed while its mapping was away"
            );
            let record = record?;
            record.users = 0;
            record.mapping = mapping;
            Some(change(record))
        })
    }
}
