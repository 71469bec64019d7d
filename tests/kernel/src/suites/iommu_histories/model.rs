//! The books of the histories: too dull to be wrong, and compared with the real ones, the tables, and what a device may do.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use arch::translate::{Direction, translate};
use dma::device::Device;
use dma::iommu::{IommuMapping, Shared};
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use kerncore::attributes::{Attributes, MemoryType};
use kerncore::coherent::Coherency;
use kerncore::dma_mask::DmaMask;
use kerncore::iommu::SegmentLimits;

/// One snoops; one takes small segments, and none across a border; one reaches less.
pub(super) static DEVICES: [Device; 4] = [
    Device::new("a device with a history"),
    Device::coherent("a snooping device with a history"),
    Device::new("a device of small segments with a history"),
    Device::coherent("a device that reaches less, with a history"),
];

/// Which of them reaches less, and how far.
pub(super) const NARROW: usize = 3;
const REACH: u64 = 0x6000_3fff;

/// Windows of device addresses: the first, and how many pages. Aligned, and not; and one that [`NARROW`] does not reach to the end.
pub(super) const WINDOWS: [(u32, u32); 3] = [(0x2_0000, 24), (0x1003, 61), (0x6_0000, 40)];

/// Tells the devices what they can.
pub(super) fn settle() {
    let limits = SegmentLimits::new(5 * PAGE_SIZE, 0x3fff).expect("limits");
    DEVICES[2].set_segment_limits(limits);
    DEVICES[NARROW].set_mask_and_coherent(DmaMask::new(REACH)).expect("RAM begins below");
}

/// Whether a device reaches `bytes` from `dma` on.
pub(super) fn reaches(device: usize, dma: u32, bytes: u32) -> bool {
    device != NARROW || u64::from(dma) + u64::from(bytes) - 1 <= REACH
}

/// As which memory a device should see what is given to it.
pub(super) fn memory_for(device: usize) -> MemoryType {
    match DEVICES[device].coherency() {
        Coherency::Coherent => MemoryType::NormalWriteBack,
        Coherency::NonCoherent => MemoryType::NormalNonCacheable,
    }
}

/// A run of addresses that are taken.
#[derive(Debug)]
pub(super) struct Run {
    /// What each page leads to.
    pub(super) frames: Vec<Pfn>,
    pub(super) is_writable: bool,
    /// As which a device sees it: its own way where it snoops.
    pub(super) memory: MemoryType,
}

/// One mapping.
pub(super) struct Side {
    /// The maker's part, until that lets it go.
    pub(super) mapping: Option<IommuMapping>,
    pub(super) window: (u32, u32),
    pub(super) runs: BTreeMap<u32, Run>,
    /// Which devices are attached.
    pub(super) attached: Vec<usize>,
    /// How many buffers of scattered frames it has.
    pub(super) buffers: u32,
}

impl Side {
    pub(super) fn new(window: (u32, u32)) -> Self {
        let (first, pages) = window;
        let mapping = IommuMapping::new(DmaAddr::new(first * PAGE_SIZE), pages * PAGE_SIZE);
        let mapping = Some(mapping.expect("memory"));
        Self { mapping, window, runs: BTreeMap::new(), attached: Vec::new(), buffers: 0 }
    }

    /// By whoever holds it.
    pub(super) fn shared(&self) -> &Shared {
        match (&self.mapping, self.attached.first()) {
            (Some(mapping), _) => mapping,
            (None, Some(&device)) => DEVICES[device].iommu().expect("attached"),
            (None, None) => panic!("nobody reaches it"),
        }
    }

    pub(super) fn holders(&self) -> u32 {
        let attached = u32::try_from(self.attached.len()).expect("a few");
        u32::from(self.mapping.is_some()) + attached + self.buffers
    }

    pub(super) fn taken(&self) -> u32 {
        self.runs.values().map(|run| pages_in(&run.frames)).sum()
    }

