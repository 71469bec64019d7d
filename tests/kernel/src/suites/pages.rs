//! Page frames from the live allocator: sizes, alignment, exhaustion, and mistaken frees by their right names (S117).

extern crate alloc;

use alloc::vec::Vec;

use boot::layout::{PARTS, parts};
use kerncore::addr::{PAGE_SIZE, Pfn, VirtAddr};
use kerncore::frames::{AllocateError, FrameOwner, FrameRequest, FreeError, MAX_ORDER};
use kerncore::layout::linear_physical;
use ktest::{assert_err, ktest};
use mm::Kernel;
use mm::page_alloc::Pages;

use super::witness::{ask_host, authority, linear};

fn kernel() -> &'static Kernel {
    mm::kernel()
}

/// Of low memory, which is what most here take.
fn free_pages() -> u32 {
    kernel().zones().free_pages_of(FrameRequest::LOW)
}

/// How many frames are free once the heap has room for what a test puts there, so that it takes none meanwhile.
fn free_pages_at_first() -> u32 {
    drop(core::hint::black_box(Vec::<u8>::with_capacity(128 << 10)));
    free_pages()
}

/// Writes a word of its own into every page of `pages`.
fn stamp(pages: &mut Pages) {
    let first = pages.first().number();
    for (page, number) in pages.chunks_exact_mut(PAGE_SIZE as usize).zip(first..) {
        page[..4].copy_from_slice(&number.to_le_bytes());
        page[PAGE_SIZE as usize - 4..].copy_from_slice(&(!number).to_le_bytes());
    }
}

#[track_caller]
fn check(pages: &Pages) {
    let first = pages.first().number();
    for (page, number) in pages.chunks_exact(PAGE_SIZE as usize).zip(first..) {
        assert_eq!(page[..4], number.to_le_bytes(), "frame {number:#x}");
        assert_eq!(page[PAGE_SIZE as usize - 4..], (!number).to_le_bytes(), "frame {number:#x}");
    }
    ask_host(linear(pages.first()));
}

#[ktest]
fn every_order_is_aligned_to_its_size_and_exact() {
    let before = free_pages_at_first();
    for order in 0..=MAX_ORDER {
        let pages = Pages::new(order).unwrap_or_else(|error| panic!("order {order}: {error}"));
        assert_eq!(pages.count(), 1 << order);
        assert_eq!(pages.len(), (PAGE_SIZE as usize) << order);
        assert!(
            pages.first().number().is_multiple_of(1 << order),
            "order {order} at {}",
            pages.first()
        );
        assert_eq!(linear_physical(pages.address()), Some(pages.physical()));
        assert_eq!(free_pages(), before - (1 << order));
        drop(pages);
        assert_eq!(free_pages(), before, "order {order}");
    }
}

#[ktest]
fn blocks_of_all_orders_held_at_once_are_disjoint() {
    let before = free_pages_at_first();
    let mut held: Vec<_> =
        (0..=MAX_ORDER).chain(0..=8).filter_map(|order| Pages::new(order).ok()).collect();
    assert!(held.len() >= 11, "memory for one block of each order");
    held.iter_mut().for_each(stamp);
    held.iter().for_each(check);
    let mut runs: Vec<_> = held.iter().map(|pages| (pages.first(), pages.count())).collect();
    runs.sort_unstable();
    for pair in runs.windows(2) {
        assert!(pair[0].0.number() + pair[0].1 <= pair[1].0.number(), "{pair:?}");
    }
    drop(held);
    assert_eq!(free_pages(), before);
}

#[ktest]
fn exact_counts_take_no_frame_more_odd_or_not() {
    let before = free_pages_at_first();
    let mut held = Vec::new();
    let mut taken = 0;
    for count in
        [1, 2, 3, 5, 7, 9, 15, 17, 31, 33, 63, 100, 127, 129, 255, 333, 511, 513, 1023, 1024]
    {
        let mut pages = Pages::exactly(count).unwrap_or_else(|error| panic!("{count}: {error}"));
        taken += count;
        assert_eq!(pages.count(), count);
        assert_eq!(free_pages(), before - taken, "{count} frames");
        let alignment = count.next_power_of_two();
        assert!(pages.first().number().is_multiple_of(alignment), "{count} at {}", pages.first());
        for frame in pages.frames() {
            assert_eq!(kernel().zones().table().owner_of(frame), FrameOwner::Pages);
        }
        let behind = pages.first().checked_add(count).expect("a frame");
        assert!(pages.frames().all(|frame| frame < behind));
        assert_eq!(pages.frames().count(), count as usize);
        stamp(&mut pages);
        held.push(pages);
    }
    held.iter().for_each(check);
    // Every second first, so that the tails are merged from both sides.
    let rest: Vec<_> = held
        .into_iter()
        .enumerate()
        .filter_map(|(place, pages)| (place % 2 == 1).then_some(pages))
        .collect();
    rest.iter().for_each(check);
    drop(rest);
    assert_eq!(free_pages(), before);
}

