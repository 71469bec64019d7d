//! Temporary mappings: how frames without linear addresses are reached (S117).

use super::bed::{Bed, CALLER, LowMemory, RAM, RAM_PAGES, WINDOW, frame, page};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, VirtAddr},
    attributes::Attributes,
    audit::{Place, Violation},
    frames::{FrameList, FrameOwner, FrameRequest},
    kernel_space::{Fill, VmallocError},
    kmap::{KmapError, KunmapError, SLOTS},
    layout::{KMAP_START, linear_address},
    ledger::{Count, Ledger},
};
use machine::{Behaviour, Fault, Kind, Privilege};
use std::thread;

const SEEDS: u64 = 4;

/// A kernel the upper half of whose memory is high.
fn bed(behaviour: Behaviour) -> Bed {
    let bed = Bed::divided(behaviour, LowMemory::Half, |machine| machine.cpu(0));
    bed.warm_up();
    bed
}

/// Frames of high memory, as all are that come first where any will do.
fn high(bed: &Bed, count: u32) -> (FrameList, Vec<Pfn>) {
    let zones = bed.space.zones();
    let list = zones.allocate_list_from(FrameRequest::ANY, count, FrameOwner::Test);
    let list = list.expect("free frames");
    let frames: Vec<Pfn> = list.frames(zones.table()).collect();
    assert!(frames.iter().all(|&frame| bed.space.linear().pages_of(frame, 1).is_none()));
    (list, frames)
}

#[track_caller]
fn assert_leads(bed: &Bed, address: VirtAddr, frame: Pfn) {
    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
        let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
        assert_eq!(reached, Ok(frame.base()), "{cpu:?}");
        assert_eq!(cpu.fetch(address), Err(Fault::Permission(address)), "{cpu:?} (S112)");
    }
}

#[track_caller]
fn assert_absent(bed: &Bed, address: VirtAddr) {
    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
        assert_eq!(cpu.load(address), Err(Fault::Translation(address)), "{cpu:?}");
    }
}

#[test]
fn each_frame_lies_between_two_gaps_and_no_cpu_remembers_it_s2_s23() {
    for behaviour in Behaviour::all(SEEDS) {
        let bed = bed(behaviour);
        bed.gives_back(|bed| {
            let (list, frames) = high(bed, 3);
            let held: Vec<_> = frames.iter().map(|&frame| bed.space.kmap(frame)).collect();
            assert_eq!(bed.space.temporary().taken(), 3);
            let mut gone = Vec::new();
            for (mapped, (&frame, number)) in held.iter().zip(frames.iter().zip(0..)) {
                let mapped = mapped.as_ref().expect("a slot");
                let address = mapped.page().start();
                assert!(mapped.is_temporary());
                assert_eq!(address, page(KMAP_START.page_number() + 2 * number));
                assert_leads(bed, address, frame);
                assert_absent(bed, page(address.page_number() + 1));
                gone.push(address);
            }
            bed.clean();
            drop(held);
            for address in gone {
                assert_absent(bed, address);
            }
            assert_eq!(bed.space.temporary().taken(), 0);
            bed.feed(list);
        });
    }
}

/// What is written through one mapping is read through the next, on the other CPU.
#[test]
fn contents_stay_when_the_mapping_goes() {
    for behaviour in Behaviour::all(SEEDS) {
        let bed = bed(behaviour);
        let (list, frames) = high(&bed, 2);
        for (&frame, word) in frames.iter().zip([0x5a00, 0x5a01]) {
            let mapped = bed.space.kmap(frame).expect("a slot");
            bed.machine.cpu(0).store(mapped.page().start(), word).expect("writable");
        }
        for (&frame, word) in frames.iter().zip([0x5a00, 0x5a01]).rev() {
            let mapped = bed.space.kmap(frame).expect("a slot");
            assert_eq!(bed.machine.cpu(1).load(mapped.page().start()), Ok(word), "{behaviour:?}");
        }
        bed.feed(list);
    }
}

