//! All of RAM: the frame table, and its zones, each an allocator behind a lock of its own.
//!
//! ```text
//!              DMA         normal                 high
//!    node 0  ┌───────────┬──────────────────────┬───────────────┐
//!            │ image     │                      │               │     every frame has one record in the frame table
//!            └───────────┴──────────────────────┴───────────────┘     and lies in one zone; a free finds it by number
//!    node 1              ┌──────────────────────┬───────────────┐
//!                        └──────────────────────┴───────────────┘
//! ```
//!
//! Who asks says what will do ([`FrameRequest`]). The zones that will do are tried one after the other:
//!
//! * who names no node is served by kind, high memory first on whichever node, then normal, then DMA, so that what is scarce
//!   lasts longest;
//! * who names a node is served from its zones in that order, and then, if another will do too, from the others'.
//!
//! Most ask for low memory of no node, and most kernels have one node and no high memory. So the normal zone of node 0 has a
//! fixed place, and whoever finds something in the first zone of his request has done.
//!
//! A zone is emptied to the last frame before the next is asked: nothing is held in reserve for those who can use one zone
//! only, and no caller has the right to what another lacks.

mod give_back;
mod plan;
mod take;
#[cfg(test)]
mod tests;

pub use plan::{DMA_PAGES, Division, MAX_NODES, Nodes};

use plan::{Plan, ZONES, ZoneIndex};

use crate::addr::{PAGES_IN_ADDRESS_SPACE, Pfn, PhysAddr};
use crate::frames::{
    AddError, Census, Frame, FrameAllocator, FrameRequest, FrameTable, MAX_BLOCK, MAX_ORDER,
    NodeId, Spares, Unsound, ZoneKind,
};
use crate::lock::{Class, Lock, Locks};

/// How many largest blocks a table can have.
const BLOCKS: usize = (PAGES_IN_ADDRESS_SPACE / MAX_BLOCK) as usize;

/// The frames of RAM, shared by all CPUs.
///
/// Every method may be called from any context; none sleeps. The locks of frames come after all others of memory, and no two
/// are held together.
#[expect(missing_debug_implementations, reason = "a lock shows nothing; see `census`")]
pub struct Zones<'s, L: Locks> {
    table: FrameTable<'s>,
    /// The indices of the first zone's first frame and behind its last, as its allocator has them.
    first_span: (u32, u32),
    /// The records of the first zone's frames.
    first_table: FrameTable<'s>,
    first: L::Lock<FrameAllocator<'s>>,
    /// Of the first zone's blocks.
    spares: &'s Spares<'s, L>,
    others: Option<&'s OtherZones<'s, L>>,
    /// Where requests for any memory begin.
    first_of_any: ZoneIndex,
}

/// All zones but the first. They are many words, and are kept out of the way of those that are asked for most.
#[expect(missing_debug_implementations, reason = "a lock shows nothing; see `Zones::census`")]
pub struct OtherZones<'s, L: Locks> {
    zones: [L::Lock<FrameAllocator<'s>>; ZONES - 1],
    table: FrameTable<'s>,
    plan: Plan,
    /// The zone of each largest block.
    zone_of: [ZoneIndex; BLOCKS],
    nodes: Nodes,
}

impl<'s, L: Locks> OtherZones<'s, L> {
    /// Those of a `table` that is divided so.
    pub fn new(table: FrameTable<'s>, division: Division) -> Self {
        let plan = Plan::new(&table, division);
        let mut zone_of = [ZoneIndex::NONE; BLOCKS];
        let mut zones = core::array::from_fn(|_| FrameAllocator::part(table, 0, 0));
        for (zone, ..) in ZoneIndex::all() {
            let (start, end) = plan.span(zone);
            zone_of[(start / MAX_BLOCK) as usize..end.div_ceil(MAX_BLOCK) as usize].fill(zone);
            if let Some(other) = zone.get().checked_sub(1) {
                zones[other] = FrameAllocator::part(table, start, end);
            }
        }
        let zones = zones.map(|allocator| Lock::new(Class::Frames, allocator));
        Self { zones, table, plan, zone_of, nodes: division.nodes }
    }
}

