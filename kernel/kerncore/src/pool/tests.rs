//! The pool against a list of runs, in every state that a small pool can reach.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::*;

const BASE: VirtAddr = VirtAddr::new(0xc800_0000);

fn address(page: i64, offset: i64) -> VirtAddr {
    let raw = i64::from(BASE.raw()) + page * i64::from(PAGE_SIZE) + offset;
    VirtAddr::new(u32::try_from(raw).expect("a small pool"))
}

/// The naive model: the runs that are taken, as (first page, pages).
type Runs = BTreeSet<(u32, u32)>;

fn owner(runs: &Runs, page: u32) -> Option<(u32, u32)> {
    runs.iter().copied().find(|&(first, pages)| (first..first + pages).contains(&page))
}

fn model_allocate(runs: &Runs, size: u32, pages: u32) -> Option<u32> {
    let step = pages.next_power_of_two();
    (0..size).step_by(step as usize).find(|&first| {
        first + pages <= size && (first..first + pages).all(|page| owner(runs, page).is_none())
    })
}

fn model_free(
    runs: &Runs,
    size: u32,
    start: VirtAddr,
    bytes: u32,
) -> Result<(u32, u32), FreeError> {
    let end = i64::from(BASE.raw()) + i64::from(size * PAGE_SIZE);
    let raw = i64::from(start.raw());
    if raw < i64::from(BASE.raw()) || raw >= end {
        return Err(FreeError::NotMine { start });
    }
    if raw + i64::from(bytes) > end {
        return Err(FreeError::Overruns { start, bytes, last: address(i64::from(size), -1) });
    }
    if !start.is_page_aligned() {
        return Err(FreeError::Unaligned { start });
    }
    let page = (start.raw() - BASE.raw()) / PAGE_SIZE;
    let run = owner(runs, page).ok_or(FreeError::NotAllocated { start })?;
    if run.0 != page {
        let run_start = address(run.0.into(), 0);
        return Err(FreeError::NotAStart { start, run: run_start, pages: run.1 });
    }
    let pages = bytes.div_ceil(PAGE_SIZE);
    if run.1 == pages {
        Ok(run)
    } else {
        Err(FreeError::WrongSize { start, pages, allocated: run.1 })
    }
}

/// Brings a fresh pool into the state of `runs`, bit by bit.
fn pool_of<'p>(runs: &Runs, size: u32, words: &'p mut [Word]) -> Pool<'p> {
    let pool = Pool::new(BASE, size * PAGE_SIZE, words).expect("a small pool");
    for &(first, pages) in runs {
        for page in first..first + pages {
            pool.words[(page / 32) as usize].used |= 1 << (31 - page % 32);
        }
        pool.words[(first / 32) as usize].first |= 1 << (31 - first % 32);
    }
    pool
}

/// What the short cut for so many pages gives: what all of the search would, or nothing, and nothing has changed then.
#[track_caller]
fn short_cut_agrees(runs: &Runs, size: u32, pages: u32) {
    let mut words = [Word::FREE; 8];
    let mut pool = pool_of(runs, size, &mut words);
    pool.step_over_full();
    let expected = model_allocate(runs, size, pages);
    let taken = match Size::of(pages * PAGE_SIZE) {
        Size::Page => pool.take_page(),
        Size::Few(few) => pool.take_few(few),
        Size::Many(many) => pool.take_many(many),
        Size::Pair(pair) => pool.take_pair(pair),
        Size::Other => None,
    };
    let mut next = runs.clone();
    if let Some(first) = taken {
        assert_eq!(expected, Some(first), "{pages} pages of {size}, {runs:?}");
        next.insert((first, pages));
    }
    // An empty pool has all that it can hold where the short cuts look.
    if runs.is_empty() && pages <= 64 {
        assert_eq!(taken, expected, "{pages} pages of {size}");
    }
    agrees(&pool, &next);
}

