use super::*;

/// Never freed: a place owns its entry for as long as the slab's memory is lent.
fn chunk(entries: u32) -> &'static mut [Entry<'static, u32>] {
    (0..entries).map(Entry::new).collect::<Vec<_>>().leak()
}

fn wants(entries: u32, home: Home) -> NoPlace {
    NoPlace::NeedsChunk { entries, home }
}

/// S9: a place wanted in one home is not taken from the other while a chunk can be had, comes back to where it lies, and whoever
/// does not care has the first, and then the second.
#[test]
fn a_place_is_of_the_home_it_is_wanted_in() {
    let mut slab: Slab<'_, u32, 2> = Slab::new();
    slab.add_chunk(chunk(64), Home::First).expect("the first chunk");
    assert_eq!(slab.take_in(Home::Second).err(), Some(wants(128, Home::Second)));
    assert!(slab.has_place(Home::First) && !slab.has_place(Home::Second));
    let far = chunk(100);
    let (start, end) = (far.as_ptr().addr(), far.as_ptr_range().end.addr());
    slab.add_chunk(far, Home::Second).expect("the second chunk");
    let is_far =
        |place: &Place<'_, u32>| (start..end).contains(&core::ptr::from_ref(&**place).addr());
    for _ in 0..3 {
        let second = slab.take_in(Home::Second).expect("100 entries");
        let (first, any) = (slab.take_in(Home::First), slab.take());
        let [first, any] = [first, any].map(|place| place.expect("64 entries"));
        assert_eq!([&second, &first, &any].map(is_far), [true, false, false]);
        assert_eq!((*second, slab.taken()), (0, 3), "the one that came back last");
        for place in [first, second, any] {
            slab.give_back(place);
        }
        assert_eq!(slab.taken(), 0);
    }
    let all: Vec<_> = core::iter::from_fn(|| slab.take().ok()).collect();
    assert_eq!(all.iter().filter(|place| is_far(place)).count(), 100);
    assert!(all[..64].iter().all(|place| !is_far(place)), "the first home's first");
    for home in [Home::First, Home::Second] {
        assert_eq!(slab.take_in(home).err(), Some(wants(28, home)));
    }
    slab.add_chunk(chunk(28), Home::First).expect("the rest");
    assert!(slab.take_in(Home::Second).is_ok(), "there can be no further chunk");
    assert_eq!((slab.taken(), slab.capacity()), (165, 192));
}

/// A chunk is one contiguous piece of memory, and no frame allocator has pieces without end.
#[test]
fn chunks_double_up_to_the_largest() {
    let sizes = |chunk: u32| if chunk < 8 { 64 << chunk } else { 16_384 };
    let mut slab: Slab<'_, (), 20> = Slab::new();
    let mut sum = 0;
    for number in 0..20 {
        assert_eq!((slab.capacity(), capacity_of(number)), (sum, sum));
        assert_eq!(slab.next_chunk(), Some(sizes(number)));
        let chunk: Vec<_> = (0..sizes(number)).map(|_| Entry::new(())).collect();
        slab.add_chunk(chunk.leak(), Home::First).expect("as large as it should be");
        sum += sizes(number);
    }
    assert_eq!((slab.next_chunk(), slab.capacity()), (None, sum));
}

/// Where memory is in pieces, chunks are what a piece holds; the next are as large as if those before were, and in the end
/// there are as many entries.
#[test]
fn a_chunk_may_be_smaller_than_it_should_be() {
    let mut slab: Slab<'_, u32, 3> = Slab::new();
    let mut sizes = vec![];
    for most in [26, 7, 1, 1000, 26, 1000, 1000, 1000] {
        let Some(next) = slab.next_chunk() else { break };
        sizes.push(next.min(most));
        let nothing = ChunkError::WrongSize { wanted: next, had: 0 };
        assert_eq!(slab.add_chunk(chunk(0), Home::First), Err(nothing));
        let larger = ChunkError::WrongSize { wanted: next, had: next as usize + 1 };
        assert_eq!(slab.add_chunk(chunk(next + 1), Home::First), Err(larger));
        slab.add_chunk(chunk(next.min(most)), Home::First).expect("no larger than it should be");
        assert!(slab.has_place(Home::First));
    }
    assert_eq!(sizes, [26, 7, 1, 64, 26, 128, 196]);
    assert_eq!((slab.next_chunk(), slab.capacity()), (None, 64 + 128 + 256));
    let places: Vec<_> = core::iter::from_fn(|| slab.take().ok()).collect();
    assert_eq!((places.len(), slab.has_place(Home::First)), (64 + 128 + 256, false));
}

