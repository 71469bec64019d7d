//! Where a kernel on the host has its area records and page arrays.

use crate::bed::pages;
use kerncore::{
    addr::{PAGE_SIZE, PageRange},
    area::{AreaRecord, ArrayArea, IN_A_FRAME},
    frames::FrameBlock,
    kernel_space::{AreaChunk, AreaEntry, IndexChunk, RemoveError, Support},
    page_table::Removal,
    physical_index::{IndexEntry, Node},
};
use std::{
    collections::BTreeMap,
    iter,
    sync::{Mutex, PoisonError, atomic::AtomicU32},
};

/// Area records on the host; never freed, as the kernel's are not. Page arrays, each at the same place for the same page.
#[derive(Debug, Default)]
pub struct HostMemory(Mutex<BTreeMap<u32, &'static [AtomicU32]>>);

impl HostMemory {
    /// The words of the array in these pages, or frames.
    pub fn words_at(&self, pages: PageRange) -> &'static [AtomicU32] {
        let count = (pages.count() * IN_A_FRAME) as usize;
        let words =
            || iter::repeat_with(|| AtomicU32::new(0)).take(count).collect::<Vec<_>>().leak();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = map.entry(pages.first()).or_insert_with(|| words());
        if found.len() < count {
            *found = words();
        }
        &found[..count]
    }
}

impl Support<'static> for HostMemory {
    fn frame_words<'a>(&self, frame: &'a FrameBlock) -> &'a [AtomicU32] {
        self.words_at(pages(frame.first().number(), frame.pages()))
    }

    fn area_words<'a>(&self, area: &'a ArrayArea) -> &'a [AtomicU32] {
        self.words_at(area.pages())
    }

    fn chunk(&self, block: FrameBlock, entries: u32) -> AreaChunk<'static> {
        let bytes = entries as usize * size_of::<AreaEntry<'_>>();
        let (_, pages) = block.leak();
        assert_eq!(pages as usize, bytes.div_ceil(PAGE_SIZE as usize), "room for just so many");
        let entry = || AreaEntry::new(AreaRecord::vacant());
        iter::repeat_with(entry).take(entries as usize).collect::<Vec<_>>().leak()
    }

    fn index_chunk(&self, block: FrameBlock, entries: u32) -> IndexChunk<'static> {
        let bytes = entries as usize * size_of::<IndexEntry<'_>>();
        let (_, pages) = block.leak();
        assert_eq!(pages as usize, bytes.div_ceil(PAGE_SIZE as usize), "room for just so many");
        let entry = || IndexEntry::new(Node::vacant());
        iter::repeat_with(entry).take(entries as usize).collect::<Vec<_>>().leak()
    }

    fn odd_tables(&self, area: PageRange, removal: Removal) {
        panic!("{area}: {removal:?}, though nobody else wrote to the tables");
    }

    fn deferred_free_failed(&self, error: &RemoveError) {
        panic!("{error}, though nobody else wrote to the frame table");
    }
}
