mod by_address;
mod check;
mod lists;

use super::*;
use crate::addr::Pfn;

/// The first frame of the board's RAM.
const RAM: u32 = 0x6_0000;

fn frame(number: u32) -> Pfn {
    Pfn::new(number).expect("below 4 GiB")
}

fn records(count: usize) -> Vec<Frame> {
    (0..count).map(|_| Frame::new()).collect()
}

/// An allocator over `records` from [`RAM`], all of them free.
#[track_caller]
fn full(records: &[Frame]) -> FrameAllocator<'_> {
    let table = FrameTable::new(records, frame(RAM)).expect("aligned, below 4 GiB");
    let mut allocator = FrameAllocator::new(table);
    allocator.add_range(frame(RAM), table.len()).expect("nothing was added yet");
    allocator
}

#[track_caller]
fn sound(allocator: &FrameAllocator<'_>) {
    assert_eq!(allocator.check(), Ok(()));
}

#[test]
fn every_order_is_aligned_to_its_size_and_comes_back_whole() {
    let records = records(4096);
    let mut allocator = full(&records);
    for order in 0..=MAX_ORDER {
        let block = allocator.allocate(order, FrameOwner::Test).expect("4,096 frames are free");
        assert_eq!(block.pages(), 1 << order);
        assert!(block.first().number().trailing_zeros() >= order, "{block:?}");
        assert_eq!(allocator.table().owner_of(block.first()), FrameOwner::Test);
        assert_eq!(allocator.free_pages(), 4096 - (1 << order));
        sound(&allocator);
        assert_eq!(allocator.free(block), Ok(()));
        sound(&allocator);
    }
    allocator.drain();
    assert_eq!(allocator.table().census().free_blocks[MAX_ORDER as usize], 4);
}

#[test]
fn odd_regions_merge_up_to_their_largest_aligned_blocks_and_not_across_the_hole() {
    let records = records(4096);
    let table = FrameTable::new(&records, frame(RAM)).expect("aligned, below 4 GiB");
    let mut allocator = FrameAllocator::new(table);
    // 3..1029 and 1031..4096: the two frames between are a hole.
    allocator.add_range(frame(RAM + 3), 1026).expect("free");
    allocator.add_range(frame(RAM + 1031), 3065).expect("free");
    sound(&allocator);
    let before = table.census();
    assert_eq!(before.of(FrameOwner::Absent), 3 + 2);
    assert_eq!(before.free_blocks[10], 2);
    let mut all = FrameList::new();
    while let Ok(block) = allocator.allocate(0, FrameOwner::Test) {
        all.push(&table, block);
    }
    assert_eq!(all.pages(), 4091);
    assert_eq!(allocator.free_pages(), 0);
    // One by one, so that each merge is the allocator's own.
    while let Some(block) = all.pop(&table) {
        assert_eq!(allocator.free(block), Ok(()));
    }
    allocator.drain();
    sound(&allocator);
    assert_eq!(table.census(), before);
}

#[test]
fn an_exact_count_is_adjacent_aligned_to_its_order_and_costs_no_frame_more() {
    let records = records(2048);
    let mut allocator = full(&records);
    for pages in 1..=MAX_BLOCK {
        let block = allocator.allocate_pages(pages, FrameOwner::Dma).expect("2,048 are free");
        assert_eq!(block.pages(), pages);
        assert!(block.first().number().trailing_zeros() >= order_for(pages));
        assert_eq!(allocator.free_pages(), 2048 - pages);
        assert_eq!(allocator.table().census().of(FrameOwner::Dma), pages);
        assert_eq!(allocator.check(), Ok(()), "{pages} pages");
        assert_eq!(allocator.free(block), Ok(()));
    }
    allocator.drain();
    sound(&allocator);
    assert_eq!(allocator.table().census().free_blocks[10], 2);
}

