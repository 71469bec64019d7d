//! Mapping and unmapping by the SPEC's section B, on every behaviour.

use crate::support::{
    ROOT, TABLES, WINDOW, World, absent, at, cut, everywhere, frame, frames, pages,
};
use kerncore::{
    addr::{Pfn, PhysAddr},
    attributes::Attributes,
    page_table::{MapError, Removal, ReserveError, consecutive},
};
use machine::{Behaviour, Event, Reach, Scope, TablePool};
use std::cell::Cell;

const DATA: Attributes = Attributes::KERNEL_DATA;

/// S16, S2: one frame a slot, in order, over the border of two second-level tables; the guard stays absent.
#[test]
fn frames_are_mapped_in_order_over_a_tables_border_and_the_guard_is_not() {
    everywhere(|world| {
        let (table, window) = world.table();
        let mut range = cut(window, 253, 6);
        let list = frames(&[0x6_0200, 0x6_0777, 0x6_0201, 0x6_0200, 0x6_0999]);
        (250..262).for_each(|page| assert_eq!(world.reach(WINDOW + page), absent(WINDOW + page)));
        assert_eq!(table.map(&mut range, 0, list.iter().copied(), DATA, &world.tables), Ok(5));
        for (page, frame) in (WINDOW + 253..).zip(&list) {
            assert_eq!(world.reach(page), Ok(*frame));
        }
        for page in [250, 251, 252, 258, 259, 260, 261] {
            assert_eq!(world.reach(WINDOW + page), absent(WINDOW + page), "page {page}");
        }
        assert_eq!(world.tables.taken(), 2);
    });
}

/// S16, S17, S20: frames in a row, over a table's border, with whole and broken groups of slots on either side; refused
/// as a list of them is.
#[test]
fn consecutive_frames_are_mapped_in_order_and_refused_as_a_list_is() {
    everywhere(|world| {
        let (table, window) = world.table();
        let mut range = cut(window, 237, 46);
        let first = frame(0x6_0300);
        let mut map =
            |offset, frames| table.map_consecutive(&mut range, offset, frames, DATA, &world.tables);
        let whole = pages(WINDOW + 237, 46);
        assert_eq!(map(0, (first, 0)), Err(MapError::NoFrames { range: whole }));
        for (offset, first, frames) in [(0, first, 47), (2, first, 45), (0, frame(0xf_ffff), 2)] {
            let error = MapError::DoesNotFit { range: whole, offset, frames };
            assert_eq!(map(offset, (first, frames)), Err(error));
        }
        assert_eq!(map(1, (first, 44)), Ok(44));
        (0..44).for_each(|page| {
            assert_eq!(world.reach(WINDOW + 238 + page), Ok(frame(0x6_0300 + page)));
        });
        for page in [237, 282] {
            assert_eq!(world.reach(WINDOW + page), absent(WINDOW + page));
        }
        let address = at(WINDOW + 238);
        let error = MapError::Occupied { address, descriptor: 0x6030_045f, mapped: 0 };
        assert_eq!(map(0, (frame(0x6_0500), 46)), Err(error));
        assert_eq!(world.reach(WINDOW + 238), Ok(first));
        let released = table.unmap(range, ()).flush();
        assert_eq!(released.removal, Removal { pages: 44, ..Removal::default() });
        (237..283).for_each(|page| assert_eq!(world.reach(WINDOW + page), absent(WINDOW + page)));
    });
}

/// S17, S19: refused, named, left alone; what was mapped before stays and is usable; one barrier all the same.
#[test]
fn an_occupied_slot_is_refused_and_left_alone() {
    everywhere(|world| {
        let (table, window) = world.table();
        let mut range = cut(window, 254, 6);
        table.map(&mut range, 4, frames(&[0x6_0500]), DATA, &world.tables).expect("empty");
        let list = consecutive(frame(0x6_0300), 6).expect("below 4 GiB");
        let refused = table.map(&mut range, 0, list, Attributes::DEVICE, &world.tables);
        let address = at(WINDOW + 258);
        assert_eq!(
            refused,
            Err(MapError::Occupied { address, descriptor: 0x6050_045f, mapped: 2 })
        );
        assert_eq!(world.reach(WINDOW + 258), Ok(frame(0x6_0500)));
        assert_eq!(world.reach(WINDOW + 254), Ok(frame(0x6_0300)));
        assert_eq!(world.reach(WINDOW + 255), Ok(frame(0x6_0301)));
        assert_eq!(world.reach(WINDOW + 256), absent(WINDOW + 256));
        let released = table.unmap(range, ()).flush();
        assert_eq!(released.removal, Removal { pages: 3, ..Removal::default() });
        (254..260).for_each(|page| assert_eq!(world.reach(WINDOW + page), absent(WINDOW + page)));
    });
}

