//! The only way to a second-level slot: from an owned range to the slots below it.
//!
//! ```text
//!   OwnedRange ──▶ Runs ──▶ Run (pages in one MiB) ──▶ Slots (that run, in its table)
//! ```
//! Each step borrows the one before, so that slots cannot be written after the range went elsewhere.

use super::PageTable;
use crate::{
    addr::{PAGE_SHIFT, PAGES_PER_SECTION, PageRange, PhysAddr, VirtAddr},
    descriptor::{L2_SLOTS, SLOT_SIZE, l2::LARGE_PAGE_SLOTS},
    frames::Frame,
    lock::Locks,
    machine::Machine,
    owned_range::OwnedRange,
};
use core::{iter, marker::PhantomData};

/// From so many slots on, a machine may have quicker ways than one after the other.
pub(crate) const FEW: u32 = 8;

/// The pages of an owned range, cut at the borders of second-level tables.
///
/// Bare numbers from here on: they were checked when the range was made, and every page of it pays for more.
pub(super) struct Runs<'range> {
    first: u32,
    left: u32,
    owner: PhantomData<&'range mut OwnedRange>,
}

/// Pages of an owned range that one second-level table translates.
pub(super) struct Run<'range> {
    first: u32,
    count: u32,
    owner: PhantomData<&'range mut OwnedRange>,
}

/// Consecutive slots of one second-level table, or of adjacent ones, and the right to write them.
pub(crate) struct Slots<'range> {
    /// Where the first one lies.
    first: PhysAddr,
    /// The page that it translates.
    page: u32,
    count: u32,
    owner: PhantomData<&'range mut OwnedRange>,
}

impl<'range> Runs<'range> {
    /// All pages of `range`.
    #[inline(always)]
    pub(super) fn all(range: &'range mut OwnedRange) -> Self {
        Self { first: range.pages().first(), left: range.count(), owner: PhantomData }
    }

    /// `count` pages of `range` from `offset`, or `None` if they do not lie inside.
    #[inline(always)]
    pub(super) fn of(range: &'range mut OwnedRange, offset: u32, count: u32) -> Option<Self> {
        let inside = offset <= range.count() && count <= range.count().wrapping_sub(offset);
        let first = range.pages().first().wrapping_add(offset);
        inside.then_some(Self { first, left: count, owner: PhantomData })
    }

    /// The first page of the runs to come.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// How many pages the runs to come have.
    #[inline(always)]
    pub(super) fn left(&self) -> u32 {
        self.left
    }
}

impl<'range> Iterator for Runs<'range> {
    type Item = Run<'range>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let to_border = PAGES_PER_SECTION - self.first % PAGES_PER_SECTION;
        let run = Run { first: self.first, count: self.left.min(to_border), owner: PhantomData };
        self.first = self.first.wrapping_add(run.count);
        self.left = self.left.wrapping_sub(run.count);
        Some(run)
    }
}

impl<'range> Run<'range> {
    /// All pages of `range`, if [`Run::is_one_of_few`] says so.
    #[inline(always)]
    pub(super) fn whole(range: &'range mut OwnedRange) -> Self {
        Self { first: range.pages().first(), count: range.count(), owner: PhantomData }
    }

    /// Whether it is a run at all, below one table and not empty, and shorter than [`FEW`].
    #[inline(always)]
    pub(super) fn is_one_of_few(&self) -> bool {
        self.count.wrapping_sub(1) < FEW - 1 && self.is_below_one_table()
    }

    /// Whether one table translates all of its pages, which are no more than a table has slots.
    #[inline(always)]
    pub(super) fn is_below_one_table(&self) -> bool {
        self.first % PAGES_PER_SECTION <= PAGES_PER_SECTION.wrapping_sub(self.count)
    }

    /// Of a run of one page: the same, and the compiler knows that it is one.
    #[inline(always)]
    pub(super) fn single(self) -> Self {
        debug_assert!(self.count == 1, "{} pages", self.count);
        Self { count: 1, ..self }
    }

