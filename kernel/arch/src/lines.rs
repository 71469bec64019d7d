//! Whose which cache line is ([`kerncore::lines`]), in builds with the feature `line-ledger`, which are those of tests: a buffer that
//! changes its owner without the maintenance that this takes ends the kernel, with the name of the call. In other builds nothing is
//! left of this.

use kerncore::addr::PhysAddr;
use kerncore::lines::{Edge, Level};
use kerncore::streaming::Upkeep;

#[cfg(feature = "line-ledger")]
pub use kept::{add_outer, edge, maintained, runs};

/// `call` takes `edge` with `bytes` from `first`. Any context.
#[cfg(not(feature = "line-ledger"))]
#[inline(always)]
pub const fn edge(_call: &'static str, _edge: Edge, _first: PhysAddr, _bytes: u32) {}

/// `what` was done in the cache `level` for each line that `bytes` from `first` touch. Any context.
#[cfg(not(feature = "line-ledger"))]
#[inline(always)]
pub(crate) const fn maintained(_level: Level, _what: Upkeep, _first: PhysAddr, _bytes: u32) {}

/// From now on there is an outer cache, too.
#[cfg(not(feature = "line-ledger"))]
pub(crate) const fn add_outer() {}

#[cfg(feature = "line-ledger")]
mod kept {
    use kerncore::lines::{Lines, WrongEdge};
    use kerncore::lock::Class;
    use kerncore::streaming::Levels;

    use super::{Edge, Level, PhysAddr, Upkeep};
    use crate::cache;
    use crate::lock::IrqSpinLock;

    /// As many runs as buffers that devices have at once, and some that are in between.
    const RUNS: usize = 512;

    static LINES: IrqSpinLock<Lines<RUNS>> =
        IrqSpinLock::new(Class::CacheLines, Lines::new(Levels::Inner, cache::A9_LINE));

    /// Ends the kernel if `step` was wrong. Not under the lock: who dies may want to say more of it.
    fn judge(step: impl FnOnce(&mut Lines<RUNS>) -> Result<(), WrongEdge>) {
        if let Err(wrong) = LINES.with(step) {
            panic!("{wrong}");
        }
    }

    /// `call` takes `edge` with `bytes` from `first`. Any context.
    ///
    /// # Panics
    /// If the edge is wrong.
    pub fn edge(call: &'static str, edge: Edge, first: PhysAddr, bytes: u32) {
        judge(|lines| lines.edge(call, edge, first, bytes));
    }

    /// `what` was done in the cache `level` for each line that `bytes` from `first` touch. Any context.
    ///
    /// # Panics
    /// If a device could be writing there.
    pub fn maintained(level: Level, what: Upkeep, first: PhysAddr, bytes: u32) {
        judge(|lines| lines.maintained("cache maintenance", level, what, first, bytes));
    }

    /// From now on there is an outer cache, too.
    pub fn add_outer() {
        LINES.with(Lines::add_outer);
    }

    /// How many runs of lines are not the processor's.
    pub fn runs() -> usize {
        LINES.with(|lines| lines.runs())
    }
}
