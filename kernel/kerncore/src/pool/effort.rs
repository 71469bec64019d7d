//! Whether making the pool larger is worth another try: said by CPUs that do not wait for each other.
//!
//! ```text
//!   willing ──somebody could not──▶ given up ──it was looked at after that, and is well──▶ willing
//! ```
//! Who looks takes a [`Glance`] first, so that what he saw before somebody gave up does not undo that: which of both was later could
//! not be told otherwise.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire};

/// Whether it is worth another try. Any context.
#[derive(Debug)]
pub struct Effort(
    /// Odd: given up. Each change makes it another number.
    AtomicU32,
);

/// What was said when somebody began to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is seen after it is told to `Effort::is_well`"]
pub struct Glance(u32);

impl Effort {
    /// Nobody has given up.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether somebody has given up, and nobody has seen that all is well since.
    pub fn has_given_up(&self) -> bool {
        self.0.load(Acquire) & 1 != 0
    }

    /// It could not be done, or is not to be for now.
    pub fn give_up(&self) {
        // The next odd number.
        let step = |now: u32| Some(now.wrapping_add(2 - (now & 1)) | 1);
        _ = self.0.fetch_update(AcqRel, Acquire, step);
    }

    /// For whoever is going to look.
    pub fn glance(&self) -> Glance {
        Glance(self.0.load(Acquire))
    }

    /// All is well, as was seen after `glance`: unless somebody has given up meanwhile, it is worth another try.
    pub fn is_well(&self, Glance(seen): Glance) {
        if seen & 1 != 0 {
            // If it changed, somebody else has said what is so now.
            _ = self.0.compare_exchange(seen, seen.wrapping_add(1), AcqRel, Acquire);
        }
    }
}

impl Default for Effort {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Effort;

    #[test]
    fn it_is_worth_a_try_until_somebody_gives_up_and_again_when_all_is_well() {
        let effort = Effort::new();
        for _ in 0..3 {
            assert!(!effort.has_given_up());
            effort.is_well(effort.glance());
            assert!(!effort.has_given_up());
            effort.give_up();
            assert!(effort.has_given_up());
            effort.give_up();
            assert!(effort.has_given_up(), "twice is not undone");
            effort.is_well(effort.glance());
        }
    }

    #[test]
    fn what_was_seen_before_somebody_gave_up_does_not_undo_that() {
        // However often that had been said before, and whatever was said between.
        for before in 0..4 {
            let effort = Effort::new();
            for _ in 0..before / 2 {
                effort.give_up();
                effort.is_well(effort.glance());
            }
            if before % 2 == 1 {
                effort.give_up();
            }
            let (early, second) = (effort.glance(), effort.glance());
            effort.is_well(second);
            effort.give_up();
            effort.is_well(early);
            assert!(effort.has_given_up(), "{before}");
            effort.is_well(effort.glance());
            assert!(!effort.has_given_up(), "{before}");
        }
    }

    #[test]
    fn the_number_wraps_and_nothing_else() {
        let effort = Effort(u32::MAX.into());
        assert!(effort.has_given_up());
        let glance = effort.glance();
        effort.give_up();
        assert!(effort.has_given_up() && effort.glance() != glance);
        effort.is_well(glance);
        assert!(effort.has_given_up());
        let last = Effort(u32::MAX.into());
        last.is_well(last.glance());
        assert!(!last.has_given_up());
    }
}
