//! Who has which memory for devices, one line each (S64, S83): what was once listed as `dma-mappings`.
//!
//! ```text
//!   0xc0402000-0xc0405000     12288 remap dma=0x60123000 main+0x40/0x2c8 for "disk" since 1.234s write_combine
//!   └─ addresses ───────┘   └ bytes ┘ └ from   └ device's    └ caller          └ device   └ when    └ what is peculiar to it
//! ```
//! Behind `dma=` is the address that the device uses; where the memory lies elsewhere on the bus, as behind an IOMMU, that is told by `phys=`.
//! Of memory that a pool cuts into blocks (S103) the mark is `dma_pool`, and the pool's name follows.
//!
//! What it is from is `direct` (frames at their linear addresses, for devices that snoop), `atomic` (the pool that was made at boot),
//! `grown` (what that pool has grown by), `remap`, `contiguous`, `scattered` (frames wherever they lie, for devices behind an IOMMU;
//! `phys` is then where the first of them is) or `declared` (memory of the device's own).

use core::fmt;

use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::frames::FrameOwner;
use kerncore::holder::{Holder, Tag};
use kerncore::kernel_space::ListedKind;
use mm::report::Called;

use crate::dma_pool::{self, PoolName};
use crate::iommu::buffers;
use crate::names::name_of;
use crate::{declared, declared_claims, direct, pool_growth};

/// Which back end a buffer is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Frames at their linear addresses.
    Direct,
    /// The part of the atomic pool that was made at boot.
    Atomic,
    /// A part that it has grown by.
    Grown,
    /// Frames that were mapped uncached.
    Remap,
    /// The contiguous region.
    Contiguous,
    /// Frames that need not be adjacent, behind an IOMMU.
    Scattered,
    /// Memory of the device's own.
    Declared,
}

impl Source {
    /// All of them, in the order of their lines.
    pub const ALL: [Self; 7] = [
        Self::Direct,
        Self::Atomic,
        Self::Grown,
        Self::Remap,
        Self::Contiguous,
        Self::Scattered,
        Self::Declared,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Atomic => "atomic",
            Self::Grown => "grown",
            Self::Remap => "remap",
            Self::Contiguous => "contiguous",
            Self::Scattered => "scattered",
            Self::Declared => "declared",
        }
    }
}

/// One buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its first byte, as the kernel sees it.
    pub address: VirtAddr,
    /// Its first byte on the bus.
    pub physical: PhysAddr,
    /// Its first byte, as the device sees it.
    pub dma: DmaAddr,
    /// Its bytes: whole pages.
    pub bytes: u32,
    /// What it is from.
    pub source: Source,
    /// Who has it.
    pub holder: Holder,
    /// The pool that cuts it into blocks.
    pub pool: Option<PoolName>,
}

impl Line {
    /// The name of the device that it is for.
    pub fn device(&self) -> &'static str {
        name_of(self.holder.tag)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, physical, dma, bytes, source, holder, pool } = *self;
        let end = u64::from(address.raw()) + u64::from(bytes);
        write!(f, "{address}-{end:#010x} {bytes:>9} {} dma={dma}", source.name())?;
        if physical.raw() != dma.raw() {
            write!(f, " phys={physical}")?;
        }
        write!(f, " {} for \"{}\" since {}", Called(holder.caller), self.device(), holder.since)?;
        holder.tag.words().try_for_each(|word| write!(f, " {word}"))?;
        pool.map_or(Ok(()), |pool| write!(f, " \"{}\"", pool.as_str()))
    }
}

/// All buffers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Buffers and pages of each source, in their order.
    by: [(u32, u32); Source::ALL.len()],
}

impl Totals {
    /// Buffers and pages from `source`.
    pub fn of(&self, source: Source) -> (u32, u32) {
        self.by.get(source as usize).copied().unwrap_or_default()
    }

