//! The runner: draws the order, runs the tests one after the other, and examines the ledgers after each.

use crate::death::Current;
use crate::ledger::{Ledger, Snapshot};
use crate::options::{Mode, Options};
use crate::order::{MAX_TESTS, Order, OrderError};
use crate::tap::{OneLine, Tap};
use crate::test::{Kind, Outcome, Test};
use core::fmt::{Arguments, Write};

/// How a boot went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Summary {
    /// How many tests the boot's plan has, those before `from=` included.
    pub planned: usize,
    /// Tests that ran and held.
    pub passed: usize,
    /// Tests that returned an error, leaked, or broke the audit. (One that panics ends the boot.)
    pub failed: usize,
    /// Tests that said they could not run here.
    pub skipped: usize,
    /// Why the boot ends.
    pub end: End,
}

/// Why a boot ends, other than by the death of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All was run or listed that was asked for.
    Complete,
    /// Nothing was selected, or nothing can be; the report says why.
    Unable,
    /// The audit found the kernel unsound after the test of this number: the tests after it have not been run.
    Unsound(usize),
    /// A line of the report was lost.
    OutputLost,
}

impl Summary {
    const fn empty(end: End) -> Self {
        Self { planned: 0, passed: 0, failed: 0, skipped: 0, end }
    }

    /// The code to leave the emulator with: 0 all well, 1 tests failed or nothing could be run, 101 the boot ends
    /// early and the host may go on after the last test reported, as after a panic.
    pub const fn exit_code(&self) -> i32 {
        match self.end {
            End::Unsound(_) => 101,
            End::Unable | End::OutputLost => 1,
            End::Complete if self.failed > 0 => 1,
            End::Complete => 0,
        }
    }
}

/// Does what `options` ask for with these tests, and writes the report to `out`.
pub(crate) fn run<const LEDGERS: usize>(
    tests: &[Test],
    current: &Current,
    options: &Options<'_>,
    out: &mut dyn Write,
    ledgers: [&dyn Ledger; LEDGERS],
) -> Summary {
    let mut tap = Tap::new(out);
    let order = Order::sorted(tests, |test| match options.mode {
        Mode::Run => test.kind() == Kind::Normal && options.filter.accepts(test.full_name()),
        Mode::Fatal(name) => test.kind() != Kind::Normal && test.full_name() == name,
        Mode::List => options.filter.accepts(test.full_name()),
    });
    let order = match order {
        Ok(order) => order,
        Err(OrderError::TooMany(count)) => {
            tap.bail_out(&format_args!("{count} tests, and the runner has room for {MAX_TESTS}"));
            return Summary::empty(End::Unable);
        }
        Err(OrderError::Duplicate(name)) => {
            tap.bail_out(&format_args!("two tests are named {name}"));
            return Summary::empty(End::Unable);
        }
    };
    if options.mode == Mode::List {
        list(tests, &order, &mut tap);
        return Summary::empty(if tap.is_broken() { End::OutputLost } else { End::Complete });
    }
    let mut run = Run { tests, current, tap, ledgers, summary: Summary::empty(End::Complete) };
    run.head(options, order.len());
    if order.len() == 0 {
        run.tap.diagnostic(&"no test is selected");
        run.summary.end = End::Unable;
        return run.summary;
    }
    if options.from > order.len() {
        let (from, last) = (options.from, order.len());
        run.tap.bail_out(&format_args!("from={from}, and the last test is number {last}"));
        run.summary.end = End::Unable;
        return run.summary;
    }
    match options.mode {
        Mode::Fatal(_) => run.fatal(&order),
        Mode::Run | Mode::List => run.all(&order.shuffled(options.seed), options.from),
    }
    if run.tap.is_broken() {
        run.summary.end = End::OutputLost;
    }
    run.summary
}

fn list(tests: &[Test], order: &Order, tap: &mut Tap<'_>) {
    for test in order.places().map(|place| &tests[place]) {
        let name = test.full_name();
        match test.kind() {
            Kind::Normal => tap.line(format_args!("test {name}")),
            Kind::Fatal { message } => tap.line(format_args!("fatal {name} {}", OneLine(&message))),
        }
    }
}

