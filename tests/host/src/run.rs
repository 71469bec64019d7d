//! The main job as a user sees it: a disk goes in, its SHA-256 comes out, and what is wrong is said in one line.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::context::Context;
use crate::disk::Disk;
use crate::pool::Job;
use crate::qemu::{self, Console, Ended, MAPWRIGHT, Machine, Start, Transport};

/// One sector.
const SECTOR: usize = 512;

/// Disk sizes in bytes: the smallest; an odd number of sectors beyond a power of two; the usual; several mebibytes.
const SIZES: [usize; 4] = [SECTOR, (64 << 10) + SECTOR, 1 << 20, 3 << 20];

/// What the kernel is to complain of, and what the complaint says.
const COMPLAINTS: [(&str, &str, &str); 8] = [
    ("unknown", "frobnicate=1", "unknown"),
    ("unknown_and_without_a_value", "quiet", "unknown"),
    ("malformed", "mem=12Q", "not a size"),
    ("without_its_value", "vmalloc=", "missing"),
    ("no_number", "loglevel=loud", "not a number"),
    ("overflowing", "coherent_pool=99999999999999999999", "does not fit"),
    ("larger_than_the_address_map", "vmalloc=3G", "more than"),
    ("a_pool_larger_than_the_address_map", "coherent_pool=3G", "more than"),
];

/// All of it.
pub(crate) fn jobs() -> Vec<Job> {
    let mut jobs = digests();
    jobs.extend(names());
    jobs.extend(bad_disks());
    jobs.extend(complaints());
    jobs.extend(lines());
    jobs
}

/// Any disk, on either transport.
fn digests() -> Vec<Job> {
    let mut jobs = Vec::new();
    for size in SIZES {
        for transport in [Transport::Legacy, Transport::Modern] {
            let name = format!("run::prints_the_sha256_of_{size}_bytes_read_by_{transport}_virtio");
            jobs.push(Job::test(name, move |context| {
                let disk = random_disk(context, &format!("{size}-{transport}.img"), size)?;
                prints_digest(&disk, &boot(transport, &disk, &[])?)
            }));
        }
    }
    jobs
}

/// Any name, and any kind of output.
fn names() -> Vec<Job> {
    vec![
        Job::test("run::takes_a_disk_of_any_name", |context| {
            let disk = random_disk(context, "a, b:c $d 'e' \"f\".img", SECTOR)?;
            let ended = make_run(&disk.path, &[])?;
            prints_digest(&disk, &ended)
        }),
        Job::test("run::ends_after_the_digest_on_a_terminal_too", |context| {
            let disk = random_disk(context, "terminal.img", SECTOR)?;
            let command = format!("scripts/run {}", disk.path.display());
            let mut script = Command::new("script");
            script.args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
            prints_digest(&disk, &qemu::output(&mut script)?)
        }),
        Job::test("run::needs_no_standard_input", |context| {
            let disk = random_disk(context, "no-input.img", SECTOR)?;
            let command = format!("scripts/run {} <&-", disk.path.display());
            prints_digest(&disk, &qemu::output(Command::new("bash").args(["-c", &command]))?)
        }),
        Job::test("run::is_not_ended_by_what_is_typed", |context| {
            let disk = random_disk(context, "typed.img", SECTOR)?;
            let command = format!(r"printf '\001x\001c' | scripts/run {}", disk.path.display());
            prints_digest(&disk, &qemu::output(Command::new("bash").args(["-c", &command]))?)
        }),
        // With corrections, a line that does nothing, one that is too long, and both ends of a line.
        Job::test("run::the_monitor_does_what_is_typed_s115", |context| {
            let disk = random_disk(context, "monitor.img", SECTOR)?;
            let typed =
                r"frames\rfrobnicate\n\npool!\177\n\b\bhelp x\nhea\001p\n%090d\nexit\nheap\n";
            let command =
                format!("printf '{typed}' 0 | scripts/run {} monitor", disk.path.display());
            let ended = qemu::output(Command::new("bash").args(["-c", &command]))?;
            prints_digest(&disk, &ended)?;
            let (_, dialogue) = ended.output.split_once("`exit` ends it.\n").ok_or("no monitor")?;
            let has = |line: &str| dialogue.lines().any(|printed| printed == line);
            let wanted = [
                "> frobnicate",
                "frobnicate: no such command; `help` lists them",
                "> ",
                "0 of 64 pages at 0xc0040000 are taken, the largest run left has 64",
                "help takes no argument, x was given",
                "> heap",
                &format!("{}: no such command; `help` lists them", "0".repeat(80)),
            ];
            match wanted.into_iter().find(|line| !has(line)) {
                None if dialogue.ends_with("> exit\n") => Ok(()),
                None => Err(format!("it does not end with exit:\n{dialogue}")),
                Some(line) => Err(format!("no line {line:?} in\n{dialogue}")),
            }
        }),
        Job::test("run::the_monitor_ends_with_the_text", |context| {
            let disk = random_disk(context, "monitor-end.img", SECTOR)?;
            let command =
                format!(r"printf 'pool\004' | scripts/run {} monitor", disk.path.display());
            let ended = qemu::output(Command::new("bash").args(["-c", &command]))?;
            prints_digest(&disk, &ended)?;
            if ended.output.ends_with("> pool\n") { Ok(()) } else { Err(ended.tail()) }
        }),
        Job::test("run::says_that_standard_output_is_closed", |_| {
            let ended = qemu::output(Command::new("bash").args(["-c", "scripts/run >&-"]))?;
            refuses("standard output", &Ended { status: i32::from(ended.status != 0), ..ended })
        }),
        Job::test("run::passes_words_to_the_kernel_as_they_stand", |context| {
            let disk = random_disk(context, "words.img", SECTOR)?;
            let words = ["$(HOME)", "*", "q'", "a;b", "`id`", ">x"];
            let ended = make_run(&disk.path, &[format!("ARGS={}", words.join(" "))])?;
            prints_digest(&disk, &ended)?;
            words.into_iter().try_for_each(|word| complains_once(word, "unknown", &ended))
        }),
    ]
}

