//! Frames that were set aside at boot and are given out by somebody other than the allocator, which refuses to free them.

use super::frame::State;
use super::{FrameBlock, FrameOwner, FrameTable};
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
