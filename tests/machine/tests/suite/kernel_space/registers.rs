//! ioremap of what fills large entries: supersections, sections, large pages, and small pages behind them (S4, S17, S19, S22 to
//! S24, S94, S96).

use super::bed::{Bed, CALLER, frame, l1_slot, page};
use histories::bed::{Furniture, LowMemory, WINDOW, WINDOW_PAGES};
use kerncore::{
    addr::{PAGE_SIZE, PAGES_PER_SECTION, PAGES_PER_SUPERSECTION, PhysAddr, VirtAddr, pages_for},
    attributes::Attributes,
    descriptor::PageSize::{self, Large, Section, Small, Supersection},
    kernel_space::{IoRemapError, RemoveError},
    machine::Machine,
    page_table::MapError,
};
use machine::{Behaviour, Fault, Kind, Privilege};

/// A border of everything.
const DEVICE: u32 = 0x4000_0000;
const MIB: u32 = 1 << 20;
/// What the wide window has.
const WIDE: u32 = 64 << 8;

/// A bed with room for supersections.
fn wide(behaviour: Behaviour) -> Bed {
    let furniture = Furniture { window_pages: WIDE, ..Furniture::with(LowMemory::All) };
    let bed = Bed::furnished(behaviour, furniture, |machine| machine.cpu(0));
    bed.warm_up();
    bed
}

fn try_map(bed: &Bed, physical: u32, bytes: u32) -> Result<VirtAddr, IoRemapError> {
    bed.space.ioremap(PhysAddr::new(physical), bytes, Attributes::DEVICE, CALLER)
}

#[track_caller]
fn map(bed: &Bed, physical: u32, bytes: u32) -> VirtAddr {
    try_map(bed, physical, bytes).unwrap_or_else(|error| panic!("{bytes:#x}: {error}"))
}

/// The sizes by which the pages from `base` on are mapped, each as often as it serves one after the other.
fn sizes(bed: &Bed, base: VirtAddr, pages: u32) -> Vec<(PageSize, u32)> {
    let mut sizes: Vec<(PageSize, u32)> = Vec::new();
    for number in 0..pages {
        let found = bed.space.table().translate(page(base.page_number() + number));
        let found = found.expect("mapped");
        assert_eq!(found.attributes(), Ok(Attributes::DEVICE), "page {number}");
        let size = found.size;
        match sizes.last_mut() {
            Some((last, count)) if *last == size => *count += 1,
            _ => sizes.push((size, 1)),
        }
    }
    sizes
}

/// The sizes by which pages are mapped, each as often as it serves one after the other.
type Sizes = &'static [(PageSize, u32)];

/// Physical address, bytes, and the entries that serve them, in pages.
const CASES: [(u32, u32, Sizes); 12] = [
    (DEVICE, 16 * MIB, &[(Supersection, 4096)]),
    (DEVICE, 16 * MIB + 1, &[(Supersection, 4096), (Small, 1)]),
    (DEVICE, MIB, &[(Section, 256)]),
    (DEVICE, MIB + 0x1000, &[(Section, 256), (Small, 1)]),
    (DEVICE + MIB, 16 * MIB, &[(Section, 4096)]),
    (DEVICE, 17 * MIB + 0x1_1000, &[(Supersection, 4096), (Section, 256), (Large, 16), (Small, 1)]),
    (DEVICE + 0x1_0000, MIB + 0x2000, &[(Large, 256), (Small, 2)]),
    (DEVICE, 0x1_0000, &[(Large, 16)]),
    // The start decides, and the last byte is counted from there.
    (DEVICE + 0xffc, MIB, &[(Section, 256), (Small, 1)]),
    (DEVICE + 0x1000, MIB, &[(Small, 256)]),
    (DEVICE + 0x1234, 0x2_0000, &[(Small, 33)]),
    (DEVICE + 4, 32 * MIB - 4, &[(Supersection, 8192)]),
];

