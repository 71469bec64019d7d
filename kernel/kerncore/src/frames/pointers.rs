//! A pointer to each frame's record, one after the other: whoever has adjacent frames has their page array here (S27, S85a).
//!
//! ```text
//!   records    │ r0 │ r1 │ r2 │ r3 │ r4 │ …        16 bytes each
//!   pointers   │ &r0│ &r1│ &r2│ &r3│ &r4│ …        a word each
//!                         └── the page array of frames 2, 3 and 4
//! ```
//! They are written at boot and read-only ever after ([`crate::linear_map::LinearMap::protect`]), for they belong to many: a null
//! among them (S33) cannot be, because nobody can write one. It costs a thousandth of RAM, and saves an area that is one block from
//! having its pointers written when it is made, and looked through when it goes.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::FrameTable;
use crate::addr::Pfn;

/// The pointers to the records of a frame table, in the frames' order. Reading them takes no lock, in any context.
#[derive(Clone, Copy, Debug)]
pub struct Pointers<'t> {
    words: &'t [AtomicU32],
    first: Pfn,
}

impl<'t> Pointers<'t> {
    /// Writes a pointer to each frame of `table` into `words`, of which there must be as many. Nobody else may write there
    /// afterwards.
    ///
    /// `None` if there are more or fewer.
    pub fn new(table: &FrameTable<'_>, words: &'t [AtomicU32]) -> Option<Self> {
        if words.len() != table.len() as usize {
            return None;
        }
        let (mut pointer, first) = (table.pointer_to(table.first()), table.first());
        for word in words {
            word.store(pointer, Relaxed);
            pointer = pointer.wrapping_add(FrameTable::STRIDE);
        }
        Some(Self { words, first })
    }

    /// The pointers to `count` frames from `first`, if all have one.
    #[inline(always)]
    pub fn of(&self, first: Pfn, count: u32) -> Option<&'t [AtomicU32]> {
        let index = first.number().wrapping_sub(self.first.number()) as usize;
        self.words.get(index..)?.get(..count as usize)
    }

    /// All of them.
    pub const fn words(&self) -> &'t [AtomicU32] {
        self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Frame;

    #[test]
    fn adjacent_frames_have_their_page_array_and_others_have_none_s27() {
        let records: Vec<Frame> = (0..8).map(|_| Frame::new()).collect();
        let first = Pfn::new(0x6_0000).expect("below 4 GiB");
        let table = FrameTable::new(&records, first).expect("aligned to a block");
        let words: Vec<AtomicU32> = (0..8).map(|_| AtomicU32::new(0)).collect();
        for count in [0, 7] {
            assert!(Pointers::new(&table, &words[..count]).is_none(), "{count} words");
        }
        let pointers = Pointers::new(&table, &words).expect("a word a frame");
        let frame = |index: u32| Pfn::new(0x6_0000 + index).expect("below 4 GiB");
        for index in 0..8 {
            for count in 0..=8 - index {
                let array = pointers.of(frame(index), count).expect("all have one");
                let wanted = (index..index + count).map(|index| table.pointer_to(frame(index)));
                assert!(array.iter().map(|word| word.load(Relaxed)).eq(wanted));
            }
            assert!(pointers.of(frame(index), 9 - index).is_none(), "behind the last");
            assert!(pointers.of(frame(index), u32::MAX).is_none());
        }
        let below = Pfn::new(0x5_ffff).expect("below 4 GiB");
        assert!(pointers.of(below, 1).is_none() && pointers.of(frame(9), 0).is_none());
        assert_eq!(pointers.words().len(), 8);
    }
}