#[ktest]
fn nothing_and_too_much_are_refused_by_name() {
    let before = free_pages_at_first();
    assert_err!(Pages::exactly(0), AllocateError::Zero { owner: FrameOwner::Pages });
    assert_err!(Pages::exactly(1025), AllocateError::TooLarge { pages: 1025, .. });
    assert_err!(Pages::exactly(u32::MAX), AllocateError::TooLarge { pages: u32::MAX, .. });
    assert_err!(Pages::new(11), AllocateError::TooLarge { pages: 2048, .. });
    assert_err!(Pages::new(31), AllocateError::TooLarge { .. });
    assert_err!(Pages::new(32), AllocateError::TooLarge { .. });
    assert_err!(Pages::new(u32::MAX), AllocateError::TooLarge { .. });
    for owner in [FrameOwner::Free, FrameOwner::Absent] {
        let refused = kernel().zones().allocate(0, owner);
        assert_err!(refused, AllocateError::NotAnOwner { owner: named } if named == owner);
    }
    assert_eq!(free_pages(), before);
}

/// All of it, frame by frame, each written to, and all back: and then the largest blocks are there again.
#[ktest]
fn memory_can_be_taken_to_the_last_frame_and_comes_back_whole() {
    let zones = kernel().zones();
    zones.drain();
    let blocks = |order: usize| zones.table().census().free_blocks[order];
    let largest = blocks(MAX_ORDER as usize);
    let before = free_pages_at_first();
    let mut frames = kerncore::frames::FrameList::new();
    let mut count = 0;
    let refused = loop {
        match zones.allocate(0, FrameOwner::Test) {
            Ok(block) => {
                let address = kerncore::layout::linear_address(block.first().base());
                let address = address.expect("RAM is in the linear map");
                // SAFETY: a frame of ours.
                unsafe { arch::probe::write_u32(address, block.first().number()) }.expect("RAM");
                frames.push(zones.table(), block);
                count += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(count, before, "frames that count as free and cannot be had");
    assert_eq!(free_pages(), 0);
    assert_eq!(
        refused,
        AllocateError::Exhausted {
            pages: 1,
            owner: FrameOwner::Test,
            free: 0,
            largest: None,
            from: FrameRequest::LOW
        }
    );
    for order in [0, 1, 10] {
        assert_err!(Pages::new(order), AllocateError::Exhausted { free: 0, largest: None, .. });
    }
    for frame in frames.frames(zones.table()) {
        let address = kerncore::layout::linear_address(frame.base()).expect("RAM");
        assert_eq!(arch::probe::read_u32(address), Ok(frame.number()), "given out twice");
    }
    zones.free_list(frames).expect("they were ours");
    zones.drain();
    assert_eq!(free_pages(), before);
    assert_eq!(blocks(MAX_ORDER as usize), largest, "memory did not merge");
}

#[ktest]
fn a_list_is_all_or_nothing() {
    let zones = kernel().zones();
    let before = free_pages_at_first();
    let refused = zones.allocate_list(before + 1, FrameOwner::Test);
    assert_err!(refused, AllocateError::Exhausted { pages, free, .. } if pages == before + 1 && free == before);
    assert_eq!(free_pages(), before);
    let all = zones.allocate_list(before, FrameOwner::Test).expect("all that is free");
    assert_eq!((free_pages(), all.pages()), (0, before));
    zones.free_list(all).expect("it was ours");
    assert_eq!(free_pages(), before);
}

/// A block of a test's own, by number.
fn raw(order: u32) -> Pfn {
    kernel().zones().allocate(order, FrameOwner::Test).expect("memory").leak().0
}

fn free_at(frame: Pfn, order: u32, owner: FrameOwner) -> Result<(), FreeError> {
    kernel().free_frames_at(authority(), frame, order, owner)
}

#[ktest]
fn a_second_free_is_diagnosed_and_changes_nothing() {
    for order in [0, 1, 3, 10] {
        let before = free_pages_at_first();
        let frame = raw(order);
        assert_eq!(free_at(frame, order, FrameOwner::Test), Ok(()));
        assert_eq!(free_pages(), before);
        assert_eq!(
            free_at(frame, order, FrameOwner::Test),
            Err(FreeError::AlreadyFree { frame }),
            "order {order}"
        );
        // Also after it has been merged into something larger.
        kernel().zones().drain();
        assert_eq!(free_at(frame, order, FrameOwner::Test), Err(FreeError::AlreadyFree { frame }));
        assert_eq!(free_pages(), before);
    }
}

#[ktest]
fn a_free_in_another_s_name_or_of_another_size_is_diagnosed_and_changes_nothing() {
    let before = free_pages_at_first();
    let head = raw(2);
    let inside = head.checked_add(1).expect("a frame");
    let (owner, other) = (FrameOwner::Test, FrameOwner::Pages);
    assert_eq!(
        free_at(head, 2, other),
        Err(FreeError::OtherOwner { frame: head, owner, claimed: other })
    );
    for order in [0, 1] {
        assert_eq!(
            free_at(head, order, owner),
            Err(FreeError::WrongOrder { frame: head, owner, order, actual: 2 })
        );
    }
    assert_eq!(
        free_at(inside, 0, owner),
        Err(FreeError::InsideBlock { frame: inside, head, order: 2, owner })
    );
    assert_err!(free_at(inside, 1, owner), FreeError::InsideBlock { frame, .. } if frame == inside);
    let too_large = head.number().trailing_zeros() + 1;
    for order in [too_large, 11, 32, u32::MAX] {
        assert_eq!(
            free_at(head, order, owner),
            Err(FreeError::Misaligned { frame: head, order }),
            "a block of order {order} cannot begin there"
        );
    }
    assert_eq!(free_pages(), before - 4, "a refused free took effect");
    assert_eq!(kernel().zones().table().block_of(inside), Some((head, 2, owner)));
    assert_eq!(free_at(head, 2, owner), Ok(()));
    assert_eq!(free_pages(), before);
}

#[ktest]
fn memory_of_the_image_and_no_memory_cannot_be_freed() {
    let before = free_pages_at_first();
    for part in parts().iter().take(PARTS - 1) {
        let frame = linear_physical(part.pages.start()).expect("linear").pfn();
        assert_eq!(
            free_at(frame, 0, FrameOwner::KernelImage),
            Err(FreeError::Reserved { frame, owner: FrameOwner::KernelImage }),
            "the {}",
            part.name
        );
    }
    let table = kernel().zones().table();
    let behind = table.first().number() + table.len();
    for number in [0, table.first().number() - 1, behind, 0xf_ffff] {
        let frame = Pfn::new(number).expect("a frame");
        assert_eq!(free_at(frame, 0, FrameOwner::Test), Err(FreeError::NotManaged { frame }));
    }
    assert_eq!(free_pages(), before);
}

/// Also the frame table cannot be freed, by whomever.
#[ktest]
fn the_frame_table_s_own_frames_are_reserved() {
    let table = kernel().zones().table();
    let record = table.frame(table.first()).expect("the first record");
    let address = VirtAddr::new(core::ptr::from_ref(record) as u32);
    let frame = linear_physical(address).expect("linear").pfn();
    assert_eq!(table.owner_of(frame), FrameOwner::FrameTable);
    assert_err!(free_at(frame, 0, FrameOwner::FrameTable), FreeError::Reserved { .. });
    assert_eq!(table.frame_at_record(address.raw() as usize), Some(table.first()));
    assert_eq!(table.frame_at_record(address.raw() as usize + 8), None);
    assert_eq!(table.frame_at_record(address.raw() as usize - 16), None);
}

#[ktest]
fn pages_survive_a_long_row_of_takes_and_returns() {
    let before = free_pages_at_first();
    let mut held: Vec<Pages> = Vec::with_capacity(64);
    let mut number = 12_345_u32;
    for _ in 0..4000 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if held.len() == 64 || (number >> 28 < 7 && !held.is_empty()) {
            let gone = held.swap_remove((number >> 8) as usize % held.len());
            check(&gone);
        } else {
            let mut pages = Pages::exactly(1 + (number >> 12) % 70).expect("memory");
            stamp(&mut pages);
            held.push(pages);
        }
    }
    held.iter().for_each(check);
    drop(held);
    assert_eq!(free_pages(), before);
    let audit = kernel().zones().check();
    assert!(audit.is_ok(), "{audit:?}");
}

#[ktest]
fn pages_come_and_go_with_interrupts_masked() {
    let before = free_pages_at_first();
    arch::irq::masked(|| {
        let mut pages = Pages::exactly(3).expect("memory");
        stamp(&mut pages);
        check(&pages);
        assert!(arch::irq::are_masked());
    });
    assert_eq!(free_pages(), before);
}
