//! Mappings of entries of any size in any order: what a device's addresses are made of (S109).
//!
//! ```text
//!   device addresses   │ 4 │ 4 │ 64 KiB │ 64 KiB │ section │ section │ supersection │ 64 KiB │ 4 │
//!   frames             │ ▲ consecutive from here ────────────────────────────────────────▶ │  then another run
//! ```
//! Each entry is the largest that the alignment of both sides and what is left of the run allow. Nobody keeps a list of them: an
//! entry that lies in a range belongs to the range's owner, for nobody else could have made it, so what is to be cleared is read
//! from the tables. One that reaches beyond the range is somebody else's, and left alone.
//!
//! The flush names one page of each entry: one for each of the smallest size that was met, or all pages if that was the smallest.

use core::{fmt, mem};

use super::run::{Runs, Slots};
use super::sections::Parked;
use super::tables::{Above, section_start};
use super::unmap::{Oddity, OutsideRange, Released, Removal};
use super::{MapError, PageTable, TableSource};
use crate::addr::{PAGE_SHIFT, PAGES_PER_SECTION, PageRange, Pfn};
use crate::attributes::Attributes;
use crate::descriptor::{
    PageSize, l1,
    l1::SUPERSECTION_SLOTS,
    l2::{self, LARGE_PAGE_SLOTS},
};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

/// All sizes but the smallest, largest first.
const LARGE_SIZES: [PageSize; 3] = [PageSize::Supersection, PageSize::Section, PageSize::Large];

const fn pages_of(size: PageSize) -> u32 {
    size.bytes() >> PAGE_SHIFT
}

/// The next entries of a run of `left` pages whose first page is `page`, and frame `frame`: their size, and how many pages may be
/// mapped before a larger size could be had.
const fn next_entries(page: u32, frame: u32, left: u32) -> (PageSize, u32) {
    // Where both sides differ, no entry of that size ever fits.
    let together = (page ^ frame).trailing_zeros();
    let mut larger = 0;
    let mut index = 0;
    while index < LARGE_SIZES.len() {
        let size = LARGE_SIZES[index];
        let pages = pages_of(size);
        if together >= pages.trailing_zeros() {
            if page.is_multiple_of(pages) && left >= pages {
                let whole = left - left % pages;
                return (size, limit(page, whole, larger));
            }
            // Before the next border of this size, if there is room for one behind it.
            let to_border = pages - page % pages;
            if to_border < left && left - to_border >= pages {
                larger = pages;
            }
        }
        index += 1;
    }
    (PageSize::Small, limit(page, left, larger))
}

/// `left` pages from `page` on, or fewer if a border of `larger` pages comes before.
const fn limit(page: u32, left: u32, larger: u32) -> u32 {
    if larger == 0 {
        return left;
    }
    let to_border = larger - page % larger;
    if left < to_border { left } else { to_border }
}

/// What was cleared, and the smallest entry among it.
struct Cleared {
    removal: Removal,
    smallest: PageSize,
}

impl Cleared {
    fn met(&mut self, size: PageSize) {
        self.smallest = self.smallest.min(size);
    }
}

