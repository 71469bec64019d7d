//! The ledger around every test: what must be back where it was, and what must hold at all times.
//!
//! `ktest` knows no allocator and no page table. Whoever owns some implements [`Ledger`] for them, and the test image
//! hands the ledgers to the runner.
//!
//! ```text
//! settle → snapshot → a test begins, and ends → settle → snapshot, compared with the last → audit → the next test begins …
//! ```

use core::fmt;
use kerncore::frames::FrameOwner;
use kerncore::ledger::{Count, Item, Nature};

/// The most counters that one ledger keeps.
pub const MAX_COUNTERS: usize = 32;

/// An account of things that a test may take and must give back.
pub trait Ledger {
    /// Whose account it is, for reports: `mm`, `dma`.
    fn name(&self) -> &'static str;

    /// Brings everything to rest that is allowed to lag behind: drains per-CPU caches, flushes and frees what is
    /// queued. After it, equal counters mean an equal state. Called in task context on the boot CPU, interrupts on.
    fn settle(&self);

    /// The counters as they stand. Changes nothing and allocates nothing.
    fn snapshot(&self) -> Snapshot;

    /// Called last before a test's function: for what is to happen in tests alone. [`Ledger::settle`] ends it.
    fn test_begins(&self) {}

    /// Walks the live structures, and hands `violation` one line for each rule that is broken. What it finds here
    /// makes the kernel unsound: the runner ends the boot, since no later test would mean anything.
    fn audit(&self, violation: &mut dyn FnMut(fmt::Arguments<'_>));
}

/// Named counters at one moment. They lie in the value itself, for what is counted may be the heap.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    counters: [(Counter, u64); MAX_COUNTERS],
    len: usize,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Of what, or whose: `areas`, `vmalloc`.
    pub name: &'static str,
    /// In what, if the name does not say it: `frames`. May be empty.
    pub unit: &'static str,
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.unit.is_empty() { "" } else { " " };
        write!(f, "{}{between}{}", self.name, self.unit)
    }
}

impl Snapshot {
    /// Without any counters yet.
    pub const fn new() -> Self {
        Self { counters: [(Counter { name: "", unit: "" }, 0); MAX_COUNTERS], len: 0 }
    }

    /// Adds a counter whose name says what and in which unit: `areas`, `heap bytes`.
    ///
    /// # Panics
    ///
    /// If there is one of this name, or if there are [`MAX_COUNTERS`]: either would hide a leak.
    pub fn record(&mut self, name: &'static str, value: u64) {
        self.record_in("", name, value);
    }

    /// Adds a counter of `unit`s: frames that `vmalloc` owns.
    ///
    /// # Panics
    ///
    /// As [`Self::record`] does.
    pub fn record_in(&mut self, unit: &'static str, name: &'static str, value: u64) {
        let counter = Counter { name, unit };
        assert!(self.get(counter).is_none(), "two counters are named {counter}");
        assert!(
            self.len < MAX_COUNTERS,
            "no room for the counter {counter}: a snapshot has {MAX_COUNTERS}"
        );
        self.counters[self.len] = (counter, value);
        self.len += 1;
    }

    /// The value of this counter.
    pub fn get(&self, counter: Counter) -> Option<u64> {
        self.iter().find_map(|(other, value)| (other == counter).then_some(value))
    }

