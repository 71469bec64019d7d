//! The ledger: everything that can leak, counted.
//!
//! It is taken before and after a test, with per-CPU lists drained and backlogs purged, and compared. Two kinds of
//! count are kept apart. What is *held* (a mapped page, a record, a vmalloc frame) must be back where it was. *Capacity* may
//! grow and stay: the kernel's second-level tables are kept for reuse (S24), a heap or a slab does not give memory back; what
//! lies in them is counted as held.

use core::fmt;

use crate::frames::{Census, FrameOwner};

/// The counts of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Frames of each owner, in the order of [`FrameOwner::ALL`].
    pub frames: [u32; FrameOwner::COUNT],
    /// The other counts, in the order of [`Count::ALL`].
    pub counts: [u32; Count::COUNT],
}

/// What is counted beside frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Areas, live and dying.
    Areas,
    /// Pages of addresses reserved in the vmalloc window.
    ReservedPages,
    /// Pages mapped in the vmalloc window.
    MappedPages,
    /// Second-level tables that hold an entry.
    TablesInUse,
    /// Frames missing from the linear map.
    UnmappedLinear,
    /// Records in slabs.
    SlabRecords,
    /// Bytes taken from the heap.
    HeapBytes,
    /// Pages taken from the atomic pool.
    PoolPages,
    /// Coherent DMA buffers.
    DmaBuffers,
    /// Address spaces of programs.
    AddressSpaces,
    /// Numbers of address spaces that have an owner.
    SpaceNumbers,
    /// Frames that are mapped for a moment.
    TemporaryMappings,
    /// Frames of tables that are not the kernel's own: programs' and devices', which go with them.
    SpaceTables,
}

impl Count {
    /// How many counts there are.
    pub const COUNT: usize = 13;
    /// All of them, in their order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Areas,
        Self::ReservedPages,
        Self::MappedPages,
        Self::TablesInUse,
        Self::UnmappedLinear,
        Self::SlabRecords,
        Self::HeapBytes,
        Self::PoolPages,
        Self::DmaBuffers,
        Self::AddressSpaces,
        Self::SpaceNumbers,
        Self::TemporaryMappings,
        Self::SpaceTables,
    ];

    /// The words used in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Areas => "areas",
            Self::ReservedPages => "reserved pages",
            Self::MappedPages => "mapped pages",
            Self::TablesInUse => "tables in use",
            Self::UnmappedLinear => "frames missing from the linear map",
            Self::SlabRecords => "slab records",
            Self::HeapBytes => "heap bytes",
            Self::PoolPages => "pool pages",
            Self::DmaBuffers => "dma buffers",
            Self::AddressSpaces => "address spaces",
            Self::SpaceNumbers => "address space numbers",
            Self::TemporaryMappings => "temporary mappings",
            Self::SpaceTables => "table frames of programs and devices",
        }
    }
}

/// What a [`Difference`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The frames of one owner.
    Frames(FrameOwner),
    /// One of the other counts.
    Count(Count),
}

/// Whether a count must come back or may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It must be back where it was: a difference is a leak, or something freed that was not taken.
    Held,
    /// It may change: memory kept for reuse, and what is left free.
    Capacity,
}

impl Item {
    /// Whether a difference in it is a leak.
    pub const fn nature(self) -> Nature {
        match self {
            Self::Frames(
                FrameOwner::Free
                | FrameOwner::PageTable
                | FrameOwner::Heap
                | FrameOwner::Slab
                | FrameOwner::VaStorage,
            ) => Nature::Capacity,
            Self::Frames(_) | Self::Count(_) => Nature::Held,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames(owner) => write!(f, "{owner} frames"),
            Self::Count(count) => f.write_str(count.name()),
        }
    }
}

/// One count that differs between two ledgers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What was counted.
    pub item: Item,
    /// The count in the first ledger.
    pub before: u32,
    /// The count in the second.
    pub after: u32,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.after > self.before { "more" } else { "fewer" };
        write!(f, "{}: {} {word}", self.item, self.after.abs_diff(self.before))
    }
}

