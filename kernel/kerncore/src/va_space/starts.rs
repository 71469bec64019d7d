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
    /// A bit a page.
    leaves: &'s mut [u32],
    /// The words above.
    summaries: &'s mut [u32],
    /// The number of the first leaf, which follows the last summary's.
    first_leaf: u32,
    /// The leaf whose summary says that it is not empty, be it so or not.
    late: u32,
}

impl<'s> StartSet<'s> {
    /// Words that the set over `pages` pages needs.
    pub(super) const fn words(pages: u32) -> usize {
        (inner_words(pages) + pages.div_ceil(u32::BITS)) as usize
    }

    /// An empty set over `pages` pages, in `words`, of which there must be [`StartSet::words`] or more.
    pub(super) fn new(words: &'s mut [u32], pages: u32) -> Self {
        let words = &mut words[..Self::words(pages)];
        words.fill(0);
        let first_leaf = inner_words(pages);
        let (summaries, leaves) = words.split_at_mut(first_leaf as usize);
        let mut set = Self { leaves, summaries, first_leaf, late: 0 };
        set.note(0);
        set
    }

    /// Whether `page` is in the set; no page outside the space is.
    #[inline]
    pub(super) fn contains(&self, page: u32) -> bool {
        let leaf = self.leaves.get((page >> FAN_OUT_SHIFT) as usize);
        leaf.is_some_and(|leaf| leaf & bit(page) != 0)
    }

    /// Puts `page` in.
    #[inline(always)]
    pub(super) fn insert(&mut self, page: u32) {
        let leaf = page >> FAN_OUT_SHIFT;
        let word = &mut self.leaves[leaf as usize];
        let before = *word;
        *word = before | bit(page);
        if before == 0 && leaf != self.late {
            self.note(leaf);
        }
    }

    /// Takes `page` out.
    #[inline(always)]
    pub(super) fn remove(&mut self, page: u32) {
        let leaf = page >> FAN_OUT_SHIFT;
        let word = &mut self.leaves[leaf as usize];
        *word &= !bit(page);
        if *word == 0 && leaf != self.late {
            self.settle();
            self.late = leaf;
        }
    }

    /// Sets the summary bits above a leaf.
    #[inline(never)]
    fn note(&mut self, leaf: u32) {
        let mut word = self.number_of(leaf);
        while let Some(child) = word.checked_sub(1) {
            word = child >> FAN_OUT_SHIFT;
            let summary = &mut self.summaries[word as usize];
            let before = *summary;
            *summary = before | bit(child);
            if before != 0 {
                return;
            }
        }
    }

    /// Brings the late leaf's summary up to date.
    #[inline(never)]
    fn settle(&mut self) {
        if self.leaves[self.late as usize] != 0 {
            return;
        }
        let mut word = self.number_of(self.late);
        while let Some(child) = word.checked_sub(1) {
            word = child >> FAN_OUT_SHIFT;
            let summary = &mut self.summaries[word as usize];
            *summary &= !bit(child);
            if *summary != 0 {
                return;
            }
        }
    }

    /// The highest member that is no greater than `page`, which lies in the space.
    pub(super) fn last_up_to(&self, page: u32) -> Option<u32> {
        let mut word = self.number_of(page >> FAN_OUT_SHIFT);
        let mut below = u32::MAX >> (BIT_MASK - (page & BIT_MASK));
        loop {
            if let Some(found) = (self.word(word) & below).checked_ilog2() {
                if let Some(leaf) = self.leaf_of(word) {
                    return Some((leaf << FAN_OUT_SHIFT) | found);
                }
                // Below may be the late leaf, empty; the search then comes back and goes on before it.
                (word, below) = (child_of(word, found), u32::MAX);
            } else {
                let child = word.checked_sub(1)?;
                (word, below) = (child >> FAN_OUT_SHIFT, bit(child) - 1);
            }
        }
    }

    /// The lowest member that is no smaller than `page`, which lies in the space.
    pub(super) fn first_from(&self, page: u32) -> Option<u32> {
        let mut word = self.number_of(page >> FAN_OUT_SHIFT);
        let mut above = u32::MAX << (page & BIT_MASK);
        loop {
            let found = self.word(word) & above;
            if found == 0 {
                let child = word.checked_sub(1)?;
                (word, above) = (child >> FAN_OUT_SHIFT, !(bit(child) | (bit(child) - 1)));
            } else if let Some(leaf) = self.leaf_of(word) {
                return Some((leaf << FAN_OUT_SHIFT) | found.trailing_zeros());
            } else {
                (word, above) = (child_of(word, found.trailing_zeros()), u32::MAX);
            }
        }
    }