/// What is no disk is refused before anything is booted.
fn bad_disks() -> Vec<Job> {
    let refused = |name: &str, make: fn(&Path) -> std::io::Result<()>| {
        let name = name.to_owned();
        Job::test(format!("run::refuses_{name}"), move |context: &Context| {
            let path = context.scratch.join(&name);
            make(&path).map_err(|error| error.to_string())?;
            let ended = qemu::output(Command::new("scripts/run").arg(&path))?;
            refuses(&name, &ended)
        })
    };
    vec![
        refused("a_missing_disk", |_| Ok(())),
        refused("an_empty_disk", |path| fs::write(path, "")),
        refused("a_disk_that_ends_within_a_sector", |path| fs::write(path, [0; SECTOR + 1])),
        refused("a_folder", |path| fs::create_dir(path)),
    ]
}

/// A command line that cannot be read as a whole.
fn lines() -> Vec<Job> {
    vec![
        Job::test("run::reports_and_passes_over_a_line_that_is_too_long", |context| {
            let disk = random_disk(context, "long-line.img", SECTOR)?;
            let words = ["mem=64M".to_owned(), "x".repeat(3000)];
            let ended = boot(Transport::Legacy, &disk, &words)?;
            prints_digest(&disk, &ended)?;
            complains_once("warning", "the command line could not be read: it is too long", &ended)
        }),
        Job::test("run::reports_and_passes_over_a_word_that_is_no_utf_8", |context| {
            let disk = random_disk(context, "no-utf-8.img", SECTOR)?;
            let mut command = Command::new("scripts/run");
            let word = OsStr::from_bytes(b"mem=\xff6\xe2\x82");
            let ended = qemu::output(command.arg(&disk.path).args([word, OsStr::new("seed=x")]))?;
            prints_digest(&disk, &ended)?;
            complains_once("mem=?6??", "not a size", &ended)?;
            complains_once("seed=x", "not a number", &ended)
        }),
    ]
}

/// What is wrong with the command line is said, and does not stop the boot.
fn complaints() -> Vec<Job> {
    let complaint = |(name, word, reason): (&'static str, &'static str, &'static str)| {
        Job::test(format!("run::reports_and_passes_over_a_parameter_{name}"), move |context| {
            let disk = random_disk(context, &format!("{name}.img"), SECTOR)?;
            let ended = boot(Transport::Legacy, &disk, &[word.to_owned()])?;
            prints_digest(&disk, &ended)?;
            complains_once(word, reason, &ended)
        })
    };
    COMPLAINTS.into_iter().map(complaint).collect()
}

fn random_disk(context: &Context, name: &str, size: usize) -> Result<Disk, String> {
    let path: PathBuf = context.scratch.join(name);
    Disk::random(&path, size, u64::from(context.seed) ^ size as u64)
}