    /// Of a run of the pages of one large page: the same, and the compiler knows how many they are, and where they may begin.
    #[inline(always)]
    pub(super) fn sixteen(self) -> Self {
        debug_assert!(
            self.count == LARGE_PAGE_SLOTS && self.first.is_multiple_of(LARGE_PAGE_SLOTS)
        );
        Self { first: self.first & !(LARGE_PAGE_SLOTS - 1), count: LARGE_PAGE_SLOTS, ..self }
    }

    /// Which pages they are.
    #[inline(always)]
    pub(super) const fn pages(&self) -> PageRange {
        PageRange::trusted(self.first, self.count)
    }

    /// The first address.
    pub(super) fn start(&self) -> VirtAddr {
        page_start(self.first)
    }

    /// The index of the first-level slot above them.
    #[inline(always)]
    pub(super) fn section(&self) -> u32 {
        self.first / PAGES_PER_SECTION
    }

    /// Their slots in `table`, which must be the one that their first-level slot names.
    #[inline(always)]
    pub(super) fn slots(self, table: PhysAddr) -> Slots<'range> {
        // The table is 1 KiB-aligned, so `|` adds.
        let first = PhysAddr::new(table.raw() | (self.first % L2_SLOTS * SLOT_SIZE));
        Slots { first, page: self.first, count: self.count, owner: PhantomData }
    }

    /// The same pages, lent on.
    #[inline(always)]
    pub(super) fn reborrow(&mut self) -> Run<'_> {
        Run { first: self.first, count: self.count, owner: PhantomData }
    }

    /// How many they are.
    #[inline(always)]
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}