#[test]
fn exhaustion_says_what_is_free_and_how_large_the_largest_block_is() {
    let records = records(64);
    let mut allocator = full(&records);
    let kept = allocator.allocate_pages(33, FrameOwner::Heap).expect("64 are free");
    assert_eq!(
        allocator.allocate(5, FrameOwner::Dma),
        Err(AllocateError::Exhausted {
            pages: 32,
            owner: FrameOwner::Dma,
            free: 31,
            largest: Some(4),
            from: FrameRequest::ANY
        })
    );
    assert_eq!(
        allocator.allocate_list(32, FrameOwner::Vmalloc).map(|list| list.pages()),
        Err(AllocateError::Exhausted {
            pages: 32,
            owner: FrameOwner::Vmalloc,
            free: 31,
            largest: Some(4),
            from: FrameRequest::ANY
        })
    );
    assert_eq!(allocator.free_pages(), 31, "a list is all or nothing");
    sound(&allocator);
    let rest = allocator.allocate_list(31, FrameOwner::Vmalloc).expect("31 are free");
    assert_eq!(
        allocator.allocate(0, FrameOwner::Dma),
        Err(AllocateError::Exhausted {
            pages: 1,
            owner: FrameOwner::Dma,
            free: 0,
            largest: None,
            from: FrameRequest::ANY
        })
    );
    assert_eq!(allocator.free_list(rest), Ok(()));
    assert_eq!(allocator.free(kept), Ok(()));
    sound(&allocator);
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    let records = records(2048);
    let mut allocator = full(&records);
    let owner = FrameOwner::Test;
    assert_eq!(allocator.allocate(11, owner), Err(AllocateError::TooLarge { pages: 2048, owner }));
    assert_eq!(
        allocator.allocate(u32::MAX, owner),
        Err(AllocateError::TooLarge { pages: u32::MAX, owner })
    );
    assert_eq!(
        allocator.allocate_pages(1025, owner),
        Err(AllocateError::TooLarge { pages: 1025, owner })
    );
    assert_eq!(allocator.allocate_pages(0, owner), Err(AllocateError::Zero { owner }));
    let absent = FrameOwner::Absent;
    for order in [0, 10] {
        assert_eq!(
            allocator.allocate(order, absent),
            Err(AllocateError::NotAnOwner { owner: absent })
        );
    }
    assert_eq!(allocator.free_pages(), 2048);
}

#[test]
fn a_list_keeps_its_order_and_joins_without_losing_a_frame() {
    let records = records(256);
    let mut allocator = full(&records);
    let table = allocator.table();
    let mut list = allocator.allocate_list(70, FrameOwner::Vmalloc).expect("256 are free");
    let other = allocator.allocate_list(5, FrameOwner::Vmalloc).expect("186 are free");
    let frames: Vec<Pfn> = list.frames(&table).chain(other.frames(&table)).collect();
    list.append(&table, other);
    list.append(&table, FrameList::new());
    list.push(&table, allocator.allocate_pages(7, FrameOwner::Dma).expect("free"));
    assert_eq!(list.pages(), 82);
    assert_eq!(list.frames(&table).len(), 82);
    let joined: Vec<Pfn> = list.frames(&table).collect();
    assert_eq!(joined.len(), 82);
    assert_eq!(joined[..75], frames);
    let mut unique = joined.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 82, "no frame twice");
    let first = list.pop(&table).expect("82 frames");
    assert_eq!(first.first(), joined[0]);
    assert_eq!(allocator.free(first), Ok(()));
    assert_eq!(allocator.free_list(list), Ok(()));
    allocator.drain();
    sound(&allocator);
    assert_eq!(table.census().free_blocks[8], 1);
}

#[test]
fn a_list_is_made_of_what_waits_in_front_when_nothing_else_is_left() {
    let records = records(64);
    let mut allocator = full(&records);
    let blocks: Vec<FrameBlock> =
        (0..32).map(|_| allocator.allocate(1, FrameOwner::Test).expect("64 are free")).collect();
    for block in blocks {
        assert_eq!(allocator.free(block), Ok(()));
    }
    assert!(allocator.waiting_pages() > 0);
    sound(&allocator);
    let all = allocator.allocate_list(64, FrameOwner::Test).expect("64 are free");
    assert_eq!((all.pages(), allocator.free_pages()), (64, 0));
    sound(&allocator);
    assert_eq!(allocator.free_list(all), Ok(()));
    // And what waits in front is merged before a large request is refused.
    assert!(allocator.allocate(6, FrameOwner::Test).is_ok());
}

