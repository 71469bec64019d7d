//! Runs of a pool whose alignment has an upper bound, and whether a run is one: what device addresses ask for beyond the rest.

use super::{Pool, WORD_BITS, Word, end_of, pages_behind, place, run_of};

/// The largest alignment, in pages, of what [`Pool::take_capped`] gives: that of a supersection.
pub const MOST_ALIGNED: u32 = 4096;

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
        let (whole, tail) = super::words::words_of(behind);
        let mut index = self.open.next_multiple_of(STEP);
        loop {
            let (words, end) = self.words_from(index, whole)?;
            // The last word in use is in the way of all that begins before it.
            let in_use = words.iter().rposition(|word| word.used != 0);
            let in_use = if end.used & tail != 0 { Some(words.len()) } else { in_use };
            let Some(in_use) = in_use else {
                words.fill(Word::INSIDE);
                end.used |= tail;
                end.last |= end_of(tail);
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
        if first != 0 && self.goes_on(first - 1) {
            return false;
        }
        let last = first + behind;
        let (index, bit) = place(first);
        let (end, end_bit) = place(last);
        (index..=end).all(|at| {
            let from = if at == index { bit } else { 0 };
            let to = if at == end { end_bit } else { WORD_BITS - 1 };
            let mask = run_of(from, to - from);
            let ends = if at == end { end_of(mask) } else { 0 };
            let word = self.word(at);
            word.used & mask == mask && word.last & mask == ends
        })
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
