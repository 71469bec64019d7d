//! Pages of a list, seen by a device that snoops and hidden from it, by one loop each way (S105, S109).
//!
//! ```text
//!   map     addresses for all ──▶ each page: its record? whose? ──▶ entry          ──▶ barrier
//!   unmap   a run that is just that? ──▶ each page: its record? whose? its entry? ──▶ clear ─▶ flush ─▶ free
//! ```
//! Each page is asked what the general way asks of a piece that is one: is it RAM, and somebody's who may lend it? What is anything else,
//! or not at hand (the second-level tables), or not as it should be, is left to that way ([`super::pages`], [`super::Follow`]), which begins
//! anew and has words for what is wrong. Nothing of this one is left then.
//!
//! No lock is held while entries are read and written: a list may be long.

use crate::addr::{DmaAddr, PAGE_SHIFT};
use crate::coherent::Coherency;
use crate::failure::Point;
use crate::frames::Freed;
use crate::iommu::at_hand::{Words, start_of};
use crate::iommu::domain::Domain;
use crate::iommu::machine::Iotlb;
use crate::kernel_space::Streamable;
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::Series;
use crate::streaming::Flow;

/// Where the records of pages begin, one behind the other.
pub trait Records: Clone {
    /// Where that of the next page may begin: whoever finds it there goes on with [`Records::step`], and else with [`Records::next`].
    fn glance(&self) -> Option<usize>;

    /// The next page is taken out, of which [`Records::glance`] has said where its record begins.
    fn step(&mut self);

    /// The next page is taken out: where its record begins, if there is one.
    fn next(&mut self) -> Option<usize>;

    /// Goes on where `other` is, a clone of this that was stepped on alone.
    #[inline(always)]
    fn go_on_from(&mut self, other: Self) {
        *self = other;
    }
}

impl<I: Iterator<Item = usize> + Clone> Records for I {
    fn glance(&self) -> Option<usize> {
        Iterator::next(&mut self.clone())
    }

    fn step(&mut self) {
        Iterator::next(self);
    }

    fn next(&mut self) -> Option<usize> {
        Iterator::next(self)
    }
}

/// The entries of pages whose records `records` names.
#[derive(Clone)]
struct Listed<'t, R> {
    records: R,
    frames: Streamable<'t>,
    /// The entry of the first frame that has a record.
    first: u32,
}

impl<R> Listed<'_, R> {
    #[inline(always)]
    const fn word(&self, index: u32) -> u32 {
        // The records end below 4 GiB, so nothing is carried into the attributes.
        self.first.wrapping_add(index << PAGE_SHIFT)
    }
}

impl<R: Records> Series for Listed<'_, R> {
    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        let index = self.frames.at_a_glance(self.records.glance()?)?;
        self.records.step();
        Some(self.word(index))
    }

    #[cold]
    #[inline(never)]
    fn at_length(&mut self) -> Option<u32> {
        let record = self.records.next()?;
        // The last entry of a list is to be read at length, but its page is like the others.
        let index = self.frames.at_a_glance(record).or_else(|| self.frames.at_length(record))?;
        Some(self.word(index))
    }

    #[inline(always)]
    fn go_on_from(&mut self, other: Self) {
        self.records.go_on_from(other.records);
    }
}

impl<M: Machine, T: Iotlb, L: Locks> Domain<'_, '_, M, T, L> {
    /// Maps `pages` pages, whose records begin where `records` says, one behind the other, for one transfer that flows as `flow` says, as
    /// [`Domain::map_pages`] with [`crate::iommu::Grant::for_flow`], if all is at hand and each is such memory as is lent for transfers: where the device sees
    /// the first. Otherwise nothing has changed. Any context.
    ///
    /// The authority promises what that of [`Domain::map`] does.
    ///
    /// ```compile_fail
    /// # use kerncore::{coherent::Coherency, iommu::Domain, iommu::machine::Iotlb, lock::Locks, machine::Machine, streaming::Flow};
    /// fn anybodys<M: Machine, T: Iotlb, L: Locks>(domain: &Domain<'_, '_, M, T, L>, record: usize) {
    ///     let mut records = core::iter::once(record);
    ///     let _seen = domain.map_list_at_hand(1, Flow::ToDevice, &mut records);
    /// }
    /// ```
    #[inline(always)]
    pub fn map_list_at_hand<R: Records>(
        &self,
        _authority: M::Authority,
        pages: u32,
        flow: Flow,
        records: &mut R,
    ) -> Option<DmaAddr> {
        if L::fails(Point::ShortCut) {
            return None;
        }
        let run = self.iovas.with(|iovas| iovas.take(pages)).ok()?;
        let mut range = OwnedRange::mint(run);
        let mut listed = self.listed(flow, records);
        let mapped = self.table.map_each_at_hand(&mut range, &mut listed);
        *records = listed.records;
        if mapped == pages { Some(start_of(run.first())) } else { self.undo_list(range, mapped) }
    }

    /// Nothing of `range` is mapped any more, of which the first `mapped` pages are.
    #[cold]
    #[inline(never)]
    fn undo_list(&self, mut range: OwnedRange, mapped: u32) -> Option<DmaAddr> {
        if mapped != 0 {
            let undone = self.table.unmap_part(&mut range, 0, mapped);
            debug_assert!(undone.is_ok(), "{undone:?}");
        }
        let freed = self.iovas.with(|iovas| iovas.release(range.pages()));
        debug_assert_eq!(freed, Freed::Yes, "taken a moment ago");
        None
    }

    /// Takes the mapping of just the `pages` pages from `start` on away, if [`Domain::map_list_at_hand`] could have mapped them for such a
    /// transfer: the records of `records` are theirs, still such memory, and `may_end` allows it then. Says whether; otherwise nothing has
    /// changed. When this returns, the device sees nothing there, and the addresses are free. Any context.
    ///
    /// The authority promises what that of [`Domain::claim`] does.
    #[inline(always)]
    pub fn unmap_list_at_hand<R: Records>(
        &self,
        _authority: M::Authority,
        (start, pages): (DmaAddr, u32),
        flow: Flow,
        records: &mut R,
        may_end: impl FnOnce(&R) -> bool,
    ) -> bool {
        if L::fails(Point::ShortCut) {
            return false;
        }
        let Ok(run) = self.iovas.with(|iovas| iovas.claim(start, pages)) else { return false };
        let mut range = OwnedRange::mint(run);
        let mut listed = self.listed(flow, records);
        let is_it = self.table.holds_each_at_hand(&mut range, &mut listed);
        if !is_it || !may_end(&listed.records) {
            self.disclaim(run);
            return false;
        }
        *records = listed.records;
        self.table.clear_each_at_hand(&mut range);
        let freed = self.iovas.with(|iovas| iovas.release(run));
        debug_assert_eq!(freed, Freed::Yes, "claimed above");
        true
    }

    #[inline(always)]
    fn listed<R: Clone>(&self, flow: Flow, records: &R) -> Listed<'_, R> {
        let frames = self.kernel.streamable();
        let words = Words::of(flow, Coherency::Coherent).small;
        let first = words.word(frames.table().first());
        Listed { records: records.clone(), frames, first }
    }
}
