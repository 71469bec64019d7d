//! The set of areas: who owns which addresses, and the records of those that live.

use crate::addr::{PAGE_SIZE, PAGES_IN_ADDRESS_SPACE, PageRange, PhysAddr, VirtAddr};
use crate::area::{AreaKind, AreaRecord, AreaSummary, Mapping};
use crate::frames::MAX_BLOCK;
use crate::kernel_space::{AreaCounts, RemoveError};
use crate::owned_range::{OwnedRange, OwnedStart};
use crate::physical_index::PhysicalIndex;
use crate::slab::{Entry, LARGEST_CHUNK, NoPlace, Place, PlaceQueue, Slab};
use crate::va_space::{AreaState, GUARD_PAGES, Request, ReserveError, VaSpace};

/// Chunks of records: nine that grow to 16,384 and five more of that size hold 114,624, more than the 98,304 areas of one page
/// and a guard that fill the largest window.
const CHUNKS: u32 = 14;

// A chunk is one block of frames.
const _: () = assert!(
    LARGEST_CHUNK as usize * size_of::<AreaEntry<'static>>() <= (MAX_BLOCK * PAGE_SIZE) as usize
);

/// Room for the record of an area.
pub type AreaEntry<'s> = Entry<'s, AreaRecord>;
/// A run of room that a [`super::Support`] makes from frames, each entry with [`AreaRecord::vacant`].
pub type AreaChunk<'s> = &'s mut [AreaEntry<'s>];
/// The record of an area, and the right to it.
pub type AreaPlace<'s> = Place<'s, AreaRecord>;

/// Why one try to reserve failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoRoom {
    Addresses(ReserveError),
    Records(NoPlace),
    /// For a run of devices.
    Runs(NoPlace),
}

/// What the lock of areas guards.
#[derive(Debug)]
pub(super) struct Areas<'s> {
    pub(super) space: VaSpace<'s, AreaPlace<'s>>,
    pub(super) records: Slab<'s, AreaRecord, CHUNKS>,
    /// Records of removed areas whose descriptors are in the hands of C callers.
    pub(super) removed: PlaceQueue<'s, AreaRecord>,
    /// The physical pages of devices that are mapped (S97).
    pub(super) index: PhysicalIndex<'s>,
}

impl<'s> Areas<'s> {
    pub(super) const fn new(space: VaSpace<'s, AreaPlace<'s>>) -> Self {
        let (records, removed) = (Slab::new(), PlaceQueue::new());
        Self { space, records, removed, index: PhysicalIndex::new() }
    }

    /// The record of the live area that begins at `base`.
    #[inline]
    pub(super) fn find(&self, base: VirtAddr) -> Option<&AreaRecord> {
        self.space.find(base).map(|place| &**place)
    }

    /// As [`Areas::find`], to be changed.
    pub(super) fn find_mut(&mut self, base: VirtAddr) -> Option<&mut AreaRecord> {
        self.space.find_mut(base).map(|place| &mut **place)
    }

    /// As [`VaSpace::extend`], of an area whose mapping is away: what is found of it has the new pages from now on.
    pub(super) fn extend(&mut self, usable: &OwnedRange, more: u32) -> Option<OwnedRange> {
        let added = self.space.extend(usable, more)?;
        self.note_length(usable.start(), usable.count().wrapping_add(more));
        Some(added)
    }

    /// As [`VaSpace::shrink`], of an area whose mapping is away: nothing finds `gone` in it any more.
    ///
    /// # Errors
    /// Gives `gone` back, with nothing changed, if the two are not all the usable pages of one area.
    pub(super) fn shrink(&mut self, keep: &OwnedRange, gone: OwnedRange) -> Result<(), OwnedRange> {
        self.space.shrink(keep, gone)?;
        self.note_length(keep.start(), keep.count());
        Ok(())
    }

    /// Whoever looks at the area between this and the return of its mapping sees so many pages.
    fn note_length(&mut self, base: VirtAddr, count: u32) {
        let record = self.find_mut(base);
        if let Some(Mapping::Away { pages }) = record.map(|record| &mut record.mapping) {
            *pages = PageRange::trusted(base.page_number(), count);
        }
    }

    pub(super) fn find_containing(&self, address: VirtAddr) -> Option<AreaSummary> {
        self.space.find_containing(address).map(|(_, place)| place.summary())
    }

