//! The free run out of which requests are answered without a search.
//!
//! ```text
//!   ├ area ┤gu├ hole ┤ area ┤gu├──── front ────┤ area ┤gu├ hole ┤ area ┤gu├── open space ──┤
//!            └ shorter than `least` ┘ ▲ start   ▲ end                      ▲ top
//! ```
//!
//! The *front* is a hole, or the open space: the lowest run that was long enough when somebody last sought one, or what was
//! freed below that since. No hole below it has `least` pages or more, so that a request for so many, if the front has them, has
//! no lower place (S1). What is taken is its first pages, and what is given back often lies right below it: either moves its start
//! and nothing else, and neither the tree of holes nor a tag knows of it, be the front a hole or the open space.
//!
//! An aligned area leaves a hole below it, which stands aside in [`HoleTree`](super::holes::HoleTree): the next to go may be the area,
//! and the hole with that.

use super::{HOLE, VaSpace};

/// The least that nobody asks for.
const NOBODY: u32 = u32::MAX;

/// Where requests are answered. All are pages from the start of the space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front {
    /// Its first page.
    pub(super) start: u32,
    /// The page after its last one: that of the space's, if and only if this is the open space.
    pub(super) end: u32,
    /// No hole below has so many pages.
    pub(super) least: u32,
    /// Nor has one so many that does not stand aside.
    pub(super) least_without_aside: u32,
}

impl Front {
    /// The open space from `top` on, of which nobody has asked yet what holes are below.
    pub(super) const fn open(top: u32, pages: u32) -> Self {
        Self { start: top, end: pages, least: NOBODY, least_without_aside: NOBODY }
    }

    /// How many holes it is.
    pub(super) fn holes(&self, pages: u32) -> u32 {
        u32::from(self.start != self.end && self.end != pages)
    }

    #[inline(always)]
    const fn length(&self) -> u32 {
        self.end.wrapping_sub(self.start)
    }
}