impl Slots<'_> {
    /// The slots of `range` in a flat array of second-level tables whose slot zero, at `array`, is page `base`'s.
    /// `None` if they would not lie above `array`.
    #[inline]
    pub(crate) fn in_array(
        range: &mut OwnedRange,
        array: PhysAddr,
        base: VirtAddr,
    ) -> Option<Slots<'_>> {
        let (page, count) = (range.pages().first(), range.count());
        let first = array.checked_add(page.checked_sub(base.page_number())? * SLOT_SIZE)?;
        Some(Slots { first, page, count, owner: PhantomData })
    }

    /// The slots of `range`, which lies in one section, in that section's second-level table at `table`: who cut it from a block
    /// (S87) knows both.
    #[inline(always)]
    pub(crate) fn of_block(range: &mut OwnedRange, table: PhysAddr) -> Slots<'_> {
        let (page, count) = (range.pages().first(), range.count());
        let offset = page % L2_SLOTS;
        debug_assert!(count <= L2_SLOTS - offset, "one section");
        // A table is aligned to its size, so `|` adds.
        let first = PhysAddr::new(table.raw() | (offset * SLOT_SIZE));
        Slots { first, page, count, owner: PhantomData }
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The address that the slot at `index` translates.
    pub(crate) fn address(&self, index: u32) -> VirtAddr {
        page_start(self.page.wrapping_add(index))
    }

    /// The sixteen slots from `index` on, if there are so many.
    #[inline]
    pub(super) fn sixteen(&mut self, index: u32) -> Option<Slots<'_>> {
        let left = self.count.checked_sub(index)?;
        let (first, page) = (self.at(index), self.page.wrapping_add(index));
        let count = LARGE_PAGE_SLOTS;
        (left >= count).then_some(Slots { first, page, count, owner: PhantomData })
    }

    /// Whether all slots of the large page that translates `address` are among these.
    pub(super) fn hold_large_page_of(&self, address: VirtAddr) -> bool {
        let first = address.page_number() - address.page_number() % LARGE_PAGE_SLOTS;
        first >= self.page && first + LARGE_PAGE_SLOTS <= self.page + self.count
    }

    /// Reads the slot at `index`.
    #[inline(always)]
    pub(crate) fn read(&self, machine: &impl Machine, index: u32) -> u32 {
        machine.read_descriptor(self.at(index))
    }

    /// Joins what all the slots hold by `join`, a bitwise operation, beginning with `bits`.
    #[inline(always)]
    pub(crate) fn join_all(
        &self,
        machine: &impl Machine,
        bits: u32,
        join: impl Fn(u32, u32) -> u32,
    ) -> u32 {
        machine.join_descriptors(self.first, self.count, bits, join)
    }

    /// Whether all the slots hold `descriptor`.
    #[inline(always)]
    pub(crate) fn all_hold(&self, machine: &impl Machine, descriptor: u32) -> bool {
        machine.all_hold(self.first, self.count, descriptor)
    }

    /// Writes `descriptors` from the first slot on, as many as there is room for, and cleans what it wrote. Returns
    /// how many that were.
    #[inline(always)]
    pub(crate) fn write(
        &mut self,
        machine: &impl Machine,
        descriptors: impl Iterator<Item = u32>,
    ) -> u32 {
        let written = self.write_from(machine, 0, descriptors);
        self.clean(machine, written);
        written
    }

    /// With as many `pages`; `None`, if they are not as many.
    #[inline(always)]
    pub(crate) fn with<'p>(&mut self, pages: &'p [*const Frame]) -> Option<Paired<'_, 'p>> {
        let pair = Paired { first: self.first, pages, owner: PhantomData };
        (pages.len() == self.count as usize).then_some(pair)
    }

    /// Writes `word` into the first slot and cleans it, if there is one and it is not in use. Says whether.
    #[inline(always)]
    pub(crate) fn write_first_if_empty(&mut self, machine: &impl Machine, word: u32) -> bool {
        let is_empty = self.count != 0 && self.read(machine, 0) == 0;
        if is_empty {
            machine.write_descriptors(self.first, iter::once(word));
            machine.clean_descriptors(self.first, 1);
        }
        is_empty
    }

    /// Writes `descriptors` from the slot at `index` on, as many as there is room for. Returns how many that were; cleans
    /// nothing.
    #[inline(always)]
    pub(crate) fn write_from(
        &mut self,
        machine: &impl Machine,
        index: u32,
        descriptors: impl Iterator<Item = u32>,
    ) -> u32 {
        let mut written = 0u32;
        let counted = descriptors.take(self.count().saturating_sub(index) as usize);
        machine.write_descriptors(
            self.at(index),
            counted.inspect(|_| written = written.wrapping_add(1)),
        );
        written
    }

    /// Writes what `words` gives from the slot at `index` on, as long as it gives something and there is a slot. Returns how many slots
    /// there are words in by then, those before `index` counted; cleans nothing.
    #[inline(always)]
    pub(super) fn write_while(
        &mut self,
        machine: &impl Machine,
        index: u32,
        mut words: impl FnMut() -> Option<u32>,
    ) -> u32 {
        let mut left = self.count.saturating_sub(index);
        let counted = iter::from_fn(|| {
            let next = left.checked_sub(1)?;
            let word = words()?;
            left = next;
            Some(word)
        });
        machine.write_descriptors(self.at(index), counted);
        self.count.wrapping_sub(left)
    }

    /// Writes `descriptors`, which are no more than the slots, from the first slot on; cleans nothing.
    #[inline(always)]
    pub(super) fn write_all(
        &mut self,
        machine: &impl Machine,
        descriptors: impl Iterator<Item = u32>,
    ) {
        machine.write_descriptors(self.first, descriptors);
    }

    /// Cleans the first `count` slots.
    #[inline(always)]
    pub(crate) fn clean(&self, machine: &impl Machine, count: u32) {
        if count != 0 {
            machine.clean_descriptors(self.first, count);
        }
    }

    /// Writes `first`, and to each further slot a word greater by `STEP` than the one before, and cleans them all.
    #[inline(always)]
    pub(crate) fn write_steps<const STEP: u32>(&mut self, machine: &impl Machine, first: u32) {
        if self.count != 0 {
            let steps = Steps::<STEP> { next: first, left: self.count };
            machine.write_descriptors(self.first, steps);
            machine.clean_descriptors(self.first, self.count);
        }
    }

    /// Writes `word` to every slot, and cleans them.
    #[inline(always)]
    pub(crate) fn fill(&mut self, machine: &impl Machine, word: u32) {
        if self.count != 0 {
            machine.fill_descriptors(self.first, self.count, word);
            machine.clean_descriptors(self.first, self.count);
        }
    }

    /// Clears every slot, and cleans them.
    #[inline(always)]
    pub(crate) fn clear(&mut self, machine: &impl Machine) {
        if self.count != 0 {
            machine.clear_descriptors(self.first, self.count);
            machine.clean_descriptors(self.first, self.count);
        }
    }

    /// Clears the first `count` slots, which are no more than there are, and makes every TLB forget them.
    pub(crate) fn clear_first(&mut self, machine: &impl Machine, count: u32) {
        if count != 0 {
            machine.clear_descriptors(self.first, count);
            machine.clean_descriptors(self.first, count);
            machine.barrier();
            machine.invalidate_tlb(PageRange::trusted(self.page, count));
            machine.barrier();
        }
    }

    /// Clears the slot at `index`, and cleans it.
    pub(crate) fn clear_one(&mut self, machine: &impl Machine, index: u32) {
        machine.write_descriptors(self.at(index), iter::once(0));
        machine.clean_descriptors(self.at(index), 1);
    }

    #[inline(always)]
    fn at(&self, index: u32) -> PhysAddr {
        slot_at(self.first, index)
    }
}

