//! A list of one page, on its way out of the linear map and back in few steps: what a device behind an IOMMU needs for a ring.
//!
//! The states are those of a list, and the steps those of a page ([`super::super::page`]).

use super::{AbsentList, LENDING, LentList};
use crate::addr::Pfn;
use crate::coherent::Coherency;
use crate::frames::{FrameList, FrameTable};
use crate::linear_map::LinearMap;
use crate::linear_map::page::LinearPage;
use crate::lines::Edge;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::PageTable;

impl<M: Machine> LinearMap<M> {
    /// Fills `list`, of the one page of `frame`, with zeros and takes it out of the linear map, and of every TLB. What is not to be had
    /// so comes back, and has its entry still.
    #[inline(always)]
    pub(crate) fn withdraw_zeroed_list(
        &self,
        list: FrameList,
        frame: Pfn,
    ) -> Result<AbsentList, FrameList> {
        if list.pages() == 1 && self.take_out_zeroed(frame) {
            Ok(AbsentList(list))
        } else {
            Err(list)
        }
    }

    /// Puts the entry of the one page of `frame` back, at its place, which is empty.
    #[inline(always)]
    pub(crate) fn restore_one(
        &self,
        AbsentList(list): AbsentList,
        (page, frame): (LinearPage, Pfn),
    ) -> FrameList {
        self.put_in(page, frame);
        list
    }
}

impl AbsentList {
    /// As [`AbsentList::lend`], of the one page of `frame`, which was mapped at `range` a moment ago: cleans and invalidates its lines.
    #[inline(always)]
    pub(crate) fn lent_at(
        self,
        machine: &impl Machine,
        (range, frame): (OwnedRange, Pfn),
        coherency: Coherency,
    ) -> LentList {
        let note = |edge| note_one(machine, coherency, edge, frame);
        note(Edge::Lending);
        machine.clean_and_invalidate(range.pages(), frame);
        machine.barrier();
        note(Edge::Lent);
        LentList { range, list: self.0 }
    }
}

impl LentList {
    /// Its one page, if it is one.
    #[inline(always)]
    pub(crate) fn one_frame(&self, frames: &FrameTable<'_>) -> Option<Pfn> {
        (self.list.pages() == 1).then(|| frames.first_of(self.list.head()))
    }

    /// Clears and flushes its mapping, which is of the one page of `frame`, if that is a small page. Says whether; otherwise nothing has
    /// changed.
    #[inline(always)]
    pub(crate) fn clear_page<M: Machine, L: Locks>(
        &mut self,
        table: &PageTable<M, L>,
        frame: Pfn,
        coherency: Coherency,
    ) -> bool {
        let is_cleared = table.clear_at_hand(&mut self.range);
        if is_cleared {
            note_one(table.machine(), coherency, Edge::Returned, frame);
        }
        is_cleared
    }

    /// The list, whose mapping was cleared and flushed. The addresses are for their books to free.
    #[inline(always)]
    pub(crate) fn cleared(self) -> AbsentList {
        AbsentList(self.list)
    }
}

/// Tells the ledger of lines, if the processor uses the page uncached.
#[inline(always)]
fn note_one(machine: &impl Machine, coherency: Coherency, edge: Edge, frame: Pfn) {
    if coherency == Coherency::NonCoherent {
        machine.note(LENDING, edge, frame.base(), crate::addr::PAGE_SIZE);
    }
}
