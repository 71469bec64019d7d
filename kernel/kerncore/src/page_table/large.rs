//! Large mappings: supersections, sections behind them, large pages behind those, and then small pages (S22, S24, S90, S96).
//!
//! ```text
//!   addresses  │ supersection │ section │ section │ 64 KiB │ 64 KiB │ 64 KiB │ 4 │ 4 │ 4 │
//!   entries         sixteen     one slot  one slot  sixteen  sixteen  sixteen  one slot each
//!   forgotten       by one invalidation each, whatever its size                page by page
//! ```
//! Which entries a mapping is made of, its owner knows ([`LargeParts`]) and tells when it goes: so exactly those are taken
//! away, and nothing is guessed from what slots say (S22). An invalidation by address removes the entry that translates the
//! address, whatever its size: one is enough for each.

use core::mem;

use super::run::Runs;
use super::sections::Parked;
use super::unmap::{Released, Removal};
use super::{MapError, PageTable};
use crate::addr::{PAGES_PER_SECTION, PAGES_PER_SUPERSECTION, PageRange, Pfn};
use crate::attributes::Attributes;
use crate::descriptor::{PageSize, l1, l1::SUPERSECTION_SLOTS, l2::LARGE_PAGE_SLOTS};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

/// How many supersections a mapping begins with, how many sections follow, and how many large pages behind those; the rest of it
/// is small pages.
///
/// ```text
///   31          26 25                14 13                    0
///  │ supersections │      sections     │      large pages      │
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct LargeParts(u32);

const SECTIONS_SHIFT: u32 = 14;
const SUPERSECTIONS_SHIFT: u32 = 26;
const MOST_LARGE: u32 = (1 << SECTIONS_SHIFT) - 1;
const MOST_SECTIONS: u32 = (1 << (SUPERSECTIONS_SHIFT - SECTIONS_SHIFT)) - 1;
const MOST_SUPERSECTIONS: u32 = (1 << (u32::BITS - SUPERSECTIONS_SHIFT)) - 1;

const fn at_most(count: u32, most: u32) -> u32 {
    if count > most { most } else { count }
}

impl LargeParts {
    /// Small pages alone.
    pub const NONE: Self = Self(0);

    /// So many sections and large pages; more than can be counted are not: what lies behind is mapped by small pages.
    pub const fn new(sections: u32, large: u32) -> Self {
        Self(at_most(sections, MOST_SECTIONS) << SECTIONS_SHIFT | at_most(large, MOST_LARGE))
    }

    /// So many sections and nothing else: no more than can be counted.
    #[inline(always)]
    pub(crate) const fn sections_alone(sections: u32) -> Self {
        Self(sections << SECTIONS_SHIFT)
    }

    /// The same, behind so many supersections; more than can be counted are not.
    pub const fn behind(self, supersections: u32) -> Self {
        let rest = self.0 & ((1 << SUPERSECTIONS_SHIFT) - 1);
        Self(at_most(supersections, MOST_SUPERSECTIONS) << SUPERSECTIONS_SHIFT | rest)
    }

    /// The fewest entries by which `pages` consecutive frames from `first` on can be mapped, at an address that is as aligned as
    /// S4 has it for so many: the largest that the first frame is aligned to, and smaller ones for what is left behind.
    ///
    /// | first frame at | 64 KiB − 4 KiB | 64 KiB | 1 MiB | 1 MiB + 4 KiB | 16 MiB | 17 MiB + 68 KiB |
    /// |---|---|---|---|---|---|---|
    /// | a multiple of 16 MiB | 15 small | 1 large | 1 section | 1 section, 1 small | 1 supersection | 1 of each |
    /// | a multiple of 1 MiB | 15 small | 1 large | 1 section | 1 section, 1 small | 16 sections | 17 sections, 1 large, 1 small |
    /// | a multiple of 64 KiB | 15 small | 1 large | 16 large | 16 large, 1 small | 256 large | 273 large, 1 small |
    /// | any other | 15 small | 16 small | 256 small | 257 small | 4,096 small | 4,369 small |
    #[inline(always)]
    pub const fn of_run(first: Pfn, pages: u32) -> Self {
        // Most runs are short, or begin anywhere.
        if pages < LARGE_PAGE_SLOTS || !first.number().is_multiple_of(LARGE_PAGE_SLOTS) {
            return Self::NONE;
        }
        Self::of_long_run(first, pages)
    }

