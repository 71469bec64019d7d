//! The memory map as it really is: read from the tables, not from what was meant.

use core::fmt;

use boot::layout::Part;
use kerncore::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr};
use kerncore::area::AreaKind;
use kerncore::audit::{Run, for_each_run};
use kerncore::frames::{FrameOwner, ZoneKind};
use kerncore::layout::{STATIC_START, TEMPORARY_START, linear_physical};
use kerncore::zones::{Nodes, ZoneSummary};

use crate::{audit, kernel};

/// What addresses are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// A part of the kernel's image.
    Image(&'static str),
    /// Other RAM.
    Linear,
    /// A live area.
    Area(AreaKind),
    /// The vmalloc window, where no live area is: a mapping that should not be.
    NoArea,
    /// The global allocator's heap.
    Heap,
    /// Static board mappings.
    Static,
    /// Temporary mappings.
    Temporary,
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(part) => write!(f, "kernel {part}"),
            Self::Linear => f.write_str("linear map"),
            Self::Area(kind) => kind.fmt(f),
            Self::NoArea => f.write_str("no area"),
            Self::Heap => f.write_str("heap"),
            Self::Static => f.write_str("static"),
            Self::Temporary => f.write_str("temporary"),
        }
    }
}

/// Addresses of one region that are mapped one after the other to memory that lies one after the other, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The addresses, and what the tables say of them.
    pub run: Run,
    /// What they are for.
    pub region: Region,
}

/// `start-end size -> physical rights type region`, one line.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.run.pages();
        write!(f, "{pages} {:>8} KiB", pages.bytes() >> 10)?;
        match self.run {
            Run::Mapped { physical, size, attributes, .. } => {
                let entry = size.bytes() >> 10;
                write!(f, " -> {physical} {attributes}, {entry} KiB pages")?;
            }
            Run::Bad { descriptor, .. } => write!(f, " {descriptor}")?,
        }
        write!(f, "  {}", self.region)
    }
}

/// Shows every run of the kernel's half of the address space to `visit`, in order. What is mapped or unmapped meanwhile may be
/// shown or not. Allocates nothing; any context.
pub fn for_each_line(mut visit: impl FnMut(&Line)) {
    let kernel = kernel();
    let parts = boot::layout::parts();
    let table = kernel.table();
    let border = |pages: PageRange| begins_region(pages.first(), &parts);
    for_each_run(table, table.window(), border, |run| {
        visit(&Line { run, region: region_of(run.pages().start(), &parts) });
    });
}

/// High memory of one node: RAM that no line shows, as it has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighMemory(ZoneSummary);

impl HighMemory {
    /// Its frames, by the first and how many.
    pub const fn frames(&self) -> (Pfn, u32) {
        (self.0.first, self.0.pages)
    }
}

/// As of a [`Line`], without addresses.
impl fmt::Display for HighMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ZoneSummary { node, first, pages, .. } = self.0;
        let (size, physical) = (pages * (PAGE_SIZE >> 10), first.base());
        write!(
            f,
            "{:<21} {size:>8} KiB -> {physical} mapped on demand  high memory",
            "no addresses"
        )?;
        match kernel().zones().nodes() {
            Nodes::One => Ok(()),
            Nodes::Two => write!(f, ", {node}"),
        }
    }
}

/// Shows the high memory of every node to `visit`, if there is any. Any context.
pub fn for_each_high(mut visit: impl FnMut(&HighMemory)) {
    kernel().zones().for_each_zone(|zone| {
        if zone.kind == ZoneKind::High {
            visit(&HighMemory(zone));
        }
    });
}

/// Whether a region begins with this page. Asked of every page that continues a run, so the image, where it takes some
/// looking, comes last.
fn begins_region(page: u32, parts: &[Part]) -> bool {
    let image = boot::layout::image();
    let regions = [
        kernel().linear().window().end(),
        audit::heap_region().first(),
        STATIC_START.page_number(),
        TEMPORARY_START.page_number(),
    ];
    let region = |page: u32| region_of(VirtAddr::new(page * PAGE_SIZE), parts);
    let near_image = page >= image.first() && page <= image.end();
    regions.contains(&page) || near_image && region(page) != region(page - 1)
}

fn region_of(address: VirtAddr, parts: &[Part]) -> Region {
    if let Some(part) = parts.iter().find(|part| part.pages.contains(address))
        && is_image(address)
    {
        Region::Image(part.name)
    } else if kernel().linear().window().contains(address) {
        Region::Linear
    } else if audit::heap_region().contains(address) {
        Region::Heap
    } else if address >= TEMPORARY_START {
        Region::Temporary
    } else if address >= STATIC_START {
        Region::Static
    } else {
        kernel().find_containing(address).map_or(Region::NoArea, |area| Region::Area(area.kind))
    }
}

/// Whether the frame at this linear address still is the image's: those of tables that RAM did not need were given to the
/// allocator.
fn is_image(address: VirtAddr) -> bool {
    let owner = |physical: PhysAddr| kernel().zones().table().owner_of(physical.pfn());
    linear_physical(address).map(owner) == Some(FrameOwner::KernelImage)
}
