//! Where areas go: S1, S2, S6, S7, S8.

use super::*;

fn no_space(wanted: u32, order: u32, largest_hole: u32) -> Result<OwnedRange, ReserveError> {
    Err(ReserveError::NoSpace { wanted, order, largest_hole })
}

/// First pages and lengths.
fn areas_of(space: &VaSpace<'_, Record>) -> Vec<(u32, u32)> {
    space.iter().map(|area| (area.usable.first(), area.usable.count())).collect()
}

#[test]
fn s1_s2_areas_follow_each_other_with_one_guard_page_between() {
    let mut memory = storage_for(VMALLOC_PAGES);
    let mut space = vmalloc_space(&mut memory);
    assert_eq!(taken(&mut space, &pages(1)).0, 0xc000_0000);
    assert_eq!(taken(&mut space, &pages(3)).0, 0xc000_2000);
    assert_eq!(taken(&mut space, &pages(1)).0, 0xc000_6000);
    assert_eq!(space.area_count(), 3);
    assert_eq!(space.free_pages(), VMALLOC_PAGES - 8);
}

#[test]
fn s1_the_lowest_hole_that_fits_is_taken_not_the_best_nor_the_last() {
    let mut memory = storage_for(64);
    let mut space = space(&mut memory, 0xc_0000, 64);
    let mut areas: Vec<_> = [4, 1, 7, 1, 3, 1].map(|n| taken(&mut space, &pages(n)).1).into();
    give_back(&mut space, areas.remove(4)); // a hole of 4 at 17
    give_back(&mut space, areas.remove(2)); // a hole of 8 at 7
    give_back(&mut space, areas.remove(0)); // a hole of 5 at 0
    assert_eq!(taken(&mut space, &pages(4)).0, 0xc000_0000);
    assert_eq!(taken(&mut space, &pages(3)).0, 0xc000_7000);
    assert_eq!(taken(&mut space, &pages(3)).0, 0xc000_b000);
    assert_eq!(taken(&mut space, &pages(3)).0, 0xc001_1000);
    assert_eq!(taken(&mut space, &pages(3)).0, 0xc001_7000);
}

#[test]
fn s1_an_aligned_request_takes_a_lower_hole_that_fits_by_luck() {
    // Holes of 4 at 1 and of 8 at 8. Four pages on a four-page boundary fit in the second; two on two in the first.
    let mut memory = storage_for(64);
    let mut space = space(&mut memory, 0xc_0000, 64);
    let window = |start| Some(Window::new(at(start), at(start + 0x2000)));
    for start in [0xc000_5000, 0xc001_0000] {
        let _ = taken(&mut space, &Request { window: window(start), ..pages(1) });
    }
    let aligned = |count, order| Request { alignment: Alignment::Order(order), ..pages(count) };
    assert_eq!(taken(&mut space, &aligned(3, 2)).0, 0xc000_0000);
    assert_eq!(taken(&mut space, &aligned(3, 2)).0, 0xc000_8000);
    assert_eq!(taken(&mut space, &aligned(1, 1)).0, 0xc000_c000);
    assert_eq!(taken(&mut space, &aligned(1, 3)).0, 0xc001_8000);
    // What alignment left over is still to be had.
    assert_eq!(taken(&mut space, &pages(1)).0, 0xc000_e000);
    assert_eq!(taken(&mut space, &pages(5)).0, 0xc001_2000);
}

#[test]
fn s7_an_empty_space_refuses_what_is_larger_than_it() {
    let mut memory = storage_for(256);
    let mut space = space(&mut memory, 0xc_0000, 256);
    assert_eq!(space.reserve(&pages(257)), no_space(258, 0, 256));
    assert_eq!(space.reserve(&pages(0x8_0000)), no_space(0x8_0001, 0, 256));
    assert_eq!(space.largest_hole(), 256);
}

#[test]
fn s7_the_guard_must_fit_too() {
    let mut memory = storage_for(256);
    let mut space = space(&mut memory, 0xc_0000, 256);
    assert_eq!(space.reserve(&pages(256)), no_space(257, 0, 256));
    let (base, whole) = taken(&mut space, &pages(255));
    assert_eq!(base, 0xc000_0000);
    assert_eq!((space.free_pages(), space.largest_hole()), (0, 0));
    assert_eq!(space.reserve(&pages(1)), no_space(2, 0, 0));
    give_back(&mut space, whole);
    // In a hole, and in a window, as at the end of the space.
    let (_, low) = taken(&mut space, &pages(4));
    let (_, _fence) = taken(&mut space, &pages(1));
    give_back(&mut space, low);
    assert_eq!(taken(&mut space, &pages(5)).0, 0xc000_7000);
    assert!(space.reserve(&pages_between(4, 0xc000_0000, 0xc000_4000)).is_err());
    assert_eq!(taken(&mut space, &pages_between(4, 0xc000_0000, 0xc000_5000)).0, 0xc000_0000);
}

