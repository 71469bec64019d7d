//! Nothing is left behind when something runs out: frames, addresses, tables, records.

use machine::Behaviour;

use super::bed::{Bed, CALLER, WINDOW, WINDOW_PAGES, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr},
    attributes::Attributes,
    frames::{AllocateError, FrameOwner},
    kernel_space::{CoherentError, Fill, IoRemapError, NoArea, VmallocError, VmapError},
    page_table::{MapError, ReserveError},
};

const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);

/// The first address below the only table of the window that does not come from the first frame of tables: the heap's
/// table and the window's other three fill that.
const LAST_TABLE: u32 = WINDOW + 3 * 256;

/// A bed in which the last table is the next to be made and all addresses up to `free` pages below it are taken.
fn before_the_last_table(free: u32) -> Bed {
    let bed = Bed::on(Behaviour::Hoarding);
    let below = bed.vmalloc(3 * 256 - 1);
    bed.space.vfree((), below).expect("a live area");
    bed.vmalloc(3 * 256 - 1 - free);
    bed
}

fn no_table(mapped: u32) -> MapError {
    MapError::Table { reason: ReserveError::NoTable(page(LAST_TABLE)), mapped }
}

#[test]
fn vmalloc_without_frames_leaves_nothing_s28() {
    let bed = Bed::warm_on(Behaviour::Hoarding);
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
        bed.space.vfree((), just).expect("a live area");
    });
    bed.feed(hoard);
}

#[test]
fn vmalloc_without_a_table_unmaps_what_it_mapped_and_leaves_nothing_s19_s29() {
    let bed = before_the_last_table(2);
    let hoard = bed.starve(4);
    bed.changes_nothing(|bed| {
        let refused = bed.space.vmalloc(4 * PAGE_SIZE, Fill::Uninitialised, CALLER);
        assert_eq!(refused, Err(VmallocError::Map(no_table(2))));
        assert_eq!(bed.space.table().translate(page(LAST_TABLE - 2)), None);
    });
    bed.feed(hoard);
}

#[test]
fn vmap_without_a_table_unmaps_what_it_mapped_and_leaves_nothing_s37() {
    let bed = before_the_last_table(3);
    let (list, frames) = bed.frames(8);
    let hoard = bed.starve(0);
    bed.changes_nothing(|bed| {
        let refused = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER);
        assert_eq!(refused, Err(VmapError::Map(no_table(3))));
    });
    bed.feed(hoard);
    bed.feed(list);
}

#[test]
fn ioremap_without_a_table_leaves_nothing() {
    let bed = before_the_last_table(1);
    let hoard = bed.starve(0);
    bed.changes_nothing(|bed| {
        let refused = bed.space.ioremap(DEVICE, 2 * PAGE_SIZE, Attributes::DEVICE, CALLER);
        assert_eq!(refused, Err(IoRemapError::Map(no_table(0))));
    });
    bed.feed(hoard);
}

#[test]
fn coherent_memory_without_a_table_goes_back_to_the_linear_map_s66_s97() {
    let bed = before_the_last_table(1);
    let block = bed.space.zones().allocate(1, FrameOwner::Test).expect("free frames");
    let hoard = bed.starve(0);
    bed.space.zones().free(block).expect("the test's own");
    bed.changes_nothing(|bed| {
        let refused = bed.space.coherent_alloc(2 * PAGE_SIZE, FrameOwner::Dma, CALLER);
        assert_eq!(refused, Err(CoherentError::Map(no_table(0))));
    });
    bed.feed(hoard);
}

#[test]
fn records_without_frames_leave_nothing_s9() {
    let bed = Bed::on(Behaviour::Hoarding);
    let hoard = bed.starve(0);
    let no_record =
        |error: NoArea| matches!(error, NoArea::Record(AllocateError::Exhausted { .. }));
    bed.changes_nothing(|bed| {
        let refused = bed.space.vmalloc(1, Fill::Uninitialised, CALLER);
        assert!(
            matches!(refused, Err(VmallocError::Area(error)) if no_record(error)),
            "{refused:?}"
        );
        let refused = bed.space.ioremap(DEVICE, 4, Attributes::DEVICE, CALLER);
        assert!(
            matches!(refused, Err(IoRemapError::Area(error)) if no_record(error)),
            "{refused:?}"
        );
    });
    bed.feed(hoard);
}

#[test]
fn coherent_memory_that_runs_out_half_way_goes_back_to_the_linear_map_s66_s97() {
    // Of addresses:
    let bed = Bed::on(Behaviour::Hoarding);
    let all = bed.vmalloc(WINDOW_PAGES - 2);
    bed.changes_nothing(|bed| {
        let refused = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        assert!(matches!(refused, Err(CoherentError::Area(NoArea::Addresses(_)))), "{refused:?}");
    });
    bed.space.vfree((), all).expect("a live area");
    // Of frames:
    let hoard = bed.starve(0);
    bed.changes_nothing(|bed| {
        let refused = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        assert!(matches!(refused, Err(CoherentError::Frames(_))), "{refused:?}");
    });
    bed.feed(hoard);
    // Of records:
    let bed = Bed::on(Behaviour::Hoarding);
    let hoard = bed.starve(1);
    bed.changes_nothing(|bed| {
        let refused = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        assert!(matches!(refused, Err(CoherentError::Area(NoArea::Record(_)))), "{refused:?}");
    });
    bed.feed(hoard);
}
