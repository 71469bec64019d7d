//! The dullest possible allocator: a flag a page, every address tried from below.

use std::collections::BTreeMap;

/// Areas by first page, with their length, guard included. Page numbers are those of the address space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Model {
    pub(super) first: u32,
    pub(super) end: u32,
    pub(super) areas: BTreeMap<u32, u32>,
}

impl Model {
    pub(super) fn new(first: u32, pages: u32) -> Self {
        Self { first, end: first + pages, areas: BTreeMap::new() }
    }

    /// Whether no area has page `page`.
    fn is_free(&self, page: u32) -> bool {
        !self.areas.iter().any(|(&first, &length)| page >= first && page < first + length)
    }

    /// The lowest base in `[low, high)` that is a multiple of `align` with `wanted` free pages behind it.
    pub(super) fn lowest_fit(&self, wanted: u32, align: u32, low: u32, high: u32) -> Option<u32> {
        let (low, high) = (low.max(self.first), high.min(self.end));
        (low..high).find(|&base| {
            base % align == 0
                && base + wanted <= high
                && (base..base + wanted).all(|page| self.is_free(page))
        })
    }

    /// How many pages behind the area at `first` are free.
    pub(super) fn free_behind(&self, first: u32) -> u32 {
        let behind = (first + self.areas[&first]..self.end).take_while(|&page| self.is_free(page));
        u32::try_from(behind.count()).expect("few pages")
    }

    /// The longest run of free pages, and the number of all of them.
    pub(super) fn free(&self) -> (u32, u32) {
        let (mut longest, mut run, mut all) = (0, 0, 0);
        for page in self.first..self.end {
            run = if self.is_free(page) { run + 1 } else { 0 };
            all += u32::from(run != 0);
            longest = longest.max(run);
        }
        (longest, all)
    }
}
