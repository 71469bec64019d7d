//! One section, made and ended in one critical section: what must be at hand for that, and that nothing is lost if it is not.

use super::*;
use crate::area::{Mapping, PageArray};
use crate::frames::{FrameOwner, FreeError, Freed};
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

#[test]
fn its_pointers_are_noted_and_what_is_behind_them_is_zero_s27_s52_s90() {
    let space = warm();
    // Whatever the frame that waits held.
    let record = space.zones.take_waiting(0, FrameOwner::Test).expect("a frame that waits");
    let block = space.zones.table().block_at(record, 0);
    space.support.frame_words(&block).iter().for_each(|word| word.store(u32::MAX, Relaxed));
    assert_eq!(space.zones.give_back_block(block, FrameOwner::Test), Ok(()));
    let base = at_hand(&space).expect("all is at hand");
    let first = first_frame(&space, base).number();
    let pointers = (first..first + 256).map(|number| Pfn::new(number).expect("RAM"));
    let wanted: Vec<u32> = pointers.map(|frame| space.zones.table().pointer_to(frame)).collect();
    assert_eq!(words(&space, base)[..256], wanted);
    assert_eq!(words(&space, base)[256..], [0; 1024 - 256]);
    finds(&space, &[]);
    assert_eq!(space.vfree((), base), Ok(()));
}

/// Each time round another thing is missing, and all that was taken is back.
#[test]
fn what_is_not_at_hand_is_left_to_the_general_way_and_nothing_is_lost_s28_s29() {
    // No frame for the pointers that waits.
    let space = warm();
    let singles: Vec<_> =
        core::iter::from_fn(|| space.zones.take_waiting(0, FrameOwner::Test)).collect();
    assert_eq!(at_hand(&space), None);
    for record in singles {
        let freed = space.zones.give_back_record(record, 0, FrameOwner::Test);
        assert_eq!(freed, Freed::Yes);
    }
    assert!(at_hand(&space).is_some(), "the block waits still");
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

/// S33: whichever pointer is null, the area is not ended at once but with the kernel.
#[test]
fn a_null_among_a_sections_pointers_is_fatal_s33() {
    for index in [0, 31, 100, 255] {
        let space = warm();
        let base = at_hand(&space).expect("all is at hand");
        space.areas.with(|areas| {
            let record = areas.find(base).expect("a live area");
            space.array_words(&record.array, &record.within)[index].store(0, Relaxed);
        });
        let died = catch_unwind(AssertUnwindSafe(|| space.vfree((), base)));
        let said = died.expect_err("fatal").downcast::<String>().expect("in words");
        assert_eq!(*said, format!("vfree: page {index} of the area at {base} is null"));
    }
}

/// Frames that are somebody else's by now are not freed, be they the section's or its pointers', and are named.
#[test]
fn frames_that_are_not_its_own_any_more_are_named_and_the_area_is_gone() {
    for array in [false, true] {
        let space = warm();
        let base = at_hand(&space).expect("all is at hand");
        let frame = if array {
            space.areas.with(|areas| {
                let record = areas.find(base).expect("a live area");
                let PageArray::Frame(block) = &record.array else { panic!("no frame") };
                block.first()
            })
        } else {
            first_frame(&space, base)
        };
        let order = if array { 0 } else { 8 };
        space.free_frames_at((), frame, order, FrameOwner::Vmalloc).expect("the area's");
        let gone = space.vfree((), base).expect_err("the frame table disagrees");
        let error = FramesError::Free(FreeError::AlreadyFree { frame });
        assert!(
            matches!(gone, RemoveError::Frames { error: found, .. } if found == error),
            "{gone}"
        );
        assert!(space.find(base).is_none());
        assert_eq!((space.area_counts().areas, space.area_counts().records), (1, 1));
    }
}
