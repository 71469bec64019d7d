//! Few large entries that are made, or ended and flushed, in one go: by whoever holds the lock of areas (S23, S96).
//!
//! ```text
//!   sections         up to sixteen first-level slots, each a MiB further
//!   a supersection   sixteen first-level slots, all alike
//!   a large page     sixteen second-level slots, all alike
//!   small pages      one second-level slot, or a few, whose frames are consecutive
//! ```
//! Each either does all of it, or nothing has changed: where a table stands, or is lacking, where a slot is in use, or is not what
//! it should be, the general way finds words for it. First-level slots are written without the lock on the making of tables: nobody
//! makes one for a section of whose addresses he owns none, and here all are owned.

use super::PageTable;
use super::run::{Run, Slots};
use crate::addr::{
    LARGE_PAGE_SIZE, PAGE_SIZE, PAGES_PER_SECTION, PAGES_PER_SUPERSECTION, PageRange, PhysAddr,
    SECTION_SIZE,
};
use crate::descriptor::{
    PageSize, SLOT_SIZE, l1, l1::SUPERSECTION_SLOTS, l2, l2::LARGE_PAGE_SLOTS,
};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

/// First-level slots that are written, or cleared and flushed, in one go at most.
pub(crate) const MOST_SLOTS: u32 = SUPERSECTION_SLOTS;

/// Whether sixteen first-level slots are one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supersection {
    /// Each is one of its own: sections.
    No,
    /// They are.
    Yes,
}

/// Words for consecutive slots, each greater by `step` than the one before.
struct Steps {
    next: u32,
    step: u32,
    left: u32,
}

