//! A few adjacent frames, seen by a device and hidden from it in one go: what a driver maps for one transfer, as a rule (S105, S109).
//!
//! ```text
//!   map     a run of addresses ──▶ entries, where the table stands and nothing is in the way ──▶ barrier
//!                     ┌ lock of addresses ──────────────────────────────────────────────┐
//!   unmap             │ a run that is just that? ─▶ may it end? ─▶ clear ─▶ flush ─▶ free │
//!                     └─────────────────────────────────────────────────────────────────┘
//! ```
//! Few frames are one page, fewer than [`FEW`] below one table, or a large page. What is anything else, or not at hand (addresses in the
//! first word that has some, the second-level table), or not as it should be, is left to the general way ([`super::domain`]), which
//! begins anew and finds words for what is wrong. Nothing of this one is left then.
//!
//! Nobody is given addresses before the flush: who wants some waits for the lock (S81).

use crate::addr::{DmaAddr, LARGE_PAGE_SIZE, PAGE_SHIFT, PageRange, Pfn, PhysAddr};
use crate::coherent::Coherency;
use crate::descriptor::l2::{LARGE_PAGE_SLOTS, LargePages, SmallPages};
use crate::failure::Point;
use crate::frames::Freed;
use crate::iommu::domain::Domain;
use crate::iommu::iova::IovaSpace;
use crate::iommu::machine::Iotlb;
use crate::iommu::{Grant, memory_for};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::FEW;
use crate::streaming::Flow;

/// All of an entry but its frames, for a transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) small: SmallPages,
    large: LargePages,
}

impl Words {
    const fn new(grant: Grant, coherency: Coherency) -> Self {
        let attributes = grant.attributes(memory_for(coherency));
        Self { small: SmallPages::new(attributes), large: LargePages::new(attributes) }
    }

    /// Those of a device that may do what data that flows so takes.
    #[inline(always)]
    pub(super) const fn of(flow: Flow, coherency: Coherency) -> &'static Self {
        const fn both(coherency: Coherency) -> [Words; 2] {
            [Words::new(Grant::Read, coherency), Words::new(Grant::ReadWrite, coherency)]
        }
        static SNOOPING: [Words; 2] = both(Coherency::Coherent);
        static OTHERS: [Words; 2] = both(Coherency::NonCoherent);
        let [read, write] = match coherency {
            Coherency::Coherent => &SNOOPING,
            Coherency::NonCoherent => &OTHERS,
        };
        if flow.device_writes() { write } else { read }
    }
}

impl<M: Machine, T: Iotlb, L: Locks> Domain<'_, '_, M, T, L> {
    /// Maps the frame `first` for one transfer that flows as `flow` says, as [`Domain::map`] with [`Grant::for_flow`], if all is at hand:
    /// where the device sees it. Otherwise nothing has changed. Any context.
    ///
    /// `highest` is the highest address at which the device reaches all of it. The authority promises what that of [`Domain::map`] does.
    #[inline(always)]
    pub fn map_page_at_hand(
        &self,
        _authority: M::Authority,
        first: Pfn,
        (flow, coherency): (Flow, Coherency),
        highest: DmaAddr,
    ) -> Option<DmaAddr> {
        if L::fails(Point::ShortCut) {
            return None;
        }
        let word = Words::of(flow, coherency).small.word(first);
        let page = self.iovas.with(|iovas| {
            let page = iovas.take_page()?;
            let run = PageRange::trusted(page, 1);
            if start_of(page) <= highest { Some(page) } else { in_vain(iovas, run) }
        })?;
        let mut range = OwnedRange::mint(PageRange::trusted(page, 1));
        let is_mapped = self.table.map_page_at_hand(&mut range, word);
        if is_mapped { Some(start_of(page)) } else { self.not_at_hand(range.pages()) }
    }

    /// As [`Domain::map_page_at_hand`], of the sixteen frames of a large page, the first of which is a multiple of sixteen. The authority is
    /// the same.
    #[inline(always)]
    pub fn map_large_page_at_hand(
        &self,
        _authority: M::Authority,
        first: Pfn,
        (flow, coherency): (Flow, Coherency),
        highest: DmaAddr,
    ) -> Option<DmaAddr> {
        debug_assert!(first.number().is_multiple_of(LARGE_PAGE_SLOTS), "{first:?}");
        if L::fails(Point::ShortCut) {
            return None;
        }
        let word = Words::of(flow, coherency).large.word(first);
        let page = self.iovas.with(|iovas| {
            let page = iovas.take_large_page()?;
            let run = PageRange::trusted(page, LARGE_PAGE_SLOTS);
            if start_of(page) <= highest { Some(page) } else { in_vain(iovas, run) }
        })?;
        let mut range = OwnedRange::mint(PageRange::trusted(page, LARGE_PAGE_SLOTS));
        let is_mapped = self.table.map_large_page_at_hand(&mut range, word);
        if is_mapped { Some(start_of(page)) } else { self.not_at_hand(range.pages()) }
    }

