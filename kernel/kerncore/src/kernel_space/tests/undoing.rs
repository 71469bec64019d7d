//! What fails half way and gives everything back: where the tables hold what nobody expected.

use super::oddities::overwrite;
use super::*;
use crate::linear_map::LinearFault;
use crate::page_table::MapError;
use crate::slab::Home;

/// The first page of a region that is not the vmalloc window.
fn region() -> OwnedRange {
    OwnedRange::mint(pages(HEAP, 512))
}

fn mapped(space: &Space, offset: u32) -> bool {
    space.table.translate(VirtAddr::new((HEAP + offset) * PAGE_SIZE)).is_some()
}

#[test]
fn a_region_that_meets_an_entry_half_way_is_as_it_was() {
    let (space, mut region) = (space(), region());
    space.extend(&mut region, 0, 1, FrameOwner::Heap).expect("memory and a table");
    space.extend(&mut region, 260, 1, FrameOwner::Heap).expect("memory and a table");
    let census = space.zones.census();
    let refused = space.extend(&mut region, 200, 100, FrameOwner::Heap);
    // Those of the first section were mapped before the second one was looked at.
    assert!(
        matches!(refused, Err(ExtendError::Map(MapError::Occupied { mapped: 56, .. }))),
        "{refused:?}"
    );
    assert_eq!(space.zones.census().pages, census.pages);
    let left: Vec<u32> = (0..512).filter(|&offset| mapped(&space, offset)).collect();
    assert_eq!(left, [0, 260]);
}

#[test]
fn a_region_that_is_full_takes_no_frames() {
    let (space, mut region) = (space(), region());
    let census = space.zones.census();
    let refused = space.extend(&mut region, 511, 2, FrameOwner::Heap);
    assert!(matches!(refused, Err(ExtendError::Map(MapError::DoesNotFit { .. }))), "{refused:?}");
    assert_eq!(space.zones.census().pages, census.pages);
    let wanted = space.zones.free_pages() + 1;
    let refused = space.extend(&mut region, 0, wanted, FrameOwner::Heap);
    assert!(matches!(refused, Err(ExtendError::Frames(_))), "{refused:?}");
    assert_eq!(space.zones.census().pages, census.pages);
}

/// S66, S97: a block that cannot leave the linear map is nobody's again.
#[test]
fn a_block_without_its_linear_entry_is_not_lent_and_comes_back_s66() {
    let space = space();
    let alloc = || space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, VirtAddr::new(0));
    let area = alloc().expect("memory");
    let linear = space.linear.pages_of(area.physical.pfn(), 1).expect("low RAM").start();
    space.coherent_free((), area.pages.start(), PAGE_SIZE).expect("live");
    let (free, counts) = (space.zones.free_pages(), space.area_counts());
    // The frame that came back last is the next.
    overwrite(&space, linear, 0);
    let refused = alloc();
    assert!(
        matches!(refused, Err(CoherentError::Linear(LinearFault::Unexpected { address, found: 0, .. })) if address == linear),
        "{refused:?}"
    );
    assert_eq!((space.zones.free_pages(), space.area_counts()), (free, counts));
}

/// S23: a buffer that cannot go back into the linear map is gone, and its frames stay out of use.
#[test]
fn a_buffer_whose_linear_place_is_taken_keeps_its_frames_out_of_use() {
    let space = space();
    let area = space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, VirtAddr::new(0)).expect("memory");
    let base = area.pages.start();
    let linear = space.linear.pages_of(area.physical.pfn(), 1).expect("low RAM").start();
    overwrite(&space, linear, 0xdead_0000);
    let census = space.zones.census();
    let freed = space.coherent_free((), base, PAGE_SIZE);
    let Err(RemoveError::Frames { address, error: FramesError::Linear(fault) }) = freed else {
        panic!("{freed:?}");
    };
    assert_eq!(address, base);
    assert!(matches!(fault, LinearFault::Unexpected { wanted: 0, found: 0xdead_0000, .. }));
    assert_eq!(space.zones.census(), census);
    assert_eq!(space.find(base), None);
    assert_eq!(space.area_counts().pages_taken, 0, "nothing is mapped at its addresses");
}

/// Two CPUs find no place for a record; the slower one's chunk is one too many.
#[test]
fn a_chunk_that_another_cpu_has_made_meanwhile_goes_back() {
    let space = space();
    let entries = space.areas.with(|areas| areas.records.next_chunk()).expect("the first chunk");
    space.add_records(entries, Home::First).expect("memory");
    let (census, counts) = (space.zones.census().pages, space.area_counts());
    space.add_records(entries, Home::First).expect("memory");
    assert_eq!(space.zones.census().pages, census);
    assert_eq!(space.area_counts(), counts);
}
