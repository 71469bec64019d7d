//! Short cuts to a run: who asks in a hurry finds out by its size, before any lock is taken, which of them to go.
//!
//! Each looks at one word, or at one pair after the other, and takes few instructions. What it does not find is a matter of
//! [`Pool::take`]; what it does find is what that would have given.

use super::words::words_of;
use super::{Pool, WORD_BITS, Word, pages_behind, run_of};

/// How many pages are asked for, as the short cuts tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// One: [`Pool::take_page`].
    Page,
    /// Two to four: [`Pool::take_few`].
    Few(Few),
    /// Five to 32: [`Pool::take_many`].
    Many(Many),
    /// 33 to 64: [`Pool::take_pair`].
    Pair(Pair),
    /// More, or none: there is no short cut.
    Other,
}

/// Two to four pages: how many are behind the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Few(u32);

/// Five to 32 pages: how many are behind the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Many(u32);

/// 33 to 64 pages: how many are behind the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(u32);

impl Size {
    /// That of `bytes`, rounded up to pages.
    #[inline(always)]
    pub const fn of(bytes: u32) -> Self {
        match pages_behind(bytes) {
            0 => Self::Page,
            behind @ 1..4 => Self::Few(Few(behind)),
            behind @ 4..WORD_BITS => Self::Many(Many(behind)),
            behind @ WORD_BITS..TWO_WORDS => Self::Pair(Pair(behind)),
            _ => Self::Other,
        }
    }
}

const TWO_WORDS: u32 = 2 * WORD_BITS;

impl Pool<'_> {
    /// [`Pool::take`] of a page, if the first word that may have one does. `None` says that [`Pool::take`] is to be asked.
    #[inline(always)]
    pub fn take_page(&mut self) -> Option<u32> {
        self.take_in_open(0, |used| lowest(!used))
    }

    /// The same of [`Few`].
    #[inline(always)]
    pub fn take_few(&mut self, Few(behind): Few) -> Option<u32> {
        self.take_in_open(behind, |used| first_of_few(behind, used))
    }

    /// The same of [`Many`].
    #[inline(always)]
    pub fn take_many(&mut self, Many(behind): Many) -> Option<u32> {
        let index = self.open;
        let word = self.words.get_mut(index as usize)?;
        if word.used & run_of(0, behind) != 0 {
            return self.take_further(behind);
        }
        Some(word.take(index, 0, behind))
    }

    /// As [`Pool::take_many`], but not where the word begins. Not inlined: it would take registers from that.
    #[inline(never)]
    fn take_further(&mut self, behind: u32) -> Option<u32> {
        self.take_in_open(behind, |used| first_of_many(behind, used))
    }

    /// The same of a [`Pair`], which two words are, the first of them an even one.
    #[inline(always)]
    pub fn take_pair(&mut self, Pair(behind): Pair) -> Option<u32> {
        let (_, tail) = words_of(behind);
        let mut index = self.open.wrapping_add(1) & !1;
        loop {
            let [first, second] = self.words.get_mut(index as usize..)?.first_chunk_mut()?;
            if first.used | second.used & tail == 0 {
                *first = Word::BEGUN;
                second.used |= tail;
                return Some(index << WORD_BITS.trailing_zeros());
            }
            index = index.wrapping_add(2);
        }
    }

    /// Takes so many pages where `search` finds them, in the first word that may have some.
    #[inline(always)]
    fn take_in_open(
        &mut self,
        behind: u32,
        search: impl FnOnce(u32) -> Option<u32>,
    ) -> Option<u32> {
        let index = self.open;
        let word = self.words.get_mut(index as usize)?;
        let bit = search(word.used)?;
        Some(word.take(index, bit, behind))
    }
}

/// The lowest page at which a run of `behind` + 1 pages, up to 32, may begin in a word whose pages of `used` are taken: a multiple
/// of the next power of two.
pub(super) const fn first_fit(behind: u32, used: u32) -> Option<u32> {
    match behind {
        0 => lowest(!used),
        1..4 => first_of_few(behind, used),
        _ => first_of_many(behind, used),
    }
}

/// As [`first_fit`], of two to four pages.
#[inline(always)]
const fn first_of_few(behind: u32, used: u32) -> Option<u32> {
    let free = !used;
    // The bit of a page stays set while so many pages from it on are free.
    lowest(match behind {
        1 => free & free << 1 & 0xaaaa_aaaa,
        2 => free & free << 1 & free << 2 & 0x8888_8888,
        _ => free & free << 1 & free << 2 & free << 3 & 0x8888_8888,
    })
}

/// As [`first_fit`], of five pages or more: there are four places at most to look at.
#[inline(always)]
const fn first_of_many(behind: u32, used: u32) -> Option<u32> {
    let run = run_of(0, behind);
    let step = 1_u32 << (WORD_BITS - behind.leading_zeros());
    let mut bit = 0;
    while bit < WORD_BITS {
        if used & run.wrapping_shr(bit) == 0 {
            return Some(bit);
        }
        bit += step;
    }
    None
}

/// The lowest page of those whose bits are set.
#[inline(always)]
const fn lowest(room: u32) -> Option<u32> {
    if room == 0 { None } else { Some(room.leading_zeros()) }
}
