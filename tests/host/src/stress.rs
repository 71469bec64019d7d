//! `make stress` as a user sees it: the seed and the rate, and how to run again what failed.

use std::process::Command;

use crate::pool::Job;
use crate::qemu::{self, Ended, KERNEL_TESTS};

/// All of it.
pub(crate) fn jobs() -> Vec<Job> {
    vec![
        Job::test("stress::prints_its_seed_and_its_rate", |_| {
            let ended = stress(KERNEL_TESTS)?;
            ended.expect_status(0)?;
            says(
                &ended,
                &["2 CPUs for 0 s from seed 5", "boot 1, seed 5: ", " a second", "nothing wrong"],
            )
        }),
        Job::test("stress::a_failure_says_how_to_run_it_again", |_| {
            // An image without the test: nothing is selected, which is a failure of the boot.
            let ended = stress("target/harness-tests.elf")?;
            let again = "again: make stress SECONDS=0 SEED=5 SMP=2";
            if ended.status == 1 && ended.complaints.contains(again) {
                return Ok(());
            }
            Err(format!("status {} without `{again}`:\n{}", ended.status, ended.tail()))
        }),
    ]
}

/// One boot of `image`.
fn stress(image: &str) -> Result<Ended, String> {
    let mut command = Command::new("scripts/stress");
    command.env("SECONDS_ASKED", "0").env("SEED", "5").env("SMP", "2").env("TEST_IMAGE", image);
    qemu::output(&mut command)
}

fn says(ended: &Ended, words: &[&str]) -> Result<(), String> {
    match words.iter().find(|word| !ended.output.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("`{word}` was not said:\n{}", ended.tail())),
    }
}