#[test]
fn s7_an_area_that_straddles_the_windows_start_is_stepped_over_and_the_end_still_holds() {
    let mut memory = storage_for(64);
    let mut space = space(&mut memory, 0xc_0000, 64);
    let (_, _straddling) = taken(&mut space, &pages(9)); // pages 0 to 9
    assert_eq!(space.reserve(&pages_between(6, 0xc000_4000, 0xc001_0000)), no_space(7, 0, 54));
    assert_eq!(taken(&mut space, &pages_between(5, 0xc000_4000, 0xc001_0000)).0, 0xc000_a000);
}

#[test]
fn s7_a_hole_that_straddles_the_windows_start_is_used_from_there() {
    let mut memory = storage_for(64);
    let mut space = space(&mut memory, 0xc_0000, 64);
    let (_, low) = taken(&mut space, &pages(9));
    let (_, _fence) = taken(&mut space, &pages(1));
    give_back(&mut space, low); // free: 0 to 9
    assert_eq!(taken(&mut space, &pages_between(2, 0xc000_3000, 0xc002_0000)).0, 0xc000_3000);
    assert_eq!(taken(&mut space, &pages(2)).0, 0xc000_0000);
    assert_eq!(taken(&mut space, &pages(3)).0, 0xc000_6000);
}

#[test]
fn s1_behind_a_hole_that_straddles_the_windows_start_the_next_hole_is_tried() {
    let mut memory = storage_for(64);
    let mut space = space(&mut memory, 0xc_0000, 64);
    let mut areas: Vec<_> = [4, 3, 1, 3, 1].map(|n| taken(&mut space, &pages(n)).1).into();
    give_back(&mut space, areas.remove(3)); // a hole of 4 at 11
    give_back(&mut space, areas.remove(1)); // a hole of 4 at 5
    let from_within = |count| pages_between(count, 0xc000_7000, 0xc004_0000);
    assert_eq!(taken(&mut space, &from_within(3)).0, 0xc000_b000);
    assert_eq!(taken(&mut space, &from_within(3)).0, 0xc001_1000);
    assert_eq!(taken(&mut space, &from_within(1)).0, 0xc000_7000);
}

#[test]
fn s7_a_foreign_area_above_the_window_grants_nothing_beyond_the_windows_end() {
    let mut memory = storage_for(VMALLOC_PAGES);
    let mut space = vmalloc_space(&mut memory);
    let (foreign, _) = taken(&mut space, &pages_between(1, 0xe000_0000, 0xf000_0000));
    assert_eq!(foreign, 0xe000_0000);
    let two_mib = 512;
    assert!(space.reserve(&pages_between(two_mib, 0xc000_0000, 0xc010_0000)).is_err());
    assert!(space.reserve(&pages_between(256, 0xc000_0000, 0xc010_0000)).is_err());
    assert_eq!(taken(&mut space, &pages_between(255, 0xc000_0000, 0xc010_0000)).0, 0xc000_0000);
}

#[test]
fn s7_a_size_larger_than_its_window_does_not_underflow() {
    let mut memory = storage_for(VMALLOC_PAGES);
    let mut space = vmalloc_space(&mut memory);
    let (_, _low) = taken(&mut space, &pages(1));
    // The window's end lies below the size itself.
    for (start, end) in [(0, 0x1000), (0xc000_0000, 0xc000_1000), (0xc000_1000, 0xc000_1000)] {
        assert!(space.reserve(&pages_between(0x2_0000, start, end)).is_err());
        assert!(space.reserve(&pages_between(1, start, end)).is_err());
    }
    assert!(space.reserve(&pages_between(1, 0xd000_0000, 0xc800_0000)).is_err(), "end below start");
}

#[test]
fn s7_alignment_may_jump_over_the_last_area_and_the_end_still_holds() {
    let mut memory = storage_for(48);
    let mut space = space(&mut memory, 0xc_0000, 48);
    let (_, _low) = taken(&mut space, &pages(1));
    let aligned = |count, order| Request { alignment: Alignment::Order(order), ..pages(count) };
    assert_eq!(space.reserve(&aligned(32, 4)), no_space(33, 4, 46));
    assert_eq!(space.reserve(&aligned(1, 6)), no_space(2, 6, 46));
    assert_eq!(space.reserve(&aligned(16, 5)), no_space(17, 5, 46));
    assert_eq!(taken(&mut space, &aligned(15, 5)).0, 0xc002_0000);
}

