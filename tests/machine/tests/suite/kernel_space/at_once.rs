//! vmap by page pointers, and what is made and removed in one critical section: what the common cases leave out is left out by
//! nobody, and what is not common is refused as it always was, by name and with nothing changed.

use std::cmp::Reverse;

use super::bed::{Bed, CALLER, RAM, RAM_PAGES, TEXT, WINDOW, frame, page};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, VirtAddr},
    area::{AreaFlags, AreaKind, Mapping},
    attributes::Attributes,
    frames::{Frame, FrameBlock, FrameOwner},
    kernel_space::{MOST_AT_ONCE, RemoveError, VmapError},
    ledger::Count,
    page_table::MapError,
    va_space::Request,
};
use machine::{Behaviour, Fault, Kind, Privilege};

const NONE: AreaFlags = AreaFlags::NONE;
/// One; a few; as many as are looked at together, and one less and more; the most that are mapped at once, and more.
const COUNTS: [u32; 9] = [1, 3, 4, 7, 8, 9, 13, MOST_AT_ONCE, MOST_AT_ONCE + 3];

fn map(bed: &Bed, records: &[*const Frame]) -> Result<VirtAddr, VmapError> {
    bed.space.vmap_pages(records, NONE, CALLER)
}

fn nth(base: VirtAddr, number: u32) -> VirtAddr {
    VirtAddr::new(base.raw() + number * PAGE_SIZE)
}

/// Frames that do not follow each other, lest they become a large mapping.
fn scattered(bed: &Bed, count: u32, test: impl FnOnce(&[Pfn])) {
    let (list, mut frames) = bed.frames(count);
    frames.reverse();
    test(&frames);
    bed.feed(list);
}

/// As [`scattered`], and then with frames that were taken one by one, whose records all say the same: those of one block mostly
/// say nothing by themselves.
fn scattered_and_alike(bed: &Bed, count: u32, test: impl Fn(&[Pfn])) {
    scattered(bed, count, &test);
    let zones = bed.space.zones();
    let one = |_| zones.allocate(0, FrameOwner::Test).expect("a free frame");
    let blocks: Vec<FrameBlock> = (0..count).map(one).collect();
    let mut frames: Vec<Pfn> = blocks.iter().map(FrameBlock::first).collect();
    frames.sort_unstable_by_key(|frame| Reverse(frame.number()));
    test(&frames);
    for block in blocks {
        zones.free(block).expect("ours");
    }
}

#[track_caller]
fn nothing_is_mapped(bed: &Bed, base: VirtAddr, count: u32) {
    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
        for number in 0..count {
            let gone = nth(base, number);
            assert_eq!(cpu.load(gone), Err(Fault::Translation(gone)), "page {number} of {count}");
        }
    }
}

/// S2, S13, S16, S37, and S23: the same addresses lead elsewhere at once, on every CPU.
#[test]
fn pages_are_mapped_in_their_order_and_no_tlb_remembers_them_s16_s23_s37() {
    for behaviour in Behaviour::all(4) {
        let bed = Bed::warm_on(behaviour);
        scattered_and_alike(&bed, MOST_AT_ONCE + 4, |frames| {
            bed.gives_back(|bed| {
                for count in COUNTS {
                    for shift in [0, 1] {
                        let frames = &frames[shift..count as usize + shift];
                        let base = map(bed, &bed.records(frames)).expect("addresses");
                        assert_eq!(base, page(WINDOW), "the lowest place, each time");
                        for (&frame, number) in frames.iter().zip(0..) {
                            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                                let address = nth(base, number);
                                let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                                assert_eq!(reached, Ok(frame.base()), "{behaviour:?}");
                            }
                        }
                        let guard = nth(base, count);
                        assert_eq!(bed.machine.cpu(1).load(guard), Err(Fault::Translation(guard)));
                        let area = bed.space.find(base).expect("live");
                        assert_eq!((area.kind, area.caller), (AreaKind::Vmap, CALLER));
                        assert_eq!((area.pages.count(), area.users), (count, 0));
                        bed.clean();
                        assert_eq!(bed.space.vunmap((), base), Ok(()));
                        assert_eq!(bed.space.find(base), None);
                        nothing_is_mapped(bed, base, count);
                    }
                }
            });
        });
    }
}

/// S18, S37, S97, S112: whichever page it is, among those that are looked at together too.
#[test]
fn a_page_that_may_not_be_mapped_is_named_wherever_it_stands_s18_s37() {
    let bed = Bed::warm();
    let (free, owner) = (frame(RAM + RAM_PAGES - 1), FrameOwner::Free);
    let not_memory = VmapError::NotMemory { frame: free, owner };
    let (text, owner) = (bed.frame_at(TEXT), FrameOwner::KernelImage);
    let protection = VmapError::Protection { frame: text, owner, wanted: Attributes::KERNEL_DATA };
    for count in COUNTS {
        scattered_and_alike(&bed, count, |frames| {
            bed.changes_nothing(|bed| {
                let good = bed.records(frames);
                for index in 0..count {
                    let missing = VmapError::MissingFrame { index };
                    for (bad, why) in [
                        (std::ptr::null(), missing),
                        (good[0].wrapping_byte_add(8), missing),
                        (bed.records(&[free])[0], not_memory),
                        (bed.records(&[text])[0], protection),
                    ] {
                        let mut records = good.clone();
                        records[index as usize] = bad;
                        assert_eq!(map(bed, &records), Err(why), "page {index} of {count}");
                        nothing_is_mapped(bed, page(WINDOW), count);
                    }
                }
            });
        });
    }
}