#[test]
fn each_wrong_free_is_told_apart_and_changes_nothing() {
    let records = records(3072);
    let table = FrameTable::new(&records, frame(RAM)).expect("aligned, below 4 GiB");
    let mut allocator = FrameAllocator::new(table);
    table.reserve(frame(RAM), 16, FrameOwner::KernelImage).expect("absent");
    allocator.add_range(frame(RAM + 1024), 1024).expect("absent");
    let owner = FrameOwner::Pages;
    let (first, _) = allocator.allocate(3, owner).expect("free").leak();
    let other = allocator.allocate(0, FrameOwner::Vmalloc).expect("free");
    let inside = first.checked_add(1).expect("below 4 GiB");
    let before = table.census();
    let cases = [
        (frame(RAM - 1), 0, FreeError::NotManaged { frame: frame(RAM - 1) }),
        (frame(RAM + 3072), 0, FreeError::NotManaged { frame: frame(RAM + 3072) }),
        (frame(RAM + 16), 0, FreeError::NotManaged { frame: frame(RAM + 16) }),
        (frame(RAM + 2048), 3, FreeError::NotManaged { frame: frame(RAM + 2048) }),
        (
            frame(RAM + 5),
            0,
            FreeError::Reserved { frame: frame(RAM + 5), owner: FrameOwner::KernelImage },
        ),
        (frame(RAM + 2047), 0, FreeError::AlreadyFree { frame: frame(RAM + 2047) }),
        (inside, 0, FreeError::InsideBlock { frame: inside, head: first, order: 3, owner }),
        (first, 2, FreeError::WrongOrder { frame: first, owner, order: 2, actual: 3 }),
        (first, 11, FreeError::Misaligned { frame: first, order: 11 }),
        // In a record's state an order has eight bits; this one must not pass for 3.
        (first, 259, FreeError::Misaligned { frame: first, order: 259 }),
        (other.first(), 5, FreeError::Misaligned { frame: other.first(), order: 5 }),
        (
            other.first(),
            0,
            FreeError::OtherOwner {
                frame: other.first(),
                owner: FrameOwner::Vmalloc,
                claimed: owner,
            },
        ),
    ];
    for (frame, order, error) in cases {
        assert_eq!(allocator.free_at(frame, order, owner), Err(error));
        assert_eq!(table.census(), before, "{error}");
        sound(&allocator);
    }
    assert_eq!(allocator.free_at(first, 3, owner), Ok(()));
    let again = Err(FreeError::AlreadyFree { frame: first });
    assert_eq!(allocator.free_at(first, 3, owner), again, "while it waits in front");
    allocator.drain();
    assert_eq!(allocator.free_at(first, 3, owner), again, "when it was merged");
    assert_eq!(allocator.free_at(inside, 0, owner), Err(FreeError::AlreadyFree { frame: inside }));
    assert_eq!(allocator.free(other), Ok(()));
}

#[test]
fn what_is_taken_and_given_back_at_once_touches_no_list_but_the_front_one() {
    let records = records(1024);
    let mut allocator = full(&records);
    let owner = FrameOwner::Pages;
    assert!(allocator.take_waiting(0, owner).is_none(), "nothing came back yet");
    for order in [0, 4] {
        let (first, _) = allocator.allocate(order, owner).expect("free").leak();
        let record = allocator.table().frame(first).expect("in the table");
        let before = allocator.table().census();
        for (order, owner) in [(order, FrameOwner::Slab), (order + 1, owner), (u32::MAX, owner)] {
            assert_eq!(allocator.give_back(record, order, owner), Freed::No);
            assert_eq!(allocator.table().census(), before);
        }
        assert_eq!(allocator.give_back(record, order, owner), Freed::Yes);
        assert_eq!(allocator.give_back(record, order, owner), Freed::No, "it is free");
        assert_eq!(allocator.waiting_pages(), 1 << order);
        sound(&allocator);
        assert!(allocator.take_waiting(order, FrameOwner::Free).is_none());
        assert!(allocator.take_waiting(order + 1, owner).is_none());
        let again = allocator.take_waiting(order, owner).expect("it waits");
        assert!(core::ptr::eq(again, record));
        assert_eq!(allocator.table().owner_of(first), owner);
        sound(&allocator);
        assert_eq!(allocator.free_at(first, order, owner), Ok(()));
        allocator.drain();
    }
    // Larger blocks never wait.
    let (first, _) = allocator.allocate(5, owner).expect("free").leak();
    let record = allocator.table().frame(first).expect("in the table");
    assert_eq!(allocator.give_back(record, 5, owner), Freed::No);
    assert_eq!(allocator.free_at(first, 5, owner), Ok(()));
    assert_eq!(allocator.waiting_pages(), 0);
}

