//! Spare blocks: free, though no allocator knows of them.

use super::*;
use crate::frames::{AllocateError, Frame, FrameOwner, Freed};
use crate::kernel_space::tests::{MutexLock, MutexSlot, Mutexes};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::cell::RefCell;
use std::thread;

const ME: FrameOwner = FrameOwner::Pages;

fn records() -> Vec<Frame> {
    (0..64).map(|_| Frame::new()).collect()
}

/// As many as the largest block has.
fn many_records() -> Vec<Frame> {
    (0..MAX_BLOCK).map(|_| Frame::new()).collect()
}

/// Zones of such records, all of them free.
fn zones(records: &[Frame]) -> Zones<'_, Mutexes> {
    let first = Pfn::new(0x6_0000).expect("below 4 GiB");
    let table = FrameTable::new(records, first).expect("aligned to a block");
    let mut allocator = FrameAllocator::new(table);
    allocator.add_range(first, table.len()).expect("nothing was added yet");
    Zones::new(allocator, Box::leak(Box::new(Spares::new())))
}

/// Takes a block by its record, as C callers do.
fn taken<'r>(zones: &Zones<'r, Mutexes>, order: u32) -> &'r Frame {
    if let Some(record) = zones.take_waiting(order, ME) {
        return record;
    }
    let first = zones.allocate(order, ME).expect("there are enough").leak().0;
    zones.table().frame(first).expect("of the table")
}

fn give_back(zones: &Zones<'_, Mutexes>, record: &Frame, order: u32, owner: FrameOwner) -> Freed {
    zones.give_back(core::ptr::from_ref(record).addr(), order, owner)
}

fn frame_of(zones: &Zones<'_, Mutexes>, record: &Frame) -> Pfn {
    zones.table().frame_at_record(core::ptr::from_ref(record).addr()).expect("of the table")
}

#[test]
fn the_block_that_came_back_last_is_taken_first_and_is_free_meanwhile() {
    for order in 0..9 {
        let records = many_records();
        let zones = zones(&records);
        let fresh = zones.census();
        let blocks = [taken(&zones, order), taken(&zones, order)];
        let before = zones.census();
        for record in blocks {
            assert_eq!(give_back(&zones, record, order, ME), Freed::Yes);
            assert_eq!(zones.table().owner_of(frame_of(&zones, record)), FrameOwner::Free);
        }
        let free = zones.census().of(FrameOwner::Free) - before.of(FrameOwner::Free);
        assert_eq!(free, 2 << order, "order {order}");
        assert!(core::ptr::eq(taken(&zones, order), blocks[1]), "order {order}");
        assert_eq!(give_back(&zones, blocks[1], order, ME), Freed::Yes);
        // Both are buddies, and one of them is a spare.
        zones.drain();
        assert_eq!(zones.census(), fresh, "order {order}");
        assert_eq!(zones.check(), Ok(()));
    }
}

/// A block larger than a section's is none that is kept; those between are, though no front list has them.
#[test]
fn a_spare_is_given_up_by_its_owner_once_and_by_nobody_else() {
    let records = many_records();
    let zones = zones(&records);
    for order in 0..10 {
        let record = taken(&zones, order);
        let kept = if order < 9 { Freed::Yes } else { Freed::No };
        assert_eq!(give_back(&zones, record, order, FrameOwner::Test), Freed::No, "not his");
        assert_eq!(give_back(&zones, record, order + 1, ME), Freed::No, "not so large");
        assert_eq!(zones.give_back(core::ptr::from_ref(record).addr() + 4, order, ME), Freed::No);
        assert_eq!(give_back(&zones, record, order, ME), kept);
        if order < 9 {
            assert_eq!(give_back(&zones, record, order, ME), Freed::No, "it is free");
            let frame = frame_of(&zones, record);
            assert_eq!(zones.free_pages(), MAX_BLOCK);
            assert_eq!(give_back(&zones, record, order, ME), Freed::No, "it is on a list");
            assert_eq!(zones.table().owner_of(frame), FrameOwner::Free);
        }
    }
}

/// S28: who finds too little has the spares brought home, and what the error says counts them.
#[test]
fn spares_are_there_for_whoever_finds_too_little_and_are_counted_exactly() {
    let records = records();
    let zones = zones(&records);
    for order in [0, 2] {
        let blocks: Vec<_> = (0..64 >> order).map(|_| taken(&zones, order)).collect();
        assert_eq!(zones.free_pages(), 0);
        assert_eq!(give_back(&zones, blocks[0], order, ME), Freed::Yes);
        let wanted = 1 << order;
        for pages in [wanted + 1, 64] {
            let refused = zones.allocate_list(pages, FrameOwner::Test);
            let Err(AllocateError::Exhausted { free, largest, .. }) = refused else {
                panic!("{pages} of {wanted}: {refused:?}");
            };
            assert_eq!((free, largest), (wanted, Some(order)));
        }
        // Not of the block's own order, so that it is not the spare that answers.
        let list = zones.allocate_list(wanted, FrameOwner::Test).expect("as many as there are");
        assert_eq!(zones.free_pages(), 0);
        zones.free_list(list).expect("as they were taken");
        // And a single frame out of a larger spare.
        let split = zones.allocate(0, FrameOwner::Test).expect("one of them");
        assert_eq!(zones.free_pages(), wanted - 1);
        zones.free(split).expect("as it was taken");
        for &record in &blocks[1..] {
            assert_eq!(give_back(&zones, record, order, ME), Freed::Yes);
        }
        zones.drain();
        assert_eq!((zones.free_pages(), zones.check()), (64, Ok(())));
    }
}