#[track_caller]
fn agrees(pool: &Pool<'_>, runs: &Runs) {
    assert!(pool.runs().map(|run| (run.first, run.pages)).eq(runs.iter().copied()));
    assert_eq!(pool.taken_pages(), runs.iter().map(|run| run.1).sum::<u32>());
    let open = pool.open as usize;
    assert!(pool.words[..open].iter().all(|word| word.used == u32::MAX), "full before `open`");
}

/// S71 to S74, exhaustively: every request and every free, right or wrong, in every reachable state.
#[test]
fn in_every_state_of_a_small_pool_every_call_does_what_a_list_of_runs_says() {
    let (mut states, mut calls) = (0_u32, 0_u32);
    for size in 1..=8_u32 {
        let mut seen = HashSet::from([Runs::new()]);
        let mut queue = VecDeque::from([Runs::new()]);
        while let Some(runs) = queue.pop_front() {
            states += 1;
            let mut reached = Vec::new();
            for pages in 1..=size + 1 {
                let mut words = [Word::FREE; 1];
                let mut pool = pool_of(&runs, size, &mut words);
                let mut next = runs.clone();
                let expected = model_allocate(&runs, size, pages);
                // One byte into the last page wants all of it (S71).
                let given = pool.allocate((pages - 1) * PAGE_SIZE + 1).map(|run| run.first).ok();
                assert_eq!(given, expected, "{pages} pages of {size}, {runs:?}");
                next.extend(expected.map(|first| (first, pages)));
                agrees(&pool, &next);
                reached.push(next);
                short_cut_agrees(&runs, size, pages);
                calls += 1;
            }
            for page in -1..=i64::from(size) + 1 {
                for offset in [0, 4, i64::from(PAGE_SIZE) - 1] {
                    for bytes in (0..=size + 1).flat_map(|n| [n * PAGE_SIZE, n * PAGE_SIZE + 1]) {
                        let mut words = [Word::FREE; 1];
                        let mut pool = pool_of(&runs, size, &mut words);
                        let start = address(page, offset);
                        let expected = model_free(&runs, size, start, bytes);
                        assert_eq!(pool.free(start, bytes), expected.map(|_| ()), "{runs:?}");
                        let mut next = runs.clone();
                        if let Ok(run) = expected {
                            next.remove(&run);
                            reached.push(next.clone());
                        }
                        agrees(&pool, &next);
                        calls += 1;
                    }
                }
            }
            queue.extend(reached.into_iter().filter(|next| seen.insert(next.clone())));
        }
    }
    println!("states: {states} of pools of 1 to 8 pages, all that can be reached; {calls} calls");
    assert!(states > 1000, "{states}");
}

/// Requests of every size in a pool of several words, with its last word not full.
#[test]
fn runs_across_words_are_placed_and_freed_as_a_list_of_runs_says() {
    const SIZE: u32 = 201;
    let mut words = [Word { used: u32::MAX, first: u32::MAX }; 8];
    let mut pool = Pool::new(BASE, SIZE * PAGE_SIZE, &mut words).expect("a pool");
    let mut runs = Runs::new();
    let mut random = 7_u32;
    for _ in 0..20_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let choice = random >> 12;
        if choice.is_multiple_of(2) {
            let pages = match choice / 2 % 4 {
                0 => choice / 8 % SIZE + 1,
                1 => choice / 8 % 70 + 1,
                _ => choice / 8 % 5 + 1,
            };
            short_cut_agrees(&runs, SIZE, pages);
            let expected = model_allocate(&runs, SIZE, pages);
            let largest = (1..=SIZE).rev().find(|&n| model_allocate(&runs, SIZE, n).is_some());
            let taken = pool.taken_pages();
            match pool.allocate(pages * PAGE_SIZE) {
                Ok(run) => assert_eq!((Some(run.first), run.pages), (expected, pages)),
                Err(error) => {
                    let (largest, free) = (largest.unwrap_or(0), SIZE - taken);
                    assert_eq!(error, AllocateError::Exhausted { pages, largest, free, taken });
                    assert_eq!(expected, None);
                }
            }
            runs.extend(expected.map(|first| (first, pages)));
        } else if let Some(&run) = runs.iter().nth(choice as usize % runs.len().max(1)) {
            let start = address(run.0.into(), 0);
            assert_eq!(pool.free(start, run.1 * PAGE_SIZE), Ok(()));
            runs.remove(&run);
        }
        agrees(&pool, &runs);
    }
}

