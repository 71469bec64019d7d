//! The atomic pool's bitmaps: runs of pages out of one piece of coherent memory, for callers that may not sleep.
//!
//! ```text
//!   page     0   1   2   3   4   5   6   7   8   9        a run of n pages begins at a multiple of the next
//!          ┌───┬───┬───────┬───────────────┬───┬───┐      power of two that holds it, first fit (S71, S72)
//!          │ 1 │   │   2   │       3       │   │   │
//!          └───┴───┴───────┴───────────────┴───┴───┘
//!   used     1   0   1   1   1   1   1   0   0   0        one bit a page
//!   last     1   0   0   1   0   0   1   0   0   0        the last page of each run
//! ```
//!
//! Two bitmaps, because one cannot tell two neighbours from one long run: with the second, a free is checked in full (S74),
//! page-aligned, begun where a run begins, of that run's size, and not free already. Both are searched by the
//! word, so a run of up to 32 pages costs a few instructions for each word that is full before it.
//!
//! The bitmaps' memory is lent by the caller. Nothing here allocates, sleeps or locks.

mod error;
#[cfg(test)]
mod seed_tests;
#[cfg(test)]
mod tests;

pub use error::{AllocateError, FreeError, NewError};

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, pages_for};
use crate::frames::order_for;

const WORD_BITS: u32 = u32::BITS;

/// A run of pages that was taken from a [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The address of its first byte.
    pub start: VirtAddr,
    /// The number of its first page, counted from the pool's first.
    pub first: u32,
    /// How many pages it has.
    pub pages: u32,
}

/// Which pages of one piece of memory are taken, and in which runs.
///
/// Plain state: the caller keeps it behind a lock that masks interrupts (S68, S77).
#[derive(Debug)]
pub struct Pool<'p> {
    base: VirtAddr,
    pages: u32,
    /// Set for pages of a run, and for the bits behind the last page.
    used: &'p mut [u32],
    /// Set for the last page of each run.
    last: &'p mut [u32],
    taken: u32,
    /// All words before this one are full.
    open: usize,
}

impl<'p> Pool<'p> {
    /// Words that each of the two bitmaps of a pool of `bytes` has.
    pub const fn words_for(bytes: u32) -> usize {
        (bytes >> PAGE_SHIFT).div_ceil(WORD_BITS) as usize
    }

    /// A pool of `bytes` from `base`, all free. A tail that is no whole page is left out (S69).
    ///
    /// `used` and `last` need [`Pool::words_for`] words each; what they hold does not matter.
    ///
    /// # Errors
    /// [`NewError`]; the bitmaps were not touched.
    pub fn new(
        base: VirtAddr,
        bytes: u32,
        used: &'p mut [u32],
        last: &'p mut [u32],
    ) -> Result<Self, NewError> {
        if !base.is_page_aligned() {
            return Err(NewError::Unaligned { base });
        }
        let pages = bytes >> PAGE_SHIFT;
        if pages == 0 {
            return Err(NewError::NoPages { bytes });
        }
        if base.checked_add((pages << PAGE_SHIFT) - 1).is_none() {
            return Err(NewError::Wraps { base, bytes });
        }
        let words = Self::words_for(bytes);
        let had = used.len().min(last.len());
        let (Some(used), Some(last)) = (used.get_mut(..words), last.get_mut(..words)) else {
            return Err(NewError::BitmapTooSmall { words, had });
        };
        used.fill(0);
        last.fill(0);
        // Bits behind the last page count as used, so that no search has to think of them.
        if let (Some(word), 1..) = (used.last_mut(), pages % WORD_BITS) {
            *word = u32::MAX << (pages % WORD_BITS);
        }
        Ok(Self { base, pages, used, last, taken: 0, open: 0 })
    }

    /// The address of the first byte.
    pub const fn base(&self) -> VirtAddr {
        self.base
    }

    /// How many pages there are.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// How many pages are taken.
    pub const fn taken_pages(&self) -> u32 {
        self.taken
    }

    /// How many pages are free, in one run or in many.
    pub const fn free_pages(&self) -> u32 {
        self.pages - self.taken
    }

