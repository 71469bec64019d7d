//! Memory of another size (S86): what stays, what moves, what comes back, and that nobody reaches what was given up.

use super::bed::{Bed, CALLER, WINDOW, WINDOW_PAGES, page, pages};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, VirtAddr},
    area::{AreaFlags, AreaKind},
    attributes::Attributes,
    frames::{FrameOwner, FrameRequest},
    kernel_space::{ArrayError, ChangeError, Fill, ReallocError, VmallocError},
};
use machine::{Behaviour, Fault};

const ON: [Behaviour; 3] = [Behaviour::Hoarding, Behaviour::Forgetful, Behaviour::Random(11)];

fn at(base: VirtAddr, number: u32) -> VirtAddr {
    VirtAddr::new(base.raw() + number * PAGE_SIZE)
}

fn resize(bed: &Bed, base: VirtAddr, count: u32) -> Result<VirtAddr, ReallocError> {
    let fill = Fill::Uninitialised;
    let area =
        bed.space.vrealloc((), base, count * PAGE_SIZE - 1, fill, FrameRequest::ANY, CALLER)?;
    assert_eq!(area.pages.count(), count);
    assert_eq!(bed.space.find(area.pages.start()), Some(area));
    Ok(area.pages.start())
}

fn frames(bed: &Bed, base: VirtAddr, count: u32) -> Vec<Pfn> {
    (0..count).map(|number| bed.frame_at(at(base, number))).collect()
}

/// Writes the page's number everywhere, by one CPU.
fn mark(bed: &Bed, base: VirtAddr, count: u32) {
    for number in 0..count {
        bed.machine.cpu(0).store(at(base, number), 100 + number).expect("mapped");
    }
}

/// Which of the pages still have their mark, for the other CPU.
fn marked(bed: &Bed, base: VirtAddr, count: u32) -> bool {
    (0..count).all(|number| bed.machine.cpu(1).load(at(base, number)) == Ok(100 + number))
}

fn is_absent(bed: &Bed, address: VirtAddr) {
    for cpu in 0..2 {
        let reached = bed.machine.cpu(cpu).load(address);
        assert_eq!(reached, Err(Fault::Translation(address)), "CPU {cpu}");
    }
}

#[test]
fn a_shorter_area_stays_where_it_is_and_gives_its_tail_back_s86() {
    for behaviour in ON {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            // Six pages are a block of four and one of two: the cut goes through the first.
            let base = bed.vmalloc(6);
            mark(bed, base, 6);
            assert!(marked(bed, base, 6));
            let before = frames(bed, base, 6);
            let free = bed.space.zones().free_pages();
            assert_eq!(resize(bed, base, 3), Ok(base));
            assert_eq!(frames(bed, base, 3), before[..3]);
            assert!(marked(bed, base, 3));
            (3..6).for_each(|number| is_absent(bed, at(base, number)));
            assert_eq!(bed.space.zones().free_pages(), free + 3);
            for frame in &before[3..] {
                assert_eq!(bed.space.zones().table().owner_of(*frame), FrameOwner::Free);
            }
            bed.clean();
            assert_eq!(bed.vmalloc(1), page(WINDOW + 4), "behind the new guard (S2)");
            assert_eq!(resize(bed, base, 3), Ok(base), "as it is");
            assert_eq!(resize(bed, base, 1), Ok(base));
            assert!(marked(bed, base, 1));
            bed.space.vfree((), page(WINDOW + 4)).expect("a live area");
            bed.space.vfree((), base).expect("a live area");
        });
    }
}

#[test]
fn a_longer_area_takes_the_addresses_behind_it_s86() {
    for behaviour in ON {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let base = bed.vmalloc(3);
            mark(bed, base, 3);
            let before = frames(bed, base, 3);
            is_absent(bed, at(base, 3));
            assert_eq!(resize(bed, base, 5), Ok(base), "over its old guard");
            assert_eq!(frames(bed, base, 3), before);
            assert!(marked(bed, base, 3));
            mark(bed, base, 5);
            assert!(marked(bed, base, 5));
            is_absent(bed, at(base, 5));
            bed.clean();
            // Into a hole that has exactly so much room, and no page more.
            let [gap, fence] = [4, 1].map(|count| bed.vmalloc(count));
            bed.space.vfree((), gap).expect("a live area");
            assert_eq!(resize(bed, base, 10), Ok(base));
            assert!(marked(bed, base, 5));
            bed.clean();
            assert_ne!(resize(bed, base, 11), Ok(base));
            bed.space.vfree((), fence).expect("a live area");
            let moved = page(WINDOW + 13);
            assert_eq!(bed.space.find(base), None);
            bed.space.vfree((), moved).expect("where it went");
        });
    }
}

/// Never by copying: the frames are the same, and nothing reaches them at the old addresses.
#[test]
fn without_room_behind_the_same_frames_move_s86() {
    for behaviour in ON {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let [base, fence] = [3, 1].map(|count| bed.vmalloc(count));
            mark(bed, base, 3);
            assert!(marked(bed, base, 3));
            let before = frames(bed, base, 3);
            let moved = resize(bed, base, 5).expect("memory");
            assert_eq!(moved, page(WINDOW + 6));
            assert_eq!(frames(bed, moved, 3), before);
            assert!(marked(bed, moved, 3));
            (0..4).for_each(|number| is_absent(bed, at(base, number)));
            assert_eq!(bed.space.find(base), None);
            bed.clean();
            assert_eq!(bed.vmalloc(3), base, "its addresses are free");
            for area in [base, fence, moved] {
                bed.space.vfree((), area).expect("a live area");
            }
        });
    }
}

