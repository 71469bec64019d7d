//! The atomic pool's bitmaps: runs of pages out of one piece of coherent memory, for callers that may not sleep.
//!
//! ```text
//!   page     0   1   2   3   4   5   6   7   8   9        a run of n pages begins at a multiple of the next
//!          ┌───┬───┬───────┬───────────────┬───┬───┐      power of two that holds it, first fit (S71, S72)
//!          │ 1 │   │   2   │       3       │   │   │
//!          └───┴───┴───────┴───────────────┴───┴───┘
//!   used     1   0   1   1   1   1   1   0   0   0        one bit a page
//!   first    1   0   1   0   1   0   0   0   0   0        the first page of each run
//! ```
//!
//! Two bits a page, because one cannot tell two neighbours from one long run: with the second, a free is checked in full
//! (S74), page-aligned, begun where a run begins, of that run's size, and not free already. The bits of 32 pages lie side by
//! side in one [`Word`]. A run of up to 32 pages lies in one, for it is aligned to a power of two that divides it; so it
//! costs a few instructions, and a few more for each word that is full before it.
//!
//! The words' memory is lent by the caller. Nothing here allocates, sleeps or locks.

mod capped;
mod effort;
mod error;
mod holders;
mod marks;
mod quick;
#[cfg(test)]
mod tests;
mod words;

pub use capped::MOST_ALIGNED;
pub use effort::{Effort, Glance};
pub use error::{AllocateError, FreeError, NewError};
pub use holders::{Holder, Holders};
pub use marks::Marks;
use quick::first_fit;
pub use quick::{Few, Many, Pair, Size};

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, pages_for};
use crate::frames::Freed;

const WORD_BITS: u32 = u32::BITS;
/// The bit of a word's first page.
const TOP: u32 = 1 << (WORD_BITS - 1);

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

/// The bits of 32 pages, the first page's on top: an instruction finds the highest bit, and another moves it into the sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Set for pages of a run, and for the bits behind the last page.
    used: u32,
    /// Set for the first page of each run, and the first of the bits behind the last page.
    first: u32,
}

impl Word {
    /// All free.
    pub const FREE: Self = Self { used: 0, first: 0 };
    /// All of one run, which begins with them.
    const BEGUN: Self = Self { used: u32::MAX, first: TOP };
    /// All of one run, which began before them.
    const INSIDE: Self = Self { used: u32::MAX, first: 0 };

    /// Set for pages that belong to the run of the page before them, and for the bits behind the last page.
    #[inline(always)]
    const fn joined(self) -> u32 {
        self.used & !self.first
    }

    /// Takes the run that begins with page `bit`, which is free; the number of that page, of the word at `index`.
    #[inline(always)]
    const fn take(&mut self, index: u32, bit: u32, behind: u32) -> u32 {
        self.used |= run_of(bit, behind);
        self.first |= run_of(bit, 0);
        index << WORD_BITS.trailing_zeros() | bit
    }
}

/// Which pages of one piece of memory are taken, and in which runs.
///
/// Plain state: the caller keeps it behind a lock that masks interrupts (S68, S77).
#[derive(Debug)]
pub struct Pool<'p> {
    base: VirtAddr,
    pages: u32,
    words: &'p mut [Word],
    /// All words before this one are full; it may be itself.
    open: u32,
}

impl<'p> Pool<'p> {
    /// Words that a pool of `bytes` has.
    pub const fn words_for(bytes: u32) -> usize {
        (bytes >> PAGE_SHIFT).div_ceil(WORD_BITS) as usize
    }

    /// A pool of `bytes` from `base`, all free. A tail that is no whole page is left out (S69).
    ///
    /// There must be [`Pool::words_for`] words at least; what they hold does not matter.
    ///
    /// # Errors
    /// [`NewError`]; the words were not touched.
    pub fn new(base: VirtAddr, bytes: u32, words: &'p mut [Word]) -> Result<Self, NewError> {
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
        let (wanted, had) = (Self::words_for(bytes), words.len());
        let Some(words) = words.get_mut(..wanted) else {
            return Err(NewError::TooFewWords { wanted, had });
        };
        words.fill(Word::FREE);
        // Bits behind the last page count as used, by a run of their own, so that nobody has to think of them.
        if let (Some(word), 1..) = (words.last_mut(), pages % WORD_BITS) {
            *word =
                Word { used: u32::MAX >> (pages % WORD_BITS), first: run_of(pages % WORD_BITS, 0) };
        }
        Ok(Self { base, pages, words, open: 0 })
    }