/// How a test that returned stands, before its ledgers are looked at.
enum Returned {
    /// It said nothing, or that all holds.
    Well,
    /// It skipped itself.
    Skipped(&'static str),
    /// It failed, and the report says so already.
    Failed,
}

struct Run<'r, const LEDGERS: usize> {
    tests: &'r [Test],
    current: &'r Current,
    tap: Tap<'r>,
    ledgers: [&'r dyn Ledger; LEDGERS],
    summary: Summary,
}

impl<const LEDGERS: usize> Run<'_, LEDGERS> {
    fn head(&mut self, options: &Options<'_>, planned: usize) {
        self.summary.planned = planned;
        self.tap.line(format_args!("KTAP version 1"));
        self.tap.line(format_args!("# seed {} memory {}", options.seed, options.memory));
        self.tap.line(format_args!("1..{planned}"));
    }

    fn all(&mut self, order: &Order, from: usize) {
        self.settle();
        let mut sound = true;
        self.audit(&mut |tap, violation| {
            if core::mem::take(&mut sound) {
                tap.bail_out(&"the audit fails before the first test");
            }
            tap.diagnostic(&violation);
        });
        if !sound {
            self.summary.end = End::Unable;
            return;
        }
        // What a test finds is what the last one left: between the two nothing is taken or given back.
        let mut counters = self.ledgers.map(Ledger::snapshot);
        for (place, number) in order.places().zip(1..).skip(from.saturating_sub(1)) {
            if !self.one(place, number, &mut counters) {
                self.tap.diagnostic(&"the kernel is no longer sound: this boot ends here");
                self.summary.end = End::Unsound(number);
                break;
            }
        }
        let Summary { passed, failed, skipped, .. } = self.summary;
        self.tap.diagnostic(&format_args!("{passed} passed, {failed} failed, {skipped} skipped"));
    }

    /// Runs one test, which begins with the counters as they are in `counters`, reports it, and leaves there what they are
    /// then. Says whether the kernel is still sound.
    fn one(&mut self, place: usize, number: usize, counters: &mut [Snapshot; LEDGERS]) -> bool {
        let test = &self.tests[place];
        let name = test.full_name();
        self.current.begin(place, number);
        let returned = self.returned(test, number);
        self.current.returned();
        self.settle();

        let mut failed = matches!(returned, Returned::Failed);
        // The first finding is the result's message; all are diagnostics below it.
        let mut find = |tap: &mut Tap<'_>, finding: Arguments<'_>| {
            if !core::mem::replace(&mut failed, true) {
                tap.not_ok(number, name, &finding);
            }
            tap.diagnostic(&finding);
        };
        for (ledger, before) in self.ledgers.iter().zip(counters) {
            let after = ledger.snapshot();
            before.compare(&after, &mut |difference| {
                find(&mut self.tap, format_args!("{}: {difference}", ledger.name()));
            });
            *before = after;
        }
        let mut sound = true;
        self.audit(&mut |tap, violation| {
            sound = false;
            find(tap, violation);
        });
        self.current.end();

        match returned {
            _ if failed => self.summary.failed += 1,
            Returned::Skipped(reason) => {
                self.tap.skip(number, name, reason);
                self.summary.skipped += 1;
            }
            Returned::Well | Returned::Failed => {
                self.tap.ok(number, name);
                self.summary.passed += 1;
            }
        }
        sound
    }

    fn returned(&mut self, test: &Test, number: usize) -> Returned {
        let mut returned = Returned::Well;
        self.ledgers.iter().for_each(|ledger| ledger.test_begins());
        test.run(&mut |outcome| {
            returned = match outcome {
                Outcome::Passed => Returned::Well,
                Outcome::Skipped(reason) => Returned::Skipped(reason),
                Outcome::Failed(error) => {
                    self.tap.not_ok(
                        number,
                        test.full_name(),
                        &format_args!("returned Err({error:?})"),
                    );
                    Returned::Failed
                }
            }
        });
        returned
    }

    /// Runs the one test that is to end the kernel; comes back only if it does not.
    fn fatal(&mut self, order: &Order) {
        let Some(place) = order.places().next() else { return };
        let test = &self.tests[place];
        self.current.begin(place, 1);
        test.run(&mut |_| ());
        self.current.end();
        if let Kind::Fatal { message } = test.kind() {
            let what = format_args!("returned, but was to end the kernel with: {message}");
            self.tap.not_ok(1, test.full_name(), &what);
        }
        self.summary.failed = 1;
    }

    fn settle(&self) {
        for ledger in self.ledgers {
            ledger.settle();
        }
    }

    fn audit(&mut self, found: &mut dyn FnMut(&mut Tap<'_>, Arguments<'_>)) {
        for ledger in self.ledgers {
            let name = ledger.name();
            ledger.audit(&mut |violation| {
                found(&mut self.tap, format_args!("{name}: audit: {violation}"));
            });
        }
    }
}

#[cfg(test)]
mod tests;
