//! Areas that are made, or removed, in one critical section: the common cases, without a word of what is wrong.
//!
//! ```text
//!   vmap_at_hand      addresses ─▶ descriptors ─▶ record ─▶ Live       ┐
//!   vunmap            find ─▶ clear ─▶ flush (S23) ─▶ Free             │ under the lock of areas
//!   reserve_at_hand   addresses ─▶ record ─▶ Live                      │
//!   free_reserved     find ─▶ Free                                     ┘
//! ```
//! Each either does all of it, or nothing has changed and the caller goes the general way, which takes its steps one by one and
//! names the offender. Descriptors are still written by right of ownership and need no lock; few of them cost less than to give
//! the lock back and take it again. [`MOST_AT_ONCE`] bounds how long interrupts are masked for that.

use crate::addr::VirtAddr;
use crate::area::{AreaFlags, AreaKind, AreaRecord, AreaSummary, Mapping, VmStruct};
use crate::failure::Point;
use crate::frames::Frame;
use crate::kernel_space::areas::{AreaPlace, Areas};
use crate::kernel_space::map_ram::write;
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::vmap::frames_of;
use crate::kernel_space::vmap_large::{FEWEST, may_begin_a_run};
use crate::kernel_space::{Ended, KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::va_space::{End, Request};

/// Pages that are mapped, or unmapped and flushed, under the lock of areas at most.
pub const MOST_AT_ONCE: u32 = 16;

/// An area that is dying, of which nothing is unmapped yet; or none, where there was no area to unmap.
#[derive(Debug)]
#[must_use = "what is left is still mapped"]
pub struct LeftToUnmap<'s>(Option<AreaPlace<'s>>);

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// As [`KernelSpace::vmap_pages`], of up to [`MOST_AT_ONCE`] pages, if addresses, a place for the record and the second-level table are at
    /// hand and every page may be mapped, which is the rule. Otherwise nothing has changed.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn vmap_at_hand(
        &self,
        pages: &[*const Frame],
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Option<VirtAddr> {
        let count = u32::try_from(pages.len()).ok()?;
        if !self.are_few(count) {
            return None;
        }
        if pages.len() >= FEWEST && may_begin_a_run(frames_of(pages, self.zones.table())) {
            return None;
        }
        let new = NewArea::new(AreaKind::Vmap, caller).flags(flags);
        self.make_at_hand("vmap", count, |areas, mut place, usable| {
            let range = usable.pages();
            new.describe(&mut place, Mapping::Borrowed { usable });
            if let Mapping::Borrowed { usable } = &mut place.mapping {
                let mapped =
                    self.table.map_records_at_hand(usable, pages, |machine, slots, pages| {
                        write::write(machine, slots, pages, &self.ram)
                    });
                match mapped {
                    Ok(()) => {
                        areas.go_live(range, place);
                        return Some(range.start());
                    }
                    Err(written) => self.unmap_begun(areas, place, written),
                }
            }
            None
        })
    }

    /// Whether there are pages, and no more than are mapped [at once](MOST_AT_ONCE), or than RAM has.
    #[inline(always)]
    pub fn are_few(&self, count: u32) -> bool {
        count.wrapping_sub(1) < self.most_at_once
    }

    /// Makes an area of `pages` in one critical section, if what [`Areas::begin`] takes is at hand. `make` makes it live, or gives it
    /// up.
    #[inline(always)]
    fn make_at_hand<R>(
        &self,
        operation: &'static str,
        pages: u32,
        make: impl FnOnce(&mut Areas<'s>, AreaPlace<'s>, OwnedRange) -> Option<R>,
    ) -> Option<R> {
        self.may_sleep_for(operation);
        self.bound_backlog();
        // Where something is to fail, the general way is asked, point by point.
        if L::fails(Point::ShortCut) {
            return None;
        }
        self.areas.with(|areas| {
            let (place, usable) = areas.begin(pages)?;
            make(areas, place, usable)
        })
    }

    /// Unmaps the first `written` pages of an area that was begun and not mapped altogether, and frees its addresses.
    #[cold]
    #[inline(never)]
    fn unmap_begun(&self, areas: &mut Areas<'s>, mut place: AreaPlace<'s>, written: u32) {
        if let Some(mut usable) = place.mapping.take_borrowed() {
            let undone = self.table.unmap_part(&mut usable, 0, written);
            debug_assert!(undone.is_ok(), "mapped, so inside: {undone:?}");
            areas.give_up(usable, place);
        }
    }

    /// Removes the vmap area at `base`, or a bare one, whatever is mapped there; the frames belong to somebody else (S34). Not
    /// in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`].
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vunmap(&self, authority: M::Authority, base: VirtAddr) -> Result<(), RemoveError> {
        match self.vunmap_at_hand(authority, base) {
            Ok(()) => Ok(()),
            Err(left) => self.vunmap_left(base, left),
        }
    }

    /// As [`KernelSpace::vunmap`], of few pages, of an area that nobody reads or has tampered with, which is the rule.
    ///
    /// # Errors
    /// What is left for [`KernelSpace::vunmap_left`] to do, or to refuse.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn vunmap_at_hand(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
    ) -> Result<(), LeftToUnmap<'s>> {
        self.may_sleep_for("vunmap");
        let end = |record: &mut AreaRecord, pages: u32| {
            if record.kind != AreaKind::Vmap || record.users != 0 {
                return None;
            }
            if pages > MOST_AT_ONCE || !self.readers.are_none() {
                return Some(End::Dying);
            }
            let Mapping::Borrowed { usable } = &mut record.mapping else { return Some(End::Dying) };
            if usable.count() != pages {
                return Some(End::Dying);
            }
            L::memory_goes(|| Some((base, usable.pages().bytes())));
            if !self.table.clear_at_hand(usable) {
                return Some(End::Dying);
            }
            record.mapping = Mapping::Nothing;
            Some(End::Free)
        };
        self.areas.with(|areas| match areas.end_at_once(base, end) {
            Some(Ending::Free) => Ok(()),
            Some(Ending::Dying(dying)) => Err(LeftToUnmap(Some(dying))),
            None => Err(LeftToUnmap(None)),
        })
    }

    /// Does what [`KernelSpace::vunmap_at_hand`] left of the area at `base`.
    ///
    /// # Errors
    /// [`RemoveError`].
    #[inline(always)]
    pub fn vunmap_left(&self, base: VirtAddr, left: LeftToUnmap<'s>) -> Result<(), RemoveError> {
        match left {
            LeftToUnmap(Some(dying)) => self.vunmap_dying(base, dying),
            LeftToUnmap(None) => self.vunmap_refused(base),
        }
    }

    /// As [`KernelSpace::reserve_area`], if any place will do, and addresses and a place for the record are at hand; gives the
    /// descriptor. Otherwise nothing has changed.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn reserve_at_hand(
        &self,
        request: Request,
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Option<*const VmStruct> {
        self.reserve_at_hand_and(request, flags, caller, |_, descriptor| descriptor)
    }

    /// As [`KernelSpace::reserve_at_hand`]; gives what `and` makes of the area and its descriptor.
    #[inline(always)]
    pub(super) fn reserve_at_hand_and<R>(
        &self,
        request: Request,
        flags: AreaFlags,
        caller: VirtAddr,
        and: impl FnOnce(AreaSummary, *const VmStruct) -> R,
    ) -> Option<R> {
        let count = request.plain_pages()?;
        let new = NewArea::new(AreaKind::Bare, caller).flags(flags);
        self.make_at_hand("get_vm_area", count, |areas, mut place, usable| {
            let range = usable.pages();
            let area = new.describe(&mut place, Mapping::Reserved { usable });
            let descriptor = &raw const place.vm;
            areas.go_live(range, place);
            Some(and(area, descriptor))
        })
    }

    /// Frees the area of that descriptor, if nothing was ever mapped in it, so that there is nothing to flush, and nobody uses it.
    /// Otherwise nothing has changed.
    #[inline(always)]
    pub(super) fn free_reserved(&self, base: VirtAddr, descriptor: *const VmStruct) -> Ended {
        self.may_sleep_for("free_vm_area");
        let end = |record: &mut AreaRecord, pages: u32| {
            // No window shows an area that maps nothing, and whoever changes it has its mapping.
            let Mapping::Reserved { usable } = &record.mapping else { return None };
            let is_it = &raw const record.vm == descriptor
                && usable.count() == pages
                // Whoever reads it may find another's memory behind its addresses when they are taken again.
                && self.readers.are_none();
            if is_it {
                record.mapping = Mapping::Nothing;
            }
            is_it.then_some(End::Free)
        };
        self.areas.with(|areas| match areas.end_at_once(base, end) {
            Some(_) => Ended::Yes,
            None => Ended::No,
        })
    }
}

/// What became of an area that no longer lives.
#[derive(Debug)]
#[must_use = "a dying area is lost if it is dropped"]
pub(super) enum Ending<'s> {
    /// Its addresses are free, and its record is given back.
    Free,
    /// It waits for whoever unmaps it.
    Dying(AreaPlace<'s>),
}

impl<'s> Areas<'s> {
    /// Ends the live area at `base` as far as `end` says, as [`crate::va_space::VaSpace::end`] has it, its record too.
    #[inline(always)]
    pub(super) fn end_at_once(
        &mut self,
        base: VirtAddr,
        end: impl FnOnce(&mut AreaRecord, u32) -> Option<End>,
    ) -> Option<Ending<'s>> {
        match self.space.end(base, |place, pages| end(place, pages))? {
            (place, End::Free) => {
                self.records.give_back(place);
                Some(Ending::Free)
            }
            (place, End::Dying) => Some(Ending::Dying(place)),
        }
    }
}
