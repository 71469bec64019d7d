//! The harness proves itself: every test of the image that misbehaves, run by this runner as a process of its own, as `make test`
//! runs the real suites.
//!
//! What is judged is what a user would see: the exit status, the name under `FAILED`, the reason, the last line, and the file for
//! programs. A runner that overlooks the exit status, the plan, the ledgers or QEMU's log, or takes what was skipped for
//! passed, would let one of these through.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use roxmltree::Document;

use crate::context::Context;
use crate::junit;
use crate::kernel;
use crate::pool::Job;
use crate::qemu::{self, Console, DEFAULT_DISK, Ended, Machine, Start};

/// The image that misbehaves.
const IMAGE: &str = "target/harness-tests.elf";
/// The one test of it that is right, and the one that says it cannot run.
const RIGHT: &str = "well::holds";
const SKIPS: &str = "well::skips_itself";

/// How every other test of the image is wrong: its name, and words of the reason that must be given for its failure.
const WRONG: [(&str, &[&str]); 38] = [
    ("dies::of_an_assertion", &["left == right", "arithmetic", "left: 4", "right: 5", "dies.rs:"]),
    ("dies::of_a_panic", &["seventeen of a kind"]),
    ("dies::of_an_error_returned", &["returned Err(\"no room\")"]),
    ("dies::of_a_fault_outside_a_probe", &["unexpected DataAbort", "second level: read at 0xc0"]),
    ("dies::of_an_undefined_instruction", &["unexpected Undefined exception"]),
    ("dies::of_its_own_depth", &["unexpected DataAbort", "second level: write at 0x80"]),
    ("leaks::a_frame", &["pages frames", "1 more"]),
    ("leaks::an_area", &["areas", "reserved pages", "mapped pages", "slab records", "1 more"]),
    ("leaks::heap_bytes", &["heap bytes", "more"]),
    ("leaks::a_coherent_buffer", &["dma frames", "missing from the linear map", "1 more"]),
    ("leaks::a_page_of_the_atomic_pool", &["atomic pool", "1 more"]),
    (
        "locks::are_taken_in_the_wrong_order",
        &["wrong lock order: outer test 0 under areas", "locks.rs:"],
    ),
    ("locks::are_held_twice", &["lock held twice: areas", "CPU 0 holds: areas"]),
    ("locks::are_held_by_who_may_sleep", &["sleeping call", "vmalloc under outer test 0"]),
    ("audit::a_page_is_left_writable_and_executable", &["audit", "must not be executable"]),
    ("audit::a_page_is_left_with_another_memory_type", &["audit", "non-cacheable, not"]),
    ("audit::a_table_is_lost", &["audit", "tables were made"]),
    ("audit::an_area_s_page_is_cleared", &["audit", "not mapped, should lead to"]),
    ("touches::a_hole", &["touched what is not there", "Invalid write at addr 0x90000000"]),
    ("ends::hangs", &["it hung (status 124)", "without an end"]),
    ("ends::exits_with_success", &["no result", "it ended the image with status 0"]),
    ("ends::forges_its_result", &["has two results"]),
    ("ends::forges_its_result_and_exits_with_success", &["does not end with", "1 passed"]),
    ("ends::forges_a_plan_of_nothing", &["no result", "it ended the image with status 0"]),
    ("ends::chatters", &["this line is no KTAP", "all is well"]),
    ("output::nothing_is_printed", &["no result", "it ended the image with status 0"]),
    ("output::breaks_off_before_the_result", &["no result", "it ended the image with status 0"]),
    ("output::has_no_plan", &["no plan `1..N`"]),
    ("output::has_no_counts_at_its_end", &["does not end with", "1 passed"]),
    ("witness::names_another_frame", &[LIE, ": our walker's entry against", "the decoder 0x"]),
    ("witness::names_other_rights", &[LIE, ": our walker's entry against", " r--/", " rw-/"]),
    ("witness::shows_a_mapping_that_is_not_there", &[LIE, "ATS1CPR", "gva2gpa Unmapped"]),
    ("witness::shows_what_was_there_before", &[LIE, "ATS1CPR", "gva2gpa Unmapped"]),
    (
        "witness::reads_through_a_stale_translation",
        &[LIE, ": the access against", "the access 0x11111111", "0x22222222 lies there"],
    ),
    ("witness::does_not_listen", &["did not fail, and its witnesses disagree"]),
    ("witness::gets_no_answer", &["the host has not answered"]),
    ("witness::asks_what_is_no_question", &["no answer for the witnesses", "without a head"]),
    ("witness::asks_nobody", &["the kernel asked no witness"]),
];

