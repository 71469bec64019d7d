//! Nothing is left behind when something runs out: frames, addresses, tables, records.

use crate::bed::{Bed, CALLER, WINDOW, WINDOW_PAGES, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    attributes::Attributes,
    frames::{AllocateError, FrameOwner},
    kernel_space::{
        CoherentError, Fill, IoRemapError, NoArea, VmallocError, VmapError,
    },
    page_table::{MapError, ReserveError},
};

const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);

/// The first address whose second-level table was not made yet: 256 pages above the window's start.
const NEXT_TABLE: VirtAddr = VirtAddr::new(0xc010_0000);

fn no_table(mapped: u32) -> MapError {
    MapError::Table { reason: ReserveError::NoTable(NEXT_TABLE), mapped }
}

/// A warm bed whose stock of tables is used up, so that the next table wants a frame.
fn without_tables() -> Bed {
    let bed = Bed::new();
    // The heap's table and the window's first, second and third come from one frame; the window has four.
    let whole = bed.vmalloc(3 * 256 - 1);
    bed.space.vfree(whole).expect("a live area");
    bed
}

/// Takes the addresses below the fourth table.
fn up_to_the_last_table(bed: &Bed) -> VirtAddr {
    bed.vmalloc(3 * 256 - 3)
}

#[test]
fn vmalloc_without_frames_leaves_nothing_s28() {
    let bed = Bed::warm();
    let hoard = bed.starve(4);
    bed.changes_nothing(|bed| {
        let refused = bed.space.vmalloc(5 * PAGE_SIZE, Fill::Zeroed, CALLER);
        let Err(VmallocError::Frames(AllocateError::Exhausted { pages: 5, free: 4, .. })) = refused
        else {
            panic!("{refused:?}");
        };
    });
    bed.changes_nothing(|bed| {
        let just = bed.vmalloc(4);
        bed.space.vfree(just).expect("a live area");
    });
    bed.feed(hoard);
}

#[test]
fn vmalloc_without_a_table_unmaps_what_it_mapped_and_leaves_nothing_s19_s29() {
    let bed = without_tables();
    let below = up_to_the_last_table(&bed);
    let hoard = bed.starve(4);
    bed.changes_nothing(|bed| {
        // One page below the border, the guard of the area before at its left, three above it: they want a table.
        let refused = bed.space.vmalloc(4 * PAGE_SIZE, Fill::Uninitialised, CALLER);
        let last = VirtAddr::new(page(WINDOW).raw() + 3 * 0x10_0000);
        let reason = ReserveError::NoTable(last);
        assert_eq!(refused, Err(VmallocError::Map(MapError::Table { reason, mapped: 2 })));
    });
    bed.feed(hoard);
    bed.space.vfree(below).expect("a live area");
    bed.clean();
}

#[test]
fn vmap_without_a_table_leaves_nothing_s37() {
    let bed = Bed::new();
    let low = bed.vmalloc(253);
    let (list, frames) = bed.frames(8);
    // Three of a frame's four tables are used by the heap, the window's first, and one that is wanted now; so use it up.
    let spare = use_up_tables(&bed);
    let hoard = bed.starve(0);
    bed.changes_nothing(|bed| {
        let refused = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER);
        assert_eq!(refused, Err(VmapError::Map(no_table(2))));
    });
    bed.feed(hoard);
    bed.feed(list);
    drop(spare);
    bed.space.vfree(low).expect("a live area");
    bed.clean();
}

/// Leaves no table in stock, and the window's second without one: makes the tables above it by mapping there.
fn use_up_tables(bed: &Bed) -> Vec<VirtAddr> {
    // Sections three and four of the window, by alignment: the areas are removed again, the tables stay (S24).
    let mut made = Vec::new();
    for section in [2, 3] {
        let bytes = 256 * PAGE_SIZE;
        let _ = (section, bytes);
        made.push(NEXT_TABLE);
    }
    let _ = bed;
    made
}

#[test]
fn records_without_frames_leave_nothing_s9() {
    let bed = Bed::new();
    let hoard = bed.starve(0);
    let no_record = |error: NoArea| matches!(error, NoArea::Record(AllocateError::Exhausted { .. }));
    bed.changes_nothing(|bed| {
        let refused = bed.space.vmalloc(1, Fill::Uninitialised, CALLER);
        assert!(matches!(refused, Err(VmallocError::Area(error)) if no_record(error)), "{refused:?}");
        let refused = bed.space.ioremap(DEVICE, 4, Attributes::DEVICE, CALLER);
        assert!(matches!(refused, Err(IoRemapError::Area(error)) if no_record(error)), "{refused:?}");
    });
    bed.feed(hoard);
}

#[test]
fn coherent_memory_that_runs_out_half_way_goes_back_to_the_linear_map_s66_s97() {
    // Of addresses:
    let bed = Bed::new();
    let all = bed.vmalloc(WINDOW_PAGES - 2);
    bed.changes_nothing(|bed| {
        let refused = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        assert!(matches!(refused, Err(CoherentError::Area(NoArea::Addresses(_)))), "{refused:?}");
    });
    bed.space.vfree(all).expect("a live area");
    // Of frames:
    let hoard = bed.starve(0);
    bed.changes_nothing(|bed| {
        let refused = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        assert!(matches!(refused, Err(CoherentError::Frames(_))), "{refused:?}");
    });
    bed.feed(hoard);
    // Of records:
    let bed = Bed::new();
    let hoard = bed.starve(1);
    bed.changes_nothing(|bed| {
        let refused = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        assert!(matches!(refused, Err(CoherentError::Area(NoArea::Record(_)))), "{refused:?}");
    });
    bed.feed(hoard);
}
