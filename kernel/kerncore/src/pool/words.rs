//! Runs of more than 32 pages, which begin with a word.
//!
//! Of 33 to 64 pages, a word and some of the next are looked at as a pair; of more, word by word.

use super::{Pool, WORD_BITS, Word, run_of};
use crate::frames::Freed;

impl Pool<'_> {
    /// First fit for more than 32 pages, which begin with a word: for one and `behind` behind it.
    #[inline(always)]
    pub(super) fn take_words(&mut self, behind: u32) -> Option<u32> {
        let (whole, tail) = words_of(behind);
        if behind >= self.pages {
            return None;
        }
        self.step_over_full();
        let step = 1_u32.wrapping_shl(WORD_BITS.wrapping_sub(whole.leading_zeros()));
        let mut index = self.open.wrapping_add(step - 1) & !(step - 1);
        loop {
            let (whole, end) = self.words_from(index, whole)?;
            if end.used & tail != 0 || whole.iter().any(|word| word.used != 0) {
                index = index.wrapping_add(step);
                continue;
            }
            begin(whole);
            end.used |= tail;
            return Some(index << WORD_BITS.trailing_zeros());
        }
    }

    /// The free of a run that ends with a word, with the pool or in another word, or of none.
    #[inline(never)]
    pub(super) fn give_back_otherwise(&mut self, index: u32, bit: u32, behind: u32) -> Freed {
        let (whole, tail) = words_of(behind);
        let last = (index << WORD_BITS.trailing_zeros() | bit).wrapping_add(behind);
        if self.is_joined(last.wrapping_add(1)) {
            return Freed::No;
        }
        let taken_back = match (bit, whole) {
            (0, 1) => self.give_back_pair(index, tail),
            (0, 2..) => self.give_back_words(index, whole, tail),
            _ => self.give_back_in_word(index, bit, behind),
        };
        if taken_back.is_none() {
            return Freed::No;
        }
        if index < self.open {
            self.open = index;
        }
        Freed::Yes
    }

    /// Of a run that nothing goes on from, in one word.
    fn give_back_in_word(&mut self, index: u32, bit: u32, behind: u32) -> Option<()> {
        let run = run_of(bit, behind);
        let word = self.words.get_mut(index as usize)?;
        if behind >= WORD_BITS - bit || word.used & run != run || word.first & run != run_of(bit, 0)
        {
            return None;
        }
        word.used &= !run;
        word.first &= !run;
        Some(())
    }

    /// The same of one of all pages of a word and those of `tail` in the next.
    #[inline(always)]
    fn give_back_pair(&mut self, index: u32, tail: u32) -> Option<()> {
        let [first, second] = self.words.get_mut(index as usize..)?.first_chunk_mut()?;
        if *first != Word::BEGUN || second.joined() & tail != tail {
            return None;
        }
        *first = Word::FREE;
        second.used &= !tail;
        Some(())
    }

    /// The same of one of so many words, and the pages of `tail` in the next.
    fn give_back_words(&mut self, index: u32, whole: u32, tail: u32) -> Option<()> {
        let (whole, end) = self.words_from(index, whole)?;
        let (first, inside) = whole.split_first_mut()?;
        let is_run = *first == Word::BEGUN && end.joined() & tail == tail;
        if !is_run || inside.iter().any(|&word| word != Word::INSIDE) {
            return None;
        }
        *first = Word::FREE;
        for word in inside {
            // All ones become zeros, without a call for what is mostly a word or two.
            word.used = !word.used;
        }
        end.used &= !tail;
        Some(())
    }

    /// So many words from that at `index`, and the next.
    #[inline(always)]
    pub(super) fn words_from(
        &mut self,
        index: u32,
        count: u32,
    ) -> Option<(&mut [Word], &mut Word)> {
        let from = self.words.get_mut(index as usize..)?;
        let (words, rest) = from.split_at_mut_checked(count as usize)?;
        Some((words, rest.first_mut()?))
    }
}

/// A run that begins with `words` and goes on behind them.
#[inline(always)]
pub(super) fn begin(words: &mut [Word]) {
    words.fill(Word::INSIDE);
    if let Some(first) = words.first_mut() {
        *first = Word::BEGUN;
    }
}

/// How many words a page and `behind` behind it fill, and the bits that they have in the next: 1 to 32.
#[inline(always)]
pub(super) const fn words_of(behind: u32) -> (u32, u32) {
    (behind / WORD_BITS, run_of(0, behind % WORD_BITS))
}
