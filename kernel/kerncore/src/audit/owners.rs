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
            // Mostly the last block's end is where the next begins.
            (self.block, self.owner) = match self.table.owned_from_head(frame) {
                Some((owner, frames)) => ((number, number + frames), owner),
                None => match self.table.block_of(frame) {
                    Some((first, order, owner)) => {
                        ((first.number(), first.number() + (1 << order)), owner)
                    }
                    None => ((number, number + 1), FrameOwner::Absent),
                },
            };
        }
        (self.owner, self.block.1 - number)
    }
}

/// Whether frames of `owner` are lent uncached or executable, so that the linear map must not have them (S97, S112).
pub(super) const fn is_lent(owner: FrameOwner) -> bool {
    is_for_devices(owner) || matches!(owner, FrameOwner::Text)
}

/// Whether frames of `owner` stand behind areas for devices.
pub(super) const fn is_for_devices(owner: FrameOwner) -> bool {
    matches!(owner, FrameOwner::Dma | FrameOwner::AtomicPool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Frame, FrameAllocator};

    /// Frames that are not there have a table's record or none.
    #[test]
    fn frames_that_are_not_there_are_nobodys_one_by_one() {
        let frame = |number| Pfn::new(number).expect("below 4 GiB");
        let records: Vec<Frame> = (0..2048).map(|_| Frame::new()).collect();
        let table = FrameTable::new(&records, frame(0x6_0000)).expect("aligned");
        let mut allocator = FrameAllocator::new(table);
        allocator.add_range(frame(0x6_0400), 16).expect("absent");
        let table = allocator.table();
        let mut owners = Owners::new(&table);
        for number in [0x5_ffff, 0x6_0000, 0x6_0001, 0x6_03ff] {
            assert_eq!(owners.run(frame(number)), (FrameOwner::Absent, 1), "{number:#x}");
        }
        assert_eq!(owners.run(frame(0x6_0400)), (FrameOwner::Free, 16));
        assert_eq!(owners.run(frame(0x6_040f)), (FrameOwner::Free, 1));
        for number in [0x6_0410, 0x6_07ff, 0x6_0800, 0x6_0000] {
            assert_eq!(owners.run(frame(number)), (FrameOwner::Absent, 1), "{number:#x}");
            assert_eq!(owners.of(frame(number)), FrameOwner::Absent);
        }
    }
}