    /// Whether the byte at `address` lies inside: base ≤ address < end, without a sum that could wrap (S73).
    pub fn contains(&self, address: VirtAddr) -> bool {
        self.offset_of(address).is_some()
    }

    /// Takes the lowest run that holds `bytes`, whose first page is a multiple of the next power of two of its
    /// pages. The memory is as its last user left it (S85).
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    #[inline]
    pub fn allocate(&mut self, bytes: u32) -> Result<Run, AllocateError> {
        let pages = pages_for(bytes);
        let found = match pages {
            0 => return Err(AllocateError::Zero),
            1..=WORD_BITS => self.find_in_word(pages),
            _ => self.find_words(pages),
        };
        let Some(first) = found else { return Err(self.exhausted(pages)) };
        self.mark(first, pages, |word, mask| word | mask);
        let end = first + pages - 1;
        self.last[(end / WORD_BITS) as usize] |= 1 << (end % WORD_BITS);
        self.taken += pages;
        while self.used.get(self.open) == Some(&u32::MAX) {
            self.open += 1;
        }
        let start = VirtAddr::new(self.base.raw() + (first << PAGE_SHIFT));
        Ok(Run { start, first, pages })
    }

    /// Gives back the run of `bytes` at `start`.
    ///
    /// # Errors
    /// [`FreeError`]; no bit was touched. [`FreeError::NotMine`] is no mistake of the caller's: whoever frees a
    /// coherent buffer asks the pool first, always, and goes on by that answer (S75).
    #[inline]
    pub fn free(&mut self, start: VirtAddr, bytes: u32) -> Result<(), FreeError> {
        let offset = self.offset_of(start).ok_or(FreeError::NotMine { start })?;
        let first = offset >> PAGE_SHIFT;
        let pages = pages_for(bytes);
        if bytes > (self.pages << PAGE_SHIFT) - offset {
            let last = self.base.raw() + ((self.pages << PAGE_SHIFT) - 1);
            return Err(FreeError::Overruns { start, bytes, last: VirtAddr::new(last) });
        }
        if offset & (PAGE_SIZE - 1) != 0 {
            return Err(FreeError::Unaligned { start });
        }
        if !self.is_used(first) {
            return Err(FreeError::NotAllocated { start });
        }
        if first != 0 && self.is_used(first - 1) && !self.is_last(first - 1) {
            return Err(self.not_a_start(start, first));
        }
        let allocated = self.run_length(first);
        if allocated != pages {
            return Err(FreeError::WrongSize { start, pages, allocated });
        }
        self.mark(first, pages, |word, mask| word & !mask);
        let end = first + pages - 1;
        self.last[(end / WORD_BITS) as usize] &= !(1 << (end % WORD_BITS));
        self.taken -= pages;
        self.open = self.open.min((first / WORD_BITS) as usize);
        Ok(())
    }

    /// Pages of the largest run that [`Pool::allocate`] could still give. Looks at every page.
    pub fn largest_run(&self) -> u32 {
        let (mut largest, mut run) = (0, 0);
        for page in (0..self.pages).rev() {
            run = if self.is_used(page) { 0 } else { run + 1 };
            // A run of n pages begins at a multiple of the power of two that holds it.
            let alignment = 1_u32.checked_shl(page.trailing_zeros()).unwrap_or(u32::MAX);
            largest = largest.max(run.min(alignment));
        }
        largest
    }

    /// The runs that are taken, lowest first. Looks at every page.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let mut page = 0;
        core::iter::from_fn(move || {
            page = (page..self.pages).find(|&page| self.is_used(page))?;
            let (first, pages) = (page, self.run_length(page));
            page += pages;
            let start = VirtAddr::new(self.base.raw() + (first << PAGE_SHIFT));
            Some(Run { start, first, pages })
        })
    }
}

