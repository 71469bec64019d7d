//! `vm_map_ram` and `vm_unmap_ram`: short-lived mappings from blocks (S87).

use super::bed::{Bed, CALLER, RAM, RAM_PAGES, TEXT, WINDOW, WINDOW_PAGES, frame, page};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, VirtAddr},
    area::AreaKind,
    attributes::{Attributes, MemoryType},
    descriptor::l2,
    frames::FrameOwner,
    kernel_space::{RemoveError, VmapError},
    ledger::Count,
    map_ram::{BLOCK_PAGES, LARGEST},
    page_table::MapError,
};
use machine::{Behaviour, Fault, Kind, Privilege};
use std::{
    sync::{Barrier, Mutex},
    thread,
};

const SEEDS: u64 = 12;

fn map(bed: &Bed, frames: &[Pfn]) -> VirtAddr {
    bed.space.map_ram(&bed.records(frames), CALLER).expect("addresses")
}

fn unmap(bed: &Bed, address: VirtAddr, count: u32) {
    assert_eq!(bed.space.unmap_ram((), address, count), Ok(()));
}

fn nth(address: VirtAddr, number: u32) -> VirtAddr {
    VirtAddr::new(address.raw() + number * PAGE_SIZE)
}

#[test]
fn frames_are_mapped_in_their_order_behind_a_guard_and_stay_their_owners_s2_s87() {
    for behaviour in Behaviour::all(SEEDS) {
        let bed = Bed::warm_on(behaviour);
        bed.gives_back(|bed| {
            let (list, mut frames) = bed.frames(7);
            frames.swap(1, 5);
            let (one, two) = (map(bed, &frames), map(bed, &frames[..1]));
            assert_eq!(two, nth(one, 8), "a guard lies between");
            for (&frame, number) in frames.iter().zip(0..) {
                for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                    let reached = cpu.access(nth(one, number), Kind::Write, Privilege::Kernel);
                    assert_eq!(reached, Ok(frame.base()));
                }
            }
            assert_eq!(bed.machine.cpu(1).load(nth(one, 7)), Err(Fault::Translation(nth(one, 7))));
            bed.clean();
            unmap(bed, one, 7);
            unmap(bed, two, 1);
            let owner = |frame: &Pfn| bed.space.zones().table().owner_of(*frame);
            assert!(frames.iter().all(|frame| owner(frame) == FrameOwner::Test));
            bed.feed(list);
        });
    }
}

/// S23: as soon as the unmapping returns, no CPU reaches the frames, which may go to somebody else, nor finds anything old at
/// the addresses, which may be used again.
#[test]
fn no_tlb_remembers_a_mapping_that_was_given_back_s23_s87() {
    for behaviour in Behaviour::all(SEEDS) {
        let bed = Bed::warm_on(behaviour);
        let (list, frames) = bed.frames(LARGEST + 1);
        for count in [1, 3, LARGEST] {
            let address = map(&bed, &frames[..count as usize]);
            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                for number in 0..count {
                    cpu.load(nth(address, number)).expect("mapped");
                }
            }
            unmap(&bed, address, count);
            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                for number in 0..count {
                    let gone = nth(address, number);
                    assert_eq!(cpu.load(gone), Err(Fault::Translation(gone)), "{behaviour:?}");
                }
            }
            // The same address leads elsewhere at once.
            let again = map(&bed, &frames[LARGEST as usize..]);
            assert_eq!(again, address);
            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                let reached = cpu.access(again, Kind::Read, Privilege::Kernel);
                assert_eq!(reached, Ok(frames[LARGEST as usize].base()), "{behaviour:?}");
            }
            unmap(&bed, again, 1);
        }
        bed.feed(list);
        bed.clean();
    }
}

#[test]
fn what_no_fragment_holds_gets_an_area_of_its_own_s87() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let (list, frames) = bed.frames(LARGEST + 1);
        let large = map(bed, &frames);
        let area = bed.space.find(large).expect("an area");
        assert_eq!((area.kind, area.pages.count()), (AreaKind::MapRam, LARGEST + 1));
        assert_eq!(bed.clean().areas, [0, 0, 0, 0, 0, 1, 0]);
        let small = map(bed, &frames[1..]);
        assert_eq!(
            bed.space.find_containing(small).map(|area| area.kind),
            Some(AreaKind::MapRamBlock)
        );
        assert_eq!(bed.clean().areas, [0, 0, 0, 0, 0, 1, 1]);
        let wanted = LARGEST;
        let found = LARGEST + 1;
        let refused = RemoveError::OtherSize { address: large, found, wanted };
        assert_eq!(bed.space.unmap_ram((), large, wanted), Err(refused));
        unmap(bed, large, found);
        unmap(bed, small, LARGEST);
        bed.feed(list);
    });
}

