//! What a listing says of the window's addresses, in their order (S91).
//!
//! Each step is one look under the lock of areas, so what it says of an area was true at one moment; between two steps areas
//! come and go. The next step begins behind what the last one said, so that no two that it lists overlap.

use crate::addr::{PAGE_SIZE, PageRange, Pfn, VirtAddr};
use crate::area::{AreaKind, AreaRecord, AreaSummary, Mapping};
use crate::holder::Holder;
use crate::iommu::SeenAt;
use crate::kernel_space::KernelSpace;
use crate::kernel_space::areas::Areas;
use crate::lock::{Locks, SharedLock};
use crate::machine::Machine;
use crate::page_table::LargeParts;
use crate::va_space::AreaState;
use crate::zones::{MAX_NODES, Nodes};

/// An area, as a listing says it; a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The usable pages, without the guard.
    pub pages: PageRange,
    /// What it is.
    pub what: ListedKind,
}

/// What is at the addresses of a listed area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedKind {
    /// A live area.
    Live(LiveArea),
    /// One that was freed, and whose addresses wait for their flush: nobody can have them yet (S14a, S92).
    Unpurged,
}

/// What there is to say of a live area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveArea {
    /// What a lookup says.
    pub summary: AreaSummary,
    /// Its sections and large pages.
    pub parts: LargeParts,
    /// How many of its own frames are on each node; none where there is one node, or where the frames are somebody else's.
    pub on_nodes: [u32; MAX_NODES],
    /// Of a block of `vm_map_ram`, how many mappings are cut from it.
    pub fragments: u32,
    /// Of a coherent buffer, who has it.
    pub holder: Option<Holder>,
    /// Of one of scattered frames, where its device sees it, and its first frame.
    pub seen: Option<(SeenAt, Pfn)>,
}

impl Listed {
    /// The first address behind it and its guard.
    pub const fn next(&self) -> Option<VirtAddr> {
        self.pages.start().checked_add(self.bytes_with_guard())
    }

    /// Bytes as a descriptor counts them: usable pages and guard (S2).
    pub const fn bytes_with_guard(&self) -> u32 {
        self.pages.bytes() + PAGE_SIZE
    }
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// The first area at or behind `address` that lives or waits for its flush. One that is being made is not listed.
    ///
    /// Where memory is of two nodes, the lock is held for as long as it takes to look at each block of the area's frames. Any
    /// context.
    pub fn next_listed(&self, address: VirtAddr) -> Option<Listed> {
        self.areas.look(|areas| areas.next_listed(address, |record| self.live_area(record)))
    }

    fn live_area(&self, record: &AreaRecord) -> LiveArea {
        let summary = record.summary();
        let parts = match record.mapping {
            Mapping::Large { parts, .. } => parts,
            _ => LargeParts::NONE,
        };
        let fragments = match record.kind {
            AreaKind::MapRamBlock => self.map_ram.fragments_of(summary.pages.start()),
            _ => 0,
        };
        let on_nodes = self.on_nodes(&record.mapping);
        let seen = match &record.mapping {
            Mapping::Scattered(seen) => {
                let first = seen.list().frames(self.zones.table()).next();
                first.map(|first| (seen.at(), first))
            }
            _ => None,
        };
        LiveArea { summary, parts, on_nodes, fragments, holder: record.holder(), seen }
    }

    /// Frames by node. A block lies on one.
    fn on_nodes(&self, mapping: &Mapping) -> [u32; MAX_NODES] {
        let mut on_nodes = [0; MAX_NODES];
        if self.zones.nodes() == Nodes::One {
            return on_nodes;
        }
        let mut count = |first, pages| {
            let zone = self.zones.zone_of(first);
            if let Some(node) = zone.and_then(|(node, _)| on_nodes.get_mut(node.number() as usize))
            {
                *node += pages;
            }
        };
        match mapping {
            Mapping::Frames { list, .. } | Mapping::Large { list, .. } => {
                list.blocks(self.zones.table()).for_each(|(first, order)| count(first, 1 << order));
            }
            Mapping::Code { lent, .. } => {
                let blocks = lent.list().blocks(self.zones.table());
                blocks.for_each(|(first, order)| count(first, 1 << order));
            }
            Mapping::Scattered(seen) => {
                let blocks = seen.list().blocks(self.zones.table());
                blocks.for_each(|(first, order)| count(first, 1 << order));
            }
            Mapping::Lent(lent) => count(lent.first(), lent.pages().count()),
            _ => {}
        }
        on_nodes
    }
}

impl Areas<'_> {
    fn next_listed(
        &self,
        mut address: VirtAddr,
        live: impl FnOnce(&AreaRecord) -> LiveArea,
    ) -> Option<Listed> {
        loop {
            let area = self.space.next_area_from(address)?;
            let what = match area.state {
                AreaState::Live(place) => ListedKind::Live(live(place)),
                AreaState::Dying => ListedKind::Unpurged,
                AreaState::Reserved => {
                    address = area.usable.start().checked_add(area.usable.bytes())?;
                    continue;
                }
            };
            return Some(Listed { pages: area.usable, what });
        }
    }
}
