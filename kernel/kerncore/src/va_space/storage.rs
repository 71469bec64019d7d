//! The memory that the bookkeeping works in, lent by whoever sets the space up.
//!
//! For the full window of 196,608 pages it is 2.6 MiB, a little under 14 bytes a page:
//!
//! ```text
//!  tags     one word a page                       768 KiB
//!  holes    one word a page and its inner nodes  1109 KiB
//!  starts   one bit a page and its summaries       28 KiB
//!  records  one pointer a page                    768 KiB
//! ```

use super::holes::HoleTree;
use super::starts::StartSet;

/// The arrays that a [`super::VaSpace`] keeps its books in. Their contents do not matter.
#[derive(Debug)]
pub struct VaStorage<'s, R> {
    /// [`VaStorage::tag_words`] words or more.
    pub tags: &'s mut [u32],
    /// [`VaStorage::hole_words`] words or more.
    pub holes: &'s mut [u32],
    /// [`VaStorage::start_words`] words or more.
    pub starts: &'s mut [u32],
    /// A place a page for the records of live areas.
    pub records: &'s mut [Option<R>],
}

impl<'s, R> VaStorage<'s, R> {
    /// Words of [`VaStorage::tags`] for a space of `pages` pages.
    pub const fn tag_words(pages: u32) -> usize {
        pages as usize
    }

    /// Words of [`VaStorage::holes`] for a space of `pages` pages.
    pub const fn hole_words(pages: u32) -> usize {
        HoleTree::words(pages)
    }

    /// Words of [`VaStorage::starts`] for a space of `pages` pages.
    pub const fn start_words(pages: u32) -> usize {
        StartSet::words(pages)
    }

    /// Words of the three arrays of words together for a space of `pages` pages.
    pub const fn words(pages: u32) -> usize {
        Self::tag_words(pages) + Self::hole_words(pages) + Self::start_words(pages)
    }

    /// Cuts the three arrays of words for a space of `pages` pages out of one piece of memory.
    ///
    /// `None` if it has fewer than [`VaStorage::words`] words.
    pub fn carve(memory: &'s mut [u32], records: &'s mut [Option<R>], pages: u32) -> Option<Self> {
        let (holes, rest) = memory.split_at_mut_checked(Self::hole_words(pages))?;
        let (starts, rest) = rest.split_at_mut_checked(Self::start_words(pages))?;
        let (tags, _) = rest.split_at_mut_checked(Self::tag_words(pages))?;
        Some(Self { tags, holes, starts, records })
    }
}