    /// A pool without memory, to begin with: it gives nothing, and nothing is its own.
    pub const fn empty() -> Self {
        Self { base: VirtAddr::new(0), pages: 0, words: &mut [], open: 0 }
    }

    /// The address of the first byte.
    pub const fn base(&self) -> VirtAddr {
        self.base
    }

    /// How many pages there are.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// How many pages are taken. Looks at every word.
    pub fn taken_pages(&self) -> u32 {
        self.pages - self.free_pages()
    }

    /// How many pages are free, in one run or in many. Looks at every word.
    pub fn free_pages(&self) -> u32 {
        self.words.iter().map(|word| word.used.count_zeros()).sum()
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
    pub fn allocate(&mut self, bytes: u32) -> Result<Run, AllocateError> {
        let pages = pages_for(bytes);
        match self.take(bytes) {
            Some(first) => Ok(Run { start: self.address_of(first), first, pages }),
            None if pages == 0 => Err(AllocateError::Zero),
            None => Err(self.exhausted(pages)),
        }
    }

    /// As [`Pool::allocate`]: the number of the first page, or `None` without a reason.
    #[inline(never)]
    pub fn take(&mut self, bytes: u32) -> Option<u32> {
        let behind = pages_behind(bytes);
        if behind >= WORD_BITS {
            return self.take_words(behind);
        }
        self.step_over_full();
        for index in self.open..=self.pages / WORD_BITS {
            let word = self.words.get_mut(index as usize)?;
            if let Some(bit) = first_fit(behind, word.used) {
                return Some(word.take(index, bit, behind));
            }
        }
        None
    }

    /// Gives back the run of `bytes` at `start`.
    ///
    /// # Errors
    /// [`FreeError`]; no bit was touched. [`FreeError::NotMine`] is no mistake of the caller's: whoever frees a
    /// coherent buffer asks the pool first, always, and goes on by that answer (S75).
    pub fn free(&mut self, start: VirtAddr, bytes: u32) -> Result<(), FreeError> {
        let offset = self.offset_of(start).ok_or(FreeError::NotMine { start })?;
        if start.is_page_aligned() && self.give_back(offset >> PAGE_SHIFT, bytes) == Freed::Yes {
            return Ok(());
        }
        Err(self.refusal(start, offset, bytes))
    }

    /// As [`Pool::free`], for callers in a hurry, who know the number of the first page: with the same checks, but without a
    /// reason.
    #[inline(always)]
    pub fn give_back(&mut self, first: u32, bytes: u32) -> Freed {
        let behind = pages_behind(bytes);
        let (index, bit) = place(first);
        if first >= self.pages {
            return Freed::No;
        }
        let Some(word) = self.words.get_mut(index as usize) else { return Freed::No };
        let begins = word.first.wrapping_shl(bit) & TOP != 0;
        // How many pages of its word go on with the run. Of a whole word, the next one has to be asked as well: not here.
        let others = (!(word.joined().wrapping_shl(bit) << 1)).leading_zeros();
        if !begins || others != behind || behind >= WORD_BITS - 1 {
            return self.give_back_otherwise(index, bit, behind);
        }
        let run = run_of(bit, behind);
        word.used &= !run;
        word.first &= !run;
        if index < self.open {
            self.open = index;
        }
        Freed::Yes
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

    /// Whether fewer than `pages` are free. Looks at no more words than it takes to find so many.
    pub fn has_fewer_free_than(&self, pages: u32) -> bool {
        let mut missing = pages;
        for word in self.words.iter() {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(word.used.count_zeros());
        }
        missing != 0
    }

    /// How many pages a pool would have to have to hold in one piece what this one holds and, behind that, runs of `further` pages one
    /// after the other. For the last run that found no room here, and those that went elsewhere before it, this is the smallest pool
    /// that would have given it: first fit places all others as it did here, whatever lies behind them.
    pub fn enough_for(&self, further: impl Iterator<Item = u32>) -> u32 {
        let behind =
            (0..self.pages).rev().find(|&page| self.is_used(page)).map_or(0, |last| last + 1);
        further.fold(behind, end_behind)
    }

    /// Gives the pool up: the memory of its bits.
    pub fn into_words(self) -> &'p mut [Word] {
        self.words
    }

    /// The runs that are taken, lowest first. Looks at every page.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        self.runs_from(0)
    }

