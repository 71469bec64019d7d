//! The page arrays of vmalloc's areas, at the borders of their three places (S27, S28, S33, S85a).

use super::*;
use crate::area::{AreaKind, PageArray};
use crate::frames::{FrameRequest, NodeId, Place};
use crate::kernel_space::{ArrayError, Fill, ReallocError, Rights, VmallocError, VmallocRequest};
use crate::slab::Home;
use crate::va_space::Request;

/// Pages of RAM, and of the window: enough for 1,300 pages twice, and arrays.
const MANY: u32 = 2048;
const WIDE: u32 = 4096;
/// A size at either side of each border, and the areas that it takes.
const SIZES: [(u32, u32); 6] = [(1, 1), (16, 1), (17, 1), (1024, 1), (1025, 2), (1200, 2)];

fn whoever() -> VirtAddr {
    VirtAddr::new(0x8001_0000)
}

fn vmalloc(space: &Space, count: u32) -> Result<AreaSummary, VmallocError> {
    space.vmalloc(count * PAGE_SIZE, Fill::Uninitialised, whoever())
}

/// A space in which tables and room for records are made.
fn warm() -> Space {
    let space = space_of(MANY, WIDE);
    let areas: Vec<_> = (0..3).map(|_| vmalloc(&space, 600).expect("memory")).collect();
    for area in areas {
        assert_eq!(space.vfree((), area.pages.start()), Ok(()));
    }
    let bare = space.reserve_area_with_tables(
        Request::of_bytes((WIDE - 2) * PAGE_SIZE),
        AreaFlags::NONE,
        whoever(),
    );
    let base = bare.expect("addresses").area.pages.start();
    assert_eq!(space.vunmap((), base), Ok(()));
    space
}

/// What C callers would read through the descriptor of the area at `base`.
fn pointers(space: &Space, base: VirtAddr) -> Vec<u32> {
    space.areas.with(|areas| {
        let record = areas.find(base).expect("a live area");
        let words = space.array_words(&record.array, &record.within);
        assert_eq!(record.vm.pages(), address_of(words).raw());
        let words = &words[..record.vm.nr_pages() as usize];
        words.iter().map(|word| word.load(Relaxed)).collect()
    })
}

/// The array says what is mapped, in its order.
#[track_caller]
fn assert_true(space: &Space, area: AreaSummary) {
    let table = space.zones.table();
    let mapped: Vec<u32> = (0..area.pages.count())
        .map(|index| area.pages.start().checked_add(index * PAGE_SIZE).expect("inside"))
        .map(|address| table.pointer_to(space.table.small_page(address).expect("mapped")))
        .collect();
    assert_eq!(pointers(space, area.pages.start()), mapped);
    finds(space, &[]);
}

/// The array's own area.
fn nested(space: &Space) -> AreaSummary {
    let areas = core::iter::successors(space.next_area(space.window.start()), |area| {
        space.next_area(area.pages.start().checked_add(area.bytes_with_guard())?)
    });
    areas.filter(|area| area.kind == AreaKind::PageArray).last().expect("an array of its own")
}

#[test]
fn pointers_lie_in_the_record_in_a_frame_or_in_an_area_of_their_own_s27_s33() {
    let space = warm();
    for (count, areas) in SIZES {
        let (before, free) = (space.area_counts(), space.zones.free_pages());
        let area = vmalloc(&space, count).expect("memory");
        assert_eq!(space.area_counts().areas - before.areas, areas, "{count} pages");
        assert_eq!(area.flags.contains(AreaFlags::VPAGES), areas == 2, "{count} pages");
        assert_true(&space, area);
        if areas == 2 {
            let array = nested(&space);
            assert_eq!(
                (array.pages.count(), array.flags, array.caller),
                (2, AreaFlags::ALLOC, whoever())
            );
            assert!(has_none(&space, array.pages.start()), "the nesting ends there");
        }
        assert_eq!(space.vfree((), area.pages.start()), Ok(()));
        assert_eq!(space.area_counts().areas, before.areas);
        assert_eq!(space.zones.free_pages(), free, "{count} pages");
        finds(&space, &[]);
    }
    let free = space.zones.free_pages();
    for (count, _) in SIZES {
        let area = vmalloc(&space, count).expect("memory");
        space.vfree_atomic((), area.pages.start()).expect("a live area");
        assert_eq!(space.free_deferred(), 1);
        assert_eq!(space.zones.free_pages(), free, "{count} pages");
    }
    finds(&space, &[]);
}

