//! Where a request goes: the lowest address that fits (S1), judged exactly.
//!
//! While no hole is long enough, a request without a window is answered by the open space, and else one for any page by
//! the tree alone. With an alignment or a window, a hole that is long enough may still not fit, so the holes are tried
//! one after the other by ascending address, O(log n) each, and the open space last. All offsets are pages from the
//! start of the space; alignment is judged on page numbers of the address space.

use super::{VaSpace, Window};

/// A place that was found: an area of the wanted length goes to `base`, inside the free run `[run, end)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) run: u32,
    pub(super) end: u32,
    pub(super) base: u32,
}

/// What a place must satisfy.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Pages, the guard included.
    wanted: u32,
    /// The alignment in pages, minus one.
    align_mask: u32,
    /// The first page allowed.
    low: u32,
    /// The page after the last one allowed.
    high: u32,
}

impl<R> VaSpace<'_, R> {
    /// The lowest place inside `window` for `wanted` pages at an alignment of `align_mask` and one pages.
    #[inline(never)]
    pub(super) fn lowest_within(
        &self,
        window: Option<Window>,
        align_mask: u32,
        wanted: u32,
    ) -> Option<Fit> {
        let bounds = self.bounds(window, align_mask, wanted)?;
        // A hole may begin below the window and reach into it.
        let mut from = bounds.low;
        if let Some(hole) = self.hole_across(bounds.low) {
            if let Some(fit) = self.fit(hole, hole + self.holes.starting_at(hole), bounds) {
                return Some(fit);
            }
            from = hole + self.holes.starting_at(hole);
        }
        while from < bounds.high.min(self.top()) {
            let Some(hole) = self.holes.next_of(from, wanted) else { break };
            if hole >= bounds.high {
                return None;
            }
            let end = hole + self.holes.starting_at(hole);
            if let Some(fit) = self.fit(hole, end, bounds) {
                return Some(fit);
            }
            from = end;
        }
        self.fit(self.top(), self.pages, bounds)
    }

    /// `window` clipped to the space, or `None` if nothing is left.
    fn bounds(&self, window: Option<Window>, align_mask: u32, wanted: u32) -> Option<Bounds> {
        let (low, high) = match window {
            None => (0, self.pages),
            Some(window) => (
                window.first().saturating_sub(self.first()),
                window.end().saturating_sub(self.first()).min(self.pages),
            ),
        };
        (low < high).then_some(Bounds { wanted, align_mask, low, high })
    }

    /// The place in the free run `[run, end)`, if it has one: aligned, and wholly inside run and bounds.
    fn fit(&self, run: u32, end: u32, bounds: Bounds) -> Option<Fit> {
        // Page numbers are below 2²⁰ and so is the mask: rounding up cannot wrap (S6).
        let lowest = self.first() + run.max(bounds.low);
        let base = ((lowest + bounds.align_mask) & !bounds.align_mask) - self.first();
        let limit = end.min(bounds.high);
        (base < limit && bounds.wanted <= limit - base).then_some(Fit { run, end, base })
    }

    /// The hole that begins below `page` and covers it.
    fn hole_across(&self, page: u32) -> Option<u32> {
        // Right behind an area there is a hole, another area or the open space.
        let hole = match self.starts.last_up_to(page) {
            Some(area) => area + self.taken_at(area),
            None => 0,
        };
        let covers = hole < page && hole < self.top() && page - hole < self.holes.starting_at(hole);
        covers.then_some(hole)
    }
}
