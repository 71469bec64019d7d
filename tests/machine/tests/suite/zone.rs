//! The zone passes on to its allocator what it is asked, and believes it.

use crate::support::frame;
use kerncore::{
    frames::{Frame, FrameAllocator, FrameOwner, FrameTable, Unsound},
    zone::Zone,
};
use machine::HostLocks;

fn records() -> Vec<Frame> {
    (0..64).map(|_| Frame::new()).collect()
}

/// A zone of [`records`], all of them free.
fn zone(records: &[Frame]) -> Zone<'_, HostLocks> {
    let table = FrameTable::new(records, frame(0x6_0000)).expect("aligned to a block");
    let mut allocator = FrameAllocator::new(table);
    allocator.add_range(frame(0x6_0000), table.len()).expect("nothing was added yet");
    Zone::new(allocator)
}

#[test]
fn what_waits_on_the_front_lists_is_merged_on_demand() {
    let records = records();
    let zone = zone(&records);
    let fresh = zone.census();
    let block = zone.allocate(0, FrameOwner::Test).expect("all are free");
    zone.free(block).expect("as it was taken");
    assert_ne!(zone.census(), fresh, "a single frame is not merged at once");
    zone.drain();
    assert_eq!(zone.census(), fresh);
}

#[test]
fn a_table_that_contradicts_the_lists_is_not_sound() {
    let records = records();
    let zone = zone(&records);
    let taken = zone.allocate(0, FrameOwner::Test).expect("all are free").leak().0;
    assert_eq!(zone.check(), Ok(()));
    let mut other = FrameAllocator::new(*zone.table());
    other.free_at(taken, 0, FrameOwner::Test).expect("by an allocator that never had it");
    assert!(matches!(zone.check(), Err(Unsound::Lost { .. })), "{:?}", zone.check());
}
