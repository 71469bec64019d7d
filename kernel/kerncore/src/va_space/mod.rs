//! Who owns which addresses of the vmalloc window.
//!
//! ```text
//!  first                                             top                       end of the space
//!    ├───────────┬──┬───────┬────────┬──┬──────────┬──┼───────────────────────────┤
//!    │   area    │gu│ hole  │  area  │gu│   area   │gu│        open space         │
//!    └───────────┴──┴───────┴────────┴──┴──────────┴──┴───────────────────────────┘
//!     tags: n      n       h  n        n  n          n
//!     holes:         length
//!     starts: 1               1           1
//!     records: r              r           r
//! ```
//!
//! Every area has one guard page behind it that is never mapped (S2): the right to map it is never handed out.
//! The free runs between areas are *holes*;
//! neighbouring free pages are always one hole. What is free above the highest area is the *open space*, a number
//! and not a hole, so that taking from it and giving back to it touches no tree.
//!
//! * `front` is the run out of which requests are answered without a search, open or a hole ([`front`]).
//! * `holes` finds the lowest hole of a given length ([`holes`]).
//! * `starts` finds the area at, below or above an address ([`starts`]).
//! * `tags` has a word a page. An area's first and last page hold its length (n), the first with marks that say that an area
//!   begins there, and where it stands in its life; no other page has these marks. A hole's last page holds the hole's length
//!   (h), marked, so that a free above sees it at once, but for the front's. What else tags hold is stale.
//! * `records` has what the caller keeps of a live area (r), at the area's first page, and nothing elsewhere: to look up
//!   an exact address costs one load.
//!
//! The space hands out [`OwnedRange`]s and takes them back; two that are out never overlap. It takes no lock (the
//! caller has one around it), allocates nothing, does not sleep and may be called from any context.

mod area;
mod at_once;
mod check;
mod error;
mod front;
mod holes;
mod request;
mod resize;
mod search;
mod starts;
mod storage;
#[cfg(test)]
mod tests;

pub use area::{Area, AreaState, Areas};
pub(crate) use at_once::End;
pub use check::{CheckError, Count};
pub use error::{NewError, PublishError, ReleaseError, ReserveError, StorageArray};
pub use request::{
    Alignment, FIRST_REFUSED_SIZE, GUARD_PAGES, IOREMAP_MAX_ORDER, IoRemapPolicy, Request, Window,
};
pub use storage::VaStorage;

use crate::addr::PageRange;
use crate::owned_range::{OwnedRange, OwnedStart};

use front::Front;
use holes::HoleTree;
use search::Fit;
use starts::StartSet;

/// Marks the tag of a hole's last page. No length has this bit, nor any of the following.
const HOLE: u32 = 1 << 31;
/// Marks the tag of an area's first page.
const START: u32 = 1 << 30;
/// Besides, from its publication to its end.
const LIVE: u32 = 1 << 29;
/// Besides, from its end on.
const DYING: u32 = 1 << 28;
/// What the first page's tag says beside the length.
const STATE: u32 = START | LIVE | DYING;

/// The books of a run of virtual addresses: which pages are taken, and by whom. For each live area they keep an `R`, of
/// which they ask nothing.
#[derive(Debug)]
pub struct VaSpace<'s, R> {
    /// All of it; parts of it are minted for callers while `starts` says that they are out.
    space: OwnedRange,
    /// Pages of the space.
    pages: u32,
    /// Where requests are answered first.
    front: Front,
    /// Where the open space begins, while that is not the front.
    top_beyond: u32,
    tags: &'s mut [u32],
    holes: HoleTree<'s>,
    starts: StartSet<'s>,
    /// As many as pages.
    records: &'s mut [Option<R>],
}

