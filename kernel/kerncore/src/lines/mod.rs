//! The ledger of line states: who owns which line of which cache, for machines that have none.
//!
//! An emulator has no cache, so that a forgotten clean costs nothing there and shows nowhere. In builds of tests every change of a
//! buffer's owner, and every line that is cleaned or invalidated, is told to this ledger, which knows what a cache could hold:
//!
//! ```text
//!                 Giving            Given                Taking                  Taken
//!   processor's ─────────▶ dirty ─────────▶ the device's ───────▶ stale, if it ──────────▶ processor's
//!                          clean │                                 wrote      │
//!                                ▼                             invalidate     ▼
//!                          not dirty ─────────▶                          not stale
//!
//!                 Lending           Lent                Returned
//!   processor's ─────────▶ cached ─────────▶ uncached ───────────▶ processor's
//!                 clean and invalidate
//! ```
//!
//! * **Dirty** lines may be written back at any time, and are not in memory yet; a clean of the data cache moves them to the outer
//!   cache, a clean of that to memory. In the other order the outer cache keeps them.
//! * **Stale** lines may have been read in since the device was given them; an invalidation of the data cache helps as long
//!   as the outer cache has nothing stale to read in again.
//! * A wrong edge names the call that took it, and the line.
//!
//! A buffer that is only synchronised stays the device's: between the two the processor may have it any number of times, or none.
//!
//! Lines that are not listed are the processor's, and may be dirty. Of a buffer that a device only reads, lines that hold something else
//! as well are not followed: their neighbours' owners clean them whenever they like.

mod runs;
mod state;
#[cfg(test)]
mod tests;

use core::fmt;

use crate::addr::PhysAddr;
use crate::streaming::{Flow, Levels, Step, Upkeep};
use runs::Runs;
use state::State;

/// A step of a buffer from one owner to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// From now on what is cleaned counts: the processor has written for the last time.
    Giving(Flow, Step),
    /// The device has it.
    Given(Flow, Step),
    /// The device is done: from now on what is invalidated counts.
    Taking(Flow, Step),
    /// The processor has it.
    Taken(Flow, Step),
    /// No cacheable mapping is left, nor a translation by one: from now on what is cleaned and invalidated counts.
    Lending,
    /// It is used uncached.
    Lent,
    /// It is no longer.
    Returned,
}

/// One of the caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The processors' own.
    Inner,
    /// The one behind them.
    Outer,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It was given away while a cache may hold it dirty.
    StillDirty(Level),
    /// It was taken back while a cache may hold what was there before.
    StillStale(Level),
    /// It is to be used uncached, and a cache may hold it.
    StillCached(Level),
    /// It is the device's already.
    TheDevices(Flow),
    /// It is not the device's.
    NotTheDevices,
    /// It was given with another flow.
    OtherFlow {
        /// With which.
        given: Flow,
        /// With which it is taken.
        taken: Flow,
    },
    /// It is used uncached.
    Uncached,
    /// It is not used uncached.
    NotUncached,
    /// It was cleaned while a device could write it: what is written back lies over that.
    CleanedUnderTheDevice,
    /// The ledger has no room for it.
    NoRoom,
}

/// A wrong edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongEdge {
    /// Whose.
    pub call: &'static str,
    /// The first line's first byte.
    pub line: PhysAddr,
    /// What is wrong.
    pub wrong: Wrong,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inner => "the data cache",
            Self::Outer => "the outer cache",
        })
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StillDirty(level) => write!(f, "given away while {level} may hold it dirty"),
            Self::StillStale(level) => {
                write!(f, "taken back while {level} may hold what was there before")
            }
            Self::StillCached(level) => write!(f, "used uncached while {level} may hold it"),
            Self::TheDevices(flow) => write!(f, "given away, and a device has it ({flow})"),
            Self::NotTheDevices => f.write_str("taken back, and no device has it"),
            Self::OtherFlow { given, taken } => write!(f, "given {given}, taken back {taken}"),
            Self::Uncached => f.write_str("given away, and it is used uncached"),
            Self::NotUncached => f.write_str("returned, and it was not used uncached"),
            Self::CleanedUnderTheDevice => f.write_str("cleaned while a device may write it"),
            Self::NoRoom => f.write_str("the ledger of lines is full"),
        }
    }
}

