//! The right to write the descriptors of a range of addresses.
//!
//! There is one such right for every page of the address space: `PageTable::new` makes the
//! first, and from then on it is only split, lent and joined. Whoever holds it needs no lock to write the
//! descriptors below it (ownership instead of locks). It is neither `Clone` nor `Copy`; one that is dropped is
//! lost for good, which the audit sees as addresses that belong to nobody.

use crate::addr::{PageRange, VirtAddr};

/// The right to a run of pages, by the number of the first: whoever asked for it knows how many they are.
#[derive(Debug)]
#[must_use = "a dropped right leaks its addresses"]
pub(crate) struct OwnedStart(u32);

impl OwnedStart {
    /// The right to pages from `first` on, as [`OwnedRange::mint`] would make it.
    #[inline(always)]
    pub(crate) const fn mint(first: u32) -> Self {
        Self(first)
    }

    /// As the range of `count` pages, which are as many as were asked for.
    #[inline(always)]
    pub(crate) const fn range(self, count: u32) -> OwnedRange {
        OwnedRange(PageRange::trusted(self.0, count))
    }
}

/// Exclusive ownership of a run of pages of virtual addresses.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped OwnedRange leaks its addresses"]
pub struct OwnedRange(PageRange);

impl OwnedRange {
    /// Mints the right to `range`. Only whoever keeps account of which ranges are out may call this.
    pub(crate) const fn mint(range: PageRange) -> Self {
        Self(range)
    }

    /// The right, moved out of a place that its caller overwrites next without looking.
    #[inline(always)]
    pub(crate) const fn moved(&self) -> Self {
        Self(self.0)
    }

    /// Which pages these are.
    pub const fn pages(&self) -> PageRange {
        self.0
    }

    /// The address of the first byte.
    pub const fn start(&self) -> VirtAddr {
        self.0.start()
    }

    /// How many pages.
    pub const fn count(&self) -> u32 {
        self.0.count()
    }

    /// Splits into the first `count` pages and the rest, neither of them empty.
    ///
    /// # Errors
    /// Gives the range back whole if one of the two would be empty.
    pub fn split_at(self, count: u32) -> Result<(Self, Self), Self> {
        let rest = self.0.count().saturating_sub(count);
        match (self.0.sub_range(0, count), self.0.sub_range(count, rest)) {
            (Some(low), Some(high)) if count != 0 && rest != 0 => Ok((Self(low), Self(high))),
            _ => Err(self),
        }
    }

    /// Joins two neighbours, `self` being the lower.
    ///
    /// # Errors
    /// Gives both back if `upper` does not begin where `self` ends.
    pub fn join(self, upper: Self) -> Result<Self, (Self, Self)> {
        if self.0.end() != upper.0.first() {
            return Err((self, upper));
        }
        match PageRange::from_numbers(self.0.first(), self.0.count() + upper.0.count()) {
            Some(range) => Ok(Self(range)),
            None => Err((self, upper)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(first: u32, count: u32) -> OwnedRange {
        OwnedRange::mint(PageRange::from_numbers(first, count).expect("a range"))
    }

    #[test]
    fn splitting_and_joining_lose_nothing() {
        let (low, high) = owned(10, 6).split_at(2).expect("six pages");
        assert_eq!((low.pages().first(), low.count()), (10, 2));
        assert_eq!((high.pages().first(), high.count()), (12, 4));
        assert_eq!(low.join(high), Ok(owned(10, 6)));
    }

    #[test]
    fn a_range_that_cannot_be_split_comes_back_whole() {
        assert_eq!(owned(10, 6).split_at(7), Err(owned(10, 6)));
        assert_eq!(owned(10, 6).split_at(6), Err(owned(10, 6)));
        assert_eq!(owned(10, 6).split_at(0), Err(owned(10, 6)));
    }

    #[test]
    fn strangers_do_not_join() {
        assert_eq!(owned(10, 2).join(owned(13, 1)), Err((owned(10, 2), owned(13, 1))));
        assert_eq!(owned(12, 1).join(owned(10, 2)), Err((owned(12, 1), owned(10, 2))));
    }
}
