//! vmalloc of a few pages, made and ended in one critical section: what that leaves out is left out by nobody, and what is not at
//! hand, or not as it should be, is done or refused as it always was, with nothing left behind.

use super::bed::{Bed, CALLER, RAM, WINDOW, frame, page};
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    area::{AreaFlags, AreaKind},
    attributes::Attributes,
    frames::FrameOwner,
    kernel_space::{Fill, RemoveError, VmallocError},
    ledger::Count,
    page_table::MapError,
};
use machine::{Behaviour, Fault, Kind, Privilege};

/// Blocks of each small order, and what is made the general way beside them.
const COUNTS: [u32; 8] = [1, 2, 3, 4, 5, 7, 8, 9];

fn nth(base: VirtAddr, number: u32) -> VirtAddr {
    VirtAddr::new(base.raw() + number * PAGE_SIZE)
}

/// S13, S16, S27, S33, and S23: what takes the place of an area is seen there at once, on every CPU.
#[test]
fn few_pages_come_and_go_and_no_tlb_remembers_them_s16_s23_s27() {
    for behaviour in Behaviour::all(4) {
        let bed = Bed::warm_on(behaviour);
        bed.gives_back(|bed| {
            // At first no block waits.
            for fill in [Fill::Uninitialised, Fill::Uninitialised, Fill::Zeroed] {
                for count in COUNTS {
                    let area = bed.space.vmalloc(count * PAGE_SIZE, fill, CALLER).expect("memory");
                    let base = area.pages.start();
                    assert_eq!(base, page(WINDOW), "the lowest place, each time");
                    assert_eq!(bed.space.find(base), Some(area));
                    assert_eq!((area.kind, area.flags), (AreaKind::Vmalloc, AreaFlags::ALLOC));
                    assert_eq!((area.pages.count(), area.caller, area.users), (count, CALLER, 0));
                    for number in 0..count {
                        let (address, behind) =
                            (nth(base, number), bed.frame_at(nth(base, number)));
                        assert_eq!(bed.space.zones().table().owner_of(behind), FrameOwner::Vmalloc);
                        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                            let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                            assert_eq!(reached, Ok(behind.base()), "{behaviour:?}");
                            if fill == Fill::Zeroed {
                                assert_eq!(cpu.load(address), Ok(0), "{behaviour:?}");
                            }
                        }
                        let pointer = bed.space.zones().table().pointer_to(behind);
                        let noted = bed.space.with_area(base, |record| {
                            record.within[number as usize]
                                .load(std::sync::atomic::Ordering::Relaxed)
                        });
                        assert_eq!(noted, Some(pointer), "page {number} of {count}");
                        bed.machine.cpu(0).store(address, 0xdead_beef).expect("mapped");
                    }
                    let guard = nth(base, count);
                    assert_eq!(bed.machine.cpu(1).load(guard), Err(Fault::Translation(guard)));
                    bed.clean();
                    assert_eq!(bed.space.vfree((), base), Ok(()));
                    assert_eq!(bed.space.find(base), None);
                    for number in 0..count {
                        let gone = Err(Fault::Translation(nth(base, number)));
                        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                            assert_eq!(cpu.load(nth(base, number)), gone, "{behaviour:?}");
                        }
                    }
                    bed.clean();
                }
            }
        });
    }
}

/// S17: what is there stays and is named; addresses, record and frames are back.
#[test]
fn a_slot_in_use_is_named_wherever_it_stands_s17_s29() {
    let bed = Bed::warm();
    for count in COUNTS {
        for index in 0..count {
            let address = page(WINDOW + index);
            bed.changes_nothing(|bed| {
                // A block of that size waits, so that it is at hand.
                let waits = bed.vmalloc(count);
                bed.space.vfree((), waits).expect("a live area");
                let before = bed.poke_page(address, frame(RAM), Attributes::KERNEL_RODATA);
                assert_eq!(before, 0, "{address} was in use");
                let descriptor = bed.poke(bed.l2_slot(address), 0);
                bed.poke(bed.l2_slot(address), descriptor);
                let occupied = MapError::Occupied { address, descriptor, mapped: 0 };
                let refused = bed.space.vmalloc(count * PAGE_SIZE, Fill::Uninitialised, CALLER);
                assert_eq!(refused, Err(VmallocError::Map(occupied)), "slot {index} of {count}");
                assert_eq!(bed.poke(bed.l2_slot(address), 0), descriptor, "the entry stays");
            });
        }
    }
}

/// S24: no table yet, and pages on both sides of the border of two: neither is at hand, and both are done.
#[test]
fn what_needs_a_table_or_two_is_made_too_s16_s24() {
    let bed = Bed::new();
    let base = bed.vmalloc(2);
    let below = bed.vmalloc(256 - 3 - 1 - 2);
    assert_eq!(below, nth(base, 3));
    let across = bed.vmalloc(4);
    assert_eq!(across, page(WINDOW + 256 - 2));
    for number in 0..4 {
        let behind = bed.frame_at(nth(across, number));
        assert_eq!(bed.space.zones().table().owner_of(behind), FrameOwner::Vmalloc);
    }
    bed.clean();
    for area in [base, across, below] {
        assert_eq!(bed.space.vfree((), area), Ok(()));
        assert_eq!(bed.machine.cpu(0).load(area), Err(Fault::Translation(area)));
    }
    assert_eq!(bed.count(Count::Areas), 0);
}

/// S14, S32, S34: what is no area of vmalloc is refused by name, and a second removal too.
#[test]
fn foreign_and_double_removals_change_nothing_s14_s32_s34() {
    let bed = Bed::warm();
    let base = bed.vmalloc(2);
    let (list, frames) = bed.frames(1);
    let vmap = bed.space.vmap_pages(&bed.records(&frames), AreaFlags::NONE, CALLER);
    let vmap = vmap.expect("addresses");
    let (inside, odd) = (nth(base, 1), VirtAddr::new(base.raw() + 4));
    let found = AreaKind::Vmap;
    for (address, why) in [
        (inside, RemoveError::Unknown { address: inside }),
        (nth(base, 2), RemoveError::Unknown { address: nth(base, 2) }),
        (odd, RemoveError::Misaligned { address: odd }),
        (vmap, RemoveError::WrongKind { address: vmap, found }),
    ] {
        assert_eq!(bed.space.vfree((), address), Err(why));
        bed.clean();
    }
    assert_eq!(bed.space.vfree((), base), Ok(()));
    assert_eq!(bed.space.vfree((), base), Err(RemoveError::Unknown { address: base }));
    bed.space.vunmap((), vmap).expect("a live area");
    bed.feed(list);
    bed.clean();
}

/// S21: what is not mapped any more goes the way that looks at each slot.
#[test]
fn an_area_with_a_page_that_is_not_mapped_goes_all_the_same_s21_s25() {
    for count in [1, 2, 4] {
        for index in 0..count {
            let bed = Bed::warm();
            let base = bed.vmalloc(count);
            bed.poke(bed.l2_slot(nth(base, index)), 0);
            assert_eq!(bed.space.vfree((), base), Ok(()), "slot {index} of {count}");
            for number in 0..count {
                assert_eq!(bed.poke(bed.l2_slot(nth(base, number)), 0), 0);
            }
            assert_eq!(bed.count(Count::Areas), 0);
            bed.clean();
        }
    }
}