/// S17, S37: a frame may be mapped twice, and two equal entries are as much in the way as one.
#[test]
fn two_equal_entries_in_the_way_are_seen() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 0, 4);
    let twice = frames(&[0x6_0500, 0x6_0500]);
    table.map(&mut range, 1, twice, DATA, &world.tables).expect("empty");
    let list = consecutive(frame(0x6_0300), 4).expect("below 4 GiB");
    let refused = table.map(&mut range, 0, list, DATA, &world.tables);
    let address = at(WINDOW + 1);
    assert_eq!(refused, Err(MapError::Occupied { address, descriptor: 0x6050_045f, mapped: 0 }));
}

/// S18, S19.
#[test]
fn a_gap_in_the_list_is_named_and_what_came_before_it_is_mapped() {
    everywhere(|world| {
        let (table, window) = world.table();
        let mut range = cut(window, 0, 4);
        let list = [Some(frame(0x6_0100)), Some(frame(0x6_0101)), None, Some(frame(0x6_0102))];
        let refused = table.map(&mut range, 0, list, DATA, &world.tables);
        let address = at(WINDOW + 2);
        assert_eq!(refused, Err(MapError::MissingFrame { address, mapped: 2 }));
        assert_eq!(world.reach(WINDOW + 1), Ok(frame(0x6_0101)));
        assert_eq!(world.reach(WINDOW + 3), absent(WINDOW + 3));
    });
}

/// S20.
#[test]
fn nothing_to_map_and_too_much_to_map_are_errors_that_do_nothing() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 8, 4);
    let none = table.map(&mut range, 0, frames(&[]), DATA, &world.tables);
    assert_eq!(none, Err(MapError::NoFrames { range: pages(WINDOW + 8, 4) }));
    for (offset, count) in [(0, 5), (3, 2), (u32::MAX, 2)] {
        let list = consecutive(frame(0x6_0100), count).expect("below 4 GiB");
        let refused = table.map(&mut range, offset, list, DATA, &world.tables);
        let range = pages(WINDOW + 8, 4);
        assert_eq!(refused, Err(MapError::DoesNotFit { range, offset, frames: count }));
    }
    assert_eq!(world.machine.take_log(), []);
}

/// S16, S19: no memory for a table; the pages below stay.
#[test]
fn a_missing_table_is_named_by_the_address_that_needs_it() {
    everywhere(|world| {
        let (table, window) = world.table();
        let one = TablePool::new(&world.machine, PhysAddr::new(TABLES.raw() + 0x8000), 1);
        let mut range = cut(window, 255, 2);
        let list = consecutive(frame(0x6_0100), 2).expect("below 4 GiB");
        let reason = ReserveError::NoTable(at(WINDOW + 256));
        let refused = table.map(&mut range, 0, list, DATA, &one);
        assert_eq!(refused, Err(MapError::Table { reason, mapped: 1 }));
        assert_eq!(world.reach(WINDOW + 255), Ok(frame(0x6_0100)));
    });
}

/// S21: clear, clean, barrier; exactly the range's pages invalidated, once; barrier.
#[test]
fn unmapping_asks_in_the_right_order_and_for_exactly_the_pages() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 254, 4);
    let list = consecutive(frame(0x6_0100), 4).expect("below 4 GiB");
    table.map(&mut range, 0, list, DATA, &world.tables).expect("empty");
    let (low, high) = (TABLES.raw() + 254 * 4, TABLES.raw() + 0x400);
    let (low, high) = (PhysAddr::new(low), PhysAddr::new(high));
    drop(world.machine.take_log());
    let unmapped = table.unmap(range, ());
    let (wrote, cleaned) = (Event::Write, Event::Clean);
    let asked = [wrote(low, 2), cleaned(low, 2)];
    let mut log: Vec<Event> =
        world.machine.take_log().into_iter().map(|(_, event)| event).collect();
    assert_eq!(log.split_off(log.len() - 1), [Event::Barrier]);
    assert_eq!(log[..2], asked);
    assert_eq!(log[2..], [wrote(high, 2), cleaned(high, 2)]);
    let released = unmapped.flush();
    assert_eq!(released.range.pages(), pages(WINDOW + 254, 4));
    let scope = Scope::Pages(pages(WINDOW + 254, 4));
    let invalidated = Event::Invalidate(scope, Reach::InnerShareable);
    assert_eq!(world.machine.take_log(), [(0, invalidated), (0, Event::Barrier)]);
}

