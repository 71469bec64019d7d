//! A small world: RAM, a first-level table, memory for second-level ones, and the pages that the tests use.

use kerncore::{
    addr::{PageRange, Pfn, PhysAddr, VirtAddr},
    machine::Machine,
    owned_range::OwnedRange,
    page_table::PageTable,
};
use machine::{Behaviour, Fault, HostLocks, Kind, Privilege, SoftCpu, SoftMachine, TablePool};

pub(crate) const ROOT: PhysAddr = PhysAddr::new(0x6000_4000);
pub(crate) const TABLES: PhysAddr = PhysAddr::new(0x6001_0000);
/// The window of every test: 16 MiB from `0xC000_0000`.
pub(crate) const WINDOW: u32 = 0xc_0000;
pub(crate) const WINDOW_PAGES: u32 = 16 << 8;
/// How many random behaviours each test meets besides the extremes.
pub(crate) const SEEDS: u64 = 24;

pub(crate) type Table<M> = PageTable<M, HostLocks>;

pub(crate) struct World {
    pub(crate) machine: SoftMachine,
    pub(crate) tables: TablePool,
}

impl World {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        let machine = SoftMachine::new(behaviour, 2, ROOT);
        let tables = TablePool::new(&machine, TABLES, 8);
        Self { machine, tables }
    }

    pub(crate) fn cpu(&self, number: usize) -> SoftCpu<'_> {
        self.machine.cpu(number)
    }

    /// The page table as CPU 0 drives it, and the window.
    pub(crate) fn table(&self) -> (Table<SoftCpu<'_>>, OwnedRange) {
        table_of(self.cpu(0))
    }

    /// What both CPUs find at page number `page`, which must be the same.
    #[track_caller]
    pub(crate) fn reach(&self, page: u32) -> Result<Pfn, Fault> {
        let of = |number| self.cpu(number).access(at(page), Kind::Read, Privilege::Kernel);
        let (zero, one) = (of(0), of(1));
        assert_eq!(zero, one, "two CPUs differ at page {page:#x}");
        zero.map(PhysAddr::pfn)
    }
}

/// A page table over `WINDOW`, driven by `machine`.
pub(crate) fn table_of<M: Machine>(machine: M) -> (Table<M>, OwnedRange) {
    PageTable::new(machine, ROOT, pages(WINDOW, WINDOW_PAGES))
}

/// Runs `test` on a world of each behaviour.
pub(crate) fn everywhere(test: impl Fn(&World)) {
    for behaviour in Behaviour::all(SEEDS) {
        println!("{behaviour:?}");
        test(&World::new(behaviour));
    }
}

#[track_caller]
pub(crate) fn pages(first: u32, count: u32) -> PageRange {
    PageRange::from_numbers(first, count).expect("a range")
}

#[track_caller]
pub(crate) fn frame(number: u32) -> Pfn {
    Pfn::new(number).expect("a frame")
}

pub(crate) fn frames(numbers: &[u32]) -> Vec<Pfn> {
    numbers.iter().map(|&number| frame(number)).collect()
}

/// The first address of page number `page`.
pub(crate) const fn at(page: u32) -> VirtAddr {
    VirtAddr::new(page << 12)
}

/// The fault of an unmapped page.
pub(crate) const fn absent(page: u32) -> Result<Pfn, Fault> {
    Err(Fault::Translation(at(page)))
}

/// `count` pages from page `offset` of `range`, the rest of it lost.
#[track_caller]
pub(crate) fn cut(range: OwnedRange, offset: u32, count: u32) -> OwnedRange {
    let range = match offset {
        0 => range,
        offset => range.split_at(offset).expect("longer than its offset").1,
    };
    if range.count() == count { range } else { range.split_at(count).expect("long enough").0 }
}