/// The block is an area; what is cut from it touches the set of areas no more.
#[test]
fn fragments_take_nothing_from_the_set_of_areas_s87() {
    let bed = Bed::warm();
    let (list, frames) = bed.frames(3);
    let first = map(&bed, &frames);
    let block = bed.space.find_containing(first).expect("a block");
    assert_eq!((block.kind, block.pages.count()), (AreaKind::MapRamBlock, BLOCK_PAGES));
    let before = bed.space.area_counts();
    let others: Vec<VirtAddr> = (0..60).map(|_| map(&bed, &frames)).collect();
    assert_eq!(bed.space.area_counts(), before);
    for other in others {
        unmap(&bed, other, 3);
    }
    assert_eq!(bed.space.area_counts(), before);
    unmap(&bed, first, 3);
    assert_eq!(bed.space.area_counts(), before, "an idle block is kept");
    assert_eq!(bed.space.close_idle_blocks(), 1);
    assert_eq!(bed.count(Count::Areas), 0);
    bed.feed(list);
}

#[test]
fn a_used_up_block_goes_with_its_last_fragment_s87() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let (list, frames) = bed.frames(LARGEST);
        let held: Vec<VirtAddr> = (0..4).map(|_| map(bed, &frames)).collect();
        assert_eq!(bed.clean().areas, [0, 0, 0, 0, 0, 0, 2]);
        // From the middle, so that the order in which they came tells nothing.
        unmap(bed, held[1], LARGEST);
        unmap(bed, held[2], LARGEST);
        assert_eq!(bed.clean().areas, [0, 0, 0, 0, 0, 0, 2]);
        unmap(bed, held[0], LARGEST);
        assert_eq!(bed.clean().areas, [0, 0, 0, 0, 0, 0, 1]);
        let gone = RemoveError::Unknown { address: held[0] };
        assert_eq!(bed.space.unmap_ram((), held[0], LARGEST), Err(gone));
        unmap(bed, held[3], LARGEST);
        bed.feed(list);
    });
}

#[test]
fn foreign_double_and_mismatched_unmaps_change_nothing_s87() {
    let bed = Bed::warm();
    let (list, frames) = bed.frames(4);
    let vmap = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER).expect("addresses");
    let (vmap, vmalloc) = (vmap.pages.start(), bed.vmalloc(4));
    let (one, two) = (map(&bed, &frames), map(&bed, &frames));
    unmap(&bed, two, 4);
    let unknown = |address| RemoveError::Unknown { address };
    let kind = |address, found| RemoveError::WrongKind { address, found };
    let size = |address, wanted| RemoveError::OtherSize { address, found: 4, wanted };
    bed.space.close_idle_blocks();
    for (address, count, refusal) in [
        (two, 4, unknown(two)),
        (one, 3, size(one, 3)),
        (one, 0, size(one, 0)),
        (one, LARGEST + 1, size(one, LARGEST + 1)),
        (nth(one, 1), 3, unknown(nth(one, 1))),
        (nth(one, 4), 4, unknown(nth(one, 4))),
        (
            VirtAddr::new(one.raw() + 8),
            4,
            RemoveError::Misaligned { address: VirtAddr::new(one.raw() + 8) },
        ),
        (vmap, 4, kind(vmap, AreaKind::Vmap)),
        (vmalloc, 4, kind(vmalloc, AreaKind::Vmalloc)),
        (page(WINDOW + WINDOW_PAGES), 1, unknown(page(WINDOW + WINDOW_PAGES))),
        (TEXT, 1, unknown(TEXT)),
    ] {
        assert_eq!(bed.space.unmap_ram((), address, count), Err(refusal), "{address}, {count}");
        bed.clean();
    }
    let block = bed.space.find_containing(one).expect("a block").pages.start();
    let found = AreaKind::MapRamBlock;
    assert_eq!(bed.space.vunmap((), block), Err(kind(block, found)));
    assert_eq!(bed.space.vfree((), block), Err(kind(block, found)));
    for (&frame, number) in frames.iter().zip(0..) {
        assert_eq!(bed.frame_at(nth(one, number)), frame);
    }
    unmap(&bed, one, 4);
    bed.space.vunmap((), vmap).expect("a live area");
    bed.space.vfree((), vmalloc).expect("a live area");
    bed.feed(list);
    assert_eq!(bed.count(Count::Areas), 0);
}

