//! The heap, temporary mappings, the addresses of no region, and the books.

use super::homes::Mark;
use super::{Audit, Place, Violation};
use crate::addr::PageRange;
use crate::attributes::Attributes;
use crate::frames::FrameOwner;
use crate::layout;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{Entry, Slot};

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    /// The heap has its mapped prefix, in frames of its own, and nothing else.
    pub(super) fn heap(&mut self) {
        let (heap, mapped) = (self.expected.heap, self.expected.heap_mapped);
        if let Some(mapped) = heap.sub_range(0, mapped) {
            let table = self.space.zones().table();
            self.space.table().for_each_entry(mapped, |entry| {
                if let Entry::Mapping { physical, .. } = entry
                    && table.owner_of(physical.pfn()) == FrameOwner::Heap
                {
                    self.clear_mark(physical.pfn());
                }
            });
            self.for_each_page(mapped, Self::heap_page);
        }
        if let Some(rest) = heap.sub_range(mapped, heap.count().saturating_sub(mapped)) {
            self.all_absent(rest, Place::HeapRest);
        }
    }

    fn heap_page(&mut self, slot: Slot) {
        let (address, place) = (slot.pages.start(), Place::Heap);
        let Some(found) = self.small_page(slot, place, None) else { return };
        if found.attributes != Attributes::KERNEL_DATA {
            let (wanted, had) = (Attributes::KERNEL_DATA, found.attributes);
            self.found(Violation::WrongAttributes { address, place, wanted, had });
        }
        let had = self.space.zones().table().owner_of(found.frame);
        if had != FrameOwner::Heap {
            let (frame, wanted) = (found.frame, FrameOwner::Heap);
            self.found(Violation::WrongOwner { address, place, frame, wanted, had });
        } else if self.mark_home(found.frame, address) == Mark::New {
            self.summary.heap_pages += 1;
        }
    }

    /// A slot of temporary mappings that is held shows memory in use, as the linear map would; the rest is empty.
    pub(super) fn temporary(&mut self) {
        let (kmap, place) = (self.space.temporary(), Place::Temporary);
        self.for_each_page(kmap.window(), |audit, slot| {
            let address = slot.pages.start();
            if !kmap.is_held(address) {
                audit.absent(slot, place);
            } else if let Some(found) = audit.small_page(slot, place, None) {
                if found.attributes != Attributes::KERNEL_DATA {
                    let (wanted, had) = (Attributes::KERNEL_DATA, found.attributes);
                    audit.found(Violation::WrongAttributes { address, place, wanted, had });
                }
                audit.vmap_page(address, place, found);
            }
        });
    }

    /// What the board has mapped for good stays as it was made; between is nothing (S95).
    pub(super) fn statics(&mut self) {
        let space = self.space;
        let region = space.static_region();
        let mut checked = region.first();
        // They lie in the order in which they were made.
        for mapping in space.static_mappings() {
            self.between_statics(checked, mapping.pages.first());
            let mut frames = 0..;
            self.for_each_page(mapping.pages, |audit, slot| {
                let offset = frames.next();
                let frame = offset.and_then(|offset| mapping.range.first.pfn().checked_add(offset));
                if let Some(frame) = frame {
                    audit.exactly(slot, Place::Static, frame, mapping.attributes);
                }
            });
            checked = mapping.pages.end();
        }
        self.between_statics(checked, region.end());
    }

    fn between_statics(&mut self, first: u32, end: u32) {
        if let Some(pages) = PageRange::from_numbers(first, end.saturating_sub(first)) {
            self.all_absent(pages, Place::Static);
        }
    }

    /// What belongs to no region must be empty.
    pub(super) fn elsewhere(&mut self) {
        let all = self.space.table().window();
        let temporary = self.space.temporary().window();
        let mut regions = [
            self.space.linear().window(),
            self.space.window(),
            self.expected.heap,
            self.space.static_region(),
            temporary,
        ];
        regions.sort_unstable_by_key(|region| region.first());
        let mut checked = all.first();
        for region in regions {
            self.no_region(checked, region.first());
            checked = checked.max(region.end());
        }
        self.no_region(checked, all.end());
    }

    fn no_region(&mut self, first: u32, end: u32) {
        if let Some(pages) = PageRange::from_numbers(first, end.saturating_sub(first)) {
            let in_linear_map = layout::linear_physical(pages.start()).is_some();
            let place = if in_linear_map { Place::BeyondRam } else { Place::NoRegion };
            self.all_absent(pages, place);
        }
    }

    /// The books against themselves and against what was found.
    pub(super) fn books(&mut self) {
        let space = self.space;
        if let Err(error) = space.check_books() {
            self.found(Violation::Books(error));
        }
        let (sound, census) = (space.zones().check(), space.zones().census());
        if let Err(error) = sound {
            self.found(Violation::Frames(error));
        }
        let counts = space.area_counts();
        // A descriptor in the hands of a C caller keeps its record when its area is gone.
        let (records, areas) = (counts.records - counts.removed, self.summary.live_areas());
        if records != areas {
            self.found(Violation::Records { records, areas });
        }
        let (made, found) = (space.table_memory().tables_made(), self.summary.tables);
        if made != found {
            self.found(Violation::Tables { made, found });
        }
        let table_frames = space.table_memory().frames() + self.expected.space_tables;
        for (owner, found) in
            [(FrameOwner::PageTable, table_frames), (FrameOwner::Heap, self.summary.heap_pages)]
        {
            let owned = census.of(owner);
            if owned != found {
                self.found(Violation::FrameCount { owner, owned, found });
            }
        }
    }
}