impl fmt::Display for WrongEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the cache line at {} is {}", self.call, self.line, self.wrong)
    }
}

impl core::error::Error for WrongEdge {}

/// The ledger, with room for `N` runs of lines in one state.
#[derive(Debug)]
pub struct Lines<const N: usize> {
    runs: Runs<N>,
    levels: Levels,
    /// Bytes in a line: a power of two.
    line: u32,
}

impl<const N: usize> Lines<N> {
    /// Of caches with lines of `line` bytes, a power of two. All is the processor's.
    pub const fn new(levels: Levels, line: u32) -> Self {
        Self { runs: Runs::new(), levels, line }
    }

    /// From now on there is an outer cache, too.
    pub fn add_outer(&mut self) {
        self.levels = Levels::InnerAndOuter;
    }

    /// How many runs of lines are not the processor's.
    pub const fn runs(&self) -> usize {
        self.runs.len()
    }

    /// `call` takes `edge` with `bytes` from `first`.
    ///
    /// # Errors
    /// [`WrongEdge`]; nothing has changed.
    pub fn edge(
        &mut self,
        call: &'static str,
        edge: Edge,
        first: PhysAddr,
        bytes: u32,
    ) -> Result<(), WrongEdge> {
        let levels = self.levels;
        let span = match edge {
            // Of what a device only reads, whole lines.
            Edge::Giving(Flow::ToDevice, _)
            | Edge::Given(Flow::ToDevice, _)
            | Edge::Taking(Flow::ToDevice, _)
            | Edge::Taken(Flow::ToDevice, _) => self.inside(first, bytes),
            _ => self.around(first, bytes),
        };
        self.change(call, span, |state| state.after(edge, levels))
    }

    /// `call` has done `what` in the cache `level` for every line that `bytes` from `first` touch.
    ///
    /// # Errors
    /// [`WrongEdge`]; nothing has changed.
    pub fn maintained(
        &mut self,
        call: &'static str,
        level: Level,
        what: Upkeep,
        first: PhysAddr,
        bytes: u32,
    ) -> Result<(), WrongEdge> {
        let span = self.around(first, bytes);
        self.change(call, span, |state| state.maintained(level, what))
    }

    fn change(
        &mut self,
        call: &'static str,
        (first, end): (u32, u32),
        step: impl Fn(State) -> Result<State, Wrong>,
    ) -> Result<(), WrongEdge> {
        let line = self.line;
        let at = |number: u32| PhysAddr::new(number.wrapping_mul(line));
        self.runs.change(first, end, step).map_err(|(number, wrong)| WrongEdge {
            call,
            line: at(number),
            wrong,
        })
    }

    /// The numbers of the first line that the bytes touch and of the one behind the last.
    fn around(&self, first: PhysAddr, bytes: u32) -> (u32, u32) {
        let start = first.raw() / self.line;
        let end = (u64::from(first.raw()) + u64::from(bytes)).div_ceil(u64::from(self.line));
        (start, self.number(end).max(start))
    }

    /// The numbers of the first line that lies whole in the bytes and of the one behind the last.
    fn inside(&self, first: PhysAddr, bytes: u32) -> (u32, u32) {
        let start = u64::from(first.raw()).div_ceil(u64::from(self.line));
        let end = (u64::from(first.raw()) + u64::from(bytes)) / u64::from(self.line);
        (self.number(start), self.number(end).max(self.number(start)))
    }

    fn number(&self, line: u64) -> u32 {
        // Lines have four bytes at the least.
        u32::try_from(line).unwrap_or(u32::MAX / self.line)
    }
}