#[test]
fn a_slab_asks_for_each_chunk_by_its_size_and_at_last_for_none() {
    let mut slab: Slab<'_, u32, 2> = Slab::new();
    let refused = |slab: &mut Slab<'_, u32, 2>| slab.take().expect_err("no place is left");
    assert_eq!(refused(&mut slab), wants(64, Home::First));
    assert_eq!(
        slab.add_chunk(chunk(65), Home::First),
        Err(ChunkError::WrongSize { wanted: 64, had: 65 })
    );
    assert_eq!(slab.add_chunk(chunk(64), Home::First), Ok(()));
    for index in 0..64 {
        assert_eq!(*slab.take().expect("64 entries"), index, "the first entry first");
    }
    assert_eq!(refused(&mut slab), wants(128, Home::First));
    assert_eq!(slab.add_chunk(chunk(128), Home::First), Ok(()));
    for index in 0..128 {
        assert_eq!(*slab.take().expect("128 entries"), index);
    }
    assert_eq!(refused(&mut slab), NoPlace::Full { capacity: 192 });
    assert_eq!(slab.add_chunk(chunk(256), Home::First), Err(ChunkError::Full { capacity: 192 }));
    assert_eq!((slab.taken(), slab.capacity()), (192, 192));
}

#[test]
fn a_chunk_may_come_before_it_is_wanted() {
    let mut slab: Slab<'_, u32, 2> = Slab::default();
    slab.add_chunk(chunk(64), Home::First).expect("the first chunk");
    let _first = slab.take().expect("room");
    slab.add_chunk(chunk(128), Home::First).expect("the second chunk");
    assert_eq!((0..300).filter(|_| slab.take().is_ok()).count(), 191);
    assert_eq!((slab.taken(), slab.capacity()), (192, 192));
}

/// Random takings and givings back: a place keeps its record and its address while it is taken, no two are the same
/// place, and the one that came back last is the first to be taken.
#[test]
fn a_place_belongs_to_one_owner_at_a_time() {
    let mut slab: Slab<'_, u32, 3> = Slab::new();
    let mut owned: Vec<(u32, *const u32, Place<'_, u32>)> = Vec::new();
    let mut last = None;
    let (mut random, mut stamp) = (0x1234_5678_u32, 1_000);
    for _ in 0..20_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if owned.is_empty() || random >> 31 == 0 {
            let mut place = match slab.take() {
                Ok(place) => place,
                Err(NoPlace::NeedsChunk { entries, .. }) => {
                    slab.add_chunk(chunk(entries), Home::First)
                        .expect("the size that was asked for");
                    continue;
                }
                Err(NoPlace::Full { .. }) => continue,
            };
            stamp += 1;
            let address: *const u32 = &raw const *place;
            assert!(last.take().is_none_or(|last| last == address), "last in, first out");
            assert!(owned.iter().all(|&(_, taken, _)| taken != address), "taken twice");
            *place = stamp;
            owned.push((stamp, address, place));
        } else {
            let (stamp, address, place) = owned.swap_remove(random as usize % owned.len());
            assert_eq!((*place, &raw const *place), (stamp, address));
            last = Some(address);
            slab.give_back(place);
        }
        assert_eq!(slab.taken() as usize, owned.len());
    }
}

/// S89: in the order in which they were put in, and what is put in while others are taken out waits for the next time.
#[test]
fn a_queue_gives_places_back_in_their_order() {
    let mut slab: Slab<'_, u32, 1> = Slab::new();
    slab.add_chunk(chunk(64), Home::First).expect("the first chunk");
    let mut queue = PlaceQueue::default();
    assert_eq!((queue.count(), queue.take_all().count()), (0, 0));
    for value in [7, 3, 9] {
        let mut place = slab.take().expect("64 entries");
        *place = value;
        queue.push(place);
    }
    assert_eq!((queue.count(), slab.taken()), (3, 3));
    let mut late = slab.take().expect("64 entries");
    *late = 5;
    let queued = queue.take_all();
    queue.push(late);
    let mut values = Vec::new();
    for place in queued {
        values.push(*place);
        slab.give_back(place);
    }
    assert_eq!((values, queue.count()), (vec![7, 3, 9], 1));
    let rest: Vec<_> = queue.take_all().collect();
    assert_eq!(rest.iter().map(|place| **place).collect::<Vec<_>>(), [5]);
    for place in rest {
        slab.give_back(place);
    }
    assert_eq!((slab.taken(), queue.count()), (0, 0));
    let again: Vec<_> = (0..64).map(|_| slab.take().expect("none was lost").to_string()).collect();
    assert_eq!(again.len(), 64);
}

/// What is taken out of the middle leaves the others in their order.
#[test]
fn a_queue_gives_the_place_that_is_asked_for() {
    let mut slab: Slab<'_, u32, 1> = Slab::new();
    slab.add_chunk(chunk(64), Home::First).expect("the first chunk");
    let mut queue = PlaceQueue::default();
    assert!(queue.take_where(|_| true).is_none());
    for value in [7, 3, 9, 3] {
        let mut place = slab.take().expect("64 entries");
        *place = value;
        queue.push(place);
    }
    assert!(queue.take_where(|&value| value == 8).is_none());
    let nine = queue.take_where(|&value| value == 9).expect("put in");
    assert_eq!((*nine, queue.count()), (9, 3));
    let three = queue.take_where(|&value| value == 3).expect("put in twice");
    slab.give_back(three);
    slab.give_back(nine);
    let rest: Vec<_> = queue.take_all().collect();
    assert_eq!(rest.iter().map(|place| **place).collect::<Vec<_>>(), [7, 3]);
    for place in rest {
        slab.give_back(place);
    }
    assert_eq!(slab.taken(), 0);
}