    /// The run that `page` lies in.
    pub(super) fn run_of(&self, page: u32) -> Option<(u32, &Run)> {
        let (&first, run) = self.runs.range(..=page).next_back()?;
        (page - first < pages_in(&run.frames)).then_some((first, run))
    }

    /// The lowest free pages, so many, that begin at a multiple of the power of two that holds them; `beside` are taken, too.
    pub(super) fn lowest(&self, pages: u32, beside: &[(u32, u32)]) -> Option<u32> {
        let (base, count) = self.window;
        let step = pages.next_power_of_two();
        let is_free = |first: u32| {
            let mut all = first..first + pages;
            let is_beside = |page: u32| {
                beside.iter().any(|&(first, pages)| (first..first + pages).contains(&page))
            };
            all.all(|page| self.run_of(page).is_none() && !is_beside(page))
        };
        let mut first = base.next_multiple_of(step);
        while first + pages <= base + count {
            if is_free(first) {
                return Some(first);
            }
            first += step;
        }
        None
    }

    /// Books, tables and what a device may do: all say the same.
    pub(super) fn check(&self, when: &str) {
        let shared = self.shared();
        let domain = shared.domain();
        let usage = domain.usage();
        let runs = u32::try_from(self.runs.len()).expect("a few");
        assert_eq!((usage.taken, usage.runs), (self.taken(), runs), "{when}: {:x?}", self.runs);
        assert_eq!((usage.pages, shared.holders()), (self.window.1, self.holders()), "{when}");
        assert_eq!(domain.is_unused(), self.runs.is_empty(), "{when}");
        for (&first, run) in &self.runs {
            let found = domain.mapping_of(DmaAddr::new((first + 1) * PAGE_SIZE - 1));
            let found = found.map(|found| (found.first(), found.count()));
            assert_eq!(found, Some((first, pages_in(&run.frames))), "{when}");
        }
        let (base, count) = self.window;
        domain.with_open(|| {
            for page in base - 1..=base + count {
                let own = self.run_of(page).map(|(first, run)| {
                    (run.frames[(page - first) as usize].base(), run.is_writable)
                });
                let address = VirtAddr::new(page * PAGE_SIZE);
                let walked = domain.translate(DmaAddr::new(address.raw()));
                let memory = walked.and_then(|found| found.attributes().ok());
                let memory = memory.map(Attributes::memory);
                let wanted = self.run_of(page).map(|(_, run)| run.memory);
                assert_eq!(memory, wanted, "{when}: {address}");
                assert_eq!(walked.map(|found| found.physical), own.map(at), "{when}: {address}");
                let reads = translate(address, Direction::Read).ok();
                assert_eq!(reads, own.map(at), "{when}: {address}");
                let writes = translate(address, Direction::Write).ok();
                let wanted = own.filter(|&(_, is_writable)| is_writable).map(at);
                assert_eq!(writes, wanted, "{when}: {address}");
            }
        });
    }
}

const fn at((physical, _): (PhysAddr, bool)) -> PhysAddr {
    physical
}

fn pages_in(frames: &[Pfn]) -> u32 {
    u32::try_from(frames.len()).expect("a few")
}

/// How many bytes each segment of `pieces` has, for a device with `limits`: where it begins in its page, and how many.
pub(super) fn segments(pieces: &[(u32, u32)], limits: SegmentLimits) -> Vec<(u32, u32)> {
    let mut segments: Vec<(u32, u32)> = Vec::new();
    for &(offset, bytes) in pieces {
        match segments.last_mut() {
            Some((first, whole))
                if offset == 0
                    && (*first + *whole) % PAGE_SIZE == 0
                    && *whole + bytes <= limits.most()
                    && *first + *whole + bytes - 1 <= limits.boundary() =>
            {
                *whole += bytes;
            }
            _ => segments.push((offset, bytes)),
        }
    }
    segments
}