/// Whoever reads a frame with an array to its end finds no pointers of an area that was there before.
#[test]
fn behind_the_pointers_a_frame_is_zero_s27_s52() {
    let space = warm();
    let words = |base| {
        space.areas.with(|areas| {
            let record = areas.find(base).expect("live");
            let words = space.array_words(&record.array, &record.within);
            (address_of(words), words.iter().filter(|word| word.load(Relaxed) != 0).count())
        })
    };
    let base = vmalloc(&space, 600).expect("memory").pages.start();
    let (frame, noted) = words(base);
    assert_eq!(noted, 600);
    assert_eq!(space.vfree((), base), Ok(()));
    let areas: Vec<_> =
        (0..20).map(|_| vmalloc(&space, 17).expect("memory").pages.start()).collect();
    assert!(areas.iter().any(|&base| words(base).0 == frame), "the frame is used anew");
    for base in areas {
        assert_eq!(words(base).1, 17);
        assert_eq!(space.vfree((), base), Ok(()));
    }
}

/// S34: nobody but the area that it serves removes it, moves it, or shows it.
#[test]
fn an_array_is_removed_with_its_area_alone_s27_s34() {
    let space = space_of(MANY, MANY);
    let area = vmalloc(&space, 1025).expect("memory");
    let array = nested(&space);
    let base = array.pages.start();
    let refused = Err(RemoveError::WrongKind { address: base, found: AreaKind::PageArray });
    assert_eq!(space.vfree((), base), refused);
    assert_eq!(space.vfree_atomic((), base), refused);
    assert_eq!(space.vunmap((), base), refused);
    assert!(matches!(space.remove_area((), base), Err(RemoveError::WrongKind { .. })));
    let resized = space.vrealloc((), base, 1, Fill::Zeroed, FrameRequest::ANY, whoever());
    assert!(matches!(resized, Err(ReallocError::Change(ChangeError::WrongKind { .. }))));
    assert_true(&space, area);
    assert_eq!(space.vfree((), area.pages.start()), Ok(()));
    assert_eq!(space.find(base), None);
}

/// S34: whoever has ended the array's area, who may not: the area that it serves is gone, which no other error says.
#[test]
fn an_area_is_gone_also_where_its_array_stays_s27_s34() {
    let space = warm();
    let base = vmalloc(&space, 1025).expect("memory").pages.start();
    let address = nested(&space).pages.start();
    let free = space.zones.free_pages();
    let lost = space.areas.with(|areas| areas.retire(address, AreaKind::PageArray));
    let error = FramesError::PageArray;
    assert_eq!(space.vfree((), base), Err(RemoveError::Frames { address, error }));
    assert_eq!(space.find(base), None);
    assert_eq!(space.zones.free_pages(), free + 1025, "all but the array's");
    assert_eq!(space.tear_down(lost.expect("it lived")), Ok(()));
    finds(&space, &[]);
}

fn vmalloc_at(space: &Space, count: u32, place: Place) -> Result<AreaSummary, VmallocError> {
    space.vmalloc_with(VmallocRequest {
        bytes: count * PAGE_SIZE,
        fill: Fill::Uninitialised,
        memory: FrameRequest::ANY.at(place),
        rights: Rights::ReadWrite,
        caller: whoever(),
    })
}

fn node_of(space: &Space, frame: Pfn) -> NodeId {
    space.zones.zone_of(frame).expect("RAM").0
}