/// A range of entries of any size that are cleared, and may linger in TLBs: as [`super::Unmapped`].
#[must_use = "only `flush` gives the range and what waits with it back"]
pub struct UnmappedEntries<'table, M, L: Locks, P> {
    table: &'table PageTable<M, L>,
    range: OwnedRange,
    smallest: PageSize,
    payload: mem::ManuallyDrop<P>,
    removal: Removal,
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps `count` consecutive frames from `first` at the pages of `range` from `offset` on, by the largest entries that fit. The
    /// tables that these displace are parked. Not seen by every walker before the next barrier.
    ///
    /// # Errors
    /// [`MapError`], and how many pages from `offset` on are mapped, by whole entries: who asked unmaps them.
    pub fn map_by_largest(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        (first, count): (Pfn, u32),
        attributes: Attributes,
        (tables, parked): (&impl TableSource, &mut Parked),
    ) -> Result<(), (u32, MapError)> {
        let whole = range.pages();
        let misfit = MapError::DoesNotFit { range: whole, offset, frames: count };
        if count == 0 {
            return Err((0, MapError::NoFrames { range: whole }));
        }
        if whole.sub_range(offset, count).is_none() || first.checked_add(count - 1).is_none() {
            return Err((0, misfit));
        }
        let mut done = 0;
        while done < count {
            let at = offset + done;
            let frame = first.checked_add(done).ok_or((done, misfit))?;
            let (size, pages) = next_entries(whole.first() + at, frame.number(), count - done);
            let entries = pages / pages_of(size);
            let mapped = match size {
                PageSize::Small => self
                    .map_consecutive(range, at, (frame, pages), attributes, tables)
                    .map(drop)
                    .map_err(|error| (error.mapped(), error)),
                PageSize::Large => self
                    .map_large_pages(range, at, (frame, entries), attributes, tables)
                    .map_err(|error| (error.mapped(), error)),
                PageSize::Section => self
                    .map_sections(range, at, (frame, entries), attributes, parked)
                    .map_err(|(sections, error)| (sections * PAGES_PER_SECTION, error)),
                PageSize::Supersection => self
                    .map_supersections(range, at, (frame, entries), attributes, parked)
                    .map_err(|(above, error)| (above * pages_of(size), error)),
            };
            mapped.map_err(|(here, error)| (done + here, error))?;
            done += pages;
        }
        Ok(())
    }

    fn map_supersections(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        (first, count): (Pfn, u32),
        attributes: Attributes,
        parked: &mut Parked,
    ) -> Result<(), (u32, MapError)> {
        let pages = pages_of(PageSize::Supersection);
        for entry in 0..count {
            let misfit = MapError::DoesNotFit { range: range.pages(), offset, frames: pages };
            let first = first.checked_add(entry * pages).ok_or((entry, misfit))?;
            self.map_supersection(range, offset + entry * pages, first, attributes, parked)
                .map_err(|error| (entry, error))?;
        }
        Ok(())
    }

    /// Clears every entry of `range`, of whatever size. `payload` waits with the range for the flush.
    pub fn unmap_entries<P>(
        &self,
        mut range: OwnedRange,
        payload: P,
    ) -> UnmappedEntries<'_, M, L, P> {
        let Cleared { removal, smallest } = self.clear_entries(Runs::all(&mut range));
        let payload = mem::ManuallyDrop::new(payload);
        UnmappedEntries { table: self, range, smallest, payload, removal }
    }

    /// As [`PageTable::unmap_entries`], of `count` pages of `range` from `offset` on, which are forgotten when this returns.
    ///
    /// # Errors
    /// [`OutsideRange`]; nothing was done.
    pub fn unmap_entries_part(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        count: u32,
    ) -> Result<Removal, OutsideRange> {
        let whole = range.pages();
        let outside = OutsideRange { range: whole, offset, count };
        let runs = Runs::of(range, offset, count).ok_or(outside)?;
        let part = whole.sub_range(offset, count).ok_or(outside)?;
        let Cleared { removal, smallest } = self.clear_entries(runs);
        self.forget_entries(part, smallest);
        Ok(removal)
    }

    fn clear_entries(&self, runs: Runs<'_>) -> Cleared {
        let whole = PageRange::trusted(runs.first(), runs.left());
        let mut cleared = Cleared { removal: Removal::default(), smallest: PageSize::Supersection };
        for run in runs {
            match self.above(run.section()) {
                Above::Nothing => {}
                Above::Table(table) => self.clear_below(&mut run.slots(table), &mut cleared),
                Above::Other(descriptor) => {
                    self.clear_above(run.section(), descriptor, whole, &mut cleared);
                }
            }
        }
        self.machine.barrier();
        cleared
    }

    /// Clears second-level slots, all of one kind for the most part.
    fn clear_below(&self, slots: &mut Slots<'_>, cleared: &mut Cleared) {
        let common = slots.join_all(&self.machine, !0, |bits, descriptor| bits & descriptor);
        if l2::is_small(common) {
            slots.clear(&self.machine);
            cleared.removal.pages += slots.count();
            cleared.met(PageSize::Small);
            return;
        }
        let mut index = 0;
        while index < slots.count() {
            let first = slots.read(&self.machine, index);
            let address = slots.address(index);
            let is_large = l2::is_large(first) && slots.hold_large_page_of(address);
            let sixteen = slots
                .sixteen(index)
                .filter(|_| is_large && address.page_number().is_multiple_of(LARGE_PAGE_SLOTS));
            if let Some(mut sixteen) = sixteen
                && sixteen.all_hold(&self.machine, first)
            {
                sixteen.clear(&self.machine);
                cleared.removal.pages += LARGE_PAGE_SLOTS;
                cleared.met(PageSize::Large);
                index += LARGE_PAGE_SLOTS;
            } else {
                self.clear_slot(slots, index, first, cleared);
                index += 1;
            }
        }
    }

    /// Clears one second-level slot, which is no part of a whole large page.
    fn clear_slot(
        &self,
        slots: &mut Slots<'_>,
        index: u32,
        descriptor: u32,
        cleared: &mut Cleared,
    ) {
        let address = slots.address(index);
        let reaches_outside = l2::is_large(descriptor) && !slots.hold_large_page_of(address);
        if descriptor == 0 {
            return;
        }
        cleared.met(PageSize::Small);
        if reaches_outside {
            cleared.removal.note(Oddity::ReachesOutside { address, descriptor });
            return;
        }
        if l2::is_small(descriptor) {
            cleared.removal.pages += 1;
        } else if l2::is_large(descriptor) {
            cleared.removal.pages += 1;
            cleared.removal.note(Oddity::Uneven { address, descriptor });
        } else {
            cleared.removal.note(Oddity::Leftover { address, descriptor });
        }
        slots.clear_one(&self.machine, index);
    }

    /// Clears the first-level entry that the slot of section number `section` holds, if all of what it translates is of `whole`.
    fn clear_above(&self, section: u32, descriptor: u32, whole: PageRange, cleared: &mut Cleared) {
        let (slots, size) = if l1::is_supersection(descriptor) {
            (SUPERSECTION_SLOTS, PageSize::Supersection)
        } else {
            (1, PageSize::Section)
        };
        let first = section - section % slots;
        let pages = PageRange::trusted(first * PAGES_PER_SECTION, slots * PAGES_PER_SECTION);
        if !whole.contains_range(pages) {
            let pages = whole.intersection(pages).unwrap_or(whole);
            let address = pages.start().max(section_start(section));
            cleared.met(PageSize::Small);
            cleared.removal.note(Oddity::ReachesOutside { address, descriptor });
            return;
        }
        cleared.met(size);
        match size {
            PageSize::Supersection => self.clear_supersection(first, &mut cleared.removal),
            _ => self.clear_section(section, &mut cleared.removal),
        }
        if cleared.removal.oddities != 0 {
            cleared.met(PageSize::Small);
        }
    }

    /// Invalidates what any TLB holds of `pages`, of which no entry is smaller than `smallest`, and waits for it.
    fn forget_entries(&self, pages: PageRange, smallest: PageSize) {
        if smallest == PageSize::Small {
            self.machine.invalidate_tlb(pages);
        } else {
            let step = pages_of(smallest);
            let mut page = pages.first();
            while page < pages.end() {
                self.machine.invalidate_tlb(PageRange::trusted(page, 1));
                page = page - page % step + step;
            }
        }
        self.machine.barrier();
    }
}

