//! The ledger around every test: what must be back where it was, and what must hold at all times.
//!
//! `ktest` knows no allocator and no page table. Whoever owns some implements [`Ledger`] for them, and the test image
//! hands the ledgers to the runner.
//!
//! ```text
//! settle → snapshot → the test → settle → snapshot, compared with the first → audit
//! ```

use core::fmt;

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

    /// Walks the live structures, and hands `violation` one line for each rule that is broken. What it finds here
    /// makes the kernel unsound: the runner ends the boot, since no later test would mean anything.
    fn audit(&self, violation: &mut dyn FnMut(fmt::Arguments<'_>));
}

/// Named counters at one moment. They lie in the value itself, for what is counted may be the heap.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    counters: [(&'static str, u64); MAX_COUNTERS],
    len: usize,
}

impl Snapshot {
    /// Without any counters yet.
    pub const fn new() -> Self {
        Self { counters: [("", 0); MAX_COUNTERS], len: 0 }
    }

    /// Adds a counter. The name says what and in which unit: `frames allocated`, `pool bytes in use`.
    ///
    /// # Panics
    ///
    /// If there is one of this name, or if there are [`MAX_COUNTERS`]: either would hide a leak.
    pub fn record(&mut self, name: &'static str, value: u64) {
        assert!(self.get(name).is_none(), "two counters are named {name}");
        assert!(
            self.len < MAX_COUNTERS,
            "no room for the counter {name}: a snapshot has {MAX_COUNTERS}"
        );
        self.counters[self.len] = (name, value);
        self.len += 1;
    }

    /// The counter of this name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter().find_map(|(counter, value)| (counter == name).then_some(value))
    }

    /// All counters in the order in which they were recorded.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counters[..self.len].iter().copied()
    }

    /// Hands `found` every counter in which `later` differs, including those that only one of the two has.
    pub fn compare(&self, later: &Self, found: &mut dyn FnMut(Difference)) {
        for (name, before) in self.iter() {
            let after = later.get(name);
            if after != Some(before) {
                found(Difference { name, before: Some(before), after });
            }
        }
        for (name, after) in later.iter() {
            if self.get(name).is_none() {
                found(Difference { name, before: None, after: Some(after) });
            }
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

/// A counter that is not where it was. `None`: there was no such counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The counter's name.
    pub name: &'static str,
    /// Its value before the test.
    pub before: Option<u64>,
    /// Its value after the test.
    pub after: Option<u64>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
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