/// The bitmaps.
impl Pool<'_> {
    #[inline(always)]
    fn offset_of(&self, address: VirtAddr) -> Option<u32> {
        address.checked_sub(self.base).filter(|offset| offset >> PAGE_SHIFT < self.pages)
    }

    fn is_used(&self, page: u32) -> bool {
        self.used[(page / WORD_BITS) as usize] & (1 << (page % WORD_BITS)) != 0
    }

    fn is_last(&self, page: u32) -> bool {
        self.last[(page / WORD_BITS) as usize] & (1 << (page % WORD_BITS)) != 0
    }

    /// First fit for up to 32 pages, which never cross a word: they are aligned to a power of two that divides it.
    #[inline(always)]
    fn find_in_word(&self, pages: u32) -> Option<u32> {
        let starts = aligned_starts(order_for(pages));
        let words = self.used.get(self.open..)?;
        for (word, index) in words.iter().zip(self.open..) {
            // Bit i of `room` stays set while `held` pages from page i are free.
            let (mut room, mut held) = (!word, 1);
            while held < pages {
                let more = held.min(pages - held);
                room &= room >> more;
                held += more;
            }
            room &= starts;
            if room != 0 {
                let index = u32::try_from(index).ok()?;
                return Some(index * WORD_BITS + room.trailing_zeros());
            }
        }
        None
    }

    /// First fit for more than 32 pages, which begin with a word.
    fn find_words(&self, pages: u32) -> Option<u32> {
        if pages > self.pages {
            return None;
        }
        let step = 1 << (order_for(pages) - WORD_BITS.trailing_zeros());
        let whole = (pages / WORD_BITS) as usize;
        let rest = (1 << (pages % WORD_BITS)) - 1;
        let mut index = (self.open + step - 1) & !(step - 1);
        loop {
            let words = self.used.get(index..index + whole)?;
            let tail = self.used.get(index + whole);
            let fits = if rest == 0 { true } else { tail? & rest == 0 };
            if fits && words.iter().all(|&word| word == 0) {
                return Some(u32::try_from(index).ok()? * WORD_BITS);
            }
            index += step;
        }
    }

    /// Applies `change` to the bits of `pages` pages from `first`, word by word.
    #[inline(always)]
    fn mark(&mut self, first: u32, pages: u32, change: impl Fn(u32, u32) -> u32) {
        let (mut index, mut bit, mut left) =
            ((first / WORD_BITS) as usize, first % WORD_BITS, pages);
        while left != 0 {
            let count = left.min(WORD_BITS - bit);
            let mask = (u32::MAX >> (WORD_BITS - count)) << bit;
            self.used[index] = change(self.used[index], mask);
            (index, bit, left) = (index + 1, 0, left - count);
        }
    }

    /// Pages from `first`, which is used, to the end of its run.
    #[inline(always)]
    fn run_length(&self, first: u32) -> u32 {
        let (index, bit) = ((first / WORD_BITS) as usize, first % WORD_BITS);
        let rest = self.last[index] >> bit;
        if rest != 0 {
            return rest.trailing_zeros() + 1;
        }
        let mut pages = WORD_BITS - bit;
        for &word in &self.last[index + 1..] {
            if word != 0 {
                return pages + word.trailing_zeros() + 1;
            }
            pages += WORD_BITS;
        }
        pages
    }

    #[cold]
    fn not_a_start(&self, start: VirtAddr, page: u32) -> FreeError {
        let mut first = page;
        while first != 0 && self.is_used(first - 1) && !self.is_last(first - 1) {
            first -= 1;
        }
        let run = VirtAddr::new(self.base.raw() + (first << PAGE_SHIFT));
        FreeError::NotAStart { start, run, pages: self.run_length(first) }
    }

    #[cold]
    fn exhausted(&self, pages: u32) -> AllocateError {
        AllocateError::Exhausted {
            pages,
            largest: self.largest_run(),
            free: self.free_pages(),
            taken: self.taken,
        }
    }
}

/// The bits of a word that are multiples of 2^`order`, which is at most 5.
#[inline(always)]
const fn aligned_starts(order: u32) -> u32 {
    const STARTS: [u32; 6] =
        [0xffff_ffff, 0x5555_5555, 0x1111_1111, 0x0101_0101, 0x0001_0001, 0x0000_0001];
    STARTS[order as usize]
}
