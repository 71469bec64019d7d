//! One area: its record, and every page that it maps.

use core::sync::atomic::Ordering::Relaxed;

use super::check::Found;
use super::owners::is_for_devices;
use super::{Audit, Place, Violation};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaRecord, CodeStage, Mapping, PageArray};
use crate::attributes::Attributes;
use crate::frames::{FrameList, FrameOwner};
use crate::iommu::SeenList;
use crate::kernel_space::address_of;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::Level;

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    pub(super) fn area(&mut self, record: &AreaRecord) {
        self.summary.count_area(record.kind);
        self.record(record);
        self.page_array(record);
        match (&record.mapping, record.kind) {
            (Mapping::Frames { .. }, _) => self.vmalloc_pages(record),
            (Mapping::Large { .. }, _) => self.large_pages(record, place_of(record)),
            (Mapping::Lent(lent), _) => self.dma_pages(record, lent.first()),
            (Mapping::Code { lent, stage }, _) => self.code_pages(record, lent.list(), *stage),
            (Mapping::Scattered(seen), _) => self.seen_pages(record, seen),
            (Mapping::Devices { .. }, AreaKind::Vmap) => self.vmap_pages(record),
            (Mapping::Devices { .. }, _) => self.device_pages(record),
            (Mapping::Borrowed { .. }, AreaKind::Bare) => self.bare_pages(record),
            (Mapping::Borrowed { .. }, AreaKind::MapRamBlock) => self.block_pages(record),
            (Mapping::Borrowed { .. }, _) => self.vmap_pages(record),
            (Mapping::Reserved { .. }, _) => self.all_absent(record.pages(), place_of(record)),
            (Mapping::Away { .. } | Mapping::Nothing, _) => {}
        }
    }

    /// What C callers read must be what the area is (S11, S85a).
    fn record(&mut self, record: &AreaRecord) {
        let pages = record.pages();
        let physical = match &record.mapping {
            Mapping::Lent(lent) => lent.first().base(),
            Mapping::Devices { .. } if record.kind != AreaKind::Vmap => {
                record.vm.phys_addr().page_base()
            }
            Mapping::Large { .. } if record.kind == AreaKind::IoRemap => {
                record.vm.phys_addr().page_base()
            }
            // What a bare area's descriptor says is for its owner to write.
            _ if record.kind == AreaKind::Bare => record.vm.phys_addr(),
            _ => PhysAddr::new(0),
        };
        let kind = match (&record.mapping, record.kind) {
            (Mapping::Large { list, .. }, kind) if list.is_empty() => match kind {
                AreaKind::IoRemap => kind,
                _ => AreaKind::Vmap,
            },
            (Mapping::Frames { .. } | Mapping::Large { .. } | Mapping::Code { .. }, _) => {
                AreaKind::Vmalloc
            }
            (Mapping::Lent(_), _) => AreaKind::Dma,
            (Mapping::Scattered(_), _) => AreaKind::Scattered,
            (Mapping::Reserved { .. }, _) => AreaKind::Bare,
            (Mapping::Devices { .. }, kind) if kind != AreaKind::Vmap => AreaKind::IoRemap,
            (Mapping::Borrowed { .. }, AreaKind::Vmalloc | AreaKind::Dma) => AreaKind::Vmap,
            // Without a mapping: seen by its pages, of which an area has one or more.
            (_, kind) => kind,
        };
        let owned = match &record.mapping {
            Mapping::Large { list, .. } if list.is_empty() => pages.count(),
            Mapping::Frames { list, .. } | Mapping::Large { list, .. } => list.pages(),
            Mapping::Code { lent, .. } => lent.list().pages(),
            Mapping::Scattered(seen) => seen.list().pages(),
            // A range that somebody keeps for good is missed here.
            Mapping::Away { .. } | Mapping::Nothing => 0,
            _ => pages.count(),
        };
        let vm = &record.vm;
        let size = pages.bytes().wrapping_add(PAGE_SIZE);
        // What vmap's descriptor shows is its caller's choice (S37).
        let flags = if kind == AreaKind::Vmap { 0 } else { kind.flags().bits() };
        for (part, wanted, had) in [
            ("kind", kind.flags().bits(), record.kind.flags().bits()),
            ("flags", flags, vm.flags().bits() & flags),
            ("address", pages.start().raw(), vm.addr().raw()),
            ("size", size, vm.size()),
            ("physical address", physical.raw(), vm.phys_addr().raw()),
            ("frames", pages.count(), owned),
        ] {
            if wanted != had {
                let base = pages.start();
                self.found(Violation::Record { base, part, wanted, had });
            }
        }
    }

    /// What C callers read of the pages of memory of vmalloc, and of scattered frames, must be what is behind it, in its order (S27,
    /// S79, S85a).
    fn page_array(&mut self, record: &AreaRecord) {
        let pages = record.pages();
        let has_one = matches!(record.kind, AreaKind::Vmalloc | AreaKind::Scattered)
            && !matches!(record.mapping, Mapping::Away { .. } | Mapping::Nothing);
        if !has_one {
            return;
        }
        let (space, base, vm) = (self.space, pages.start(), &record.vm);
        let words = space.array_words(&record.array, &record.within);
        let is_area = matches!(record.array, PageArray::Area(_));
        for (part, wanted, had) in [
            ("page array", address_of(words).raw(), vm.pages()),
            ("page count", pages.count(), vm.nr_pages()),
            ("vpages", is_area.into(), vm.flags().contains(AreaFlags::VPAGES).into()),
        ] {
            if wanted != had {
                self.found(Violation::Record { base, part, wanted, had });
            }
        }
        let mut words = words.iter();
        let mut wrong = None;
        self.for_each_frame(record, |audit, frame, _| {
            let wanted = audit.space.zones().table().pointer_to(frame);
            let had = words.next().map_or(0, |word| word.load(Relaxed));
            if wanted != had {
                // One tells enough.
                wrong.get_or_insert((wanted, had));
            }
        });
        if let Some((wanted, had)) = wrong {
            self.found(Violation::Record { base, part: "page pointer", wanted, had });
        }
    }

    /// The frames of the list, in its order, each the area's own. All may be written, or none.
    fn vmalloc_pages(&mut self, record: &AreaRecord) {
        let Mapping::Frames { list, .. } = &record.mapping else { return };
        let place = place_of(record);
        let mut frames = list.frames(self.space.zones().table());
        let read_only = Attributes::KERNEL_RODATA;
        let first = self.space.table().translate(record.pages().start());
        let attributes = match first.map(|first| first.attributes()) {
            Some(Ok(attributes)) if attributes == read_only => read_only,
            _ => Attributes::KERNEL_DATA,
        };
        self.for_each_page(record.pages(), |audit, slot| {
            // A list that is too short was reported with the record.
            let Some(frame) = frames.next() else { return };
            audit.owned_by(slot.pages.start(), place, frame, |owner| owner == FrameOwner::Vmalloc);
            if audit.exactly(slot, place, frame, attributes) {
                audit.summary.area_pages += 1;
            }
        });
    }

    /// One run of frames that is lent to devices.
    fn dma_pages(&mut self, record: &AreaRecord, first: Pfn) {
        let place = place_of(record);
        let mut frame = Some(first);
        self.for_each_page(record.pages(), |audit, slot| {
            let Some(current) = frame else { return };
            frame = current.checked_add(1);
            audit.owned_by(slot.pages.start(), place, current, is_for_devices);
            if audit.exactly(slot, place, current, Attributes::WRITE_COMBINE) {
                audit.summary.area_pages += 1;
            }
        });
    }

    /// Frames that a device sees, too, in their order, by the type for that device.
    fn seen_pages(&mut self, record: &AreaRecord, seen: &SeenList) {
        let (place, attributes) = (place_of(record), seen.attributes());
        let mut frames = seen.list().frames(self.space.zones().table());
        self.for_each_page(record.pages(), |audit, slot| {
            let Some(current) = frames.next() else { return };
            let address = slot.pages.start();
            audit.owned_by(address, place, current, |owner| owner == FrameOwner::Dma);
            if audit.exactly(slot, place, current, attributes) {
                audit.summary.area_pages += 1;
            }
        });
    }

    /// Frames that are text, or are to be, in their order.
    fn code_pages(&mut self, record: &AreaRecord, list: &FrameList, stage: CodeStage) {
        let place = place_of(record);
        let mut frames = list.frames(self.space.zones().table());
        self.for_each_page(record.pages(), |audit, slot| {
            let Some(current) = frames.next() else { return };
            let address = slot.pages.start();
            audit.owned_by(address, place, current, |owner| owner == FrameOwner::Text);
            if audit.exactly(slot, place, current, stage.attributes()) {
                audit.summary.area_pages += 1;
                audit.summary.code_pages += 1;
            }
        });
    }

    pub(super) fn owned_by(
        &mut self,
        address: VirtAddr,
        place: Place,
        frame: Pfn,
        is_right: impl Fn(FrameOwner) -> bool,
    ) {
        let had = self.space.zones().table().owner_of(frame);
        if !is_right(had) {
            let wanted = match place {
                Place::Area { kind: AreaKind::Dma | AreaKind::Scattered, .. } => FrameOwner::Dma,
                _ => FrameOwner::Vmalloc,
            };
            self.found(Violation::WrongOwner { address, place, frame, wanted, had });
        }
    }

    /// Somebody else's memory, in use, as its first mapping allows.
    fn vmap_pages(&mut self, record: &AreaRecord) {
        let place = place_of(record);
        self.for_each_page(record.pages(), |audit, slot| {
            if let Some(found) = audit.small_page(slot, place, None) {
                audit.summary.area_pages += 1;
                audit.vmap_page(slot.pages.start(), place, found);
            }
        });
    }

    /// As much of somebody else's memory as is mapped just now.
    fn bare_pages(&mut self, record: &AreaRecord) {
        let place = place_of(record);
        self.for_each_page(record.pages(), |audit, slot| {
            if slot.descriptor != 0
                && slot.level == Level::Second
                && let Some(found) = audit.small_page(slot, place, None)
            {
                audit.summary.area_pages += 1;
                audit.vmap_page(slot.pages.start(), place, found);
            }
        });
    }

    /// Of a block, the pages of used fragments are mapped as vmap's, and no others (S87).
    fn block_pages(&mut self, record: &AreaRecord) {
        let (place, base) = (place_of(record), record.pages().start());
        let (mut left, mut found) = (0, 0);
        self.for_each_page(record.pages(), |audit, slot| {
            let address = slot.pages.start();
            let begins = audit.space.map_ram_blocks().fragment_at(address);
            if begins != 0 {
                (left, found) = (begins, found + 1);
            }
            if left == 0 {
                audit.absent(slot, place);
                return;
            }
            left -= 1;
            if let Some(page) = audit.small_page(slot, place, None) {
                audit.summary.area_pages += 1;
                audit.vmap_page(address, place, page);
            }
        });
        let wanted = self.space.map_ram_blocks().fragments_of(base);
        if wanted != found {
            self.found(Violation::Record { base, part: "fragments", wanted, had: found });
        }
    }

    /// A second mapping of memory in use, which must agree with the first.
    pub(super) fn vmap_page(&mut self, address: VirtAddr, place: Place, found: Found) {
        let Found { frame, attributes } = found;
        let had = self.space.zones().table().owner_of(frame);
        // Of devices, in a type that no cache holds (S37, S97).
        if had == FrameOwner::Absent && !attributes.memory().is_cacheable() {
            return;
        }
        if matches!(had, FrameOwner::Absent | FrameOwner::Free | FrameOwner::Reserved) {
            self.found(Violation::NotInUse { address, place, frame, had });
            return;
        }
        let Some((linear, linear_attributes)) = self.first_mapping(frame, had) else { return };
        let (first_type, second_type) = (linear_attributes.memory(), attributes.memory());
        if first_type != second_type {
            let (physical, first, second) = (frame.base(), linear, address);
            let found = Violation::MemoryTypes { physical, first, first_type, second, second_type };
            self.found(found);
        }
        let writes_protected = attributes.is_writable() && !linear_attributes.is_writable();
        let executes_writable = attributes.is_executable() && linear_attributes.is_writable();
        if writes_protected || executes_writable {
            self.found(Violation::ProtectionAlias {
                frame,
                address,
                attributes,
                linear,
                linear_attributes,
            });
        }
    }

    /// The mapping of a frame that others must agree with: the linear one, or that of the area that it is lent to.
    fn first_mapping(&self, frame: Pfn, owner: FrameOwner) -> Option<(VirtAddr, Attributes)> {
        let address = if is_for_devices(owner) {
            self.home_of(frame)?
        } else {
            match self.space.linear().pages_of(frame, 1) {
                Some(page) => page.start(),
                // High memory has the mapping of the area that owns it, if one does.
                None if owner == FrameOwner::Vmalloc => self.home_of(frame)?,
                None => return None,
            }
        };
        Some((address, self.space.table().translate(address)?.attributes().ok()?))
    }
}

pub(super) fn place_of(record: &AreaRecord) -> Place {
    Place::Area { kind: record.kind, base: record.pages().start() }
}