    /// As [`Domain::map_page_at_hand`], of the `pages` frames from `first` on, fewer than [`FEW`]. The authority is the same.
    #[inline(always)]
    pub fn map_few_at_hand(
        &self,
        _authority: M::Authority,
        (first, pages): (Pfn, u32),
        (flow, coherency): (Flow, Coherency),
        highest: DmaAddr,
    ) -> Option<DmaAddr> {
        if pages.wrapping_sub(1) >= FEW - 1 || L::fails(Point::ShortCut) {
            return None;
        }
        let word = Words::of(flow, coherency).small.word(first);
        let run = self.iovas.with(|iovas| {
            let run = iovas.take(pages).ok()?;
            if start_of(run.first()) <= highest { Some(run) } else { in_vain(iovas, run) }
        })?;
        let mut range = OwnedRange::mint(run);
        let is_mapped = self.table.map_few(&mut range, word);
        if is_mapped { Some(start_of(run.first())) } else { self.not_at_hand(range.pages()) }
    }

    #[cold]
    #[inline(never)]
    fn not_at_hand(&self, run: PageRange) -> Option<DmaAddr> {
        let freed = self.iovas.with(|iovas| iovas.release(run));
        debug_assert_eq!(freed, Freed::Yes, "taken a moment ago");
        None
    }

    /// Takes the mapping of just the page at `start` away, if all is at hand: it is one of that size, and `may_end` allows it, which is
    /// told where it leads. Says whether; otherwise nothing has changed. When this returns, the device sees nothing there, and the address
    /// is free. Any context.
    ///
    /// `may_end` is called under the lock of the addresses: it takes none but of a later class. The authority promises what that of
    /// [`Domain::claim`] does.
    #[inline(always)]
    pub fn unmap_page_at_hand(
        &self,
        _authority: M::Authority,
        start: DmaAddr,
        may_end: impl FnOnce(PhysAddr) -> bool,
    ) -> bool {
        let run = PageRange::trusted(start.raw() >> PAGE_SHIFT, 1);
        self.iovas.with(|iovas| {
            Self::end_run(iovas, run, |range| self.table.clear_page_at_hand(range, may_end))
        })
    }

    /// As [`Domain::unmap_page_at_hand`], of the large page at `start`, a multiple of its size. The authority is the same.
    #[inline(always)]
    pub fn unmap_large_page_at_hand(
        &self,
        _authority: M::Authority,
        start: DmaAddr,
        may_end: impl FnOnce(PhysAddr) -> bool,
    ) -> bool {
        debug_assert!(start.raw().is_multiple_of(LARGE_PAGE_SIZE), "{start}");
        let run = PageRange::trusted(start.raw() >> PAGE_SHIFT, LARGE_PAGE_SLOTS);
        self.iovas.with(|iovas| {
            Self::end_run(iovas, run, |range| self.table.clear_large_page_at_hand(range, may_end))
        })
    }

    /// As [`Domain::unmap_page_at_hand`], of `pages` pages, fewer than [`FEW`], that lead to adjacent frames. The authority is the same.
    #[inline(always)]
    pub fn unmap_few_at_hand(
        &self,
        _authority: M::Authority,
        (start, pages): (DmaAddr, u32),
        may_end: impl FnOnce(PhysAddr) -> bool,
    ) -> bool {
        let run = PageRange::from_numbers(start.raw() >> PAGE_SHIFT, pages);
        let Some(run) = run.filter(|_| pages < FEW) else { return false };
        self.iovas.with(|iovas| {
            let clear =
                |range: &mut OwnedRange| self.table.clear_consecutive_at_hand(range, may_end);
            Self::end_run(iovas, run, clear)
        })
    }

    /// Frees `run`, if it was taken as just that, and `clear` does with its right what its name says.
    #[inline(always)]
    pub(super) fn end_run(
        iovas: &mut IovaSpace<'_>,
        run: PageRange,
        clear: impl FnOnce(&mut OwnedRange) -> bool,
    ) -> bool {
        // Free first, which nobody sees before the lock is given back: what frees a run asks all that there is to ask of it.
        if L::fails(Point::ShortCut) || iovas.release_unclaimed(run) == Freed::No {
            return false;
        }
        let is_cleared = clear(&mut OwnedRange::mint(run));
        if !is_cleared {
            iovas.take_again(run);
        }
        is_cleared
    }
}

/// Gives back the run that was taken a moment ago.
#[cold]
#[inline(never)]
fn in_vain<R>(iovas: &mut IovaSpace<'_>, run: PageRange) -> Option<R> {
    let freed = iovas.release(run);
    debug_assert_eq!(freed, Freed::Yes, "taken a moment ago");
    None
}

/// The first address of page number `page`.
pub(super) const fn start_of(page: u32) -> DmaAddr {
    DmaAddr::new(page << PAGE_SHIFT)
}
