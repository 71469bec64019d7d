//! The check of lists and records bites: each contradiction that it names, made by hand. And what is counted.

use super::*;
use crate::frames::frame::State;
use core::sync::atomic::Ordering::Relaxed;

/// What the check says of `count` free frames after `damage`.
#[track_caller]
fn finds(count: usize, damage: impl FnOnce(&mut FrameAllocator<'_>), unsound: Unsound) {
    let records = records(count);
    let mut allocator = full(&records);
    sound(&allocator);
    damage(&mut allocator);
    assert_eq!(allocator.check(), Err(unsound));
}

fn set(allocator: &FrameAllocator<'_>, index: u32, state: State) {
    allocator.table.record(index).set_state(state);
}

#[test]
fn a_block_that_is_not_aligned_or_passes_the_end_is_found() {
    let crooked = |allocator: &mut FrameAllocator<'_>| {
        set(allocator, 0, State::INSIDE);
        set(allocator, 1, State::buddy(1));
    };
    finds(2048, crooked, Unsound::Shape { frame: frame(RAM + 1), order: 1 });
    let long =
        |allocator: &mut FrameAllocator<'_>| set(allocator, 16, State::owned(4, FrameOwner::Test));
    finds(24, long, Unsound::Shape { frame: frame(RAM + 16), order: 4 });
}

#[test]
fn a_block_inside_a_block_is_found() {
    for index in [1, 5, 1023] {
        let damage = |allocator: &mut FrameAllocator<'_>| set(allocator, index, State::buddy(0));
        let (frame, head) = (frame(RAM + index), frame(RAM));
        finds(2048, damage, Unsound::HeadInside { frame, head });
    }
}

#[test]
fn a_link_that_leads_elsewhere_is_found() {
    let records = records(2048);
    let first = full(&records).buddies.first(MAX_ORDER);
    let damage = |allocator: &mut FrameAllocator<'_>| {
        allocator.table.record(first).previous.store(7, Relaxed);
    };
    finds(2048, damage, Unsound::Link { frame: frame(RAM + first), order: MAX_ORDER });
}

#[test]
fn a_block_on_a_front_list_that_is_not_of_it_or_there_twice_is_found() {
    let waiting = |allocator: &mut FrameAllocator<'_>| {
        let [block, neighbour] =
            [0; 2].map(|order| allocator.allocate(order, FrameOwner::Test).expect("all are free"));
        neighbour.leak();
        let index = block.first().number() - RAM;
        allocator.free(block).expect("as it was taken");
        assert!(!allocator.front.blocks(0).is_empty(), "one frame waits");
        index
    };
    let records = records(64);
    let index = waiting(&mut full(&records));
    let unsound = Unsound::Link { frame: frame(RAM + index), order: 0 };
    let foreign = |allocator: &mut FrameAllocator<'_>| {
        let index = waiting(allocator);
        set(allocator, index, State::buddy(0));
    };
    finds(64, foreign, unsound);
    let twice = |allocator: &mut FrameAllocator<'_>| {
        let index = waiting(allocator);
        let record = allocator.table.record(index);
        let _kept = allocator.front.push(record, 0);
    };
    finds(64, twice, unsound);
}

#[test]
fn tables_lists_and_front_lists_say_how_many_frames_they_have() {
    let records = records(64);
    let mut allocator = full(&records);
    assert!(!allocator.table().is_empty());
    assert!(FrameTable::new(&[], frame(RAM)).is_some_and(|table| table.is_empty()));
    assert_eq!(format!("{:?}", allocator.table()), "FrameTable(64 frames from 0x60000)");
    assert!(FrameList::new().is_empty());
    let list = allocator.allocate_list(5, FrameOwner::Test).expect("all are free");
    assert!(!list.is_empty());
    assert_eq!(list.leak(), 5);
    assert_eq!(allocator.waiting_pages(), 0);
    for (order, waiting) in [(0, 1), (2, 5)] {
        let block = allocator.allocate(order, FrameOwner::Test).expect("59 are free");
        let other = allocator.allocate(order, FrameOwner::Test).expect("59 are free");
        other.leak();
        allocator.free(block).expect("as it was taken");
        assert_eq!(allocator.waiting_pages(), waiting);
    }
}