/// What comes on top is zero where that was asked for, and where programs may see it (S31).
#[test]
fn new_pages_are_zero_if_asked_for_or_shown_s31_s86() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let all = bed.starve(0);
        for frame in all.frames(bed.space.zones().table()) {
            bed.machine.device_write(frame.base(), 0xbad);
        }
        bed.feed(all);
        let plain = bed.vmalloc(1);
        let shown = bed.space.vmalloc_user(PAGE_SIZE, CALLER).expect("memory").pages.start();
        let grow = |base, fill| {
            let area = bed
                .space
                .vrealloc((), base, 3 * PAGE_SIZE, fill, FrameRequest::ANY, CALLER)
                .expect("memory");
            let zeros =
                [1, 2].map(|number| bed.machine.cpu(1).load(at(area.pages.start(), number)));
            (area, zeros)
        };
        let (plain, zeros) = grow(plain, Fill::Zeroed);
        assert_eq!(zeros, [Ok(0); 2]);
        let (shown, zeros) = grow(shown, Fill::Uninitialised);
        assert_eq!(zeros, [Ok(0); 2]);
        assert!(shown.flags.contains(AreaFlags::USERMAP), "it is as it was");
        for area in [plain, shown] {
            assert_eq!(area.kind, AreaKind::Vmalloc);
            bed.space.vfree((), area.pages.start()).expect("a live area");
        }
    });
}

/// Each thing that can be missing: frames, a table in place, addresses elsewhere, a table there. The area is as it was.
#[test]
fn what_cannot_grow_stays_as_it_is_s86() {
    let bed = Bed::warm_on(Behaviour::Hoarding);
    bed.gives_back(|bed| {
        let base = bed.vmalloc(3);
        mark(bed, base, 3);
        let before = frames(bed, base, 3);
        let unharmed = || {
            assert_eq!(frames(bed, base, 3), before);
            assert_eq!(bed.space.find(base).map(|area| area.pages), Some(pages(WINDOW, 3)));
            assert!(marked(bed, base, 3));
            is_absent(bed, at(base, 3));
            bed.clean();
        };
        let refused = |count| match resize(bed, base, count) {
            Err(ReallocError::Grow(error)) => error,
            other => panic!("{count} pages: {other:?}"),
        };
        let hunger = bed.starve(4);
        assert!(matches!(refused(8), VmallocError::Frames(_)));
        unharmed();
        bed.feed(hunger);
        // S27: more pointers than the record has room for, and no frame for them.
        let hunger = bed.starve(17 - 3);
        let error = refused(17);
        assert!(matches!(error, VmallocError::PageArray(ArrayError::Frames(_))), "{error}");
        unharmed();
        bed.feed(hunger);
        // The frame that was cut into tables is used up before the last MiB, and there is none to make one more of.
        let wanted = 900;
        let hunger = bed.starve(wanted - 3 + 1);
        let error = refused(wanted);
        assert!(matches!(error, VmallocError::Map(_)), "{error}");
        unharmed();
        let fence = bed.vmalloc(1);
        let error = refused(wanted - 1);
        assert!(matches!(error, VmallocError::Map(_)), "{error}");
        unharmed();
        bed.space.vfree((), fence).expect("a live area");
        bed.feed(hunger);
        let fence = bed.vmalloc(1);
        let error = refused(WINDOW_PAGES - 4);
        assert!(matches!(error, VmallocError::Area(_)), "{error}");
        unharmed();
        bed.space.vfree((), fence).expect("a live area");
        assert!(matches!(refused(0x8_0000), VmallocError::MoreThanMemory { .. }));
        let nothing = bed.space.vrealloc((), base, 0, Fill::Zeroed, FrameRequest::ANY, CALLER);
        assert_eq!(nothing, Err(ReallocError::Grow(VmallocError::ZeroSize)));
        unharmed();
        bed.space.vfree((), base).expect("a live area");
    });
}

#[test]
fn what_is_no_memory_of_vmalloc_is_left_alone_s34_s86() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (list, own) = bed.frames(2);
        let base = bed.vmalloc(2);
        let map = bed.space.vmap(&own, Attributes::KERNEL_DATA, CALLER).expect("addresses");
        let map = map.pages.start();
        let dma = bed.space.coherent_alloc(1, FrameOwner::Dma, CALLER).expect("memory");
        let dma = dma.pages.start();
        let refused = |address, error| {
            assert_eq!(resize(bed, address, 1), Err(ReallocError::Change(error)));
        };
        refused(map, ChangeError::WrongKind { address: map, found: AreaKind::Vmap });
        refused(dma, ChangeError::WrongKind { address: dma, found: AreaKind::Dma });
        let address = at(base, 1);
        refused(address, ChangeError::Unknown { address });
        let address = VirtAddr::new(base.raw() + 8);
        refused(address, ChangeError::Misaligned { address });
        bed.space.vunmap((), map).expect("a live area");
        bed.space.coherent_free((), dma, 1).expect("a live area");
        bed.space.vfree((), base).expect("a live area");
        refused(base, ChangeError::Unknown { address: base });
        bed.feed(list);
    });
}