    /// The first byte of the live area that `address` lies in.
    #[inline(always)]
    pub(super) fn base_of(&self, address: VirtAddr) -> Option<VirtAddr> {
        let base = address.page_base();
        // Most who ask mean the area's first page.
        match self.space.find(base) {
            Some(_) => Some(base),
            None => Some(self.space.find_containing(address)?.0.start()),
        }
    }

    /// The first live area at or above `address`.
    pub(super) fn next_area(&self, mut address: VirtAddr) -> Option<AreaSummary> {
        loop {
            let area = self.space.next_area_from(address)?;
            if let AreaState::Live(place) = area.state {
                return Some(place.summary());
            }
            address = area.usable.start().checked_add(area.usable.bytes())?;
        }
    }

    /// The last live area that begins at `address` or below.
    fn previous_area(&self, mut address: VirtAddr) -> Option<AreaSummary> {
        loop {
            let area = self.space.previous_area_from(address)?;
            if let AreaState::Live(place) = area.state {
                return Some(place.summary());
            }
            address = VirtAddr::new(area.usable.start().raw().checked_sub(1)?);
        }
    }

    /// The live area that `address` lies in, or else the nearest. A guard counts as its area's, for what faults there has
    /// run over that area's end.
    pub(super) fn nearest_area(&self, address: VirtAddr) -> Option<AreaSummary> {
        match (self.previous_area(address), self.next_area(address)) {
            (Some(below), Some(above)) => {
                let into_below = address.raw() - below.pages.start().raw();
                let past_below = into_below.saturating_sub(below.bytes_with_guard() - 1);
                let to_above = above.pages.start().raw() - address.raw();
                Some(if to_above < past_below { above } else { below })
            }
            (below, above) => below.or(above),
        }
    }

    /// Free → Reserved: addresses, and a place for the record.
    #[inline(always)]
    pub(super) fn reserve(
        &mut self,
        request: &Request,
    ) -> Result<(OwnedRange, AreaPlace<'s>), NoRoom> {
        match request.plain_pages() {
            Some(pages) => self.reserve_pages(pages),
            None => self.reserve_any(request),
        }
    }

    #[inline(always)]
    pub(super) fn reserve_any(
        &mut self,
        request: &Request,
    ) -> Result<(OwnedRange, AreaPlace<'s>), NoRoom> {
        // What no memory would help takes none.
        request.pages_with_guard().map_err(NoRoom::Addresses)?;
        let place = self.records.take().map_err(NoRoom::Records)?;
        match self.space.reserve(request) {
            Ok(usable) => Ok((usable, place)),
            Err(error) => {
                self.records.give_back(place);
                Err(NoRoom::Addresses(error))
            }
        }
    }

    /// As [`Areas::reserve`] of `pages` at the lowest place for them: one or more, and fewer than an address space has.
    #[inline(always)]
    pub(super) fn reserve_pages(
        &mut self,
        pages: u32,
    ) -> Result<(OwnedRange, AreaPlace<'s>), NoRoom> {
        debug_assert!((1..PAGES_IN_ADDRESS_SPACE).contains(&pages), "{pages} pages");
        match self.reserve_lowest(pages) {
            Some((start, place)) => Ok((start.range(pages), place)),
            // What is refused for its size is so by the request.
            None => self.reserve_uncommon(pages),
        }
    }

    /// Not inlined, and by two words: it has all registers to itself, and gives what it has in them.
    #[inline(never)]
    fn reserve_lowest(&mut self, pages: u32) -> Option<(OwnedStart, AreaPlace<'s>)> {
        let place = self.records.take().ok()?;
        if let Some(start) = self.space.reserve_lowest(pages.wrapping_add(GUARD_PAGES)) {
            return Some((start, place));
        }
        self.records.give_back(place);
        None
    }

    #[cold]
    #[inline(never)]
    fn reserve_uncommon(&mut self, pages: u32) -> Result<(OwnedRange, AreaPlace<'s>), NoRoom> {
        self.reserve_any(&Request::of_bytes(pages.saturating_mul(PAGE_SIZE)))
    }

    /// Takes addresses for an area of `pages` and a place for its record, if they are at hand; for whoever makes it
    /// [live](Areas::go_live), or [gives it up](Areas::give_up), before he gives the lock back.
    #[inline(always)]
    pub(super) fn begin(&mut self, pages: u32) -> Option<(AreaPlace<'s>, OwnedRange)> {
        let place = self.records.take().ok()?;
        let Some(start) = self.space.begin(pages.wrapping_add(GUARD_PAGES)) else {
            self.records.give_back(place);
            return None;
        };
        Some((place, start.range(pages)))
    }

