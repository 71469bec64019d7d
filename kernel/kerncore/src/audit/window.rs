//! The vmalloc window: area after area, and nothing between them.

use super::homes::Mark;
use super::{Audit, Place, Violation};
use crate::addr::{PAGE_SIZE, PageRange, Pfn, VirtAddr};
use crate::area::{AreaRecord, Mapping, PageArray};
use crate::frames::FrameOwner;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::consecutive;

/// Frames that areas own and that were found behind one.
#[derive(Clone, Copy, Debug, Default)]
struct Homes {
    vmalloc: u32,
    dma: u32,
    pool: u32,
}

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    /// Checks every page of the window, and that every frame that is owned by an area lies in one.
    pub(super) fn window(&mut self) {
        self.for_each_area(Self::clear_homes);
        let mut homes = Homes::default();
        self.for_each_area(|audit, record| audit.note_homes(record, &mut homes));
        self.entries();
        self.device_runs();
        let census = self.space.zones().census();
        for (owner, found) in [
            (FrameOwner::Vmalloc, homes.vmalloc),
            (FrameOwner::Dma, homes.dma),
            (FrameOwner::AtomicPool, homes.pool),
        ] {
            let owned = census.of(owner);
            if owned != found {
                self.found(Violation::FrameCount { owner, owned, found });
            }
        }
    }

    /// Shows the record of every live area in order, under the lock of areas.
    pub(super) fn for_each_area(&mut self, mut visit: impl FnMut(&mut Self, &AreaRecord)) {
        let space = self.space;
        let mut next = space.window().start();
        while let Some(area) = space.next_area(next) {
            let base = area.pages.start();
            space.with_area(base, |record| visit(self, record));
            match base.checked_add(area.bytes_with_guard()) {
                Some(after) => next = after,
                None => break,
            }
        }
    }

    /// Shows every frame that the area owns, with the address that it belongs at.
    pub(super) fn for_each_frame(
        &mut self,
        record: &AreaRecord,
        mut visit: impl FnMut(&mut Self, Pfn, VirtAddr),
    ) {
        let pages = record.pages();
        let addresses =
            (pages.first()..pages.end()).map(|number| VirtAddr::new(number * PAGE_SIZE));
        let table = self.space.zones().table();
        match &record.mapping {
            // Bounded by the addresses: a damaged list may have no end.
            Mapping::Frames { list, .. } | Mapping::Large { list, .. } => addresses
                .zip(list.frames(table))
                .for_each(|(address, frame)| visit(self, frame, address)),
            Mapping::Code { lent, .. } => addresses
                .zip(lent.list().frames(table))
                .for_each(|(address, frame)| visit(self, frame, address)),
            Mapping::Scattered(seen) => addresses
                .zip(seen.list().frames(table))
                .for_each(|(address, frame)| visit(self, frame, address)),
            Mapping::Lent(lent) => addresses
                .zip(consecutive(lent.first(), pages.count()).into_iter().flatten())
                .for_each(|(address, frame)| visit(self, frame, address)),
            _ => {}
        }
    }

    fn clear_homes(&mut self, record: &AreaRecord) {
        self.for_each_frame(record, |audit, frame, _| audit.clear_mark(frame));
    }

    fn note_homes(&mut self, record: &AreaRecord, homes: &mut Homes) {
        if let PageArray::Frame(block) = &record.array {
            let owner = self.space.zones().table().owner_of(block.first());
            homes.vmalloc += u32::from(owner == FrameOwner::Vmalloc);
        }
        self.for_each_frame(record, |audit, frame, address| {
            if audit.mark_home(frame, address) == Mark::New {
                match audit.space.zones().table().owner_of(frame) {
                    FrameOwner::Vmalloc => homes.vmalloc += 1,
                    FrameOwner::Dma => homes.dma += 1,
                    FrameOwner::AtomicPool => homes.pool += 1,
                    // Another owner is reported with the entry.
                    _ => {}
                }
            }
        });
    }

    /// Checks every slot of the window, in order.
    fn entries(&mut self) {
        let window = self.space.window();
        let mut checked = window.first();
        let mut last = None;
        self.for_each_area(|audit, record| {
            let pages = record.pages();
            audit.gap(checked, pages.first(), last);
            audit.area(record);
            checked = pages.end();
            last = Some(pages.start());
        });
        self.gap(checked, window.end(), last);
    }

    /// Nothing may be mapped from page `first` up to page `end`, of which the first is the guard of the area at `last`.
    fn gap(&mut self, first: u32, end: u32, last: Option<VirtAddr>) {
        let Some(pages) = PageRange::from_numbers(first, end.saturating_sub(first)) else { return };
        let guard = pages.sub_range(0, 1).zip(last);
        if let Some((guard, base)) = guard {
            self.all_absent(guard, Place::Guard { base });
        }
        let guards = u32::from(guard.is_some());
        if let Some(rest) = pages.sub_range(guards, pages.count().saturating_sub(guards)) {
            self.all_absent(rest, Place::NoArea);
        }
    }
}