/// S21, S23.
#[test]
fn a_range_is_flushed_to_its_last_page() {
    everywhere(|world| {
        for (offset, count) in [(0, 1), (0, 3), (254, 2), (255, 2)] {
            let (table, window) = world.table();
            let mut range = cut(window, offset, count);
            let list = consecutive(frame(0x6_0100), count).expect("below 4 GiB");
            table.map(&mut range, 0, list, DATA, &world.tables).expect("empty");
            let reached = |page| world.reach(WINDOW + offset + page);
            (0..count).for_each(|page| assert!(reached(page).is_ok()));
            let released = table.unmap(range, ()).flush();
            assert_eq!(released.removal.pages, count);
            (0..count).for_each(|page| assert!(reached(page).is_err(), "{offset} {count} {page}"));
        }
    });
}

/// S21: holes before a table's border, or a table that is absent, end nothing.
#[test]
fn a_hole_in_the_middle_does_not_spare_the_last_page_its_flush() {
    everywhere(|world| {
        for (offset, first_mapped) in [(0, 256), (200, 230)] {
            let (table, window) = world.table();
            let mut range = cut(window, offset, 259 - offset);
            for page in [first_mapped, 257, 258] {
                let place = page - offset;
                table
                    .map(&mut range, place, [frame(0x6_0100 + page)], DATA, &world.tables)
                    .expect("empty");
                assert!(world.reach(WINDOW + page).is_ok());
            }
            let released = table.unmap(range, ()).flush();
            assert_eq!(released.removal, Removal { pages: 3, ..Removal::default() });
            for page in [first_mapped, 257, 258] {
                assert_eq!(world.reach(WINDOW + page), absent(WINDOW + page), "{offset}");
            }
        }
    });
}

/// S17: each slot is looked at, wherever it lies in the run.
#[test]
fn one_slot_in_use_is_found_at_every_place() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 0, 21);
    for place in 0..21 {
        let one = [frame(0x6_0100)];
        table.map(&mut range, place, one, DATA, &world.tables).expect("empty");
        let list = consecutive(frame(0x6_0200), 21).expect("below 4 GiB");
        let refused = table.map(&mut range, 0, list, DATA, &world.tables);
        let address = at(WINDOW + place);
        let occupied = MapError::Occupied { address, descriptor: 0x6010_045f, mapped: 0 };
        assert_eq!(refused, Err(occupied));
        let removal = table.unmap_part(&mut range, 0, 21).expect("inside");
        assert_eq!(removal, Removal { pages: 1, ..Removal::default() });
        let list = consecutive(frame(0x6_0200), 21).expect("below 4 GiB");
        table.map(&mut range, 0, list, DATA, &world.tables).expect("empty");
        table.unmap_part(&mut range, place, 1).expect("inside");
        let removal = table.unmap_part(&mut range, 0, 21).expect("inside");
        assert_eq!(removal, Removal { pages: 20, ..Removal::default() }, "hole at {place}");
    }
}

/// S16, BENCH: a run is written, cleaned and waited for once, not page by page.
#[test]
fn mapping_within_one_table_is_one_write_and_one_barrier() {
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let mut range = cut(window, 0, 64);
    table.reserve_tables(&mut range, &world.tables).expect("tables");
    drop(world.machine.take_log());
    let list = consecutive(frame(0x6_0100), 64).expect("below 4 GiB");
    table.map(&mut range, 0, list, DATA, &world.tables).expect("empty");
    let l1_slot = PhysAddr::new(ROOT.raw() + 0xc00 * 4);
    let asked = [
        Event::Clean(l1_slot, 1),
        Event::Write(TABLES, 64),
        Event::Clean(TABLES, 64),
        Event::Barrier,
    ];
    assert_eq!(world.machine.take_log(), asked.map(|event| (0, event)));
}

/// S23, S24: addresses are reused at once after the flush, on every CPU, and tables do not grow.
#[test]
fn a_range_can_be_mapped_anew_after_its_flush_and_needs_no_new_table() {
    everywhere(|world| {
        let (table, window) = world.table();
        let mut range = cut(window, 250, 12);
        for cycle in 0..4 {
            let first = frame(0x6_0100 + cycle * 0x40);
            let list = consecutive(first, 11).expect("below 4 GiB");
            table.map(&mut range, 0, list, DATA, &world.tables).expect("empty");
            for page in 0..11 {
                let wanted = first.checked_add(page).expect("below 4 GiB");
                assert_eq!(world.reach(WINDOW + 250 + page), Ok(wanted));
            }
            range = table.unmap(range, ()).flush().range;
            (0..12).for_each(|page| {
                assert_eq!(world.reach(WINDOW + 250 + page), absent(WINDOW + 250 + page));
            });
        }
        assert_eq!(world.tables.taken(), 2);
        assert_eq!(table.count_tables(table.window()), 2);
    });
}

