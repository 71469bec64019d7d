//! Reports as they should be, and as a broken image would write them.

use super::*;

const ASKED: Asked = Asked { seed: 7, memory: 1 << 27, from: 1 };
const HEAD: &str = "KTAP version 1\n# seed 7 memory 134217728\n";

/// A report of `body` under the right head.
fn parse(body: &str) -> Report {
    Report::parse(&format!("{HEAD}{body}"), ASKED)
}

/// The faults of `body` under the right head.
#[track_caller]
fn assert_faults(body: &str, expected: &[Fault]) {
    assert_eq!(parse(body).faults, expected, "{body}");
}

fn garbage(line: &str) -> Fault {
    Fault::Garbage(line.into())
}

#[test]
fn a_whole_report_is_read_without_fault() {
    let report = parse("1..2\nok 1 a::b\nnot ok 2 a::c # went wrong # twice\n");
    assert_eq!(report.faults, []);
    assert_eq!(report.planned, Some(2));
    assert!(report.is_complete(1));
    assert_eq!(report.lines[0], Line { number: 1, name: "a::b".into(), outcome: Outcome::Passed });
    assert_eq!(report.lines[1].outcome, Outcome::Failed("went wrong # twice".into()));
}

#[test]
fn a_plan_of_no_tests_is_complete_when_nothing_ran() {
    let report = parse("1..0\n");
    assert_eq!(report.faults, []);
    assert!(report.is_complete(1));
}

#[test]
fn what_the_kernel_logs_as_diagnostics_before_the_report_does_not_matter() {
    let report = Report::parse(&format!("# DMA: a pool\n#\n{HEAD}1..0\n"), ASKED);
    assert_eq!(report.faults, []);
    // But a seed that stands before the version is only such a line.
    let report = Report::parse("# seed 7 memory 134217728\nKTAP version 1\n1..0\n", ASKED);
    assert_eq!(report.faults, [Fault::NoSeed]);
}

#[test]
fn carriage_returns_of_a_terminal_are_no_part_of_a_line() {
    let text = format!("{HEAD}1..1\nok 1 a::b\n").replace('\n', "\r\n");
    assert_eq!(Report::parse(&text, ASKED).faults, []);
}

#[test]
fn a_skipped_test_is_neither_passed_nor_failed() {
    let report = parse("1..1\nok 1 a::b # SKIP one CPU # only\n");
    assert_eq!(report.faults, []);
    assert_eq!(report.lines[0].outcome, Outcome::Skipped("one CPU # only".into()));
}

#[test]
fn diagnostics_explain_the_failure_above_them_and_no_other() {
    let report =
        parse("1..3\n# old\nnot ok 1 a::b # why\n# one\n#\nok 2 a::c\n# not this\nok 3 a::d\n");
    assert_eq!(report.faults, []);
    assert_eq!(report.lines[0].outcome, Outcome::Failed("why\n# one\n#".into()));
    assert_eq!(report.lines[1].outcome, Outcome::Passed);
}

#[test]
fn an_image_that_gives_up_says_why() {
    assert_faults("1..1\nBail out! no memory\n", &[Fault::BailedOut("no memory".into())]);
}

#[test]
fn nothing_at_all_lacks_everything() {
    let report = Report::parse("", ASKED);
    assert_eq!(report.faults, [Fault::NoVersion, Fault::NoSeed, Fault::NoPlan]);
    assert!(!report.is_complete(1));
}

#[test]
fn a_report_cut_after_a_result_is_incomplete() {
    let report = parse("1..3\nok 1 a::b\n");
    assert_eq!(report.faults, []);
    assert!(!report.is_complete(1));
}

#[test]
fn a_report_cut_within_a_line_does_not_count_that_line() {
    let report = parse("1..1\nok 1 a::b");
    assert_eq!(report.faults, [Fault::CutOff("ok 1 a::b".into())]);
    assert_eq!(report.lines, []);
    assert!(!report.is_complete(1));
}

#[test]
fn a_missing_plan_is_named_and_the_results_count_nevertheless() {
    let report = parse("ok 1 a::b\n");
    assert_eq!(report.faults, [Fault::NoPlan]);
    assert_eq!(report.lines.len(), 1);
    assert!(!report.is_complete(1));
}

#[test]
fn a_second_plan_is_garbage() {
    assert_faults("1..1\n1..1\nok 1 a::b\n", &[garbage("1..1")]);
}

#[test]
fn a_second_report_after_the_first_is_garbage() {
    // The image was booted twice, as by a reset.
    let again = format!("1..1\nok 1 a::b\n{HEAD}1..1\nok 1 a::b\n");
    let faults = parse(&again).faults;
    assert!(faults.contains(&garbage("KTAP version 1")), "{faults:?}");
    assert!(faults.contains(&Fault::OutOfOrder { wanted: 2, had: 1 }), "{faults:?}");
    assert!(faults.contains(&Fault::Twice("a::b".into())), "{faults:?}");
}

