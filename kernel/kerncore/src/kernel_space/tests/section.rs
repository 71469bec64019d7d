//! One section, made and ended in one critical section: what must be at hand for that, and that nothing is lost if it is not.

use super::*;
use crate::area::Mapping;
use crate::frames::{FrameOwner, FreeError};
use crate::kernel_space::page_array::address_of;
use crate::kernel_space::{Fill, FramesError, RemoveError};
use std::panic::{AssertUnwindSafe, catch_unwind};

const MIB: u32 = 256 * PAGE_SIZE;
const NOBODY: VirtAddr = VirtAddr::new(0x8001_0000);

fn huge(space: &Space) -> VirtAddr {
    let made = space.vmalloc_huge(MIB, Fill::Uninitialised, NOBODY);
    made.expect("memory").pages.start()
}

fn at_hand(space: &Space) -> Option<VirtAddr> {
    space.vmalloc_section(Fill::Uninitialised, NOBODY).map(|area| area.pages.start())
}

fn vmalloc(space: &Space, count: u32) -> VirtAddr {
    let made = space.vmalloc(count * PAGE_SIZE, Fill::Uninitialised, NOBODY);
    made.expect("memory").pages.start()
}

/// A space in which a section came and went, so that its frames wait, above a living area: no table stands above where the next
/// will be.
fn warm() -> Space {
    let space = space_of(2048, 1024);
    assert_eq!(at_hand(&space), None, "no block waits");
    vmalloc(&space, 100);
    let base = huge(&space);
    assert_eq!(base.raw(), WINDOW * PAGE_SIZE + MIB);
    assert_eq!(space.vfree((), base), Ok(()));
    space
}

/// All words of the array of the area at `base`.
fn words(space: &Space, base: VirtAddr) -> Vec<u32> {
    space.areas.with(|areas| {
        let record = areas.find(base).expect("a live area");
        assert!(matches!(record.mapping, Mapping::Large { .. }));
        assert_eq!(record.vm.nr_pages(), 256);
        let words = space.array_words(&record.array, &record.within);
        words.iter().map(|word| word.load(Relaxed)).collect()
    })
}

/// The frames of the section at `base`, by its descriptor.
fn first_frame(space: &Space, base: VirtAddr) -> Pfn {
    space.table.translate(base).expect("mapped").physical.pfn()
}

/// They are those of all frames, and none is written.
#[test]
fn its_pointers_are_those_to_its_frames_s27_s90() {
    let space = warm();
    let base = at_hand(&space).expect("all is at hand");
    let first = first_frame(&space, base);
    let frames = (first.number()..).take(256).map(|number| Pfn::new(number).expect("RAM"));
    let wanted: Vec<u32> = frames.map(|frame| space.zones.table().pointer_to(frame)).collect();
    assert_eq!(words(&space, base), wanted);
    let all = space.pointers().of(first, 256).expect("all frames have one");
    let shown = space.areas.with(|areas| areas.find(base).expect("a live area").vm.pages());
    assert_eq!(shown, address_of(all).raw());
    finds(&space, &[]);
    assert_eq!(space.vfree((), base), Ok(()));
    finds(&space, &[]);
}

/// Each time round another thing is missing, and all that was taken is back.
#[test]
fn what_is_not_at_hand_is_left_to_the_general_way_and_nothing_is_lost_s28_s29() {
    // No addresses that are aligned.
    let space = warm();
    let free = space.zones.free_pages();
    let base = huge(&space);
    assert_eq!(space.vfree((), base), Ok(()));
    let odd = [300, 400].map(|count| vmalloc(&space, count));
    let last = vmalloc(&space, 200);
    assert_eq!(at_hand(&space), None);
    odd.into_iter().chain([last]).for_each(|base| assert_eq!(space.vfree((), base), Ok(())));
    assert!(free - space.zones.free_pages() <= 1, "a frame for tables, and no more");
    finds(&space, &[]);
    // A table above the addresses that would be taken: the general way has it wait (S24).
    let space = warm();
    let all = vmalloc(&space, 900);
    assert_eq!(space.vfree((), all), Ok(()));
    for _ in 0..2 {
        assert_eq!(at_hand(&space), None);
        let base = huge(&space);
        finds(&space, &[]);
        assert_eq!(space.vfree((), base), Ok(()));
    }
    assert_eq!((space.area_counts().areas, space.area_counts().records), (1, 1));
    finds(&space, &[]);
}

/// S33: more than one section has pointers of its own; whichever of these is null, the area ends with the kernel.
#[test]
fn a_null_among_the_pointers_of_two_sections_is_fatal_s33() {
    for index in [0, 31, 255, 256, 511] {
        let space = space_of(4096, 2048);
        let made = space.vmalloc_huge(2 * MIB, Fill::Uninitialised, NOBODY);
        let base = made.expect("memory").pages.start();
        space.areas.with(|areas| {
            let record = areas.find(base).expect("a live area");
            space.array_words(&record.array, &record.within)[index].store(0, Relaxed);
        });
        let died = catch_unwind(AssertUnwindSafe(|| space.vfree((), base)));
        let said = died.expect_err("fatal").downcast::<String>().expect("in words");
        assert_eq!(*said, format!("vfree: page {index} of the area at {base} is null"));
    }
}

/// Frames that are somebody else's by now are not freed, and are named.
#[test]
fn frames_that_are_not_its_own_any_more_are_named_and_the_area_is_gone() {
    let space = warm();
    let base = at_hand(&space).expect("all is at hand");
    let frame = first_frame(&space, base);
    space.free_frames_at((), frame, 8, FrameOwner::Vmalloc).expect("the area's");
    let gone = space.vfree((), base).expect_err("the frame table disagrees");
    let error = FramesError::Free(FreeError::AlreadyFree { frame });
    assert!(matches!(gone, RemoveError::Frames { error: found, .. } if found == error), "{gone}");
    assert!(space.find(base).is_none());
    assert_eq!((space.area_counts().areas, space.area_counts().records), (1, 1));
}
