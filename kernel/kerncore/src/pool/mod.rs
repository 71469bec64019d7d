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
    #[inline(always)]
    pub fn allocate(&mut self, bytes: u32) -> Result<Run, AllocateError> {
        let pages = pages_for(bytes);
        let found = match pages {
            0 => return Err(AllocateError::Zero),
            1..=WORD_BITS => self.take_in_word(pages),
            _ => self.take_words(pages),
        };
        let Some(first) = found else { return Err(self.exhausted(pages)) };
        self.taken = self.taken.wrapping_add(pages);
        Ok(Run { start: self.address_of(first), first, pages })
    }

    /// Gives back the run of `bytes` at `start`.
    ///
    /// # Errors
    /// [`FreeError`]; no bit was touched. [`FreeError::NotMine`] is no mistake of the caller's: whoever frees a
    /// coherent buffer asks the pool first, always, and goes on by that answer (S75).
    #[inline(always)]
    pub fn free(&mut self, start: VirtAddr, bytes: u32) -> Result<(), FreeError> {
        let offset = self.offset_of(start).ok_or(FreeError::NotMine { start })?;
        let first = offset >> PAGE_SHIFT;
        let pages = pages_for(bytes);
        // Nearly every run lies in one word, and there all of the checks are a few masks. A run that is said to
        // pass the pool's end would end at a bit of `last` that is never set.
        let (index, bit) = place(first);
        if offset & (PAGE_SIZE - 1) == 0
            && pages.wrapping_sub(1) < WORD_BITS - bit
            && !(first != 0 && self.goes_on(first - 1))
        {
            let mask = (u32::MAX >> (WORD_BITS - pages)) << bit;
            let end = mask & !(mask >> 1);
            let (used, last) = (&mut self.used[index], &mut self.last[index]);
            if *used & mask == mask && *last & mask == end {
                *used &= !mask;
                *last &= !end;
                self.taken = self.taken.wrapping_sub(pages);
                self.open = self.open.min(index);
                return Ok(());
            }
        }
        self.free_words(start, offset, bytes)
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

    fn is_used(&self, page: u32) -> bool {
        let (index, bit) = place(page);
        self.used[index] >> bit & 1 != 0
    }

    /// Whether `page` belongs to a run that goes on behind it.
    #[inline(always)]
    fn goes_on(&self, page: u32) -> bool {
        let (index, bit) = place(page);
        (self.used[index] & !self.last[index]) >> bit & 1 != 0
    }

    /// First fit for up to 32 pages, which never cross a word: they are aligned to a power of two that divides it.
    #[inline(always)]
    fn take_in_word(&mut self, pages: u32) -> Option<u32> {
        let starts = aligned_starts(order_for(pages));
        let mut index = self.open;
        loop {
            let word = self.used.get_mut(index)?;
            // Bit i of `room` stays set while `held` pages from page i are free.
            let (mut room, mut held) = (!*word, 1);
            while held < pages {
                let more = held.min(pages - held);
                room &= room >> more;
                held += more;
            }
            room &= starts;
            if room == 0 {
                index += 1;
                continue;
            }
            let bit = room.trailing_zeros();
            let mask = (u32::MAX >> (WORD_BITS - pages)) << bit;
            *word |= mask;
            let full = *word == u32::MAX;
            self.last[index] |= mask & !(mask >> 1);
            if full && index == self.open {
                self.open = index + 1;
            }
            return Some(u32::try_from(index).ok()? * WORD_BITS + bit);
        }
    }

    /// First fit for more than 32 pages, which begin with a word.
    fn take_words(&mut self, pages: u32) -> Option<u32> {
        if pages > self.pages {
            return None;
        }
        let step = 1 << (order_for(pages) - WORD_BITS.trailing_zeros());
        let words = pages.div_ceil(WORD_BITS);
        // The pages that lie in the last word.
        let tail = u32::MAX >> (words * WORD_BITS - pages);
        let words = words as usize;
        let mut index = (self.open + step - 1) & !(step - 1);
        loop {
            let (end, whole) = self.used.get_mut(index..index + words)?.split_last_mut()?;
            if *end & tail != 0 || whole.iter().any(|&word| word != 0) {
                index += step;
                continue;
            }
            whole.fill(u32::MAX);
            *end |= tail;
            self.last[index + words - 1] |= tail & !(tail >> 1);
            while self.used.get(self.open) == Some(&u32::MAX) {
                self.open += 1;
            }
            return Some(u32::try_from(index).ok()? * WORD_BITS);
        }
    }

    /// Every check of a free, one by one, and the free of a run of several words.
    #[inline(never)]
    fn free_words(&mut self, start: VirtAddr, offset: u32, bytes: u32) -> Result<(), FreeError> {
        let (first, pages) = (offset >> PAGE_SHIFT, pages_for(bytes));
        if bytes > (self.pages << PAGE_SHIFT) - offset {
            let last = VirtAddr::new(self.base.raw() + ((self.pages << PAGE_SHIFT) - 1));
            return Err(FreeError::Overruns { start, bytes, last });
        }
        if offset & (PAGE_SIZE - 1) != 0 {
            return Err(FreeError::Unaligned { start });
        }
        if !self.is_used(first) {
            return Err(FreeError::NotAllocated { start });
        }
        if first != 0 && self.goes_on(first - 1) {
            return Err(self.not_a_start(start, first));
        }
        let allocated = self.run_length(first);
        if allocated != pages {
            return Err(FreeError::WrongSize { start, pages, allocated });
        }
        let (index, mut bit) = place(first);
        let mut left = pages;
        for word in &mut self.used[index..] {
            let count = left.min(WORD_BITS - bit);
            *word &= !((u32::MAX >> (WORD_BITS - count)) << bit);
            (bit, left) = (0, left - count);
            if left == 0 {
                break;
            }
        }
        let (end, bit) = place(first + pages - 1);
        self.last[end] &= !(1 << bit);
        self.taken -= pages;
        self.open = self.open.min(index);
        Ok(())
    }

    /// Pages from `first`, which is used, to the end of its run.
    #[inline(always)]
    fn run_length(&self, first: u32) -> u32 {
        let (index, bit) = place(first);
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
        while first != 0 && self.goes_on(first - 1) {
            first -= 1;
        }
        let run = self.address_of(first);
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

/// The word of a page, and the bit in it.
#[inline(always)]
const fn place(page: u32) -> (usize, u32) {
    ((page / WORD_BITS) as usize, page % WORD_BITS)
}

/// The bits of a word that are multiples of 2^`order`, which is at most 5.
#[inline(always)]
const fn aligned_starts(order: u32) -> u32 {
    const STARTS: [u32; 6] =
        [0xffff_ffff, 0x5555_5555, 0x1111_1111, 0x0101_0101, 0x0001_0001, 0x0000_0001];
    STARTS[order as usize]
}