/// Tests that die on one of four CPUs, or on all: each gives up with this status, once.
const DIE_TOGETHER: [(&str, i32); 8] = [
    ("smp::one_panics_and_the_others_print", 101),
    ("smp::one_panics_under_a_lock_that_the_others_want", 101),
    ("smp::one_panics_under_a_shared_lock_that_the_others_want", 101),
    ("smp::one_panics_while_another_has_the_interrupt_controller", 101),
    ("smp::one_faults_and_the_others_count", 102),
    ("smp::one_panics_in_a_handler_and_the_others_count", 101),
    ("smp::one_faults_in_a_handler_and_the_others_count", 102),
    ("smp::all_panic_at_once", 101),
];

/// How the kernel begins when the host does not bear out what it says.
const LIE: &str = "the witnesses disagree: -";

/// Seconds that a boot may take, and what it gets where that was too little even to begin.
const PATIENCE: [&str; 2] = ["5", "100"];
/// What `scripts/qemu` says of a boot that took longer, be it the one that lists the tests.
const STOPPED: &str = "without an end: ";

/// All of it.
pub(crate) fn jobs() -> Vec<Job> {
    let mut jobs: Vec<Job> = WRONG
        .into_iter()
        .map(|(name, words)| {
            Job::test(format!("harness::{name}"), move |context| is_noticed(context, name, words))
        })
        .collect();
    jobs.extend(DIE_TOGETHER.into_iter().map(|(name, status)| {
        Job::test(format!("harness::{name}"), move |_| is_said_once(name, status))
    }));
    jobs.extend([
        Job::test("harness::a_test_that_holds_is_passed", |context| {
            let run = Run::of_the_binary(context, RIGHT, "100")?;
            run.expect(0, &["2 passed, 0 failed"])?;
            run.expect_cases(&[])
        }),
        Job::test("harness::what_skips_itself_has_not_passed", |context| {
            let run = Run::of_the_binary(context, SKIPS, "100")?;
            run.expect(1, &["error: no test ran", "1 skipped"])
        }),
        Job::test("harness::a_filter_that_finds_nothing_is_an_error_that_says_so", |context| {
            let run = Run::of_the_script(context, "no_such_test")?;
            run.expect(1, &["error: no test ran; the filter is \"=no_such_test\""])
        }),
        Job::test("harness::a_failure_is_the_exit_status_of_the_script_too", |context| {
            let run = Run::of_the_script(context, "dies::of_a_panic")?;
            run.expect(1, &["FAILED [512M legacy smp 1] dies::of_a_panic"])
        }),
        Job::test("harness::a_boot_that_begins_beyond_the_last_test_is_an_error", |_| {
            let words = ["seed=1", "test==well::holds", "from=2"].map(str::to_owned);
            let (start, disk) = (Start::of(IMAGE), Path::new(DEFAULT_DISK));
            let ended = qemu::boot(Machine::USUAL, Console::Test, &start, disk, &words)?;
            let says = ended.output.contains("Bail out! from=2, and the last test is number 1");
            if says { ended.expect_status(1) } else { Err(ended.tail()) }
        }),
        Job::test("harness::every_test_of_its_image_is_judged", |_| {
            let mut judged: BTreeSet<&str> = WRONG.iter().map(|&(name, _)| name).collect();
            judged.extend([RIGHT, SKIPS]);
            judged.extend(DIE_TOGETHER.map(|(name, _)| name));
            let listed = kernel::list(&Start::of(IMAGE))?;
            let listed: BTreeSet<&str> = listed.tests.iter().map(String::as_str).collect();
            let differ: Vec<_> = judged.symmetric_difference(&listed).collect();
            if differ.is_empty() { Ok(()) } else { Err(format!("in one list only: {differ:?}")) }
        }),
    ]);
    jobs
}

/// Whether the runner fails, for this test and with these words.
fn is_noticed(context: &Context, name: &str, words: &[&str]) -> Result<(), String> {
    let mut run = Run::of_the_binary(context, name, PATIENCE[0])?;
    // On a host so slow that this was too little for any test, nothing is proved yet.
    if name == "ends::hangs" && !run.ended.output.contains("it hung")
        || name != "ends::hangs" && run.ended.output.contains(STOPPED)
    {
        run = Run::of_the_binary(context, name, PATIENCE[1])?;
    }
    let failed = format!("FAILED [{}] {name}", Machine::USUAL);
    run.expect(1, &[&failed])?;
    let reason = run.reason(&failed);
    match words.iter().find(|word| !reason.contains(**word)) {
        Some(word) => Err(format!("`{word}` is no part of the reason:\n{reason}")),
        None => run.expect_cases(&[name]),
    }
}

