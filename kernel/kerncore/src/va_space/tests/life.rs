//! Reserved, live, dying, free: S13, S14, S14a, S88, and what listings see.

use super::*;

#[test]
fn s13_lookup_answers_the_exact_base_of_a_live_area_only() {
    let mut memory = storage_for(VMALLOC_PAGES);
    let mut space = vmalloc_space(&mut memory);
    let (base, _area) = taken(&mut space, &pages(3));
    space.publish(at(base), 7).expect("a reserved area");
    assert_eq!(space.find(at(base)), Some(&7));
    for other in [base + 1, base + 0x1000, base + 0x2fff, base + 0x3000, base + 0x4000, base - 1] {
        assert_eq!(space.find(at(other)), None, "{other:#x}");
    }
    for outside in [0, 0x1000, 0xbfff_f000, 0xf000_0000, 0xffff_f000, u32::MAX] {
        assert_eq!(space.find(at(outside)), None, "{outside:#x}");
        assert_eq!(space.find_containing(at(outside)), None, "{outside:#x}");
        assert_eq!(space.retire(at(outside)), None, "{outside:#x}");
    }
}

#[test]
fn s88_any_usable_byte_finds_its_area_and_the_guard_finds_none() {
    let mut memory = storage_for(VMALLOC_PAGES);
    let mut space = vmalloc_space(&mut memory);
    let bases = [1, 3, 100_000, 1].map(|count| {
        let (base, area) = taken(&mut space, &pages(count));
        space.publish(at(base), count).expect("a reserved area");
        (base, area.pages())
    });
    for (base, usable) in bases {
        let count = usable.count();
        let found = Some((usable, &count));
        for inside in [base, base + 1, base + usable.bytes() / 2, base + usable.bytes() - 1] {
            assert_eq!(space.find_containing(at(inside)), found, "{inside:#x}");
        }
        for guard in [base + usable.bytes(), base + usable.bytes() + 0xfff] {
            assert_eq!(space.find_containing(at(guard)), None, "{guard:#x}");
        }
    }
    assert_eq!(space.find_containing(at(0xef00_0000)), None, "open space");
}

#[test]
fn s14a_only_live_areas_are_found_and_dying_ones_keep_their_addresses() {
    let mut memory = storage_for(8);
    let mut space = space(&mut memory, 0xc_0000, 8);
    let (base, area) = taken(&mut space, &pages(7));
    assert_eq!(space.find(at(base)), None, "reserved, not live");
    assert_eq!(space.find_containing(at(base)), None, "reserved, not live");
    assert_eq!(space.retire(at(base)), None, "reserved, not live");
    space.publish(at(base), 1).expect("a reserved area");
    assert_eq!(space.retire(at(base + 0x1000)), None, "inside is not the base");
    assert_eq!(space.retire(at(base)), Some(1));
    assert_eq!(space.find(at(base)), None);
    assert_eq!(space.find_containing(at(base)), None);
    assert!(space.reserve(&pages(1)).is_err(), "the addresses are still taken");
    give_back(&mut space, area);
    assert_eq!(space.reserve(&pages(1)).map(|area| area.start()), Ok(at(base)));
}

#[test]
fn s14_a_second_removal_gives_none() {
    let mut memory = storage_for(8);
    let mut space = space(&mut memory, 0xc_0000, 8);
    let (base, area) = taken(&mut space, &pages(1));
    space.publish(at(base), 0).expect("a reserved area");
    assert_eq!(space.retire(at(base)), Some(0));
    assert_eq!(space.retire(at(base)), None);
    give_back(&mut space, area);
    assert_eq!(space.retire(at(base)), None);
}

#[test]
fn publishing_is_refused_but_for_a_reserved_area() {
    let mut memory = storage_for(8);
    let mut space = space(&mut memory, 0xc_0000, 8);
    let (base, _area) = taken(&mut space, &pages(2));
    let base = at(base);
    for other in [at(0xc000_1000), at(0xc000_0001), at(0xc000_5000), at(0xc000_8000), at(0x1000)] {
        let refusal = PublishError::NotReserved { base: other, record: 1 };
        assert_eq!(space.publish(other, 1), Err(refusal));
    }
    space.publish(base, 1).expect("a reserved area");
    assert_eq!(space.publish(base, 2), Err(PublishError::AlreadyLive { base, record: 2 }));
    assert_eq!(space.find(base), Some(&1));
    assert_eq!(space.retire(base), Some(1));
    assert_eq!(space.publish(base, 3), Err(PublishError::Dying { base, record: 3 }));
    space.check().expect("sound books");
}

