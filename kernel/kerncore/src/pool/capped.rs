//! Runs of a pool whose alignment has an upper bound, and whether a run is one: what device addresses ask for beyond the rest.

use super::words::{begin, words_of};
use super::{Pool, Run, WORD_BITS, Word, pages_behind, place, run_of};

/// The largest alignment, in pages, of what [`Pool::take_capped`] gives: that of a supersection.
pub const MOST_ALIGNED: u32 = 4096;

impl Word {
    /// Whether the pages of `run` are those of one that begins with `first`, or with none of them.
    #[inline(always)]
    const fn has_run(self, run: u32, first: u32) -> bool {
        self.used & run == run && self.first & run == first
    }
}

impl Pool<'_> {
    /// As [`Pool::take`], but what has more than [`MOST_ALIGNED`] pages begins at a multiple of so many.
    pub fn take_capped(&mut self, bytes: u32) -> Option<u32> {
        let behind = pages_behind(bytes);
        if bytes == 0 || behind < MOST_ALIGNED {
            return self.take(bytes);
        }
        self.take_long(behind)
    }

    /// Not inlined: runs of so many pages are rare.
    #[cold]
    #[inline(never)]
    fn take_long(&mut self, behind: u32) -> Option<u32> {
        const STEP: u32 = MOST_ALIGNED / WORD_BITS;
        if behind >= self.pages {
            return None;
        }
        self.step_over_full();
        let (whole, tail) = words_of(behind);
        let mut index = self.open.next_multiple_of(STEP);
        loop {
            let (words, end) = self.words_from(index, whole)?;
            // The last word in use is in the way of all that begins before it.
            let in_use = words.iter().rposition(|word| word.used != 0);
            let in_use = if end.used & tail != 0 { Some(words.len()) } else { in_use };
            let Some(in_use) = in_use else {
                begin(words);
                end.used |= tail;
                return Some(index * WORD_BITS);
            };
            // No pool has as many words as an address has values.
            let behind = u32::try_from(in_use).unwrap_or(u32::MAX).saturating_add(1);
            index = index.saturating_add(behind).checked_next_multiple_of(STEP)?;
        }
    }

    /// Whether a run of exactly `bytes`, rounded up to pages, begins at the page with the number `first`. Looks at its words alone.
    pub fn is_run(&self, first: u32, bytes: u32) -> bool {
        let behind = pages_behind(bytes);
        if behind >= self.pages || first > self.pages - 1 - behind {
            return false;
        }
        let last = first + behind;
        if self.is_joined(last + 1) {
            return false;
        }
        let (index, bit) = place(first);
        let first = run_of(bit, 0);
        if behind < WORD_BITS - bit {
            return self.word(index).has_run(run_of(bit, behind), first);
        }
        let (end, end_bit) = place(last);
        self.word(index).has_run(u32::MAX >> bit, first)
            && (index + 1..end).all(|index| self.word(index).has_run(u32::MAX, 0))
            && self.word(end).has_run(run_of(0, end_bit), 0)
    }

    /// Takes the run of `bytes` again that begins with the page with the number `first`, and that [`Pool::give_back`] took back a moment
    /// ago: nothing else has changed since. Of a run of up to 32 pages.
    pub fn take_again(&mut self, first: u32, bytes: u32) {
        let (index, bit) = place(first);
        let behind = pages_behind(bytes);
        debug_assert!(bit + behind < WORD_BITS, "{bytes} bytes from page {first} on");
        if let Some(word) = self.words.get_mut(index as usize) {
            word.take(index, bit, behind);
        }
    }

    /// The run that `page` lies in, if it is taken. Looks at its words alone.
    pub fn run_around(&self, page: u32) -> Option<Run> {
        if page >= self.pages || !self.is_used(page) {
            return None;
        }
        let (mut index, bit) = place(page);
        let mut begins = self.word(index).first & run_of(0, bit);
        while begins == 0 && index != 0 {
            index -= 1;
            begins = self.word(index).first;
        }
        let first = index * WORD_BITS + (WORD_BITS - 1 - begins.trailing_zeros());
        let mut index = page / WORD_BITS;
        // The first page behind it that belongs to another run, or to none.
        let mut others = !self.word(index).joined() & !run_of(0, bit);
        while others == 0 && index * WORD_BITS < self.pages {
            index += 1;
            others = !self.word(index).joined();
        }
        let end = self.pages.min(index * WORD_BITS + others.leading_zeros());
        Some(Run { start: self.address_of(first), first, pages: end - first })
    }

    /// As [`Pool::largest_run`], of what [`Pool::take_capped`] could still give. Looks at every page.
    pub fn largest_capped(&self) -> u32 {
        let (mut largest, mut run) = (0, 0);
        for page in (0..self.pages).rev() {
            run = if self.is_used(page) { 0 } else { run + 1 };
            let alignment = 1_u32.checked_shl(page.trailing_zeros()).unwrap_or(u32::MAX);
            let most = if alignment >= MOST_ALIGNED { u32::MAX } else { alignment };
            largest = largest.max(run.min(most));
        }
        largest
    }
}
