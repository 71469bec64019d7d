//! Large mappings: every page of them led by an entry of the size that the area says (S90).
//!
//! Of a large page or a supersection each of the sixteen slots is judged, so that sixteen that disagree show.

use super::check::Found;
use super::{Audit, Place, Violation};
use crate::area::{AreaKind, AreaRecord, Mapping};
use crate::attributes::Attributes;
use crate::descriptor::PageSize;
use crate::frames::FrameOwner;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{Entry, LargeParts, Level, Slot};

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    /// Sections, large pages behind them, small pages behind those; for registers, supersections first.
    pub(super) fn large_pages(&mut self, record: &AreaRecord, place: Place) {
        let Mapping::Large { list, parts, .. } = &record.mapping else { return };
        if record.kind == AreaKind::Vmap {
            self.borrowed_large_pages(record, *parts, place);
            return;
        }
        if record.kind == AreaKind::IoRemap {
            self.large_device_pages(record, *parts, place);
            return;
        }
        let mut frames = list.frames(self.space.zones().table());
        let mut pages = 0..;
        self.for_each_page(record.pages(), |audit, slot| {
            // A list that is too short was reported with the record.
            let Some((page, frame)) = pages.next().zip(frames.next()) else { return };
            audit.owned_by(slot.pages.start(), place, frame, |owner| owner == FrameOwner::Vmalloc);
            let wanted = Found { frame, attributes: Attributes::KERNEL_DATA };
            let right = match parts.size_at(page) {
                PageSize::Small => audit.exactly(slot, place, frame, wanted.attributes),
                size => audit.in_entry(slot, place, size, Some(wanted)).is_some(),
            };
            audit.summary.area_pages += u32::from(right);
        });
    }

    /// Somebody else's memory: of each entry, whatever the first page leads to, the others must continue.
    fn borrowed_large_pages(&mut self, record: &AreaRecord, parts: LargeParts, place: Place) {
        let (mut pages, mut first) = (0.., None);
        self.for_each_page(record.pages(), |audit, slot| {
            let Some(page) = pages.next() else { return };
            let size = parts.size_at(page);
            let offset =
                slot.pages.start().page_number() % (size.bytes() / PageSize::Small.bytes());
            if offset == 0 {
                first = None;
            }
            let wanted = first.and_then(|Found { frame, attributes }: Found| {
                Some(Found { frame: frame.checked_add(offset)?, attributes })
            });
            if let Some(found) = audit.in_entry(slot, place, size, wanted) {
                audit.summary.area_pages += 1;
                audit.vmap_page(slot.pages.start(), place, found);
                if offset == 0 {
                    first = Some(found);
                }
            }
        });
    }

    /// One run of physical pages that is no RAM, all of one kind (S96).
    fn large_device_pages(&mut self, record: &AreaRecord, parts: LargeParts, place: Place) {
        let (mut pages, mut promised) = (0.., None);
        let first = record.vm.phys_addr().pfn();
        self.for_each_page(record.pages(), |audit, slot| {
            let Some(page) = pages.next() else { return };
            let Some(frame) = first.checked_add(page) else { return };
            let wanted = promised.map(|attributes| Found { frame, attributes });
            let Some(found) = audit.in_entry(slot, place, parts.size_at(page), wanted) else {
                return;
            };
            audit.summary.area_pages += 1;
            audit.device_page(slot.pages.start(), place, frame, found);
            promised.get_or_insert(found.attributes);
        });
    }

    /// What the page leads to, if it is as `wanted` and part of an entry of that size.
    fn in_entry(
        &mut self,
        slot: Slot,
        place: Place,
        size: PageSize,
        wanted: Option<Found>,
    ) -> Option<Found> {
        let address = slot.pages.start();
        let wrong = match (slot.entry(), wanted) {
            (None, wanted) => {
                let wanted = wanted.map(|wanted| wanted.frame.base());
                Violation::Missing { address, place, wanted }
            }
            // Reported once, for all that it translates.
            (Some(_), _) if slot.level == Level::First && !is_of_first_level(size) => return None,
            (Some(Entry::Bad { descriptor, .. }), _) => {
                Violation::BadDescriptor { address, place, descriptor }
            }
            (Some(Entry::Mapping { size: had, .. }), _) if had != size => {
                Violation::PageSize { address, place, had }
            }
            (Some(Entry::Mapping { physical, attributes, .. }), wanted) => {
                let frame = physical.pfn();
                let Found { frame: wanted, attributes: promised } =
                    wanted.unwrap_or(Found { frame, attributes });
                if frame != wanted {
                    let (wanted, had) = (wanted.base(), physical);
                    Violation::WrongFrame { address, place, wanted, had }
                } else if attributes != promised {
                    let (wanted, had) = (promised, attributes);
                    Violation::WrongAttributes { address, place, wanted, had }
                } else {
                    return Some(Found { frame, attributes });
                }
            }
        };
        self.found(wrong);
        None
    }
}

/// Whether entries of that size stand in the first-level table.
const fn is_of_first_level(size: PageSize) -> bool {
    matches!(size, PageSize::Section | PageSize::Supersection)
}
