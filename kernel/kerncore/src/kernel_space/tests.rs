//! The audit of what only this module can damage: records, and the books of the window. All other damage is done from outside,
//! on SoftMachine.

mod exec;
mod filling;
mod gone;
mod index;
mod oddities;
mod page_array;
mod resized;
mod section;
mod shortage;
mod shown;
mod undoing;
mod world;

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};
use crate::area::{AreaFlags, ArrayArea, VmStruct};
use crate::attributes::Attributes;
use crate::audit::{Expected, Place, Violation, audit};
use crate::frames::{Frame, FrameBlock};
use crate::owned_range::OwnedRange;
use crate::page_table::Removal;
use crate::va_space::Count;
use world::*;
pub(crate) use world::{MutexLock, MutexSlot, Mutexes};

#[track_caller]
fn finds(space: &Space, wanted: &[Violation]) {
    let expected = Expected {
        image: pages(LINEAR, 0),
        parts: &[],
        constants: PageRange::EMPTY,
        heap: pages(HEAP, 16),
        heap_mapped: 0,
        space_tables: 0,
    };
    finds_beside(&expected, space, wanted);
}

#[track_caller]
fn finds_beside(expected: &Expected<'_>, space: &Space, wanted: &[Violation]) {
    let mut found = Vec::new();
    audit(space, expected, &mut |violation| found.push(violation));
    assert_eq!(found, wanted);
}

/// S112: be it one that should be read-only and is not, or the other way round.
#[test]
fn a_page_of_constants_that_can_be_written_is_seen_and_no_other_is_taken_for_one() {
    let mut space = space();
    let ram = |offset| Pfn::new(RAM + offset).expect("below 4 GiB");
    let expected = |first| Expected {
        image: pages(LINEAR, 0),
        parts: &[],
        constants: pages(LINEAR + first, 2),
        heap: pages(HEAP, 16),
        heap_mapped: 0,
        space_tables: 0,
    };
    let wrong = |page: u32, wanted, had| Violation::WrongAttributes {
        address: VirtAddr::new((LINEAR + page) * PAGE_SIZE),
        place: Place::Linear,
        wanted,
        had,
    };
    let (data, constant) = (Attributes::KERNEL_DATA, Attributes::KERNEL_RODATA);
    let writable = [100, 101].map(|page| wrong(page, constant, data));
    finds_beside(&expected(100), &space, &writable);
    space.linear.protect(ram(100), 2).expect("free memory");
    finds_beside(&expected(100), &space, &[]);
    finds(&space, &[100, 101].map(|page| wrong(page, data, constant)));
    let other = [wrong(100, data, constant), wrong(102, constant, data)];
    finds_beside(&expected(101), &space, &other);
}

/// Three pages from vmalloc.
fn an_area(space: &Space) -> VirtAddr {
    let area = space.vmalloc(3 * PAGE_SIZE, Fill::Uninitialised, VirtAddr::new(0)).expect("memory");
    area.pages.start()
}

#[test]
fn a_record_without_an_area_is_seen() {
    let space = space();
    an_area(&space);
    finds(&space, &[]);
    let place = space.areas.with(|areas| areas.records.take());
    let _lost = place.expect("room for 64");
    finds(&space, &[Violation::Records { records: 2, areas: 1 }]);
}

type Damage = fn(&mut AreaRecord);

/// What C callers see of the vmalloc area of `record`, if it were there.
fn descriptor(record: &AreaRecord, address: u32, physical: u32) -> VmStruct {
    let (address, physical) = (VirtAddr::new(address), PhysAddr::new(physical));
    let pointers = (address_of(&record.within), 3);
    let (size, flags) = (4 * PAGE_SIZE, AreaFlags::ALLOC);
    VmStruct::new(address, size, flags, physical, VirtAddr::new(0), pointers)
}

#[test]
fn a_record_that_says_something_else_than_the_area_is_seen_s11_s85a() {
    let space = space();
    let base = an_area(&space);
    finds(&space, &[]);
    let array = space.areas.with(|areas| areas.find(base).expect("live").vm.pages());
    let first = space.zones.table().pointer_to(space.table.small_page(base).expect("mapped"));
    let damages: [(&str, u32, u32, Damage); 8] = [
        ("flags", 2, 0, |record| record.vm.set_flags(AreaFlags::MAP)),
        ("address", base.raw(), 4, |record| record.vm = descriptor(record, 4, 0)),
        ("size", 4 * PAGE_SIZE, 3 * PAGE_SIZE, |record| record.vm.set_size(3 * PAGE_SIZE)),
        ("physical address", 0, 8, |record| {
            record.vm = descriptor(record, record.vm.addr().raw(), 8);
        }),
        ("page array", array, 4, |record| record.vm.set_pages(VirtAddr::new(4), 3)),
        ("page count", 3, 2, |record| {
            record.vm.set_pages(VirtAddr::new(record.vm.pages()), 2);
        }),
        ("vpages", 0, 1, |record| {
            record.vm.set_flags(record.vm.flags().with(AreaFlags::VPAGES));
        }),
        ("page pointer", first, 0, |record| record.within[0].store(0, Relaxed)),
    ];
    for (part, wanted, had, damage) in damages {
        let with_record = |change: &dyn Fn(&mut AreaRecord)| {
            space.areas.with(|areas| {
                change(areas.space.find_mut(base).expect("live"));
            });
        };
        with_record(&damage);
        finds(&space, &[Violation::Record { base, part, wanted, had }]);
        with_record(&|record| record.vm = descriptor(record, base.raw(), 0));
        with_record(&|record| record.within[0].store(first, Relaxed));
        finds(&space, &[]);
    }
}

