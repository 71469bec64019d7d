//! The life of an area, and how it is found (S13, S14, S14a, S88).
//!
//! ```text
//!            reserve          publish              retire              release
//!   Free ──────────▶ Reserved ───────▶ Live(R)    ──────▶ Dying ────────────▶ Free
//!                       └──────────────── release ────────────────────────────────▲
//!   found by lookups:   no              yes                 no
//!   addresses taken:    yes             yes                 yes
//! ```
//!
//! What lies between retiring and releasing (unmapping, the flush) is the business of whoever holds the ranges.

use core::convert::Infallible;
use core::iter::FusedIterator;

use crate::addr::{PAGE_SHIFT, PageRange, VirtAddr, pages_for};

use super::{DYING, GUARD_PAGES, LIVE, PublishError, START, STATE, VaSpace};

/// Where an area stands in its life (S14a).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AreaState<'a, R> {
    /// Its addresses are taken; lookups do not find it yet.
    Reserved,
    /// Lookups find this record.
    Live(&'a R),
    /// Lookups find it no more; its addresses are still taken.
    Dying,
}

/// An area as listings, the ledger and the audit see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Area<'a, R> {
    /// The usable pages; the guard is the page behind them.
    pub usable: PageRange,
    /// Where it stands in its life.
    pub state: AreaState<'a, R>,
}

