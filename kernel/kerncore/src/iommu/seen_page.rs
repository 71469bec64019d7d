//! A buffer of one page, seen by a device and hidden from it, where all is at hand: what most rings of drivers are (S79, S81, S109).
//!
//! The states are those of any such buffer, and so is their order ([`super::seen`]). Its address is taken before anything else is, so that
//! nothing was done in vain for a device that cannot see it; and what is not at hand, or not as it should be, is left to the general way,
//! which begins anew.

use crate::addr::{DmaAddr, PAGE_SIZE, PageRange, Pfn, PhysAddr};
use crate::coherent::Coherency;
use crate::descriptor::l2::SmallPages;
use crate::dma_mask::DmaMask;
use crate::frames::Freed;
use crate::iommu::domain::{Domain, Iova};
use crate::iommu::machine::Iotlb;
use crate::iommu::seen::{SeenList, StillSeen, View};
use crate::iommu::{Grant, SeenAt, memory_for};
use crate::linear_map::list::{AbsentList, LentList};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::PageTable;

/// All of a device's entry but its frame.
const fn words(coherency: Coherency) -> SmallPages {
    SmallPages::new(Grant::ReadWrite.attributes(memory_for(coherency)))
}

impl<M: Machine, T: Iotlb, L: Locks> Domain<'_, '_, M, T, L> {
    /// The right to a page of addresses within reach of `mask`, if one is at hand.
    #[inline(always)]
    pub(crate) fn page_at_hand(&self, mask: DmaMask) -> Option<Iova> {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "a function by name is not inlined into the lock's own"
        )]
        let page = self.iovas.with(|iovas| iovas.take_page())?;
        let iova = Iova::again(DmaAddr::new(page.wrapping_mul(PAGE_SIZE)), 1, self.root());
        if mask.reaches(iova.start(), PAGE_SIZE) { Some(iova) } else { self.out_of_reach(iova) }
    }

    #[cold]
    #[inline(never)]
    fn out_of_reach(&self, iova: Iova) -> Option<Iova> {
        self.give_up_page(iova);
        None
    }

    /// Takes back what [`Domain::page_at_hand`] gave; nothing was mapped there.
    pub(crate) fn give_up_page(&self, iova: Iova) {
        let range = iova.range;
        let freed = self.iovas.with(|iovas| iovas.release(range.pages()));
        debug_assert_eq!(freed, Freed::Yes, "taken a moment ago");
    }

    /// Lets the devices see `frame` at `iova`, if its table is there and its slot is empty. Says whether; otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn show_page(&self, iova: &mut Iova, frame: Pfn, coherency: Coherency) -> bool {
        const SNOOPING: SmallPages = words(Coherency::Coherent);
        const OTHERS: SmallPages = words(Coherency::NonCoherent);
        let word = match coherency {
            Coherency::Coherent => SNOOPING.word(frame),
            Coherency::NonCoherent => OTHERS.word(frame),
        };
        self.table.map_page_at_hand(&mut iova.range, word)
    }
}

impl LentList {
    /// As [`LentList::show`], of one page, which [`Domain::show_page`] has shown at `iova`.
    #[inline(always)]
    pub(crate) fn shown_at(self, iova: Iova, coherency: Coherency) -> SeenList {
        let (start, root) = iova.forget();
        SeenList { lent: self, start, view: View::new(root, coherency) }
    }
}

impl SeenList {
    /// Whether the devices of the domain whose first-level table is at `root` see it at `start`.
    #[inline(always)]
    pub(crate) fn is_seen_at(&self, root: PhysAddr, start: DmaAddr) -> bool {
        let SeenAt { root: own, start: first, .. } = self.at();
        own == root && first == start
    }

    /// What the processor sees.
    pub(crate) const fn lent(&self) -> &LentList {
        &self.lent
    }

    /// Clears and flushes the processor's view of the one page of `frame`, if that is below one table, and a small page. Says whether;
    /// otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn clear_page<M: Machine, L: Locks>(
        &mut self,
        table: &PageTable<M, L>,
        frame: Pfn,
    ) -> bool {
        self.lent.clear_page(table, frame, self.view.coherency())
    }

    /// The page whose processor's view was cleared and flushed. The processor's addresses are for their books to free.
    #[inline(always)]
    pub(crate) fn cleared(self) -> StillSeen {
        let iova = Iova::again(self.start, 1, self.view.root());
        StillSeen { absent: self.lent.cleared(), iova }
    }
}

impl StillSeen {
    /// As [`StillSeen::unmap`] and its flush, of the one page of `frame`, if the device's entry is as it was made.
    ///
    /// # Errors
    /// What it was: nothing has changed.
    #[inline(always)]
    pub(crate) fn end_page<M: Machine, T: Iotlb, L: Locks>(
        self,
        domain: &Domain<'_, '_, M, T, L>,
        frame: Pfn,
    ) -> Result<AbsentList, Self> {
        let run = PageRange::trusted(self.iova.start().page_number(), 1);
        let ended = domain.iovas.with(|iovas| {
            Domain::<M, T, L>::end_run(iovas, run, |range: &mut OwnedRange| {
                domain.table.clear_page_at_hand(range, |leads| leads == frame.base())
            })
        });
        // The right to the addresses goes with the book's entry.
        if ended { Ok(self.absent) } else { Err(self) }
    }
}
