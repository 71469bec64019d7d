//! Frames that were set aside at boot and are given out by somebody other than the allocator, which refuses to free them.

use core::sync::atomic::Ordering::Relaxed;

use super::frame::{NONE, State};
use super::{FrameBlock, FrameList, FrameOwner, FrameTable};
use crate::addr::Pfn;

impl FrameTable<'_> {
    /// Writes `owner` over `pages` frames from `first` on, which were set aside at boot and stay so, and gives the handle of them.
    /// To be called by whoever keeps account of them, when nobody has one.
    pub(crate) fn hand_out(&self, first: Pfn, pages: u32, owner: FrameOwner) -> FrameBlock {
        self.mark_set_aside(first, pages, owner);
        FrameBlock::new(first, pages)
    }

    /// Writes over frames that came back that nobody has them.
    pub(crate) fn take_home(&self, first: Pfn, pages: u32) {
        self.mark_set_aside(first, pages, FrameOwner::Reserved);
    }

    fn mark_set_aside(&self, first: Pfn, pages: u32, owner: FrameOwner) {
        let Some(start) = self.index_of(first) else { return };
        for record in self.records(start, pages) {
            debug_assert!(record.state().is_pinned(), "an allocator's frame, at {first}");
            record.set_state(State::pinned(owner));
        }
    }
}

impl FrameList {
    /// Puts the one frame of `new` where the block of one frame `old` is in the list, and gives that out.
    ///
    /// # Errors
    /// Gives `new` back, and nothing has changed, if it is not one frame or `old` is no block of one frame in the list.
    pub(crate) fn replace(
        &mut self,
        table: &FrameTable<'_>,
        old: Pfn,
        new: FrameBlock,
    ) -> Result<FrameBlock, FrameBlock> {
        let (Some(from), Some(to), 1) =
            (table.index_of(old), table.index_of(new.first()), new.pages())
        else {
            return Err(new);
        };
        let (mut previous, mut index) = (NONE, self.head);
        while index != NONE && index != from {
            previous = index;
            index = table.record(index).next.load(Relaxed);
        }
        if index == NONE || table.record(from).state().order() != 0 {
            return Err(new);
        }
        let _in_the_list = new.leak();
        let behind = table.record(from).next.load(Relaxed);
        table.record(to).next.store(behind, Relaxed);
        if previous == NONE {
            self.head = to;
        } else {
            table.record(previous).next.store(to, Relaxed);
        }
        if behind == NONE {
            self.tail = to;
        }
        Ok(FrameBlock::new(old, 1))
    }
}