/// S94, S96, S23: by as few entries as there can be, to the last byte, on every CPU, and gone with them; with tables below it for
/// the first time, or without.
#[test]
fn registers_are_mapped_by_the_largest_entries_and_no_tlb_remembers_them_s23_s24_s96() {
    for behaviour in Behaviour::all(1) {
        for tables in [0, WIDE - 1] {
            let bed = wide(behaviour);
            if tables != 0 {
                // Everywhere in the window a table is left behind.
                let far = try_map(&bed, DEVICE + 0x1000, (tables - 1) * PAGE_SIZE);
                bed.space.iounmap((), far.expect("all of the window")).expect("a live area");
            }
            let made = bed.space.table_memory().tables_made();
            for (physical, bytes, wanted) in CASES {
                bed.gives_back(|bed| {
                    // So that it is not the window's beginning that is aligned.
                    let below = map(bed, DEVICE, 1);
                    let address = map(bed, physical, bytes);
                    let offset = physical % PAGE_SIZE;
                    assert_eq!(address.page_offset(), offset);
                    let pages = pages_for(offset + bytes);
                    let (start, end) = (address.page_base(), address.page_number() + pages);
                    // The lowest place that S4 allows, behind the other and its guard.
                    let order = pages.next_power_of_two().min(PAGES_PER_SUPERSECTION);
                    let lowest = (below.page_number() + 2).next_multiple_of(order);
                    assert_eq!(start, page(lowest), "{bytes:#x} at {physical:#x}");
                    assert_eq!(sizes(bed, start, pages), wanted, "{bytes:#x} at {physical:#x}");
                    let guard = Err(Fault::Translation(page(end)));
                    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                        for byte in [0, bytes / 2, bytes - 1] {
                            let at = VirtAddr::new(address.raw() + byte);
                            let led = cpu.access(at, Kind::Write, Privilege::Kernel);
                            assert_eq!(led, Ok(PhysAddr::new(physical + byte)), "{behaviour:?}");
                            let run = cpu.access(at, Kind::Execute, Privilege::Kernel);
                            assert_eq!(run, Err(Fault::Permission(at)));
                        }
                        assert_eq!(cpu.access(page(end), Kind::Read, Privilege::Kernel), guard);
                    }
                    assert_eq!(bed.clean().areas, [0, 0, 2, 0, 0, 0, 0]);
                    // By its base it ends in one go, if it can; by any other address never.
                    let inside = VirtAddr::new(address.raw() + bytes - 1);
                    let by = if behaviour == Behaviour::Hoarding { inside } else { address };
                    assert_eq!(bed.space.iounmap((), by), Ok(()));
                    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                        for byte in [0, bytes / 2, bytes - 1] {
                            let at = VirtAddr::new(address.raw() + byte);
                            let led = cpu.access(at, Kind::Read, Privilege::Kernel);
                            assert_eq!(led, Err(Fault::Translation(at)), "{behaviour:?}");
                        }
                    }
                    let again = bed.space.iounmap((), inside);
                    assert_eq!(again, Err(RemoveError::Unknown { address: inside }));
                    bed.space.iounmap((), below).expect("a live area");
                });
            }
            let more = bed.space.table_memory().tables_made() - made;
            assert!(tables == 0 || more == 0, "{more} tables anew, where all were there (S24)");
        }
    }
}