#[test]
fn an_area_is_not_retired_when_the_look_at_its_record_says_no() {
    let mut memory = storage_for(8);
    let mut space = space(&mut memory, 0xc_0000, 8);
    let (base, _area) = taken(&mut space, &pages(2));
    space.publish(at(base), 5).expect("a reserved area");
    let refused = space.retire_if(at(base), |&record| Err::<(), _>(record + 1));
    assert_eq!(refused, Some(Err(6)));
    assert_eq!(space.find_mut(at(base)).map(|record| core::mem::replace(record, 7)), Some(5));
    let retired = space.retire_if(at(base), |&record| if record == 7 { Ok(()) } else { Err(()) });
    assert_eq!(retired, Some(Ok(7)));
    assert_eq!(space.find(at(base)), None);
    assert_eq!(space.find_mut(at(base)), None);
}

#[test]
fn a_live_area_is_not_released_and_its_range_comes_back() {
    let mut memory = storage_for(8);
    let mut space = space(&mut memory, 0xc_0000, 8);
    let (base, area) = taken(&mut space, &pages(2));
    space.publish(at(base), 5).expect("a reserved area");
    match space.release(area) {
        Err(ReleaseError::StillLive { usable }) => {
            assert_eq!(usable.start(), at(base));
            assert_eq!(space.retire(at(base)), Some(5));
            give_back(&mut space, usable);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_whole_area_is_released_s2() {
    let mut memory = storage_for(16);
    let mut space = space(&mut memory, 0xc_0000, 16);
    let (_, one) = taken(&mut space, &pages(3));
    let (_, two) = taken(&mut space, &pages(3));
    let minted =
        |first, count| OwnedRange::mint(PageRange::from_numbers(first, count).expect("a range"));
    for (first, count) in [
        (0xc_0000, 2), // the front part
        (0xc_0001, 2), // the back part
        (0xc_0000, 4), // with the guard
        (0xc_0000, 7), // two areas
        (0xc_0003, 1), // a guard
        (0xc_0008, 3), // open space
        (0x8_0000, 3), // another space, below
        (0xc_0010, 3), // another space, above
        (0xc_0000, 0), // nothing
    ] {
        match space.release(minted(first, count)) {
            Err(ReleaseError::NotReserved { usable }) => {
                assert_eq!((usable.pages().first(), usable.count()), (first, count));
            }
            other => panic!("{first:#x}, {count}: {other:?}"),
        }
        assert_eq!((space.area_count(), space.free_pages()), (2, 8));
    }
    let usable = two.pages();
    give_back(&mut space, two);
    let again = space.release(OwnedRange::mint(usable));
    assert!(matches!(again, Err(ReleaseError::NotReserved { .. })), "a second time: {again:?}");
    give_back(&mut space, one);
    assert_eq!((space.area_count(), space.free_pages()), (0, 16));
}

#[test]
fn listings_see_every_area_in_address_order_with_its_state() {
    let mut memory = storage_for(2048);
    let mut space = space(&mut memory, 0xc_0000, 2048);
    let far = pages_between(2, 0xc050_0000, 0xc080_0000);
    let (dying, _d) = taken(&mut space, &far);
    let (live, _l) = taken(&mut space, &pages(1));
    let (reserved, _r) = taken(&mut space, &pages(40));
    space.publish(at(dying), 1).expect("a reserved area");
    space.publish(at(live), 2).expect("a reserved area");
    assert_eq!(space.retire(at(dying)), Some(1));
    let seen: Vec<_> = space
        .iter()
        .map(|area| (area.usable.start().raw(), area.usable.count(), area.state))
        .collect();
    let expected = [
        (live, 1, AreaState::Live(&2)),
        (reserved, 40, AreaState::Reserved),
        (dying, 2, AreaState::Dying),
    ];
    assert_eq!(seen, expected);

    let base = |area: Option<Area<'_, Record>>| area.map(|area| area.usable.start().raw());
    assert_eq!(base(space.next_area_from(at(0))), Some(live));
    assert_eq!(base(space.next_area_from(at(live))), Some(live));
    assert_eq!(base(space.next_area_from(at(live + 1))), Some(reserved));
    assert_eq!(base(space.next_area_from(at(reserved + 1))), Some(dying));
    assert_eq!(base(space.next_area_from(at(dying + 1))), None);
    assert_eq!(base(space.next_area_from(at(u32::MAX))), None);
    assert_eq!(base(space.previous_area_from(at(0xbfff_ffff))), None);
    assert_eq!(base(space.previous_area_from(at(reserved - 1))), Some(live));
    assert_eq!(base(space.previous_area_from(at(dying - 1))), Some(reserved));
    assert_eq!(base(space.previous_area_from(at(u32::MAX))), Some(dying));
}
