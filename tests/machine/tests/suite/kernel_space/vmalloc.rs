//! vmalloc and vfree.

use super::bed::{Bed, CALLER, RAM_PAGES, WINDOW, WINDOW_PAGES, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::AreaKind,
    attributes::Attributes,
    frames::FrameOwner,
    kernel_space::{Fill, NoArea, RemoveError, VmallocError},
    ledger::Count,
    va_space::ReserveError,
};
use machine::{Behaviour, Fault, Kind, Privilege};

#[test]
fn an_area_is_mapped_owned_guarded_and_given_back_s2_s16_s33() {
    let bed = Bed::new();
    bed.gives_back(|bed| {
        let area = bed.space.vmalloc(3 * PAGE_SIZE, Fill::Uninitialised, CALLER).expect("memory");
        let base = area.pages.start();
        assert_eq!((base, area.pages.count(), area.kind), (page(WINDOW), 3, AreaKind::Vmalloc));
        assert_eq!(bed.space.find(base), Some(area));
        let cpu = bed.machine.cpu(1);
        for offset in 0..3 {
            let address = page(WINDOW + offset);
            assert_eq!(cpu.store(address, 0x1234_5678 + offset), Ok(()));
            assert_eq!(cpu.load(address), Ok(0x1234_5678 + offset));
            let owner = bed.space.zones().table().owner_of(bed.frame_at(address));
            assert_eq!(owner, FrameOwner::Vmalloc);
            let attributes = bed.space.table().translate(address).map(|entry| entry.attributes());
            assert_eq!(attributes, Some(Ok(Attributes::KERNEL_DATA)));
        }
        let guard = page(WINDOW + 3);
        assert_eq!(cpu.load(guard), Err(Fault::Translation(guard)));
        let summary = bed.clean();
        assert_eq!((summary.areas, summary.area_pages), ([1, 0, 0, 0, 0, 0, 0], 3));
        assert_eq!(bed.space.vfree((), base), Ok(()));
        assert_eq!(bed.space.find(base), None);
        assert_eq!(cpu.load(base), Err(Fault::Translation(base)));
    });
}

#[test]
fn a_second_cycle_at_the_same_address_takes_no_memory_s24() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let base = bed.vmalloc(5);
        bed.space.vfree((), base).expect("a live area");
    });
}

#[test]
fn zeroed_memory_is_zero_whatever_the_frames_held() {
    for behaviour in Behaviour::all(4) {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let cpu = bed.machine.cpu(0);
            let dirty = bed.vmalloc(2);
            for offset in [0, 0x3c, 0xffc, 0x1000, 0x1ffc] {
                cpu.store(VirtAddr::new(dirty.raw() + offset), 0xdead_beef).expect("mapped");
            }
            bed.space.vfree((), dirty).expect("a live area");
            let area = bed.space.vmalloc(2 * PAGE_SIZE, Fill::Zeroed, CALLER).expect("memory");
            for offset in [0, 0x3c, 0xffc, 0x1000, 0x1ffc] {
                let address = VirtAddr::new(area.pages.start().raw() + offset);
                assert_eq!(cpu.load(address), Ok(0), "{address} on {behaviour:?}");
            }
            bed.space.vfree((), area.pages.start()).expect("a live area");
        });
    }
}

#[test]
fn sizes_are_rounded_up_to_pages_and_impossible_ones_refused_s3_s26() {
    let bed = Bed::warm();
    for (bytes, count) in [(1, 1), (0xfff, 1), (0x1000, 1), (0x1001, 2), (0x12_345, 0x13)] {
        bed.changes_nothing(|bed| {
            let area = bed.space.vmalloc(bytes, Fill::Uninitialised, CALLER).expect("memory");
            assert_eq!(area.pages.count(), count, "{bytes:#x} bytes");
            assert_eq!(area.bytes_with_guard(), (count + 1) * PAGE_SIZE);
            bed.space.vfree((), area.pages.start()).expect("a live area");
        });
    }
    bed.changes_nothing(|bed| {
        let refused = |bytes| bed.space.vmalloc(bytes, Fill::Uninitialised, CALLER).expect_err("");
        assert_eq!(refused(0), VmallocError::ZeroSize);
        for bytes in [RAM_PAGES * PAGE_SIZE + 1, 0xffff_f000, 0xffff_f001, u32::MAX] {
            let wanted = bytes.div_ceil(PAGE_SIZE);
            assert_eq!(refused(bytes), VmallocError::MoreThanMemory { wanted, total: RAM_PAGES });
        }
        // As much as RAM is not more than RAM: it is the window that has no room for it.
        let all = refused(RAM_PAGES * PAGE_SIZE);
        assert!(matches!(all, VmallocError::Area(NoArea::Addresses(_))), "{all:?}");
    });
}

