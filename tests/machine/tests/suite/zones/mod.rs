//! The zones pass on to their allocator what they are asked, and believe it.

mod model;
mod walk;
use crate::support::frame;
use kerncore::{
    frames::{
        AllocateError, Frame, FrameAllocator, FrameOwner, FrameRequest, FrameTable, Spares, Unsound,
    },
    zones::Zones,
};
use machine::HostLocks;

fn records() -> Vec<Frame> {
    (0..64).map(|_| Frame::new()).collect()
}

/// Zones of [`records`], all of them free.
fn zones(records: &[Frame]) -> Zones<'_, HostLocks> {
    let table = FrameTable::new(records, frame(0x6_0000)).expect("aligned to a block");
    let mut allocator = FrameAllocator::new(table);
    allocator.add_range(frame(0x6_0000), table.len()).expect("nothing was added yet");
    Zones::new(allocator, Box::leak(Box::new(Spares::new())))
}

#[test]
fn what_waits_on_the_front_lists_is_merged_on_demand() {
    let records = records();
    let zones = zones(&records);
    let fresh = zones.census();
    let block = zones.allocate(0, FrameOwner::Test).expect("all are free");
    zones.free(block).expect("as it was taken");
    assert_ne!(zones.census(), fresh, "a single frame is not merged at once");
    zones.drain();
    assert_eq!(zones.census(), fresh);
}

/// S26: a list that was nearly gathered waits on the front lists, and the error counts it as the blocks that it was.
#[test]
fn an_error_knows_the_blocks_that_wait_unmerged() {
    let records = records();
    let zones = zones(&records);
    let all_but_two = zones.allocate_list(62, FrameOwner::Test).expect("all are free");
    for request in [FrameRequest::LOW, FrameRequest::ANY] {
        let wanted = AllocateError::Exhausted {
            pages: 3,
            owner: FrameOwner::Test,
            free: 2,
            largest: Some(1),
            from: request,
        };
        for _ in 0..2 {
            let taken = zones.allocate_list_from(request, 3, FrameOwner::Test);
            assert_eq!(taken.map(|_| ()), Err(wanted));
        }
    }
    zones.free_list(all_but_two).expect("as they were taken");
}

#[test]
fn a_table_that_contradicts_the_lists_is_not_sound() {
    let records = records();
    let zones = zones(&records);
    let taken = zones.allocate(0, FrameOwner::Test).expect("all are free").leak().0;
    assert_eq!(zones.check(), Ok(()));
    let mut other = FrameAllocator::new(*zones.table());
    other.free_at(taken, 0, FrameOwner::Test).expect("by an allocator that never had it");
    assert!(matches!(zones.check(), Err(Unsound::Lost { .. })), "{:?}", zones.check());
}
