//! An area that becomes longer or shorter where it lies (S86).
//!
//! ```text
//!   extend    ├ usable ┤gu├ free … ┤    ─▶   ├ usable ┤  more  ┤gu├ free … ┤
//!   shrink    ├ keep ┤  gone  ┤gu├ …    ─▶   ├ keep ┤gu├ free, one with what is free above … ┤
//! ```
//!
//! The area's base, its record and its state stay. Behind the usable pages there is always one guard that is nobody's to map
//! (S2): the old one becomes usable, or a page that was usable becomes the new one.

use super::{GUARD_PAGES, VaSpace};
use crate::owned_range::OwnedRange;

impl<R> VaSpace<'_, R> {
    /// Adds `more` pages behind `usable`, which are all the usable pages of an area, and gives the right to them. `None`, and
    /// nothing has changed, if what lies behind the guard is not free, or these are no area's pages. O(log n).
    #[inline(never)]
    pub fn extend(&mut self, usable: &OwnedRange, more: u32) -> Option<OwnedRange> {
        let (first, taken) = self.area_of(usable)?;
        let end = first + taken;
        if end != self.front.start {
            self.settle();
        }
        let is_front = end == self.front.start;
        let free = if is_front { self.front.end - end } else { self.holes.starting_at(end) };
        if more == 0 || more > free {
            return None;
        }
        if is_front {
            self.front.start = end + more;
        } else {
            // First what is made, then what goes, as in `take_from`.
            if more != free {
                self.make_hole(end + more, end + free);
            }
            self.holes.set(end, 0);
        }
        self.set_length(first, taken + more);
        let added = self.space.pages().sub_range(end - GUARD_PAGES, more)?;
        Some(OwnedRange::mint(added))
    }

    /// Makes an area end with `keep`, of which `gone` are the usable pages behind; those are free after that, after the flush
    /// (S23). O(log n).
    ///
    /// # Errors
    /// Gives `gone` back, with nothing changed, if the two are not all the usable pages of one area.
    #[inline(never)]
    pub fn shrink(&mut self, keep: &OwnedRange, gone: OwnedRange) -> Result<(), OwnedRange> {
        let Some(first) = self.shrunk(keep, &gone) else { return Err(gone) };
        let start = first + keep.count() + GUARD_PAGES;
        let end = start + gone.count();
        if end != self.front.start {
            self.settle();
        }
        if end == self.front.start {
            self.front.start = start;
        } else {
            let above = self.holes.starting_at(end);
            self.make_hole(start, end + above);
            if above != 0 {
                self.holes.set(end, 0);
            }
        }
        self.set_length(first, keep.count() + GUARD_PAGES);
        Ok(())
    }

    /// The offset of the area whose usable pages are `keep` and then `gone`.
    fn shrunk(&self, keep: &OwnedRange, gone: &OwnedRange) -> Option<u32> {
        let first = self.start_of(keep)?;
        let adjacent = keep.pages().end() == gone.pages().first();
        let whole = self.taken_at(first) == keep.count() + gone.count() + GUARD_PAGES;
        (keep.count() != 0 && gone.count() != 0 && adjacent && whole).then_some(first)
    }

    /// The offset and the length, guard included, of the area that has exactly these usable pages.
    fn area_of(&self, usable: &OwnedRange) -> Option<(u32, u32)> {
        let first = self.start_of(usable)?;
        let taken = self.taken_at(first);
        (taken == usable.count() + GUARD_PAGES).then_some((first, taken))
    }

    /// The offset at which an area begins as `range` does.
    fn start_of(&self, range: &OwnedRange) -> Option<u32> {
        let first = range.pages().first().checked_sub(self.first())?;
        (first < self.pages && self.starts.contains(first)).then_some(first)
    }

    /// Notes that the area at `first` has `taken` pages; it is as live or dying as it was.
    fn set_length(&mut self, first: u32, taken: u32) {
        let state = self.tags[first as usize] & super::STATE;
        self.tags[first as usize] = taken | state;
        self.tags[(first + taken) as usize - 1] = taken;
    }
}