/// The node of the frame in which the array of the area at `base` begins.
fn node_of_array(space: &Space, base: VirtAddr) -> Option<NodeId> {
    let first = space.areas.with(|areas| match &areas.find(base).expect("live").array {
        PageArray::Within | PageArray::Shared { .. } => None,
        PageArray::Frame(block) => Some(block.first()),
        PageArray::Area(area) => space.table.small_page(area.pages().start()),
    });
    first.map(|frame| node_of(space, frame))
}

#[test]
fn an_array_lies_on_the_node_of_its_area_s27_s28() {
    let space = two_nodes(2 * MANY, 2 * MANY, WIDE);
    for (node, count) in [(0, 17), (1, 17), (0, 1025), (1, 1025)] {
        let node = NodeId::new(node);
        for place in [Place::Prefer(node), Place::Only(node)] {
            let area = vmalloc_at(&space, count, place).expect("memory");
            assert_eq!(node_of_array(&space, area.pages.start()), Some(node), "{count} pages");
            assert_true(&space, area);
            assert_eq!(space.vfree((), area.pages.start()), Ok(()));
        }
    }
}

/// S117: the upper node has high memory alone, and the kernel's books lie in low memory.
#[test]
fn the_array_of_a_node_without_low_memory_lies_on_another_s28_s117() {
    let space = two_nodes(2 * MANY, MANY, WIDE);
    let upper = NodeId::new(1);
    for (count, array) in [(16, None), (17, Some(0)), (1025, Some(0))] {
        let area = vmalloc_at(&space, count, Place::Only(upper)).expect("memory of the node");
        for index in 0..count {
            let address = area.pages.start().checked_add(index * PAGE_SIZE).expect("inside");
            let frame = space.table.small_page(address).expect("mapped");
            assert_eq!(node_of(&space, frame), upper);
        }
        assert_eq!(node_of_array(&space, area.pages.start()), array.map(NodeId::new));
        assert_true(&space, area);
        assert_eq!(space.vfree((), area.pages.start()), Ok(()));
        for place in [Place::Only(NodeId::new(2)), Place::Prefer(NodeId::new(2))] {
            assert!(vmalloc_at(&space, count, place).is_err(), "there is no such node");
        }
    }
    assert_eq!(space.area_counts().areas, 0);
    finds(&space, &[]);
}

/// S9: a record that could not lie on the second node is not held to lie there once it has memory again.
#[test]
fn records_made_while_a_node_is_full_are_not_that_nodes_s9() {
    let space = two_nodes(2 * MANY, 2 * MANY, WIDE);
    let second = Place::Only(NodeId::new(1));
    let has_place = || space.areas.with(|areas| areas.records.has_place(Home::Second));
    let free = || space.zones.free_pages_of(FrameRequest::LOW.at(second));
    let all = free();
    let hunger =
        space.zones.allocate_list_from(FrameRequest::LOW.at(second), all, FrameOwner::Test);
    let hunger = hunger.expect("all of it");
    let area = vmalloc_at(&space, 1, Place::Prefer(NodeId::new(1))).expect("memory elsewhere");
    assert_eq!((free(), has_place()), (0, false));
    assert_eq!(space.vfree((), area.pages.start()), Ok(()));
    assert!(!has_place());
    assert_eq!(space.zones.free_list(hunger), Ok(()));
    let area = vmalloc_at(&space, 1, second).expect("memory of the node");
    assert!(has_place() && free() < all - 1, "records of its own");
    assert_eq!(space.vfree((), area.pages.start()), Ok(()));
    finds(&space, &[]);
}

