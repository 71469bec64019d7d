use super::*;
use crate::ledger::Snapshot;
use crate::options::Filter;
use crate::test::{Completion, Conclusion};
use core::cell::Cell;
use core::fmt;

/// Frames that a test may take, and one rule that it may break.
struct Frames;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    static LAZY: Cell<u64> = const { Cell::new(0) };
    static BROKEN: Cell<bool> = const { Cell::new(false) };
    static RAN: Cell<u32> = const { Cell::new(0) };
}

impl Ledger for Frames {
    fn name(&self) -> &'static str {
        "mm"
    }

    fn settle(&self) {
        TAKEN.set(TAKEN.get() - LAZY.take());
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        snapshot.record("frames", TAKEN.get());
        snapshot
    }

    fn audit(&self, violation: &mut dyn FnMut(Arguments<'_>)) {
        if BROKEN.get() {
            violation(format_args!("0xf0001000 is writable and executable"));
        }
    }
}

fn leak() {
    TAKEN.set(TAKEN.get() + 2);
}

static TESTS: [Test; 7] = [
    Test::new("k::lazy::frees_late", Kind::Normal, |report| {
        leak();
        LAZY.set(2);
        ().conclude(report);
    }),
    Test::new("k::leaks::two", Kind::Normal, |report| {
        leak();
        ().conclude(report);
    }),
    Test::new("k::well::counts", Kind::Normal, |report| {
        RAN.set(RAN.get() + 1);
        ().conclude(report);
    }),
    Test::new("k::errs::leaks_too", Kind::Normal, |report| {
        leak();
        Err::<(), _>("no\nroom").conclude(report);
    }),
    Test::new("k::wx::leaves_a_page", Kind::Normal, |report| {
        BROKEN.set(true);
        ().conclude(report);
    }),
    Test::new("k::small::skips", Kind::Normal, |report| {
        Completion::Skipped("too small").conclude(report);
    }),
    Test::new("k::fatal::bursts", Kind::Fatal { message: "double\nfree" }, |report| {
        ().conclude(report);
    }),
];

const OPTIONS: Options<'static> =
    Options { mode: Mode::Run, filter: Filter::All, seed: 5, from: 1, memory: 128 << 20 };

fn boot(options: Options<'_>) -> (Summary, String) {
    TAKEN.set(0);
    LAZY.set(0);
    BROKEN.set(false);
    boot_as_it_is(options)
}

fn boot_as_it_is(options: Options<'_>) -> (Summary, String) {
    let mut out = String::new();
    let summary = run(&TESTS, &Current::new(), &options, &mut out, [&Frames]);
    (summary, out)
}

fn only(filter: &str) -> (Summary, String) {
    boot(Options { filter: Filter::parse(filter), ..OPTIONS })
}

const HEAD: &str = "KTAP version 1\n# seed 5 memory 134217728\n";

#[test]
fn a_test_that_holds_is_ok_and_is_run_once() {
    RAN.set(0);
    let (summary, out) = only("=well::counts");
    assert_eq!(out, format!("{HEAD}1..1\nok 1 well::counts\n# 1 passed, 0 failed, 0 skipped\n"));
    assert_eq!((summary.passed, summary.exit_code(), RAN.get()), (1, 0, 1));
}

#[test]
fn a_test_that_leaks_fails_by_name_and_the_difference_is_named() {
    let (summary, out) = only("leaks::two");
    let finding = "mm: frames: 0 before, 2 after, 2 more";
    assert_eq!(
        out,
        format!(
            "{HEAD}1..1\nnot ok 1 leaks::two # {finding}\n# {finding}\n# 0 passed, 1 failed, 0 skipped\n"
        )
    );
    assert_eq!(summary.exit_code(), 1);
}

#[test]
fn what_is_freed_late_is_no_leak() {
    assert_eq!(only("frees_late").0.exit_code(), 0);
}

#[test]
fn a_leak_is_blamed_on_the_test_that_leaked_and_on_no_later_one() {
    for seed in 0..40 {
        let (summary, out) = boot(Options { seed, filter: Filter::Contains("l"), ..OPTIONS });
        let blamed: Vec<_> = out.lines().filter(|line| line.starts_with("not ok")).collect();
        assert!(
            blamed.iter().all(|line| line.contains(" leaks::")
                || line.contains("_a_page")
                || line.contains("errs::")),
            "{out}"
        );
        assert!(summary.failed >= 1);
    }
}

#[test]
fn an_error_is_a_failure_and_its_leak_is_told_below_it() {
    let (summary, out) = only("errs::");
    let lines: Vec<_> = out.lines().skip(3).collect();
    assert_eq!(
        lines,
        [
            "not ok 1 errs::leaks_too # returned Err(\"no\\nroom\")",
            "# mm: frames: 0 before, 2 after, 2 more",
            "# 0 passed, 1 failed, 0 skipped"
        ]
    );
    assert_eq!(summary.failed, 1);
}

