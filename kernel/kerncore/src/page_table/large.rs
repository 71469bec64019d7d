//! Large mappings: sections, large pages behind them, small pages behind those (S22, S24, S90).
//!
//! ```text
//!   addresses  │ section │ section │ 64 KiB │ 64 KiB │ 64 KiB │ 4 │ 4 │ 4 │
//!   entries      one slot  one slot  sixteen  sixteen  sixteen  one slot each
//!   forgotten    by one invalidation each, whatever its size       page by page
//! ```
//! Which entries a mapping is made of, its owner knows ([`LargeParts`]) and tells when it goes: so exactly those are taken
//! away, and nothing is guessed from what slots say (S22). An invalidation by address removes the entry that translates the
//! address, whatever its size: one is enough for each.

use core::mem;

use super::run::Runs;
use super::sections::Parked;
use super::unmap::{Released, Removal};
use super::{MapError, PageTable};
use crate::addr::{PAGES_PER_SECTION, PageRange, Pfn};
use crate::attributes::Attributes;
use crate::descriptor::{PageSize, l1, l2::LARGE_PAGE_SLOTS};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

/// How many sections a mapping begins with, and how many large pages follow; the rest of it is small pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargeParts {
    sections: u16,
    large: u16,
}

impl LargeParts {
    /// Small pages alone.
    pub const NONE: Self = Self { sections: 0, large: 0 };

    /// So many sections and large pages; more than can be counted are not: what lies behind is mapped by small pages.
    #[expect(clippy::cast_possible_truncation, reason = "compared just before")]
    pub const fn new(sections: u32, large: u32) -> Self {
        const fn counted(count: u32) -> u16 {
            if count > u16::MAX as u32 { u16::MAX } else { count as u16 }
        }
        Self { sections: counted(sections), large: counted(large) }
    }

    /// How many sections.
    pub const fn sections(self) -> u32 {
        self.sections as u32
    }

    /// How many large pages.
    pub const fn large_pages(self) -> u32 {
        self.large as u32
    }

    /// How many pages the sections cover.
    pub const fn pages_in_sections(self) -> u32 {
        self.sections as u32 * PAGES_PER_SECTION
    }

    /// How many pages sections and large pages cover.
    pub const fn pages(self) -> u32 {
        self.pages_in_sections() + self.large as u32 * LARGE_PAGE_SLOTS
    }

    /// Whether all is small pages.
    pub const fn is_none(self) -> bool {
        self.sections == 0 && self.large == 0
    }

    /// The binary logarithm, in pages, of what the first address must be a multiple of.
    pub const fn alignment_order(self) -> u32 {
        match self {
            Self { sections: 0, large: 0 } => 0,
            Self { sections: 0, .. } => LARGE_PAGE_SLOTS.trailing_zeros(),
            Self { .. } => PAGES_PER_SECTION.trailing_zeros(),
        }
    }

    /// The next best: large pages in the place of sections, small pages in the place of large ones. `None` if all is small.
    pub const fn smaller(self) -> Option<Self> {
        match self {
            Self { sections: 0, large: 0 } => None,
            Self { sections: 0, .. } => Some(Self::NONE),
            Self { .. } => Some(Self::new(0, self.pages() / LARGE_PAGE_SLOTS)),
        }
    }

    /// By what the page of that number, counted from the mapping's first, is mapped.
    pub const fn size_at(self, page: u32) -> PageSize {
        if page < self.pages_in_sections() {
            PageSize::Section
        } else if page < self.pages() {
            PageSize::Large
        } else {
            PageSize::Small
        }
    }
}

/// What of a range is mapped by large entries, and what by small pages behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Sections and large pages.
    pub parts: LargeParts,
    /// Small pages.
    pub small: u32,
}

/// A range of sections, large and small pages that is mapped no more, and may linger in TLBs: as [`super::Unmapped`].
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
        for section in first..first + parts.sections() {
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
        table.forget_each(pages.first(), PAGES_PER_SECTION, parts.sections());
        let behind = pages.first() + parts.pages_in_sections();
        table.forget_each(behind, LARGE_PAGE_SLOTS, parts.large_pages());
        let small = pages.count().saturating_sub(parts.pages());
        if small != 0
            && let Some(pages) = pages.sub_range(parts.pages(), small)
        {
            table.machine.invalidate_tlb(pages);
        }
        table.machine.barrier();
        table.put_tables_back(l1::index(range.start()), parts.sections(), parked);
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