/// S86: through every place and back; a shorter area keeps the array that it has.
#[test]
fn an_array_grows_with_its_area_and_is_right_after_every_change_s27_s86() {
    let space = warm();
    let free = space.zones.free_pages();
    for fence in [false, true] {
        let mut area = vmalloc(&space, 3).expect("memory");
        let fence = fence.then(|| vmalloc(&space, 1).expect("memory"));
        let mut vpages = false;
        for count in [16, 17, 16, 40, 1024, 1025, 1024, 1300, 5, 17, 1025, 1] {
            let base = area.pages.start();
            let fill = Fill::Uninitialised;
            let bytes = count * PAGE_SIZE;
            area = space
                .vrealloc((), base, bytes, fill, FrameRequest::ANY, whoever())
                .expect("memory");
            vpages |= count > 1024;
            assert_eq!(area.pages.count(), count);
            assert_eq!(area.flags.contains(AreaFlags::VPAGES), vpages, "{count} pages");
            assert_true(&space, area);
        }
        for area in fence.into_iter().chain([area]) {
            assert_eq!(space.vfree((), area.pages.start()), Ok(()));
        }
        assert_eq!(space.zones.free_pages(), free);
    }
}

/// S90: one block of frames, where no addresses are aligned: small pages whose pointers are among those to all frames.
#[test]
fn nobody_writes_the_pointers_to_all_frames_whatever_length_their_area_gets_s27_s86() {
    let space = space_of(MANY, 1024);
    // Addresses for 257 pages, of which no large page's lie inside.
    let bare = [16, 257, 748].map(|count| {
        let request = Request::of_bytes(count * PAGE_SIZE);
        space.reserve_area(request, AreaFlags::NONE, whoever()).expect("addresses").area
    });
    let all = || space.pointers().words().iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>();
    let before = all();
    for counts in [&[256, 255, 256][..], &[100, 3], &[3, 5, 20], &[1, 17, 256, 2]] {
        assert_eq!(space.vunmap((), bare[1].pages.start()), Ok(()));
        let made = space.vmalloc_huge(256 * PAGE_SIZE, Fill::Uninitialised, whoever());
        let base = made.expect("memory").pages.start();
        assert_eq!(base, bare[1].pages.start());
        let array = |shared| {
            let (first, last) = (address_of(space.pointers().words()), space.pointers().words());
            let end = first.raw() + 4 * u32::try_from(last.len()).expect("of RAM");
            let lies = space.with_area(base, |record| record.vm.pages()).expect("a live area");
            assert_eq!((first.raw()..end).contains(&lies), shared);
        };
        array(true);
        let mut had = 256;
        for &count in counts {
            let area = grow(&space, base, count).expect("memory");
            assert_eq!((area.pages.start(), area.pages.count()), (base, count));
            assert_true(&space, area);
            assert!(all() == before, "{count} pages");
            if count > had {
                array(false);
            }
            had = count;
        }
        assert_eq!(space.vfree((), base), Ok(()));
        let request = Request::of_bytes(257 * PAGE_SIZE);
        space.reserve_area(request, AreaFlags::NONE, whoever()).expect("addresses");
    }
    finds(&space, &[]);
}

/// First fit would lay the larger array right behind the area, where the area is to grow.
#[test]
fn an_array_leaves_its_area_the_addresses_to_grow_s27_s86() {
    for (from, to) in [(16, 17), (3, 1000), (1000, 1100), (1024, 1025)] {
        let space = space_of(MANY, WIDE);
        let base = vmalloc(&space, from).expect("memory").pages.start();
        let grown = grow(&space, base, to).expect("memory");
        assert_eq!(grown.pages.start(), base, "{from} to {to} pages");
        assert_true(&space, grown);
        assert_eq!(space.vfree((), base), Ok(()));
    }
}

/// One page is free behind the area's guard: enough for the area, and not for an array.
#[test]
fn addresses_go_back_if_the_array_of_a_longer_area_cannot_be_had_s27_s86() {
    let space = space_of(MANY, 1024 + 1 + 1);
    let area = vmalloc(&space, 1024).expect("memory");
    let free = space.zones.free_pages();
    let refused = grow(&space, area.pages.start(), 1025).expect_err("no addresses for the array");
    assert!(matches!(refused, ReallocError::Grow(VmallocError::PageArray(ArrayError::Area(_)))));
    assert_eq!(space.find(area.pages.start()), Some(area));
    assert_eq!(space.areas.with(|areas| areas.space.largest_hole()), 1);
    assert_eq!(space.zones.free_pages(), free);
    assert_true(&space, area);
}

