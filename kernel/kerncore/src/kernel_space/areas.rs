//! The set of areas: who owns which addresses, and the records of those that live.

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::area::{AreaKind, AreaRecord, AreaSummary, Mapping};
use crate::frames::MAX_BLOCK;
use crate::kernel_space::{AreaCounts, RemoveError};
use crate::owned_range::OwnedRange;
use crate::slab::{Entry, LARGEST_CHUNK, Promise, Slab, SlabId};
use crate::va_space::{AreaState, RecordId, VaSpace};

/// Chunks of records: ten that grow to 32,768 and two more of that size hold 131,008, more than the 98,304 areas of one page
/// and a guard that fill the largest window.
const CHUNKS: usize = 12;

// A chunk is one block of frames.
const _: () = assert!(
    LARGEST_CHUNK as usize * size_of::<Entry<AreaRecord>>() <= (MAX_BLOCK * PAGE_SIZE) as usize
);

/// A run of places that a [`super::Support`] makes from frames.
pub type AreaChunk<'s> = &'s mut [Entry<AreaRecord>];

/// What an area leaves when it is found no more: all that must come back.
#[derive(Debug)]
#[must_use = "dropping it leaks the area"]
pub(super) struct Dying {
    /// The usable addresses, and what stands behind them.
    pub(super) mapping: Mapping,
    /// The page behind them.
    pub(super) guard: OwnedRange,
}

/// What the lock of areas guards.
#[derive(Debug)]
pub(super) struct Areas<'s> {
    pub(super) space: VaSpace<'s>,
    pub(super) records: Slab<'s, AreaRecord, CHUNKS>,
}

impl<'s> Areas<'s> {
    pub(super) const fn new(space: VaSpace<'s>) -> Self {
        Self { space, records: Slab::new() }
    }

    /// The record of the live area that begins at `base`.
    #[inline]
    pub(super) fn find(&self, base: VirtAddr) -> Option<&AreaRecord> {
        self.record(self.space.find(base)?)
    }

    fn record(&self, id: RecordId) -> Option<&AreaRecord> {
        self.records.get(SlabId::from_raw(id.index())?)
    }

    pub(super) fn find_containing(&self, address: VirtAddr) -> Option<AreaSummary> {
        let (_, id) = self.space.find_containing(address)?;
        self.record(id).map(AreaRecord::summary)
    }

    /// The first live area at or above `address`.
    pub(super) fn next_area(&self, mut address: VirtAddr) -> Option<AreaSummary> {
        loop {
            let area = self.space.next_area_from(address)?;
            if let AreaState::Live(id) = area.state
                && let Some(record) = self.record(id)
            {
                return Some(record.summary());
            }
            address = area.usable.start().checked_add(area.usable.bytes())?;
        }
    }

    /// The last live area that begins at `address` or below.
    fn previous_area(&self, mut address: VirtAddr) -> Option<AreaSummary> {
        loop {
            let area = self.space.previous_area_from(address)?;
            if let AreaState::Live(id) = area.state
                && let Some(record) = self.record(id)
            {
                return Some(record.summary());
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

    /// Makes the area at `base` findable, by the record that `record` makes.
    #[inline(always)]
    pub(super) fn publish(
        &mut self,
        promise: Promise,
        base: VirtAddr,
        record: impl FnOnce() -> AreaRecord,
    ) -> Option<()> {
        let id = self.records.insert_promised(promise, record)?;
        self.space.publish(base, RecordId::new(id.raw())?).ok()
    }

    /// Live → Dying, if the area at `base` is of `kind`: takes the record out, leaves the addresses taken.
    #[inline(always)]
    pub(super) fn retire(&mut self, base: VirtAddr, kind: AreaKind) -> Result<Dying, RemoveError> {
        let unknown = RemoveError::Unknown { address: base };
        let live = self.space.live(base).ok_or(unknown)?;
        let id = SlabId::from_raw(live.record().index()).ok_or(unknown)?;
        let is_of_kind = |record: &AreaRecord| match record.kind {
            found if found == kind => Ok(()),
            found => Err(RemoveError::WrongKind { address: base, found }),
        };
        let AreaRecord { mapping, guard, .. } =
            self.records.remove_if(id, is_of_kind).ok_or(unknown)??;
        live.retire();
        Ok(Dying { mapping, guard })
    }

    /// Flushed → Free. The ranges are the ones that this set gave out, so the space takes them back.
    #[inline]
    pub(super) fn release(&mut self, usable: OwnedRange, guard: OwnedRange) {
        let released = self.space.release(usable, guard);
        debug_assert!(released.is_ok(), "an area's ranges were exchanged: {released:?}");
    }

    pub(super) fn counts(&self) -> AreaCounts {
        AreaCounts {
            records: self.records.len() + self.records.promised(),
            record_capacity: self.records.capacity(),
            areas: self.space.area_count(),
            pages_taken: self.space.range().count() - self.space.free_pages(),
            largest_hole: self.space.largest_hole(),
        }
    }
}