/// A zone, for listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneSummary {
    /// Its node.
    pub node: NodeId,
    /// Its kind.
    pub kind: ZoneKind,
    /// Its first frame.
    pub first: Pfn,
    /// How many frames it has, those in use and those set aside at boot included.
    pub pages: u32,
    /// How many are free.
    pub free: u32,
}

/// Making them, and what is asked of all together.
impl<'s, L: Locks> Zones<'s, L> {
    /// One zone of all the frames of `allocator`'s table, of which some will be `spares`. There are to be no two with the same.
    pub fn new(allocator: FrameAllocator<'s>, spares: &'s Spares<'s, L>) -> Self {
        let (table, first_span) = (allocator.table(), (allocator.start(), allocator.end()));
        let first_table = table.part(first_span.0, first_span.1);
        let first = Lock::new(Class::Frames, allocator);
        let first_of_any = ZoneIndex::FIRST;
        Self { table, first_span, first_table, first, spares, others: None, first_of_any }
    }

    /// The zones of `others`, and the first, of whose frames some will be `spares`; no frame is free yet. There are to be no two
    /// of the same others or spares.
    pub fn divided(others: &'s OtherZones<'s, L>, spares: &'s Spares<'s, L>) -> Self {
        let (start, end) = others.plan.span(ZoneIndex::FIRST);
        let allocator = FrameAllocator::part(others.table, start, end);
        let zones = Self { others: Some(others), ..Self::new(allocator, spares) };
        let first_of_any = zones.order(FrameRequest::ANY).next().map(|(zone, _)| zone);
        let first_of_any = first_of_any.unwrap_or(ZoneIndex::FIRST);
        Self { first_of_any, ..zones }
    }

