//! Boots as they might end, and where the session goes on.

use super::*;

/// The output of a boot: `body` under the head of a report.
fn output(body: &str) -> String {
    format!("KTAP version 1\n# seed 7 memory 536870912\n{body}")
}

/// A boot that ended so; if by itself, with the counts of what `body` has.
fn ended(status: i32, body: &str) -> Ended {
    let count = |start: &str| body.lines().filter(|line| line.starts_with(start)).count();
    let mut output = output(body);
    if status < 2 {
        let (passed, failed) = (count("ok "), count("not ok "));
        output = format!("{output}# {passed} passed, {failed} failed, 0 skipped\n");
    }
    Ended { status, output, complaints: String::new() }
}

fn session(wanted: &[&str]) -> Session {
    Session {
        machine: Machine::USUAL,
        start: Start::of("target/kernel-tests.elf"),
        seed: 7,
        filter: None,
        parameters: vec![],
        found: Machine::USUAL.memory,
        wanted: wanted.iter().map(|name| (*name).to_owned()).collect(),
        results: BTreeMap::new(),
        deaths: vec![],
        hung: 0,
        faults: vec![],
        scratch: PathBuf::new(),
        watched: true,
        complete: false,
        witnessed: Witnessed::default(),
    }
}

/// The names that failed.
fn failed(session: Session) -> Vec<String> {
    let failed = session.verdicts().into_iter().filter(Verdict::is_failure);
    failed.map(|verdict| verdict.name).collect()
}

#[test]
fn a_good_boot_ends_the_session_and_nothing_failed() {
    let mut session = session(&["a::b", "a::c"]);
    assert_eq!(session.read(1, &ended(0, "1..2\nok 1 a::c\nok 2 a::b\n")), None);
    let passed =
        [Verdict::passed("a::b"), Verdict::passed("a::c"), Verdict::of_a_run(REPORT, Ok(()))];
    assert_eq!(session.verdicts(), passed);
}

#[test]
fn text_among_the_results_of_a_living_image_is_a_fault_and_that_of_a_dying_one_its_last_words() {
    let mut alive = session(&["a::b"]);
    assert_eq!(alive.read(1, &ended(0, "1..1\nhello\nok 1 a::b\n")), None);
    assert_eq!(failed(alive), ["a::b", REPORT]);
    let mut dying = session(&["a::b"]);
    assert_eq!(dying.read(1, &ended(101, "1..1\nnot ok 1 a::b # no\nhello\nr0 = 0")), None);
    assert_eq!(failed(dying), ["a::b"]);
}

#[test]
fn a_kernel_that_takes_itself_for_alone_on_several_cpus_fails() {
    for (cpus, expected) in [(1, vec![]), (4, vec!["a::b"])] {
        let mut session = session(&["a::b"]);
        session.machine.cpus = cpus;
        let body = format!("1..1\nok 1 a::b # SKIP {ALONE}\n");
        let mut ended = ended(0, &body);
        ended.output = ended.output.replace("1 passed, 0 failed, 0", "0 passed, 0 failed, 1");
        assert_eq!(session.read(1, &ended), None);
        assert_eq!(failed(session), expected);
    }
}

#[test]
fn a_failed_test_that_does_not_end_the_image_fails_alone() {
    let mut session = session(&["a::b", "a::c"]);
    assert_eq!(session.read(1, &ended(1, "1..2\nnot ok 1 a::c # leak\nok 2 a::b\n")), None);
    assert_eq!(failed(session), ["a::c"]);
}

#[test]
fn an_exit_status_that_contradicts_the_report_is_a_fault() {
    for (status, body) in
        [(1, "1..1\nok 1 a::b\n"), (0, "1..1\nnot ok 1 a::b\n"), (143, "1..1\nok 1 a::b\n")]
    {
        let mut session = session(&["a::b"]);
        assert_eq!(session.read(1, &ended(status, body)), None);
        assert!(failed(session).contains(&REPORT.to_owned()), "{status} {body}");
    }
}