#[test]
fn a_broken_audit_fails_the_test_and_ends_the_boot() {
    for seed in 0..20 {
        let (summary, out) = boot(Options { seed, ..OPTIONS });
        let End::Unsound(number) = summary.end else { panic!("{out}") };
        assert!(
            out.contains(&format!("not ok {number} wx::leaves_a_page # mm: audit: 0xf0001000 is")),
            "{out}"
        );
        assert!(!out.contains(&format!("ok {} ", number + 1)), "{out}");
        assert_eq!(summary.exit_code(), 101);
    }
}

#[test]
fn an_audit_that_fails_before_the_first_test_blames_none() {
    TAKEN.set(0);
    BROKEN.set(true);
    let (summary, out) = boot_as_it_is(OPTIONS);
    assert!(
        out.contains("\nBail out! the audit fails before the first test\n# mm: audit: 0xf0001000"),
        "{out}"
    );
    assert!(!out.contains("ok 1"), "{out}");
    assert_eq!((summary.end, summary.exit_code()), (End::Unable, 1));
}

#[test]
fn a_skip_is_counted_as_neither() {
    let (summary, out) = only("small::");
    assert!(out.contains("\nok 1 small::skips # SKIP too small\n"), "{out}");
    assert_eq!(
        (summary.passed, summary.failed, summary.skipped, summary.exit_code()),
        (0, 0, 1, 0)
    );
}

#[test]
fn a_boot_after_a_death_goes_on_with_the_same_order_and_numbers() {
    let whole = boot(OPTIONS).1;
    let results = |out: &str| -> Vec<String> {
        out.lines()
            .filter(|line| line.starts_with("ok") || line.starts_with("not"))
            .map(Into::into)
            .collect()
    };
    let unsound = results(&whole).len();
    for from in 2..=unsound {
        let (summary, out) = boot(Options { from, ..OPTIONS });
        assert_eq!(summary.planned, 6);
        assert!(out.contains("\n1..6\n"));
        let names = |lines: &[String]| {
            lines.iter().map(|line| line.split(" # ").next().map(String::from)).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&results(&out))[..unsound + 1 - from],
            names(&results(&whole))[from - 1..]
        );
    }
}

#[test]
fn a_boot_that_begins_beyond_the_last_test_is_an_error_that_says_so() {
    let (summary, out) = boot(Options { from: 7, ..OPTIONS });
    assert!(out.ends_with("1..6\nBail out! from=7, and the last test is number 6\n"), "{out}");
    assert_eq!((summary.passed, summary.end, summary.exit_code()), (0, End::Unable, 1));
}

#[test]
fn a_fatal_test_is_not_run_among_the_others_and_fails_if_it_returns() {
    assert!(!boot(OPTIONS).1.contains("fatal::"));
    let (summary, out) = boot(Options { mode: Mode::Fatal("fatal::bursts"), ..OPTIONS });
    assert!(out.ends_with("1..1\nnot ok 1 fatal::bursts # returned, but was to end the kernel with: double\\nfree\n"), "{out}");
    assert_eq!(summary.exit_code(), 1);
}

#[test]
fn nothing_selected_is_an_error() {
    for options in [
        Options { filter: Filter::Contains("nowhere"), ..OPTIONS },
        Options { mode: Mode::Fatal("well::counts"), ..OPTIONS },
        Options { mode: Mode::Fatal("fatal::burst"), ..OPTIONS },
    ] {
        let (summary, out) = boot(options);
        assert!(out.ends_with("1..0\n# no test is selected\n"), "{out}");
        assert_eq!((summary.end, summary.exit_code()), (End::Unable, 1));
    }
}

#[test]
fn a_list_is_sorted_and_runs_nothing() {
    RAN.set(0);
    let (summary, out) =
        boot(Options { mode: Mode::List, filter: Filter::Contains("s"), ..OPTIONS });
    assert_eq!(
        out,
        "test errs::leaks_too\nfatal fatal::bursts double\\nfree\ntest lazy::frees_late\ntest leaks::two\n\
         test small::skips\ntest well::counts\ntest wx::leaves_a_page\n"
    );
    assert_eq!((summary.exit_code(), RAN.get()), (0, 0));
}

#[test]
fn a_report_that_cannot_be_written_is_no_success() {
    struct Dead;
    impl Write for Dead {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            Err(fmt::Error)
        }
    }
    let options = Options { filter: Filter::parse("=well::counts"), ..OPTIONS };
    let summary = run(&TESTS, &Current::new(), &options, &mut Dead, []);
    assert_eq!((summary.end, summary.exit_code()), (End::OutputLost, 1));
}
