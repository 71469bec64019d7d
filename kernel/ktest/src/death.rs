//! The end of the kernel while it runs tests: which test it was, and what to print.
//!
//! A failed assertion is a panic, and a panic here ends the image: nothing can be unwound. So the panic handler prints
//! the result of the test that runs, and the host boots the image again after it.

use crate::tap::{OneLine, Tap};
use crate::test::{Kind, Test};
use core::fmt::{self, Display, Write};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// What the end of the kernel means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Death {
    /// The test that ran has failed.
    Failed,
    /// The test that ran was expected to end the kernel so.
    Expected,
    /// No test ran: the runner or a ledger has failed, or the kernel before or after it.
    OutsideTests,
    /// The kernel died once more while it reported its end. What was to be said is said.
    Nested,
}

/// The test that runs. One for the image: tests run one after the other, on the boot CPU.
pub(crate) struct Current {
    /// Its place in the registered slice plus one; zero when none runs.
    place: AtomicUsize,
    /// Its number in the report.
    number: AtomicUsize,
    /// Whether the test has returned and its ledgers are being examined: 1 then, else 0.
    returned: AtomicU32,
    /// How often the kernel has died.
    deaths: AtomicU32,
    /// Whether the line with the result was begun: 1 then, else 0.
    told: AtomicU32,
}

// Relaxed throughout: each word is read by the CPU that wrote it, or by another that dies by itself and only wants a
// name to print. Nothing else is published by them.
impl Current {
    pub(crate) const fn new() -> Self {
        Self {
            place: AtomicUsize::new(0),
            number: AtomicUsize::new(0),
            returned: AtomicU32::new(0),
            deaths: AtomicU32::new(0),
            told: AtomicU32::new(0),
        }
    }

    pub(crate) fn begin(&self, place: usize, number: usize) {
        self.number.store(number, Ordering::Relaxed);
        self.returned.store(0, Ordering::Relaxed);
        self.place.store(place + 1, Ordering::Relaxed);
    }

    pub(crate) fn returned(&self) {
        self.returned.store(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.place.store(0, Ordering::Relaxed);
    }

    /// The test that runs, or whose ledgers are being examined.
    pub(crate) fn test<'t>(&self, tests: &'t [Test]) -> Option<&'t Test> {
        self.place.load(Ordering::Relaxed).checked_sub(1).and_then(|place| tests.get(place))
    }

    /// Prints the result of the test that runs, which has died with `message` at `location`.
    pub(crate) fn report(
        &self,
        tests: &[Test],
        message: &dyn Display,
        location: Option<&dyn Display>,
        out: &mut dyn Write,
    ) -> Death {
        let deaths = self.deaths.fetch_add(1, Ordering::Relaxed);
        let number = self.number.load(Ordering::Relaxed);
        let returned = self.returned.load(Ordering::Relaxed) == 1;
        let test = self.test(tests);
        let mut tap = Tap::new(out);
        if deaths > 0 {
            // The message is what killed the first report, perhaps, in the middle of a line; so end that.
            if deaths == 1 {
                tap.line(format_args!(""));
                match test {
                    _ if self.told.load(Ordering::Relaxed) == 1 => tap.diagnostic(&AGAIN),
                    Some(test) => tap.not_ok(number, test.full_name(), &AGAIN),
                    None => tap.bail_out(&AGAIN),
                }
            }
            return Death::Nested;
        }
        let death = match test {
            None => {
                self.told.store(1, Ordering::Relaxed);
                tap.bail_out(message);
                Death::OutsideTests
            }
            Some(test) => self.report_test(&mut tap, test, number, returned, message),
        };
        tap.diagnostic(message);
        if let Some(location) = location {
            tap.diagnostic(&format_args!("at {location}"));
        }
        death
    }

    fn report_test(
        &self,
        tap: &mut Tap<'_>,
        test: &Test,
        number: usize,
        returned: bool,
        message: &dyn Display,
    ) -> Death {
        let name = test.full_name();
        // To look at the message is to format it, which may die: no line is begun before.
        let expected = match test.kind() {
            Kind::Fatal { message: expected } => !returned && contains(message, expected),
            Kind::Normal => false,
        };
        self.told.store(1, Ordering::Relaxed);
        match test.kind() {
            _ if expected => {
                tap.ok(number, name);
                return Death::Expected;
            }
            Kind::Fatal { message: wanted } => {
                let what =
                    format_args!("was to end the kernel with: {wanted}; it ended with: {message}");
                tap.not_ok(number, name, &what);
            }
            Kind::Normal if returned => {
                tap.not_ok(
                    number,
                    name,
                    &format_args!("while its ledgers were examined: {message}"),
                );
            }
            Kind::Normal => tap.not_ok(number, name, message),
        }
        Death::Failed
    }
}

/// What is said of a second death. Text that cannot die.
const AGAIN: &str = "died again while reporting its end";