    /// How many members there are, or the first word whose summary does not say what it should.
    pub(super) fn audit(&self) -> Result<u32, u32> {
        self.audit_words(1, self.first_leaf)?;
        let mut members = 0;
        let mut first = self.first_leaf;
        // Nearly all of a large space's words are 0, below a summary that is, and cost least.
        for leaves in self.leaves.chunks(u32::BITS as usize) {
            let end = first + u32::try_from(leaves.len()).unwrap_or(u32::BITS);
            // Words of one summary, as the first leaf is the first word of one.
            let summary = first.checked_sub(1).map_or(0, |child| self.word(child >> FAN_OUT_SHIFT));
            let late = self.number_of(self.late);
            if leaves.iter().fold(summary, |all, leaf| all | leaf) != 0
                || (first..end).contains(&late)
            {
                self.audit_words(first.max(1), end)?;
                members += leaves.iter().map(|leaf| leaf.count_ones()).sum::<u32>();
            }
            first = end;
        }
        Ok(members)
    }

    /// Compares the words from number `first`, which is not 0, up to `end` with what their summaries say of them.
    fn audit_words(&self, first: u32, end: u32) -> Result<(), u32> {
        for number in first..end {
            let child = number - 1;
            let noted = self.word(child >> FAN_OUT_SHIFT) & bit(child) != 0;
            if noted != (self.word(number) != 0 || self.leaf_of(number) == Some(self.late)) {
                return Err(number);
            }
        }
        Ok(())
    }

    /// How many members there are.
    pub(super) fn count(&self) -> u32 {
        self.leaves.iter().filter(|&&leaf| leaf != 0).map(|leaf| leaf.count_ones()).sum()
    }

    #[cfg(test)]
    pub(super) fn copy_from(&mut self, other: &StartSet<'_>) {
        self.leaves.copy_from_slice(other.leaves);
        self.summaries.copy_from_slice(other.summaries);
        self.late = other.late;
    }

    /// A leaf's number among all words.
    fn number_of(&self, leaf: u32) -> u32 {
        self.first_leaf + leaf
    }

    /// Which leaf the word `number` is, if it is one.
    fn leaf_of(&self, number: u32) -> Option<u32> {
        number.checked_sub(self.first_leaf)
    }

    /// The word `number`.
    fn word(&self, number: u32) -> u32 {
        match self.leaf_of(number) {
            Some(leaf) => self.leaves[leaf as usize],
            None => self.summaries[number as usize],
        }
    }
}

/// The number of the word that bit `bit` of the summary `word` stands for.
fn child_of(word: u32, bit: u32) -> u32 {
    (word << FAN_OUT_SHIFT) + 1 + bit
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of sets of one level and of several, with members in few words: whichever bit is wrong, of a word in use or of an empty one.
    #[test]
    fn any_bit_of_a_summary_or_a_leaf_that_is_wrong_is_found() {
        for pages in [20, 64, 1000, 1024, 1025, 5000] {
            let mut words = vec![0; StartSet::words(pages)];
            let mut set = StartSet::new(&mut words, pages);
            let members = [0, pages / 2, pages - 1];
            for page in members {
                set.insert(page);
            }
            assert_eq!(set.audit(), Ok(3), "{pages}");
            let all = set.first_leaf + pages.div_ceil(u32::BITS);
            for number in 1..all {
                let child = number - 1;
                set.summaries[(child >> FAN_OUT_SHIFT) as usize] ^= bit(child);
                assert!(set.audit().is_err(), "{pages}: what is noted of word {number}");
                set.summaries[(child >> FAN_OUT_SHIFT) as usize] ^= bit(child);
            }
            // All that lies above a leaf agrees with itself, and the leaf does not.
            for leaf in (0..pages.div_ceil(u32::BITS)).rev() {
                let before = set.summaries.to_vec();
                let mut number = set.number_of(leaf);
                while let Some(child) = number.checked_sub(1) {
                    number = child >> FAN_OUT_SHIFT;
                    set.summaries[number as usize] |= bit(child);
                }
                if set.summaries != before {
                    assert_eq!(set.audit(), Err(set.number_of(leaf)), "{pages}: leaf {leaf}");
                }
                set.summaries.copy_from_slice(&before);
            }
            for page in 0..pages {
                set.leaves[(page >> FAN_OUT_SHIFT) as usize] ^= bit(page);
                assert_ne!(set.audit(), Ok(3), "{pages}: page {page}");
                set.leaves[(page >> FAN_OUT_SHIFT) as usize] ^= bit(page);
            }
            assert_eq!(set.audit(), Ok(3), "{pages}");
            // The one that is late is noted, and is empty.
            for page in members {
                set.remove(page);
            }
            assert_eq!(set.audit(), Ok(0), "{pages}");
            set.summaries.fill(0);
            let wanted = if set.first_leaf == 0 { Ok(0) } else { Err(set.number_of(set.late)) };
            assert_eq!(set.audit(), wanted, "{pages}");
        }
    }
}