    const fn of_long_run(first: Pfn, pages: u32) -> Self {
        let first = first.number();
        let mut parts = Self::NONE;
        if first.is_multiple_of(PAGES_PER_SUPERSECTION) {
            parts = parts.behind(pages / PAGES_PER_SUPERSECTION);
        }
        let left = pages - parts.pages();
        let sections =
            if first.is_multiple_of(PAGES_PER_SECTION) { left / PAGES_PER_SECTION } else { 0 };
        let sections = at_most(sections, MOST_SECTIONS);
        let left = left - sections * PAGES_PER_SECTION;
        Self::new(sections, left / LARGE_PAGE_SLOTS).behind(parts.supersections())
    }

    /// How many supersections.
    pub const fn supersections(self) -> u32 {
        self.0 >> SUPERSECTIONS_SHIFT
    }

    /// How many sections that are no part of a supersection.
    pub const fn sections(self) -> u32 {
        self.0 >> SECTIONS_SHIFT & MOST_SECTIONS
    }

    /// How many large pages.
    pub const fn large_pages(self) -> u32 {
        self.0 & MOST_LARGE
    }

    /// How many first-level slots they fill.
    pub const fn first_level_slots(self) -> u32 {
        self.supersections() * SUPERSECTION_SLOTS + self.sections()
    }

    /// How many pages the supersections cover.
    pub const fn pages_in_supersections(self) -> u32 {
        self.supersections() * PAGES_PER_SUPERSECTION
    }

    /// How many pages supersections and sections cover.
    pub const fn pages_in_sections(self) -> u32 {
        self.first_level_slots() * PAGES_PER_SECTION
    }

    /// How many pages are not small.
    pub const fn pages(self) -> u32 {
        self.pages_in_sections() + self.large_pages() * LARGE_PAGE_SLOTS
    }

    /// Whether all is small pages.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The binary logarithm, in pages, of what the first address must be a multiple of.
    pub const fn alignment_order(self) -> u32 {
        let pages = match self.size_at(0) {
            PageSize::Small => 1,
            PageSize::Large => LARGE_PAGE_SLOTS,
            PageSize::Section => PAGES_PER_SECTION,
            PageSize::Supersection => PAGES_PER_SUPERSECTION,
        };
        pages.trailing_zeros()
    }

    /// The next best: large pages in the place of sections, small pages in the place of large ones. `None` if all is small.
    pub const fn smaller(self) -> Option<Self> {
        match self.size_at(0) {
            PageSize::Small => None,
            PageSize::Large => Some(Self::NONE),
            PageSize::Section | PageSize::Supersection => {
                Some(Self::new(0, self.pages() / LARGE_PAGE_SLOTS))
            }
        }
    }

    /// By what the page of that number, counted from the mapping's first, is mapped.
    pub const fn size_at(self, page: u32) -> PageSize {
        if page < self.pages_in_supersections() {
            PageSize::Supersection
        } else if page < self.pages_in_sections() {
            PageSize::Section
        } else if page < self.pages() {
            PageSize::Large
        } else {
            PageSize::Small
        }
    }
}

impl core::fmt::Debug for LargeParts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LargeParts")
            .field("supersections", &self.supersections())
            .field("sections", &self.sections())
            .field("large_pages", &self.large_pages())
            .finish()
    }
}

/// What of a range is mapped by large entries, and what by small pages behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Supersections, sections and large pages.
    pub parts: LargeParts,
    /// Small pages.
    pub small: u32,
}