/// Whether `text`, of which the first 1024 bytes count, contains `part`, both on one line.
fn contains(text: &dyn Display, part: &str) -> bool {
    let mut start = Start { bytes: [0; 1024], len: 0 };
    let mut wanted = Start { bytes: [0; 1024], len: 0 };
    let written =
        write!(start, "{}", OneLine(text)).and_then(|()| write!(wanted, "{}", OneLine(&part)));
    written.is_ok()
        && wanted.len < wanted.bytes.len()
        && start.text().windows(wanted.len.max(1)).any(|at| at == wanted.text())
}

/// Keeps the start of what is written to it.
struct Start {
    bytes: [u8; 1024],
    len: usize,
}

impl Start {
    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TESTS: [Test; 2] = [
        Test::new("k::a::asserts", Kind::Normal, |_| ()),
        Test::new("k::a::bursts", Kind::Fatal { message: "double free" }, |_| ()),
    ];

    fn report(current: &Current, message: &str) -> (Death, String) {
        let mut out = String::new();
        let death = current.report(&TESTS, &message, Some(&"pool.rs:7:9"), &mut out);
        (death, out)
    }

    #[test]
    fn a_failed_assertion_fails_the_test_that_runs_by_number_and_name() {
        let current = Current::new();
        current.begin(0, 4);
        let expected = "not ok 4 a::asserts # left\\nright\n# left\n# right\n# at pool.rs:7:9\n";
        assert_eq!(report(&current, "left\nright"), (Death::Failed, expected.into()));
    }

    #[test]
    fn a_test_runs_until_its_ledgers_were_examined() {
        let current = Current::new();
        let name = || current.test(&TESTS).map(Test::full_name);
        assert_eq!(name(), None);
        current.begin(1, 4);
        assert_eq!(name(), Some("a::bursts"));
        current.returned();
        assert_eq!(name(), Some("a::bursts"));
        current.end();
        assert_eq!(name(), None);
    }

    #[test]
    fn a_death_between_tests_is_no_tests_failure() {
        let current = Current::new();
        current.begin(0, 1);
        current.end();
        let (death, out) = report(&current, "no frames");
        assert_eq!(death, Death::OutsideTests);
        assert!(out.starts_with("Bail out! no frames\n"), "{out}");
    }

    #[test]
    fn a_death_in_a_ledger_after_the_test_says_so() {
        let current = Current::new();
        current.begin(0, 1);
        current.returned();
        let (_, out) = report(&current, "bad entry");
        assert!(
            out.starts_with("not ok 1 a::asserts # while its ledgers were examined: bad entry\n"),
            "{out}"
        );
        current.begin(0, 2);
        assert_eq!(current.returned.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_expected_end_is_a_pass_and_any_other_end_is_not() {
        let current = Current::new();
        current.begin(1, 1);
        let (death, out) = report(&current, "pool: double free of 0xf0001000");
        assert_eq!(death, Death::Expected);
        assert!(out.starts_with("ok 1 a::bursts\n# pool: double free of 0xf0001000\n"), "{out}");
        let current = Current::new();
        current.begin(1, 1);
        let (death, out) = report(&current, "out of memory");
        assert_eq!(death, Death::Failed);
        assert!(
            out.starts_with("not ok 1 a::bursts # was to end the kernel with: double free; "),
            "{out}"
        );
    }

    /// A message that dies while it is written: it runs `die` once, in the middle.
    struct Deadly<'a>(&'a dyn Fn());

    impl Display for Deadly<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half")?;
            (self.0)();
            Err(fmt::Error)
        }
    }

    fn dies_twice(place: usize) -> (Death, String) {
        let current = Current::new();
        current.begin(place, 3);
        let second = std::cell::RefCell::new(None);
        let die = || {
            let mut second = second.borrow_mut();
            if second.is_none() {
                *second = Some(report(&current, "the second message"));
            }
        };
        let mut out = String::new();
        let _ = current.report(&TESTS, &Deadly(&die), None, &mut out);
        assert_eq!(report(&current, "the third message"), (Death::Nested, String::new()));
        second.into_inner().expect("the message died")
    }

    #[test]
    fn a_death_in_the_report_of_a_death_gives_no_second_result() {
        assert_eq!(
            dies_twice(0),
            (Death::Nested, "\n# died again while reporting its end\n".into())
        );
    }

    #[test]
    fn a_death_before_the_result_was_begun_gives_one() {
        let expected = "\nnot ok 3 a::bursts # died again while reporting its end\n";
        assert_eq!(dies_twice(1), (Death::Nested, expected.into()));
    }

    #[test]
    fn a_long_message_is_searched_as_far_as_it_is_kept() {
        let long = "x".repeat(2000);
        assert!(contains(&format_args!("double free {long}"), "double free"));
        assert!(!contains(&format_args!("{long} double free"), "double free"));
        assert!(contains(&"a\nb", "a\nb"));
        assert!(!contains(&"", "a"));
    }
}
