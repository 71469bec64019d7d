//! What the page table says of entries that it did not write: S21, S22, S88, S90.

use crate::support::{ROOT, TABLES, WINDOW, WINDOW_PAGES, World, at, cut, frame, frames, pages};
use kerncore::{
    addr::{PhysAddr, VirtAddr},
    attributes::{Attributes, MemoryType},
    descriptor::{BadReason, PageSize},
    machine::Machine,
    page_table::{
        AdoptError, Entry, LargeParts, MapError, Mapped, Oddity, PageTable, Parked, ReserveError,
    },
};
use machine::{Behaviour, HostLocks};

const SECTION: u32 = 0x6011_141e;
const SUPERSECTION: u32 = 0x6105_141e;

/// The first-level slot of the window's MiB `index`.
fn l1_slot(index: u32) -> PhysAddr {
    PhysAddr::new(ROOT.raw() + (0xc00 + index) * 4)
}

/// S22: a section that lies wholly in the range is reported and cleared, one that does not is left alone.
#[test]
fn a_section_in_the_way_is_reported_and_cleared_only_if_all_of_it_is_ours() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    world.machine.device_write(l1_slot(0), SECTION);
    world.machine.device_write(l1_slot(1), SECTION);
    let whole_and_a_half = cut(window, 0, 256 + 128);
    assert!(world.reach(WINDOW + 5).is_ok() && world.reach(WINDOW + 300).is_ok());
    let released = table.unmap(whole_and_a_half, ()).flush();
    assert_eq!((released.removal.oddities, released.removal.left_alone), (2, 1));
    let address = at(WINDOW);
    let first = Oddity::NotATable { address, descriptor: SECTION };
    assert_eq!(released.removal.first_oddity, Some(first));
    assert!(world.reach(WINDOW + 5).is_err());
    assert_eq!(world.cpu(0).read_descriptor(l1_slot(1)), SECTION, "half of it is somebody else's");
}

/// S22, S96: a supersection is sixteen slots; it goes whole or not at all.
#[test]
fn a_supersection_is_not_cut() {
    let world = World::new(Behaviour::Hoarding);
    (0..16).for_each(|index| world.machine.device_write(l1_slot(index), SUPERSECTION));
    let (table, window) = world.table();
    let (low, high) = window.split_at(15 * 256).expect("sixteen MiB");
    let released = table.unmap(low, ()).flush();
    assert_eq!((released.removal.oddities, released.removal.left_alone), (15, 15));
    assert!(matches!(released.removal.first_oddity, Some(Oddity::ReachesOutside { .. })));
    (0..16).for_each(|index| {
        assert_eq!(world.cpu(0).read_descriptor(l1_slot(index)), SUPERSECTION);
    });
    let whole = released.range.join(high).expect("neighbours");
    let released = table.unmap(whole, ()).flush();
    assert_eq!((released.removal.oddities, released.removal.left_alone), (16, 0));
    (0..16).for_each(|index| assert_eq!(world.cpu(0).read_descriptor(l1_slot(index)), 0));
}

/// S22, S17: nothing is mapped under a section.
#[test]
fn mapping_under_a_section_is_refused_by_name() {
    let world = World::new(Behaviour::Hoarding);
    world.machine.device_write(l1_slot(0), SECTION);
    let (table, window) = world.table();
    let mut range = cut(window, 7, 1);
    let refused =
        table.map(&mut range, 0, frames(&[0x6_0100]), Attributes::KERNEL_DATA, &world.tables);
    let reason = ReserveError::NotATable { address: at(WINDOW), descriptor: SECTION };
    assert_eq!(refused, Err(MapError::Table { reason, mapped: 0 }));
    assert_eq!(world.cpu(0).read_descriptor(l1_slot(0)), SECTION);
}