#[test]
fn s6_rounding_up_past_the_top_of_memory_fails_and_never_wraps_to_zero() {
    let mut memory = storage_for(16);
    let mut space = space(&mut memory, 0xf_fff0, 16);
    let aligned = |order| Request {
        window: Some(Window::to_top(at(0xffff_1000))),
        alignment: Alignment::Order(order),
        ..pages(1)
    };
    for order in [4, 5, 19, 20, 21, 31, 32, u32::MAX] {
        assert_eq!(space.reserve(&aligned(order)), no_space(2, order, 16));
    }
    let to_top = Some(Window::to_top(at(0xffff_0000)));
    let (base, whole) = taken(&mut space, &Request { window: to_top, ..pages(15) });
    assert_eq!(base, 0xffff_0000);
    give_back(&mut space, whole);
    assert_eq!(taken(&mut space, &aligned(3)).0, 0xffff_8000);
    // The last area ends, guard included, exactly at the top.
    assert_eq!(taken(&mut space, &pages(7)).0, 0xffff_0000);
    assert_eq!(space.reserve(&pages(6)), no_space(7, 0, 6));
    assert_eq!(taken(&mut space, &pages(5)).0, 0xffff_a000);
}

#[test]
fn s6_alignments_of_4_gib_and_more_admit_address_zero_only() {
    let mut memory = storage_for(16);
    let mut space = space(&mut memory, 0, 16);
    let aligned = |order| Request { alignment: Alignment::Order(order), ..pages(1) };
    let (base, zero) = taken(&mut space, &aligned(20));
    assert_eq!(base, 0);
    assert!(space.reserve(&aligned(20)).is_err());
    give_back(&mut space, zero);
    assert_eq!(taken(&mut space, &aligned(u32::MAX)).0, 0);
}

#[test]
fn a_window_counts_what_the_space_does_not_manage_as_taken() {
    let mut memory = storage_for(16);
    let mut space = space(&mut memory, 0xc_0010, 16);
    assert!(space.reserve(&pages_between(1, 0, 0xc001_1000)).is_err());
    assert!(space.reserve(&pages_between(1, 0xc001_f000, 0xffff_f000)).is_err());
    assert!(space.reserve(&pages_between(1, 0xc002_0000, 0xffff_f000)).is_err());
    assert!(space.reserve(&pages_between(1, 0x8000_0000, 0x9000_0000)).is_err());
    assert!(space.reserve(&pages_between(1, 0xe000_0000, 0xf000_0000)).is_err());
    assert_eq!(taken(&mut space, &pages_between(1, 0, 0xffff_f000)).0, 0xc001_0000);
    let window = Some(Window::of_pages(space.range()));
    assert_eq!(taken(&mut space, &Request { window, ..pages(13) }).0, 0xc001_2000);
}

/// Whatever the indices' last words are: full ones, too.
#[test]
fn a_window_behind_the_last_page_has_no_room() {
    for count in [1, 31, 32, 33, 64, 1024] {
        let mut memory = storage_for(count);
        let mut space = space(&mut memory, 0xc_0000, count);
        let behind = 0xc000_0000 + (count << PAGE_SHIFT);
        for start in [behind, behind + 0x1000] {
            assert_eq!(space.reserve(&pages_between(1, start, 0xf000_0000)), no_space(2, 0, count));
        }
    }
}

#[test]
fn s8_a_refusal_changes_nothing() {
    let mut memory = storage_for(16);
    let mut space = space(&mut memory, 0xc_0000, 16);
    let (_, hole) = taken(&mut space, &pages(2));
    let (_, _fence) = taken(&mut space, &pages(2));
    give_back(&mut space, hole);
    let before = (space.free_pages(), space.largest_hole(), areas_of(&space));
    let aligned = Request { alignment: Alignment::Order(4), ..pages(3) };
    for request in [pages(10), aligned, pages_between(3, 0xc000_0000, 0xc000_8000)] {
        assert!(space.reserve(&request).is_err());
        space.check().expect("sound books");
    }
    assert_eq!(before, (space.free_pages(), space.largest_hole(), areas_of(&space)));
    assert_eq!(taken(&mut space, &pages(2)).0, 0xc000_0000);
}

#[test]
fn neighbours_merge_in_every_order_of_freeing() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut memory = storage_for(40);
        let mut space = space(&mut memory, 0xc_0000, 40);
        let mut three: Vec<_> = (0..3).map(|_| Some(taken(&mut space, &pages(4)).1)).collect();
        let (_, fence) = taken(&mut space, &pages(1));
        for index in order {
            give_back(&mut space, three[index].take().expect("freed once"));
        }
        assert_eq!(taken(&mut space, &pages(14)).0, 0xc000_0000, "{order:?}");
        give_back(&mut space, fence);
        assert_eq!(space.largest_hole(), 25);
    }
}
