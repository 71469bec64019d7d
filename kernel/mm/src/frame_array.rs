//! A list of frames of any length, without the general heap.

use core::slice;

use kerncore::addr::{PAGE_SIZE, Pfn, pages_for};

use crate::page_alloc::Pages;

/// Frames whose number is known beforehand and grows no further, kept in page frames of its own.
#[derive(Debug)]
pub struct FrameArray {
    memory: Pages,
    capacity: usize,
    len: usize,
}

#[expect(clippy::cast_possible_truncation, reason = "a frame number has four bytes")]
const ENTRY: u32 = size_of::<Pfn>() as u32;

impl FrameArray {
    /// An empty list with room for `capacity` frames; `None` if there is no memory for it.
    pub fn new(capacity: u32) -> Option<Self> {
        let pages = pages_for(capacity.checked_mul(ENTRY)?.max(1));
        let memory = Pages::exactly(pages).ok()?;
        debug_assert!(memory.count() * PAGE_SIZE >= capacity * ENTRY, "rounded up");
        Some(Self { memory, capacity: capacity as usize, len: 0 })
    }

    /// Appends `frame`; `None` if the list is full.
    pub fn push(&mut self, frame: Pfn) -> Option<()> {
        if self.len == self.capacity {
            return None;
        }
        #[expect(clippy::cast_ptr_alignment, reason = "a page boundary is aligned for a word")]
        let start = self.memory.as_mut_ptr().cast::<Pfn>();
        // SAFETY: fewer than `capacity` frames are in the list, so the place lies in memory of ours.
        let place = unsafe { start.add(self.len) };
        // SAFETY: as above; page memory is aligned for any frame number.
        unsafe { place.write(frame) };
        self.len += 1;
        Some(())
    }

    /// The frames, in order.
    pub fn as_slice(&self) -> &[Pfn] {
        // SAFETY: the first `len` places were written by `push`; page memory is aligned for any frame number.
        unsafe { slice::from_raw_parts(self.memory.as_ptr().cast(), self.len) }
    }
}