/// S74 where runs touch the borders of words, fill them or cross them: every page with every size.
#[test]
fn every_free_around_words_does_what_a_list_of_runs_says() {
    const SIZE: u32 = 96;
    let states: [&[(u32, u32)]; 7] = [
        &[],
        &[(1, 1)],
        &[(0, 64), (64, 1), (66, 2), (95, 1)],
        &[(0, 40), (64, 16), (80, 16)],
        &[(0, 16), (16, 16), (32, 32), (64, 2), (68, 4), (72, 8), (80, 16)],
        &[(0, 31), (32, 1), (33, 1), (36, 3), (62, 2), (64, 32)],
        &[(0, 96)],
    ];
    for runs in states.map(|runs| runs.iter().copied().collect::<Runs>()) {
        for page in 0..SIZE {
            let mut words = [Word::FREE; 3];
            let around = pool_of(&runs, SIZE, &mut words).run_around(page);
            assert_eq!(around.map(|run| (run.first, run.pages)), owner(&runs, page), "{page}");
            for pages in 0..=SIZE - page + 1 {
                let mut words = [Word::FREE; 3];
                let mut pool = pool_of(&runs, SIZE, &mut words);
                let (start, bytes) = (address(page.into(), 0), pages * PAGE_SIZE);
                let expected = model_free(&runs, SIZE, start, bytes);
                assert_eq!(pool.is_run(page, bytes), expected.is_ok(), "{pages} of {runs:?}");
                assert_eq!(pool.free(start, bytes), expected.map(|_| ()), "{pages} of {runs:?}");
                let mut next = runs.clone();
                next.retain(|&run| expected != Ok(run));
                agrees(&pool, &next);
            }
        }
    }
}

#[test]
fn a_run_may_be_all_of_the_pool_and_no_more() {
    for size in [1, 31, 32, 33, 63, 64, 65, 96] {
        let mut words = [Word::FREE; 3];
        let mut pool = Pool::new(BASE, size * PAGE_SIZE, &mut words).expect("a pool");
        for pages in [size + 1, 2 * size, 1000] {
            let refused = AllocateError::Exhausted { pages, largest: size, free: size, taken: 0 };
            assert_eq!(pool.allocate(pages * PAGE_SIZE), Err(refused));
        }
        let run = pool.allocate(size * PAGE_SIZE).expect("all of it is free");
        assert_eq!((run.start, run.first, run.pages), (BASE, 0, size));
        assert_eq!(pool.free(BASE, size * PAGE_SIZE), Ok(()));
        assert_eq!(pool.free_pages(), size);
    }
}

#[test]
fn what_is_behind_the_last_page_is_no_run() {
    for size in 1..=64 {
        let mut words = [Word::FREE; 2];
        let mut pool = Pool::new(BASE, size * PAGE_SIZE, &mut words).expect("a pool");
        for (first, pages) in (size..=64).flat_map(|first| (0..=64).map(move |n| (first, n))) {
            assert_eq!(pool.give_back(first, pages * PAGE_SIZE), Freed::No, "{pages} of {size}");
            assert!(!pool.is_run(first, pages * PAGE_SIZE));
        }
        agrees(&pool, &Runs::new());
    }
}

