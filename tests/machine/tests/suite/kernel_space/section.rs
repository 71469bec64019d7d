//! A section made and ended in one critical section: what that leaves out is left out by nobody (S23, S24, S90).

use super::bed::{Bed, CALLER, WINDOW_PAGES, l1_slot};
use kerncore::{
    addr::{PAGE_SIZE, SECTION_SIZE, VirtAddr},
    descriptor::PageSize,
    frames::FrameOwner,
    kernel_space::{Fill, RemoveError},
    machine::Machine,
};
use machine::{Behaviour, Fault, Kind, Privilege};

const PLACES: [u32; 4] = [0, 1, 200, 255];

fn nth(base: VirtAddr, number: u32) -> VirtAddr {
    VirtAddr::new(base.raw() + number * PAGE_SIZE)
}

fn section(bed: &Bed, fill: Fill) -> VirtAddr {
    let area = bed.space.vmalloc_huge(SECTION_SIZE, fill, CALLER).expect("memory").pages;
    assert_eq!(area.start().raw() % SECTION_SIZE, 0);
    let found = bed.space.table().translate(area.start()).expect("mapped");
    assert_eq!(found.size, PageSize::Section);
    area.start()
}

/// S13, S23, S86: with a table below it for the first time, which must wait, or without one; the frames as they were, or zero.
#[test]
fn a_section_comes_and_goes_and_no_tlb_remembers_it_s23_s24_s86_s90() {
    for behaviour in Behaviour::all(1) {
        for tables in [0, WINDOW_PAGES - 1] {
            let bed = Bed::warm_on(behaviour);
            if tables != 0 {
                let all = bed.vmalloc(tables);
                bed.space.vfree((), all).expect("a live area");
            }
            let made = bed.space.table_memory().tables_made();
            bed.gives_back(|bed| {
                let below = bed.vmalloc(1);
                let last = if behaviour == Behaviour::Forgetful {
                    Fill::Zeroed
                } else {
                    Fill::Uninitialised
                };
                for fill in [Fill::Uninitialised, last] {
                    let base = section(bed, fill);
                    let first = bed.frame_at(base).base();
                    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                        for place in PLACES {
                            let address = nth(base, place);
                            let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                            assert_eq!(reached, Ok(bed.frame_at(address).base()));
                            if fill == Fill::Zeroed {
                                assert_eq!(cpu.load(address), Ok(0), "{behaviour:?}");
                            }
                        }
                        let run = cpu.access(base, Kind::Execute, Privilege::Kernel);
                        assert_eq!(run, Err(Fault::Permission(base)));
                        let guard = nth(base, 256);
                        assert_eq!(cpu.load(guard), Err(Fault::Translation(guard)));
                    }
                    for place in PLACES {
                        bed.machine.cpu(0).store(nth(base, place), 0xdead_beef).expect("mapped");
                    }
                    assert_eq!(
                        bed.space.zones().table().owner_of(first.pfn()),
                        FrameOwner::Vmalloc
                    );
                    assert_eq!(bed.space.vfree((), base), Ok(()));
                    assert_eq!(bed.space.find(base), None);
                    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                        for place in PLACES {
                            let gone = Err(Fault::Translation(nth(base, place)));
                            assert_eq!(cpu.load(nth(base, place)), gone, "{behaviour:?}");
                        }
                    }
                }
                // Small pages there lead to their own frames.
                let small = bed.vmalloc(300);
                for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                    for number in [0, 254, 299] {
                        let address = nth(small, number);
                        let reached = cpu.access(address, Kind::Read, Privilege::Kernel);
                        assert_eq!(reached, Ok(bed.frame_at(address).base()));
                    }
                }
                bed.space.vfree((), small).expect("a live area");
                bed.space.vfree((), below).expect("a live area");
            });
            let more = bed.space.table_memory().tables_made() - made;
            assert_eq!(more == 0, tables != 0, "a table that waited came back");
        }
    }
}

/// S22: what should be its section and is none any more is found, as ever, and the pages are not freed while it maps them.
#[test]
fn a_slot_that_is_no_section_any_more_is_left_to_the_general_way_s22() {
    let bed = Bed::warm();
    let _below = bed.vmalloc(1);
    for _ in 0..2 {
        let base = section(&bed, Fill::Uninitialised);
        let slot = l1_slot(base);
        bed.poke(slot, 0);
        // Unmapped behind its back: there is nothing to clear, and its frames go.
        bed.space.vfree((), base).expect("a live area");
        assert_eq!(bed.machine.cpu(0).read_descriptor(slot), 0);
        bed.clean();
    }
}

/// S32, S34: who is not what is to be freed.
#[test]
fn what_is_inside_a_section_is_not_freed_s32() {
    let bed = Bed::warm();
    let _below = bed.vmalloc(1);
    for _ in 0..3 {
        let base = section(&bed, Fill::Uninitialised);
        let inside = nth(base, 1);
        assert_eq!(bed.space.vfree((), inside), Err(RemoveError::Unknown { address: inside }));
        assert!(bed.space.vunmap((), base).is_err());
        bed.space.vfree((), base).expect("a live area");
        assert_eq!(bed.space.vfree((), base), Err(RemoveError::Unknown { address: base }));
    }
    bed.clean();
}
