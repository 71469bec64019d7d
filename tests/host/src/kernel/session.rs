//! All tests on one machine, in as many boots as they need.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::context::Context;
use crate::devices::Devices;
use crate::ktap::{Asked, Line, Report};
use crate::qemu::{self, Console, DEFAULT_DISK, Ended, Equipment, Machine, Start};
use crate::tally::{Outcome, Verdict};
use crate::witness::{self, Heard, Stand, Witnessed};

/// The name under which a report itself is judged, beside the tests in it.
const REPORT: &str = "kernel::report";
/// The name under which it is judged whether every kind of mapping was witnessed.
const WITNESSES: &str = "kernel::witnesses";
/// The exit status of a run that had to be stopped.
const TIMED_OUT: i32 = 124;
/// The exit statuses of an image that a test killed: by a panic, by an exception.
const KILLED: [i32; 2] = [101, 102];
/// Why a test skips itself on a machine with one CPU.
const ALONE: &str = "there is one CPU only";
/// How many tests may hang before the rest is given up: each costs a whole timeout.
const PATIENCE: usize = 2;

/// What one machine has shown so far.
pub(crate) struct Session {
    machine: Machine,
    start: Start,
    seed: u64,
    filter: Option<String>,
    /// Further words of the kernel's command line.
    parameters: Vec<String>,
    /// RAM that the kernel is to find, in MiB.
    found: u32,
    /// The tests that must have a result in the end.
    wanted: BTreeSet<String>,
    results: BTreeMap<String, Outcome>,
    /// How boots ended in which a test died without a word. Which test it was shows in the end: it has no result.
    deaths: Vec<String>,
    hung: usize,
    faults: Vec<String>,
    /// Where sockets may be made.
    scratch: PathBuf,
    /// Whether somebody answers what the kernel asks of its mappings.
    watched: bool,
    /// Whether it runs all tests, so that every kind of mapping must be witnessed.
    complete: bool,
    witnessed: Witnessed,
}

impl Session {
    /// A session that is to show a result for each of `wanted`.
    pub(crate) fn new(machine: Machine, context: &Context, wanted: Vec<String>) -> Self {
        Self {
            start: context.start(),
            parameters: vec![],
            found: machine.memory,
            machine,
            seed: context.seed.into(),
            filter: context.filter.clone(),
            wanted: wanted.into_iter().collect(),
            results: BTreeMap::new(),
            deaths: vec![],
            hung: 0,
            faults: vec![],
            scratch: context.scratch.clone(),
            watched: true,
            complete: context.filter.is_none() && context.image.is_none(),
            witnessed: Witnessed::default(),
        }
    }

    /// The same, with `parameters` on the kernel's command line, which let it find `found` MiB of RAM, for the tests
    /// whose names contain `filter`.
    pub(crate) fn with(self, parameters: &str, filter: &str, found: u32) -> Self {
        let parameters = parameters.split_ascii_whitespace().map(str::to_owned).collect();
        Self { parameters, filter: Some(filter.to_owned()), found, complete: false, ..self }
    }

