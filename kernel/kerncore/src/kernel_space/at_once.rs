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
use crate::va_space::{GUARD_PAGES, Request};

/// Pages that are mapped, or unmapped and flushed, under the lock of areas at most.
pub const MOST_AT_ONCE: u32 = 16;

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
        let table = self.zones.table();
        if count.wrapping_sub(1) >= MOST_AT_ONCE || count > self.zones.total() {
            return None;
        }
        if pages.len() >= FEWEST && may_begin_a_run(frames_of(pages, table)) {
            return None;
        }
        self.may_sleep_for("vmap");
        self.bound_backlog();
        // Where something is to fail, the general way is asked, point by point.
        if L::fails(Point::ShortCut) {
            return None;
        }
        let new = NewArea::new(AreaKind::Vmap, caller).flags(flags);
        self.areas.with(|areas| {
            let mut place = areas.records.take().ok()?;
            let Some((start, record)) = areas.space.begin(count.wrapping_add(GUARD_PAGES)) else {
                areas.records.give_back(place);
                return None;
            };
            new.describe(&mut place, Mapping::Borrowed { usable: start.range(count) });
            if let Mapping::Borrowed { usable } = &mut place.mapping {
                let written =
                    self.table.map_records_at_hand(usable, pages, |machine, slots, pages| {
                        write::write(machine, slots, pages, &self.ram)
                    });
                if written == count {
                    let address = usable.start();
                    *record = Some(place);
                    return Some(address);
                }
                self.unmap_begun(areas, place, written);
            }
            None
        })
    }

    /// Unmaps the first `written` pages of an area that was begun and not mapped altogether, and frees its addresses.
    #[cold]
    #[inline(never)]
    fn unmap_begun(&self, areas: &mut Areas<'s>, mut place: AreaPlace<'s>, written: u32) {
        if let Some(mut usable) = place.mapping.take_borrowed() {
            let undone = self.table.unmap_part(&mut usable, 0, written);
            debug_assert!(undone.is_ok(), "mapped, so inside: {undone:?}");
            areas.space.give_up(usable);
        }
        areas.records.give_back(place);
    }

    /// Removes the vmap area at `base`, or a bare one, whatever is mapped there; the frames belong to somebody else (S34). Not
    /// in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`].
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn vunmap(&self, _authority: M::Authority, base: VirtAddr) -> Result<(), RemoveError> {
        self.may_sleep_for("vunmap");
        // Few pages, of an area that nobody reads or has tampered with, go at once.
        let ended = |record: &mut AreaRecord, pages: u32| {
            let few = pages <= MOST_AT_ONCE && self.readers.are_none();
            if !few || record.kind != AreaKind::Vmap || record.users != 0 {
                return false;
            }
            let Some(mut usable) = record.mapping.take_borrowed() else { return false };
            if usable.count() == pages {
                L::memory_goes(|| Some((base, usable.pages().bytes())));
                if self.table.clear_at_hand(&mut usable) {
                    return true;
                }
            }
            record.mapping = Mapping::Borrowed { usable };
            false
        };
        let left = self.areas.with(|areas| match areas.end_at_once(base, ended) {
            Ended::Yes => None,
            Ended::No => Some(areas.retire_quickly(base, AreaKind::Vmap)),
        });
        match left {
            None => Ok(()),
            Some(Some(dying)) => self.vunmap_dying(base, dying),
            Some(None) => self.vunmap_refused(base),
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
        self.may_sleep_for("get_vm_area");
        self.bound_backlog();
        if L::fails(Point::ShortCut) {
            return None;
        }
        let new = NewArea::new(AreaKind::Bare, caller).flags(flags);
        self.areas.with(|areas| {
            let mut place = areas.records.take().ok()?;
            let Some((start, record)) = areas.space.begin(count.wrapping_add(GUARD_PAGES)) else {
                areas.records.give_back(place);
                return None;
            };
            let area = new.describe(&mut place, Mapping::Reserved { usable: start.range(count) });
            let descriptor = &raw const place.vm;
            *record = Some(place);
            Some(and(area, descriptor))
        })
    }

    /// Frees the area of that descriptor, if nothing was ever mapped in it, so that there is nothing to flush, and nobody uses it.
    /// Otherwise nothing has changed.
    #[inline(always)]
    pub(super) fn free_reserved(&self, base: VirtAddr, descriptor: *const VmStruct) -> Ended {
        self.may_sleep_for("free_vm_area");
        self.areas.with(|areas| {
            let ended = |record: &mut AreaRecord, pages: u32| {
                // No window shows an area that maps nothing, and whoever changes it has its mapping.
                let Mapping::Reserved { usable } = &record.mapping else { return false };
                let is_it = &raw const record.vm == descriptor
                    && usable.count() == pages
                    // Whoever reads it may find another's memory behind its addresses when they are taken again.
                    && self.readers.are_none();
                if is_it {
                    record.mapping = Mapping::Nothing;
                }
                is_it
            };
            areas.end_at_once(base, ended)
        })
    }
}

impl Areas<'_> {
    /// Live → Free, as [`crate::va_space::VaSpace::end`] has it, of the record too.
    #[inline(always)]
    pub(super) fn end_at_once(
        &mut self,
        base: VirtAddr,
        ended: impl FnOnce(&mut AreaRecord, u32) -> bool,
    ) -> Ended {
        let gone = self.space.end(base, |place, pages| ended(place, pages));
        let Some(place) = gone else { return Ended::No };
        self.records.give_back(place);
        Ended::Yes
    }
}