/// S2: an area takes its pages and its guard.
#[test]
fn the_books_count_what_is_taken() {
    let space = space();
    let before = space.area_counts();
    assert_eq!((before.areas, before.pages_taken, before.largest_hole), (0, 0, 256));
    an_area(&space);
    let counts = space.area_counts();
    assert_eq!((counts.areas, counts.pages_taken, counts.largest_hole), (1, 4, 252));
    assert_eq!((counts.records, counts.record_capacity), (1, 64));
}

/// A vmap's frames need not be contiguous, so its descriptor names none, not even one at the start of a page.
#[test]
fn a_vmaps_record_that_names_a_physical_address_is_seen_s85a() {
    let space = space();
    let frame = space.zones.allocate(0, FrameOwner::Test).expect("free memory");
    let mapped = space.vmap(&[frame.first()], Attributes::KERNEL_DATA, VirtAddr::new(0));
    let base = mapped.expect("addresses").pages.start();
    finds(&space, &[]);
    let had = frame.first().base();
    space.areas.with(|areas| {
        let record = areas.space.find_mut(base).expect("live");
        let (address, none) = (record.vm.addr(), VirtAddr::new(0));
        let (size, flags) = (record.vm.size(), record.vm.flags());
        record.vm = VmStruct::new(address, size, flags, had, none, (none, 0));
    });
    let part = "physical address";
    finds(&space, &[Violation::Record { base, part, wanted: 0, had: had.raw() }]);
}

#[test]
fn books_that_contradict_themselves_are_seen() {
    let space = space();
    an_area(&space);
    space.areas.with(|areas| areas.space.miscount());
    let (what, noted, found) = (Count::Marks, 2, 1);
    finds(&space, &[Violation::Books(CheckError::BadCount { what, noted, found })]);
}

/// The largest window can be filled to its last two pages: addresses run out before records do (S8).
#[test]
fn the_smallest_areas_fill_the_largest_window() {
    let window_pages = 0x3_0000;
    let space = space_of(32 << 8, window_pages);
    let frame = space.zones.allocate(0, FrameOwner::Test).expect("free memory");
    let map = || space.vmap(&[frame.first()], Attributes::KERNEL_DATA, VirtAddr::new(0));
    for area in 0..window_pages / 2 {
        let mapped = map().map(|area| area.pages.first());
        assert_eq!(mapped, Ok(WINDOW + 2 * area));
    }
    assert!(matches!(map(), Err(VmapError::Area(NoArea::Addresses(_)))));
    assert_eq!(space.area_counts().records, window_pages / 2);
}

/// Areas of one page at the window's pages 0, 2 (dying), 4 (dying) and 10, each with its guard.
#[test]
fn a_report_names_the_live_area_next_to_an_address_s113() {
    let space = space();
    let at = |page: u32, offset| VirtAddr::new((WINDOW + page) * PAGE_SIZE + offset);
    let nearest = |address| {
        let area = space.nearest_area(address).expect("nobody holds the lock");
        area.map(|area| area.pages.first() - WINDOW)
    };
    assert_eq!(nearest(at(0, 0)), None);
    let vmalloc = |pages: u32| {
        let made = space.vmalloc(pages * PAGE_SIZE, Fill::Uninitialised, VirtAddr::new(0));
        made.expect("memory").pages.start()
    };
    let [first, dying, also_dying, spacer, last] = [1, 1, 1, 3, 1].map(vmalloc);
    assert_eq!((first, last), (at(0, 0), at(10, 0)));
    space.vfree((), spacer).expect("live");
    space.areas.with(|areas| {
        for base in [dying, also_dying] {
            let _place = areas.space.retire(base).expect("live");
        }
    });
    for (address, wanted) in [
        (at(0, 0), 0),
        (at(0, 4095), 0),
        (at(1, 0), 0),
        (at(1, 4095), 0),
        (at(2, 0), 0),
        (at(5, 4095), 0),
        (at(6, 0), 10),
        (at(9, 4095), 10),
        (at(10, 5), 10),
        (at(11, 4095), 10),
        (at(255, 4095), 10),
        (VirtAddr::new(u32::MAX), 10),
        (VirtAddr::new(WINDOW * PAGE_SIZE - 1), 0),
        (VirtAddr::new(0), 0),
    ] {
        assert_eq!(nearest(address), Some(wanted), "{address}");
    }
    space.areas.with(|_| assert_eq!(space.nearest_area(first), Err(AreasBusy)));
}