/// A larger run than any that is free without the spare, which is its middle.
#[test]
fn a_spare_stands_in_no_larger_blocks_way() {
    let records = records();
    let zones = zones(&records);
    let blocks: Vec<_> = (0..64).map(|_| taken(&zones, 0)).collect();
    for record in blocks {
        assert_eq!(give_back(&zones, record, 0, ME), Freed::Yes);
    }
    let all = zones.allocate(6, FrameOwner::Test).expect("64 frames side by side");
    assert_eq!(all.first(), Pfn::new(0x6_0000).expect("below 4 GiB"));
    zones.free(all).expect("as it was taken");
    assert_eq!(zones.check(), Ok(()));
}

/// Of two who give back the same block at once, by whichever ways, one is told that it was free.
#[test]
fn two_cpus_that_free_the_same_block_free_it_once() {
    const ROUNDS: u32 = 10_000;
    let records = records();
    let zones = zones(&records);
    // The block of the round, whose number is the other word; each says by a third that it has done, and freed it or not.
    let (block, begun, freed) =
        (AtomicU32::new(0), AtomicU32::new(0), [const { AtomicU32::new(0) }; 2]);
    let order_of = |round: u32| round % 2;
    let done = |cpu: usize, round: u32, is_free: bool| {
        freed[cpu].store(round << 1 | u32::from(is_free), Release);
    };
    let wait_for = |word: &AtomicU32, round: u32, shift: u32| {
        while word.load(Acquire) >> shift != round {
            core::hint::spin_loop();
        }
        word.load(Relaxed)
    };
    let mut wrong = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                wait_for(&begun, round, 0);
                let frame = Pfn::new(block.load(Relaxed)).expect("below 4 GiB");
                let outcome = zones.free_at(frame, order_of(round), ME);
                done(1, round, outcome == Ok(()));
            }
        });
        for round in 1..=ROUNDS {
            let record = taken(&zones, order_of(round));
            block.store(frame_of(&zones, record).number(), Relaxed);
            begun.store(round, Release);
            // The other is late, by what differs: now he comes first, now this one, and sometimes both at once.
            (0..round % 256).for_each(|_| core::hint::spin_loop());
            done(0, round, give_back(&zones, record, order_of(round), ME) == Freed::Yes);
            let [one, other] = [0, 1].map(|cpu| wait_for(&freed[cpu], round, 1) & 1);
            // Not judged here, where the other would wait for ever for the next round.
            wrong += u32::from(one + other != 1);
        }
    });
    assert_eq!(wrong, 0, "rounds in which both freed it, or neither");
    assert_eq!((zones.free_pages(), zones.check()), (64, Ok(())));
}

/// Locks behind which somebody waits, and counts the free frames as soon as one is left: what another CPU would find.
struct Watched;

struct WatchedLock<T>(MutexLock<T>);

thread_local! {
    /// The frames that are counted, and what was found; by this thread, which runs one test.
    static FOUND: RefCell<Option<(FrameTable<'static>, Vec<u32>)>> = const { RefCell::new(None) };
}

impl<T: Send> Lock<T> for WatchedLock<T> {
    fn new(class: Class, value: T) -> Self {
        Self(Lock::new(class, value))
    }

    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        let result = self.0.with(critical_section);
        FOUND.with_borrow_mut(|found| {
            if let Some((table, counts)) = found {
                counts.push(table.census().of(FrameOwner::Free));
            }
        });
        result
    }

    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_with(critical_section)
    }
}

impl Locks for Watched {
    type Lock<T: Send> = WatchedLock<T>;
    type SharedLock<T: Send + Sync> = MutexLock<T>;
    type Slot<'t, T: Sync + 't> = MutexSlot<'t, T>;
}

/// What is asked for in vain is not taken from the others for a moment: at no step does anybody find less free.
#[test]
fn a_hopeless_request_takes_nothing_meanwhile_s26_s28() {
    let first = Pfn::new(0x6_0000).expect("below 4 GiB");
    let records: Vec<Frame> = (0..3 * MAX_BLOCK).map(|_| Frame::new()).collect();
    let table = FrameTable::new(records.leak(), first).expect("aligned to a block");
    let division = Division { dma: MAX_BLOCK, low: 2 * MAX_BLOCK, nodes: Nodes::One };
    let others = Box::leak(Box::new(OtherZones::<Watched>::new(table, division)));
    let zones = Zones::divided(others, Box::leak(Box::new(Spares::new())));
    zones.add_range(first, table.len()).expect("absent");
    // From each zone a little is gone, so that no zone is one block.
    let held = [FrameRequest::ANY, FrameRequest::LOW, FrameRequest::of(ZoneKind::Dma)]
        .map(|request| zones.allocate_from(request, 0, ME).expect("there are enough"));
    let least = |request: FrameRequest, pages: u32| {
        FOUND.set(Some((table, Vec::new())));
        let taken = zones.allocate_list_from(request, pages, ME);
        let (_, counts) = FOUND.take().expect("set above");
        (counts.into_iter().min().expect("locks were taken"), taken)
    };
    let all = zones.free_pages();
    for request in [FrameRequest::ANY, FrameRequest::LOW, FrameRequest::of(ZoneKind::Dma)] {
        let free = zones.free_pages_of(request);
        for pages in [free + 1, 2 * free, u32::MAX] {
            let (found, taken) = least(request, pages);
            assert!(matches!(taken, Err(AllocateError::Exhausted { .. })), "{taken:?}");
            assert_eq!(found, all, "{pages} of {free}");
        }
        let (found, taken) = least(request, free);
        assert_eq!(found, all - free, "whoever counts sees what is taken");
        zones.free_list(taken.expect("all that is free")).expect("as it was taken");
    }
    for block in held {
        zones.free(block).expect("as it was taken");
    }
}