impl<'s, R> VaSpace<'s, R> {
    /// Takes over `space`, all of it free, and keeps its books in `storage`.
    ///
    /// # Errors
    /// [`NewError`] if the space is empty or an array of the storage is too small for it; both come back.
    pub fn new(space: OwnedRange, storage: VaStorage<'s, R>) -> Result<Self, NewError<'s, R>> {
        let pages = space.count();
        if pages == 0 {
            return Err(NewError::EmptySpace { space, storage });
        }
        let arrays = [
            (StorageArray::Tags, VaStorage::<R>::tag_words(pages), storage.tags.len()),
            (StorageArray::Holes, VaStorage::<R>::hole_words(pages), storage.holes.len()),
            (StorageArray::Starts, VaStorage::<R>::start_words(pages), storage.starts.len()),
            (StorageArray::Records, pages as usize, storage.records.len()),
        ];
        for (array, wanted, had) in arrays {
            if had < wanted {
                return Err(NewError::StorageTooSmall { space, storage, array, wanted, had });
            }
        }
        let records = &mut storage.records[..pages as usize];
        records.fill_with(|| None);
        let tags = &mut storage.tags[..VaStorage::<R>::tag_words(pages)];
        tags.fill(0);
        Ok(Self {
            space,
            pages,
            front: Front::open(0, pages),
            top_beyond: 0,
            tags,
            holes: HoleTree::new(storage.holes, pages),
            starts: StartSet::new(storage.starts, pages),
            records,
        })
    }

    /// Takes the lowest run of addresses that satisfies `request` (S1), guard included (S2, S7), and gives the right to
    /// all but the guard. Lookups do not find the area before [`VaSpace::publish`].
    ///
    /// # Errors
    /// [`ReserveError`]; nothing has changed.
    #[inline(always)]
    pub fn reserve(&mut self, request: &Request) -> Result<OwnedRange, ReserveError> {
        let wanted = request.pages_with_guard()?;
        let align_mask = request.align_mask();
        let base = match request.window {
            None if align_mask == 0 => self.take_lowest(wanted),
            None => self.take_aligned(align_mask, wanted),
            window => self.take_within(window, align_mask, wanted),
        };
        match base.and_then(|base| self.make_area(base, wanted)) {
            Some(usable) => Ok(usable),
            None => Err(self.no_space(request, wanted)),
        }
    }

    /// As [`VaSpace::reserve`] of `wanted` pages, guard included, at the lowest place that has so many; `None` also where that
    /// is to be asked with a request, to learn why not.
    #[inline(always)]
    pub(crate) fn reserve_lowest(&mut self, wanted: u32) -> Option<OwnedStart> {
        let base = self.take_lowest(wanted)?;
        self.note_area(base, wanted, START)
    }

    /// Gives an area's addresses back with its guard, after the flush (S14a, S23). The neighbouring holes become one
    /// with them.
    ///
    /// # Errors
    /// [`ReleaseError`] with the range if it is not exactly one area of this space, or if that is still live.
    #[inline(always)]
    pub fn release(&mut self, usable: OwnedRange) -> Result<(), ReleaseError> {
        let first = usable.pages().first().wrapping_sub(self.first());
        let taken = usable.count().wrapping_add(GUARD_PAGES);
        match self.tags.get_mut(first as usize) {
            // One comparison: an area begins here, of that length, and is not live.
            Some(tag) if *tag & !DYING == START | taken => *tag = 0,
            _ => return Err(self.not_to_release(usable)),
        }
        self.give_back(first, taken);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn not_to_release(&self, usable: OwnedRange) -> ReleaseError {
        let first = usable.pages().first().wrapping_sub(self.first());
        match self.tags.get(first as usize) {
            Some(&tag) if tag == START | LIVE | (usable.count() + GUARD_PAGES) => {
                ReleaseError::StillLive { usable }
            }
            _ => ReleaseError::NotReserved { usable },
        }
    }

    /// The managed addresses.
    pub const fn range(&self) -> PageRange {
        self.space.pages()
    }

    /// Pages in the longest free run, the open space included. A request with its guard may have no more.
    pub fn largest_hole(&self) -> u32 {
        self.longest_run()
    }

    /// Pages that no area has; guards belong to their areas. O(n) in the areas: whoever makes one need not count.
    pub fn free_pages(&self) -> u32 {
        let (mut free, mut from) = (self.pages, 0);
        while from < self.pages {
            let Some(first) = self.starts.first_from(from) else { break };
            // One at least, whatever the books say.
            let taken = self.taken_at(first).max(1);
            free = free.saturating_sub(taken);
            from = first.saturating_add(taken);
        }
        free
    }

    /// Areas in whatever state, counted. O(n) in the pages of the space, 32 at a step.
    pub fn area_count(&self) -> u32 {
        self.starts.count()
    }

    /// The number of the space's first page.
    #[inline]
    const fn first(&self) -> u32 {
        self.space.pages().first()
    }

    /// Takes `wanted` pages from the lowest place that `window` and alignment allow.
    #[inline(never)]
    fn take_within(&mut self, window: Option<Window>, align_mask: u32, wanted: u32) -> Option<u32> {
        self.settle();
        let fit = self.lowest_within(window, align_mask, wanted)?;
        Some(self.take_from(fit, wanted))
    }

    /// Takes `wanted` pages at a place that was found, and leaves the rest of its free run free.
    #[inline]
    fn take_from(&mut self, Fit { run, end, base }: Fit, wanted: u32) -> u32 {
        let rest = base + wanted;
        if run == self.front.start {
            self.front.start = rest;
        } else {
            // First what is made, then what goes: the greater length stops the climb of the lesser.
            if rest != end {
                self.make_hole(rest, end);
            }
            if base == run {
                self.holes.set(run, 0);
            }
        }
        if base != run {
            self.make_hole(run, base);
        }
        base
    }

    /// Makes an area of the `taken` pages from the offset `base`, which are neither hole nor open space any more.
    #[inline(always)]
    fn make_area(&mut self, base: u32, taken: u32) -> Option<OwnedRange> {
        Some(self.note_area(base, taken, START)?.range(taken.wrapping_sub(GUARD_PAGES)))
    }

    /// As [`VaSpace::make_area`], for whoever knows how many pages they are, with these marks.
    #[inline(always)]
    fn note_area(&mut self, base: u32, taken: u32, marks: u32) -> Option<OwnedStart> {
        self.note_tags(base, taken, marks)?;
        // There is a tag for each page of the space, so these pages are.
        Some(OwnedStart::mint(self.first().wrapping_add(base)))
    }

    /// Notes in the books, but for the record, that an area has the `taken` pages from the offset `base`.
    #[inline(always)]
    fn note_tags(&mut self, base: u32, taken: u32, marks: u32) -> Option<()> {
        // Whoever takes pages of the space sees to it that they lie inside; the slice sees to it again.
        let last = base.wrapping_add(taken).wrapping_sub(1);
        // First the end, which lies no lower than the beginning.
        *self.tags.get_mut(last as usize)? = taken;
        *self.tags.get_mut(base as usize)? = marks | taken;
        self.starts.insert(base);
        Some(())
    }

    #[cold]
    fn no_space(&self, request: &Request, wanted: u32) -> ReserveError {
        ReserveError::NoSpace {
            wanted,
            order: request.alignment.order_in_pages(request.bytes),
            largest_hole: self.largest_hole(),
        }
    }
}

#[cfg(test)]
impl<R: Clone> VaSpace<'_, R> {
    /// Makes these books a copy of `other`'s, which are of an equal space, stale tags included.
    fn copy_from(&mut self, other: &VaSpace<'_, R>) {
        (self.front, self.top_beyond) = (other.front, other.top_beyond);
        self.tags.copy_from_slice(other.tags);
        self.holes.copy_from(&other.holes);
        self.starts.copy_from(&other.starts);
        self.records.clone_from_slice(other.records);
    }
}