#[test]
fn no_pages_and_more_than_there_are_frames_are_refused_s37() {
    let bed = Bed::warm();
    scattered(&bed, 1, |frames| {
        bed.changes_nothing(|bed| {
            assert_eq!(map(bed, &[]), Err(VmapError::NoPages));
            let many = vec![bed.records(frames)[0]; RAM_PAGES as usize + 1];
            let (wanted, total) = (many.len(), RAM_PAGES);
            assert_eq!(map(bed, &many), Err(VmapError::MoreThanMemory { wanted, total }));
        });
    });
}

/// S17: what is there stays, is named, and nothing is mapped beside it.
#[test]
fn a_slot_in_use_is_named_wherever_it_stands_s17_s37() {
    let bed = Bed::warm();
    for count in COUNTS {
        scattered_and_alike(&bed, count, |frames| {
            let records = bed.records(frames);
            for index in 0..count {
                let address = page(WINDOW + index);
                bed.changes_nothing(|bed| {
                    let before = bed.poke_page(address, frame(RAM), Attributes::KERNEL_RODATA);
                    assert_eq!(before, 0, "{address} was in use");
                    let descriptor = bed.poke(bed.l2_slot(address), 0);
                    bed.poke(bed.l2_slot(address), descriptor);
                    let occupied = MapError::Occupied { address, descriptor, mapped: 0 };
                    let refused = map(bed, &records);
                    assert_eq!(refused, Err(VmapError::Map(occupied)), "slot {index} of {count}");
                    nothing_is_mapped(bed, page(WINDOW), index);
                    assert_eq!(bed.poke(bed.l2_slot(address), 0), descriptor, "the entry stays");
                });
            }
        });
    }
}

/// S24, S47: no table yet, and pages on both sides of the border of two: neither is done at once, and both are done.
#[test]
fn what_needs_a_table_or_two_is_mapped_too_s16_s24() {
    let bed = Bed::new();
    scattered(&bed, 4, |frames| {
        let records = bed.records(frames);
        assert_eq!(bed.space.vmap_at_hand(&records, NONE, CALLER), None);
        bed.clean();
        let base = map(&bed, &records).expect("addresses and a table");
        let below = bed.vmalloc(256 - 5 - 1 - 3);
        assert_eq!(below, nth(base, 5));
        assert_eq!(bed.space.vmap_at_hand(&records, NONE, CALLER), None, "across the border");
        let across = map(&bed, &records).expect("addresses");
        assert_eq!(across, page(WINDOW + 256 - 3));
        for (&frame, number) in frames.iter().zip(0..) {
            assert_eq!(bed.frame_at(nth(across, number)), frame);
        }
        bed.clean();
        for area in [base, across] {
            assert_eq!(bed.space.vunmap((), area), Ok(()));
            nothing_is_mapped(&bed, area, 4);
        }
        bed.space.vfree((), below).expect("a live area");
    });
    assert_eq!(bed.count(Count::Areas), 0);
}

/// S14, S32, S34: what is no vmap area is refused by name, and a second removal too.
#[test]
fn foreign_and_double_removals_change_nothing_s14_s32_s34() {
    let bed = Bed::warm();
    scattered(&bed, 2, |frames| {
        let base = map(&bed, &bed.records(frames)).expect("addresses");
        let vmalloc = bed.vmalloc(2);
        let (inside, odd) = (nth(base, 1), VirtAddr::new(base.raw() + 4));
        let found = AreaKind::Vmalloc;
        for (address, why) in [
            (inside, RemoveError::Unknown { address: inside }),
            (odd, RemoveError::Misaligned { address: odd }),
            (vmalloc, RemoveError::WrongKind { address: vmalloc, found }),
        ] {
            assert_eq!(bed.space.vunmap((), address), Err(why));
            bed.clean();
        }
        assert_eq!(bed.space.vunmap((), base), Ok(()));
        let gone = RemoveError::Unknown { address: base };
        assert_eq!(bed.space.vunmap((), base), Err(gone));
        bed.space.vfree((), vmalloc).expect("a live area");
    });
    bed.clean();
}

/// S12, S48: a bare area comes and goes with its descriptor; another's descriptor frees nothing.
#[test]
fn a_bare_area_goes_by_its_own_descriptor_alone_s12_s48() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let reserve = |pages: u32| {
            let request = Request::of_bytes(pages * PAGE_SIZE);
            bed.space.reserve_area(request, AreaFlags::IOREMAP, CALLER).expect("addresses")
        };
        let (one, two) = (reserve(2), reserve(300));
        assert_eq!(one.area.pages.start(), page(WINDOW));
        assert_eq!(two.area.pages.start(), page(WINDOW + 3));
        for bare in [one, two] {
            let base = bare.area.pages.start();
            assert_eq!(bed.space.find(base), Some(bare.area));
            let is_it = |record: &kerncore::area::AreaRecord| {
                assert!(matches!(record.mapping, Mapping::Reserved { .. }));
                &raw const record.vm
            };
            assert_eq!(bed.space.with_area(base, is_it), Some(bare.descriptor));
        }
        let address = one.area.pages.start();
        let refused = bed.space.free_area((), address, two.descriptor);
        assert_eq!(refused, Err(RemoveError::Unknown { address }));
        assert_eq!(bed.count(Count::Areas), 2);
        for bare in [one, two] {
            let base = bare.area.pages.start();
            assert_eq!(bed.space.free_area((), base, bare.descriptor), Ok(()));
            assert_eq!(bed.space.find(base), None);
        }
    });
}
