//! Warnings that neither drown the console nor get lost.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kerncore::addr::VirtAddr;

/// A warning that is printed in full the first few times and then at every doubling of its count.
///
/// There is no clock here: a count limits the rate, which keeps runs the same each time.
#[derive(Debug)]
pub struct RateLimit(AtomicU32);

/// How many times a warning is printed before it is thinned out.
const BURST: u32 = 4;

impl RateLimit {
    /// A warning that was not given yet.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Counts one more; warns with `message` if it is the turn.
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        let count = self.0.fetch_add(1, Relaxed).wrapping_add(1);
        if count <= BURST {
            log::warn!("{message}");
        } else if count.is_power_of_two() {
            log::warn!("{message} ({count} times so far)");
        }
    }

    /// Forgets what was warned of: the next few are printed in full again.
    pub fn restart(&self) {
        self.0.store(0, Relaxed);
    }

    /// How often the warning was due, since the last restart.
    pub fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::new()
    }
}

/// Prints who called whom, from the caller of this function upwards: what Linux's `dump_stack` is for.
#[inline(never)]
pub fn dump_stack() {
    log::error!("Backtrace:");
    for address in arch::backtrace::here() {
        log::error!("  {}", Named(address));
    }
}

/// An address in the image, with the function that it lies in.
#[derive(Clone, Copy, Debug)]
pub struct Named(pub VirtAddr);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match arch::symbols::lookup(self.0) {
            Some(symbol) => write!(f, "{} {symbol}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A caller, by the function that it lies in; by its address only where that has no name.
#[derive(Clone, Copy, Debug)]
pub struct Called(pub VirtAddr);

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match arch::symbols::lookup(self.0) {
            Some(symbol) => symbol.fmt(f),
            None => self.0.fmt(f),
        }
    }
}
