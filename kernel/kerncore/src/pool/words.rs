//! Runs of more than 32 pages, which begin with a word.
//!
//! Of 33 to 64 pages, a word and some of the next are taken and looked at as a pair; of more, word by word.

use super::{Pool, WORD_BITS, Word, end_of, place, run_of};
use crate::frames::Freed;

impl Pool<'_> {
    /// First fit for more than 32 pages, which begin with a word: for one and `behind` behind it.
    #[inline(never)]
    pub(super) fn take_words(&mut self, behind: u32) -> Option<u32> {
        let (whole, tail) = words_of(behind);
        if whole == 1 {
            return self.take_pair(tail);
        }
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
            whole.fill(Word::INSIDE);
            end.used |= tail;
            end.last |= end_of(tail);
            return Some(index << WORD_BITS.trailing_zeros());
        }
    }

    /// As [`Pool::take_words`], for all pages of a word and those of `tail` in the next.
    #[inline(always)]
    fn take_pair(&mut self, tail: u32) -> Option<u32> {
        // Two words from an even one on.
        let mut index = self.open.wrapping_add(1) & !1;
        loop {
            let [first, second] = self.words.get_mut(index as usize..)?.first_chunk_mut()?;
            if first.used | second.used & tail == 0 {
                *first = Word::INSIDE;
                second.used |= tail;
                second.last |= end_of(tail);
                return Some(index << WORD_BITS.trailing_zeros());
            }
            index = index.wrapping_add(2);
        }
    }

    /// The free of a run of more than one word, or of none.
    #[inline(never)]
    pub(super) fn give_back_words(&mut self, first: u32, behind: u32) -> Freed {
        let (index, bit) = place(first);
        if bit != 0 || self.is_gone_on_into(index) {
            return Freed::No;
        }
        let (whole, tail) = words_of(behind);
        if whole == 1 {
            return self.give_back_pair(index, tail);
        }
        if behind >= self.pages {
            return Freed::No;
        }
        let Some((whole, end)) = self.words_from(index, whole) else { return Freed::No };
        let ends_there = end.used & tail == tail && end.last & tail == end_of(tail);
        if !ends_there || whole.iter().any(|&word| word != Word::INSIDE) {
            return Freed::No;
        }
        for word in whole {
            // All ones become zeros, without a call for what is mostly a word or two.
            word.used = !word.used;
        }
        end.used &= !tail;
        end.last &= !tail;
        if index < self.open {
            self.open = index;
        }
        Freed::Yes
    }

    /// As [`Pool::give_back_words`], of what no run goes on into.
    #[inline(always)]
    fn give_back_pair(&mut self, index: u32, tail: u32) -> Freed {
        let words = self.words.get_mut(index as usize..).and_then(<[Word]>::first_chunk_mut);
        let Some([first, second]) = words else { return Freed::No };
        let ends_there = second.used & tail == tail && second.last & tail == end_of(tail);
        if *first != Word::INSIDE || !ends_there {
            return Freed::No;
        }
        *first = Word::FREE;
        second.used &= !tail;
        second.last &= !tail;
        if index < self.open {
            self.open = index;
        }
        Freed::Yes
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

/// How many words a page and `behind` behind it fill, and the bits that they have in the next: 1 to 32.
#[inline(always)]
pub(super) const fn words_of(behind: u32) -> (u32, u32) {
    (behind / WORD_BITS, run_of(0, behind % WORD_BITS))
}