#[test]
fn all_slots_can_be_held_and_one_more_is_an_error_not_a_wait() {
    let bed = bed(Behaviour::Hoarding);
    bed.gives_back(|bed| {
        let (list, frames) = high(bed, SLOTS + 1);
        let (last, most) = frames.split_last().expect("some");
        let mut held: Vec<_> =
            most.iter().map(|&frame| bed.space.kmap(frame).expect("a slot")).collect();
        let refused = bed.space.kmap(*last).map(|mapped| mapped.page());
        assert_eq!(refused, Err(KmapError::Exhausted { cpu: 0, slots: SLOTS }));
        let refused = bed.machine.cpu(0).interrupt(|| bed.space.kmap(*last).map(drop));
        assert_eq!(refused, Err(KmapError::Exhausted { cpu: 0, slots: SLOTS }));
        for (mapped, &frame) in held.iter().zip(most) {
            assert_leads(bed, mapped.page().start(), frame);
        }
        // One that goes is enough, whichever it was.
        let place = held.swap_remove(13).page();
        let again = bed.space.kmap(*last).expect("a slot");
        assert_eq!(again.page(), place);
        assert_leads(bed, place.start(), *last);
        drop((again, held));
        bed.feed(list);
    });
}

/// A handler takes slots above those of whoever it interrupts, and gives them back before it returns.
#[test]
fn a_handler_maps_in_the_middle_of_another_mapping() {
    let bed = bed(Behaviour::Hoarding);
    let (list, frames) = high(&bed, 2);
    let outer = bed.space.kmap(frames[0]).expect("a slot");
    let inner = bed.machine.cpu(0).interrupt(|| {
        let inner = bed.space.kmap(frames[1]).expect("a slot");
        assert_leads(&bed, inner.page().start(), frames[1]);
        inner.page().start()
    });
    assert_absent(&bed, inner);
    assert_leads(&bed, outer.page().start(), frames[0]);
    drop(outer);
    bed.feed(list);
}

#[test]
fn low_memory_has_its_linear_address_and_takes_no_slot() {
    let bed = bed(Behaviour::Hoarding);
    bed.changes_nothing(|bed| {
        let (list, frames) = bed.frames(1);
        let mapped = bed.space.kmap(frames[0]).expect("no slot is needed");
        assert_eq!(Some(mapped.page().start()), linear_address(frames[0].base()));
        assert!(!mapped.is_temporary());
        assert_eq!(bed.space.temporary().taken(), 0);
        drop(mapped);
        assert_leads(bed, page(frames[0].number() + 0x2_0000), frames[0]);
        bed.feed(list);
    });
}

/// S97, S112: what is nobody's, and what is mapped with another type, is not reached past its owner.
#[test]
fn frames_that_nobody_may_reach_are_refused_by_name() {
    let bed = bed(Behaviour::Forgetful);
    bed.gives_back(|bed| {
        let refused = |frame| bed.space.kmap(frame).map(drop);
        let free = frame(RAM + RAM_PAGES - 1);
        let owner = FrameOwner::Free;
        assert_eq!(refused(free), Err(KmapError::NotMemory { frame: free, owner }));
        let outside = frame(RAM + RAM_PAGES);
        assert!(matches!(refused(outside), Err(KmapError::NotMemory { .. })));
        let area = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
        let base = area.pages.start();
        let lent = bed.frame_at(base);
        let owner = FrameOwner::Dma;
        assert_eq!(refused(lent), Err(KmapError::Lent { frame: lent, owner }));
        assert_eq!(bed.space.temporary().taken(), 0);
        bed.space.coherent_free((), base, PAGE_SIZE).expect("a live area");
    });
}

#[test]
fn what_is_no_mapping_is_not_ended_and_changes_nothing() {
    let bed = bed(Behaviour::Hoarding);
    let (list, frames) = high(&bed, 2);
    let first = bed.space.kmap(frames[0]).expect("a slot").keep();
    let second = bed.space.kmap(frames[1]).expect("a slot").keep();
    let gap = page(first.page_number() + 1);
    let free = page(second.page_number() + 2);
    let last_gap = VirtAddr::new(u32::MAX);
    for address in [gap, free, last_gap, VirtAddr::new(0), page(WINDOW)] {
        assert_eq!(bed.space.kunmap((), address), Err(KunmapError { address }));
    }
    assert_leads(&bed, first, frames[0]);
    assert_leads(&bed, second, frames[1]);
    // Any address in the page will do, once.
    let inside = VirtAddr::new(first.raw() + 0xabc);
    assert_eq!(bed.space.kunmap((), inside), Ok(()));
    assert_eq!(bed.space.kunmap((), inside), Err(KunmapError { address: inside }));
    assert_absent(&bed, first);
    assert_leads(&bed, second, frames[1]);
    assert_eq!(bed.space.kunmap((), second), Ok(()));
    bed.feed(list);
}

