//! The life of an area, and how it is found (S13, S14, S14a, S88).
//!
//! ```text
//!            reserve          publish              retire              release
//!   Free ──────────▶ Reserved ───────▶ Live(record) ──────▶ Dying ────────────▶ Free
//!                       └──────────────── release ────────────────────────────────▲
//!   found by lookups:   no              yes                 no
//!   addresses taken:    yes             yes                 yes
//! ```
//!
//! What lies between retiring and releasing (unmapping, the flush) is the business of whoever holds the ranges.

use core::iter::FusedIterator;

use crate::addr::{PageRange, VirtAddr, pages_for};

use super::{GUARD_PAGES, PublishError, VaSpace};

/// The tag of an area that was reserved and not yet published.
const RESERVED: u32 = u32::MAX;
/// The tag of an area that was retired.
const DYING: u32 = u32::MAX - 1;

/// The number of the record that a caller keeps for a live area. The space stores it and asks nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(u32);

impl RecordId {
    /// The greatest number there is.
    pub const MAX: Self = Self(DYING - 1);

    /// Record number `index`, or `None` above [`RecordId::MAX`].
    pub const fn new(index: u32) -> Option<Self> {
        if index <= Self::MAX.0 { Some(Self(index)) } else { None }
    }

    /// The record's number.
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// Where an area stands in its life (S14a).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AreaState {
    /// Its addresses are taken; lookups do not find it yet.
    Reserved,
    /// Lookups find this record.
    Live(RecordId),
    /// Lookups find it no more; its addresses are still taken.
    Dying,
}

impl AreaState {
    pub(super) const RESERVED_TAG: u32 = RESERVED;

    fn from_tag(tag: u32) -> Self {
        match tag {
            RESERVED => Self::Reserved,
            DYING => Self::Dying,
            record => Self::Live(RecordId(record)),
        }
    }
}

/// An area as listings, the ledger and the audit see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Area {
    /// The usable pages; the guard is the page behind them.
    pub usable: PageRange,
    /// Where it stands in its life.
    pub state: AreaState,
}

/// A live area that was found, before anything else could happen to it.
#[derive(Debug)]
pub struct Live<'a> {
    tag: &'a mut u32,
    record: RecordId,
}

impl Live<'_> {
    /// Its record.
    #[inline(always)]
    pub const fn record(&self) -> RecordId {
        self.record
    }

    /// Ends its life, as [`VaSpace::retire`] does.
    #[inline(always)]
    pub fn retire(self) -> RecordId {
        *self.tag = DYING;
        self.record
    }
}

impl VaSpace<'_> {
    /// Makes the reserved area at `base` live under `record`: from now on lookups find it.
    ///
    /// # Errors
    /// [`PublishError`] if no area begins at `base` or if it is not in the state that follows [`VaSpace::reserve`].
    #[inline(always)]
    pub fn publish(&mut self, base: VirtAddr, record: RecordId) -> Result<(), PublishError> {
        let Some(page) = self.area_at(base) else {
            return Err(PublishError::NotReserved { base });
        };
        match self.state_of(page) {
            AreaState::Reserved => {
                self.tags[page as usize] = record.0;
                Ok(())
            }
            AreaState::Live(record) => Err(PublishError::AlreadyLive { base, record }),
            AreaState::Dying => Err(PublishError::Dying { base }),
        }
    }

    /// The record of the live area that begins exactly at `base` (S13). Addresses inside, the guard, and areas that
    /// are not live give `None`.
    #[inline]
    pub fn find(&self, base: VirtAddr) -> Option<RecordId> {
        match self.state_of(self.area_at(base)?) {
            AreaState::Live(record) => Some(record),
            AreaState::Reserved | AreaState::Dying => None,
        }
    }

    /// The usable pages and the record of the live area that has `address` among its usable bytes (S88); a guard
    /// answers `None`. O(log n).
    pub fn find_containing(&self, address: VirtAddr) -> Option<(PageRange, RecordId)> {
        let area = self.previous_area_from(address)?;
        match area.state {
            AreaState::Live(record) if area.usable.contains(address) => Some((area.usable, record)),
            _ => None,
        }
    }

    /// The live area that begins exactly at `base`, to be looked at and then perhaps retired.
    #[inline(always)]
    pub fn live(&mut self, base: VirtAddr) -> Option<Live<'_>> {
        let page = self.area_at(base)?;
        let tag = &mut self.tags[page as usize];
        match AreaState::from_tag(*tag) {
            AreaState::Live(record) => Some(Live { tag, record }),
            AreaState::Reserved | AreaState::Dying => None,
        }
    }

    /// Ends the life of the live area that begins at `base`: it is no longer found, its addresses stay taken until
    /// [`VaSpace::release`] (S14a). Gives its record; a second time, and for what is not live, `None` (S14).
    pub fn retire(&mut self, base: VirtAddr) -> Option<RecordId> {
        self.live(base).map(Live::retire)
    }

    /// The lowest area, in whatever state, whose base is `address` or above it. O(log n).
    pub fn next_area_from(&self, address: VirtAddr) -> Option<Area> {
        self.next_area_from_page(pages_for(address.raw()).saturating_sub(self.first()))
    }

    /// The highest area, in whatever state, whose base is `address` or below it. O(log n).
    pub fn previous_area_from(&self, address: VirtAddr) -> Option<Area> {
        let page = address.page_number().checked_sub(self.first())?;
        self.starts.last_up_to(page.min(self.pages - 1)).and_then(|page| self.area(page))
    }

    /// All areas, in whatever state, by ascending address.
    pub fn iter(&self) -> Areas<'_> {
        Areas { space: self, from: 0 }
    }

    /// The lowest area whose base is the page at `offset` into the space or above it.
    fn next_area_from_page(&self, offset: u32) -> Option<Area> {
        if offset >= self.pages {
            return None;
        }
        self.starts.first_from(offset).and_then(|page| self.area(page))
    }

    /// The offset of `base` into the space, if an area begins there.
    #[inline]
    fn area_at(&self, base: VirtAddr) -> Option<u32> {
        let page = base.page_number().wrapping_sub(self.first());
        (base.is_page_aligned() && self.starts.contains(page)).then_some(page)
    }

    /// The area that begins at the page at `offset` into the space, which must be the start of one.
    fn area(&self, offset: u32) -> Option<Area> {
        let usable = self
            .space
            .pages()
            .sub_range(offset, self.taken_at(offset).saturating_sub(GUARD_PAGES))?;
        Some(Area { usable, state: self.state_of(offset) })
    }

    /// Pages of the area that begins at the page at `offset`, the guard included.
    #[inline]
    pub(super) fn taken_at(&self, offset: u32) -> u32 {
        self.tags[offset as usize + 1]
    }

    #[inline]
    pub(super) fn state_of(&self, offset: u32) -> AreaState {
        AreaState::from_tag(self.tags[offset as usize])
    }
}

/// The areas of a space by ascending address.
#[derive(Debug)]
pub struct Areas<'a> {
    space: &'a VaSpace<'a>,
    /// The offset of the page from which the next area is sought.
    from: u32,
}

impl Iterator for Areas<'_> {
    type Item = Area;

    fn next(&mut self) -> Option<Area> {
        let area = self.space.next_area_from_page(self.from)?;
        self.from = area.usable.end() - self.space.first();
        Some(area)
    }
}

impl FusedIterator for Areas<'_> {}

impl<'a> IntoIterator for &'a VaSpace<'_> {
    type Item = Area;
    type IntoIter = Areas<'a>;

    fn into_iter(self) -> Areas<'a> {
        self.iter()
    }
}
