//! One page that is lent, and comes back, in few steps: what most buffers of devices need.
//!
//! The states are those of a block, and so is the order of the steps ([`super`]); but what is one page has one slot, whose
//! place is found once, and which is looked at and written by itself.

use core::iter;

use super::{ATTRIBUTES, Absent, LENDING, Lent, LinearMap};
use crate::addr::{PageRange, Pfn, PhysAddr};
use crate::descriptor::SLOT_SIZE;
use crate::descriptor::l2::SmallPages;
use crate::frames::FrameBlock;
use crate::lines::Edge;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::PageTable;

/// Where the linear map has a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearPage {
    slot: PhysAddr,
    range: PageRange,
}

impl<M: Machine> LinearMap<M> {
    /// Where `frame` is, if it has a linear address.
    #[inline(always)]
    fn page_of(&self, frame: Pfn) -> Option<LinearPage> {
        let pages = self.window.pages();
        let index = frame.number().wrapping_sub(self.first.number());
        (index < pages.count()).then(|| LinearPage {
            slot: PhysAddr::new(self.slots.raw().wrapping_add(index.wrapping_mul(SLOT_SIZE))),
            range: PageRange::trusted(pages.first().wrapping_add(index), 1),
        })
    }

    /// Fills `block`, of one page, with zeros and takes it out of the linear map, and of every TLB. What is not to be had so comes
    /// back, and has its entry still.
    #[inline(always)]
    pub(crate) fn withdraw_zeroed(&self, block: FrameBlock) -> Result<Absent, FrameBlock> {
        if block.pages() == 1 && self.take_out_zeroed(block.first()) {
            Ok(Absent(block))
        } else {
            Err(block)
        }
    }

    /// Fills `frame`, which is the caller's, with zeros and takes it out of the linear map, and of every TLB. Says whether; otherwise it
    /// has its entry still.
    #[inline(always)]
    pub(super) fn take_out_zeroed(&self, frame: Pfn) -> bool {
        let Some(LinearPage { slot, range }) = self.page_of(frame) else { return false };
        if self.machine.read_descriptor(slot) != SmallPages::new(ATTRIBUTES).word(frame) {
            return false;
        }
        self.machine.zero_pages(range);
        self.write_slot(slot, 0);
        self.machine.invalidate_tlb(range);
        self.machine.barrier();
        true
    }

    /// Puts the entry of `frame`, which is the caller's, at its place, which is empty.
    #[inline(always)]
    pub(super) fn put_in(&self, page: LinearPage, frame: Pfn) {
        self.write_slot(page.slot, SmallPages::new(ATTRIBUTES).word(frame));
    }

    /// Where `frame` is to be put in, if its entry is empty.
    #[inline(always)]
    pub(crate) fn empty_place_of(&self, frame: Pfn) -> Option<LinearPage> {
        let page = self.page_of(frame)?;
        (self.machine.read_descriptor(page.slot) == 0).then_some(page)
    }

    /// Whether what `lent` has can be [put back](LinearMap::restore_page): it is one page, whose entry is empty.
    #[inline(always)]
    pub(crate) fn has_place_for(&self, lent: &Lent) -> Option<LinearPage> {
        if lent.block.pages() == 1 { self.empty_place_of(lent.block.first()) } else { None }
    }

    /// Puts the entry of a page back, at its place, which is empty.
    #[inline(always)]
    pub(crate) fn restore_page(&self, Absent(block): Absent, page: LinearPage) -> FrameBlock {
        self.put_in(page, block.first());
        block
    }

    /// Only of a page whose block the caller owns: nobody else writes it. Seen by every walker.
    #[inline(always)]
    fn write_slot(&self, slot: PhysAddr, word: u32) {
        self.machine.write_descriptors(slot, iter::once(word));
        self.machine.clean_descriptors(slot, 1);
        self.machine.barrier();
    }
}

impl Absent {
    /// As [`Absent::lend`], of what was mapped at `range` a moment ago: cleans and invalidates its lines.
    #[inline(always)]
    pub(crate) fn lent_at(self, machine: &impl Machine, range: OwnedRange) -> Lent {
        let pages = range.pages();
        machine.note(LENDING, Edge::Lending, self.first().base(), pages.bytes());
        machine.clean_and_invalidate(pages, self.first());
        machine.barrier();
        machine.note(LENDING, Edge::Lent, self.first().base(), pages.bytes());
        Lent { range, pages, block: self.0 }
    }
}

impl Lent {
    /// Clears and flushes its mapping, if that is below one table, all of small pages. Says whether; otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn clear_at_hand<M: Machine, L: Locks>(&mut self, table: &PageTable<M, L>) -> bool {
        let cleared = table.clear_at_hand(&mut self.range);
        if cleared {
            let first = self.block.first().base();
            table.machine().note(LENDING, Edge::Returned, first, self.pages.bytes());
        }
        cleared
    }

    /// The block, whose mapping was cleared and flushed. The addresses are for their books to free.
    #[inline(always)]
    pub(crate) fn cleared(self) -> Absent {
        Absent(self.block)
    }
}