#[test]
fn a_pool_says_what_it_cannot_be_made_of() {
    // S69: nothing, less than a page, memory that wraps; a tail is left out.
    let mut words = [Word::FREE; 2];
    let new = |base: u32, bytes: u32, words: &mut [Word]| {
        Pool::new(VirtAddr::new(base), bytes, words).map(|pool| pool.pages())
    };
    assert_eq!(new(0x1000, 0, &mut words), Err(NewError::NoPages { bytes: 0 }));
    assert_eq!(new(0x1000, 4095, &mut words), Err(NewError::NoPages { bytes: 4095 }));
    assert_eq!(
        new(0x1800, 4096, &mut words),
        Err(NewError::Unaligned { base: VirtAddr::new(0x1800) })
    );
    assert_eq!(
        new(0xffff_f000, 0x2000, &mut words),
        Err(NewError::Wraps { base: VirtAddr::new(0xffff_f000), bytes: 0x2000 })
    );
    assert_eq!(new(0xffff_f000, 0x1fff, &mut words), Ok(1));
    assert_eq!(new(0x1000, 64 * 4096 + 4095, &mut words), Ok(64));
    assert_eq!(
        new(0x1000, 65 * 4096, &mut words),
        Err(NewError::TooFewWords { wanted: 3, had: 2 })
    );
    assert_eq!(
        new(0x1000, 64 * 4096, &mut words[..1]),
        Err(NewError::TooFewWords { wanted: 2, had: 1 })
    );
}

#[test]
fn a_pool_that_ends_at_the_top_of_the_address_space_is_whole_and_wraps_nowhere() {
    // S73: inside is decided without a sum.
    let mut words = [Word::FREE; 1];
    let base = VirtAddr::new(0xffff_c000);
    let mut pool = Pool::new(base, 4 * PAGE_SIZE, &mut words).expect("four pages");
    let run = pool.allocate(4 * PAGE_SIZE).expect("all of it");
    assert_eq!(run.start, base);
    assert!(pool.contains(VirtAddr::new(u32::MAX)));
    assert!(!pool.contains(VirtAddr::new(0)));
    let top = VirtAddr::new(0xffff_f000);
    let last_byte = VirtAddr::new(u32::MAX);
    assert_eq!(
        pool.free(top, u32::MAX),
        Err(FreeError::Overruns { start: top, bytes: u32::MAX, last: last_byte })
    );
    let zero = VirtAddr::new(0);
    assert_eq!(pool.free(zero, 4096), Err(FreeError::NotMine { start: zero }));
    assert_eq!(pool.allocate(u32::MAX).map(|run| run.pages).ok(), None);
    assert_eq!(pool.allocate(0), Err(AllocateError::Zero));
    assert_eq!(pool.free(base, 4 * PAGE_SIZE), Ok(()));
}

/// Many short runs side by side look much like one long run: all their pages are used, and the last is a run's last.
#[test]
fn s74_runs_side_by_side_are_not_freed_as_one() {
    for first in [0, 1, 30] {
        let mut words = [Word::FREE; 2];
        let mut pool = Pool::new(BASE, 64 * PAGE_SIZE, &mut words).expect("64 pages");
        while pool.allocate(PAGE_SIZE).is_ok() {}
        let (start, pages) = (address(first.into(), 0), 32 - first);
        let refusal = FreeError::WrongSize { start, pages, allocated: 1 };
        assert_eq!(pool.free(start, pages * PAGE_SIZE), Err(refusal));
        assert_eq!(pool.taken_pages(), 64);
    }
}

