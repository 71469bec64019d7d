//! The report of the test image, read as a suspicious reader reads.
//!
//! ```text
//! # a diagnostic line: what the kernel logs while it comes up
//! KTAP version 1
//! # seed 12345 memory 536870912
//! 1..3
//! ok 1 suite::name
//! not ok 2 suite::other # message
//! # a diagnostic line belongs to the result before it
//! ok 3 suite::third # SKIP reason
//! # 1 passed, 1 failed, 1 skipped
//! ```
//!
//! An image that was told to start at a later test (`from=`) reports from that number on, under the same plan. An image
//! that a test kills stops in the middle, and whatever it still says belongs to that test. Everything else is a
//! [`Fault`]: a report that is short, long, out of order, of another run, or mixed with other text proves nothing.

use std::collections::HashSet;
use std::fmt;

use crate::tally::Outcome;

/// What the image was asked for, and what its report must therefore say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The seed of the order.
    pub(crate) seed: u64,
    /// RAM in bytes.
    pub(crate) memory: u64,
    /// The number of the first test to be run.
    pub(crate) from: usize,
}

/// One `ok` or `not ok`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number in the shuffled order, from 1.
    pub(crate) number: usize,
    /// `suite::name`.
    pub(crate) name: String,
    /// What it says of the test; a failure's message has the diagnostics below it.
    pub(crate) outcome: Outcome,
}

/// A breach of the format, or of what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The first line that is no diagnostic is another.
    NoVersion,
    /// The line after it is another.
    NoSeed,
    /// And the line after that is no plan.
    NoPlan,
    /// It ran by another seed.
    WrongSeed {
        /// What was asked.
        wanted: u64,
        /// What it says.
        had: u64,
    },
    /// It found another amount of RAM than the machine has.
    WrongMemory {
        /// The machine's, in bytes.
        wanted: u64,
        /// The image's.
        had: u64,
    },
    /// A result has not the number that is next.
    OutOfOrder {
        /// The number that is next.
        wanted: usize,
        /// The number of the result.
        had: usize,
    },
    /// A result has a number beyond the plan.
    BeyondPlan(usize),
    /// A second result of the same test.
    Twice(String),
    /// The image gave the whole run up.
    BailedOut(String),
    /// Text that is no KTAP.
    Garbage(String),
    /// The last line has no end.
    CutOff(String),
}

impl Fault {
    /// Whether a test that kills the image may leave this behind.
    pub(crate) fn is_last_words(&self) -> bool {
        matches!(self, Self::Garbage(_) | Self::CutOff(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVersion => write!(formatter, "no `KTAP version 1` at the head of the report"),
            Self::NoSeed => write!(formatter, "no `# seed N memory N` after that"),
            Self::NoPlan => write!(formatter, "no plan `1..N` after the seed"),
            Self::WrongSeed { wanted, had } => {
                write!(formatter, "it ran by seed {had}, and {wanted} was asked")
            }
            Self::WrongMemory { wanted, had } => {
                write!(formatter, "it found {had} bytes of RAM, and the machine has {wanted}")
            }
            Self::OutOfOrder { wanted, had } => {
                write!(formatter, "result number {had} stands where {wanted} should")
            }
            Self::BeyondPlan(number) => write!(formatter, "result number {number} is not planned"),
            Self::Twice(name) => write!(formatter, "{name} has two results"),
            Self::BailedOut(why) => write!(formatter, "the image gave up: {why}"),
            Self::Garbage(line) => write!(formatter, "this line is no KTAP: {line}"),
            Self::CutOff(line) => write!(formatter, "the output ends within the line: {line}"),
        }
    }
}

/// A report as read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How many tests the whole run has; `None` when the plan is missing.
    pub(crate) planned: Option<usize>,
    /// The results, in their order.
    pub(crate) lines: Vec<Line>,
    /// All that is wrong with it.
    pub(crate) faults: Vec<Fault>,
    /// The last line.
    last: Option<String>,
}

