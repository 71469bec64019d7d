//! Which frame is in which zone.
//!
//! ```text
//!   first        first + dma            first + low                  first + len
//!    ┌─────────────┬──────────────────────┬───────────────────────────────┐
//!    │ DMA         │ normal               │ high                          │
//!    └─────────────┴──────────────────────┴───────────────────────────────┘
//!    ├──────────── node 0 ───────────────────┼──────────── node 1 ────────┤   numa=fake=2: by halves
//! ```
//! Every border is a multiple of the largest block, so that no block ever lies in two zones.

use crate::frames::{FrameTable, MAX_BLOCK, ZoneKind};

/// The most nodes that there can be.
pub const MAX_NODES: usize = 2;
/// The most zones that there can be.
pub(super) const ZONES: usize = MAX_NODES * ZoneKind::COUNT;
/// So many frames at the start of RAM are kept back for who reaches no others: 16 MiB.
pub const DMA_PAGES: u32 = 16 << 8;

/// How many nodes memory is divided among.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Nodes {
    /// All of it is one node.
    #[default]
    One,
    /// Two, each half of RAM (`numa=fake=2`).
    Two,
}

impl Nodes {
    /// How many.
    pub const fn count(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// How RAM is to be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// Frames at the start that are kept back for devices. None are if low memory has no more than these.
    pub dma: u32,
    /// Frames at the start that have linear addresses.
    pub low: u32,
    /// Nodes.
    pub nodes: Nodes,
}

impl Division {
    /// One zone of one node.
    pub const NONE: Self = Self { dma: 0, low: u32::MAX, nodes: Nodes::One };
}

/// The place of a zone in all tables of zones. The normal one of node 0 is the first: it serves the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZoneIndex(u8);

impl ZoneIndex {
    pub(super) const FIRST: Self = Self::of(0, ZoneKind::Normal);
    /// Of no zone.
    pub(super) const NONE: Self = Self(u8::MAX);

    pub(super) const fn of(node: u8, kind: ZoneKind) -> Self {
        let place = match kind {
            ZoneKind::Normal => 0,
            ZoneKind::High => 1,
            ZoneKind::Dma => 2,
        };
        Self(node * 3 + place)
    }

    pub(super) fn all() -> impl Iterator<Item = (Self, u8, ZoneKind)> {
        const NUMBERS: [u8; MAX_NODES] = [0, 1];
        NUMBERS.into_iter().flat_map(|node| {
            ZoneKind::ALL.into_iter().map(move |kind| (Self::of(node, kind), node, kind))
        })
    }

    #[inline(always)]
    pub(super) const fn get(self) -> usize {
        self.0 as usize
    }
}

/// Where each zone begins and ends, in indices of the frame table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    spans: [(u32, u32); ZONES],
}

impl Plan {
    pub(super) fn new(table: &FrameTable<'_>, division: Division) -> Self {
        let len = table.len();
        let border = |pages: u32| if pages < len { pages / MAX_BLOCK * MAX_BLOCK } else { len };
        let low = border(division.low);
        let dma = if border(division.dma) < low { border(division.dma) } else { 0 };
        let half = match division.nodes {
            Nodes::One => len,
            Nodes::Two => border(len / 2),
        };
        let mut spans = [(0, 0); ZONES];
        for (zone, node, kind) in ZoneIndex::all() {
            let of_kind = match kind {
                ZoneKind::Dma => (0, dma),
                ZoneKind::Normal => (dma, low),
                ZoneKind::High => (low, len),
            };
            let of_node = if node == 0 { (0, half) } else { (half, len) };
            let (start, end) = (of_kind.0.max(of_node.0), of_kind.1.min(of_node.1));
            spans[zone.get()] = if start < end { (start, end) } else { (0, 0) };
        }
        Self { spans }
    }

    pub(super) const fn span(&self, zone: ZoneIndex) -> (u32, u32) {
        self.spans[zone.get()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;
    use crate::frames::Frame;

    /// Every frame is in one zone, and in the one that the picture says, for all divisions of small memories.
    #[test]
    fn every_frame_is_in_the_zone_that_the_picture_says() {
        let first = Pfn::new(0x6_0000).expect("below 4 GiB");
        let sizes = [0, 1, 1023, 1024, 1025, 2048, 3000, 4096, u32::MAX];
        for len in [1, 1000, 1024, 2500, 4096, 5120] {
            let records: Vec<Frame> = (0..len).map(|_| Frame::new()).collect();
            let table = FrameTable::new(&records, first).expect("aligned");
            for (dma, low) in sizes.iter().flat_map(|&dma| sizes.map(|low| (dma, low))) {
                for nodes in [Nodes::One, Nodes::Two] {
                    let plan = Plan::new(&table, Division { dma, low, nodes });
                    let len = table.len();
                    let whole = |pages: u32| if pages < len { pages / 1024 * 1024 } else { len };
                    for index in 0..len {
                        let is_dma = index < whole(dma) && whole(dma) < whole(low);
                        let kind = match index {
                            _ if is_dma => ZoneKind::Dma,
                            index if index < whole(low) => ZoneKind::Normal,
                            _ => ZoneKind::High,
                        };
                        let second = nodes == Nodes::Two && index >= whole(len / 2);
                        let found: Vec<_> = ZoneIndex::all()
                            .filter(|&(zone, ..)| {
                                let (start, end) = plan.span(zone);
                                (start..end).contains(&index)
                            })
                            .map(|(_, node, kind)| (node, kind))
                            .collect();
                        assert_eq!(found, [(u8::from(second), kind)], "{len} {dma} {low} {index}");
                    }
                }
            }
        }
    }

    #[test]
    fn each_zone_has_a_place_of_its_own() {
        let mut places: Vec<usize> = ZoneIndex::all().map(|(zone, ..)| zone.get()).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3, 4, 5]);
        assert_eq!(ZoneIndex::FIRST.get(), 0);
    }
}