impl Ledger {
    /// A ledger of these frames, and of nothing else yet.
    pub const fn new(census: &Census) -> Self {
        Self { frames: census.pages, counts: [0; Count::COUNT] }
    }

    /// Enters a count.
    #[must_use]
    pub const fn with(mut self, count: Count, number: u32) -> Self {
        self.counts[count as usize] = number;
        self
    }

    /// What differs, held and capacity alike: frames in the order of their owners, then the other counts.
    pub fn differences<'l>(&'l self, after: &'l Self) -> impl Iterator<Item = Difference> + 'l {
        let frames = FrameOwner::ALL.iter().map(|&owner| Item::Frames(owner));
        let counts = Count::ALL.iter().map(|&count| Item::Count(count));
        let before = self.frames.iter().chain(&self.counts);
        let after = after.frames.iter().chain(&after.counts);
        frames.chain(counts).zip(before.zip(after)).filter_map(|(item, (&before, &after))| {
            (before != after).then_some(Difference { item, before, after })
        })
    }

    /// The differences that are leaks.
    pub fn leaks<'l>(&'l self, after: &'l Self) -> impl Iterator<Item = Difference> + 'l {
        self.differences(after).filter(|difference| difference.item.nature() == Nature::Held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;
    use crate::frames::{Frame, FrameAllocator, FrameTable};

    fn lines(differences: impl Iterator<Item = Difference>) -> Vec<String> {
        differences.map(|difference| difference.to_string()).collect()
    }

    #[test]
    fn a_leak_is_named_by_its_owner_and_its_size() {
        let records: Vec<Frame> = (0..64).map(|_| Frame::new()).collect();
        let first = Pfn::new(0x6_0000).expect("below 4 GiB");
        let table = FrameTable::new(&records, first).expect("aligned");
        let mut allocator = FrameAllocator::new(table);
        allocator.add_range(first, 64).expect("absent");
        let before = Ledger::new(&table.census()).with(Count::HeapBytes, 100);
        let kept = allocator.allocate_list(3, FrameOwner::Vmalloc).expect("64 are free");
        let table_frame = allocator.allocate(0, FrameOwner::PageTable).expect("61 are free").leak();
        let after = Ledger::new(&table.census()).with(Count::HeapBytes, 60).with(Count::Areas, 1);
        assert_eq!(
            lines(before.differences(&after)),
            [
                "free frames: 4 fewer",
                "page table frames: 1 more",
                "vmalloc frames: 3 more",
                "areas: 1 more",
                "heap bytes: 40 fewer",
            ]
        );
        assert_eq!(
            lines(before.leaks(&after)),
            ["vmalloc frames: 3 more", "areas: 1 more", "heap bytes: 40 fewer"]
        );
        assert_eq!(allocator.free_list(kept), Ok(()));
        assert_eq!(allocator.free_at(table_frame.0, 0, FrameOwner::PageTable), Ok(()));
        // What waits on a front list is free: the ledger is exact with or without a drain.
        let restored = Ledger::new(&table.census()).with(Count::HeapBytes, 100);
        assert_eq!(before, restored);
        assert_eq!(before.differences(&restored).count(), 0);
    }

    #[test]
    fn every_count_stands_at_its_own_place() {
        let empty = Ledger { frames: [0; FrameOwner::COUNT], counts: [0; Count::COUNT] };
        for (place, count) in Count::ALL.into_iter().enumerate() {
            assert_eq!(count as usize, place);
            let one = empty.with(count, 5);
            let all: Vec<Difference> = empty.differences(&one).collect();
            assert_eq!(all, [Difference { item: Item::Count(count), before: 0, after: 5 }]);
        }
        for (place, owner) in FrameOwner::ALL.into_iter().enumerate() {
            assert_eq!(owner as usize, place);
            let mut one = empty;
            one.frames[place] = 2;
            let all: Vec<Difference> = one.differences(&empty).collect();
            assert_eq!(all, [Difference { item: Item::Frames(owner), before: 2, after: 0 }]);
        }
    }
}