impl Iterator for Steps {
    type Item = u32;

    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let word = self.next;
        self.next = word.wrapping_add(self.step);
        Some(word)
    }
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps all of `range`, whole sections, by as many first-level slots, no more than [`MOST_SLOTS`], the first of which gets
    /// `word`: one supersection, if that is its word, or else sections. Says whether; otherwise nothing has changed. Seen by every
    /// walker.
    ///
    /// Not inlined: it has all registers to itself.
    #[inline(never)]
    pub(crate) fn map_above_at_hand(&self, range: &mut OwnedRange, word: u32) -> bool {
        let (slot, count) = self.slots_above(range);
        let mut in_use = 0;
        for index in 0..count {
            in_use |= self.machine.read_descriptor(nth_slot(slot, index));
        }
        if in_use != 0 {
            return false;
        }
        let step = if l1::is_supersection(word) { 0 } else { SECTION_SIZE };
        self.machine.write_descriptors(slot, Steps { next: word, step, left: count });
        self.machine.clean_descriptors(slot, count);
        self.machine.barrier();
        true
    }

    /// Clears and flushes all of `range`, if it is one supersection or else sections, as `is_one` says. Says whether; otherwise
    /// nothing has changed.
    ///
    /// Not inlined: it has all registers to itself.
    #[inline(never)]
    pub(crate) fn clear_above_at_hand(&self, range: &mut OwnedRange, is_one: Supersection) -> bool {
        let (slot, count) = self.slots_above(range);
        let first = self.machine.read_descriptor(slot);
        let mut differ = 0;
        for index in 1..count {
            differ |= first ^ self.machine.read_descriptor(nth_slot(slot, index));
        }
        // Of what sections say, their addresses alone differ.
        let (size, pages, may_differ) = match is_one {
            Supersection::No => (PageSize::Section, PAGES_PER_SECTION, !(SECTION_SIZE - 1)),
            Supersection::Yes => (PageSize::Supersection, PAGES_PER_SUPERSECTION, 0),
        };
        if differ & !may_differ != 0 || l1::page_size(first) != Some(size) {
            return false;
        }
        self.machine.clear_descriptors(slot, count);
        self.machine.clean_descriptors(slot, count);
        self.machine.barrier();
        self.forget_each(
            range.pages().first(),
            pages,
            if pages == PAGES_PER_SECTION { count } else { 1 },
        );
        self.machine.barrier();
        true
    }

    /// The first of the first-level slots that translate `range`, and how many they are.
    #[inline(always)]
    fn slots_above(&self, range: &OwnedRange) -> (PhysAddr, u32) {
        let (first, count) = (range.pages().first(), range.count());
        debug_assert!((first | count).is_multiple_of(PAGES_PER_SECTION), "{range:?}");
        debug_assert!(count / PAGES_PER_SECTION <= MOST_SLOTS, "{range:?}");
        (self.l1_slot(first / PAGES_PER_SECTION), count / PAGES_PER_SECTION)
    }

    /// Maps all of `range`, sixteen pages from a multiple of sixteen on, by the large page of `word`, if its table is there and its
    /// slots are empty. Says whether; otherwise nothing has changed. Seen by every walker.
    ///
    #[inline(always)]
    pub(crate) fn map_large_page_at_hand(&self, range: &mut OwnedRange, word: u32) -> bool {
        let run = Run::whole(range).sixteen();
        let Some(below) = self.table_there(run.section()) else { return false };
        let mut slots = run.slots(below);
        let is_free = self.joined(&slots) == 0;
        if is_free {
            slots.fill(&self.machine, word);
            self.machine.barrier();
        }
        is_free
    }

    /// [`PageTable::map_large_page_at_hand`], not inlined: for who has few registers to spare.
    #[inline(never)]
    pub(crate) fn map_large_page_apart(&self, range: &mut OwnedRange, word: u32) -> bool {
        self.map_large_page_at_hand(range, word)
    }

    /// [`PageTable::clear_large_page_at_hand`], wherever it leads, as the above.
    #[inline(never)]
    pub(crate) fn clear_large_page_apart(&self, range: &mut OwnedRange) -> bool {
        self.clear_large_page_at_hand(range, |_| true)
    }

    /// Maps `range`, one page, by the small page of `word`, if its table is there and its slot is empty. Says whether; otherwise nothing
    /// has changed. Seen by every walker.
    #[inline(always)]
    pub(crate) fn map_page_at_hand(&self, range: &mut OwnedRange, word: u32) -> bool {
        let run = Run::whole(range).single();
        let Some(below) = self.table_there(run.section()) else { return false };
        let is_free = run.slots(below).write_first_if_empty(&self.machine, word);
        if is_free {
            self.machine.barrier();
        }
        is_free
    }

    /// Clears and flushes `range`, one page, if it is a small one and `may_end`, which is told where its frame lies, allows it. Says
    /// whether; otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn clear_page_at_hand(
        &self,
        range: &mut OwnedRange,
        may_end: impl FnOnce(PhysAddr) -> bool,
    ) -> bool {
        let run = Run::whole(range).single();
        let pages = run.pages();
        let Some(below) = self.table_of(&run) else { return false };
        let mut slots = run.slots(below);
        let word = slots.read(&self.machine, 0);
        let is_one = l2::is_small(word) && may_end(frame_of(word));
        if is_one {
            self.end_slots(&mut slots, pages);
        }
        is_one
    }

    /// As [`PageTable::clear_page_at_hand`], of a few pages, fewer than eight, whose frames are consecutive.
    #[inline(always)]
    pub(crate) fn clear_consecutive_at_hand(
        &self,
        range: &mut OwnedRange,
        may_end: impl FnOnce(PhysAddr) -> bool,
    ) -> bool {
        let run = Run::whole(range);
        if !run.is_one_of_few() {
            return false;
        }
        let pages = run.pages();
        let Some(below) = self.table_of(&run) else { return false };
        let mut slots = run.slots(below);
        let first = slots.read(&self.machine, 0);
        let mut next = first;
        let mut differ = 0;
        for index in 1..slots.count() {
            next = next.wrapping_add(PAGE_SIZE);
            differ |= next ^ slots.read(&self.machine, index);
        }
        let are_consecutive = l2::is_small(first) && differ == 0 && may_end(frame_of(first));
        if are_consecutive {
            self.end_slots(&mut slots, pages);
        }
        are_consecutive
    }

    /// Clears `slots`, which translate `pages`, a few; when this returns no TLB remembers them.
    #[inline(always)]
    fn end_slots(&self, slots: &mut Slots<'_>, pages: PageRange) {
        slots.clear(&self.machine);
        self.machine.barrier();
        self.flush_pages(pages);
    }

    /// Clears and flushes all of `range`, sixteen pages from a multiple of sixteen on, if it is one large page and `may_end`, which is
    /// told where it leads, allows it. Says whether; otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn clear_large_page_at_hand(
        &self,
        range: &mut OwnedRange,
        may_end: impl FnOnce(PhysAddr) -> bool,
    ) -> bool {
        let page = range.pages().first();
        let run = Run::whole(range).sixteen();
        let Some(below) = self.table_of(&run) else { return false };
        let mut slots = run.slots(below);
        let first = slots.read(&self.machine, 0);
        let is_one = l2::is_large(first)
            && slots.all_hold(&self.machine, first)
            && may_end(PhysAddr::new(first & !(LARGE_PAGE_SIZE - 1)));
        if is_one {
            slots.clear(&self.machine);
            self.machine.barrier();
            self.forget_each(page, LARGE_PAGE_SLOTS, 1);
            self.machine.barrier();
        }
        is_one
    }
}

/// The frame that the small page `word` leads to.
#[inline(always)]
const fn frame_of(word: u32) -> PhysAddr {
    PhysAddr::new(word & !(PAGE_SIZE - 1))
}

/// Where the slot at `index` lies, counted from `first`.
#[inline(always)]
fn nth_slot(first: PhysAddr, index: u32) -> PhysAddr {
    PhysAddr::new(first.raw().wrapping_add(index.wrapping_mul(SLOT_SIZE)))
}