#[test]
fn what_vmap_would_refuse_is_refused_with_nothing_left_mapped_s18_s37_s97_s112() {
    for behaviour in Behaviour::all(4) {
        let bed = Bed::warm_on(behaviour);
        let (list, frames) = bed.frames(3);
        let lent = bed.space.coherent_alloc(1, FrameOwner::Dma, CALLER).expect("memory");
        let warm = map(&bed, &frames);
        unmap(&bed, warm, 3);
        bed.gives_back(|bed| {
            let table = bed.space.zones().table();
            let record = |frame| std::ptr::from_ref(table.frame(frame).expect("RAM"));
            let refused = |records: &[_]| bed.space.map_ram(records, CALLER).expect_err("refused");
            assert_eq!(refused(&[]), VmapError::NoPages);
            let many = vec![record(frames[0]); RAM_PAGES as usize + 1];
            let wanted = many.len();
            assert_eq!(refused(&many), VmapError::MoreThanMemory { wanted, total: RAM_PAGES });
            // Whoever is refused stands behind others that would have been mapped, alike and not.
            let behind = |last| [record(frames[0]), record(frames[1]), last];
            let misaligned = record(frames[0]).wrapping_byte_add(8);
            for pointer in [std::ptr::null(), misaligned] {
                assert_eq!(refused(&behind(pointer)), VmapError::MissingFrame { index: 2 });
            }
            let free = frame(RAM + RAM_PAGES - 1);
            let owner = FrameOwner::Free;
            assert_eq!(refused(&behind(record(free))), VmapError::NotMemory { frame: free, owner });
            let (frame, owner) = (lent.physical.pfn(), FrameOwner::Dma);
            let wanted = MemoryType::NormalWriteBack;
            assert_eq!(
                refused(&behind(record(frame))),
                VmapError::MemoryType { frame, owner, wanted }
            );
            let (frame, owner) = (bed.frame_at(TEXT), FrameOwner::KernelImage);
            let wanted = Attributes::KERNEL_DATA;
            assert_eq!(
                refused(&behind(record(frame))),
                VmapError::Protection { frame, owner, wanted }
            );
            let gone = warm;
            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                assert_eq!(cpu.load(gone), Err(Fault::Translation(gone)));
            }
        });
        bed.feed(list);
        bed.space.coherent_free((), lent.pages.start(), 1).expect("a live area");
    }
}

/// Frames inside a block of several are known by the block's head.
#[test]
fn frames_of_a_larger_block_are_mapped_like_others_s87() {
    let bed = Bed::warm();
    let block = bed.space.zones().allocate(3, FrameOwner::Test).expect("memory");
    let frames: Vec<Pfn> =
        (0..8).map(|number| block.first().checked_add(number).expect("RAM")).collect();
    let address = map(&bed, &frames);
    bed.clean();
    for (&frame, number) in frames.iter().zip(0..) {
        assert_eq!(bed.frame_at(nth(address, number)), frame);
    }
    unmap(&bed, address, 8);
    bed.space.zones().free(block).expect("the test's own");
}

/// S37: a page that may not be mapped is found wherever it stands in a long list, whose pages are looked at four at a time.
#[test]
fn a_long_list_is_refused_for_any_one_page_of_it_s37_s87() {
    const PAGES: u32 = 13;
    let bed = Bed::warm();
    let (list, frames) = bed.frames(PAGES);
    let warm = map(&bed, &frames);
    unmap(&bed, warm, PAGES);
    let (free, owner) = (frame(RAM + RAM_PAGES - 1), FrameOwner::Free);
    bed.gives_back(|bed| {
        for index in 0..PAGES {
            for (bad, why) in [
                (std::ptr::null(), VmapError::MissingFrame { index }),
                (bed.records(&[free])[0], VmapError::NotMemory { frame: free, owner }),
            ] {
                let mut records = bed.records(&frames);
                records[index as usize] = bad;
                assert_eq!(bed.space.map_ram(&records, CALLER), Err(why));
                for number in 0..PAGES {
                    let gone = nth(warm, number);
                    assert_eq!(bed.machine.cpu(1).load(gone), Err(Fault::Translation(gone)));
                }
            }
        }
    });
    bed.feed(list);
}

/// S21: a mapping that somebody has tampered with ends all the same, and its addresses can be used again.
#[test]
fn a_mapping_with_a_gap_ends_like_any_other_s21_s87() {
    let bed = Bed::warm();
    for count in [3, 12] {
        let (list, frames) = bed.frames(count);
        let address = map(&bed, &frames);
        assert_ne!(bed.poke(bed.l2_slot(nth(address, 1)), 0), 0);
        unmap(&bed, address, count);
        assert_eq!(map(&bed, &frames), address);
        unmap(&bed, address, count);
        bed.feed(list);
    }
    bed.clean();
}