    /// Makes the area live that [`Areas::begin`] began with `usable` and that `place` describes.
    #[inline(always)]
    pub(super) fn go_live(&mut self, usable: PageRange, place: AreaPlace<'s>) {
        self.space.go_live(usable, place);
    }

    /// Takes back what [`Areas::begin`] gave.
    #[cold]
    #[inline(never)]
    pub(super) fn give_up(&mut self, usable: OwnedRange, place: AreaPlace<'s>) {
        self.space.give_up(usable);
        self.records.give_back(place);
    }

    /// Reserved → Live, under the record at `place`.
    #[inline(always)]
    pub(super) fn publish(&mut self, base: VirtAddr, place: AreaPlace<'s>) {
        let published = self.space.publish(base, place);
        debug_assert!(published.is_ok(), "not as `reserve` left it: {published:?}");
    }

    /// Live → Dying, if the area at `base` is of `kind`: takes the record out, leaves the addresses taken.
    #[inline(always)]
    pub(super) fn retire(
        &mut self,
        base: VirtAddr,
        kind: AreaKind,
    ) -> Result<AreaPlace<'s>, RemoveError> {
        match self.retire_quickly(base, kind) {
            Some(place) => Ok(place),
            None => Err(self.not_to_retire(base, kind)),
        }
    }

    /// As [`Areas::retire`], without a word of what is wrong.
    #[inline(always)]
    pub(super) fn retire_quickly(
        &mut self,
        base: VirtAddr,
        kind: AreaKind,
    ) -> Option<AreaPlace<'s>> {
        self.space.retire_where(base, |place| place.kind == kind && place.users == 0)
    }

    /// Why there is no area of `kind` at `base` that may be retired.
    #[cold]
    #[inline(never)]
    fn not_to_retire(&self, base: VirtAddr, kind: AreaKind) -> RemoveError {
        match self.find(base) {
            _ if !base.is_page_aligned() => RemoveError::Misaligned { address: base },
            None => RemoveError::Unknown { address: base },
            Some(record) if record.kind == kind => RemoveError::in_use(base, record.users),
            Some(record) => RemoveError::WrongKind { address: base, found: record.kind },
        }
    }

    /// As [`Areas::retire`], if the area has so many pages.
    pub(super) fn retire_sized(
        &mut self,
        base: VirtAddr,
        kind: AreaKind,
        wanted: u32,
    ) -> Result<AreaPlace<'s>, RemoveError> {
        match self.find(base) {
            Some(record) if record.kind == kind && record.pages().count() != wanted => {
                let found = record.pages().count();
                Err(RemoveError::OtherSize { address: base, found, wanted })
            }
            _ => self.retire(base, kind),
        }
    }

    /// As [`Areas::retire`] of a coherent area, if it begins at `physical` too.
    #[inline]
    pub(super) fn retire_coherent(
        &mut self,
        base: VirtAddr,
        physical: PhysAddr,
    ) -> Result<AreaPlace<'s>, RemoveError> {
        let is_there = |place: &AreaPlace<'s>| match place.summary() {
            AreaSummary { kind: AreaKind::Dma, physical: found, users, .. }
                if found == physical =>
            {
                match users {
                    0 => Ok(()),
                    users => Err(RemoveError::in_use(base, users)),
                }
            }
            AreaSummary { kind: AreaKind::Dma, physical: found, .. } => {
                Err(RemoveError::Elsewhere { address: base, found })
            }
            AreaSummary { kind: found, .. } => Err(RemoveError::WrongKind { address: base, found }),
        };
        let unknown = RemoveError::Unknown { address: base };
        self.space.retire_if(base, is_there).unwrap_or(Err(unknown))
    }

    /// Flushed → Free. The range is one that this set gave out, so the space takes it back.
    ///
    /// Not inlined: it has all registers to itself.
    #[inline(never)]
    pub(super) fn release(&mut self, usable: OwnedRange, place: AreaPlace<'s>) {
        let released = self.space.release(usable);
        debug_assert!(released.is_ok(), "an area's range was exchanged: {released:?}");
        self.records.give_back(place);
    }

    pub(super) fn counts(&self) -> AreaCounts {
        AreaCounts {
            records: self.records.taken(),
            removed: self.removed.count(),
            record_capacity: self.records.capacity(),
            // Each area has a place, and nothing else has but what is removed.
            areas: self.records.taken().wrapping_sub(self.removed.count()),
            pages_taken: self.space.range().count() - self.space.free_pages(),
            largest_hole: self.space.largest_hole(),
        }
    }
}