/// S21: not present, yet not zero.
#[test]
fn a_leftover_is_reported_and_cleared_and_never_mapped_over() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 0, 3);
    table.reserve_tables(&mut range, &world.tables).expect("tables");
    let slot = PhysAddr::new(TABLES.raw() + 4);
    world.cpu(0).write_descriptors(slot, [0xdead_0000].into_iter());
    let list = frames(&[0x6_0100, 0x6_0101, 0x6_0102]);
    let refused = table.map(&mut range, 0, list, Attributes::KERNEL_DATA, &world.tables);
    let address = at(WINDOW + 1);
    assert_eq!(refused, Err(MapError::Occupied { address, descriptor: 0xdead_0000, mapped: 0 }));
    let released = table.unmap(range, ()).flush();
    let oddity = Oddity::Leftover { address, descriptor: 0xdead_0000 };
    assert_eq!(released.removal.first_oddity, Some(oddity));
    assert_eq!((released.removal.pages, released.removal.oddities), (0, 1));
    assert_eq!(world.cpu(0).read_descriptor(slot), 0);
}

/// S90: a live large page is never split.
#[test]
fn a_large_page_goes_whole_or_not_at_all() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 0, 40);
    table.reserve_tables(&mut range, &world.tables).expect("tables");
    let first = PhysAddr::new(TABLES.raw() + 16 * 4);
    world.cpu(0).write_descriptors(first, [0x6001_941d; 16].into_iter());
    let removal = table.unmap_part(&mut range, 0, 20).expect("inside");
    assert_eq!((removal.pages, removal.oddities, removal.left_alone), (0, 4, 4));
    assert_eq!(world.cpu(0).read_descriptor(first), 0x6001_941d);
    let released = table.unmap(range, ()).flush();
    assert_eq!((released.removal.pages, released.removal.oddities), (16, 0));
    assert_eq!(world.cpu(0).read_descriptor(first), 0);
}

/// S88: every kind of mapping, to the byte.
#[test]
fn translation_answers_for_every_size_and_to_the_byte() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 0, 40);
    world.machine.device_write(l1_slot(1), SECTION);
    table
        .map(&mut range, 3, frames(&[0x6_0abc]), Attributes::WRITE_COMBINE, &world.tables)
        .expect("empty");
    let large = PhysAddr::new(TABLES.raw() + 16 * 4);
    world.cpu(0).write_descriptors(large, [0x6001_941d; 16].into_iter());
    let ask = |address| {
        let found = table.translate(VirtAddr::new(address))?;
        Some((found.physical.raw(), found.size, found.attributes().expect("ours").memory()))
    };
    let cached = MemoryType::NormalWriteBack;
    let small = (0x60ab_c123, PageSize::Small, MemoryType::NormalNonCacheable);
    assert_eq!(ask(0xc000_3123), Some(small));
    assert_eq!(ask(0xc001_fffc), Some((0x6001_fffc, PageSize::Large, cached)));
    assert_eq!(ask(0xc01f_fffc), Some((0x601f_fffc, PageSize::Section, cached)));
    let word = |address| table.translate(VirtAddr::new(address)).map(|found| found.descriptor());
    assert_eq!(word(0xc001_fffc), Some(0x6001_941d));
    assert_eq!(word(0xc01f_fffc), Some(SECTION));
    assert_eq!(table.read_descriptor(large), 0x6001_941d);
    assert_eq!(ask(0xc000_2000), None, "no entry");
    assert_eq!(ask(0xc020_0000), None, "no table");
    let below = PhysAddr::new(ROOT.raw() + 0xb00 * 4);
    world.cpu(0).write_descriptors(below, [SECTION].into_iter());
    assert_eq!(ask(0xb000_0000), None, "outside the window");
    (0..16).for_each(|index| {
        world.cpu(0).write_descriptors(l1_slot(index), [SUPERSECTION].into_iter());
    });
    assert_eq!(ask(0xc012_3456), Some((0x6112_3456, PageSize::Supersection, cached)));
}