/// S17: a slot that somebody else wrote is not overwritten.
#[test]
fn a_slot_in_use_is_refused_and_left_alone_s17() {
    let bed = Bed::warm();
    let (list, frames) = bed.frames(3);
    let address = map(&bed, &frames);
    unmap(&bed, address, 3);
    let descriptor = l2::Descriptor::SmallPage(frames[0], Attributes::KERNEL_DATA);
    let descriptor = descriptor.encode().expect("a small page");
    let slot = bed.l2_slot(nth(address, 2));
    bed.poke(slot, descriptor);
    let refused = bed.space.map_ram(&bed.records(&frames), CALLER).expect_err("in use");
    let at = nth(address, 2);
    let wanted = VmapError::Map(MapError::Occupied { address: at, descriptor, mapped: 0 });
    assert_eq!(refused, wanted);
    assert_eq!(bed.poke(slot, 0), descriptor);
    bed.clean();
    let again = map(&bed, &frames);
    assert_eq!(again, address);
    unmap(&bed, again, 3);
    bed.feed(list);
}

/// S87, S92: who finds no addresses for a block gets an area; who finds none for an area ends idle blocks first.
#[test]
fn without_room_for_a_block_an_area_serves_and_idle_blocks_make_room_s87() {
    let bed = Bed::warm();
    let (list, frames) = bed.frames(2);
    // One page at the foot of each section.
    let sections = WINDOW_PAGES / 256;
    let fill = |bytes: u32| {
        let fill = kerncore::kernel_space::Fill::Uninitialised;
        bed.space.vmalloc(bytes, fill, CALLER).expect("addresses").pages.start()
    };
    let mut held: Vec<VirtAddr> = Vec::new();
    for _ in 0..sections {
        held.push(fill(PAGE_SIZE));
        held.push(fill(253 * PAGE_SIZE));
    }
    for gap in (1..held.len()).step_by(2) {
        bed.space.vfree((), held[gap]).expect("a live area");
    }
    let address = map(&bed, &frames);
    assert_eq!(bed.space.find(address).map(|area| area.kind), Some(AreaKind::MapRam));
    unmap(&bed, address, 2);
    bed.space.vfree((), held[0]).expect("a live area");
    let address = map(&bed, &frames);
    let block = bed.space.find_containing(address).expect("a block");
    assert_eq!(block.kind, AreaKind::MapRamBlock);
    unmap(&bed, address, 2);
    let largest = fill(255 * PAGE_SIZE);
    assert_eq!(largest, block.pages.start(), "the idle block made room");
    bed.space.vfree((), largest).expect("a live area");
    held.iter().skip(2).step_by(2).for_each(|&area| bed.space.vfree((), area).expect("live"));
    bed.feed(list);
    assert_eq!(bed.count(Count::Areas), 0);
}

/// Fragments made by one thread are ended by another, while both map and unmap; one end of each succeeds.
#[test]
fn fragments_are_ended_by_whoever_has_them_and_once_s87() {
    const ROUNDS: u32 = 200;
    let bed = Bed::warm();
    let (list, frames) = bed.frames(40);
    bed.gives_back(|bed| {
        let passed: Mutex<Vec<(VirtAddr, u32)>> = Mutex::new(Vec::new());
        let barrier = Barrier::new(3);
        let passed = &passed;
        let records = bed.records(&frames).iter().map(|record| record.addr()).collect::<Vec<_>>();
        thread::scope(|scope| {
            for number in 0..3_u32 {
                let (records, frames, barrier) = (&records, &frames, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for round in 0..ROUNDS {
                        let count = 1 + (round * 11 + number * 5) % 40;
                        let pages: Vec<*const kerncore::frames::Frame> = records
                            .iter()
                            .take(count as usize)
                            .map(|&address| std::ptr::with_exposed_provenance(address))
                            .collect();
                        let address = bed.space.map_ram(&pages, CALLER).expect("addresses");
                        let last = count - 1;
                        let reached = bed.space.table().translate(nth(address, last));
                        let reached = reached.expect("mapped").physical.pfn();
                        assert_eq!(reached, frames[last as usize]);
                        // A few stay with whoever comes next, the oldest of them the longest.
                        let taken = {
                            let mut passed = passed.lock().expect("whole");
                            passed.push((address, count));
                            let which = round as usize % 2 * (passed.len() - 1);
                            (passed.len() > 4).then(|| passed.remove(which))
                        };
                        if let Some((address, count)) = taken {
                            assert_eq!(bed.space.unmap_ram((), address, count), Ok(()));
                        }
                    }
                });
            }
        });
        for (address, count) in passed.lock().expect("whole").drain(..) {
            unmap(bed, address, count);
        }
    });
    bed.feed(list);
}
