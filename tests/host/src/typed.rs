//! What a user types reaches the scripts as it stands, and what cannot be done is refused before anything is built.

use std::fs;
use std::process::Command;

use crate::context::Context;
use crate::pool::Job;
use crate::qemu::{self, Ended};

/// What is set in the environment, as `make` sets it, or asked for in words: a script, words, variables, and words of the refusal.
type Refused = (&'static str, &'static str, &'static [&'static str], &'static str);

/// What each of the scripts must not take for something else, or pass over.
const REFUSED: &[Refused] = &[
    ("a_check_that_is_none", "bench", &["CHECK=0"], "CHECK=0: it is 1"),
    ("a_record_that_is_none", "bench", &["RECORD=no"], "RECORD=no: it is 1"),
    ("a_check_of_a_profile", "bench", &["CHECK=1", "PROFILE=vmalloc_to_page"], "PROFILE follows"),
    ("a_record_of_a_profile", "bench", &["RECORD=1", "PROFILE=vmalloc_to_page"], "PROFILE follows"),
    ("a_profile_by_something_unknown", "bench", &["PROFILE=a", "BY=lines"], "BY=lines: it is line"),
    ("operations_without_a_profile", "bench", &["OPERATIONS=5"], "are for PROFILE"),
    ("no_seconds", "fuzz", &["SECONDS_ASKED=0"], "SECONDS=0 is no number"),
    ("more_seconds_than_can_be_counted", "fuzz", &["SECONDS_ASKED=99999999"], "is no number"),
    ("a_target_that_there_is_not", "fuzz", &["TARGET=histories boot"], "is none of: histories"),
    ("a_seed_that_is_none", "fuzz", &["SEED=x"], "SEED=x is no number"),
    ("no_jobs", "mutants", &["JOBS=0"], "JOBS=0 is no number"),
];

/// Variables that somebody else may have set.
const VARIABLES: [&str; 13] = [
    "CHECK",
    "RECORD",
    "PROFILE",
    "BY",
    "OPERATIONS",
    "FILTER",
    "JOBS",
    "SECONDS_ASKED",
    "TARGET",
    "SEED",
    "FILE",
    "MEM",
    "OUTPUT",
];

/// A folder's name, a regular expression, words: all that `make` and the shell would like to read otherwise.
const ODD: &str = "(a$|b$)$HOME `id` \"c\" 'd' #e \\";

/// A Makefile that shows what the project's own hands on.
const SHOW: &str = "include Makefile\nshow:\n\t@printenv DISK ARGS FILTER FILE OUTPUT\n";

/// All of it.
pub(crate) fn jobs() -> Vec<Job> {
    let refused = |&(name, script, variables, words): &Refused| {
        Job::test(format!("typed::{script}_refuses_{name}"), move |_| {
            refuses(&bare(&format!("scripts/{script}"), variables)?, words)
        })
    };
    let mut jobs: Vec<Job> = REFUSED.iter().map(refused).collect();
    jobs.push(Job::test("typed::make_hands_on_what_stands_there", hands_on));
    jobs
}

/// Runs a script with these variables and no others.
fn bare(script: &str, variables: &[&str]) -> Result<Ended, String> {
    let mut command = Command::new(script);
    for name in VARIABLES {
        command.env_remove(name);
    }
    command.envs(variables.iter().filter_map(|variable| variable.split_once('=')));
    qemu::output(&mut command)
}

/// Whether it was said in one line, with these words, that it was called wrongly.
fn refuses(ended: &Ended, words: &str) -> Result<(), String> {
    let lines: Vec<&str> = ended.complaints.lines().collect();
    match lines.as_slice() {
        [line] if ended.status == 2 && line.starts_with("error: ") && line.contains(words) => {
            Ok(())
        }
        _ => Err(format!("status {}; it said:\n{}", ended.status, ended.tail())),
    }
}

fn hands_on(context: &Context) -> Result<(), String> {
    let file = context.scratch.join("show.mk");
    fs::write(&file, SHOW).map_err(|error| format!("{}: {error}", file.display()))?;
    let names = ["DISK", "ARGS", "FILTER", "FILE", "OUTPUT"];
    let mut command = Command::new("make");
    command.args(["--no-print-directory", "-f"]).arg(&file).arg("show");
    command.args(names.map(|name| format!("{name}={ODD}")));
    let ended = qemu::output(qemu::without_make(&mut command))?;
    let shown: Vec<&str> = ended.output.lines().collect();
    if ended.status == 0 && shown == [ODD; 5] {
        return Ok(());
    }
    Err(format!("{ODD} was typed; it said:\n{}", ended.tail()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_that_says_why_with_status_2() {
        let ended = |status, complaints: &str| Ended {
            status,
            output: String::new(),
            complaints: complaints.into(),
        };
        assert!(refuses(&ended(2, "error: fuzz: SEED=x is no number\n"), "SEED=x").is_ok());
        assert!(refuses(&ended(1, "error: fuzz: SEED=x is no number\n"), "SEED=x").is_err());
        assert!(refuses(&ended(2, "error: fuzz: SEED=x is no number\n"), "SEED=y").is_err());
        assert!(refuses(&ended(2, "fuzz: building\nerror: SEED=x\n"), "SEED=x").is_err());
    }
}
