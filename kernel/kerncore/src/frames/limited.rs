//! Frames that somebody reaches who does not reach all: a device by its mask (S100).
//!
//! Free blocks lie on their lists in no order of address, so whoever sets a limit has the lists walked. That costs a step
//! for each free block, under the allocator's lock; it is for buffers of devices, which are made seldom, and for the one zone
//! that the limit cuts in two. What waits on the front lists is merged first.

use super::frame::State;
use super::{
    AllocateError, FrameAllocator, FrameBlock, FrameList, FrameOwner, FrameRequest, MAX_BLOCK,
    MAX_ORDER, order_for,
};
use crate::addr::Pfn;

/// What is free of the frames that will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Supply {
    /// How many frames.
    pub(crate) free: u32,
    /// The order of the largest block among them.
    pub(crate) largest: Option<u32>,
}

impl FrameAllocator<'_> {
    /// As [`FrameAllocator::allocate`], of a block that ends at or below the frame `last`.
    ///
    /// # Errors
    /// [`AllocateError`], also for an order above [`MAX_ORDER`].
    pub fn allocate_below(
        &mut self,
        order: u32,
        owner: FrameOwner,
        last: Pfn,
    ) -> Result<FrameBlock, AllocateError> {
        Self::judge(order, owner)?;
        self.drain();
        match self.buddies.cut_below(&self.table, order, self.end_at(last)) {
            Some(index) => Ok(self.lend(index, order, owner)),
            None => Err(self.exhausted_below(1 << order, owner, last)),
        }
    }

    /// As [`FrameAllocator::allocate_pages`], of frames at or below the frame `last`.
    ///
    /// # Errors
    /// [`AllocateError`], also for more than [`MAX_BLOCK`] frames.
    pub fn allocate_pages_below(
        &mut self,
        pages: u32,
        owner: FrameOwner,
        last: Pfn,
    ) -> Result<FrameBlock, AllocateError> {
        if pages == 0 {
            return Err(AllocateError::Zero { owner });
        }
        if pages > MAX_BLOCK {
            return Err(AllocateError::TooLarge { pages, owner });
        }
        let block = self.allocate_below(order_for(pages), owner, last)?;
        Ok(self.keep_first(block, pages, owner))
    }

    /// Takes `pages` frames, or all there are if those are fewer; they need not be adjacent.
    pub fn take_list(&mut self, pages: u32, owner: FrameOwner) -> FrameList {
        let pages = pages.min(self.free_pages());
        self.allocate_list(pages, owner).unwrap_or_default()
    }

    /// As [`FrameAllocator::take_list`], of frames at or below the frame `last`.
    pub fn take_list_below(&mut self, pages: u32, owner: FrameOwner, last: Pfn) -> FrameList {
        let mut list = FrameList::new();
        if Self::judge(0, owner).is_err() {
            return list;
        }
        self.drain();
        let end = self.end_at(last);
        let mut left = pages;
        let Self { table, buddies, .. } = self;
        // What fits whole, in one walk of each list.
        buddies.take_whole_below(table, end, &mut left, |index, order| {
            let record = table.record(index);
            record.set_state(State::owned(order, owner));
            list.push_record(table, record, order);
        });
        // The rest comes from blocks that are larger, or that the limit cuts in two: a piece for each order, if any.
        for order in (0..=MAX_ORDER).rev() {
            while 1 << order <= left
                && let Some(index) = buddies.cut_below(table, order, end)
            {
                left -= 1 << order;
                let record = table.record(index);
                record.set_state(State::owned(order, owner));
                list.push_record(table, record, order);
            }
        }
        list
    }

    /// What is free.
    pub(crate) fn supply(&mut self) -> Supply {
        // What waits unmerged would count as no block.
        self.drain();
        Supply { free: self.free_pages(), largest: self.largest_free_order() }
    }

    /// What is free at or below the frame `last`.
    pub(crate) fn supply_below(&mut self, last: Pfn) -> Supply {
        self.drain();
        let (free, largest) = self.buddies.supply_below(&self.table, self.end_at(last));
        Supply { free, largest }
    }

    fn exhausted_below(&mut self, pages: u32, owner: FrameOwner, last: Pfn) -> AllocateError {
        let Supply { free, largest } = self.supply_below(last);
        let from = FrameRequest::ANY.up_to(last);
        AllocateError::Exhausted { pages, owner, free, largest, from }
    }

    /// The index behind the last that will do.
    fn end_at(&self, last: Pfn) -> u32 {
        match last.checked_sub(self.table.first()) {
            Some(index) => (index + 1).min(self.table.len()),
            None => 0,
        }
    }
}
