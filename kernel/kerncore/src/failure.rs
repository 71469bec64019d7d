//! Allocations that are made to fail, one after the other, to see that nothing is lost when they do.
//!
//! ```text
//!   whoever takes something that may run out      ┌─ shipped: a constant; nothing of the question is left
//!   frames, records, addresses, tables, … ──ask──▶┤
//!                          Locks::fails(point)    └─ images of tests: the FailNth of this CPU, the nth who asks is refused
//! ```
//!
//! Each [`Point`] stands where memory, or room of some kind, is about to be taken, and refuses with the very error value that a
//! real shortage brings. What a table of pages has from before does not matter: where a second-level table might have to be
//! made, the question is asked each time, so that the same operation asks the same questions whatever ran before it.

use core::fmt;
use core::num::NonZeroU32;

/// What is about to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Frames of RAM: a block or a list.
    Frames,
    /// A place for the record of an area (S9).
    Record,
    /// Addresses of the vmalloc window (S8).
    Addresses,
    /// A second-level table, for each MiB that is mapped (S18, S47).
    Table,
    /// The right to take frames out of the linear map (S97).
    Linear,
    /// A window in a program's address space.
    Window,
    /// Pages of the atomic pool (S71).
    Pool,
    /// An address for a frame that has none.
    Slot,
    /// Bytes of the global allocator's heap.
    Heap,
    /// Nothing: a short cut past another point, which is not taken while something is to fail, so that the other is asked.
    /// It is not counted.
    ShortCut,
}

impl Point {
    const fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Record => "record",
            Self::Addresses => "addresses",
            Self::Table => "table",
            Self::Linear => "linear map",
            Self::Window => "window",
            Self::Pool => "pool",
            Self::Slot => "slot",
            Self::Heap => "heap",
            Self::ShortCut => "short cut",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What becomes of those who ask after the nth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// They get what they want: who tries again succeeds.
    Plenty,
    /// They fail too: what undoes the operation must need nothing.
    Nothing,
}

/// Counts those who ask, and refuses the nth.
///
/// It is plain state of one CPU, or of one thread on the host: what others do there at the same time is not counted, so the
/// nth is the same one in every run.
#[derive(Clone, Copy, Debug)]
pub struct FailNth {
    armed: Option<(NonZeroU32, Afterwards)>,
    asked: u32,
    failed: Option<Point>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it says whether anything failed"]
pub struct Outcome {
    /// How many asked.
    pub asked: u32,
    /// What the nth wanted and did not get; `None` if fewer asked.
    pub failed: Option<Point>,
}

impl FailNth {
    /// Nothing fails.
    pub const fn off() -> Self {
        Self { armed: None, asked: 0, failed: None }
    }

    /// From now on those who ask are counted, and the `nth` is refused.
    pub const fn arm(&mut self, nth: NonZeroU32, afterwards: Afterwards) {
        *self = Self { armed: Some((nth, afterwards)), asked: 0, failed: None };
    }

    /// Nothing fails any more; says what did.
    pub const fn disarm(&mut self) -> Outcome {
        let Self { asked, failed, .. } = *self;
        *self = Self::off();
        Outcome { asked, failed }
    }

    /// Whether what is about to be taken at `point` is refused. Any context; takes no lock.
    pub fn fails(&mut self, point: Point) -> bool {
        let Some((nth, afterwards)) = self.armed else { return false };
        if point == Point::ShortCut {
            return self.failed.is_none() || afterwards == Afterwards::Nothing;
        }
        self.asked = self.asked.saturating_add(1);
        if self.asked == nth.get() {
            self.failed = Some(point);
            return true;
        }
        self.failed.is_some() && afterwards == Afterwards::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(nth: u32, afterwards: Afterwards) -> FailNth {
        let mut fails = FailNth::off();
        fails.arm(NonZeroU32::new(nth).expect("counted from one"), afterwards);
        fails
    }

    const ASKED: [Point; 4] = [Point::Record, Point::Addresses, Point::Frames, Point::Table];

    #[test]
    fn nothing_fails_and_nothing_is_counted_until_it_is_armed() {
        let mut fails = FailNth::off();
        assert!(!fails.fails(Point::Frames) && !fails.fails(Point::ShortCut));
        assert_eq!(fails.disarm(), Outcome { asked: 0, failed: None });
    }

    #[test]
    fn exactly_the_nth_fails_and_those_behind_it_by_choice() {
        for (nth, point) in (1..).zip(ASKED) {
            let mut once = armed(nth, Afterwards::Plenty);
            let mut lasting = armed(nth, Afterwards::Nothing);
            for (asked, point) in (1..).zip(ASKED) {
                assert_eq!(once.fails(point), asked == nth, "{point}");
                assert_eq!(lasting.fails(point), asked >= nth, "{point}");
            }
            let outcome = Outcome { asked: 4, failed: Some(point) };
            assert_eq!((once.disarm(), lasting.disarm()), (outcome, outcome));
            assert!(!once.fails(point) && !lasting.fails(point), "disarmed");
        }
        let mut late = armed(5, Afterwards::Nothing);
        assert!(!ASKED.map(|point| late.fails(point)).contains(&true));
        assert_eq!(late.disarm(), Outcome { asked: 4, failed: None });
    }

    /// Otherwise the front lists would hide the allocator from the count.
    #[test]
    fn short_cuts_are_not_taken_before_the_failure_and_not_counted() {
        let mut fails = armed(2, Afterwards::Plenty);
        assert!(fails.fails(Point::ShortCut) && fails.fails(Point::ShortCut));
        assert!(!fails.fails(Point::Frames) && fails.fails(Point::ShortCut));
        assert!(fails.fails(Point::Frames) && !fails.fails(Point::ShortCut));
        assert_eq!(fails.disarm(), Outcome { asked: 2, failed: Some(Point::Frames) });
        let mut lasting = armed(1, Afterwards::Nothing);
        assert!(lasting.fails(Point::Heap) && lasting.fails(Point::ShortCut));
    }
}