/// S25, S21: clear twice, or where no table ever was.
#[test]
fn unmapping_what_is_not_mapped_does_nothing_but_flush() {
    everywhere(|world| {
        let (table, window) = world.table();
        let mut range = cut(window, 255, 4);
        let list = consecutive(frame(0x6_0100), 1).expect("below 4 GiB");
        table.map(&mut range, 0, list, DATA, &world.tables).expect("empty");
        let first = table.unmap(range, ()).flush();
        assert_eq!(first.removal.pages, 1);
        drop(world.machine.take_log());
        let second = table.unmap(first.range, ()).flush();
        assert_eq!(second.removal, Removal::default());
        let log = world.machine.take_log();
        assert!(!log.iter().any(|(_, event)| matches!(event, Event::Write(..))), "{log:?}");
        assert_eq!(world.tables.taken(), 1);
    });
}

/// S47, S77: with its tables reserved, a range is mapped without any.
#[test]
fn a_reserved_range_never_needs_a_table() {
    everywhere(|world| {
        let (table, window) = world.table();
        let mut range = cut(window, 200, 300);
        table.reserve_tables(&mut range, &world.tables).expect("tables");
        assert_eq!(world.tables.taken(), 2);
        (200..500).step_by(50).for_each(|page| {
            assert_eq!(world.reach(WINDOW + page), absent(WINDOW + page), "nothing is mapped");
        });
        let none = TablePool::new(&world.machine, TABLES, 0);
        let list = consecutive(frame(0x6_0100), 300).expect("below 4 GiB");
        assert_eq!(table.map(&mut range, 0, list, DATA, &none), Ok(300));
        assert_eq!(world.reach(WINDOW + 499), Ok(frame(0x6_0100 + 299)));
    });
}

/// S23: a part of a range is flushed before the call returns.
#[test]
fn a_part_is_unmapped_and_flushed_and_the_rest_stays() {
    everywhere(|world| {
        let (table, window) = world.table();
        let mut range = cut(window, 0, 6);
        let list = consecutive(frame(0x6_0100), 6).expect("below 4 GiB");
        table.map(&mut range, 0, list, DATA, &world.tables).expect("empty");
        (0..6).for_each(|page| assert!(world.reach(WINDOW + page).is_ok()));
        let removal = table.unmap_part(&mut range, 2, 3).expect("inside");
        assert_eq!(removal.pages, 3);
        for page in 0..6 {
            let there = world.reach(WINDOW + page);
            let gone = (2..5).contains(&page);
            assert_eq!(there.is_err(), gone, "page {page}");
        }
        table.map(&mut range, 2, frames(&[0x6_0900]), DATA, &world.tables).expect("empty");
        assert_eq!(world.reach(WINDOW + 2), Ok(frame(0x6_0900)));
        assert!(table.unmap_part(&mut range, 4, 3).is_err());
        assert_eq!(world.reach(WINDOW + 5), Ok(frame(0x6_0105)));
    });
}

/// S23: what waits for a flush that never comes is leaked, not released.
#[test]
fn a_dropped_unmapping_never_releases_its_payload() {
    struct Tell<'a>(&'a Cell<bool>);
    impl Drop for Tell<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let world = World::new(Behaviour::Hoarding);
    let (table, window) = world.table();
    let (first, second) = window.split_at(1).expect("long");
    let told = Cell::new(false);
    drop(table.unmap(first, Tell(&told)));
    assert!(!told.get(), "dropped without a flush");
    let released = table.unmap(second, Tell(&told)).flush();
    assert!(!told.get(), "the payload comes back alive");
    drop(released.payload);
    assert!(told.get());
}

/// S37: a frame may be mapped twice, also in one call.
#[test]
fn consecutive_frames_stop_at_four_gigabytes() {
    assert!(consecutive(frame(0xf_ffff), 2).is_none());
    let last: Vec<Pfn> = consecutive(frame(0xf_fffe), 2).expect("the last two").collect();
    assert_eq!(last, frames(&[0xf_fffe, 0xf_ffff]));
}
