//! `#[ktest]` as a test image uses it: what is registered is found, under its name, and runs.

use ktest::{Filter, Mode, Options};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A kernel runs one list of tests, and the crate keeps which of them runs now: the tests here take turns.
fn one_kernel() -> MutexGuard<'static, ()> {
    static KERNEL: Mutex<()> = Mutex::new(());
    KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
}

mod suite {
    use ktest::{Completion, ktest};

    #[ktest]
    fn holds() {}

    /// Attributes and visibility are no matter.
    #[ktest]
    #[inline(never)]
    pub(crate) fn errs() -> Result<(), &'static str> {
        Err("as it should")
    }

    pub(crate) mod inner {
        use super::*;

        #[ktest]
        fn skips() -> Result<Completion, u32> {
            if core::hint::black_box(true) { Ok(Completion::Skipped("no device")) } else { Err(1) }
        }

        #[ktest(fatal = "a \"quoted\" end")]
        fn bursts() {}
    }
}

#[ktest::ktest]
fn stands_in_the_root() {}

const OPTIONS: Options<'static> =
    Options { mode: Mode::List, filter: Filter::All, seed: 1, from: 1, memory: 0 };

#[test]
fn every_registered_test_is_listed_with_its_kind() {
    let _kernel = one_kernel();
    let mut out = String::new();
    assert_eq!(ktest::run(&OPTIONS, &mut out, []).exit_code(), 0);
    assert_eq!(
        out,
        "test registration::stands_in_the_root\ntest suite::errs\ntest suite::holds\n\
         fatal suite::inner::bursts a \"quoted\" end\ntest suite::inner::skips\n"
    );
}

#[test]
fn every_registered_test_runs_and_says_what_it_returned() {
    let _kernel = one_kernel();
    let mut out = String::new();
    let summary = ktest::run(&Options { mode: Mode::Run, ..OPTIONS }, &mut out, []);
    assert_eq!(
        (summary.planned, summary.passed, summary.failed, summary.skipped),
        (4, 2, 1, 1),
        "{out}"
    );
    assert!(out.contains(" suite::errs # returned Err(\"as it should\")\n"), "{out}");
    assert!(out.contains(" suite::inner::skips # SKIP no device\n"), "{out}");
}

#[test]
fn a_death_outside_of_a_test_is_nobodys_failure() {
    let _kernel = one_kernel();
    let mut out = String::new();
    assert_eq!(
        ktest::report_death(format_args!("data abort"), &mut out),
        ktest::Death::OutsideTests
    );
    assert_eq!(out, "Bail out! data abort\n# data abort\n");
}