/// S30, S117: vmalloc takes high memory first and fills it with zeros that every CPU sees.
#[test]
fn high_memory_is_filled_with_zeros_through_a_slot_s30() {
    for behaviour in Behaviour::all(SEEDS) {
        let bed = bed(behaviour);
        bed.gives_back(|bed| {
            let (list, frames) = high(bed, 3);
            for &frame in &frames {
                let mapped = bed.space.kmap(frame).expect("a slot");
                for word in [0, PAGE_SIZE - 4] {
                    let at = VirtAddr::new(mapped.page().start().raw() + word);
                    bed.machine.cpu(1).store(at, !0).expect("writable");
                }
            }
            bed.feed(list);
            let area = bed.space.vmalloc(3 * PAGE_SIZE, Fill::Zeroed, CALLER).expect("memory");
            for number in 0..3 {
                let base = page(area.pages.first() + number);
                assert!(bed.space.linear().pages_of(bed.frame_at(base), 1).is_none());
                for word in [0, PAGE_SIZE - 4] {
                    let at = VirtAddr::new(base.raw() + word);
                    assert_eq!(bed.machine.cpu(0).load(at), Ok(0), "{behaviour:?}");
                }
            }
            bed.space.vfree((), area.pages.start()).expect("a live area");
        });
    }
}

/// S28: with every slot held, high memory cannot be zeroed: an error of its own, and nothing stays taken.
#[test]
fn zeroed_memory_without_a_slot_is_refused_and_leaves_nothing_s28() {
    let bed = bed(Behaviour::Hoarding);
    let (list, frames) = high(&bed, SLOTS);
    let held: Vec<_> = frames.iter().map(|&frame| bed.space.kmap(frame).expect("a slot")).collect();
    bed.changes_nothing(|bed| {
        let refused = bed.space.vmalloc(2 * PAGE_SIZE, Fill::Zeroed, CALLER).map(|area| area.pages);
        let why = KmapError::Exhausted { cpu: 0, slots: SLOTS };
        assert_eq!(refused, Err(VmallocError::Zero(why)));
    });
    drop(held);
    bed.feed(list);
}

/// Without a window no slot can be had, and low memory needs none.
#[test]
fn a_kernel_whose_memory_is_all_low_has_no_slots() {
    let bed = Bed::new();
    assert!(bed.space.temporary().window().is_empty());
    let (list, frames) = bed.frames(1);
    assert!(bed.space.kmap(frames[0]).is_ok_and(|mapped| !mapped.is_temporary()));
    let refused = bed.space.kunmap((), KMAP_START);
    assert_eq!(refused, Err(KunmapError { address: KMAP_START }));
    bed.feed(list);
}

/// Two who are told the same CPU's number, as a thread that moves may be: no slot is given to both.
#[test]
fn two_who_take_slots_of_one_cpu_at_once_get_different_ones() {
    let bed = bed(Behaviour::Forgetful);
    let (list, frames) = high(&bed, 2 * 3);
    let bed = &bed;
    thread::scope(|scope| {
        for own in frames.chunks(3) {
            scope.spawn(move || {
                for round in 0..150_u32 {
                    let held = own.iter().map(|&frame| bed.space.kmap(frame).expect("a slot"));
                    let held: Vec<_> = held.collect();
                    for (mapped, &frame) in held.iter().zip(own) {
                        let at = mapped.page().start();
                        let reached = bed.machine.cpu(1).access(at, Kind::Write, Privilege::Kernel);
                        assert_eq!(reached, Ok(frame.base()), "round {round}");
                    }
                }
            });
        }
    });
    assert_eq!(bed.space.temporary().taken(), 0);
    bed.feed(list);
    bed.clean();
}

