//! What must end the kernel, and with which words: one boot each.

use std::path::Path;

use crate::kernel::Listed;
use crate::pool::Job;
use crate::qemu::{self, Console, DEFAULT_DISK, Ended, KERNEL_TESTS, Machine, Start};

/// The exit statuses of a kernel that gave up: by a panic, by an exception.
const GAVE_UP: [i32; 2] = [101, 102];

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
    if GAVE_UP.contains(&ended.status) && said && ended.complaints.is_empty() {
        return Ok(());
    }
    Err(format!(
        "status {}, and 101 or 102 with the words `{message}` was expected; it said:\n{}",
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
        assert!(judge("double free", &ended(101, "a\npanic: double free of 1\n", "")).is_ok());
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
