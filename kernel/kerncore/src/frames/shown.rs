//! Blocks that programs see: while a window shows one, nobody can free it (S46, S78).
//!
//! The count of windows lies in the word by which every free claims the block, so that one exchange decides whether a free or
//! a window came first, and a block that is shown to nobody costs a free nothing.

use core::fmt;

use super::frame::State;
use super::{FrameOwner, FrameTable};
use crate::addr::Pfn;

/// A window's hold on a block of frames. It goes back to [`FrameTable::hide_block`]; dropped, it keeps the block for good.
#[derive(Debug)]
#[must_use = "dropped, the block cannot be freed any more"]
pub struct ShownBlock {
    first: Pfn,
    pages: u32,
    owner: FrameOwner,
}

impl ShownBlock {
    /// The block's first frame.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// How many frames it has.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Whose it is.
    pub const fn owner(&self) -> FrameOwner {
        self.owner
    }
}

/// Why a block is shown to nobody. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotShown {
    /// No block of that owner's begins there.
    NoBlock {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
        /// In whose name it was to be shown.
        claimed: FrameOwner,
    },
    /// More windows show it than can be counted.
    TooMany {
        /// The frame.
        frame: Pfn,
    },
}

impl fmt::Display for NotShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoBlock { frame, owner, claimed } => {
                write!(f, "frame {frame} ({owner}) begins no block of {claimed}")
            }
            Self::TooMany { frame } => write!(f, "too many windows show frame {frame}"),
        }
    }
}

impl core::error::Error for NotShown {}

impl FrameTable<'_> {
    /// Counts one window more that shows the block which `owner` has at `frame`. Any context.
    pub(crate) fn show_block(&self, frame: Pfn, owner: FrameOwner) -> Result<ShownBlock, NotShown> {
        let none = || NotShown::NoBlock { frame, owner: self.owner_of(frame), claimed: owner };
        let record = self.frame(frame).ok_or_else(none)?;
        let is_its = |state: State| state.with_windows(0).is_owned() && state.owner() == owner;
        let one_more = |state: State| {
            let windows = is_its(state).then(|| state.windows().checked_add(1))??;
            Some(state.with_windows(windows))
        };
        match record.change(one_more) {
            Ok(state) => Ok(ShownBlock { first: frame, pages: 1 << state.order(), owner }),
            Err(state) if is_its(state) => Err(NotShown::TooMany { frame }),
            Err(_) => Err(none()),
        }
    }

    /// One window less: no TLB remembers it. Any context.
    #[expect(clippy::needless_pass_by_value, reason = "the hold ends here")]
    pub(crate) fn hide_block(&self, block: ShownBlock) {
        let one_less = |state: State| Some(state.with_windows(state.windows().checked_sub(1)?));
        let hidden = self.frame(block.first).map(|record| record.change(one_less));
        debug_assert!(matches!(hidden, Some(Ok(_))), "freed while shown");
    }

    /// How many windows of programs show the block that begins at `frame`. Any context; whoever sees that none does sees what they
    /// have written, and what ended them is over.
    pub fn windows_onto(&self, frame: Pfn) -> u16 {
        self.frame(frame).map_or(0, |record| record.state_after_windows().windows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Frame, FrameAllocator, FreeError};

    const OWNER: FrameOwner = FrameOwner::Pages;

    fn first() -> Pfn {
        Pfn::new(0x400).expect("a frame")
    }

    fn with_memory(act: impl FnOnce(FrameAllocator<'_>)) {
        let frames: [Frame; 16] = core::array::from_fn(|_| Frame::new());
        let table = FrameTable::new(&frames, first()).expect("aligned");
        let mut allocator = FrameAllocator::new(table);
        allocator.add_range(first(), 16).expect("new");
        act(allocator);
    }

    #[test]
    fn a_block_that_is_shown_is_freed_by_nobody_until_its_last_window_ends_s46() {
        for order in 0..=3 {
            with_memory(|mut allocator| {
                let table = allocator.table();
                let block = allocator.allocate(order, OWNER).expect("memory");
                let frame = block.leak().0;
                let [one, two] = [1, 2].map(|_| table.show_block(frame, OWNER).expect("owned"));
                assert_eq!((one.first(), one.pages(), one.owner()), (frame, 1 << order, OWNER));
                let shown = |windows| Err(FreeError::Shown { frame, owner: OWNER, windows });
                let record = table.frame(frame).expect("a record");
                for (hidden, windows) in [(one, 2), (two, 1)] {
                    assert_eq!(table.windows_onto(frame), windows);
                    assert_eq!(allocator.free_at(frame, order, OWNER), shown(windows));
                    assert_eq!(allocator.give_back(record, order, OWNER), crate::frames::Freed::No);
                    assert_eq!(table.owner_of(frame), OWNER);
                    assert_eq!(table.census().shown, windows.into());
                    assert_eq!(allocator.check(), Ok(()));
                    table.hide_block(hidden);
                }
                assert_eq!((table.windows_onto(frame), table.census().shown), (0, 0));
                assert_eq!(allocator.free_at(frame, order, OWNER), Ok(()));
                assert_eq!(allocator.free_pages(), 16);
            });
        }
    }

    #[test]
    fn only_the_start_of_an_owner_s_block_is_shown_s78() {
        with_memory(|mut allocator| {
            let table = allocator.table();
            let frame = allocator.allocate(1, OWNER).expect("memory").leak().0;
            let other = allocator.allocate(0, FrameOwner::Dma).expect("memory").leak().0;
            let inside = frame.checked_add(1).expect("a frame");
            let free = first().checked_add(15).expect("a frame");
            let outside = Pfn::new(1).expect("a frame");
            for (frame, owner) in [
                (inside, OWNER),
                (other, FrameOwner::Dma),
                (free, FrameOwner::Free),
                (outside, FrameOwner::Absent),
            ] {
                let refused = table.show_block(frame, OWNER).expect_err("no such block");
                assert_eq!(refused, NotShown::NoBlock { frame, owner, claimed: OWNER });
                assert_eq!(table.windows_onto(frame), 0);
            }
            // What is free is nobody's, whoever claims it.
            assert!(table.show_block(free, FrameOwner::Free).is_err());
        });
    }

    #[test]
    fn windows_of_a_block_are_counted_as_far_as_the_count_goes() {
        with_memory(|mut allocator| {
            let table = allocator.table();
            let frame = allocator.allocate(0, OWNER).expect("memory").leak().0;
            let blocks: Vec<ShownBlock> =
                (0..u16::MAX).map(|_| table.show_block(frame, OWNER).expect("room")).collect();
            let refused = table.show_block(frame, OWNER).expect_err("the most");
            assert_eq!(refused, NotShown::TooMany { frame });
            assert_eq!(table.windows_onto(frame), u16::MAX);
            for block in blocks {
                table.hide_block(block);
            }
            assert_eq!(allocator.free_at(frame, 0, OWNER), Ok(()));
        });
    }

    #[test]
    fn what_is_said_names_frame_and_owner() {
        let frame = first();
        let none = NotShown::NoBlock { frame, owner: FrameOwner::Dma, claimed: OWNER };
        assert_eq!(none.to_string(), format!("frame {frame} (dma) begins no block of pages"));
        let many = NotShown::TooMany { frame }.to_string();
        assert_eq!(many, format!("too many windows show frame {frame}"));
        let shown = FreeError::Shown { frame, owner: OWNER, windows: 3 }.to_string();
        assert!(shown.ends_with("is seen by programs, in 3 windows"), "{shown}");
    }
}