impl<R> VaSpace<'_, R> {
    /// Makes the reserved area at `base` live under `record`: from now on lookups find it.
    ///
    /// # Errors
    /// [`PublishError`], with the record, if no area begins at `base` or if it is not in the state that follows
    /// [`VaSpace::reserve`].
    #[inline(always)]
    pub fn publish(&mut self, base: VirtAddr, record: R) -> Result<(), PublishError<R>> {
        let page = self.offset_of(base) as usize;
        match (self.tags.get_mut(page), self.records.get_mut(page)) {
            // One comparison: an area begins here, and is neither live nor dying.
            (Some(tag), Some(place)) if *tag & STATE == START => {
                *tag |= LIVE;
                *place = Some(record);
                Ok(())
            }
            _ => Err(self.not_to_publish(base, record)),
        }
    }

    #[cold]
    fn not_to_publish(&self, base: VirtAddr, record: R) -> PublishError<R> {
        let tag = self.tags.get(self.offset_of(base) as usize).copied().unwrap_or(0);
        if tag & START == 0 {
            PublishError::NotReserved { base, record }
        } else if tag & DYING != 0 {
            PublishError::Dying { base, record }
        } else {
            PublishError::AlreadyLive { base, record }
        }
    }

    /// The record of the live area that begins exactly at `base` (S13). Addresses inside, the guard, and areas that
    /// are not live give `None`.
    #[inline]
    pub fn find(&self, base: VirtAddr) -> Option<&R> {
        self.records.get(self.offset_of(base) as usize)?.as_ref()
    }

    /// As [`VaSpace::find`], for a record that is to be changed.
    pub fn find_mut(&mut self, base: VirtAddr) -> Option<&mut R> {
        let page = self.offset_of(base);
        self.records.get_mut(page as usize)?.as_mut()
    }

    /// The usable pages and the record of the live area that has `address` among its usable bytes (S88); a guard
    /// answers `None`. O(log n).
    #[inline(never)]
    pub fn find_containing(&self, address: VirtAddr) -> Option<(PageRange, &R)> {
        let area = self.previous_area_from(address)?;
        match area.state {
            AreaState::Live(record) if area.usable.contains(address) => Some((area.usable, record)),
            _ => None,
        }
    }

    /// Ends the life of the live area that begins at `base`: it is no longer found, its addresses stay taken until
    /// [`VaSpace::release`] (S14a). Gives its record; a second time, and for what is not live, `None` (S14).
    pub fn retire(&mut self, base: VirtAddr) -> Option<R> {
        match self.retire_if(base, |_| Ok::<(), Infallible>(()))? {
            Ok(record) => Some(record),
            Err(never) => match never {},
        }
    }

    /// As [`VaSpace::retire`], unless `check` refuses.
    ///
    /// # Errors
    /// What `check` said; nothing has changed.
    #[inline(always)]
    pub fn retire_if<E>(
        &mut self,
        base: VirtAddr,
        check: impl FnOnce(&R) -> Result<(), E>,
    ) -> Option<Result<R, E>> {
        let page = self.offset_of(base) as usize;
        let place = self.records.get_mut(page)?;
        if let Err(refusal) = check(place.as_ref()?) {
            return Some(Err(refusal));
        }
        let tag = self.tags.get_mut(page)?;
        *tag = *tag & !LIVE | DYING;
        place.take().map(Ok)
    }

    /// As [`VaSpace::retire`], if the record is the one that `is_it` knows.
    #[inline(always)]
    pub fn retire_where(&mut self, base: VirtAddr, is_it: impl FnOnce(&R) -> bool) -> Option<R> {
        let page = self.offset_of(base) as usize;
        let (place, tag) = (self.records.get_mut(page)?, self.tags.get_mut(page)?);
        if !is_it(place.as_ref()?) {
            return None;
        }
        // From live to dying.
        *tag ^= LIVE | DYING;
        place.take()
    }

    /// The lowest area, in whatever state, whose base is `address` or above it. O(log n).
    pub fn next_area_from(&self, address: VirtAddr) -> Option<Area<'_, R>> {
        self.next_area_from_page(pages_for(address.raw()).saturating_sub(self.first()))
    }

    /// The highest area, in whatever state, whose base is `address` or below it. O(log n).
    pub fn previous_area_from(&self, address: VirtAddr) -> Option<Area<'_, R>> {
        let page = address.page_number().checked_sub(self.first())?;
        self.starts.last_up_to(page.min(self.pages - 1)).and_then(|page| self.area(page))
    }

    /// All areas, in whatever state, by ascending address.
    pub fn iter(&self) -> Areas<'_, R> {
        Areas { space: self, from: 0 }
    }

    /// The lowest area whose base is the page at `offset` into the space or above it.
    fn next_area_from_page(&self, offset: u32) -> Option<Area<'_, R>> {
        if offset >= self.pages {
            return None;
        }
        self.starts.first_from(offset).and_then(|page| self.area(page))
    }

    /// How many pages into the space `base` lies. Beyond the space for an address below it, above it, or not of a page:
    /// what an address has below the page comes out on top.
    #[inline(always)]
    pub(super) fn offset_of(&self, base: VirtAddr) -> u32 {
        base.raw().wrapping_sub(self.range().start().raw()).rotate_right(PAGE_SHIFT)
    }

    /// The area that begins at the page at `offset` into the space, which must be the start of one.
    fn area(&self, offset: u32) -> Option<Area<'_, R>> {
        let count = self.taken_at(offset).saturating_sub(GUARD_PAGES);
        let usable = self.space.pages().sub_range(offset, count)?;
        let state = match self.records.get(offset as usize)? {
            Some(record) => AreaState::Live(record),
            None if self.is_dying(offset) => AreaState::Dying,
            None => AreaState::Reserved,
        };
        Some(Area { usable, state })
    }

    /// Pages of the area that begins at the page at `offset`, the guard included.
    #[inline]
    pub(super) fn taken_at(&self, offset: u32) -> u32 {
        self.tags[offset as usize] & !STATE
    }

    /// Whether the area that begins at the page at `offset` was retired.
    #[inline]
    pub(super) fn is_dying(&self, offset: u32) -> bool {
        self.tags[offset as usize] & DYING != 0
    }
}

/// The areas of a space by ascending address.
#[derive(Debug)]
pub struct Areas<'a, R> {
    space: &'a VaSpace<'a, R>,
    /// The offset of the page from which the next area is sought.
    from: u32,
}

impl<'a, R> Iterator for Areas<'a, R> {
    type Item = Area<'a, R>;

    fn next(&mut self) -> Option<Self::Item> {
        let area = self.space.next_area_from_page(self.from)?;
        self.from = area.usable.end() - self.space.first();
        Some(area)
    }
}

impl<R> FusedIterator for Areas<'_, R> {}

impl<'a, R> IntoIterator for &'a VaSpace<'_, R> {
    type Item = Area<'a, R>;
    type IntoIter = Areas<'a, R>;

    fn into_iter(self) -> Areas<'a, R> {
        self.iter()
    }
}
