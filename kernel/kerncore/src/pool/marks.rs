//! A mark for each page of a pool beside its bits, and how many there are: what device addresses keep of runs that somebody is ending.

use super::{WORD_BITS, Word, run_of};

/// Pages whose marks are in one word: both its halves are used.
const PAGES: u32 = 2 * WORD_BITS;

/// Which pages are marked.
#[derive(Debug)]
pub struct Marks<'p> {
    words: &'p mut [Word],
    count: u32,
}

impl<'p> Marks<'p> {
    /// Words for the marks of `pages` pages.
    pub const fn words_for(pages: u32) -> usize {
        pages.div_ceil(PAGES) as usize
    }

    /// No marks, of as many pages as `words` have room for.
    pub fn new(words: &'p mut [Word]) -> Self {
        words.fill(Word::FREE);
        Self { words, count: 0 }
    }

    /// Whether there are none.
    pub const fn are_none(&self) -> bool {
        self.count == 0
    }

    /// Whether `page` is marked.
    pub fn has(&self, page: u32) -> bool {
        let word = self.words.get((page / PAGES) as usize).copied().unwrap_or(Word::FREE);
        let half = if page % PAGES < WORD_BITS { word.used } else { word.first };
        half & bit(page) != 0
    }

    /// Marks `page`. Says whether it was not marked, and there is such a page.
    pub fn set(&mut self, page: u32) -> bool {
        let Some(half) = self.half(page).filter(|half| **half & bit(page) == 0) else {
            return false;
        };
        *half |= bit(page);
        self.count += 1;
        true
    }

    /// `page` is marked no more, whether it was or not.
    pub fn clear(&mut self, page: u32) {
        if let Some(half) = self.half(page).filter(|half| **half & bit(page) != 0) {
            *half &= !bit(page);
            self.count -= 1;
        }
    }

    fn half(&mut self, page: u32) -> Option<&mut u32> {
        let word = self.words.get_mut((page / PAGES) as usize)?;
        Some(if page % PAGES < WORD_BITS { &mut word.used } else { &mut word.first })
    }
}

/// The bit of `page` in its half of a word.
const fn bit(page: u32) -> u32 {
    run_of(page % WORD_BITS, 0)
}

#[cfg(test)]
mod tests {
    use super::{Marks, Word};

    #[test]
    fn each_page_has_a_mark_of_its_own() {
        const ALL: u32 = 200;
        let mut words = [Word::BEGUN; Marks::words_for(ALL)];
        let mut marks = Marks::new(&mut words);
        assert!(marks.are_none());
        for page in 0..ALL {
            assert!(!marks.has(page) && marks.set(page) && marks.has(page), "{page}");
            assert!(!marks.set(page), "{page} is marked already");
        }
        for page in (0..ALL).rev() {
            assert!(!marks.are_none());
            marks.clear(page);
            marks.clear(page);
            let others = (0..ALL).filter(|&other| marks.has(other));
            assert!(others.eq(0..page), "all but those from {page} on");
        }
        assert!(marks.are_none());
        assert!(!marks.set(u32::MAX) && !marks.has(u32::MAX), "there is no such page");
        marks.clear(u32::MAX);
    }
}
