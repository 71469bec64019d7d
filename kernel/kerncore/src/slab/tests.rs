use std::collections::BTreeMap;

use super::*;

impl<T, const N: usize> Slab<'_, T, N> {
    /// A promise, kept at once.
    fn insert(&mut self, value: T) -> Result<SlabId, InsertError> {
        let promise = self.promise()?;
        Ok(self.insert_promised(promise, || value).expect("promised"))
    }
}

fn chunk<T>(entries: u32) -> Vec<Entry<T>> {
    (0..entries).map(|_| Entry::vacant()).collect()
}

#[test]
fn an_index_is_found_in_its_chunk_by_its_highest_bit() {
    let mut expected = (0..5_usize).flat_map(|k| (0..64_usize << k).map(move |slot| (k, slot)));
    for index in 0..64 + 128 + 256 + 512 + 1024 {
        assert_eq!(locate(index), expected.next(), "{index}");
    }
    assert_eq!(locate(NONE), None);
}

/// A chunk is one contiguous piece of memory, and no frame allocator has pieces without end.
#[test]
fn chunks_stop_growing_and_indices_go_on_without_a_gap() {
    let sizes = |chunk: u32| if chunk < 9 { 64_usize << chunk } else { 32_768 };
    let mut expected =
        (0..40).flat_map(|chunk| (0..sizes(chunk)).map(move |slot| (chunk as usize, slot)));
    for index in 0..capacity_of(40) {
        assert_eq!(locate(index), expected.next(), "{index}");
    }
    assert_eq!(expected.next(), None, "the capacity is the sum of the chunks");
    assert!(capacity_of(40) <= INDEX_MASK, "a name has room for any index");
    for chunk in 0..40 {
        assert_eq!(entries_of(chunk) as usize, sizes(chunk));
        assert_eq!(capacity_of(chunk) + entries_of(chunk), capacity_of(chunk + 1));
    }
}

#[test]
fn a_slab_asks_for_each_chunk_by_its_size_and_at_last_for_none() {
    let (mut first, mut second) = (chunk(64), chunk(128));
    let mut wrong = chunk(63);
    let mut third = chunk(256);
    let mut slab: Slab<'_, u32, 2> = Slab::new();
    assert_eq!(slab.insert(7), Err(InsertError::NeedsChunk { entries: 64 }));
    assert_eq!(slab.add_chunk(&mut wrong), Err(ChunkError::WrongSize { wanted: 64, had: 63 }));
    assert_eq!(slab.add_chunk(&mut first), Ok(()));
    for value in 0..64 {
        let id = slab.insert(value).expect("64 entries");
        assert_eq!(id.index(), value);
    }
    assert_eq!(slab.insert(64), Err(InsertError::NeedsChunk { entries: 128 }));
    assert_eq!(slab.add_chunk(&mut second), Ok(()));
    for value in 64..192 {
        assert_eq!(slab.insert(value).map(SlabId::index), Ok(value));
    }
    assert_eq!(slab.insert(9), Err(InsertError::Full { capacity: 192 }));
    assert_eq!(slab.add_chunk(&mut third), Err(ChunkError::Full { capacity: 192 }));
    assert_eq!(slab.len(), 192);
    assert!(slab.iter().map(|(_, &value)| value).eq(0..192));
}

#[test]
fn a_name_finds_nothing_once_its_record_is_gone_even_when_the_entry_is_used_again() {
    let mut memory = chunk(64);
    let mut slab: Slab<'_, &str, 4> = Slab::new();
    slab.add_chunk(&mut memory).expect("the first chunk");
    let old = slab.insert("old").expect("room");
    assert_eq!(slab.remove(old), Some("old"));
    assert_eq!(slab.remove(old), None, "a second removal");
    let new = slab.insert("new").expect("room");
    assert_eq!(new.index(), old.index(), "the same entry");
    assert_ne!(new, old);
    assert_eq!(slab.get(old), None);
    assert_eq!(slab.get_mut(old), None);
    assert_eq!(slab.remove(old), None);
    assert_eq!(slab.get(new), Some(&"new"));
    assert_eq!(slab.len(), 1);
    for raw in [1, 63, u32::MAX, new.raw() + 1] {
        let stranger = SlabId::from_raw(raw).expect("not zero");
        assert_eq!(slab.get(stranger), None);
        assert_eq!(slab.remove(stranger), None);
    }
    assert_eq!(SlabId::from_raw(0), None);
    assert_eq!(SlabId::from_raw(new.raw()), Some(new));
}

#[test]
fn generations_begin_again_and_never_make_a_zero_name() {
    let mut memory = chunk(64);
    let mut slab: Slab<'_, u32, 1> = Slab::new();
    slab.add_chunk(&mut memory).expect("the first chunk");
    let first = slab.insert(0).expect("room");
    assert_eq!(slab.remove(first), Some(0));
    for turn in 1..LAST_GENERATION {
        let id = slab.insert(turn).expect("room");
        assert_ne!(id, first);
        assert_eq!(slab.remove(id), Some(turn));
    }
    assert_eq!(slab.insert(1), Ok(first), "after 4,095 uses");
}