#[test]
fn a_panic_after_the_last_result_is_a_fault() {
    let mut session = session(&["a::b"]);
    assert_eq!(session.read(1, &ended(101, "1..1\nok 1 a::b\n")), None);
    assert_eq!(failed(session), ["a::b", REPORT]);
}

#[test]
fn a_test_that_panics_is_the_last_of_its_boot_and_the_next_boot_goes_on_after_it() {
    let mut session = session(&["a::b", "a::c", "a::d"]);
    assert_eq!(session.read(1, &ended(101, "1..3\nok 1 a::b\nnot ok 2 a::c # no\n")), Some(3));
    assert_eq!(session.words(3), ["seed=7", "from=3", witness::PARAMETER]);
    assert_eq!(session.read(3, &ended(0, "1..3\nok 3 a::d\n")), None);
    assert_eq!(failed(session), ["a::c"]);
}

#[test]
fn a_panic_in_the_last_test_needs_no_other_boot() {
    let mut session = session(&["a::b"]);
    assert_eq!(session.read(1, &ended(101, "1..1\nnot ok 1 a::b # no\n")), None);
    assert_eq!(failed(session), ["a::b"]);
}

#[test]
fn a_test_that_dies_or_hangs_without_a_word_is_the_one_without_a_result() {
    for status in [101, 102, 124] {
        let mut session = session(&["a::b", "a::c", "a::d"]);
        assert_eq!(session.read(1, &ended(status, "1..3\nok 1 a::b\n# last words\n")), Some(3));
        assert_eq!(session.read(3, &ended(0, "1..3\nok 3 a::d\n")), None);
        let verdicts = session.verdicts();
        assert!(!verdicts[0].is_failure() && !verdicts[2].is_failure());
        let Outcome::Failed(why) = &verdicts[1].outcome else { panic!("it has no result") };
        assert!(why.contains("test number 2") && why.contains("last words"), "{why}");
    }
}

#[test]
fn a_boot_that_dies_before_its_plan_is_not_repeated() {
    for status in [101, 102, 124] {
        let mut session = session(&["a::b"]);
        let nothing = Ended { status, output: String::new(), complaints: String::new() };
        assert_eq!(session.read(1, &nothing), None);
        assert_eq!(failed(session), ["a::b", REPORT]);
    }
}

#[test]
fn hanging_is_borne_only_so_often() {
    let mut session = session(&["a::b", "a::c", "a::d", "a::e"]);
    assert_eq!(session.read(1, &ended(124, "1..4\n")), Some(2));
    assert_eq!(session.read(2, &ended(124, "1..4\n")), None);
    assert_eq!(failed(session).len(), 5);
}

#[test]
fn a_report_that_stops_short_with_a_good_status_is_a_fault() {
    let mut session = session(&["a::b", "a::c"]);
    assert_eq!(session.read(1, &ended(0, "1..2\nok 1 a::b\n")), None);
    assert_eq!(failed(session), ["a::c", REPORT]);
}

#[test]
fn a_test_that_was_listed_and_not_planned_fails() {
    let mut session = session(&["a::b", "a::c"]);
    assert_eq!(session.read(1, &ended(0, "1..1\nok 1 a::b\n")), None);
    assert_eq!(failed(session), ["a::c"]);
}

#[test]
fn a_result_that_nobody_listed_is_a_fault() {
    let mut session = session(&["a::b"]);
    assert_eq!(session.read(1, &ended(0, "1..2\nok 1 a::b\nok 2 a::c\n")), None);
    assert_eq!(failed(session), [REPORT]);
}

#[test]
fn a_second_result_in_a_later_boot_is_a_fault() {
    let mut session = session(&["a::b", "a::c"]);
    assert_eq!(session.read(1, &ended(101, "1..2\nnot ok 1 a::b # no\n")), Some(2));
    assert_eq!(session.read(2, &ended(0, "1..2\nok 2 a::b\n")), None);
    assert!(failed(session).contains(&REPORT.to_owned()));
}

