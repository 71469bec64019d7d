//! The bitmaps of the contiguous region: who has each of its pages.
//!
//! ```text
//!             buffers, lowest first ──▶                        ◀── lent pages, highest first
//!   page     0   1   2   3   4   5   6   7   …                       n-3 n-2 n-1
//!          ┌───────┬───┬───────────────┬─────────────────────────────┬───┬───┬───┐
//!          │ 2     │ 1 │ 4             │                             │ L │   │ L │
//!          └───────┴───┴───────────────┴─────────────────────────────┴───┴───┴───┘
//!   held     1   1   1   0   1   1   1   1                             0   0   0
//!   lent     0   0   0   0   0   0   0   0                             1   0   1
//! ```
//! A page is *held* by a buffer, or *lent* to somebody who can do without it, or neither. Both at once it is while whoever wants it
//! for a buffer has claimed it, and the borrower's copy is not yet elsewhere: then nobody else can have it.
//!
//! A run of n pages begins at a multiple of the power of two that holds n, up to 256 pages (a section), first fit; pages that
//! nobody has come before those that would have to be moved out. Lent pages are given from the other end, so that they are in the
//! way as late as can be.
//!
//! Plain state: the caller keeps it behind a lock. Nothing here allocates, sleeps or locks.

use crate::frames::order_for;
use crate::user::asid::SpaceId;

const WORD_BITS: u32 = u32::BITS;

/// The largest alignment of a run, as an order: a section (S101).
pub const MAX_ALIGNMENT: u32 = 8;

/// Who has borrowed a page, and can be asked to do without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Borrower {
    /// Nobody.
    Nobody,
    /// A program, at the page of this number.
    Program {
        /// Whose address space it is.
        space: SpaceId,
        /// The page.
        page: u32,
    },
    /// A buffer that is reached through a pinning guard alone, by this place among such pages.
    Movable {
        /// The place.
        place: u32,
    },
}

/// The bits of 32 pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Set for pages that a buffer has, and for the bits behind the last page.
    held: u32,
    /// Set for pages that are lent.
    lent: u32,
}

/// What a page's bits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageUse {
    /// Nobody has it.
    Free,
    /// A buffer has it.
    Held,
    /// It is lent.
    Lent,
    /// It is lent, and claimed for a buffer.
    Claimed,
}

/// How full the region is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionUse {
    /// Pages there are.
    pub pages: u32,
    /// Pages that buffers have, or that are claimed for one.
    pub held: u32,
    /// Pages that are lent and not claimed.
    pub lent: u32,
    /// Pages of the largest run that could be given if all that is lent were moved out.
    pub largest: u32,
}

/// Which pages of the region are held, and which are lent to whom.
#[derive(Debug)]
pub struct Region<'r> {
    pages: u32,
    words: &'r mut [Word],
    borrowers: &'r mut [Borrower],
    /// How many devices work on each page that is lent.
    pins: &'r mut [u16],
    /// In the words before this one all pages are held.
    open: u32,
}

impl<'r> Region<'r> {
    /// Words that a region of `pages` has.
    pub const fn words_for(pages: u32) -> usize {
        pages.div_ceil(WORD_BITS) as usize
    }

    /// A region of as many pages as there are `borrowers`, all free. `None` if there are not [`Region::words_for`] words, or no page.
    pub fn new(words: &'r mut [Word], borrowers: &'r mut [Borrower]) -> Option<Self> {
        let pages = u32::try_from(borrowers.len()).ok().filter(|&pages| pages != 0)?;
        let words = words.get_mut(..Self::words_for(pages))?;
        words.fill(Word::default());
        borrowers.fill(Borrower::Nobody);
        // Bits behind the last page count as held, so that no search has to think of them.
        if let (Some(word), 1..) = (words.last_mut(), pages % WORD_BITS) {
            word.held = u32::MAX << (pages % WORD_BITS);
        }
        Some(Self { pages, words, borrowers, pins: &mut [], open: 0 })
    }

    /// The same, of which lent pages can be pinned, as many as there are `pins`.
    #[must_use]
    pub fn with_pins(self, pins: &'r mut [u16]) -> Self {
        pins.fill(0);
        Self { pins, ..self }
    }