fn grow(space: &Space, base: VirtAddr, count: u32) -> Result<AreaSummary, ReallocError> {
    let fill = Fill::Uninitialised;
    space.vrealloc((), base, count * PAGE_SIZE, fill, FrameRequest::ANY, whoever())
}

/// S85a: the area was its caller's; what it wrote there gives way to what is true.
#[test]
fn an_area_that_is_filled_gets_its_array_s27_s85a() {
    let space = space_of(MANY, MANY);
    for (count, areas) in SIZES {
        let request = Request::of_bytes(count * PAGE_SIZE);
        let bare = space.reserve_area(request, AreaFlags::NONE, whoever()).expect("addresses");
        let base = bare.area.pages.start();
        assert!(has_none(&space, base));
        let area = space.fill_area(base, Fill::Zeroed).expect("memory");
        assert_eq!(area.flags.contains(AreaFlags::VPAGES), areas == 2);
        assert_true(&space, area);
        assert_eq!(space.vfree((), base), Ok(()));
    }
    finds(&space, &[]);
}

/// S11.
fn has_none(space: &Space, base: VirtAddr) -> bool {
    let read = space.with_area(base, |record| (record.vm.pages(), record.vm.nr_pages()));
    read == Some((0, 0))
}

/// S27: without an array there is no area, whatever it was that was short.
#[test]
fn an_area_whose_array_cannot_be_had_is_no_area_s27() {
    let space = warm();
    let free = space.zones.free_pages();
    let hunger = space.zones.allocate_list(free, FrameOwner::Test).expect("all of it");
    for count in [17, 1025] {
        let refused = vmalloc(&space, count).expect_err("no frame for the array");
        assert!(matches!(refused, VmallocError::PageArray(ArrayError::Frames(_))), "{refused}");
        assert_eq!(space.area_counts().areas, 0);
    }
    assert_eq!(space.zones.free_list(hunger), Ok(()));
    // 1,026 pages of addresses with the guard, and one more.
    let space = space_of(MANY, 1026 + 1);
    let refused = vmalloc(&space, 1025).expect_err("no addresses for the array");
    assert!(matches!(refused, VmallocError::PageArray(ArrayError::Area(_))), "{refused}");
    assert_eq!((space.area_counts().areas, space.area_counts().records), (0, 0));
    finds(&space, &[]);
}

fn with_a_null(count: u32, counted: u32, index: usize) {
    let space = space_of(MANY, MANY);
    let area = vmalloc(&space, count).expect("memory");
    let base = area.pages.start();
    space.areas.with(|areas| {
        let record = areas.find_mut(base).expect("a live area");
        record.vm.set_pages(VirtAddr::new(record.vm.pages()), counted);
        let record = &*record;
        space.array_words(&record.array, &record.within)[index].store(0, Relaxed);
    });
    assert_eq!(space.vfree((), base), Ok(()));
}

#[test]
#[should_panic(expected = "vfree: page 2 of the area at 0xc0000000 is null")]
fn a_null_among_the_pages_is_fatal_s33() {
    with_a_null(3, 3, 2);
}

#[test]
#[should_panic(expected = "vfree: page 1024 of the area at 0xc0000000 is null")]
fn a_null_in_an_array_of_its_own_is_fatal_s33() {
    with_a_null(1025, 1025, 1024);
}

/// S33: the counted part alone; and who counts more than there are changes nothing.
#[test]
fn a_null_behind_the_counted_pages_is_nobodys_business_s33() {
    with_a_null(20, 7, 7);
    with_a_null(3, u32::MAX, 3);
}