#[test]
fn a_full_front_list_lets_half_of_it_go() {
    let records = records(1024);
    let mut allocator = full(&records);
    let list = allocator.allocate_list(1024, FrameOwner::Test).expect("1,024 are free");
    let mut singles = FrameList::new();
    assert_eq!(allocator.free_list(list), Ok(()));
    for _ in 0..64 {
        singles.push(
            &allocator.table(),
            allocator.allocate(0, FrameOwner::Test).expect("1,024 are free"),
        );
    }
    let (mut waited, mut went) = (0, 0);
    let table = allocator.table();
    while let Some(block) = singles.pop(&table) {
        assert_eq!(allocator.free(block), Ok(()));
        let waits = allocator.waiting_pages();
        if waits < waited {
            went = waited - waits;
        }
        waited = waits;
        sound(&allocator);
    }
    assert!(went > 4 && waited > 4, "{went} went, {waited} wait: it is a half that goes");
}

#[test]
fn a_block_that_waits_twice_is_unsound() {
    let records = records(64);
    let mut allocator = full(&records);
    let blocks = [(); 2].map(|()| allocator.allocate(0, FrameOwner::Test).expect("free").leak().0);
    let [first, second] = blocks.map(|block| allocator.table().frame(block).expect("in the table"));
    for record in [first, second, first] {
        record.set_state(frame::State::owned(0, FrameOwner::Test));
        assert_eq!(allocator.give_back(record, 0, FrameOwner::Test), Freed::Yes);
    }
    assert_eq!(allocator.check(), Err(Unsound::Link { frame: blocks[0], order: 0 }));
}

#[test]
fn a_handle_whose_frames_were_freed_behind_its_back_is_refused() {
    let records = records(64);
    let mut allocator = full(&records);
    let block = allocator.allocate_pages(5, FrameOwner::Pages).expect("64 are free");
    let first = block.first();
    assert_eq!(allocator.free_at(first, 2, FrameOwner::Pages), Ok(()));
    assert_eq!(allocator.free(block), Err(FreeError::AlreadyFree { frame: first }));
    sound(&allocator);
    let whole = allocator.allocate(2, FrameOwner::Pages).expect("59 are free");
    let first = whole.first();
    assert_eq!(allocator.free_at(first, 2, FrameOwner::Pages), Ok(()));
    assert_eq!(allocator.free(whole), Err(FreeError::AlreadyFree { frame: first }));
    sound(&allocator);
    let mut list = FrameList::new();
    for _ in 0..4 {
        list.push(&allocator.table(), allocator.allocate(0, FrameOwner::Pages).expect("free"));
    }
    let third = list.frames(&allocator.table()).nth(2).expect("four frames");
    assert_eq!(allocator.free_at(third, 0, FrameOwner::Pages), Ok(()));
    assert_eq!(allocator.free_list(list), Err(FreeError::AlreadyFree { frame: third }));
    sound(&allocator);
}

#[test]
fn a_list_has_as_few_blocks_as_memory_allows() {
    let records = records(64);
    let mut allocator = full(&records);
    let table = allocator.table();
    let mut list = allocator.allocate_list(37, FrameOwner::Vmalloc).expect("64 are free");
    for pages in [32, 4, 1] {
        let block = list.pop(&table).expect("37 frames");
        assert_eq!(block.pages(), pages);
        assert_eq!(allocator.free(block), Ok(()));
    }
    assert!(list.is_empty() && list.pop(&table).is_none());
    list.push(&table, allocator.allocate(1, FrameOwner::Vmalloc).expect("free"));
    let again = list.pop(&table).expect("an emptied list takes in more");
    assert_eq!(allocator.free(again), Ok(()));
    // Every second frame is taken: nothing but single frames is left.
    let mut taken = FrameList::new();
    let mut holes = FrameList::new();
    let mut all = FrameList::new();
    while let Ok(block) = allocator.allocate(0, FrameOwner::Test) {
        all.push(&table, block);
    }
    while let Some(block) = all.pop(&table) {
        let odd = block.first().number() % 2 == 1;
        if odd { &mut taken } else { &mut holes }.push(&table, block);
    }
    assert_eq!(allocator.free_list(holes), Ok(()));
    let singles = allocator.allocate_list(32, FrameOwner::Vmalloc).expect("32 are free");
    assert_eq!((singles.frames(&table).len(), allocator.free_pages()), (32, 0));
    sound(&allocator);
    taken.append(&table, singles);
    assert_eq!(allocator.free_list(taken), Ok(()));
    allocator.drain();
    assert_eq!(table.census().free_blocks[6], 1);
}

