//! Whose is the next frame? Asked of all frames in their order, the answer mostly is: whose the last one was.

use crate::addr::Pfn;
use crate::frames::{FrameOwner, FrameTable};

/// The owners of frames, asked in ascending order, a block at a time.
pub(super) struct Owners<'t> {
    table: &'t FrameTable<'t>,
    /// The block that was asked about last: numbers of its first frame and of the one after its last.
    block: (u32, u32),
    owner: FrameOwner,
}

impl<'t> Owners<'t> {
    pub(super) const fn new(table: &'t FrameTable<'t>) -> Self {
        Self { table, block: (0, 0), owner: FrameOwner::Absent }
    }

    /// Whose `frame` is.
    #[inline]
    pub(super) fn of(&mut self, frame: Pfn) -> FrameOwner {
        self.run(frame).0
    }

    /// Whose `frame` is, and how many frames from it on, itself included, are his for the same reason.
    #[inline]
    pub(super) fn run(&mut self, frame: Pfn) -> (FrameOwner, u32) {
        let number = frame.number();
        if number < self.block.0 || number >= self.block.1 {
            (self.block, self.owner) = match self.table.block_of(frame) {
                Some((first, order, owner)) => {
                    ((first.number(), first.number() + (1 << order)), owner)
                }
                None => ((number, number + 1), FrameOwner::Absent),
            };
        }
        (self.owner, self.block.1 - number)
    }
}

/// Whether frames of `owner` are lent uncached, so that the linear map must not have them (S97).
pub(super) const fn is_lent(owner: FrameOwner) -> bool {
    matches!(owner, FrameOwner::Dma | FrameOwner::AtomicPool)
}
