//! Frames that are not adjacent, on their way out of the linear map, to be executed, and back: S14a, S97, S112.

use crate::linear_map::{Scene, records};
use crate::support::{World, everywhere, frame, pages};
use kerncore::{
    addr::{PageRange, Pfn, PhysAddr, VirtAddr},
    attributes::Attributes,
    frames::{Frame, FrameAllocator, FrameList, FrameOwner, FrameTable},
    linear_map::LinearFault,
    machine::Machine,
    page_table::MapError,
};
use machine::{Behaviour, Event, Reach, Scope};

/// The first frame of the linear map, its first page, and the first page above it.
const FIRST: u32 = 0x6_0100;
const LINEAR: u32 = 0x8_0100;
const WINDOW: u32 = 0x8_0200;
/// Where the linear map's slots begin.
const SLOTS: u32 = 0x6000_c000;

/// Owned frames of these numbers, counted from the linear map's first, in this order.
fn list(table: &FrameTable<'_>, wanted: &[u32]) -> FrameList {
    let mut allocator = FrameAllocator::new(*table);
    allocator.add_range(frame(FIRST), 256).expect("new");
    let take = |_| allocator.allocate(0, FrameOwner::Text).expect("256 are free");
    let mut blocks: Vec<_> = (0..256).map(take).collect();
    let mut list = FrameList::new();
    for &number in wanted {
        let place = blocks.iter().position(|block| block.first() == frame(FIRST + number));
        list.push(table, blocks.swap_remove(place.expect("each is taken once")));
    }
    list
}

fn table(records: &[Frame]) -> FrameTable<'_> {
    FrameTable::new(records, frame(0x6_0000)).expect("aligned")
}

fn linear(number: u32) -> VirtAddr {
    pages(LINEAR + number, 1).start()
}

fn frames(numbers: &[u32]) -> Vec<Pfn> {
    numbers.iter().map(|&number| frame(FIRST + number)).collect()
}

/// What is asked of the TLBs of all CPUs.
fn flushed(log: &[Event]) -> Vec<PageRange> {
    let pages = |event: &Event| match event {
        Event::Invalidate(Scope::Pages(pages), Reach::InnerShareable) => Some(*pages),
        Event::Invalidate(..) => panic!("not of all CPUs: {event:?}"),
        _ => None,
    };
    log.iter().filter_map(pages).collect()
}

/// No CPU reaches what has left, whatever it remembered; the others are where they were. One flush each run of adjacent frames, or
/// one for all, and nothing is cleaned before the last of them, nor mapped.
#[test]
fn all_frames_of_a_list_leave_behind_one_flush_s97_s112() {
    let few: &[u32] = &[9, 3, 4, 5, 200, 199, 77];
    let many: Vec<u32> = (0..65).map(|number| 3 * number + 1).rev().collect();
    let runs = vec![
        pages(LINEAR + 9, 1),
        pages(LINEAR + 3, 3),
        pages(LINEAR + 199, 2),
        pages(LINEAR + 77, 1),
    ];
    for (wanted, runs) in [(few, runs), (&many, vec![pages(LINEAR + 1, 193)])] {
        everywhere(|world| {
            let records = records();
            let table = table(&records);
            let list = list(&table, wanted);
            let scene = Scene::new(world.cpu(0));
            let both = [world.cpu(0), world.cpu(1)];
            for number in 0..256 {
                assert!(both.iter().all(|cpu| cpu.load(linear(number)).is_ok()), "{number}");
            }
            drop(world.machine.take_log());
            let absent = scene.linear.withdraw_list(&table, list).expect("as filled").flush(&table);
            let log: Vec<Event> =
                world.machine.take_log().into_iter().map(|(_, event)| event).collect();
            assert_eq!(flushed(&log), runs);
            assert!(log.ends_with(&[Event::Barrier]), "{log:?}");
            let first =
                log.iter().position(|event| matches!(event, Event::Invalidate(..))).expect("asked");
            assert_eq!(log[first - 1], Event::Barrier, "the slots are empty for every walker");
            let written = |event: &Event| matches!(event, Event::Write(..) | Event::Clean(..));
            assert!(!log[first..].iter().any(written), "{log:?}");
            for number in 0..256 {
                let is_there = both.map(|cpu| cpu.load(linear(number)).is_ok());
                assert_eq!(is_there, [!wanted.contains(&number); 2], "{number}");
            }
            let list = scene.linear.restore_list(&table, absent).expect("absent");
            assert_eq!(list.frames(&table).collect::<Vec<_>>(), frames(wanted));
            for number in 0..256 {
                assert!(both.iter().all(|cpu| cpu.load(linear(number)).is_ok()), "{number}");
            }
        });
    }
}

