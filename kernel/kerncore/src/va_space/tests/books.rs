//! The books' own check bites: each thing that it names, done by hand.

use super::*;

/// Areas of two pages and their guards at 0 and 6, a hole of three pages at 3, the open space from 9 on.
fn with_a_hole(memory: &mut Memory) -> VaSpace<'_, Record> {
    let mut space = space(memory, 0xc_0000, 16);
    let (_, _low) = taken(&mut space, &pages(2));
    let (_, hole) = taken(&mut space, &pages(2));
    let (_, _high) = taken(&mut space, &pages(2));
    give_back(&mut space, hole);
    space
}

/// What the check says after `damage`.
#[track_caller]
fn finds(damage: impl FnOnce(&mut VaSpace<'_, Record>), error: CheckError) {
    let mut memory = storage_for(16);
    let mut space = with_a_hole(&mut memory);
    damage(&mut space);
    assert_eq!(space.check(), Err(error));
    // In use are the pages up to 9: a count that is wrong, or what is said of one of them.
    let beyond = match error {
        CheckError::StrayRecord { page } => page > 8,
        CheckError::BadCount { what: Count::Marks | Count::Holes, .. } => true,
        _ => false,
    };
    assert_eq!(space.check_in_use(), if beyond { Ok(()) } else { Err(error) });
}

#[test]
fn an_area_whose_length_cannot_be_is_found() {
    finds(
        |space| space.tags[6] = START | 1, // the guard alone
        CheckError::BadLength { area: 6, length: 1 },
    );
    finds(
        |space| (space.tags[6], space.tags[9]) = (START | 4, 4), // into the open space
        CheckError::BadLength { area: 6, length: 4 },
    );
    finds(
        |space| space.tags[8] = 2, // its two ends differ
        CheckError::BadLength { area: 6, length: 3 },
    );
    finds(
        |space| space.tags[0] = START | 2, // as above, and the hole behind it is sound
        CheckError::BadLength { area: 0, length: 2 },
    );
    finds(
        |space| space.tags[6] = 3, // nothing says that it begins there
        CheckError::BadLength { area: 6, length: 3 },
    );
}

#[test]
fn a_hole_whose_length_cannot_be_is_found() {
    let set = |space: &mut VaSpace<'_, Record>, length| {
        space.settle();
        space.holes.set(3, length);
        space.tags[2 + length as usize] = HOLE | length;
    };
    finds(|space| set(space, 7), CheckError::BadHole { hole: 3, length: 7 });
    finds(|space| set(space, 6), CheckError::BadHole { hole: 3, length: 6 }); // up to the open space
    for tag in [HOLE | 2, 3] {
        let mark = |space: &mut VaSpace<'_, Record>| {
            space.settle();
            space.tags[5] = tag;
        };
        finds(mark, CheckError::BadHole { hole: 3, length: 3 });
    }
    // It is the front, and those are not marked.
    finds(|space| space.tags[5] = HOLE | 3, CheckError::BadHole { hole: 3, length: 3 });
}

#[test]
fn pages_of_nobody_and_holes_that_touch_are_found() {
    let lose = |space: &mut VaSpace<'_, Record>| {
        space.settle();
        space.holes.remove(3);
    };
    finds(lose, CheckError::Unowned { page: 3 });
    let split = |space: &mut VaSpace<'_, Record>| {
        space.settle();
        space.make_hole(3, 4);
        space.make_hole(4, 6);
    };
    finds(split, CheckError::Unmerged { hole: 4 });
}

#[test]
fn a_hole_that_requests_pass_over_is_found() {
    let passed = |least: u32| {
        move |space: &mut VaSpace<'_, Record>| {
            space.settle();
            space.front.least = least;
        }
    };
    finds(passed(3), CheckError::Passed { hole: 3, length: 3, least: 3 });
    let mut memory = storage_for(16);
    let mut space = with_a_hole(&mut memory);
    passed(4)(&mut space);
    assert_eq!(space.check(), Ok(()));
    let without = |space: &mut VaSpace<'_, Record>| {
        space.settle();
        space.front.least_without_aside = 2;
    };
    finds(without, CheckError::Passed { hole: 3, length: 3, least: 2 });
}

#[test]
fn a_record_without_a_live_area_is_found() {
    for page in [1, 4, 12] {
        let stray = |space: &mut VaSpace<'_, Record>| {
            // Whatever a stale tag says.
            (space.tags[1], space.tags[4], space.tags[12]) = (0, 0, 0);
            space.records[page] = Some(1);
        };
        let page = u32::try_from(page).expect("few pages");
        finds(stray, CheckError::StrayRecord { page });
    }
    let dying = |space: &mut VaSpace<'_, Record>| {
        space.publish(at(0xc000_6000), 1).expect("a reserved area");
        space.retire(at(0xc000_6000)).expect("a live area");
        space.records[6] = Some(1);
    };
    finds(dying, CheckError::StrayRecord { page: 6 });
    let lost = |space: &mut VaSpace<'_, Record>| {
        space.publish(at(0xc000_6000), 1).expect("a reserved area");
        space.records[6] = None;
    };
    finds(lost, CheckError::StrayRecord { page: 6 });
}

#[test]
fn a_record_far_from_all_areas_is_found() {
    let mut memory = storage_for(64);
    let space = space(&mut memory, 0xc_0000, 64);
    for page in 0..64 {
        space.records[page as usize] = Some(1);
        assert_eq!(space.check(), Err(CheckError::StrayRecord { page }));
        space.records[page as usize] = None;
    }
    space.check().expect("sound books");
}

#[test]
fn a_count_that_is_not_what_was_walked_is_found() {
    let bad = |what, noted, found| CheckError::BadCount { what, noted, found };
    finds(|space| space.starts.insert(1), bad(Count::Starts, 3, 2));
    finds(|space| space.tags[12] = START | 3, bad(Count::Marks, 3, 2));
    finds(|space| space.holes.set(12, 1), bad(Count::Holes, 2, 1));
}

/// Memory for the books is dear: 2.6 MiB for the full window. A level more than the pages need would work as well.
#[test]
fn the_indices_have_no_more_levels_than_their_pages_need() {
    for (pages, groups) in [(1, 1), (4, 1), (5, 3), (16, 5), (17, 10), (64, 21), (65, 38)] {
        assert_eq!(VaStorage::<Record>::hole_words(pages), 4 * groups, "{pages} pages");
    }
    for (pages, words) in [(1, 1), (32, 1), (33, 3), (1024, 33), (1025, 66)] {
        assert_eq!(VaStorage::<Record>::start_words(pages), words, "{pages} pages");
    }
    assert_eq!(VaStorage::<Record>::words(196_608) * 4 / 1024, 768 + 1109 + 28);
}