    /// The same, of an image that is started otherwise.
    pub(crate) fn started(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// The same, with nobody to answer: the kernel has only its own witnesses then.
    #[cfg(test)]
    pub(crate) fn unwatched(self) -> Self {
        Self { watched: false, ..self }
    }

    /// Boots until every test has had its turn.
    pub(crate) fn run(mut self, context: &Context) -> Vec<Verdict> {
        let mut next = Some(1);
        while let Some(from) = next {
            next = match self.boot(from) {
                Ok((ended, heard)) => {
                    let next = self.read(from, &ended);
                    self.hear(heard);
                    next
                }
                Err(message) => {
                    self.faults.push(message);
                    None
                }
            };
        }
        context.add_witnessed(&self.witnessed);
        self.verdicts()
    }

    /// Boots once, and answers what the kernel asks meanwhile.
    fn boot(&self, from: usize) -> Result<(Ended, Heard), String> {
        let disk = Path::new(DEFAULT_DISK);
        if !self.watched {
            let words = self.words(from);
            let booted = qemu::boot(self.machine, Console::Test, &self.start, disk, &words);
            return booted.map(|ended| (ended, Heard::default()));
        }
        let stand = Stand::open(&self.scratch, u64::from(self.found) << 20)?;
        let mut start = self.start.clone();
        start.options.extend(stand.options());
        let devices = match start.equipment {
            Equipment::Disk => None,
            Equipment::Everything => Some(Devices::open(&self.scratch)?),
        };
        start.options.extend(devices.iter().flat_map(Devices::options));
        let (words, over) = (self.words(from), AtomicBool::new(false));
        let (booted, mut heard) = thread::scope(|scope| {
            let listener = scope.spawn(|| stand.serve(&over));
            let peer = scope.spawn(|| devices.as_ref().map(|devices| devices.serve(&over)));
            let booted = qemu::boot(self.machine, Console::Test, &start, disk, &words);
            over.store(true, Relaxed);
            let heard = listener.join().map_err(|_| "who listens to the kernel has panicked");
            let faults = peer.join().map_err(|_| "the peer on the network has panicked");
            let mut heard = heard?;
            heard.faults.extend(faults?.into_iter().flatten());
            Ok::<_, String>((booted, heard))
        })?;
        let report = booted.as_ref().map_or("", |ended| &ended.output);
        heard.faults.extend(devices.into_iter().flat_map(|devices| devices.close(report)));
        Ok((booted?, heard))
    }

    /// Takes in what the witnesses of a boot said, after its results.
    fn hear(&mut self, heard: Heard) {
        self.witnessed.add_all(&heard.witnessed);
        self.faults.extend(heard.faults);
        if self.watched && heard.requests == 0 && !self.results.is_empty() {
            self.faults.push("the kernel asked no witness".into());
        }
        for (test, why) in heard.disagreements {
            if !matches!(self.results.get(&test), Some(Outcome::Failed(_))) {
                self.faults.push(format!("{test} did not fail, and its witnesses disagree: {why}"));
            }
        }
    }

    fn words(&self, from: usize) -> Vec<String> {
        let mut words = vec![format!("seed={}", self.seed)];
        words.extend(self.filter.as_ref().map(|filter| format!("test={filter}")));
        words.extend((from > 1).then(|| format!("from={from}")));
        words.extend_from_slice(&self.parameters);
        words.extend(self.watched.then(|| witness::PARAMETER.to_owned()));
        words
    }

    /// Takes in a boot that was to begin with test number `from`, and says where the next one has to.
    fn read(&mut self, from: usize, ended: &Ended) -> Option<usize> {
        let memory = u64::from(self.found) << 20;
        let report = Report::parse(&ended.output, Asked { seed: self.seed, memory, from });
        let is_failure = |line: &Line| matches!(line.outcome, Outcome::Failed(_));
        let last = report.lines.last().map(|line| (line.number, is_failure(line)));
        let failed = report.lines.iter().any(is_failure);
        let complete = report.is_complete(from);
        let counts = report.expect_counts();
        let killed = KILLED.contains(&ended.status) || ended.status == TIMED_OUT;
        let faults = report.faults.iter().filter(|fault| !(killed && fault.is_last_words()));
        self.faults.extend(faults.map(ToString::to_string));
        for line in report.lines {
            if self.results.insert(line.name.clone(), line.outcome).is_some() {
                self.faults.push(format!("{} has a result in two boots", line.name));
            }
        }
        if !killed || complete && last.is_none_or(|(_, failed)| !failed) {
            // It ended by itself (or died when all was over, which no test explains).
            if complete {
                self.faults.extend(ended.expect_status(i32::from(failed)).err());
                self.faults.extend(counts.err());
            } else {
                let planned = report.planned.map_or("?".into(), |planned| planned.to_string());
                let number = last.map_or(from, |(number, _)| number + 1);
                let ended_it = format!("it ended the image with status {}", ended.status);
                self.deaths.push(format!("test number {number}: {ended_it}"));
                self.faults.push(format!(
                    "the report ends with status {} after {} of {planned} tests:\n{}",
                    ended.status,
                    last.map_or(from - 1, |(number, _)| number),
                    ended.tail(),
                ));
            }
            return None;
        }
        let dead = match last {
            // A failed assertion: the image said so itself, as its last result, and ended.
            Some((number, true)) if ended.status != TIMED_OUT => number,
            _ => self.blame_the_next(last.map_or(from, |(number, _)| number + 1), ended)?,
        };
        (dead < report.planned?).then_some(dead + 1)
    }

    /// Notes that test number `number` ended the image without a result; `None` when the session is to end with that.
    fn blame_the_next(&mut self, number: usize, ended: &Ended) -> Option<usize> {
        let how = if ended.status == TIMED_OUT { "hung" } else { "died" };
        let death = format!("it {how} (status {}):\n{}", ended.status, ended.tail());
        self.deaths.push(format!("test number {number}: {death}"));
        self.hung += usize::from(ended.status == TIMED_OUT);
        if self.hung >= PATIENCE {
            self.faults.push(format!("given up after {PATIENCE} tests that hung"));
            return None;
        }
        Some(number)
    }

    /// One verdict a test, and one on the reports themselves.
    fn verdicts(mut self) -> Vec<Verdict> {
        let deaths = self.deaths.join("\n");
        let mut verdicts = Vec::new();
        let cpus = self.machine.cpus;
        for name in &self.wanted {
            verdicts.push(match self.results.remove(name) {
                // The kernel has lost CPUs on its way up.
                Some(Outcome::Skipped(why)) if cpus > 1 && why == ALONE => {
                    Verdict::failed(name, format!("{why}, says the kernel, and there are {cpus}"))
                }
                Some(outcome) => Verdict::new(name, outcome),
                None => Verdict::failed(name, format!("no result\n{deaths}")),
            });
        }
        // What is wrong with the report of a single test can only be that test's doing.
        if let ([verdict], false) = (verdicts.as_mut_slice(), self.faults.is_empty())
            && !verdict.is_failure()
        {
            verdict.outcome = Outcome::Failed(self.faults.join("\n"));
        }
        if self.complete && self.watched {
            let suite = |name| str::rsplit_once(name, "::").map_or(name, |(suite, _)| suite);
            let suites = self.wanted.iter().map(|name| suite(name.as_str())).collect();
            let missing = self.witnessed.missing(&suites, u64::from(self.found) << 20).join(", ");
            let never = || Err(format!("never witnessed: {missing}"));
            let shown = if missing.is_empty() { Ok(()) } else { never() };
            verdicts.push(Verdict::of_a_run(WITNESSES, shown));
        }
        for name in self.results.keys() {
            self.faults.push(format!("{name} has a result and was not listed"));
        }
        let report = if self.faults.is_empty() { Ok(()) } else { Err(self.faults.join("\n")) };
        verdicts.push(Verdict::of_a_run(REPORT, report));
        verdicts
    }
}

#[cfg(test)]
mod tests;
