//! The seed's arithmetic beside ours.
//!
//! Each behaviour below is a test in itself: the pool passes it, and so does a plain list of flags written as SPEC says; the
//! same list with one expression of the seed put in fails it. So each test is known to have teeth.

use super::{Pool, VirtAddr, pages_for};
use crate::addr::PAGE_SIZE;

const BASE: u32 = 0xc800_0000;
const PAGES: u32 = 16;
const END: u32 = BASE + PAGES * PAGE_SIZE;

/// What a free may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Freed,
    /// Outside: the caller goes on elsewhere, silently.
    NotMine,
    /// Reported as a mistake.
    Refused,
}

trait AnyPool {
    /// The first page of a run of `bytes`.
    fn allocate(&mut self, bytes: u32) -> Option<u32>;
    fn free(&mut self, start: u32, bytes: u32) -> Answer;
    fn taken(&self) -> u32;
}

impl AnyPool for Pool<'_> {
    fn allocate(&mut self, bytes: u32) -> Option<u32> {
        Pool::allocate(self, bytes).map(|run| run.first).ok()
    }

    fn free(&mut self, start: u32, bytes: u32) -> Answer {
        match Pool::free(self, VirtAddr::new(start), bytes) {
            Ok(()) => Answer::Freed,
            Err(super::FreeError::NotMine { .. }) => Answer::NotMine,
            Err(_) => Answer::Refused,
        }
    }

    fn taken(&self) -> u32 {
        self.taken_pages()
    }
}

/// One expression of the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seed {
    /// None: as SPEC says.
    Mended,
    /// S71: pages = size / 4 KiB, truncated.
    Truncates,
    /// S72: the mask is made of bytes, `(1 << (4096 << order)) - 1`; the low byte of such a shift is zero.
    MaskOfBytes,
    /// S73: `start > end` is outside, so the end itself is inside.
    EndIsInside,
    /// S74: bits are cleared without a look at them.
    ClearsBlindly,
}

/// A flag for each page, the number of its run.
struct Flags {
    runs: [Option<u32>; PAGES as usize],
    made: u32,
    seed: Seed,
}

impl Flags {
    fn new(seed: Seed) -> Self {
        Self { runs: [None; PAGES as usize], made: 0, seed }
    }
}

impl AnyPool for Flags {
    fn allocate(&mut self, bytes: u32) -> Option<u32> {
        let pages = if self.seed == Seed::Truncates { bytes / PAGE_SIZE } else { pages_for(bytes) };
        let order = pages.next_power_of_two().trailing_zeros();
        let mask = if self.seed == Seed::MaskOfBytes {
            1_u32.wrapping_shl(PAGE_SIZE << order) - 1
        } else {
            (1 << order) - 1
        };
        let mut first = 0;
        while first + pages <= PAGES {
            let run = &mut self.runs[first as usize..(first + pages) as usize];
            if run.iter().all(Option::is_none) {
                self.made += 1;
                run.fill(Some(self.made));
                return Some(first);
            }
            first = (first + 1 + mask) & !mask;
        }
        None
    }

    fn free(&mut self, start: u32, bytes: u32) -> Answer {
        let inside = if self.seed == Seed::EndIsInside {
            (BASE..=END).contains(&start)
        } else {
            (BASE..END).contains(&start)
        };
        if !inside {
            return Answer::NotMine;
        }
        if bytes > END - start {
            return Answer::Refused;
        }
        let first = (start - BASE) / PAGE_SIZE;
        let pages =
            if self.seed == Seed::ClearsBlindly { bytes / PAGE_SIZE } else { pages_for(bytes) };
        let run = first as usize..(first + pages) as usize;
        if self.seed != Seed::ClearsBlindly {
            let Some(&Some(number)) = self.runs.get(first as usize) else { return Answer::Refused };
            let held = (0..).zip(&self.runs).filter(|(_, run)| **run == Some(number));
            let whole = held.map(|(page, _)| page).eq(run.clone());
            if !start.is_multiple_of(PAGE_SIZE) || !whole {
                return Answer::Refused;
            }
        }
        self.runs[run].fill(None);
        Answer::Freed
    }

    fn taken(&self) -> u32 {
        pages_for(self.runs.iter().flatten().map(|_| PAGE_SIZE).sum())
    }
}

/// Runs `behaviour` on the pool, on the mended list and on the list with the seed's expression.
#[track_caller]
fn only_the_seed_fails(seed: Seed, behaviour: impl Fn(&mut dyn AnyPool) -> bool) {
    let (mut used, mut last) = ([0; 1], [0; 1]);
    let mut pool = Pool::new(VirtAddr::new(BASE), PAGES * PAGE_SIZE, &mut used, &mut last)
        .expect("sixteen pages");
    assert!(behaviour(&mut pool), "the pool");
    assert!(behaviour(&mut Flags::new(Seed::Mended)), "the list as SPEC says");
    assert!(!behaviour(&mut Flags::new(seed)), "{seed:?} was not noticed");
}

