//! An area that is made, or ended, under one lock: Free → Live and Live → Free, without the states between.
//!
//! ```text
//!   begin ──▶ (the caller writes what stands behind it) ──▶ go_live ──▶ Live     or  give_up ──▶ Free
//!   end:  is it the one? ──▶ (the caller takes that away) ──▶ Free     or, if that takes longer, Dying
//! ```
//! What lies between the steps is done with the space borrowed, so that nobody looks meanwhile: not even an area without a
//! record, or one with a record and nothing behind it, is seen.

use crate::addr::{PageRange, VirtAddr};
use crate::owned_range::{OwnedRange, OwnedStart};

use super::{DYING, GUARD_PAGES, LIVE, START, VaSpace};

/// How far an area has come with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing stands behind its addresses any more: they are free.
    Free,
    /// It is no longer found. Its addresses stay taken until [`VaSpace::release`] (S14a).
    Dying,
}

impl<R> VaSpace<'_, R> {
    /// Takes the lowest `wanted` pages, guard included. `None`, with nothing changed, where that is to be asked with a request, to
    /// learn why not.
    ///
    /// Only that they are not free is noted: before anybody else sees the space, the area goes live, or is given up.
    #[inline(always)]
    pub(crate) fn begin(&mut self, wanted: u32) -> Option<OwnedStart> {
        let base = self.take_lowest(wanted)?;
        Some(OwnedStart::mint(self.first().wrapping_add(base)))
    }

    /// As [`VaSpace::begin`], at the lowest place whose first page is a multiple of `align_mask` and one.
    #[inline(always)]
    pub(crate) fn begin_aligned(&mut self, wanted: u32, align_mask: u32) -> Option<OwnedStart> {
        let base = self.take_aligned(align_mask, wanted)?;
        Some(OwnedStart::mint(self.first().wrapping_add(base)))
    }

    /// Notes the area of which [`VaSpace::begin`] gave the right to `usable`, live under `record`.
    #[inline(always)]
    pub(crate) fn go_live(&mut self, usable: PageRange, record: R) {
        let base = usable.first().wrapping_sub(self.first());
        let taken = usable.count().wrapping_add(GUARD_PAGES);
        let noted = self.note_tags(base, taken, START | LIVE);
        debug_assert!(noted.is_some(), "{usable:?} was not begun");
        if let Some(place) = self.records.get_mut(base as usize) {
            *place = Some(record);
        }
    }

    /// Frees what [`VaSpace::begin`] gave and what did not go live.
    #[cold]
    pub(crate) fn give_up(&mut self, usable: OwnedRange) {
        let base = usable.pages().first().wrapping_sub(self.first());
        // As an area that was made, and ends.
        let noted = self.note_tags(base, usable.count().wrapping_add(GUARD_PAGES), START);
        let released = self.release(usable);
        debug_assert!(noted.is_some() && released.is_ok(), "not begun: {released:?}");
    }

    /// Ends the live area that begins at `base` as far as `end` says, which is told its record and how many pages it may use: of
    /// what is not live, more than any area has. Gives its record and how far; `None` if it stays live, where nothing has changed
    /// here.
    #[inline(always)]
    pub(crate) fn end(
        &mut self,
        base: VirtAddr,
        end: impl FnOnce(&mut R, u32) -> Option<End>,
    ) -> Option<(R, End)> {
        let first = self.offset_of(base);
        let (place, tag) =
            (self.records.get_mut(first as usize)?, self.tags.get_mut(first as usize)?);
        let mut record = place.take()?;
        let taken = *tag ^ (START | LIVE);
        match end(&mut record, taken.wrapping_sub(GUARD_PAGES)) {
            Some(End::Free) => {
                *tag = 0;
                self.give_back(first, taken);
                Some((record, End::Free))
            }
            Some(End::Dying) => {
                *tag ^= LIVE | DYING;
                Some((record, End::Dying))
            }
            None => {
                *place = Some(record);
                None
            }
        }
    }
}