#[test]
fn a_skipped_number_is_out_of_order() {
    assert_faults("1..3\nok 1 a::b\nok 3 a::c\n", &[Fault::OutOfOrder { wanted: 2, had: 3 }]);
}

#[test]
fn a_repeated_number_is_out_of_order() {
    assert_faults("1..2\nok 1 a::b\nok 1 a::c\n", &[Fault::OutOfOrder { wanted: 2, had: 1 }]);
}

#[test]
fn a_repeated_name_is_named() {
    assert_faults("1..2\nok 1 a::b\nok 2 a::b\n", &[Fault::Twice("a::b".into())]);
}

#[test]
fn a_result_beyond_the_plan_is_named() {
    let report = parse("1..1\nok 1 a::b\nok 2 a::c\n");
    assert_eq!(report.faults, [Fault::BeyondPlan(2)]);
    assert!(!report.is_complete(1));
}

#[test]
fn a_resumed_report_counts_from_where_it_was_told_to() {
    let asked = Asked { from: 3, ..ASKED };
    let report = Report::parse(&format!("{HEAD}1..4\nok 3 a::b\nok 4 a::c\n"), asked);
    assert_eq!(report.faults, []);
    assert!(report.is_complete(3));

    let report = Report::parse(&format!("{HEAD}1..4\nok 1 a::b\nok 2 a::c\n"), asked);
    assert_eq!(report.faults[0], Fault::OutOfOrder { wanted: 3, had: 1 });
}

#[test]
fn a_report_of_another_seed_or_of_less_memory_is_refused() {
    let text = "KTAP version 1\n# seed 8 memory 134217727\n1..0\n";
    let wrong = [
        Fault::WrongSeed { wanted: 7, had: 8 },
        Fault::WrongMemory { wanted: 1 << 27, had: (1 << 27) - 1 },
    ];
    assert_eq!(Report::parse(text, ASKED).faults, wrong);
}

#[test]
fn text_before_the_head_is_a_fault() {
    let report = Report::parse(&format!("hello\n{HEAD}1..0\n"), ASKED);
    assert!(report.faults.contains(&Fault::NoVersion), "{:?}", report.faults);
}

#[test]
fn lines_that_only_resemble_results_are_garbage() {
    for line in [
        "ok",
        "ok ",
        "ok 1",
        "ok a::b",
        "ok 1 ",
        "ok 1 nosuite",
        "ok +1 a::b",
        "ok -1 a::b",
        "ok 1a a::b",
        "ok 99999999999999999999999 a::b",
        "ok 1  a::b",
        "ok 1 a::b c::d",
        "ok 1 a::b # SKIP",
        "ok 1 a::b # skip lower case",
        "ok 1 a::b # passed",
        "Bail out!",
        "ok 1 a::b # TODO",
        "ok 1 - a::b",
        " ok 1 a::b",
        "OK 1 a::b",
        "notok 1 a::b",
        "not  ok 1 a::b",
        "xok 1 a::b",
        "#no space",
        "panicked at",
        "",
        "ok 1 a::\u{fffd}\tb",
    ] {
        let report = parse(&format!("1..1\n{line}\n"));
        assert_eq!(report.faults, [garbage(line)]);
        assert_eq!(report.lines, []);
    }
}

#[test]
fn plans_that_are_none_are_refused() {
    for plan in ["1..", "0..3", "1..x", "1..-1", "1..+1", "1...3", "2..3", "1..3 # all"] {
        let report = parse(&format!("{plan}\n"));
        assert_eq!(report.faults, [Fault::NoPlan, garbage(plan)]);
        assert_eq!(report.planned, None);
    }
}

#[test]
fn a_seed_line_with_other_words_is_none() {
    for line in ["# seed 7", "# seed 7 memory", "# seed x memory 1", "# memory 1 seed 7"] {
        let report = Report::parse(&format!("KTAP version 1\n{line}\n1..0\n"), ASKED);
        assert!(report.faults.contains(&Fault::NoSeed), "{line}: {:?}", report.faults);
    }
}

#[test]
fn a_failure_without_a_message_is_a_failure() {
    let report = parse("1..1\nnot ok 1 a::b\n");
    assert_eq!(report.lines[0].outcome, Outcome::Failed("no message".into()));
}

#[test]
fn the_largest_number_does_not_overflow() {
    let line = format!("1..1\nok {} a::b\n", usize::MAX);
    assert_faults(
        &line,
        &[Fault::OutOfOrder { wanted: 1, had: usize::MAX }, Fault::BeyondPlan(usize::MAX)],
    );
    let report = parse(&format!("1..{}\n", usize::MAX));
    assert!(!report.is_complete(1));
}