    /// All counters in the order in which they were recorded.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        self.counters[..self.len].iter().copied()
    }

    /// Hands `found` every counter in which `later` differs, including those that only one of the two has.
    pub fn compare(&self, later: &Self, found: &mut dyn FnMut(Difference)) {
        for (counter, before) in self.iter() {
            let after = later.get(counter);
            if after != Some(before) {
                found(Difference { counter, before: Some(before), after });
            }
        }
        for (counter, after) in later.iter() {
            if self.get(counter).is_none() {
                found(Difference { counter, before: None, after: Some(after) });
            }
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

/// What kerncore's ledger counts as held. What it counts as capacity is kept for reuse and may grow, so it is left out.
impl From<&kerncore::ledger::Ledger> for Snapshot {
    fn from(ledger: &kerncore::ledger::Ledger) -> Self {
        let mut snapshot = Self::new();
        for (owner, &number) in FrameOwner::ALL.into_iter().zip(&ledger.frames) {
            if Item::Frames(owner).nature() == Nature::Held {
                snapshot.record_in("frames", owner.name(), number.into());
            }
        }
        for (count, &number) in Count::ALL.into_iter().zip(&ledger.counts) {
            if Item::Count(count).nature() == Nature::Held {
                snapshot.record(count.name(), number.into());
            }
        }
        snapshot
    }
}

/// A counter that is not where it was. `None`: there was no such counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which one.
    pub counter: Counter,
    /// Its value before the test.
    pub before: Option<u64>,
    /// Its value after the test.
    pub after: Option<u64>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.counter;
        match (self.before, self.after) {
            (Some(before), Some(after)) if after >= before => {
                write!(f, "{name}: {before} before, {after} after, {} more", after - before)
            }
            (Some(before), Some(after)) => {
                write!(f, "{name}: {before} before, {after} after, {} fewer", before - after)
            }
            (Some(before), None) => write!(f, "{name}: {before} before, not counted after"),
            (None, Some(after)) => write!(f, "{name}: not counted before, {after} after"),
            (None, None) => write!(f, "{name}: never counted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(counters: &[(&'static str, u64)]) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for &(name, value) in counters {
            snapshot.record(name, value);
        }
        snapshot
    }

    fn differences(before: &Snapshot, after: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        before.compare(after, &mut |difference| lines.push(difference.to_string()));
        lines
    }

    #[test]
    fn equal_counters_do_not_differ_in_whatever_order_they_were_recorded() {
        let one = snapshot(&[("frames", 1), ("areas", 2)]);
        let two = snapshot(&[("areas", 2), ("frames", 1)]);
        assert_eq!(differences(&one, &two), [""; 0]);
    }

    #[test]
    fn more_and_fewer_are_both_differences_and_each_is_named() {
        let before = snapshot(&[("frames", 10), ("areas", 2), ("tables", 7)]);
        let after = snapshot(&[("frames", 12), ("areas", 2), ("tables", 6)]);
        assert_eq!(
            differences(&before, &after),
            ["frames: 10 before, 12 after, 2 more", "tables: 7 before, 6 after, 1 fewer"]
        );
    }

    #[test]
    fn a_counter_that_appears_or_vanishes_is_a_difference_even_at_zero() {
        let differences = differences(&snapshot(&[("old", 0)]), &snapshot(&[("new", 0)]));
        assert_eq!(
            differences,
            ["old: 0 before, not counted after", "new: not counted before, 0 after"]
        );
    }

    /// Every place of kerncore's ledger is either recorded under its own name or capacity.
    #[test]
    fn kerncores_leaks_are_differences_and_its_capacity_is_not() {
        let empty =
            kerncore::ledger::Ledger { frames: [0; FrameOwner::COUNT], counts: [0; Count::COUNT] };
        let places = empty.frames.len() + empty.counts.len();
        for place in 0..places {
            let mut other = empty;
            match other.frames.get_mut(place) {
                Some(frames) => *frames = 3,
                None => other.counts[place - empty.frames.len()] = 3,
            }
            let wanted: Vec<String> = empty
                .leaks(&other)
                .map(|leak| format!("{}: 0 before, 3 after, 3 more", leak.item))
                .collect();
            assert_eq!(differences(&(&empty).into(), &(&other).into()), wanted);
        }
    }

    #[test]
    #[should_panic(expected = "two counters are named frames")]
    fn a_second_counter_of_a_name_is_refused() {
        snapshot(&[("frames", 1), ("frames", 1)]);
    }

    #[test]
    #[should_panic(expected = "no room for the counter")]
    fn a_counter_too_many_is_refused_and_not_dropped() {
        let names: Vec<&'static str> = (0..=MAX_COUNTERS).map(|i| &*i.to_string().leak()).collect();
        let mut snapshot = Snapshot::new();
        for name in names {
            snapshot.record(name, 0);
        }
    }
}
