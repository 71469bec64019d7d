//! The Cortex-A9 as a [`StreamMachine`]: its data cache by CP15, the outer one by whoever has registered it.

use kerncore::addr::{PhysAddr, VirtAddr};
use kerncore::layout::linear_physical;
use kerncore::lines::Level;
use kerncore::streaming::{StreamMachine, Upkeep};

use crate::machine::CortexA9;
use crate::translate::{Direction, translate};
use crate::{barrier, cache, lines, outer};

impl StreamMachine for CortexA9 {
    fn line_bytes(&self) -> u32 {
        // A PL310's lines are as long (L2C-310 TRM, 1.1).
        cache::A9_LINE
    }

    fn maintain_inner(&self, what: Upkeep, start: VirtAddr, bytes: u32) {
        match what {
            Upkeep::Clean => cache::clean(start, bytes),
            // SAFETY: promise 4 of `CortexA9::new`.
            Upkeep::Invalidate => unsafe { cache::invalidate(start, bytes) },
            Upkeep::CleanAndInvalidate => cache::clean_and_invalidate(start, bytes),
        }
        if cfg!(feature = "line-ledger")
            && let Some(first) = physical(start)
        {
            done(Level::Inner, what, first, bytes);
        }
    }

    fn maintain_outer(&self, what: Upkeep, first: PhysAddr, bytes: u32) {
        if let Some(outer) = outer::get() {
            outer.maintain(what, first, bytes);
            done(Level::Outer, what, first, bytes);
        }
    }

    fn wait_outer(&self) {
        if let Some(outer) = outer::get() {
            outer.wait();
        }
    }
}

/// What lies behind `start`.
fn physical(start: VirtAddr) -> Option<PhysAddr> {
    linear_physical(start).or_else(|| translate(start, Direction::Read).ok())
}

/// Tells the ledger of lines.
#[inline(always)]
pub(crate) fn done(level: Level, what: Upkeep, first: PhysAddr, bytes: u32) {
    lines::maintained(level, what, first, bytes);
}

/// Cleans and invalidates the outer cache's lines behind what the data cache was just begun to be rid of, and waits for it.
#[cold]
#[inline(never)]
pub(crate) fn outer_too(first: PhysAddr, bytes: u32) {
    // What the data cache writes back lands in the outer one.
    barrier::dsb();
    if let Some(outer) = outer::get() {
        outer.maintain_now(Upkeep::CleanAndInvalidate, first, bytes);
        done(Level::Outer, Upkeep::CleanAndInvalidate, first, bytes);
    }
}
