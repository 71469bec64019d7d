//! The atomic pool beside a plain list of flags, which is as SPEC says but for one expression of the seed.

use super::{Verdict, board, same};
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr, pages_for},
    pool::{FreeError, Pool, Word},
};

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

/// Who makes a pool of sixteen pages.
trait Pools {
    fn make(&self) -> Box<dyn AnyPool>;
}

/// `kerncore`'s.
struct Right;

impl Pools for Right {
    fn make(&self) -> Box<dyn AnyPool> {
        let words = Box::leak(Box::new([Word::FREE; 1]));
        let pool = Pool::new(VirtAddr::new(BASE), PAGES * PAGE_SIZE, words);
        Box::new(pool.expect("sixteen pages"))
    }
}

impl AnyPool for Pool<'_> {
    fn allocate(&mut self, bytes: u32) -> Option<u32> {
        Pool::allocate(self, bytes).map(|run| run.first).ok()
    }

    fn free(&mut self, start: u32, bytes: u32) -> Answer {
        match Pool::free(self, VirtAddr::new(start), bytes) {
            Ok(()) => Answer::Freed,
            Err(FreeError::NotMine { .. }) => Answer::NotMine,
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

impl Pools for Seed {
    fn make(&self) -> Box<dyn AnyPool> {
        Box::new(Flags { runs: [None; PAGES as usize], made: 0, seed: *self })
    }
}

/// A flag for each page, the number of its run.
struct Flags {
    runs: [Option<u32>; PAGES as usize],
    made: u32,
    seed: Seed,
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

/// S71.
fn a_size_is_rounded_up_to_pages(pools: &impl Pools) -> Verdict {
    let mut pool = pools.make();
    same("a page and a byte", &(pool.allocate(PAGE_SIZE + 1), pool.taken()), &(Some(0), 2))?;
    same("a single byte", &(pool.allocate(1), pool.taken()), &(Some(2), 3))?;
    same("and another", &pool.allocate(1), &Some(3))
}

/// S72: and what lies before an aligned run is still used.
fn runs_are_aligned_to_their_order_in_pages(pools: &impl Pools) -> Verdict {
    let mut pool = pools.make();
    same("one page", &pool.allocate(PAGE_SIZE), &Some(0))?;
    same("four pages after one", &pool.allocate(4 * PAGE_SIZE), &Some(4))?;
    same("three pages", &pool.allocate(3 * PAGE_SIZE), &Some(8))?;
    same("two pages", &pool.allocate(2 * PAGE_SIZE), &Some(2))?;
    same("one page", &pool.allocate(PAGE_SIZE), &Some(1))?;
    same("one page", &pool.allocate(PAGE_SIZE), &Some(11))
}

/// S73: neither a page nor no bytes.
fn a_buffer_that_begins_where_the_pool_ends_is_not_the_pools(pools: &impl Pools) -> Verdict {
    let mut pool = pools.make();
    same("a page at the end", &pool.free(END, PAGE_SIZE), &Answer::NotMine)?;
    same("no bytes at the end", &pool.free(END, 0), &Answer::NotMine)?;
    same("the page below the start", &pool.free(BASE - PAGE_SIZE, PAGE_SIZE), &Answer::NotMine)?;
    same("the last page, never taken", &pool.free(END - PAGE_SIZE, PAGE_SIZE), &Answer::Refused)
}

/// S74: a double free, a part, too much, an address inside a page; nothing is freed.
fn a_free_that_is_no_allocation_is_refused(pools: &impl Pools) -> Verdict {
    let mut pool = pools.make();
    same("four pages", &pool.allocate(4 * PAGE_SIZE), &Some(0))?;
    same("four more", &pool.allocate(4 * PAGE_SIZE), &Some(4))?;
    for (start, pages) in [(0, 2), (1, 3), (0, 8), (8, 1)] {
        let answer = pool.free(BASE + start * PAGE_SIZE, pages * PAGE_SIZE);
        same(&format!("{pages} pages from page {start}"), &answer, &Answer::Refused)?;
    }
    same("four bytes in", &pool.free(BASE + 4, 4 * PAGE_SIZE), &Answer::Refused)?;
    same("what is taken", &pool.taken(), &8)?;
    same("the right free", &pool.free(BASE, 4 * PAGE_SIZE), &Answer::Freed)?;
    same("and again", &pool.free(BASE, 4 * PAGE_SIZE), &Answer::Refused)
}

board! {
    a_size_is_rounded_up_to_pages(Right, Seed::Mended) {
        pool_size_truncated: "S71", "the seed's size / 4 KiB", Seed::Truncates;
    }
    runs_are_aligned_to_their_order_in_pages(Right, Seed::Mended) {
        pool_mask_of_bytes: "S72", "the alignment's mask is made of bytes, not pages", Seed::MaskOfBytes;
    }
    a_buffer_that_begins_where_the_pool_ends_is_not_the_pools(Right, Seed::Mended) {
        pool_end_is_inside: "S73", "the end's own address counts as inside", Seed::EndIsInside;
    }
    a_free_that_is_no_allocation_is_refused(Right, Seed::Mended) {
        pool_clears_blindly: "S74", "bits are cleared without a look at them", Seed::ClearsBlindly;
    }
}
