//! What Cargo does for the run: the host's own tests, and the images.

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::board::Board;
use crate::context::Context;
use crate::pool::Job;
use crate::tally::Verdict;

/// How a line begins that a test of the host prints for the summary.
const NOTES: [&str; 1] = ["states: "];

/// Compiles the tests of the host's crates: without running them, so that the compiler's progress is seen and its errors are whole.
pub(crate) fn compile_tests() -> Result<(), String> {
    eprintln!("compiling the tests of the host");
    let compiled = Command::new("scripts/cargo").args(["test", "--quiet", "--no-run"]).status();
    match compiled {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo test --no-run: {status}; what it said stands above")),
        Err(error) => Err(format!("scripts/cargo: {error}")),
    }
}

/// The tests of the host's crates, which were compiled, as a job beside the others; what they say of mutants goes to `said`.
pub(crate) fn job(said: Arc<Mutex<Said>>) -> Job {
    Job::new("host", move |context| {
        let (verdicts, found) = run(context);
        *said.lock().unwrap_or_else(PoisonError::into_inner) = found;
        verdicts
    })
}

fn run(context: &Context) -> (Vec<Verdict>, Said) {
    let mut command = Command::new("scripts/cargo");
    // The output of tests that pass is shown too: the board of mutants is in it.
    command.args(["test", "--no-fail-fast", "--color", "never", "--", "--show-output"]);
    match context.filter.as_deref().map(|filter| (filter, filter.strip_prefix('='))) {
        None => {}
        Some((_, Some(name))) => _ = command.args(["--exact", name]),
        Some((part, None)) => _ = command.arg(part),
    }
    // Other jobs run beside them.
    command.env("RUST_TEST_THREADS", context.jobs.div_ceil(2).to_string());
    // Property tests draw from the same seed.
    command.env("PROPERTIES_SEED", context.seed.to_string());
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            let report = String::from_utf8_lossy(&output.stdout);
            let (mut verdicts, said) = (read(&report), Said::read(&report));
            let failed = verdicts.iter().any(Verdict::is_failure);
            if output.status.success() == failed {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                verdicts.push(Verdict::of_a_run("build::tests", Err(why)));
            }
            verdicts.extend(said.board.verdicts(context));
            (verdicts, said)
        }
        Err(error) => {
            let why = Err(format!("scripts/cargo: {error}"));
            (vec![Verdict::of_a_run("build::tests", why)], Said::default())
        }
    }
}

/// What the tests of the host have said that belongs into the summary.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    board: Board,
    notes: Vec<String>,
}

impl Said {
    /// The board of mutants, and every line that begins with one of [`NOTES`].
    fn read(report: &str) -> Self {
        let is_note = |line: &&str| NOTES.iter().any(|start| line.starts_with(start));
        let notes = report.lines().filter(is_note).map(str::to_owned).collect();
        Self { board: Board::read(report), notes }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.board.fmt(f)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

/// Builds all images, symbols included.
pub(crate) fn images() -> Result<(), String> {
    eprintln!("building the images");
    for arguments in [
        ["scripts/image", "mapwright", "kernel-tests", "harness-tests"].as_slice(),
        &["scripts/mkdisk", "target/disk.img"],
    ] {
        let status = Command::new(arguments[0])
            .args(&arguments[1..])
            .status()
            .map_err(|error| format!("{}: {error}", arguments[0]))?;
        if !status.success() {
            return Err(format!("{}: {status}; what it said stands above", arguments[0]));
        }
    }
    Ok(())
}

/// Reads the report of Rust's test harness, of one or many crates.
fn read(report: &str) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for line in report.lines() {
        let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        else {
            continue;
        };
        let name = name.trim_end_matches(" - should panic");
        match outcome {
            "ok" => verdicts.push(Verdict::passed(name)),
            "FAILED" => verdicts.push(Verdict::failed(name, details(report, name))),
            _ => {} // ignored, by its own choice
        }
    }
    verdicts
}

/// What the test printed before it failed.
fn details(report: &str, name: &str) -> String {
    let heading = format!("---- {name} stdout ----");
    let printed = report.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<&str> =
        printed.take_while(|line| !line.starts_with("---- ") && *line != "failures:").collect();
    lines.join("\n").trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
running 4 tests
test a::passes ... ok
test a::panics_as_it_should - should panic ... ok
test a::is_left_out ... ignored
test a::fails ... FAILED

failures:

---- a::fails stdout ----

thread 'a::fails' panicked at src/lib.rs:1:1:
boom

failures:
    a::fails

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
";

    #[test]
    fn notes_of_the_tests_come_into_the_summary() {
        let said = Said::read("---- a stdout ----\nstates: 12 to depth 3\nstate: no note\n");
        assert_eq!(said.to_string(), "states: 12 to depth 3\n");
    }

    #[test]
    fn the_harness_of_rust_is_read_by_name() {
        let expected = [
            Verdict::passed("a::passes"),
            Verdict::passed("a::panics_as_it_should"),
            Verdict::failed("a::fails", "thread 'a::fails' panicked at src/lib.rs:1:1:\nboom"),
        ];
        assert_eq!(read(REPORT), expected);
    }
}
