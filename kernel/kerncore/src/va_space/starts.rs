//! The areas by address: a set of first pages, with summaries that make neighbours quick to find.
//!
//! ```text
//!  word 0    ┌32 bits┐        a bit of a summary: the word below it has a bit set
//!            └┬──┬──┬┘
//!  word 1    ┌┘ ┌┘ ┌┘         the words below word w are 32w+1 … 32w+32
//!  lowest    one bit a page: an area begins here
//! ```
//!
//! One summary may be late: a word that has just become empty keeps its bits above until another becomes empty,
//! because the next area often begins where the last one was. Searches skip an empty word.

/// Bits in a word, as a power of two.
const FAN_OUT_SHIFT: u32 = 5;
/// What is left of a number of bits inside its word.
const BIT_MASK: u32 = u32::BITS - 1;

/// A set of pages.
#[derive(Debug)]
pub(super) struct StartSet<'s> {
    words: &'s mut [u32],
    /// The word that holds page 0.
    first_leaf: u32,
    /// The lowest-level word whose summary says that it is not empty, be it so or not.
    late: u32,
}

impl<'s> StartSet<'s> {
    /// Words that the set over `pages` pages needs.
    pub(super) const fn words(pages: u32) -> usize {
        (inner_words(pages) + pages.div_ceil(u32::BITS)) as usize
    }

    /// An empty set over `pages` pages, in `words`, of which there must be [`StartSet::words`] or more.
    pub(super) fn new(words: &'s mut [u32], pages: u32) -> Self {
        let needed = Self::words(pages).min(words.len());
        let words = &mut words[..needed];
        words.fill(0);
        let first_leaf = inner_words(pages);
        let mut set = Self { words, first_leaf, late: first_leaf };
        set.note(first_leaf);
        set
    }

    /// Whether `page` is in the set; no page outside the space is.
    #[inline]
    pub(super) fn contains(&self, page: u32) -> bool {
        self.words
            .get((self.first_leaf + (page >> FAN_OUT_SHIFT)) as usize)
            .is_some_and(|word| word & bit(page) != 0)
    }

    /// Puts `page` in.
    #[inline]
    pub(super) fn insert(&mut self, page: u32) {
        let word = self.first_leaf + (page >> FAN_OUT_SHIFT);
        let before = self.words[word as usize];
        self.words[word as usize] = before | bit(page);
        if before == 0 && word != self.late {
            self.note(word);
        }
    }

    /// Sets the summary bits above `word`.
    fn note(&mut self, mut word: u32) {
        while word != 0 {
            let child = word - 1;
            word = child >> FAN_OUT_SHIFT;
            let before = self.words[word as usize];
            self.words[word as usize] = before | bit(child);
            if before != 0 {
                return;
            }
        }
    }

    /// Takes `page` out.
    #[inline]
    pub(super) fn remove(&mut self, page: u32) {
        let word = self.first_leaf + (page >> FAN_OUT_SHIFT);
        self.words[word as usize] &= !bit(page);
        if self.words[word as usize] == 0 && word != self.late {
            self.settle();
            self.late = word;
        }
    }

    /// Brings the late word's summary up to date.
    fn settle(&mut self) {
        let mut word = self.late;
        while word != 0 && self.words[word as usize] == 0 {
            let child = word - 1;
            word = child >> FAN_OUT_SHIFT;
            self.words[word as usize] &= !bit(child);
        }
    }

    /// The highest member that is no greater than `page`, which lies in the space.
    pub(super) fn last_up_to(&self, page: u32) -> Option<u32> {
        let mut word = self.first_leaf + (page >> FAN_OUT_SHIFT);
        let mut below = u32::MAX >> (BIT_MASK - (page & BIT_MASK));
        loop {
            let found = self.words[word as usize] & below;
            if found != 0 {
                if word >= self.first_leaf {
                    return Some(self.page_of(word, found.ilog2()));
                }
                // A late word is empty; the search then goes on below it.
                word = (word << FAN_OUT_SHIFT) + 1 + found.ilog2();
                below = u32::MAX;
                continue;
            }
            if word == 0 {
                return None;
            }
            let child = word - 1;
            word = child >> FAN_OUT_SHIFT;
            below = bit(child) - 1;
        }
    }

    /// The lowest member that is no smaller than `page`, which lies in the space.
    pub(super) fn first_from(&self, page: u32) -> Option<u32> {
        let mut word = self.first_leaf + (page >> FAN_OUT_SHIFT);
        let mut above = u32::MAX << (page & BIT_MASK);
        loop {
            let found = self.words[word as usize] & above;
            if found != 0 {
                if word >= self.first_leaf {
                    return Some(self.page_of(word, found.trailing_zeros()));
                }
                word = (word << FAN_OUT_SHIFT) + 1 + found.trailing_zeros();
                above = u32::MAX;
                continue;
            }
            if word == 0 {
                return None;
            }
            let child = word - 1;
            word = child >> FAN_OUT_SHIFT;
            above = !(bit(child) | (bit(child) - 1));
        }
    }

    /// How many members there are, or the first word whose summary does not say what it should.
    pub(super) fn audit(&self) -> Result<u32, u32> {
        let mut members = 0;
        for (index, &word) in (0_u32..).zip(self.words.iter()) {
            if index >= self.first_leaf {
                members += word.count_ones();
            }
            let Some(child) = index.checked_sub(1) else { continue };
            let noted = self.words[(child >> FAN_OUT_SHIFT) as usize] & bit(child) != 0;
            if noted != (word != 0 || index == self.late) {
                return Err(index);
            }
        }
        Ok(members)
    }

    #[cfg(test)]
    pub(super) fn copy_from(&mut self, other: &StartSet<'_>) {
        self.words.copy_from_slice(other.words);
        self.late = other.late;
    }

    fn page_of(&self, word: u32, bit: u32) -> u32 {
        ((word - self.first_leaf) << FAN_OUT_SHIFT) | bit
    }
}

/// The bit of page or word number `number` in its word.
fn bit(number: u32) -> u32 {
    1 << (number & BIT_MASK)
}

/// Words above the lowest level of a set over `pages` pages.
const fn inner_words(pages: u32) -> u32 {
    let leaf_words = pages.div_ceil(u32::BITS);
    let mut inner = 0;
    let mut level = 1;
    while level < leaf_words {
        inner += level;
        level <<= FAN_OUT_SHIFT;
    }
    inner
}