/// S24: what a supersection displaced serves small pages again, empty as it was.
#[test]
fn tables_under_a_supersection_return_to_their_slots_s24() {
    let bed = wide(Behaviour::Hoarding);
    let whole = map(&bed, DEVICE + 0x1000, (WIDE - 2) * PAGE_SIZE);
    bed.space.iounmap((), whole).expect("a live area");
    let slots = || -> Vec<u32> {
        let slot = |mib: u32| bed.machine.cpu(0).read_descriptor(l1_slot(page(WINDOW + mib * 256)));
        (0..64).map(slot).collect()
    };
    let mut before = slots();
    let address = map(&bed, DEVICE, 16 * MIB);
    bed.clean();
    let first = (address.page_number() - WINDOW) / PAGES_PER_SECTION;
    assert!(slots()[first as usize..][..16].iter().all(|&word| word == DEVICE | 0x4_0416));
    bed.space.iounmap((), address).expect("a live area");
    // They are all alike, so any may return to any.
    let mut after = slots();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(after, before);
    let small = map(&bed, DEVICE + 0x1000, 17 * MIB);
    assert_eq!(sizes(&bed, small, 17 << 8), [(Small, 17 << 8)]);
    bed.clean();
    bed.space.iounmap((), small).expect("a live area");
}

/// S17, S19: whatever is in the way is named and stays, and of what was mapped before it nothing does.
#[test]
fn a_slot_in_use_under_large_registers_is_named_and_stays_s17_s19() {
    const STRANGER: u32 = 0x6011_141e;
    // Of two supersections, two sections, two large pages and two small ones, at the window's first border of 16 MiB.
    let bytes = 34 * MIB + 0x2_2000;
    let places = [0, 15, 16, 31, 32, 33].map(|mib| mib * PAGES_PER_SECTION);
    for place in places {
        let bed = wide(Behaviour::Hoarding);
        let slot = l1_slot(page(WINDOW + place));
        let before = bed.poke(slot, STRANGER);
        let mapped = match place / PAGES_PER_SUPERSECTION {
            2 => place,
            whole => whole * PAGES_PER_SUPERSECTION,
        };
        let refused =
            MapError::Occupied { address: page(WINDOW + place), descriptor: STRANGER, mapped };
        assert_eq!(try_map(&bed, DEVICE, bytes), Err(IoRemapError::Map(refused)));
        assert_eq!(bed.poke(slot, before), STRANGER);
        assert_eq!(bed.space.area_counts().areas, 0);
        bed.clean();
    }
    // And below a table.
    for place in [5, 4096 + 300, 34 * 256 + 7, 34 * 256 + 33] {
        let bed = wide(Behaviour::Hoarding);
        let far = map(&bed, DEVICE + 0x1000, (WIDE - 2) * PAGE_SIZE);
        bed.space.iounmap((), far).expect("a live area");
        let before = bed.poke_page(page(WINDOW + place), frame(0x4_0000), Attributes::DEVICE);
        let refused = try_map(&bed, DEVICE, bytes);
        let found = match refused {
            Err(IoRemapError::Map(MapError::Occupied { address, .. })) => Some(address),
            _ => None,
        };
        assert_eq!(found, Some(page(WINDOW + place)), "{refused:?}");
        bed.poke(bed.l2_slot(page(WINDOW + place)), before);
        assert_eq!(bed.space.area_counts().areas, 0);
        bed.clean();
    }
}

/// S4: 16 MiB are had at a border of 16 MiB or not at all, by both answers of the window.
#[test]
fn a_window_without_an_aligned_place_is_full_for_large_registers_s4_s8() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let refused = try_map(bed, DEVICE, WINDOW_PAGES * PAGE_SIZE);
        assert!(matches!(refused, Err(IoRemapError::Area(_))), "{refused:?}");
    });
    let bed = wide(Behaviour::Forgetful);
    let below = map(&bed, DEVICE, 1);
    let (one, two) = (map(&bed, DEVICE, 16 * MIB - 0x1000), map(&bed, DEVICE, 15 * MIB));
    assert_eq!((one.raw(), two.raw()), (0xc100_0000, 0xc200_0000));
    let refused = try_map(&bed, DEVICE, 16 * MIB);
    assert!(matches!(refused, Err(IoRemapError::Area(_))), "{refused:?}");
    for address in [below, one, two] {
        bed.space.iounmap((), address).expect("a live area");
    }
}