#[test]
fn what_does_not_fit_the_window_is_refused_and_what_just_fits_is_not_s7() {
    let bed = Bed::new();
    bed.gives_back(|bed| {
        let all = bed.vmalloc(WINDOW_PAGES - 1);
        assert_eq!(all, page(WINDOW));
        assert_eq!(bed.count(Count::ReservedPages), WINDOW_PAGES);
        let next = bed.space.vmalloc(1, Fill::Uninitialised, CALLER);
        let full = ReserveError::NoSpace { wanted: 2, order: 0, largest_hole: 0 };
        assert_eq!(next, Err(VmallocError::Area(NoArea::Addresses(full))));
        bed.clean();
        bed.space.vfree((), all).expect("a live area");
    });
    bed.changes_nothing(|bed| {
        let whole = bed.space.vmalloc(WINDOW_PAGES * PAGE_SIZE, Fill::Uninitialised, CALLER);
        assert!(
            matches!(whole, Err(VmallocError::Area(NoArea::Addresses(_)))),
            "no guard: {whole:?}"
        );
    });
}

#[test]
fn areas_across_tables_and_in_any_order_are_given_back_s16() {
    let bed = Bed::new();
    bed.gives_back(|bed| {
        let bases: Vec<VirtAddr> = [200, 1, 120, 3, 256, 17].map(|count| bed.vmalloc(count)).into();
        let summary = bed.clean();
        assert_eq!((summary.live_areas(), summary.area_pages), (6, 597));
        for index in [2, 0, 5, 1, 4, 3] {
            bed.space.vfree((), bases[index]).expect("a live area");
            bed.clean();
        }
    });
}

#[test]
fn vfree_refuses_what_is_no_area_and_changes_nothing_s32() {
    let bed = Bed::warm();
    let base = bed.vmalloc(3);
    bed.changes_nothing(|bed| {
        let misaligned = VirtAddr::new(base.raw() + 4);
        assert_eq!(
            bed.space.vfree((), misaligned),
            Err(RemoveError::Misaligned { address: misaligned })
        );
        let inside = VirtAddr::new(base.raw() + PAGE_SIZE);
        let guard = VirtAddr::new(base.raw() + 3 * PAGE_SIZE);
        for address in [inside, guard, page(WINDOW + 100), page(0x8_0100), page(0), page(0xf_ffff)]
        {
            assert_eq!(bed.space.vfree((), address), Err(RemoveError::Unknown { address }));
        }
    });
    bed.space.vfree((), base).expect("a live area");
    bed.changes_nothing(|bed| {
        let twice = bed.space.vfree((), base);
        assert_eq!(twice, Err(RemoveError::Unknown { address: base }), "a double free");
    });
}

#[test]
fn no_stale_translation_reaches_a_frame_that_has_another_owner_s23() {
    for behaviour in Behaviour::all(8) {
        let bed = Bed::warm_on(behaviour);
        let old = bed.vmalloc(2);
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            for address in [old, VirtAddr::new(old.raw() + PAGE_SIZE)] {
                cpu.load(address).expect("mapped: both CPUs have it in their TLBs now");
            }
        }
        bed.space.vfree((), old).expect("a live area");
        // The frames go to somebody else; the addresses stay unused.
        let (list, _) = bed.frames(2);
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            for kind in [Kind::Read, Kind::Write] {
                let stale = cpu.access(old, kind, Privilege::Kernel);
                assert_eq!(stale, Err(Fault::Translation(old)), "{behaviour:?}");
            }
        }
        bed.feed(list);
        // And the addresses lead to new frames at once, on every CPU.
        let (list, _) = bed.frames(7);
        let new = bed.vmalloc(2);
        assert_eq!(new, old);
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            let reached = cpu.access(new, Kind::Read, Privilege::Kernel).map(PhysAddr::pfn);
            assert_eq!(reached, Ok(bed.frame_at(new)), "{behaviour:?}");
        }
        bed.feed(list);
        bed.space.vfree((), new).expect("a live area");
        bed.clean();
    }
}