    /// The records of all frames.
    pub const fn table(&self) -> &FrameTable<'s> {
        &self.table
    }

    /// The records of the frames of the zone whose small blocks may be spares.
    pub const fn records_of_spares(&self) -> &'s [Frame] {
        self.first_table.frames()
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> Nodes {
        self.others.map_or(Nodes::One, |others| others.nodes)
    }

    /// How many frames of RAM there are, the image's included.
    pub fn total(&self) -> u32 {
        self.table.len()
    }

    /// How many frames are free.
    pub fn free_pages(&self) -> u32 {
        self.free_pages_of(FrameRequest::ANY)
    }

    /// The first byte of RAM that the run of bytes `first ..= last` touches, if it touches RAM (S94).
    pub fn ram_within(&self, first: PhysAddr, last: PhysAddr) -> Option<PhysAddr> {
        let base = self.table.first();
        let end = base.number() + self.table.len();
        let touches = first.pfn().number() < end && last.pfn() >= base;
        touches.then(|| first.max(base.base()))
    }

    /// The node of `frame`, and its kind; `None` if it is not RAM.
    pub fn zone_of(&self, frame: Pfn) -> Option<(NodeId, ZoneKind)> {
        let index = self.index_of(frame)?;
        ZoneIndex::all()
            .find(|&(zone, ..)| {
                let (start, end) = self.span(zone);
                (start..end).contains(&index)
            })
            .map(|(_, node, kind)| (NodeId::new(node.into()), kind))
    }

    /// Shows every zone that has frames to `visit`, node by node.
    pub fn for_each_zone(&self, mut visit: impl FnMut(ZoneSummary)) {
        for (zone, node, kind) in ZoneIndex::all() {
            let Some(lock) = self.lock_of(zone) else { continue };
            let (first, pages, free) = self.with_spares_home((zone, lock), |zone| {
                (zone.first(), zone.len(), zone.free_pages())
            });
            if pages != 0 {
                visit(ZoneSummary { node: NodeId::new(node.into()), kind, first, pages, free });
            }
        }
    }

    /// Gives `pages` frames from `first` to their zones: RAM, or what was set aside at boot and is needed no more. Any
    /// boundaries will do; an empty range changes nothing.
    ///
    /// # Errors
    /// [`AddError`]; the zones below that of the frame it names have theirs.
    pub fn add_range(&self, first: Pfn, pages: u32) -> Result<(), AddError> {
        let outside = AddError::OutsideTable { first, pages };
        let start = first.checked_sub(self.table.first()).ok_or(outside)?;
        let end = start.checked_add(pages).filter(|&end| end <= self.total()).ok_or(outside)?;
        for (zone, ..) in ZoneIndex::all() {
            let (from, to) = self.span(zone);
            let (from, to) = (from.max(start), to.min(end));
            if from < to
                && let Some(zone) = self.lock_of(zone)
            {
                let first = self.table.first().checked_add(from).ok_or(outside)?;
                zone.with(|zone| zone.add_range(first, to - from))?;
            }
        }
        Ok(())
    }

    /// Merges the free blocks that wait as spares and on the allocators' front lists.
    pub fn drain(&self) {
        self.locks().for_each(|zone| self.with_spares_home(zone, FrameAllocator::drain));
    }

    /// Counts the frames of every owner.
    ///
    /// Exact only while nobody takes or frees any.
    pub fn census(&self) -> Census {
        self.table.census()
    }

    /// Whether the allocators' lists and the frame table agree.
    ///
    /// # Errors
    /// [`Unsound`].
    pub fn check(&self) -> Result<(), Unsound> {
        self.locks().try_for_each(|zone| self.with_spares_home(zone, |zone| zone.check()))
    }

    fn locks(&self) -> impl Iterator<Item = (ZoneIndex, &L::Lock<FrameAllocator<'s>>)> {
        ZoneIndex::all().filter_map(|(zone, ..)| Some((zone, self.lock_of(zone)?)))
    }

    /// Runs `section` on the allocator of a zone, which has its spare blocks back: for whoever counts what is free, or found
    /// too little.
    fn with_spares_home<R>(
        &self,
        (zone, lock): (ZoneIndex, &L::Lock<FrameAllocator<'s>>),
        section: impl FnOnce(&mut FrameAllocator<'s>) -> R,
    ) -> R {
        lock.with(|allocator| {
            if zone == ZoneIndex::FIRST {
                allocator.take_home(self.spares);
            }
            section(allocator)
        })
    }

    /// The zone at that place.
    #[inline(always)]
    fn lock_of(&self, zone: ZoneIndex) -> Option<&L::Lock<FrameAllocator<'s>>> {
        match zone.get().checked_sub(1) {
            None => Some(&self.first),
            Some(other) => self.others?.zones.get(other),
        }
    }

    /// The indices of its first frame and behind its last.
    fn span(&self, zone: ZoneIndex) -> (u32, u32) {
        match self.others {
            _ if zone == ZoneIndex::FIRST => self.first_span,
            Some(others) => others.plan.span(zone),
            None => (0, 0),
        }
    }

    fn index_of(&self, frame: Pfn) -> Option<u32> {
        frame.checked_sub(self.table.first()).filter(|&index| index < self.total())
    }

    /// The zone of the frame at `index`.
    #[inline(always)]
    fn zone_at(&self, index: u32) -> Option<&L::Lock<FrameAllocator<'s>>> {
        if self.is_first(index) {
            return Some(&self.first);
        }
        let zone = self.others?.zone_of.get((index >> MAX_ORDER) as usize)?;
        self.lock_of(*zone)
    }

    /// Whether the frame at `index` is in the first zone, as most are.
    #[inline(always)]
    const fn is_first(&self, index: u32) -> bool {
        let (start, end) = self.first_span;
        index.wrapping_sub(start) < end.wrapping_sub(start)
    }
}
