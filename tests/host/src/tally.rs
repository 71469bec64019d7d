//! What passed, what failed, and how to see a failure again.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::context::Context;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what its name says.
    Passed,
    /// It did not, for this reason.
    Failed(String),
    /// It could not run where it was, for this reason.
    Skipped(String),
}

/// The outcome of one test.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What it is called, and what a filter finds it by.
    pub(crate) name: String,
    /// The machine it ran on, where that matters: its words come before the name.
    pub(crate) machine: Option<String>,
    /// Its memory in MiB, where that matters: it is what `MEM=` wants.
    pub(crate) memory: Option<u32>,
    /// Whether it judges a whole run: then no filter finds it, and the same filter repeats it.
    pub(crate) of_a_run: bool,
    /// How long it took, where it was timed alone.
    pub(crate) time: Option<Duration>,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

impl Verdict {
    /// A test that ended so.
    pub(crate) fn new(name: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            name: name.into(),
            machine: None,
            memory: None,
            of_a_run: false,
            time: None,
            outcome,
        }
    }

    /// A test that did what its name says.
    pub(crate) fn passed(name: impl Into<String>) -> Self {
        Self::new(name, Outcome::Passed)
    }

    /// A test that did not.
    pub(crate) fn failed(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(name, Outcome::Failed(why.into()))
    }

    /// The verdict on a whole run that `result` is.
    pub(crate) fn of_a_run(name: impl Into<String>, result: Result<(), String>) -> Self {
        Self { of_a_run: true, ..Self::of(name, result) }
    }

    /// The verdict that `result` is.
    pub(crate) fn of(name: impl Into<String>, result: Result<(), String>) -> Self {
        Self::new(name, result.map_or_else(Outcome::Failed, |()| Outcome::Passed))
    }

    /// Whether it failed.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

/// All verdicts of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failures: Vec<Verdict>,
    skipped: usize,
    /// Tests that ran to their end somewhere.
    ran: HashSet<String>,
    /// The tests that did not somewhere, with a reason.
    reasons: BTreeMap<String, String>,
}

impl Tally {
    /// Counts one verdict.
    pub(crate) fn add(&mut self, verdict: Verdict) {
        match verdict.outcome {
            Outcome::Failed(_) => self.failures.push(verdict),
            Outcome::Passed => {
                self.passed += 1;
                // That a report is whole proves nothing by itself.
                if !verdict.of_a_run {
                    self.ran.insert(verdict.name);
                }
            }
            Outcome::Skipped(reason) => {
                self.skipped += 1;
                self.reasons.insert(verdict.name, reason);
            }
        }
    }

    /// Counts some verdicts.
    pub(crate) fn add_all(&mut self, verdicts: impl IntoIterator<Item = Verdict>) {
        verdicts.into_iter().for_each(|verdict| self.add(verdict));
    }

    /// Whether something ran, and nothing failed: a filter that finds nothing proves nothing.
    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty() && !self.ran.is_empty()
    }

    /// The tests that were skipped wherever they were tried, which have proved nothing.
    fn never_ran(&self) -> impl Iterator<Item = (&String, &String)> {
        self.reasons.iter().filter(|(name, _)| !self.ran.contains(*name))
    }

    /// Prints the failures, each with the command that repeats it, and the counts as the last line.
    pub(crate) fn print(&self, context: &Context) {
        for verdict in &self.failures {
            print!("{}", explain(verdict, context.seed, context.filter.as_deref()));
        }
        for (name, reason) in self.never_ran() {
            println!("ran nowhere: {name}: {reason}");
        }
        if self.skipped > 0 {
            println!("{} skipped", self.skipped);
        }
        if self.ran.is_empty() && self.failures.is_empty() {
            println!(
                "error: no test ran; the filter is {:?}",
                context.filter.as_deref().unwrap_or("")
            );
        }
        println!("{} passed, {} failed", self.passed, self.failures.len());
    }
}

/// A failure as the user reads it.
fn explain(verdict: &Verdict, seed: u32, filter: Option<&str>) -> String {
    use std::fmt::Write as _;

    let Verdict { name, machine, outcome, .. } = verdict;
    let mut text = String::from("FAILED ");
    if let Some(machine) = machine {
        let _ = write!(text, "[{machine}] ");
    }
    let _ = writeln!(text, "{name}");
    if let Outcome::Failed(why) = outcome {
        for line in why.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    let _ = writeln!(text, "  {}", again(verdict, seed, filter));
    text + "\n"
}

/// The command that repeats a test.
pub(crate) fn again(verdict: &Verdict, seed: u32, filter: Option<&str>) -> String {
    use std::fmt::Write as _;

    let Verdict { name, memory, of_a_run, .. } = verdict;
    let mut text = format!("again: make test SEED={seed}");
    if let Some(filter) = if *of_a_run { filter } else { Some(name.as_str()) } {
        let _ = write!(text, " FILTER={filter}");
    }
    if let Some(memory) = memory {
        let _ = write!(text, " MEM={memory}M");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_good_when_something_passed_and_nothing_failed() {
        let mut tally = Tally::default();
        assert!(!tally.is_good());
        tally.add(Verdict::of_a_run("a::report", Ok(())));
        assert!(!tally.is_good(), "a whole report of nothing");
        tally.add(Verdict::passed("a::b"));
        assert!(tally.is_good());
        tally.add(Verdict::failed("a::c", "why"));
        assert!(!tally.is_good());
        assert_eq!((tally.passed, tally.failures.len()), (2, 1));
    }

    #[test]
    fn a_skipped_test_counts_as_neither_and_is_named_when_it_ran_nowhere() {
        let mut tally = Tally::default();
        for name in ["a::b", "a::c"] {
            tally.add(Verdict::new(name, Outcome::Skipped("one CPU".into())));
        }
        assert!(!tally.is_good());
        tally.add(Verdict::passed("a::b"));
        assert!(tally.is_good());
        assert_eq!((tally.passed, tally.skipped), (1, 2));
        assert_eq!(tally.never_ran().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a::c"]);
    }

    #[test]
    fn a_failure_says_what_where_why_and_how_to_see_it_again() {
        let verdict = Verdict {
            machine: Some("512M legacy".into()),
            memory: Some(512),
            ..Verdict::failed("mm::unmaps", "left == right\n# twice")
        };
        let text = "FAILED [512M legacy] mm::unmaps\n    left == right\n    # twice\n  \
                    again: make test SEED=7 FILTER=mm::unmaps MEM=512M\n\n";
        assert_eq!(explain(&verdict, 7, Some("mm")), text);
    }

    #[test]
    fn what_judges_a_whole_run_is_repeated_by_the_filter_of_that_run() {
        let verdict = Verdict::of_a_run("kernel::report", Err("cut".into()));
        let command = "FAILED kernel::report\n    cut\n  again: make test SEED=7";
        assert_eq!(explain(&verdict, 7, None), format!("{command}\n\n"));
        assert_eq!(explain(&verdict, 7, Some("mm")), format!("{command} FILTER=mm\n\n"));
    }
}