impl<R> VaSpace<'_, R> {
    /// The offset at which the open space begins: 0, or the page after an area's guard.
    #[inline]
    pub(super) const fn top(&self) -> u32 {
        if self.front.end == self.pages { self.front.start } else { self.top_beyond }
    }

    /// Pages in the longest free run.
    pub(super) fn longest_run(&self) -> u32 {
        self.holes.longest().max(self.front.length()).max(self.pages - self.top())
    }

    /// Takes `wanted` pages from the lowest place that has so many.
    #[inline(always)]
    pub(super) fn take_lowest(&mut self, wanted: u32) -> Option<u32> {
        let base = self.front.start;
        if wanted < self.front.least || wanted > self.front.length() {
            return self.take_elsewhere(wanted);
        }
        self.front.start = base.wrapping_add(wanted);
        Some(base)
    }

    #[inline(never)]
    fn take_elsewhere(&mut self, wanted: u32) -> Option<u32> {
        self.find_front(wanted)?;
        let base = self.front.start;
        self.front.start = base.wrapping_add(wanted);
        Some(base)
    }

    /// Takes `wanted` pages from the lowest place whose first page is a multiple of `align_mask` and one.
    #[inline(always)]
    pub(super) fn take_aligned(&mut self, align_mask: u32, wanted: u32) -> Option<u32> {
        match self.take_aligned_of_front(align_mask, wanted) {
            Some(base) => Some(base),
            None => self.take_aligned_elsewhere(align_mask, wanted),
        }
    }

    #[inline(always)]
    fn take_aligned_of_front(&mut self, align_mask: u32, wanted: u32) -> Option<u32> {
        let Front { start, end, least, .. } = self.front;
        // Pages from here to the next aligned one; page numbers and mask are below 2²⁰, and what comes out is, too (S6).
        let skipped = self.first().wrapping_add(start).wrapping_neg() & align_mask;
        let base = start.wrapping_add(skipped);
        if wanted < least || base > end || wanted > end.wrapping_sub(base) {
            return None;
        }
        self.front.start = base.wrapping_add(wanted);
        if skipped != 0 {
            self.holes.add(start, skipped);
            self.mark_hole(start, base);
            self.front.least_without_aside = least;
            self.front.least = least.max(skipped.wrapping_add(1));
        }
        Some(base)
    }

    #[inline(never)]
    fn take_aligned_elsewhere(&mut self, align_mask: u32, wanted: u32) -> Option<u32> {
        if self.holes.longest() < wanted {
            self.find_front(wanted)?;
            if let Some(base) = self.take_aligned_of_front(align_mask, wanted) {
                return Some(base);
            }
        }
        self.take_within(None, align_mask, wanted)
    }

    /// Has the lowest run of `wanted` pages or more be the front. `None`, with nothing changed, if there is none.
    #[inline(never)]
    fn find_front(&mut self, wanted: u32) -> Option<()> {
        let found = self.holes.lowest(wanted);
        let fits = self.front.length() >= wanted;
        if let Some(hole) = found.filter(|&hole| !fits || hole < self.front.start) {
            let end = hole + self.holes.starting_at(hole);
            self.holes.remove(hole);
            self.leave_front();
            self.advance_to(hole, end, wanted);
            return Some(());
        }
        if !fits {
            let top = self.top();
            if wanted > self.pages - top {
                return None;
            }
            self.leave_front();
            self.front = Front::open(top, self.pages);
        }
        self.front.least = if found.is_some() { wanted } else { self.holes.longest() + 1 };
        Some(())
    }

    /// Makes the hole `[start, end)`, of which the tree does not know, the front, below which no hole has `least` pages.
    fn advance_to(&mut self, start: u32, end: u32, least: u32) {
        self.unmark(end);
        self.front = Front { start, end, least, least_without_aside: NOBODY };
    }

    /// Notes a front that is a hole among the holes, or where the open space begins; another run is to be the front after that.
    fn leave_front(&mut self) {
        let Front { start, end, .. } = self.front;
        if end == self.pages {
            self.top_beyond = start;
        } else if start != end {
            self.holes.add(start, end - start);
            self.mark_hole(start, end);
        }
    }

    /// Puts every hole into the tree, and has the open space be the front. Who goes from hole to hole has this done before.
    pub(super) fn settle(&mut self) {
        let top = self.top();
        self.leave_front();
        self.holes.settle();
        self.front = Front::open(top, self.pages);
    }

    /// Makes the area of `taken` pages at the offset `first` free, whose first tag is wiped.
    #[inline(always)]
    pub(super) fn give_back(&mut self, first: u32, taken: u32) {
        self.starts.remove(first);
        let end = first.wrapping_add(taken);
        // Below the first page there is no tag.
        let below = match self.tags.get(first.wrapping_sub(1) as usize) {
            Some(tag) if tag & HOLE != 0 => tag & !HOLE,
            _ => 0,
        };
        if end != self.front.start {
            return self.give_back_elsewhere(first, below, end);
        }
        let start = first.wrapping_sub(below);
        if below != 0 && self.holes.remove(start) {
            self.front.least = self.front.least.min(self.front.least_without_aside);
        }
        self.front.start = start;
    }

    /// As [`VaSpace::give_back`] of the pages from `first` to `end`, which the front does not follow and `below` free ones precede.
    #[inline(never)]
    fn give_back_elsewhere(&mut self, first: u32, below: u32, end: u32) {
        let start = first - below;
        let is_open = self.front.end == self.pages;
        self.front.least_without_aside = NOBODY;
        if !is_open && end == self.top_beyond {
            if first == self.front.end {
                self.front.end = self.pages;
            } else {
                if below != 0 {
                    self.holes.remove(start);
                }
                self.top_beyond = start;
            }
            return;
        }
        let above = self.holes.starting_at(end);
        let joined = end + above;
        if first == self.front.end {
            if above != 0 {
                self.holes.remove(end);
                self.unmark(joined);
            }
            self.front.end = joined;
            return;
        }
        let length = joined - start;
        if start < self.front.start && length >= self.front.least {
            for (part, pages) in [(start, below), (end, above)] {
                if pages != 0 {
                    self.holes.remove(part);
                }
            }
            let least = self.front.least;
            self.leave_front();
            self.advance_to(start, joined, least);
            return;
        }
        // First what is made, then what goes: the greater length stops the climb of the lesser.
        self.holes.set(start, length);
        if above != 0 {
            self.holes.remove(end);
        }
        self.mark_hole(start, joined);
    }

    /// Notes the hole `[start, end)`, which has no free neighbour and stands aside from none.
    #[inline]
    pub(super) fn make_hole(&mut self, start: u32, end: u32) {
        self.holes.set(start, end - start);
        self.mark_hole(start, end);
    }

    /// Notes at its end that there is a hole `[start, end)`.
    #[inline]
    fn mark_hole(&mut self, start: u32, end: u32) {
        // A hole has a page, and lies in the space.
        if let Some(tag) = self.tags.get_mut(end.wrapping_sub(1) as usize) {
            *tag = HOLE | end.wrapping_sub(start);
        }
    }

    /// Notes that no hole of the tree ends at `end`.
    fn unmark(&mut self, end: u32) {
        if let Some(tag) = self.tags.get_mut(end.wrapping_sub(1) as usize) {
            *tag = 0;
        }
    }
}