    /// How many pages there are.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Takes the lowest aligned run of `pages` that nobody has: its first page.
    #[inline]
    pub fn take(&mut self, pages: u32) -> Option<u32> {
        self.hold_first(pages, self.open * WORD_BITS, |word| word.held | word.lent)
    }

    /// Claims the lowest aligned run of `pages` from the page `from` on that no buffer has, whoever borrows some of it: its first
    /// page. Those that are lent are to be moved out, and then are the claimer's.
    pub fn claim(&mut self, pages: u32, from: u32) -> Option<u32> {
        self.hold_first(pages, from.max(self.open * WORD_BITS), |word| word.held)
    }

    /// The first of `pages` pages from `first` on that is still lent, and to whom.
    pub fn first_lent(&self, first: u32, pages: u32) -> Option<(u32, Borrower)> {
        let end = first.saturating_add(pages).min(self.pages);
        let page = (first..end).find(|&page| self.word(page).lent & bit(page) != 0)?;
        Some((page, self.borrowers.get(page as usize).copied()?))
    }

    /// Keeps the lent `page` where it is until [`Region::unpin`], whoever asks for it and even if its borrower gives it back: a device
    /// works on it.
    ///
    /// # Errors
    /// What it is, if it is not lent, or claimed: it may be on its way elsewhere.
    pub fn pin(&mut self, page: u32) -> Result<(), PageUse> {
        match (self.use_of(page), self.pins.get_mut(page as usize)) {
            (Some(PageUse::Lent), Some(pins)) => {
                *pins = pins.checked_add(1).ok_or(PageUse::Lent)?;
                Ok(())
            }
            (found, _) => Err(found.unwrap_or(PageUse::Free)),
        }
    }

    /// Ends one [`Region::pin`], and says whether the page is free with that, since its borrower had given it back.
    ///
    /// # Errors
    /// What it is, if it is not pinned.
    pub fn unpin(&mut self, page: u32) -> Result<bool, PageUse> {
        let found = self.use_of(page).unwrap_or(PageUse::Free);
        let pins = self.pins.get_mut(page as usize).ok_or(found)?;
        *pins = pins.checked_sub(1).ok_or(found)?;
        let is_given_back = self.borrowers.get(page as usize) == Some(&Borrower::Nobody);
        let is_free = *pins == 0 && is_given_back;
        if is_free {
            self.for_words(page, 1, |word, mask| word.lent &= !mask);
        }
        Ok(is_free)
    }

    /// How many devices work on `page`.
    pub fn pins(&self, page: u32) -> u16 {
        self.pins.get(page as usize).copied().unwrap_or_default()
    }

    /// Gives `pages` pages from `first` on back, which a buffer had, or which were claimed; those that are lent stay so.
    ///
    /// # Errors
    /// The first page that no buffer has. Nothing has changed.
    pub fn give_back(&mut self, first: u32, pages: u32) -> Result<(), u32> {
        let end = first.saturating_add(pages);
        let missing = |page: u32| page >= self.pages || self.word(page).held & bit(page) == 0;
        if let Some(page) = (first..end).find(|&page| missing(page)) {
            return Err(page);
        }
        self.for_words(first, pages, |word, mask| word.held &= !mask);
        self.open = self.open.min(first / WORD_BITS);
        Ok(())
    }

    /// Lends the highest page that nobody has to `borrower`.
    pub fn lend(&mut self, borrower: Borrower) -> Option<u32> {
        let (index, word) = self
            .words
            .iter_mut()
            .enumerate()
            .rfind(|(_, word)| word.held | word.lent != u32::MAX)?;
        let place = WORD_BITS - 1 - (!(word.held | word.lent)).leading_zeros();
        word.lent |= 1 << place;
        let page = u32::try_from(index).ok()? * WORD_BITS + place;
        *self.borrowers.get_mut(page as usize)? = borrower;
        Some(page)
    }

    /// Takes a lent page back from its borrower, and says whether it is free with that: not while it is pinned.
    ///
    /// # Errors
    /// What it is, if it is not lent. Nothing has changed.
    pub fn take_back(&mut self, page: u32) -> Result<bool, PageUse> {
        let is_free = self.pins(page) == 0;
        match self.use_of(page) {
            Some(PageUse::Lent | PageUse::Claimed) => {
                if is_free {
                    self.for_words(page, 1, |word, mask| word.lent &= !mask);
                }
                if let Some(borrower) = self.borrowers.get_mut(page as usize) {
                    *borrower = Borrower::Nobody;
                }
                Ok(is_free)
            }
            other => Err(other.unwrap_or(PageUse::Free)),
        }
    }

