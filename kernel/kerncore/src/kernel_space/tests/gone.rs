//! Before memory or a mapping of it goes, whoever looks for held locks in it is told where it lies (S36).

use super::*;
use crate::frames::{FrameList, FrameRequest};
use crate::kernel_space::Fill;

fn nobody() -> VirtAddr {
    VirtAddr::new(0)
}

fn vmalloc(space: &Space, count: u32) -> VirtAddr {
    let area = space.vmalloc(count * PAGE_SIZE, Fill::Uninitialised, nobody());
    area.expect("memory").pages.start()
}

fn vmap(space: &Space, list: &FrameList) -> VirtAddr {
    let frames: Vec<_> = list.frames(space.zones.table()).collect();
    let area = space.vmap(&frames, Attributes::KERNEL_DATA, nobody());
    area.expect("addresses").pages.start()
}

/// What `end` says of `count` pages from page `first` of the area at `base`, once, and first of all.
#[track_caller]
fn tells(base: VirtAddr, (first, count): (u32, u32), end: impl FnOnce()) {
    GOING.take();
    end();
    let going = GOING.take();
    let start = base.checked_add(first * PAGE_SIZE).expect("inside");
    assert_eq!(going.first(), Some(&(start, count * PAGE_SIZE)), "{going:?}");
}

#[test]
fn all_that_goes_is_looked_through_for_held_locks_s36() {
    let space = space();
    for count in [1, 16, 17, 60] {
        let base = vmalloc(&space, count);
        tells(base, (0, count), || space.vfree((), base).expect("live"));
        let base = vmalloc(&space, count);
        tells(base, (0, count), || space.vfree_atomic((), base).expect("live"));
        space.free_deferred();
        let list = space.zones.allocate_list(count, FrameOwner::Pages).expect("frames");
        let base = vmap(&space, &list);
        tells(base, (0, count), || space.vunmap((), base).expect("live"));
        space.zones.free_list(list).expect("ours");
    }
    let huge = space.vmalloc_huge(16 * PAGE_SIZE, Fill::Uninitialised, nobody());
    let base = huge.expect("memory").pages.start();
    tells(base, (0, 16), || space.vfree((), base).expect("live"));
    let buffer = space.coherent_alloc(2 * PAGE_SIZE, FrameOwner::Dma, nobody());
    let base = buffer.expect("memory").pages.start();
    tells(base, (0, 2), || {
        space.coherent_free((), base, 2 * PAGE_SIZE).expect("live");
    });
}

/// S86: of memory that becomes shorter, its tail.
#[test]
fn what_a_shorter_area_gives_up_is_looked_through_for_held_locks_s36_s86() {
    let space = space();
    let base = vmalloc(&space, 20);
    tells(base, (7, 13), || {
        let (bytes, any) = (7 * PAGE_SIZE, FrameRequest::ANY);
        space.vrealloc((), base, bytes, Fill::Uninitialised, any, nobody()).expect("live");
    });
}
