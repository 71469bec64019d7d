//! Removing an area, of whatever kind.

use core::{fmt, mem};

use crate::addr::{DmaAddr, PageRange, PhysAddr, VirtAddr};
use crate::area::{AreaKind, AreaRecord, Mapping};
use crate::contiguous::GiveBackError;
use crate::frames::{FrameList, FrameOwner, FreeError};
use crate::kernel_space::KernelSpace;
use crate::kernel_space::areas::AreaPlace;
use crate::linear_map::{Absent, LinearFault};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{LargeParts, Mapped, Parked, Released, Removal};

/// Why an area was not removed. Nothing has changed, but for [`RemoveError::Frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveError {
    /// Not the address of a page, so it cannot be an area's (S32).
    Misaligned {
        /// The address given.
        address: VirtAddr,
    },
    /// No live area begins there: never mapped, inside an area, or removed before (S32).
    Unknown {
        /// The address given.
        address: VirtAddr,
    },
    /// The area is of a kind that this call may not remove (S34).
    WrongKind {
        /// The address given.
        address: VirtAddr,
        /// What lies there.
        found: AreaKind,
    },
    /// The mapping at this address has another size than was said.
    OtherSize {
        /// The address given.
        address: VirtAddr,
        /// Its pages.
        found: u32,
        /// The pages that were said.
        wanted: u32,
    },
    /// Programs see the area; their windows must end first (S46).
    InUse {
        /// The address given.
        address: VirtAddr,
        /// How many windows.
        users: u16,
    },
    /// Somebody is changing what the area maps.
    Busy {
        /// The address given.
        address: VirtAddr,
    },
    /// The coherent area at this address lies elsewhere on the bus than was said.
    Elsewhere {
        /// The address given.
        address: VirtAddr,
        /// Where it lies.
        found: PhysAddr,
    },
    /// The coherent buffer at this address is seen elsewhere by a device than was said, or by a device of another domain.
    SeenElsewhere {
        /// The address given.
        address: VirtAddr,
        /// Where its device sees it.
        found: DmaAddr,
    },
    /// The area is gone, but its frames did not come back: the frame table disagrees with the area about who owns
    /// them. They stay out of use.
    Frames {
        /// The address given.
        address: VirtAddr,
        /// What disagreed.
        error: FramesError,
    },
}

/// Why frames did not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramesError {
    /// The frame table names another owner.
    Free(FreeError),
    /// The contiguous region has not lent them.
    NotLent,
    /// They are not the contiguous region's to take back.
    Contiguous(GiveBackError),
    /// The linear map does not have the gap that they left.
    Linear(LinearFault),
    /// An entry that nobody should have made still maps some of them (S22).
    StillMapped,
    /// Of the array of pointers to them, which has an area of its own: that was not to be ended.
    PageArray,
}

impl fmt::Display for FramesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free(error) => error.fmt(f),
            Self::NotLent => {
                f.write_str("some are the contiguous region's, which has not lent them")
            }
            Self::Contiguous(error) => error.fmt(f),
            Self::Linear(error) => error.fmt(f),
            Self::StillMapped => f.write_str("some are still mapped, by an entry of somebody else"),
            Self::PageArray => f.write_str("their array's area is not as it was, and stays"),
        }
    }
}