/// A range of supersections, sections, large and small pages that is mapped no more, and may linger in TLBs: as [`super::Unmapped`].
#[must_use = "only `flush` gives the range and its frames back"]
pub struct UnmappedLarge<'table, M, L: Locks, P> {
    table: &'table PageTable<M, L>,
    range: OwnedRange,
    parts: LargeParts,
    parked: Parked,
    payload: mem::ManuallyDrop<P>,
    removal: Removal,
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps `sections` sections from page `offset` of `range` on to consecutive frames from `first`. The tables that they
    /// displace are parked. Not seen by every walker before the next barrier. Says how many were mapped.
    ///
    /// # Errors
    /// As [`PageTable::map_section`], with the sections before it mapped.
    pub fn map_sections(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        (first, sections): (Pfn, u32),
        attributes: Attributes,
        parked: &mut Parked,
    ) -> Result<(), (u32, MapError)> {
        for section in 0..sections {
            let behind = section * PAGES_PER_SECTION;
            let frames = PAGES_PER_SECTION;
            let misfit = MapError::DoesNotFit { range: range.pages(), offset, frames };
            let first = first.checked_add(behind).ok_or((section, misfit))?;
            self.map_section(range, offset + behind, first, attributes, parked)
                .map_err(|error| (section, error))?;
        }
        Ok(())
    }

    /// Takes away what `mapped` says is at the start of `range`. `parked` are the tables that the sections displaced; they and
    /// `payload` wait with the range for the flush.
    pub fn unmap_large<P>(
        &self,
        mut range: OwnedRange,
        Mapped { parts, small }: Mapped,
        parked: Parked,
        payload: P,
    ) -> UnmappedLarge<'_, M, L, P> {
        let mut removal = Removal::default();
        if small != 0
            && let Some(runs) = Runs::of(&mut range, parts.pages(), small)
        {
            removal = self.clear(runs);
        }
        if parts.large_pages() != 0 {
            let pages = parts.pages() - parts.pages_in_sections();
            let runs = Runs::of(&mut range, parts.pages_in_sections(), pages);
            self.clear_large_pages(runs.into_iter().flatten(), &mut removal);
        }
        let first = l1::index(range.start());
        let sections = first + parts.supersections() * SUPERSECTION_SLOTS;
        for section in (first..sections).step_by(SUPERSECTION_SLOTS as usize) {
            self.clear_supersection(section, &mut removal);
        }
        for section in sections..sections + parts.sections() {
            self.clear_section(section, &mut removal);
        }
        self.machine.barrier();
        let payload = mem::ManuallyDrop::new(payload);
        UnmappedLarge { table: self, range, parts, parked, payload, removal }
    }

    /// Invalidates what any TLB holds of `count` entries, each of `pages` pages, from page number `first` on.
    #[inline]
    pub(super) fn forget_each(&self, first: u32, pages: u32, count: u32) {
        for entry in 0..count {
            if let Some(page) = PageRange::from_numbers(first + entry * pages, 1) {
                self.machine.invalidate_tlb(page);
            }
        }
    }
}

impl<M: Machine, L: Locks, P> UnmappedLarge<'_, M, L, P> {
    /// Invalidates every TLB entry of the range, on every CPU, and waits for it; then the parked tables return to their slots,
    /// and the addresses and what was mapped there may be used anew (S23, S24).
    pub fn flush(self) -> Released<P> {
        let Self { table, range, parts, parked, payload, removal } = self;
        let pages = range.pages();
        table.forget_each(pages.first(), PAGES_PER_SUPERSECTION, parts.supersections());
        let behind = pages.first() + parts.pages_in_supersections();
        table.forget_each(behind, PAGES_PER_SECTION, parts.sections());
        let behind = pages.first() + parts.pages_in_sections();
        table.forget_each(behind, LARGE_PAGE_SLOTS, parts.large_pages());
        let small = pages.count().saturating_sub(parts.pages());
        if small != 0
            && let Some(pages) = pages.sub_range(parts.pages(), small)
        {
            table.machine.invalidate_tlb(pages);
        }
        table.machine.barrier();
        table.put_tables_back(l1::index(range.start()), parts.first_level_slots(), parked);
        Released { range, payload: mem::ManuallyDrop::into_inner(payload), removal }
    }
}

impl<M, L: Locks, P> core::fmt::Debug for UnmappedLarge<'_, M, L, P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UnmappedLarge")
            .field("range", &self.range)
            .field("parts", &self.parts)
            .field("removal", &self.removal)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