    fn add(&mut self, line: &Line) {
        if let Some((buffers, pages)) = self.by.get_mut(line.source as usize) {
            *buffers += 1;
            *pages += line.bytes / PAGE_SIZE;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kibibytes = |pages: u32| u64::from(pages) * u64::from(PAGE_SIZE >> 10);
        let all = self.by.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        write!(f, "{} buffers, {} KiB", all.0, kibibytes(all.1))?;
        for source in Source::ALL {
            if let (buffers @ 1.., pages) = self.of(source) {
                write!(f, "; {} {buffers}, {} KiB", source.name(), kibibytes(pages))?;
            }
        }
        Ok(())
    }
}

/// Shows every buffer that somebody has to `visit`, and adds them up. No lock is held while `visit` runs. What is given or taken back
/// meanwhile may be shown or not; each line was true at one moment. Any context.
pub fn for_each_line(mut visit: impl FnMut(&Line)) -> Totals {
    let mut totals = Totals::default();
    let mut show = |mut line: Line| {
        if line.holder.tag.has(Tag::BLOCKS) {
            line.pool = dma_pool::pool_of(line.address);
        }
        // Whatever else shows its frames to a device.
        if let Some(seen) = buffers::at(line.address) {
            line.dma = seen.start;
        }
        totals.add(&line);
        visit(&line);
    };
    each_direct(&mut show);
    each_of_the_pool(&mut show);
    each_area(&mut show);
    each_declared(&mut show);
    totals
}

fn each_direct(show: &mut impl FnMut(Line)) {
    let mut last = 0;
    while let Some(buffer) = direct::next(last) {
        let direct::Direct { serial, address, physical, bytes, holder, .. } = buffer;
        last = serial;
        let dma = DmaAddr::new(physical.raw());
        show(Line { address, physical, dma, bytes, source: Source::Direct, holder, pool: None });
    }
}

fn each_of_the_pool(show: &mut impl FnMut(Line)) {
    for (number, part) in pool_growth::parts().enumerate() {
        let source = if number == 0 { Source::Atomic } else { Source::Grown };
        let mut page = 0;
        while let Some((run, physical, holder)) = part.next_run(page) {
            page = run.first + run.pages;
            let (address, bytes) = (run.start, run.pages * PAGE_SIZE);
            let dma = DmaAddr::new(physical.raw());
            show(Line { address, physical, dma, bytes, source, holder, pool: None });
        }
    }
}

/// Those that have an area; the memory of the pool has one, too, which is no buffer.
fn each_area(show: &mut impl FnMut(Line)) {
    let kernel = mm::kernel();
    let mut next = Some(kernel.window().start());
    while let Some(listed) = next.and_then(|from| kernel.next_listed(from)) {
        next = listed.next();
        let ListedKind::Live(area) = listed.what else { continue };
        let Some(holder) = area.holder else { continue };
        let (address, physical) = (listed.pages.start(), area.summary.physical);
        if let Some((at, first)) = area.seen {
            let (dma, physical, bytes) = (at.start, first.base(), listed.pages.bytes());
            show(Line {
                address,
                physical,
                dma,
                bytes,
                source: Source::Scattered,
                holder,
                pool: None,
            });
            continue;
        }
        if kernel.zones().table().owner_of(physical.pfn()) != FrameOwner::Dma {
            continue;
        }
        let region = kernel.contiguous().filter(|region| region.contains(physical.pfn()));
        let source = region.map_or(Source::Remap, |_| Source::Contiguous);
        let (dma, bytes) = (DmaAddr::new(physical.raw()), listed.pages.bytes());
        show(Line { address, physical, dma, bytes, source, holder, pool: None });
    }
}

fn each_declared(show: &mut impl FnMut(Line)) {
    let mut from = (0, 0);
    while let Some((serial, taken)) = declared_claims::next(from) {
        let declared::Taken { run, physical, dma, holder } = taken;
        from = (serial, run.first + run.pages);
        let (address, bytes) = (run.start, run.pages * PAGE_SIZE);
        show(Line { address, physical, dma, bytes, source: Source::Declared, holder, pool: None });
    }
}
