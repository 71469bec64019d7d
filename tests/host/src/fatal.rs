//! What must end the kernel, and with which words: one boot each.

use std::path::Path;

use crate::kernel::Listed;
use crate::pool::Job;
use crate::qemu::{self, Console, DEFAULT_DISK, Ended, KERNEL_TESTS, Machine, Start};

/// The exit statuses of a kernel that gave up, by a panic and by an exception.
const PANIC: i32 = 101;
const EXCEPTION: i32 = 102;
/// How the report of a panic begins; that of an exception does not.
const REPORT: &str = "kernel panic: ";

/// One job a fatal test.
pub(crate) fn jobs(listed: &Listed) -> Vec<Job> {
    let job = |(name, message): (String, String)| {
        Job::test(name.clone(), move |context| {
            let words = [format!("fatal={name}")];
            let memory = context.memory.unwrap_or(Machine::USUAL.memory);
            let machine = Machine { memory, ..Machine::USUAL };
            let disk = Path::new(DEFAULT_DISK);
            let start = Start::of(KERNEL_TESTS);
            judge(&message, &qemu::boot(machine, Console::Run, &start, disk, &words)?)
        })
    };
    listed.fatal.iter().cloned().map(job).collect()
}

/// Whether it gave up, with the words that were expected of it, and touched nothing else.
fn judge(message: &str, ended: &Ended) -> Result<(), String> {
    // A report of the wrong end quotes the right one.
    let failed = ended.output.lines().any(|line| line.starts_with("not ok "));
    let said = !failed && ended.output.lines().any(|line| line.contains(message));
    let panicked = ended.output.lines().any(|line| line.starts_with(REPORT));
    if ended.status == if panicked { PANIC } else { EXCEPTION }
        && said
        && ended.complaints.is_empty()
    {
        return Ok(());
    }
    Err(format!(
        "status {}, and 101 of a panic or 102 of an exception with the words `{message}` was expected; it said:\n{}",
        ended.status,
        ended.tail()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: i32, output: &str, complaints: &str) -> Ended {
        Ended { status, output: output.into(), complaints: complaints.into() }
    }

    #[test]
    fn only_the_expected_words_with_the_expected_end_will_do() {
        let panic = "a\nkernel panic: double free of 1\n";
        assert!(judge("double free", &ended(101, panic, "")).is_ok());
        assert!(judge("double free", &ended(102, panic, "")).is_err(), "a panic is no exception");
        assert!(judge("double free", &ended(101, "double free\n", "")).is_err(), "nor the reverse");
        assert!(judge("double free", &ended(102, "double free\n", "")).is_ok());
        assert!(judge("double free", &ended(0, "double free\n", "")).is_err());
        assert!(judge("double free", &ended(124, "double free\n", "")).is_err());
        let other =
            "not ok 1 a::b # was to end the kernel with: double free; it ended with: boom\n";
        assert!(judge("double free", &ended(101, other, "")).is_err());
        assert!(judge("double free", &ended(101, "double\nfree\n", "")).is_err());
        assert!(judge("double free", &ended(101, "double free\n", "Invalid read")).is_err());
    }
}
