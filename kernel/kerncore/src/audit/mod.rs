//! The audit: who stands behind every descriptor?
//!
//! ```text
//!   first level   every slot empty or a table; no table twice; each in a frame of the page tables
//!   linear map    every frame of RAM at its distance, image parts with their own attributes; guards and lent frames absent
//!   window        every entry in one live area, every page of each area mapped, as its kind says; all else absent
//!   heap          exactly the mapped prefix
//!   temporary     each slot that is held, memory in use; no other, and no gap
//!   elsewhere     nothing
//!   books         the window's, the frame table's, and what each owner has against what was found
//! ```
//!
//! It believes nothing that it can read: what an address should hold follows from records and frame owners alone, and is
//! compared with the word in the table. With this, no entry is writable and executable, no frame has two memory
//! types (S97), none is writable through one address and executable through another (S112), and no page table entry
//! is without an owner.
//!
//! It runs when nothing else does: what is being mapped or removed meanwhile would be reported. It takes the
//! lock of areas for one area at a time, allocates nothing, and costs a few steps for each frame of RAM and each
//! slot of a table. It writes to one place only: the `spare` words of the frames of areas, heap and tables, which are
//! its own ([`homes`]).

mod areas;
mod check;
mod devices;
mod homes;
mod large;
mod linear;
mod owners;
mod regions;
mod runs;
mod survey;
mod tables;
mod violation;
mod window;

use core::fmt;

use crate::addr::PageRange;
use crate::area::AreaKind;
use crate::attributes::Attributes;
use crate::kernel_space::KernelSpace;
use crate::lock::Locks;
use crate::machine::Machine;

pub use runs::{Run, for_each_run};
pub use survey::{Survey, ledger, survey};
pub use violation::{Place, Violation};

/// Pages of the kernel's image that the boot stub mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPart {
    /// What it is called.
    pub name: &'static str,
    /// Where it lies in the linear map.
    pub pages: PageRange,
    /// What its entries promise.
    pub attributes: Attributes,
}

/// What should be mapped for good, beside the frames of RAM and the areas.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'e> {
    /// The kernel's image in the linear map, its unmapped guard pages included.
    pub image: PageRange,
    /// The parts of it that are mapped.
    pub parts: &'e [FixedPart],
    /// Pages of RAM in the linear map, outside the image, that are read-only for good.
    pub constants: PageRange,
    /// The addresses of the heap.
    pub heap: PageRange,
    /// How many of the heap's pages are mapped, from the first on.
    pub heap_mapped: u32,
    /// Frames that tables of programs and of devices lie in, of both levels, beside the kernel's own.
    pub space_tables: u32,
}

/// What an audit saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rules broken, each of which was reported.
    pub violations: u32,
    /// Second-level tables of the linear map.
    pub linear_tables: u32,
    /// Second-level tables made on demand.
    pub tables: u32,
    /// Second-level tables that boot code had in the image.
    pub image_tables: u32,
    /// Pages mapped in the linear map.
    pub linear_pages: u32,
    /// Frames that are absent from it because they are lent.
    pub lent_pages: u32,
    /// Live areas of each kind: vmalloc with its page arrays, vmap, ioremap, DMA, bare, `vm_map_ram`, and its blocks.
    pub areas: [u32; 7],
    /// Pages mapped in areas.
    pub area_pages: u32,
    /// Of those, pages of `vmalloc_exec`.
    pub code_pages: u32,
    /// Pages mapped in the heap.
    pub heap_pages: u32,
}

impl Summary {
    /// Live areas of whatever kind.
    pub fn live_areas(&self) -> u32 {
        self.areas.iter().sum()
    }

    fn count_area(&mut self, kind: AreaKind) {
        let index = match kind {
            AreaKind::Vmalloc | AreaKind::PageArray => 0,
            AreaKind::Vmap => 1,
            AreaKind::IoRemap => 2,
            AreaKind::Dma | AreaKind::Scattered => 3,
            AreaKind::Bare => 4,
            AreaKind::MapRam => 5,
            AreaKind::MapRamBlock => 6,
        };
        self.areas[index] += 1;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { violations, linear_pages, lent_pages, area_pages, heap_pages, .. } = self;
        let (areas, tables) = (self.live_areas(), self.tables + self.image_tables);
        let linear_tables = self.linear_tables;
        write!(
            f,
            "{violations} violations; linear map: {linear_pages} pages, {lent_pages} lent; areas: {areas}, {area_pages} \
             pages; heap: {heap_pages} pages; second-level tables: {linear_tables} linear, {tables} other"
        )
    }
}

/// Walks the whole kernel window of `space` and hands `report` every rule that is broken, in no order that means
/// anything.
///
/// Nothing may be mapped, unmapped, allocated or freed meanwhile. `report` is called with locks held: it may print, but ask
/// nothing of `space`. Any context, if that much time is to be had there.
pub fn audit<M: Machine, L: Locks>(
    space: &KernelSpace<'_, M, L>,
    expected: &Expected<'_>,
    report: &mut dyn FnMut(Violation),
) -> Summary {
    let mut audit = Audit { space, expected, report, summary: Summary::default() };
    audit.first_level();
    audit.linear();
    audit.window();
    audit.heap();
    audit.temporary();
    audit.statics();
    audit.elsewhere();
    audit.books();
    audit.summary
}

/// One audit on its way.
struct Audit<'a, 's, M: Machine, L: Locks> {
    space: &'a KernelSpace<'s, M, L>,
    expected: &'a Expected<'a>,
    report: &'a mut dyn FnMut(Violation),
    summary: Summary,
}

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    #[cold]
    fn found(&mut self, violation: Violation) {
        self.summary.violations += 1;
        (self.report)(violation);
    }
}