#[test]
fn a_block_changes_hands_with_every_frame_of_it() {
    let records = records(64);
    let mut allocator = full(&records);
    let table = allocator.table();
    let mut block = allocator.allocate_pages(7, FrameOwner::Dma).expect("64 are free");
    table.set_owner(&mut block, FrameOwner::AtomicPool);
    assert_eq!(table.census().of(FrameOwner::AtomicPool), 7);
    table.set_owner(&mut block, FrameOwner::Free);
    assert_eq!(table.census().of(FrameOwner::AtomicPool), 7, "nobody can own as \"free\"");
    let mut list = allocator.allocate_list(3, FrameOwner::Vmalloc).expect("57 are free");
    list.set_owner(&table, FrameOwner::User);
    assert_eq!(table.census().of(FrameOwner::User), 3);
    for list_frame in list.frames(&table) {
        assert_eq!(table.owner_of(list_frame), FrameOwner::User);
    }
    assert_eq!(allocator.free_list(list), Ok(()));
    assert_eq!(allocator.free(block), Ok(()));
    sound(&allocator);
}

#[test]
fn owners_are_known_for_every_frame_of_a_block() {
    let records = records(2048);
    let mut allocator = full(&records);
    let table = allocator.table();
    let block = allocator.allocate(4, FrameOwner::PageTable).expect("free");
    let (low, end) = (block.first().number(), block.first().number() + 16);
    for number in RAM..RAM + 2048 {
        let expected =
            if (low..end).contains(&number) { FrameOwner::PageTable } else { FrameOwner::Free };
        assert_eq!(table.owner_of(frame(number)), expected, "{number:#x}");
        assert!(table.is_managed(frame(number)));
    }
    assert_eq!(table.block_of(frame(low + 9)), Some((block.first(), 4, FrameOwner::PageTable)));
    assert_eq!(table.owner_of(frame(RAM - 1)), FrameOwner::Absent);
    assert!(!table.is_managed(frame(RAM + 2048)));
    assert_eq!(allocator.free(block), Ok(()));
}

#[test]
fn ranges_are_added_once_only_and_reserved_ones_may_be_released_later() {
    let records = records(2048);
    let table = FrameTable::new(&records, frame(RAM)).expect("aligned, below 4 GiB");
    let mut allocator = FrameAllocator::new(table);
    table.reserve(frame(RAM + 10), 20, FrameOwner::KernelImage).expect("absent");
    assert!(!table.is_managed(frame(RAM + 12)));
    allocator.add_range(frame(RAM + 100), 1000).expect("absent");
    for (first, pages, offender) in
        [(99, 2, 100), (100, 1, 100), (105, 3, 105), (1099, 5, 1099), (0, 2048, 100)]
    {
        let frame_error =
            AddError::AlreadyManaged { frame: frame(RAM + offender), owner: FrameOwner::Free };
        assert_eq!(allocator.add_range(frame(RAM + first), pages), Err(frame_error));
        assert_eq!(table.reserve(frame(RAM + first), pages, FrameOwner::Heap), Err(frame_error));
    }
    for (first, pages) in [(RAM - 1, 2), (RAM + 2048, 1), (RAM, 2049), (RAM, u32::MAX)] {
        let outside = AddError::OutsideTable { first: frame(first), pages };
        assert_eq!(allocator.add_range(frame(first), pages), Err(outside));
    }
    assert_eq!(allocator.free_pages(), 1000);
    allocator.add_range(frame(RAM + 10), 20).expect("reserved, not managed");
    allocator.add_range(frame(RAM + 50), 0).expect("an empty range");
    assert_eq!(allocator.free_pages(), 1020);
    assert!(table.is_managed(frame(RAM + 12)));
    sound(&allocator);
}

#[test]
fn a_table_must_begin_where_the_largest_block_may() {
    let records = records(16);
    assert!(FrameTable::new(&records, frame(RAM + 512)).is_none());
    assert!(FrameTable::new(&records, frame(0xf_fc00)).is_some());
    let many = self::records(1025);
    assert!(FrameTable::new(&many, frame(0xf_fc00)).is_none(), "passes 4 GiB");
}