    /// What the bits of `page` say; `None` if it is not the region's.
    pub fn use_of(&self, page: u32) -> Option<PageUse> {
        let (word, bit) = (self.word(page), bit(page));
        (page < self.pages).then_some(match (word.held & bit != 0, word.lent & bit != 0) {
            (false, false) => PageUse::Free,
            (true, false) => PageUse::Held,
            (false, true) => PageUse::Lent,
            (true, true) => PageUse::Claimed,
        })
    }

    /// How full it is. Looks at every page.
    pub fn usage(&self) -> RegionUse {
        let mut usage = RegionUse { pages: self.pages, ..RegionUse::default() };
        let mut run = 0;
        for page in (0..self.pages).rev() {
            match self.use_of(page) {
                Some(PageUse::Held | PageUse::Claimed) => usage.held += 1,
                Some(PageUse::Lent) => usage.lent += 1,
                Some(PageUse::Free) | None => {}
            }
            let held = self.word(page).held & bit(page) != 0;
            run = if held { 0 } else { run + 1 };
            let aligned = if page.trailing_zeros() >= MAX_ALIGNMENT {
                u32::MAX
            } else {
                1 << page.trailing_zeros()
            };
            usage.largest = usage.largest.max(run.min(aligned));
        }
        usage
    }

    /// Holds the first aligned run of `pages` from the page `from` on of which `taken` has no bit.
    #[inline]
    fn hold_first(&mut self, pages: u32, from: u32, taken: impl Fn(Word) -> u32) -> Option<u32> {
        let alignment = 1 << order_for(pages).min(MAX_ALIGNMENT);
        let mut first = from.checked_next_multiple_of(alignment)?;
        while pages != 0 && pages <= self.pages && first <= self.pages - pages {
            let Some(obstacle) = self.last_of(first, pages, &taken) else {
                self.for_words(first, pages, |word, mask| word.held |= mask);
                self.step_over_full();
                return Some(first);
            };
            first = (obstacle + 1).next_multiple_of(alignment);
        }
        None
    }

    /// The last of `pages` pages from `first` on whose bit is set in what `of` says of its word.
    #[inline]
    fn last_of(&self, first: u32, pages: u32, of: impl Fn(Word) -> u32) -> Option<u32> {
        let end = first + pages;
        let mut index = (end - 1) / WORD_BITS;
        loop {
            let word = self.words.get(index as usize).copied().unwrap_or_default();
            let found = of(word) & mask(index, first, end);
            if found != 0 {
                return Some(index * WORD_BITS + WORD_BITS - 1 - found.leading_zeros());
            }
            if index <= first / WORD_BITS {
                return None;
            }
            index -= 1;
        }
    }

    /// Shows `change` each word that has some of `pages` pages from `first` on, and which bits of it they are.
    #[inline]
    fn for_words(&mut self, first: u32, pages: u32, mut change: impl FnMut(&mut Word, u32)) {
        let end = first + pages;
        for index in first / WORD_BITS..end.div_ceil(WORD_BITS) {
            if let Some(word) = self.words.get_mut(index as usize) {
                change(word, mask(index, first, end));
            }
        }
    }

    #[inline]
    fn step_over_full(&mut self) {
        while self.words.get(self.open as usize).is_some_and(|word| word.held == u32::MAX) {
            self.open += 1;
        }
    }

    fn word(&self, page: u32) -> Word {
        self.words.get((page / WORD_BITS) as usize).copied().unwrap_or_default()
    }
}

/// The bit of `page` in its word.
const fn bit(page: u32) -> u32 {
    1 << (page % WORD_BITS)
}

/// The bits of the word at `index` that belong to pages from `first` up to `end`.
#[inline]
const fn mask(index: u32, first: u32, end: u32) -> u32 {
    let start = index * WORD_BITS;
    let below = if first > start { u32::MAX << (first - start) } else { u32::MAX };
    let left = end.saturating_sub(start);
    let above = if left < WORD_BITS { !(u32::MAX << left) } else { u32::MAX };
    below & above
}