/// Slots, and as many pages for them.
pub(crate) struct Paired<'range, 'p> {
    /// Where the first slot lies.
    first: PhysAddr,
    pages: &'p [*const Frame],
    owner: PhantomData<&'range Slots<'range>>,
}

impl<'p> Paired<'_, 'p> {
    /// The pages.
    #[inline(always)]
    pub(crate) fn pages(&self) -> &'p [*const Frame] {
        self.pages
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn count(&self) -> u32 {
        // As many as slots.
        u32::try_from(self.pages.len()).unwrap_or(0)
    }

    /// Writes what `words` makes of each four pages, as long as it makes something and none of the four slots is in use. Returns
    /// how many slots that were; cleans nothing.
    #[inline(always)]
    pub(crate) fn write_fours_if_empty(
        &mut self,
        machine: &impl Machine,
        words: impl Fn([*const Frame; 4]) -> Option<[u32; 4]>,
    ) -> u32 {
        machine.write_fours_if_empty(self.first, self.pages.as_chunks::<4>().0, words)
    }

    /// Writes what `word` makes of each page from that at `index` on, as long as it makes something and the slot is not in use.
    /// Returns how many slots there are words in by then, those before `index` counted; cleans nothing.
    #[inline(always)]
    pub(crate) fn write_each_if_empty(
        &mut self,
        machine: &impl Machine,
        index: u32,
        word: impl Fn(*const Frame) -> Option<u32>,
    ) -> u32 {
        let rest = self.pages.get(index as usize..).unwrap_or_default();
        let words = rest.iter().map_while(|&page| word(page));
        index.wrapping_add(machine.write_if_empty(slot_at(self.first, index), words))
    }
}

/// Words for consecutive slots, each greater by `STEP` than the one before.
struct Steps<const STEP: u32> {
    next: u32,
    left: u32,
}

impl<const STEP: u32> Iterator for Steps<STEP> {
    type Item = u32;

    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let word = self.next;
        self.next = word.wrapping_add(STEP);
        Some(word)
    }

    /// Eight at a time: for a large range, what counts the slots costs more than what writes them.
    #[inline(always)]
    fn fold<B, F: FnMut(B, u32) -> B>(self, init: B, mut give: F) -> B {
        let Self { next: mut word, mut left } = self;
        let mut given = init;
        while left >= 8 {
            for _ in 0..8 {
                given = give(given, word);
                word = word.wrapping_add(STEP);
            }
            left -= 8;
        }
        while left > 0 {
            given = give(given, word);
            word = word.wrapping_add(STEP);
            left -= 1;
        }
        given
    }
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Where the first-level slot at `index` lies.
    #[inline(always)]
    pub(super) fn l1_slot(&self, index: u32) -> PhysAddr {
        PhysAddr::new(self.root.raw().wrapping_add(index.wrapping_mul(SLOT_SIZE)))
    }
}

/// Where the slot at `index` lies, counted from `first`.
#[inline(always)]
fn slot_at(first: PhysAddr, index: u32) -> PhysAddr {
    PhysAddr::new(first.raw().wrapping_add(index.wrapping_mul(SLOT_SIZE)))
}

/// The first address of page number `page`.
const fn page_start(page: u32) -> VirtAddr {
    VirtAddr::new(page << PAGE_SHIFT)
}

#[cfg(test)]
mod tests;
