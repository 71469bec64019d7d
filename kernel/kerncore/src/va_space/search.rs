//! Where a request goes: the lowest address that fits (S1), judged exactly.
//!
//! A request for any page of the whole space is answered by the tree alone, or by the open space. With an alignment
//! or a window, a hole that is long enough may still not fit, so the holes are tried one after the other by
//! ascending address, O(log n) each, and the open space last. All offsets are pages from the start of the space;
//! alignment is judged on page numbers of the address space.

use super::{Request, VaSpace, Window};

/// Alignments from here on admit page 0 of the address space only.
const ORDER_OF_ADDRESS_SPACE: u32 = 20;

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
    /// The lowest place for `wanted` pages that satisfies `request`.
    #[inline]
    pub(super) fn lowest_fit(&self, request: &Request, wanted: u32) -> Option<Fit> {
        if request.is_for_anywhere()
            && let Some(hole) = self.holes.first_of(wanted)
        {
            return Some(Fit { run: hole, end: hole + self.holes.starting_at(hole), base: hole });
        }
        let order = request.alignment.order_in_pages(request.bytes);
        self.lowest_within(request.window, order, wanted)
    }

    /// The lowest place inside `window` at an alignment of two to `order` pages.
    #[inline(never)]
    fn lowest_within(&self, window: Option<Window>, order: u32, wanted: u32) -> Option<Fit> {
        let bounds = self.bounds(window, order, wanted)?;
        // A hole may begin below the window and reach into it.
        let mut from = bounds.low;
        if let Some(hole) = self.hole_across(bounds.low) {
            if let Some(fit) = self.fit(hole, hole + self.holes.starting_at(hole), bounds) {
                return Some(fit);
            }
            from = hole + self.holes.starting_at(hole);
        }
        while from < bounds.high.min(self.top) {
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
        self.fit(self.top, self.pages, bounds)
    }

    /// `window` clipped to the space, or `None` if nothing is left.
    fn bounds(&self, window: Option<Window>, order: u32, wanted: u32) -> Option<Bounds> {
        let align_mask = (1 << order.min(ORDER_OF_ADDRESS_SPACE)) - 1;
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
        let covers = hole < page && hole < self.top && page - hole < self.holes.starting_at(hole);
        covers.then_some(hole)
    }
}