/// S104: what is said to have been enough is so, and a page less is not: whoever repeats this boot's own requests finds that out.
#[test]
fn the_smallest_pool_that_would_have_been_enough_is_just_that() {
    let mut random = 11_u32;
    for round in 0..400 {
        let size = 8 + round % 90;
        let mut words = vec![Word::FREE; 8];
        let mut pool = Pool::new(BASE, size * PAGE_SIZE, &mut words).expect("a pool");
        // What was asked for: pages to take, or which of the taken runs to give back.
        let mut trace: Vec<Result<u32, usize>> = Vec::new();
        let mut live: Vec<(u32, u32)> = Vec::new();
        let (wanted, enough) = loop {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let choice = random >> 12;
            if choice.is_multiple_of(3) && !live.is_empty() {
                let place = choice as usize / 3 % live.len();
                let (first, pages) = live.swap_remove(place);
                assert_eq!(pool.give_back(first, pages * PAGE_SIZE), Freed::Yes);
                trace.push(Err(place));
            } else {
                let pages = choice / 3 % 9 + 1;
                match pool.take(pages * PAGE_SIZE) {
                    Some(first) => {
                        live.push((first, pages));
                        trace.push(Ok(pages));
                    }
                    None => break (pages, pool.enough_for([pages].into_iter())),
                }
            }
        };
        assert!(enough > size);
        for (size, fits) in [(enough, true), (enough - 1, false)] {
            let mut words = vec![Word::FREE; 8];
            let mut pool = Pool::new(BASE, size * PAGE_SIZE, &mut words).expect("a pool");
            let mut live: Vec<(u32, u32)> = Vec::new();
            for step in &trace {
                match *step {
                    Ok(pages) => {
                        live.push((pool.take(pages * PAGE_SIZE).expect("as before"), pages));
                    }
                    Err(place) => {
                        let (first, pages) = live.swap_remove(place);
                        assert_eq!(pool.give_back(first, pages * PAGE_SIZE), Freed::Yes);
                    }
                }
            }
            let given = pool.take(wanted * PAGE_SIZE);
            assert_eq!(given.is_some(), fits, "{wanted} pages of {size}");
        }
    }
    // Runs that went elsewhere count, too, each aligned.
    let mut words = [Word::FREE; 1];
    let mut pool = Pool::new(BASE, 8 * PAGE_SIZE, &mut words).expect("a pool");
    assert_eq!(pool.enough_for([].into_iter()), 0);
    assert_eq!(pool.take(5 * PAGE_SIZE), Some(0));
    assert_eq!(pool.enough_for([1, 4, 2].into_iter()), 14);
}

#[test]
fn whether_a_pool_is_low_is_told_page_by_page() {
    let mut words = [Word::FREE; 3];
    let mut pool = Pool::new(BASE, 70 * PAGE_SIZE, &mut words).expect("a pool");
    for taken in 0..=70 {
        for pages in [0, 1, 16, 32, 69, 70, 71] {
            assert_eq!(pool.has_fewer_free_than(pages), 70 - taken < pages, "{taken} of 70");
        }
        let _taken = pool.take(PAGE_SIZE);
    }
}

/// Whoever looks on from a page in the middle of a run, as one does who lists a pool that changes meanwhile, sees no half of it.
#[test]
fn runs_are_listed_from_where_they_begin() {
    let mut words = [Word::FREE; 3];
    let mut pool = Pool::new(BASE, 96 * PAGE_SIZE, &mut words).expect("a pool");
    for pages in [40, 3, 1] {
        assert!(pool.take(pages * PAGE_SIZE).is_some());
    }
    let all: Vec<(u32, u32)> = pool.runs().map(|run| (run.first, run.pages)).collect();
    for page in 0..100 {
        let wanted: Vec<_> = all.iter().copied().filter(|&(first, _)| first >= page).collect();
        let listed: Vec<_> = pool.runs_from(page).map(|run| (run.first, run.pages)).collect();
        assert_eq!(listed, wanted, "from page {page}");
    }
}

/// S104: what is left of a pool in parts is what all parts have.
#[test]
fn what_two_parts_have_is_told_together_s104() {
    let part = |largest, free, taken| AllocateError::Exhausted { pages: 9, largest, free, taken };
    assert_eq!(part(4, 6, 10).and(part(2, 3, 13)), part(4, 9, 23));
    assert_eq!(part(1, 6, 10).and(part(2, 3, 13)), part(2, 9, 23));
    assert_eq!(part(1, 6, 10).and(AllocateError::Zero), AllocateError::Zero);
}