/// S19: mapped in its order, over a border of tables, each block cleaned through its new place; or not at all.
#[test]
fn a_list_is_lent_whole_or_not_s19_s97() {
    everywhere(|world| {
        let (records, wanted) = (records(), [250, 7, 8, 100]);
        let table = table(&records);
        let list = list(&table, &wanted);
        let Scene { table: tables, linear, range } = Scene::new(world.cpu(0));
        let absent = linear.withdraw_list(&table, list).expect("as filled").flush(&table);
        let data = Attributes::KERNEL_DATA;
        // Three pages, and four frames.
        let error = absent.lend(&table, &tables, range, data, &world.tables).expect_err("too few");
        assert!(matches!(error.reason, MapError::DoesNotFit { frames: 4, .. }));
        let (absent, mut range) = (error.block, error.range);
        assert_eq!((absent.pages(), range.count()), (4, 3));
        let other = [frame(0x6_0900)];
        tables.map(&mut range, 2, other, Attributes::DEVICE, &world.tables).expect("empty");
        let list = linear.restore_list(&table, absent).expect("absent");
        assert_eq!(list.frames(&table).collect::<Vec<_>>(), frames(&wanted));
    });
    let world = World::new(Behaviour::Hoarding);
    let (records, wanted) = (records(), [200, 7, 8]);
    let table = table(&records);
    let list = list(&table, &wanted);
    let Scene { table: tables, linear: map, mut range } = Scene::new(world.cpu(0));
    let other = [frame(0x6_0900)];
    tables.map(&mut range, 2, other, Attributes::DEVICE, &world.tables).expect("empty");
    let absent = map.withdraw_list(&table, list).expect("as filled").flush(&table);
    let data = Attributes::KERNEL_DATA;
    let error = absent.lend(&table, &tables, range, data, &world.tables).expect_err("in use");
    assert!(matches!(error.reason, MapError::Occupied { .. }));
    for number in 0..2 {
        assert!(world.reach(WINDOW + number).is_err(), "page {number} is mapped no more");
    }
    let (absent, mut range) = (error.block, error.range);
    tables.unmap_part(&mut range, 2, 1).expect("inside");
    drop(world.machine.take_log());
    let lent = absent.lend(&table, &tables, range, data, &world.tables).expect("empty");
    assert_eq!((lent.pages(), lent.list().pages()), (pages(WINDOW, 3), 3));
    let log: Vec<Event> = world.machine.take_log().into_iter().map(|(_, event)| event).collect();
    let cleans = |event: &&Event| matches!(event, Event::CleanAndInvalidate(..));
    let cleaned: Vec<Event> = log.iter().filter(cleans).copied().collect();
    let each = |(index, frame)| Event::CleanAndInvalidate(pages(WINDOW + index, 1), frame);
    assert_eq!(cleaned, (0..).zip(frames(&wanted)).map(each).collect::<Vec<_>>());
    for (index, wanted) in (0..).zip(frames(&wanted)) {
        assert_eq!(world.reach(WINDOW + index), Ok(wanted));
    }
    let released = lent.unmap(&tables).flush();
    let list = map.restore_list(&table, released.payload).expect("absent");
    assert_eq!(list.frames(&table).collect::<Vec<_>>(), frames(&wanted));
}

/// One wrong entry, and nothing is written: neither those before it nor those behind.
#[test]
fn a_wrong_entry_is_named_and_all_of_the_list_comes_back_s112() {
    let world = World::new(Behaviour::Hoarding);
    let (records, wanted) = (records(), [30, 10, 20]);
    let table = table(&records);
    let Scene { linear: map, .. } = Scene::new(world.cpu(0));
    let mut list = list(&table, &wanted);
    let slot = |number: u32| PhysAddr::new(SLOTS + number * 4);
    let cpu = world.cpu(0);
    let poke = |number, word: u32| cpu.write_descriptors(slot(number), [word].into_iter());
    for bad in wanted {
        let word = cpu.read_descriptor(slot(bad));
        poke(bad, word | 0x200);
        let error = map.withdraw_list(&table, list).expect_err("read-only");
        let address = linear(bad);
        let fault = LinearFault::Unexpected { address, wanted: word, found: word | 0x200 };
        assert_eq!(error.fault, fault);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        poke(bad, word);
        for number in wanted {
            assert_ne!(cpu.read_descriptor(slot(number)), 0, "{number}");
        }
        let absent = map.withdraw_list(&table, error.list).expect("as filled").flush(&table);
        poke(bad, word);
        let error = map.restore_list(&table, absent).expect_err("in use");
        assert_eq!(error.fault, LinearFault::Unexpected { address, wanted: 0, found: word });
        poke(bad, 0);
        for number in wanted {
            assert_eq!(cpu.read_descriptor(slot(number)), 0, "{number}");
        }
        list = map.restore_list(&table, error.list).expect("absent");
    }
    // Behind the window.
    let mut allocator = FrameAllocator::new(table);
    allocator.add_range(frame(0x6_0000), 1).expect("new");
    list.push(&table, allocator.allocate(0, FrameOwner::Text).expect("one is free"));
    let error = map.withdraw_list(&table, list).expect_err("no linear address");
    assert_eq!(error.fault, LinearFault::NoAddress { frame: frame(0x6_0000) });
    assert!(error.to_string().contains("0x60000"), "{error}");
    for number in wanted {
        assert_ne!(cpu.read_descriptor(slot(number)), 0, "{number}");
    }
}