impl RemoveError {
    /// The area at `address` has `users`, which is not zero.
    #[cold]
    pub(super) const fn in_use(address: VirtAddr, users: u16) -> Self {
        match users {
            AreaRecord::BUSY => Self::Busy { address },
            users => Self::InUse { address, users },
        }
    }
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { address } => write!(f, "{address} is not the address of a page"),
            Self::Unknown { address } => write!(f, "no area begins at {address}"),
            Self::WrongKind { address, found } => {
                write!(f, "the area at {address} is of kind {found}")
            }
            Self::OtherSize { address, found, wanted } => {
                write!(f, "the mapping at {address} has {found} pages, not {wanted}")
            }
            Self::InUse { address, users } => {
                write!(f, "the area at {address} is seen by programs, in {users} windows")
            }
            Self::Busy { address } => {
                write!(f, "what the area at {address} maps is being changed")
            }
            Self::Elsewhere { address, found } => {
                write!(f, "the area at {address} lies at physical {found}")
            }
            Self::SeenElsewhere { address, found } => {
                write!(f, "the buffer at {address} is seen at {found} by the device that it is for")
            }
            Self::Frames { address, error } => {
                write!(f, "the frames of the area at {address} are not its own: {error}")
            }
        }
    }
}

impl core::error::Error for RemoveError {}

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Ends a vmap area that was retired.
    #[inline(never)]
    pub(super) fn vunmap_dying(
        &self,
        base: VirtAddr,
        mut dying: AreaPlace<'s>,
    ) -> Result<(), RemoveError> {
        L::memory_goes(|| Some((base, dying.pages().bytes())));
        let Some(mut usable) = dying.mapping.take_borrowed() else { return self.tear_down(dying) };
        self.readers.wait_for(base);
        if self.table.clear_at_hand(&mut usable) {
            self.areas.with(|areas| areas.release(usable, dying));
            return Ok(());
        }
        self.end_many_borrowed(usable, dying)
    }

    /// Once more, of what is no vmap area that may be removed: a bare one, or one of which is said what is wrong.
    #[cold]
    #[inline(never)]
    pub(super) fn vunmap_refused(&self, base: VirtAddr) -> Result<(), RemoveError> {
        match self.remove_refused(base, AreaKind::Vmap) {
            Err(RemoveError::WrongKind { found: AreaKind::Bare, .. }) => self.vunmap_bare(base),
            removed => removed,
        }
    }

    #[cold]
    fn vunmap_bare(&self, base: VirtAddr) -> Result<(), RemoveError> {
        self.remove("vunmap", base, AreaKind::Bare)
    }

    /// Areas are made and removed outside of interrupt context alone (S10, S35), by `operation` for one: whoever does it in a
    /// handler may have interrupted the very step that he is about to take. Nor under a lock, where that is watched.
    #[inline(always)]
    pub(super) fn may_sleep_for(&self, operation: &'static str) {
        if self.table.machine().in_interrupt() {
            called_in_interrupt(operation);
        }
        L::might_sleep(operation);
    }

    #[inline(always)]
    fn remove(
        &self,
        operation: &'static str,
        base: VirtAddr,
        kind: AreaKind,
    ) -> Result<(), RemoveError> {
        self.may_sleep_for(operation);
        let Some(dying) = self.areas.with(|areas| areas.retire_quickly(base, kind)) else {
            return self.remove_refused(base, kind);
        };
        L::memory_goes(|| Some((base, dying.pages().bytes())));
        self.tear_down(dying)
    }

    /// Once more, to learn what is wrong: to put that into words keeps registers and memory busy.
    #[cold]
    #[inline(never)]
    pub(super) fn remove_refused(&self, base: VirtAddr, kind: AreaKind) -> Result<(), RemoveError> {
        self.tear_down(self.retire(base, kind)?)
    }

    /// Live → Dying, if the area at `base` is of `kind`; in one critical section.
    #[inline(always)]
    pub(super) fn retire(
        &self,
        base: VirtAddr,
        kind: AreaKind,
    ) -> Result<AreaPlace<'s>, RemoveError> {
        let dying = self.areas.with(|areas| areas.retire(base, kind))?;
        L::memory_goes(|| Some((base, dying.pages().bytes())));
        Ok(dying)
    }

    /// Dying → Flushed → Free. The addresses and the frames come out of the flush and not before it (S23).
    #[inline(always)]
    pub(super) fn tear_down(&self, mut dying: AreaPlace<'s>) -> Result<(), RemoveError> {
        // Most areas are of these two kinds, which take as little as they can.
        if let Some((usable, list)) = dying.mapping.take_frames() {
            return self.end_frames(usable, list, dying);
        }
        if let Some(usable) = dying.mapping.take_borrowed() {
            return self.end_borrowed(usable, dying);
        }
        self.tear_down_other(dying).map(|_| ())
    }

    /// Of an area of small pages with frames of their own.
    #[inline(always)]
    fn end_frames(
        &self,
        usable: OwnedRange,
        list: FrameList,
        mut dying: AreaPlace<'s>,
    ) -> Result<(), RemoveError> {
        let address = usable.start();
        self.readers.wait_for(address);
        self.assert_no_null(&dying, usable.pages());
        match self.table.unmap_few(usable, list) {
            Ok((range, list)) => {
                let freed = self.zones.free_list_of(list, FrameOwner::Vmalloc);
                let array = self.free_array(mem::take(&mut dying.array));
                self.areas.with(|areas| areas.release(range, dying));
                match freed {
                    Ok(()) => array,
                    Err(error) => after(address, FramesError::Free(error)),
                }
            }
            Err((range, list)) => self.end_many_frames(range, list, dying),
        }
    }

    /// When they are many, or not as they should be.
    #[inline(never)]
    pub(super) fn end_many_frames(
        &self,
        usable: OwnedRange,
        list: FrameList,
        mut dying: AreaPlace<'s>,
    ) -> Result<(), RemoveError> {
        let pages = usable.pages();
        let Released { range, payload, removal } = self.table.unmap(usable, list).flush();
        let freed = self.unless_odd(pages, removal, || {
            self.zones.free_list_of(payload, FrameOwner::Vmalloc).map_err(FramesError::Free)
        });
        let array = self.free_array(mem::take(&mut dying.array));
        self.give_up_addresses(range, removal, dying);
        match freed {
            Ok(()) => array,
            Err(error) => after(pages.start(), error),
        }
    }

    /// Of an area whose pages belong to somebody else.
    #[inline(always)]
    fn end_borrowed(&self, usable: OwnedRange, dying: AreaPlace<'s>) -> Result<(), RemoveError> {
        self.readers.wait_for(usable.start());
        match self.table.unmap_few(usable, ()) {
            Ok((range, ())) => {
                self.areas.with(|areas| areas.release(range, dying));
                Ok(())
            }
            Err((range, ())) => self.end_many_borrowed(range, dying),
        }
    }

    /// When they are many, or not as they should be.
    #[inline(never)]
    pub(super) fn end_many_borrowed(
        &self,
        usable: OwnedRange,
        dying: AreaPlace<'s>,
    ) -> Result<(), RemoveError> {
        let pages = usable.pages();
        let Released { range, removal, .. } = self.table.unmap(usable, ()).flush();
        let ended = self.unless_odd(pages, removal, || Ok(()));
        self.give_up_addresses(range, removal, dying);
        match ended {
            Ok(()) => Ok(()),
            Err(error) => after(pages.start(), error),
        }
    }

    /// Of any other area.
    #[cold]
    #[inline(never)]
    pub(super) fn tear_down_other(&self, mut dying: AreaPlace<'s>) -> Result<Removal, RemoveError> {
        let mapping = mem::replace(&mut dying.mapping, Mapping::Nothing);
        let pages = mapping.pages();
        let address = pages.start();
        self.readers.wait_for(address);
        let (range, removal, freed) = match mapping {
            // Of no area, or of one whose count keeps it from being retired.
            Mapping::Nothing | Mapping::Away { .. } => {
                return Err(RemoveError::Unknown { address });
            }
            // Ended by `scattered_free` alone, which knows the device's side. Nobody retires one by its kind.
            Mapping::Scattered(_) => {
                return Err(RemoveError::WrongKind { address, found: AreaKind::Scattered });
            }
            Mapping::Frames { usable, list } => {
                self.assert_no_null(&dying, pages);
                self.end_many_frames(usable, list, dying)?;
                return Ok(Removal { pages: pages.count(), ..Removal::default() });
            }
            Mapping::Borrowed { usable } => {
                self.end_many_borrowed(usable, dying)?;
                return Ok(Removal { pages: pages.count(), ..Removal::default() });
            }
            Mapping::Devices { usable } => {
                let count = usable.count();
                dying.mapping = Mapping::Devices { usable };
                self.end_devices(dying)?;
                return Ok(Removal { pages: count, ..Removal::default() });
            }
            Mapping::Reserved { usable } => (usable, Removal::default(), Ok(())),
            Mapping::Large { usable, list, parts, parked } => {
                if dying.kind == AreaKind::Vmalloc {
                    self.assert_no_null(&dying, pages);
                }
                let Released { range, payload, removal } =
                    self.unmap_large(usable, parts, parked, list);
                let freed = self.unless_odd(pages, removal, || {
                    self.zones.free_list(payload).map_err(FramesError::Free)
                });
                (range, removal, freed)
            }
            Mapping::Code { lent, .. } => return self.end_code(lent, dying),
            Mapping::Lent(lent) => {
                let Released { range, payload, removal } = lent.unmap(&self.table).flush();
                (range, removal, self.unless_odd(pages, removal, || self.take_back(payload)))
            }
        };
        let array = self.free_array(mem::take(&mut dying.array));
        self.give_up_addresses(range, removal, dying);
        match freed {
            Ok(()) => array.map(|()| removal),
            Err(error) => Err(RemoveError::Frames { address, error }),
        }
    }

    /// Not inlined: most areas are of small pages.
    #[cold]
    #[inline(never)]
    pub(super) fn unmap_large(
        &self,
        usable: OwnedRange,
        parts: LargeParts,
        parked: Parked,
        list: FrameList,
    ) -> Released<FrameList> {
        let small = usable.count().saturating_sub(parts.pages());
        self.table.unmap_large(usable, Mapped { parts, small }, parked, list).flush()
    }

    /// Flushed → Free, unless an entry was left alone that still maps some of the addresses.
    #[inline(always)]
    pub(super) fn give_up_addresses(
        &self,
        range: OwnedRange,
        removal: Removal,
        mut place: AreaPlace<'s>,
    ) {
        self.forget_devices(&mut place);
        self.areas.with(|areas| {
            if removal.left_alone == 0 {
                areas.release(range, place);
            } else {
                areas.records.give_back(place);
            }
        });
    }

    /// Reports what is odd; runs `free` unless an entry was left alone, whose frames and addresses then stay out of
    /// use, because they are still mapped.
    #[inline]
    pub(super) fn unless_odd(
        &self,
        area: PageRange,
        removal: Removal,
        free: impl FnOnce() -> Result<(), FramesError>,
    ) -> Result<(), FramesError> {
        if removal.oddities != 0 {
            self.support.odd_tables(area, removal);
        }
        if removal.left_alone == 0 { free() } else { Err(FramesError::StillMapped) }
    }

    /// Puts a block that was lent back into the linear map, and frees it.
    pub(crate) fn take_back(&self, absent: Absent) -> Result<(), FramesError> {
        let block = self.linear.restore(absent);
        let block = block.map_err(|error| FramesError::Linear(error.into_parts().0))?;
        self.free_block(block)
    }
}

/// What is said of an area that is gone without its frames.
#[cold]
#[inline(never)]
const fn after(address: VirtAddr, error: FramesError) -> Result<(), RemoveError> {
    Err(RemoveError::Frames { address, error })
}

/// The end of whoever makes or removes an area in a handler.
#[cold]
#[inline(never)]
fn called_in_interrupt(operation: &'static str) -> ! {
    panic!("{operation} in interrupt context, where no area is made or removed")
}
