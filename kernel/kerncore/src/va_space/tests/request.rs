//! Sizes and alignments: S3, S4, S5.

use super::*;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

#[test]
fn s4_the_seed_rule_doubles_exact_powers_of_two_and_stops_at_16_mib() {
    for (bytes, align) in [
        (1, 4 * KIB),
        (0xfff, 4 * KIB),
        (0x1000, 8 * KIB),
        (0x1001, 8 * KIB),
        (0x1fff, 8 * KIB),
        (0x2000, 16 * KIB),
        (MIB - 1, MIB),
        (MIB, 2 * MIB),
        (8 * MIB, 16 * MIB),
        (16 * MIB, 16 * MIB),
        (32 * MIB, 16 * MIB),
        (u32::MAX, 16 * MIB),
    ] {
        assert_eq!(1 << IoRemapPolicy::Seed.order(bytes), align, "{bytes:#x} bytes");
    }
}

#[test]
fn s4_the_modern_rule_is_the_order_of_the_size() {
    for (bytes, align) in [
        (1, 4 * KIB),
        (0xfff, 4 * KIB),
        (0x1000, 4 * KIB),
        (0x1001, 8 * KIB),
        (0x2000, 8 * KIB),
        (0x2001, 16 * KIB),
        (MIB, MIB),
        (MIB + 1, 2 * MIB),
        (16 * MIB, 16 * MIB),
        (32 * MIB, 16 * MIB),
        (u32::MAX, 16 * MIB),
    ] {
        assert_eq!(1 << IoRemapPolicy::Modern.order(bytes), align, "{bytes:#x} bytes");
    }
}

#[test]
fn s4_the_alignment_is_of_the_unrounded_size() {
    let mut memory = storage_for(64);
    let mut space = space(&mut memory, 0xc_0001, 64);
    let policy = Alignment::IoRemap(IoRemapPolicy::Seed);
    // Rounded up to a page first, 0xfff bytes would be aligned to 8 KiB.
    let request = Request { alignment: policy, ..Request::of_bytes(0xfff) };
    assert_eq!(taken(&mut space, &request).0, 0xc000_1000);
    let request = Request { alignment: policy, ..Request::of_bytes(0x1000) };
    assert_eq!(taken(&mut space, &request).0, 0xc000_4000);
    let request = Request {
        alignment: Alignment::IoRemap(IoRemapPolicy::Modern),
        ..Request::of_bytes(0x1000)
    };
    assert_eq!(taken(&mut space, &request).0, 0xc000_6000);
}

#[test]
fn s3_zero_bytes_and_sizes_that_would_wrap_are_refused_by_name() {
    let mut memory = storage_for(8);
    let mut space = space(&mut memory, 0xc_0000, 8);
    assert_eq!(space.reserve(&Request::of_bytes(0)), Err(ReserveError::ZeroSize));
    for bytes in [0xffff_f000, 0xffff_f001, u32::MAX] {
        let refusal = space.reserve(&Request::of_bytes(bytes));
        assert_eq!(refusal, Err(ReserveError::TooLarge { bytes }));
    }
    let largest = Request::of_bytes(0xffff_efff);
    let refusal = ReserveError::NoSpace { wanted: 0x10_0000, order: 0, largest_hole: 8 };
    assert_eq!(space.reserve(&largest), Err(refusal));
    assert_eq!((space.area_count(), space.free_pages()), (0, 8));
}

#[test]
fn s3_a_size_is_rounded_up_to_pages() {
    let mut memory = storage_for(64);
    let mut space = space(&mut memory, 0xc_0000, 64);
    for (bytes, pages) in [(1, 1), (0x1000, 1), (0x1001, 2), (0x2fff, 3)] {
        assert_eq!(taken(&mut space, &Request::of_bytes(bytes)).1.count(), pages);
    }
}

#[test]
fn s5_a_window_that_starts_inside_a_page_starts_at_the_next() {
    let mut memory = storage_for(16);
    let mut space = space(&mut memory, 0xc_0000, 16);
    assert_eq!(taken(&mut space, &pages_between(1, 0xc000_2001, 0xc001_0000)).0, 0xc000_3000);
    assert_eq!(taken(&mut space, &pages_between(1, 0xc000_5fff, 0xc001_0000)).0, 0xc000_6000);
    // An end inside a page leaves that page out: two pages are wanted, one and a half are there.
    let refusal = space.reserve(&pages_between(1, 0xc000_8000, 0xc000_9fff));
    assert_eq!(refusal, Err(ReserveError::NoSpace { wanted: 2, order: 0, largest_hole: 8 }));
}

#[test]
fn s6_a_start_that_rounds_up_past_the_top_leaves_nothing() {
    let mut memory = storage_for(4);
    let mut space = space(&mut memory, 0xf_fffc, 4);
    let window = Some(Window::to_top(at(0xffff_f001)));
    let refusal = space.reserve(&Request { window, ..pages(1) });
    assert!(matches!(refusal, Err(ReserveError::NoSpace { .. })), "{refusal:?}");
}

#[test]
fn storage_that_is_too_small_comes_back_with_the_space() {
    let range = PageRange::from_numbers(0xc_0000, 40).expect("a range");
    // By one element: each array in turn, and none.
    let lengths = [40, 400, 3, 40];
    for (short, wanted) in [
        (Some(0), Some((StorageArray::Tags, 40, 39))),
        (Some(2), Some((StorageArray::Starts, 3, 2))),
        (Some(3), Some((StorageArray::Records, 40, 39))),
        (None, None),
    ] {
        let length = |array| lengths[array] - usize::from(short == Some(array));
        let (mut tags, mut holes, mut starts) =
            (vec![0; length(0)], vec![0; length(1)], vec![0; length(2)]);
        let mut records = vec![Some(1); length(3)];
        let storage = VaStorage {
            tags: &mut tags,
            holes: &mut holes,
            starts: &mut starts,
            records: &mut records,
        };
        let refused = match VaSpace::new(OwnedRange::mint(range), storage) {
            Err(NewError::StorageTooSmall { space, array, wanted, had, .. }) => {
                assert_eq!(space.pages(), range);
                Some((array, wanted, had))
            }
            Err(NewError::EmptySpace { .. }) => panic!("it has 40 pages"),
            Ok(_) => None,
        };
        assert_eq!(refused, wanted);
    }
    let nothing = PageRange::from_numbers(0xc_0000, 0).expect("an empty range");
    let mut memory = storage_for(8);
    let Memory { words, records } = &mut memory;
    let storage = VaStorage::carve(words, records, 8).expect("enough memory");
    let refusal = VaSpace::new(OwnedRange::mint(nothing), storage);
    assert!(matches!(refusal, Err(NewError::EmptySpace { .. })), "{refusal:?}");
    assert!(VaStorage::carve(&mut memory.words, &mut memory.records, 9).is_none());
}
