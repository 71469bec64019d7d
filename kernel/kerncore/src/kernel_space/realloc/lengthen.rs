//! Memory that becomes longer (S86): where it is, or at addresses of its own.
//!
//! ```text
//!   frames ──▶ the addresses behind, if they are free ──▶ a larger array, if its own is full ──▶ map there, or all elsewhere
//! ```
//!
//! Whatever cannot be had, what was taken before it goes back, and the memory is as it was.

use core::mem;

use super::Taken;
use crate::addr::PAGE_SIZE;
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping};
use crate::attributes::Attributes;
use crate::frames::{FrameList, FrameRequest};
use crate::kernel_space::page_array::{address_of, flags_with};
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{Fill, KernelSpace, VmallocError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{MapError, Released};
use crate::va_space::Request;

impl Taken {
    /// It succeeds: the larger array is its own now.
    fn adopt(&mut self) {
        if self.other.capacity() > self.array.capacity() {
            mem::swap(&mut self.array, &mut self.other);
        }
    }
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Makes it `pages` pages, in place or elsewhere.
    pub(super) fn lengthen(
        &self,
        mut taken: Taken,
        pages: u32,
        (fill, memory): (Fill, FrameRequest),
    ) -> Result<AreaSummary, VmallocError> {
        let more = pages - taken.usable.count();
        let fill = if taken.flags.contains(AreaFlags::USERMAP) { Fill::Zeroed } else { fill };
        let list = match self.filled_frames(memory, more, fill) {
            Ok(list) => list,
            Err(error) => {
                self.give_back_memory(taken);
                return Err(error);
            }
        };
        let added = self.areas.with(|areas| areas.extend(&taken.usable, more));
        if pages > taken.array.capacity() {
            match self.take_array(pages, memory, taken.caller) {
                Ok(array) => taken.other = array,
                Err(error) => {
                    if let Some(added) = added {
                        self.shrink_failed(&taken.usable, added);
                    }
                    self.free_failed(list);
                    self.give_back_memory(taken);
                    return Err(VmallocError::PageArray(error));
                }
            }
        }
        match added {
            Some(added) => self.lengthen_in_place(taken, added, list),
            None => self.lengthen_elsewhere(taken, pages, list),
        }
    }

    /// Maps the frames of `list` at `added`, which lies behind what was taken.
    fn lengthen_in_place(
        &self,
        mut taken: Taken,
        mut added: OwnedRange,
        list: FrameList,
    ) -> Result<AreaSummary, VmallocError> {
        if let Err(error) = self.map_list(&mut added, 0, &list, taken.attributes) {
            self.unmap_failed(&mut added, 0, &error);
            self.shrink_failed(&taken.usable, added);
            self.free_failed(list);
            self.give_back_memory(taken);
            return Err(VmallocError::Map(error));
        }
        taken.adopt();
        let Taken { usable, list: mut all, .. } = taken;
        all.append(self.zones.table(), list);
        let usable = match usable.join(added) {
            // An error cannot be: the one begins where the other ends.
            Ok(usable) | Err((usable, _)) => usable,
        };
        Ok(self.give_back_memory(Taken { usable, list: all, ..taken }))
    }

    /// Maps all at addresses of its own, and ends the old area.
    fn lengthen_elsewhere(
        &self,
        mut taken: Taken,
        pages: u32,
        list: FrameList,
    ) -> Result<AreaSummary, VmallocError> {
        let request = Request::of_bytes(pages.saturating_mul(PAGE_SIZE));
        let (mut room, mut place) = match self.reserve("vrealloc", |areas| areas.reserve(&request))
        {
            Ok(reserved) => reserved,
            Err(error) => {
                self.free_failed(list);
                self.give_back_memory(taken);
                return Err(VmallocError::Area(error));
            }
        };
        let had = taken.usable.count();
        // The same frames at two places for a moment, with the same attributes: no mismatch (S97).
        let mapped = self.map_list(&mut room, 0, &taken.list, taken.attributes).and_then(|_| {
            self.map_list(&mut room, had, &list, taken.attributes).map_err(after(had))
        });
        if let Err(error) = mapped {
            self.unmap_failed(&mut room, 0, &error);
            self.abandon(room, place);
            self.free_failed(list);
            self.give_back_memory(taken);
            return Err(VmallocError::Map(error));
        }
        taken.adopt();
        let Taken { base, usable: old, list: mut all, flags, caller, array, other, .. } = taken;
        all.append(self.zones.table(), list);
        let words = self.array_words(&array, &place.within);
        self.note_all(all.frames(self.zones.table()), words);
        let new = NewArea::new(AreaKind::Vmalloc, caller)
            .flags(flags_with(&array, flags))
            .pointers(address_of(words), pages);
        place.array = array;
        let area = self.publish(place, Mapping::Frames { usable: room, list: all }, new);
        let dying = self.areas.with(|areas| areas.space.retire(base));
        let Released { range, removal, .. } = self.table.unmap(old, ()).flush();
        if removal.oddities != 0 {
            self.support.odd_tables(range.pages(), removal);
        }
        if let Some(dying) = dying
            && removal.left_alone == 0
        {
            self.abandon(range, dying);
        }
        self.abandon_array(other);
        Ok(area)
    }

    /// Maps `list` at the pages of `range` from `offset` on.
    pub(in crate::kernel_space) fn map_list(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        list: &FrameList,
        attributes: Attributes,
    ) -> Result<u32, MapError> {
        let tables = self.tables.source(&self.zones);
        let frames = list.frames(self.zones.table());
        self.table.map(range, offset, frames, attributes, &tables)
    }

    /// Unmaps what was mapped from `offset` on until `error`.
    #[cold]
    pub(in crate::kernel_space) fn unmap_failed(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        error: &MapError,
    ) {
        let mapped = error.mapped();
        let undone = self.table.unmap_part(range, offset, mapped);
        debug_assert!(undone.is_ok() || mapped == 0, "mapped, so inside: {undone:?}");
    }

    /// Gives addresses back, in which nothing is mapped, by which `usable` was extended.
    #[cold]
    fn shrink_failed(&self, usable: &OwnedRange, added: OwnedRange) {
        let shrunk = self.areas.with(|areas| areas.shrink(usable, added));
        debug_assert!(shrunk.is_ok(), "an area's range was exchanged: {shrunk:?}");
    }

    /// Gives frames back that nobody but this call has seen.
    #[cold]
    pub(in crate::kernel_space) fn free_failed(&self, list: FrameList) {
        let freed = self.zones.free_list(list);
        debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
    }
}

/// An error of a mapping that began behind `had` pages that were mapped before.
pub(in crate::kernel_space) fn after(had: u32) -> impl Fn(MapError) -> MapError {
    move |error| match error {
        MapError::Occupied { address, descriptor, mapped } => {
            MapError::Occupied { address, descriptor, mapped: mapped + had }
        }
        MapError::MissingFrame { address, mapped } => {
            MapError::MissingFrame { address, mapped: mapped + had }
        }
        MapError::Table { reason, mapped } => MapError::Table { reason, mapped: mapped + had },
        other => other,
    }
}