#[test]
fn a_walk_shows_every_entry_in_order_and_says_which_are_bad() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 0, 40);
    let list = frames(&[0x6_0abc, 0x6_0abd]);
    table.map(&mut range, 3, list, Attributes::KERNEL_RODATA, &world.tables).expect("empty");
    let bad = PhysAddr::new(TABLES.raw() + 9 * 4);
    // Kernel data without XN: writable and executable.
    world.cpu(0).write_descriptors(bad, [0x6001_045e].into_iter());
    world.cpu(0).write_descriptors(l1_slot(1), [SECTION, 0x6001_0003].into_iter());
    let mut seen = Vec::new();
    table.for_each_entry(pages(WINDOW + 4, 600), |entry| seen.push(entry));
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert_eq!(
        seen[0],
        Entry::Mapping {
            pages: pages(WINDOW + 4, 1),
            physical: frame(0x6_0abd).base(),
            size: PageSize::Small,
            attributes: Attributes::KERNEL_RODATA,
        }
    );
    let reason = |entry: &Entry| match entry {
        Entry::Bad { pages, descriptor } => Some((*pages, descriptor.reason)),
        Entry::Mapping { .. } => None,
    };
    let (place, why) = reason(&seen[1]).expect("bad");
    assert!(place == pages(WINDOW + 9, 1) && matches!(why, BadReason::Attributes(_)));
    assert!(matches!(
        seen[2],
        Entry::Mapping { pages: place, size: PageSize::Section, .. } if place == pages(WINDOW + 256, 256)
    ));
    // Clipped to what was asked about.
    assert_eq!(reason(&seen[3]), Some((pages(WINDOW + 512, 92), BadReason::ReservedType)));
}

/// Page numbers below the number of slots in a table are as good as any.
#[test]
fn the_lowest_addresses_are_walked_as_all_others_are() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) =
        PageTable::<_, HostLocks>::new(world.cpu(0), ROOT, pages(0, WINDOW_PAGES));
    let mut range = cut(window, 0, 512);
    let list = frames(&[0x6_0abc]);
    table.map(&mut range, 5, list, Attributes::KERNEL_DATA, &world.tables).expect("empty");
    assert_eq!(world.reach(5), Ok(frame(0x6_0abc)));
    assert_eq!(table.count_tables(pages(5, 1)), 1);
    assert_eq!(table.count_tables(pages(255, 2)), 1);
    assert_eq!(table.count_tables(pages(256, 256)), 0);
}

/// The boot stub's tables stay, the missing ones are linked, anything else is refused.
#[test]
fn tables_made_elsewhere_are_adopted_where_nothing_else_is() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let array = PhysAddr::new(0x6010_0000);
    world.machine.device_write(l1_slot(1), array.raw() + 0x400 + 1);
    world.cpu(0).write_descriptors(array, [0x6012_345f].into_iter());
    let mut range = cut(window, 0, 512);
    assert_eq!(table.adopt_tables(&mut range, array), Ok(()));
    assert_eq!(table.count_tables(table.window()), 2);
    assert_eq!(world.reach(WINDOW), Ok(frame(0x6_0123)), "what was written into it is visible");
    assert_eq!(world.cpu(0).read_descriptor(l1_slot(0)), array.raw() + 1);
    let elsewhere = PhysAddr::new(0x6020_0000);
    let descriptor = array.raw() + 1;
    let occupied = AdoptError::Occupied { address: at(WINDOW), descriptor };
    assert_eq!(table.adopt_tables(&mut range, elsewhere), Err(occupied));
    let crooked = PhysAddr::new(0x6020_0200);
    assert_eq!(table.adopt_tables(&mut range, crooked), Err(AdoptError::Tables(crooked)));
    let (mut low, rest) = range.split_at(100).expect("long");
    let (mut middle, mut high) = rest.split_at(256).expect("long");
    for (odd, range) in [(&mut low, (0, 100)), (&mut middle, (100, 256)), (&mut high, (356, 156))] {
        let refused = table.adopt_tables(odd, array);
        let whole = pages(WINDOW + range.0, range.1);
        assert_eq!(refused, Err(AdoptError::NotSections(whole)));
    }
}

