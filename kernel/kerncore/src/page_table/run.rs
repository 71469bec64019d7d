//! The only way to a second-level slot: from an owned range to the slots below it.
//!
//! ```text
//!   OwnedRange ──▶ Runs ──▶ Run (pages in one MiB) ──▶ Slots (that run, in its table)
//! ```
//! Each step borrows the one before, so that slots cannot be written after the range went elsewhere.

use super::PageTable;
use crate::{
    addr::{PAGE_SIZE, PAGES_PER_SECTION, PageRange, PhysAddr, VirtAddr},
    descriptor::{SLOT_SIZE, l1, l2},
    lock::Locks,
    machine::Machine,
    owned_range::OwnedRange,
};
use core::marker::PhantomData;

/// The pages of an owned range, cut at the borders of second-level tables.
pub(super) struct Runs<'range> {
    left: PageRange,
    owner: PhantomData<&'range mut OwnedRange>,
}

/// Pages of an owned range that one second-level table translates.
pub(super) struct Run<'range> {
    pages: PageRange,
    owner: PhantomData<&'range mut OwnedRange>,
}

/// Consecutive slots of one second-level table, or of adjacent ones, and the right to write them.
pub(crate) struct Slots<'range> {
    first: PhysAddr,
    pages: PageRange,
    owner: PhantomData<&'range mut OwnedRange>,
}

impl<'range> Runs<'range> {
    /// `count` pages of `range` from `offset`, or `None` if they do not lie inside.
    #[inline]
    pub(super) fn of(range: &'range mut OwnedRange, offset: u32, count: u32) -> Option<Self> {
        let left = range.pages().sub_range(offset, count)?;
        Some(Self { left, owner: PhantomData })
    }
}

impl<'range> Iterator for Runs<'range> {
    type Item = Run<'range>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let to_border = PAGES_PER_SECTION - self.left.first() % PAGES_PER_SECTION;
        let count = self.left.count().min(to_border);
        if count == 0 {
            return None;
        }
        let pages = self.left.sub_range(0, count)?;
        // The rest of a range that ends at the top of the address space has no first page: it is empty.
        self.left = self
            .left
            .sub_range(count, self.left.count() - count)
            .or_else(|| PageRange::from_numbers(0, 0))?;
        Some(Run { pages, owner: PhantomData })
    }
}

impl<'range> Run<'range> {
    /// Which pages these are.
    pub(super) fn pages(&self) -> PageRange {
        self.pages
    }

    /// The index of the first-level slot above them.
    pub(super) fn section(&self) -> u32 {
        l1::index(self.pages.start())
    }

    /// Their slots in `table`, which must be the one that their first-level slot names.
    #[inline]
    pub(super) fn slots(self, table: PhysAddr) -> Slots<'range> {
        // The table is 1 KiB-aligned, so `|` adds.
        let first = PhysAddr::new(table.raw() | (l2::index(self.pages.start()) * SLOT_SIZE));
        Slots { first, pages: self.pages, owner: PhantomData }
    }
}

impl Slots<'_> {
    /// The slots of `range` in a flat array of second-level tables whose slot zero, at `array`, is page `base`'s.
    /// `None` if they would not lie above `array`.
    pub(crate) fn in_array(
        range: &mut OwnedRange,
        array: PhysAddr,
        base: VirtAddr,
    ) -> Option<Slots<'_>> {
        let index = range.pages().first().checked_sub(base.page_number())?;
        let first = array.checked_add(index * SLOT_SIZE)?;
        Some(Slots { first, pages: range.pages(), owner: PhantomData })
    }

    /// How many there are.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.pages.count()
    }

    /// The address that the slot at `index` translates.
    pub(crate) fn address(&self, index: u32) -> VirtAddr {
        VirtAddr::new((self.pages.first() + index) * PAGE_SIZE)
    }

    /// Whether all slots of the large page that translates `address` are among these.
    pub(super) fn hold_large_page_of(&self, address: VirtAddr) -> bool {
        let first = address.page_number() - address.page_number() % l2::LARGE_PAGE_SLOTS;
        PageRange::from_numbers(first, l2::LARGE_PAGE_SLOTS)
            .is_some_and(|page| self.pages.contains_range(page))
    }

    /// Reads the slot at `index`.
    #[inline(always)]
    pub(crate) fn read(&self, machine: &impl Machine, index: u32) -> u32 {
        machine.read_descriptor(self.at(index))
    }

    /// Writes `descriptors` from the slot at `index` on, as many as there is room for, and cleans what it wrote.
    /// Returns how many that were.
    #[inline]
    pub(crate) fn write(
        &mut self,
        machine: &impl Machine,
        index: u32,
        descriptors: impl Iterator<Item = u32>,
    ) -> u32 {
        let room = self.count().saturating_sub(index) as usize;
        let first = self.at(index);
        let mut written = 0;
        machine.write_descriptors(first, descriptors.take(room).inspect(|_| written += 1));
        if written != 0 {
            machine.clean_descriptors(first, written);
        }
        written
    }

    #[inline(always)]
    fn at(&self, index: u32) -> PhysAddr {
        PhysAddr::new(self.first.raw().wrapping_add(index.wrapping_mul(SLOT_SIZE)))
    }
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Where the first-level slot at `index` lies.
    #[inline(always)]
    pub(super) fn l1_slot(&self, index: u32) -> PhysAddr {
        PhysAddr::new(self.root.raw().wrapping_add(index.wrapping_mul(SLOT_SIZE)))
    }
}