fn boot(transport: Transport, disk: &Disk, words: &[String]) -> Result<Ended, String> {
    let machine = Machine { transport, ..Machine::USUAL };
    qemu::boot(machine, Console::Run, &Start::of(MAPWRIGHT), &disk.path, words)
}

/// `make run DISK=...`, with more variables.
fn make_run(disk: &Path, variables: &[String]) -> Result<Ended, String> {
    let mut command = Command::new("make");
    let disk = disk.to_str().ok_or("a path of this test's own is no UTF-8")?;
    command.args(["--no-print-directory", "run", &format!("DISK={disk}")]).args(variables);
    qemu::output(qemu::without_make(&mut command))
}

/// Whether the run was good, and printed the disk's digest and no other.
fn prints_digest(disk: &Disk, ended: &Ended) -> Result<(), String> {
    ended.expect_status(0)?;
    let is_digest = |word: &&str| word.len() == 64 && word.bytes().all(|c| c.is_ascii_hexdigit());
    let digests: Vec<&str> = ended.output.split_ascii_whitespace().filter(is_digest).collect();
    if digests == [disk.sha256.as_str()] {
        return Ok(());
    }
    Err(format!("{} was expected; it said:\n{}", disk.sha256, ended.tail()))
}

/// Whether one line, which names the file, says why there was no run.
fn refuses(file: &str, ended: &Ended) -> Result<(), String> {
    let lines: Vec<&str> = ended.complaints.lines().collect();
    match lines.as_slice() {
        [line]
            if ended.status == 1
                && ended.output.is_empty()
                && line.starts_with("error: ")
                && line.contains(file) =>
        {
            Ok(())
        }
        _ => Err(format!("status {}; it said:\n{}", ended.status, ended.tail())),
    }
}

/// Whether exactly one line complains of `word`, for the right reason.
fn complains_once(word: &str, reason: &str, ended: &Ended) -> Result<(), String> {
    let begin = format!("{word}: ");
    let lines: Vec<&str> = ended.output.lines().filter(|line| line.contains(&begin)).collect();
    match lines.as_slice() {
        [line] if line.contains(reason) => Ok(()),
        _ => {
            Err(format!("one line `{begin}… {reason} …` was expected; it said:\n{}", ended.tail()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: i32, output: &str, complaints: &str) -> Ended {
        Ended { status, output: output.into(), complaints: complaints.into() }
    }

    #[test]
    fn only_the_one_right_digest_of_a_good_run_will_do() {
        let right = "0123456789abcdef".repeat(4);
        let wrong = "f".repeat(64);
        let disk = Disk { path: PathBuf::new(), sha256: right.clone() };
        assert!(prints_digest(&disk, &ended(0, &format!("sha256 {right}  disk\n"), "")).is_ok());
        for text in [String::new(), wrong.clone(), format!("{wrong} {right}"), right[1..].into()] {
            assert!(prints_digest(&disk, &ended(0, &text, "")).is_err(), "{text}");
        }
        assert!(prints_digest(&disk, &ended(1, &right, "")).is_err());
        assert!(prints_digest(&disk, &ended(0, &right, "Invalid read")).is_err());
    }

    #[test]
    fn a_refusal_is_one_line_with_the_files_name_and_status_1() {
        assert!(refuses("x.img", &ended(1, "", "error: x.img: empty\n")).is_ok());
        assert!(refuses("x.img", &ended(0, "", "error: x.img: empty\n")).is_err());
        assert!(refuses("x.img", &ended(1, "booting", "error: x.img: empty\n")).is_err());
        assert!(refuses("x.img", &ended(1, "", "error: empty\n")).is_err());
        assert!(refuses("x.img", &ended(1, "", "x.img: empty\n")).is_err());
        assert!(refuses("x.img", &ended(1, "", "error: x.img: empty\nmore\n")).is_err());
    }

    #[test]
    fn a_complaint_is_made_once_and_for_the_right_reason() {
        let good = "command line: mem=12Q\nwarning: mem=12Q: not a size, ignored\n";
        assert!(complains_once("mem=12Q", "not a size", &ended(0, good, "")).is_ok());
        assert!(complains_once("mem=12Q", "unknown", &ended(0, good, "")).is_err());
        assert!(complains_once("mem=12Q", "not a size", &ended(0, &good.repeat(2), "")).is_err());
        assert!(complains_once("mem=12Q", "not a size", &ended(0, "", "")).is_err());
    }
}