#[test]
fn s71_a_page_and_a_byte_take_two_pages() {
    only_the_seed_fails(Seed::Truncates, |pool| {
        pool.allocate(PAGE_SIZE + 1) == Some(0) && pool.taken() == 2
    });
}

#[test]
fn s71_a_single_byte_takes_a_page_of_its_own() {
    only_the_seed_fails(Seed::Truncates, |pool| {
        pool.allocate(1) == Some(0) && pool.allocate(1) == Some(1)
    });
}

#[test]
fn s72_after_one_page_four_pages_begin_at_page_four() {
    only_the_seed_fails(Seed::MaskOfBytes, |pool| {
        pool.allocate(PAGE_SIZE) == Some(0) && pool.allocate(4 * PAGE_SIZE) == Some(4)
    });
}

#[test]
fn s72_three_pages_are_aligned_as_four_and_what_lies_before_them_is_still_used() {
    only_the_seed_fails(Seed::MaskOfBytes, |pool| {
        pool.allocate(PAGE_SIZE) == Some(0)
            && pool.allocate(3 * PAGE_SIZE) == Some(4)
            && pool.allocate(2 * PAGE_SIZE) == Some(2)
            && pool.allocate(PAGE_SIZE) == Some(1)
            && pool.allocate(PAGE_SIZE) == Some(7)
    });
}

#[test]
fn s73_a_buffer_that_begins_where_the_pool_ends_is_not_the_pools() {
    only_the_seed_fails(Seed::EndIsInside, |pool| {
        pool.free(END, PAGE_SIZE) == Answer::NotMine
            && pool.free(END - PAGE_SIZE, PAGE_SIZE) == Answer::Refused
    });
}

#[test]
fn s73_a_free_of_no_bytes_at_the_pools_end_does_not_pass() {
    only_the_seed_fails(Seed::EndIsInside, |pool| pool.free(END, 0) == Answer::NotMine);
}

#[test]
fn s74_a_double_free_is_refused() {
    only_the_seed_fails(Seed::ClearsBlindly, |pool| {
        pool.allocate(PAGE_SIZE) == Some(0)
            && pool.free(BASE, PAGE_SIZE) == Answer::Freed
            && pool.free(BASE, PAGE_SIZE) == Answer::Refused
    });
}

#[test]
fn s74_a_free_of_a_part_or_of_too_much_is_refused_and_frees_nothing() {
    only_the_seed_fails(Seed::ClearsBlindly, |pool| {
        pool.allocate(4 * PAGE_SIZE) == Some(0)
            && pool.allocate(4 * PAGE_SIZE) == Some(4)
            && pool.free(BASE, 2 * PAGE_SIZE) == Answer::Refused
            && pool.free(BASE + PAGE_SIZE, 3 * PAGE_SIZE) == Answer::Refused
            && pool.free(BASE, 8 * PAGE_SIZE) == Answer::Refused
            && pool.taken() == 8
    });
}

#[test]
fn s74_an_address_inside_a_page_is_refused() {
    only_the_seed_fails(Seed::ClearsBlindly, |pool| {
        pool.allocate(PAGE_SIZE) == Some(0)
            && pool.free(BASE + 4, PAGE_SIZE) == Answer::Refused
            && pool.taken() == 1
    });
}

/// S75: where a buffer came from is known to the pool alone. A free path that asks it first gets every buffer back in
/// all eight combinations; the seed's, which asks it in the CMA branch only, loses those of atomic callers elsewhere.
#[test]
fn s75_asking_the_pool_first_returns_every_buffer_in_every_combination() {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Asks {
        Always,
        OnlyWithCma,
    }
    let lost = |asks: Asks| {
        let mut lost = 0;
        for combination in 0..8_u32 {
            let [coherent, cma, atomic] = [1, 2, 4].map(|bit| combination & bit != 0);
            let (mut used, mut last) = ([0; 1], [0; 1]);
            let mut pool = Pool::new(VirtAddr::new(BASE), PAGES * PAGE_SIZE, &mut used, &mut last)
                .expect("sixteen pages");
            // Memory of the other back ends begins where the pool ends (S73).
            let from_pool = atomic && !coherent;
            let start = if from_pool {
                Pool::allocate(&mut pool, PAGE_SIZE).expect("all is free").start.raw()
            } else {
                END
            };
            let asked = asks == Asks::Always || (cma && !coherent);
            let answer =
                if asked { AnyPool::free(&mut pool, start, PAGE_SIZE) } else { Answer::NotMine };
            assert_ne!(answer, Answer::Refused, "{combination:03b}");
            lost += u32::from((answer == Answer::Freed) != from_pool);
            assert_eq!(pool.taken(), u32::from(from_pool && answer != Answer::Freed));
        }
        lost
    };
    assert_eq!(lost(Asks::Always), 0);
    assert_eq!(lost(Asks::OnlyWithCma), 1, "atomic, not coherent, no CMA");
}
