//! An area that is made, or ended, under one lock: Free → Live and Live → Free, without the states between.
//!
//! ```text
//!   begin ──▶ (the caller writes what stands behind it) ──▶ its record ──▶ Live     or  give_up ──▶ Free
//!   end:  is it the one? ──▶ (the caller takes that away) ──▶ Free
//! ```
//! What lies between the steps is done with the space borrowed, so that nobody looks meanwhile: not even an area without a
//! record, or one with a record and nothing behind it, is seen.

use crate::addr::VirtAddr;
use crate::owned_range::{OwnedRange, OwnedStart};

use super::{GUARD_PAGES, LIVE, START, VaSpace};

impl<R> VaSpace<'_, R> {
    /// Takes the lowest `wanted` pages, guard included, for an area that is live as soon as its record is at the place that
    /// comes with the right to them. `None`, with nothing changed, where that is to be asked with a request, to learn why not.
    ///
    /// Whoever writes no record gives up what he was given, by [`VaSpace::give_up`], before anybody else sees the space.
    #[inline(always)]
    pub(crate) fn begin(&mut self, wanted: u32) -> Option<(OwnedStart, &mut Option<R>)> {
        let base = self.take_lowest(wanted)?;
        let start = self.note_area(base, wanted, START | LIVE)?;
        Some((start, self.records.get_mut(base as usize)?))
    }

    /// As [`VaSpace::begin`], at the lowest place whose first page is a multiple of `align_mask` and one.
    #[inline(always)]
    pub(crate) fn begin_aligned(
        &mut self,
        wanted: u32,
        align_mask: u32,
    ) -> Option<(OwnedStart, &mut Option<R>)> {
        let base = if self.holes.longest() < wanted {
            self.take_open(align_mask, wanted)?
        } else {
            self.take_within(None, align_mask, wanted)?
        };
        let start = self.note_area(base, wanted, START | LIVE)?;
        Some((start, self.records.get_mut(base as usize)?))
    }

    /// Frees what [`VaSpace::begin`] gave, with no record there any more.
    #[cold]
    pub(crate) fn give_up(&mut self, usable: OwnedRange) {
        let first = usable.pages().first().wrapping_sub(self.first());
        if let Some(tag) = self.tags.get_mut(first as usize) {
            *tag &= !LIVE;
        }
        let released = self.release(usable);
        debug_assert!(released.is_ok(), "not as `begin` left it: {released:?}");
    }

    /// Ends the live area that begins at `base` and frees its addresses, if `ended`, which is told its record and how many pages
    /// it may use, says that nothing stands behind them any more. Gives its record; otherwise `None`, and nothing has changed
    /// here.
    #[inline(always)]
    pub(crate) fn end(
        &mut self,
        base: VirtAddr,
        ended: impl FnOnce(&mut R, u32) -> bool,
    ) -> Option<R> {
        let first = self.offset_of(base);
        let (place, tag) =
            (self.records.get_mut(first as usize)?, self.tags.get_mut(first as usize)?);
        let mut record = place.take()?;
        // Of what does not begin here, or is not live, more than any area has.
        let taken = *tag ^ (START | LIVE);
        if !ended(&mut record, taken.wrapping_sub(GUARD_PAGES)) {
            *place = Some(record);
            return None;
        }
        *tag = 0;
        self.give_back(first, taken);
        Some(record)
    }
}