/// Whether four CPUs end with one report between them, after which none of them says anything.
fn is_said_once(name: &str, status: i32) -> Result<(), String> {
    let machine = Machine { cpus: 4, ..Machine::USUAL };
    let words = ["seed=1".to_owned(), format!("test=={name}")];
    let (start, disk) = (Start::of(IMAGE), Path::new(DEFAULT_DISK));
    let ended = qemu::boot(machine, Console::Test, &start, disk, &words)?;
    ended.expect_status(status)?;
    let lines: Vec<&str> = ended.output.lines().collect();
    let count = |is: fn(&str) -> bool| lines.iter().filter(|line| is(line)).count();
    let once = [
        count(|line| line.starts_with("not ok ")),
        count(|line| line.starts_with("kernel panic: ") || line.starts_with("unexpected ")),
        count(|line| line.starts_with("on CPU ") && line.ends_with("; the others have stopped")),
    ];
    let after = lines.iter().skip_while(|line| !line.starts_with("not ok "));
    if once != [1, 1, 1] || after.clone().any(|line| line.contains("is at work")) {
        return Err(format!("result, report and stop were said {once:?} times:\n{}", ended.tail()));
    }
    Ok(())
}

/// A run of the runner.
struct Run {
    ended: Ended,
    /// Where its results are.
    output: PathBuf,
}

impl Run {
    /// Of this very program, for one test.
    fn of_the_binary(context: &Context, name: &str, seconds: &str) -> Result<Self, String> {
        let output = context.scratch.join("harness").join(name.replace("::", "-"));
        let binary = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(binary);
        command.args(["test", "--image", IMAGE, "--seed", "1", "--jobs", "1"]);
        command.args(["--filter", &format!("={name}"), "--timeout", seconds]);
        let ended = qemu::output(command.arg("--output").arg(&output))?;
        Ok(Self { ended, output })
    }

    /// Of `scripts/test`, for one test.
    fn of_the_script(context: &Context, name: &str) -> Result<Self, String> {
        let output = context.scratch.join("harness").join("script").join(name.replace("::", "-"));
        let mut command = Command::new("scripts/test");
        for inherited in ["MEM", "JOBS"] {
            command.env_remove(inherited);
        }
        command.env("SEED", "1").env("FILTER", format!("={name}"));
        let ended = qemu::output(command.env("TEST_IMAGE", IMAGE).env("OUTPUT", &output))?;
        Ok(Self { ended, output })
    }

    /// Whether it ended so, and has printed lines that begin so.
    fn expect(&self, status: i32, lines: &[&str]) -> Result<(), String> {
        let Ended { status: had, output, .. } = &self.ended;
        let has = |start: &str| output.lines().any(|line| line.starts_with(start));
        match lines.iter().find(|start| !has(start)) {
            _ if *had != status => {
                Err(format!("status {had}, and {status} was expected:\n{}", self.ended.tail()))
            }
            Some(start) => Err(format!("no line begins `{start}`:\n{}", self.ended.tail())),
            None => Ok(()),
        }
    }

    /// What stands below `heading`.
    fn reason(&self, heading: &str) -> String {
        let below = self.ended.output.lines().skip_while(|line| *line != heading).skip(1);
        let lines: Vec<&str> = below.take_while(|line| !line.starts_with("FAILED ")).collect();
        lines.join("\n")
    }

    /// Whether the file for programs has these failures among its tests.
    fn expect_cases(&self, failed: &[&str]) -> Result<(), String> {
        let path = self.output.join(junit::FILE);
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let xml = Document::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let failures: BTreeSet<&str> = xml
            .descendants()
            .filter(|node| node.has_tag_name("failure"))
            .filter_map(|node| node.parent()?.attribute("name"))
            .collect();
        let missing = |name: &&&str| !failures.contains(name.rsplit("::").next().unwrap_or(name));
        match failed.iter().find(missing) {
            Some(name) => Err(format!("{} has no failure of {name}:\n{text}", path.display())),
            None if failed.is_empty() && !failures.is_empty() => {
                Err(format!("{} has failures:\n{text}", path.display()))
            }
            None => Ok(()),
        }
    }
}