/// The ledger counts a mapping that is left, and the audit sees whatever else is wrong with one.
#[test]
fn the_audit_knows_what_is_held_and_the_ledger_counts_it() {
    let bed = bed(Behaviour::Forgetful);
    let (list, frames) = high(&bed, 1);
    let before = bed.ledger();
    let held = bed.space.kmap(frames[0]).expect("a slot").keep();
    assert_eq!(bed.count(Count::TemporaryMappings), 1);
    let lines = |ledger: &Ledger| -> Vec<String> {
        before.leaks(ledger).map(|leak| leak.to_string()).collect()
    };
    assert_eq!(lines(&bed.ledger()), ["temporary mappings: 1 more"]);
    bed.clean();
    let place = Place::Temporary;
    let slot = bed.l2_slot(held);

    let right = bed.poke(slot, 0);
    bed.finds(&[Violation::Missing { address: held, place, wanted: None }]);
    let (wanted, had) = (Attributes::KERNEL_DATA, Attributes::KERNEL_TEXT);
    bed.poke_page(held, frames[0], had);
    bed.finds(&[Violation::WrongAttributes { address: held, place, wanted, had }]);
    let free = frame(RAM + RAM_PAGES - 1);
    bed.poke_page(held, free, Attributes::KERNEL_DATA);
    let had = FrameOwner::Free;
    bed.finds(&[Violation::NotInUse { address: held, place, frame: free, had }]);
    bed.poke(slot, right);

    let gap = page(held.page_number() + 1);
    let next = page(held.page_number() + 2);
    for address in [gap, next] {
        bed.poke_page(address, frames[0], Attributes::KERNEL_DATA);
        bed.finds(&[Violation::Present { address, place, had: frames[0].base() }]);
        bed.poke(bed.l2_slot(address), 0);
    }
    assert_eq!(bed.space.kunmap((), held), Ok(()));
    bed.poke(slot, right);
    bed.finds(&[Violation::Present { address: held, place, had: frames[0].base() }]);
    bed.poke(slot, 0);
    bed.feed(list);
    bed.clean();
}

/// S105: a step that may not fail reaches its frame when every slot of the CPU is held, and in the handler that interrupts; nobody
/// reaches it afterwards, and whoever asks for a slot is refused as before.
#[test]
fn a_frame_is_reached_for_a_step_when_all_slots_are_held_s105() {
    for behaviour in Behaviour::all(SEEDS) {
        let bed = bed(behaviour);
        bed.gives_back(|bed| {
            let (list, frames) = high(bed, SLOTS + 2);
            let held: Vec<_> = frames.iter().skip(2).map(|&frame| bed.space.kmap(frame)).collect();
            assert!(held.iter().all(Result::is_ok));
            for &frame in frames.iter().take(2) {
                let step = || {
                    let reached = bed.space.reach(frame, |page| {
                        assert_leads(bed, page.start(), frame);
                        page.start()
                    });
                    let address = reached.expect("there always is an address");
                    assert_absent(bed, address);
                    address
                };
                let address = step();
                assert_eq!(bed.machine.cpu(0).interrupt(step), address);
                assert_eq!(bed.space.temporary().taken(), SLOTS);
                let refused = bed.space.kmap(frame).map(drop);
                assert_eq!(refused, Err(KmapError::Exhausted { cpu: 0, slots: SLOTS }));
            }
            drop(held);
            let (low, own) = bed.frames(1);
            let linear = bed.space.reach(own[0], |page| page);
            assert_eq!(linear.ok(), bed.space.linear().pages_of(own[0], 1));
            bed.feed(low);
            bed.feed(list);
        });
    }
}

/// What is nobody's memory is not reached either.
#[test]
fn a_frame_that_is_free_is_not_reached_by_a_step() {
    let bed = bed(Behaviour::Forgetful);
    let (list, frames) = high(&bed, 1);
    bed.feed(list);
    let refused = bed.space.reach(frames[0], |_| panic!("reached"));
    assert!(matches!(refused, Err(KmapError::NotMemory { frame, .. }) if frame == frames[0]));
}