    /// The same of those that begin at `page` or behind it.
    pub fn runs_from(&self, mut page: u32) -> impl Iterator<Item = Run> {
        // Of a run that began before it the rest is left out.
        while page != 0 && self.goes_on(page - 1) {
            page += 1;
        }
        core::iter::from_fn(move || {
            page = (page..self.pages).find(|&page| self.is_used(page))?;
            let (first, pages) = (page, self.run_length(page));
            page += pages;
            Some(Run { start: self.address_of(first), first, pages })
        })
    }
}

/// The bitmaps.
impl Pool<'_> {
    #[inline(always)]
    fn offset_of(&self, address: VirtAddr) -> Option<u32> {
        address.checked_sub(self.base).filter(|offset| offset >> PAGE_SHIFT < self.pages)
    }

    #[inline(always)]
    fn address_of(&self, page: u32) -> VirtAddr {
        // `new` saw that the pool does not wrap.
        VirtAddr::new(self.base.raw().wrapping_add(page << PAGE_SHIFT))
    }

    fn word(&self, index: u32) -> Word {
        self.words.get(index as usize).copied().unwrap_or_default()
    }

    fn is_used(&self, page: u32) -> bool {
        let (index, bit) = place(page);
        self.word(index).used << bit & TOP != 0
    }

    /// Whether `page` belongs to a run that goes on behind it.
    fn goes_on(&self, page: u32) -> bool {
        self.is_joined(page.wrapping_add(1))
    }

    /// Whether `page` belongs to the run of the page before it.
    #[inline(always)]
    fn is_joined(&self, page: u32) -> bool {
        let (index, bit) = place(page);
        page < self.pages && self.word(index).joined() << bit & TOP != 0
    }

    fn step_over_full(&mut self) {
        while self.words.get(self.open as usize).is_some_and(|word| word.used == u32::MAX) {
            self.open += 1;
        }
    }

    /// What is wrong with a free that was refused: every check of it, one by one.
    #[cold]
    fn refusal(&self, start: VirtAddr, offset: u32, bytes: u32) -> FreeError {
        let (first, pages) = (offset >> PAGE_SHIFT, pages_for(bytes));
        if bytes > (self.pages << PAGE_SHIFT) - offset {
            let last = VirtAddr::new(self.base.raw() + ((self.pages << PAGE_SHIFT) - 1));
            return FreeError::Overruns { start, bytes, last };
        }
        if offset & (PAGE_SIZE - 1) != 0 {
            return FreeError::Unaligned { start };
        }
        if !self.is_used(first) {
            return FreeError::NotAllocated { start };
        }
        if first != 0 && self.goes_on(first - 1) {
            return self.not_a_start(start, first);
        }
        FreeError::WrongSize { start, pages, allocated: self.run_length(first) }
    }

    /// Pages from `first`, which is used, to the end of its run.
    fn run_length(&self, first: u32) -> u32 {
        let mut end = first;
        while self.goes_on(end) {
            end += 1;
        }
        end + 1 - first
    }

    #[cold]
    fn not_a_start(&self, start: VirtAddr, page: u32) -> FreeError {
        let mut first = page;
        while first != 0 && self.goes_on(first - 1) {
            first -= 1;
        }
        let run = self.address_of(first);
        FreeError::NotAStart { start, run, pages: self.run_length(first) }
    }

    /// What is said when no aligned run of `pages` pages is free.
    #[cold]
    pub fn exhausted(&self, pages: u32) -> AllocateError {
        AllocateError::Exhausted {
            pages,
            largest: self.largest_run(),
            free: self.free_pages(),
            taken: self.taken_pages(),
        }
    }
}

/// Where a run of `pages` ends that begins at the first page from `end` on at which it may.
pub fn end_behind(end: u32, pages: u32) -> u32 {
    let alignment = pages.max(1).checked_next_power_of_two().unwrap_or(1);
    end.checked_next_multiple_of(alignment).unwrap_or(end).saturating_add(pages)
}

/// The word of a page, and the bit in it.
#[inline(always)]
const fn place(page: u32) -> (u32, u32) {
    (page / WORD_BITS, page % WORD_BITS)
}

/// How many pages of `bytes` lie behind the first; for nothing more than there are.
#[inline(always)]
const fn pages_behind(bytes: u32) -> u32 {
    bytes.wrapping_sub(1) >> PAGE_SHIFT
}

/// The bits of a run that begins with page `bit` of a word and has `behind` pages more, those of them that are in the word.
#[inline(always)]
const fn run_of(bit: u32, behind: u32) -> u32 {
    const TOP: i32 = i32::MIN;
    TOP.wrapping_shr(behind).cast_unsigned().wrapping_shr(bit)
}