impl Report {
    /// Reads `text`, which answers to `asked`.
    pub(crate) fn parse(text: &str, asked: Asked) -> Self {
        let mut report = Self::default();
        let mut lines: Vec<&str> =
            text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
        match lines.pop() {
            Some("") | None => {}
            Some(unfinished) => report.faults.push(Fault::CutOff(unfinished.into())),
        }
        let mut lines = lines.into_iter().skip_while(|line| is_diagnostic(line)).peekable();

        if lines.next_if_eq(&"KTAP version 1").is_none() {
            report.faults.push(Fault::NoVersion);
        }
        match lines.peek().and_then(|line| seed_and_memory(line)) {
            None => report.faults.push(Fault::NoSeed),
            Some((seed, memory)) => {
                lines.next();
                if seed != asked.seed {
                    report.faults.push(Fault::WrongSeed { wanted: asked.seed, had: seed });
                }
                if memory != asked.memory {
                    report.faults.push(Fault::WrongMemory { wanted: asked.memory, had: memory });
                }
            }
        }
        report.planned = lines.peek().and_then(|line| plan(line));
        if report.planned.is_some() {
            lines.next();
        } else {
            report.faults.push(Fault::NoPlan);
        }
        report.read_results(lines, asked.from);
        report.last = text.lines().next_back().map(str::to_owned);
        report
    }

    fn read_results<'a>(&mut self, lines: impl Iterator<Item = &'a str>, from: usize) {
        let mut names = HashSet::new();
        let mut next = from;
        for text in lines {
            if let Some(line) = result(text) {
                if line.number != next {
                    self.faults.push(Fault::OutOfOrder { wanted: next, had: line.number });
                }
                if self.planned.is_some_and(|planned| line.number > planned) {
                    self.faults.push(Fault::BeyondPlan(line.number));
                }
                if !names.insert(line.name.clone()) {
                    self.faults.push(Fault::Twice(line.name.clone()));
                }
                next = line.number.saturating_add(1);
                self.lines.push(line);
            } else if is_diagnostic(text) {
                if let Some(Line { outcome: Outcome::Failed(message), .. }) = self.lines.last_mut()
                {
                    message.push('\n');
                    message.push_str(text);
                }
            } else if let Some(why) = text.strip_prefix("Bail out! ") {
                self.faults.push(Fault::BailedOut(why.into()));
            } else {
                self.faults.push(Fault::Garbage(text.into()));
            }
        }
    }

    /// Whether the image has counted as many results as were read, after the last of them: what a test has forged, or an
    /// image that ended in the midst of a test, has no such end.
    pub(crate) fn expect_counts(&self) -> Result<(), String> {
        let count =
            |is: fn(&Outcome) -> bool| self.lines.iter().filter(|line| is(&line.outcome)).count();
        let wanted = counts(
            count(|outcome| *outcome == Outcome::Passed),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        );
        match self.last.as_deref() {
            Some(last) if last == wanted => Ok(()),
            last => Err(format!("the report does not end with `{wanted}` but with {last:?}")),
        }
    }

    /// Whether every planned test from `from` on has its result.
    pub(crate) fn is_complete(&self, from: usize) -> bool {
        self.planned.is_some_and(|planned| self.lines.len() == planned.saturating_sub(from - 1))
    }
}

/// The last line of a whole report.
fn counts(passed: usize, failed: usize, skipped: usize) -> String {
    format!("# {passed} passed, {failed} failed, {skipped} skipped")
}

/// `# seed N memory N`.
fn seed_and_memory(line: &str) -> Option<(u64, u64)> {
    let (seed, memory) = line.strip_prefix("# seed ")?.split_once(" memory ")?;
    Some((decimal(seed)?, decimal(memory)?))
}

/// `1..N`.
fn plan(line: &str) -> Option<usize> {
    decimal(line.strip_prefix("1..")?)
}

/// `ok K NAME`, `ok K NAME # SKIP REASON`, or `not ok K NAME # MESSAGE`.
fn result(line: &str) -> Option<Line> {
    let (rest, failed) = match line.strip_prefix("not ok ") {
        Some(rest) => (rest, true),
        None => (line.strip_prefix("ok ")?, false),
    };
    let (number, rest) = rest.split_once(' ')?;
    let (name, comment) = match rest.split_once(" # ") {
        Some((name, comment)) => (name, Some(comment)),
        None => (rest, None),
    };
    if !name.contains("::") || name.contains(char::is_whitespace) {
        return None;
    }
    let outcome = match (failed, comment) {
        (true, comment) => Outcome::Failed(comment.unwrap_or("no message").into()),
        (false, None) => Outcome::Passed,
        (false, Some(comment)) => Outcome::Skipped(comment.strip_prefix("SKIP ")?.into()),
    };
    Some(Line { number: decimal(number)?, name: name.into(), outcome })
}

/// Digits and nothing else; `str::parse` would take a sign as well.
fn decimal<T: std::str::FromStr>(digits: &str) -> Option<T> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// `# text`, or a bare `#`.
fn is_diagnostic(line: &str) -> bool {
    line == "#" || line.starts_with("# ")
}

#[cfg(test)]
mod tests;