#[test]
fn a_chunk_may_come_before_it_is_wanted() {
    let (mut first, mut second) = (chunk(64), chunk(128));
    let mut slab: Slab<'_, u32, 2> = Slab::new();
    slab.add_chunk(&mut first).expect("the first chunk");
    slab.insert(0).expect("room");
    slab.add_chunk(&mut second).expect("the second chunk");
    assert_eq!((1..300).filter(|&value| slab.insert(value).is_ok()).count(), 191);
    assert_eq!(slab.len(), slab.capacity());
}

#[test]
fn what_a_chunk_held_before_does_not_matter() {
    let mut memory = chunk(64);
    {
        let mut slab: Slab<'_, u32, 1> = Slab::new();
        slab.add_chunk(&mut memory).expect("the first chunk");
        while slab.insert(1).is_ok() {}
    }
    let mut slab: Slab<'_, u32, 1> = Slab::new();
    slab.add_chunk(&mut memory).expect("the first chunk");
    assert_eq!(slab.iter().count(), 0);
    assert_eq!((0..64).filter(|_| slab.insert(2).is_ok()).count(), 64);
}

/// Random insertions and removals against a map, by a fixed generator of numbers.
#[test]
fn a_slab_is_a_map_from_names_to_records() {
    let mut memory: Vec<Vec<Entry<u32>>> = (0..4).map(|k| chunk(64 << k)).collect();
    let mut chunks = memory.iter_mut();
    let mut slab: Slab<'_, u32, 4> = Slab::new();
    let mut model: BTreeMap<SlabId, u32> = BTreeMap::new();
    let mut gone: Vec<SlabId> = Vec::new();
    let mut random = 1_u32;
    for step in 0..20_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let choice = random >> 16;
        if choice.is_multiple_of(2) {
            match slab.insert(step) {
                Ok(id) => assert_eq!(model.insert(id, step), None, "a name in use"),
                Err(InsertError::NeedsChunk { .. }) => {
                    let chunk = chunks.next().expect("four chunks");
                    slab.add_chunk(chunk).expect("its size");
                }
                Err(InsertError::Full { capacity }) => {
                    assert_eq!(model.len(), capacity as usize);
                }
            }
        } else if let Some((&id, _)) = model.iter().nth(choice as usize % model.len().max(1)) {
            assert_eq!(slab.remove(id), model.remove(&id));
            gone.push(id);
        }
        assert_eq!(slab.len() as usize, model.len());
    }
    for (&id, value) in &model {
        assert_eq!(slab.get(id), Some(value));
    }
    assert!(gone.iter().all(|&id| model.contains_key(&id) || slab.get(id).is_none()));
    let mut listed: Vec<SlabId> = slab.iter().map(|(id, _)| id).collect();
    listed.sort_unstable();
    assert!(listed.iter().eq(model.keys()));
}

/// A promise counts as taken: whoever holds one finds room, whatever others take meanwhile.
#[test]
fn a_promised_entry_is_there_when_its_record_comes() {
    let mut memory = chunk(64);
    let mut slab: Slab<'_, u32, 1> = Slab::new();
    assert_eq!(slab.promise(), Err(InsertError::NeedsChunk { entries: 64 }));
    slab.add_chunk(&mut memory).expect("the first chunk");
    let kept = slab.promise().expect("room");
    let given_up = slab.promise().expect("room");
    assert_eq!((slab.promised(), slab.len()), (2, 0));
    let taken: Vec<SlabId> = (0..62).map(|value| slab.insert(value).expect("room")).collect();
    assert_eq!(slab.insert(62), Err(InsertError::Full { capacity: 64 }));
    slab.release(given_up);
    assert!(slab.insert(62).is_ok());
    assert_eq!(slab.insert(63), Err(InsertError::Full { capacity: 64 }));
    let id = slab.insert_promised(kept, || 64).expect("promised");
    assert_eq!((slab.get(id), slab.promised(), slab.len()), (Some(&64), 0, 64));
    assert_eq!(slab.remove(taken[5]), Some(5));
    assert!(slab.promise().is_ok(), "what was removed can be promised");
}

#[test]
fn a_promise_of_another_slab_takes_nothing_in() {
    let mut memory = chunk(64);
    let mut slab: Slab<'_, u32, 1> = Slab::new();
    slab.add_chunk(&mut memory).expect("the first chunk");
    let foreign = slab.promise().expect("room");
    let mut empty: Slab<'_, u32, 1> = Slab::new();
    assert_eq!(empty.insert_promised(foreign, || 1), None);
    assert!(empty.is_empty());
}