#[test]
fn a_word_from_the_emulator_is_a_fault_even_when_all_tests_passed() {
    let mut session = session(&["a::b"]);
    let mut ended = ended(0, "1..1\nok 1 a::b\n");
    ended.complaints = "error: qemu: the image touched what is not there".into();
    assert_eq!(session.read(1, &ended), None);
    assert_eq!(failed(session), ["a::b", REPORT]);
}

#[test]
fn what_is_wrong_with_the_report_of_one_test_is_that_tests_failure_and_of_two_only_the_reports() {
    for (wanted, blamed) in [(vec!["a::b"], true), (vec!["a::b", "a::c"], false)] {
        let results: Vec<String> =
            (1..).zip(&wanted).map(|(number, name)| format!("ok {number} {name}")).collect();
        let mut session = session(&wanted);
        let body = format!("1..{}\nhello\n{}\n", wanted.len(), results.join("\n"));
        assert_eq!(session.read(1, &ended(0, &body)), None);
        assert_eq!(failed(session).contains(&"a::b".to_owned()), blamed);
    }
}

#[test]
fn a_report_whose_counts_are_not_its_results_or_do_not_end_it_is_a_fault() {
    for end in
        ["", "# 1 passed, 0 failed, 0 skipped\n", "# 2 passed, 0 failed, 0 skipped\n# more\n"]
    {
        let output = output(&format!("1..2\nok 1 a::b\nok 2 a::c\n{end}"));
        let mut session = session(&["a::b", "a::c"]);
        let ended = Ended { status: 0, output, complaints: String::new() };
        assert_eq!(session.read(1, &ended), None);
        assert_eq!(failed(session), [REPORT], "{end}");
    }
}

#[test]
fn a_special_boot_has_its_parameters_and_its_own_filter() {
    let special = session(&["a::b"]).with("mem=48M loglevel=4", "a::", 48);
    let words = special.words(3);
    assert_eq!(words[1..], ["test=a::", "from=3", "mem=48M", "loglevel=4", witness::PARAMETER]);
    assert!(words[0].starts_with("seed="));
}

#[test]
fn a_test_that_ignores_what_its_witnesses_say_fails_and_so_does_a_kernel_that_asks_none() {
    let boot = || ended(0, "1..1\nok 1 a::b\n");
    let mut ignoring = session(&["a::b"]);
    ignoring.read(1, &boot());
    let disagreements = vec![("a::b".into(), "why".into())];
    ignoring.hear(Heard { requests: 1, disagreements: disagreements.clone(), ..Heard::default() });
    assert_eq!(failed(ignoring), ["a::b", REPORT]);
    let mut silent = session(&["a::b"]);
    silent.read(1, &boot());
    silent.hear(Heard::default());
    assert_eq!(failed(silent), ["a::b", REPORT]);
    let mut heeding = session(&["a::b"]);
    heeding.read(1, &ended(101, "1..1\nnot ok 1 a::b # why\n"));
    heeding.hear(Heard { requests: 1, disagreements, ..Heard::default() });
    assert_eq!(failed(heeding), ["a::b"]);
}

#[test]
fn a_session_without_witnesses_tells_the_kernel_of_none_and_expects_none() {
    let mut alone = session(&["a::b"]).unwatched();
    assert_eq!(alone.words(1), ["seed=7"]);
    alone.read(1, &ended(0, "1..1\nok 1 a::b\n"));
    alone.hear(Heard::default());
    assert_eq!(failed(alone), [""; 0]);
}

#[test]
fn a_session_of_all_tests_must_show_every_kind() {
    let mut all = Session { complete: true, ..session(&["a::b"]) };
    all.read(1, &ended(0, "1..1\nok 1 a::b\n"));
    all.hear(Heard { requests: 1, ..Heard::default() });
    assert_eq!(failed(all), [WITNESSES]);
}