/// S16a: what was written into any of them is cleaned before it is linked.
#[test]
fn every_adopted_table_is_visible_to_the_walker() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let array = PhysAddr::new(0x6010_0000);
    for index in 0..4 {
        for slot in [0, 255] {
            let slot = PhysAddr::new(array.raw() + index * 0x400 + slot * 4);
            world.cpu(0).write_descriptors(slot, [(0x6_0100 + index) << 12 | 0x45f].into_iter());
        }
    }
    assert_eq!(table.adopt_tables(&mut cut(window, 0, 1024), array), Ok(()));
    for index in 0..4 {
        for slot in [0, 255] {
            assert_eq!(world.reach(WINDOW + 256 * index + slot), Ok(frame(0x6_0100 + index)));
        }
    }
}

/// S22, S96: what is not as the other fifteen is reported and goes with them, but for a table, through which somebody may map.
#[test]
fn a_supersection_of_which_a_slot_was_changed_goes_and_is_reported() {
    const TABLE: u32 = 0x6007_f001;
    let other = SUPERSECTION | 1 << 15;
    for (slot, word, left, pages) in [
        (7, 0, 0, 15),
        (7, other, 0, 16),
        (15, SECTION, 0, 16),
        (0, other, 0, 16),
        (7, TABLE, 1, 15),
    ] {
        let world = World::new(Behaviour::Hoarding);
        let (table, mut window) = world.table();
        let (first, mut parked) = (frame(0x6_1000), Parked::new());
        let data = Attributes::KERNEL_DATA;
        assert_eq!(table.map_supersection(&mut window, 0, first, data, &mut parked), Ok(()));
        world.cpu(0).barrier();
        assert!((0..16).all(|mib| world.reach(WINDOW + mib * 256 + 9).is_ok()));
        let cpu = world.cpu(0);
        cpu.write_descriptors(l1_slot(slot), [word].into_iter());
        cpu.clean_descriptors(l1_slot(slot), 1);
        let parts = LargeParts::NONE.behind(1);
        let unmapped = table.unmap_large(window, Mapped { parts, small: 0 }, parked, ());
        let removal = unmapped.flush().removal;
        assert_eq!((removal.left_alone, removal.pages), (left, pages * 256), "{word:#x}");
        assert!(removal.oddities > 0, "{word:#x}");
        for index in 0..16 {
            let kept = if index == slot && left != 0 { TABLE } else { 0 };
            assert_eq!(cpu.read_descriptor(l1_slot(index)), kept, "{word:#x} in slot {slot}");
        }
        let again = table.unmap_large(
            cut(world.table().1, 0, WINDOW_PAGES),
            Mapped { parts, small: 0 },
            Parked::new(),
            (),
        );
        let removal = again.flush().removal;
        assert_eq!((removal.pages, removal.left_alone), (0, left), "S25: what is gone is gone");
    }
}

/// S17, S96: neither side may lie beside a border of 16 MiB.
#[test]
fn a_supersection_lies_on_borders_of_its_own_on_both_sides() {
    let world = World::new(Behaviour::Forgetful);
    let (table, mut window) = world.table();
    let (data, mut parked) = (Attributes::KERNEL_DATA, Parked::new());
    for (offset, first) in [(256, 0x6_1000), (0, 0x6_1100), (0, 0x6_1001), (1, 0x6_1000)] {
        let refused = table.map_supersection(&mut window, offset, frame(first), data, &mut parked);
        assert!(matches!(refused, Err(MapError::DoesNotFit { .. })), "{refused:?}");
    }
    assert!((0..16).all(|index| world.cpu(0).read_descriptor(l1_slot(index)) == 0));
    assert_eq!(parked, Parked::new());
}