impl<M: Machine, L: Locks, P> UnmappedEntries<'_, M, L, P> {
    /// Invalidates every TLB entry of the range, and waits for it. From then on the addresses and what was mapped there may be used
    /// anew (S23).
    pub fn flush(self) -> Released<P> {
        let Self { table, range, smallest, payload, removal } = self;
        table.forget_entries(range.pages(), smallest);
        Released { range, payload: mem::ManuallyDrop::into_inner(payload), removal }
    }
}

impl<M, L: Locks, P> fmt::Debug for UnmappedEntries<'_, M, L, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnmappedEntries")
            .field("range", &self.range)
            .field("smallest", &self.smallest)
            .field("removal", &self.removal)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive way: at each page the largest entry whose pages all are there and whose alignment both sides have.
    fn naive(page: u32, frame: u32, left: u32) -> PageSize {
        let fits = |size: &&PageSize| {
            let pages = pages_of(**size);
            page.is_multiple_of(pages) && frame.is_multiple_of(pages) && left >= pages
        };
        LARGE_SIZES.iter().find(fits).copied().unwrap_or(PageSize::Small)
    }

    /// S109: by size and alignment of both sides.
    #[test]
    fn each_entry_is_the_largest_that_both_sides_and_what_is_left_allow() {
        let starts =
            [0, 1, 15, 16, 17, 240, 255, 256, 257, 272, 4080, 4096, 4097, 4112, 4352, 8191];
        let counts = [1, 15, 16, 17, 31, 256, 257, 300, 511, 512, 4096, 4113, 8192, 12_345];
        for page in starts {
            for frame in starts {
                for count in counts {
                    let mut done = 0;
                    while done < count {
                        let (size, pages) = next_entries(page + done, frame + done, count - done);
                        assert!(pages != 0 && pages.is_multiple_of(pages_of(size)));
                        for entry in (0..pages).step_by(pages_of(size) as usize) {
                            let at = done + entry;
                            let wanted = naive(page + at, frame + at, count - at);
                            assert_eq!(size, wanted, "{page} to {frame}, {count}, at {at}");
                        }
                        done += pages;
                    }
                    assert_eq!(done, count);
                }
            }
        }
    }
}
