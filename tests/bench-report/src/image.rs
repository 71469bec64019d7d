//! The benchmark image: how it is booted, and what it says.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use object::{Object as _, ObjectSection as _};

/// The image.
pub(crate) const IMAGE: &str = "target/kernel-bench.elf";
/// The disk of the rows that read one; made anew by each run.
const DISK: &str = "target/bench.disk";
/// Bytes of the disk, and of a part of it, of which one page holds something.
const DISK_BYTES: u64 = 64 << 20;
const PART: u64 = 64 << 10;
const PAGE: u64 = 4 << 10;
/// RAM, enough for all areas of the largest row.
pub(crate) const MEMORY: &str = "1G";

/// What one row cost, in instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// How many operations were measured.
    pub(crate) operations: u32,
    /// All of them together.
    pub(crate) total: u64,
    /// The first one.
    pub(crate) first: u32,
    /// The dearest of the others.
    pub(crate) dearest: u32,
}

impl Cost {
    /// What an operation costs on average; a fraction counts as a whole.
    pub(crate) fn mean(&self) -> u32 {
        let operations = u64::from(self.operations.max(1));
        u32::try_from(self.total.div_ceil(operations)).unwrap_or(u32::MAX)
    }
}

/// The command that boots the image, `words` being its command line.
pub(crate) fn command(options: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new("scripts/qemu");
    command.args(["--memory", MEMORY, "--console", "test"]).args(options);
    if is_of_the_disk(words) {
        command.args(["--disk", DISK]);
    }
    command.args([IMAGE, "--", "loglevel=5"]).args(parameter_for(words)).args(words);
    command.stdin(Stdio::null());
    command
}

fn is_of_the_disk(words: &[&str]) -> bool {
    words.iter().any(|word| word.starts_with("test=disk_"))
}

/// Makes the disk, whose holes take no room on the host: in part n, page n of the part, counted round, holds ever greater words.
/// `tests/bench/src/disk.rs` has the same in mind.
fn make_disk(path: &str) -> std::io::Result<()> {
    let own = format!("{path}.{}", std::process::id());
    let mut file = fs::File::create(&own)?;
    file.set_len(DISK_BYTES)?;
    for part in 0..u32::try_from(DISK_BYTES / PART).expect("few parts") {
        let page = u64::from(part) % (PART / PAGE);
        let first = part.wrapping_mul(0x9e37_79b1);
        let word = |index: u32| first.wrapping_add(index).to_le_bytes();
        let words: Vec<u8> = (0..1024).flat_map(word).collect();
        file.seek(SeekFrom::Start(u64::from(part) * PART + page * PAGE))?;
        file.write_all(&words)?;
    }
    drop(file);
    fs::rename(own, path)
}

/// The same, once in a run.
fn have_disk() -> Result<(), String> {
    static MADE: OnceLock<Result<(), String>> = OnceLock::new();
    MADE.get_or_init(|| make_disk(DISK).map_err(|error| format!("{DISK}: {error}"))).clone()
}

/// What the kernel is told beside the row's name: rows of the contiguous region need one, and others are to be without.
fn parameter_for(words: &[&str]) -> Option<&'static str> {
    words
        .iter()
        .any(|word| word.starts_with("test=") && word.contains("_cma_"))
        .then_some("cma=16M")
}

/// Boots the image where time is instructions, and gives its output.
fn boot(words: &[&str]) -> Result<String, String> {
    if is_of_the_disk(words) {
        have_disk()?;
    }
    let output = command(&["--icount", "5"], words).output();
    let output = output.map_err(|error| format!("scripts/qemu: {error}"))?;
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Ok(said.into_owned());
    }
    Err(format!("{} of {IMAGE} {}:\n{said}{complaints}", output.status, words.join(" ")))
}

/// The rows that the image has.
pub(crate) fn rows() -> Result<Vec<String>, String> {
    let said = boot(&["list"])?;
    Ok(said.lines().filter_map(|line| line.strip_prefix("row ")).map(str::to_owned).collect())
}

/// Measures one row, with so many operations if the image's own number is not wanted.
pub(crate) fn measure(row: &str, operations: Option<u32>) -> Result<Cost, String> {
    let mut words = vec![format!("test={row}")];
    words.extend(operations.map(|operations| format!("operations={operations}")));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = boot(&words)?;
    cost(&said, row).ok_or_else(|| format!("{row}: no figure in what the image said:\n{said}"))
}

/// The figure of `row` in what the image said.
fn cost(said: &str, row: &str) -> Option<Cost> {
    let prefix = format!("cost {row} ");
    let mut numbers = said.lines().find_map(|line| line.strip_prefix(&prefix))?.split(' ');
    let cost = Cost {
        operations: numbers.next()?.parse().ok()?,
        total: numbers.next()?.parse().ok()?,
        first: numbers.next()?.parse().ok()?,
        dearest: numbers.next()?.parse().ok()?,
    };
    numbers.next().is_none().then_some(cost)
}

/// `rustc -V` of the compiler that built the image, as the image's debug information has it.
pub(crate) fn compiler() -> Result<String, String> {
    let bytes = fs::read(IMAGE).map_err(|error| format!("{IMAGE}: {error}"))?;
    let file = object::File::parse(&*bytes).map_err(|error| format!("{IMAGE}: {error}"))?;
    let strings = file.section_by_name(".debug_str").and_then(|section| section.data().ok());
    producer(strings.unwrap_or_default())
        .ok_or_else(|| format!("{IMAGE} does not say which compiler built it"))
}

/// The compiler among the strings of the debug information: `… (rustc version 1.2.3 (hash date) …)`.
fn producer(strings: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(strings);
    let (_, version) = text.split_once("(rustc version ")?;
    let version = version.split('\0').next()?.strip_suffix(')')?;
    Some(format!("rustc {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_contiguous_region_have_one_and_others_have_none() {
        assert_eq!(parameter_for(&["test=dma_coherent_cma_4K", "operations=2"]), Some("cma=16M"));
        assert_eq!(parameter_for(&["test=dma_coherent_sleeping_4K"]), None);
        assert_eq!(parameter_for(&["list"]), None);
    }

    #[test]
    fn rows_of_the_disk_have_one_of_known_bytes_and_others_have_none() {
        assert!(is_of_the_disk(&["test=disk_read_64M_bounced"]));
        assert!(!is_of_the_disk(&["test=vmalloc_to_page", "list"]));
        let path = std::env::temp_dir().join(format!("bench-disk-{}", std::process::id()));
        let path = path.to_str().expect("a name of ours");
        make_disk(path).expect("a file can be made");
        let disk = fs::read(path).expect("it was made");
        let _ = fs::remove_file(path);
        assert_eq!(disk.len(), 64 << 20);
        let place = 17 * (64 << 10) + 4096;
        let word = 17_u32.wrapping_mul(0x9e37_79b1).wrapping_add(3).to_le_bytes();
        assert_eq!(disk[place + 12..place + 16], word);
        assert!(disk[17 << 16..place].iter().all(|&byte| byte == 0));
        assert!(disk[place + 4096..18 << 16].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_figure_is_read_from_its_own_line() {
        let said = "warning: a\ncost a_b 10 95 9 8\ncost a 1000 5999 5 6\n";
        let cost = |row| cost(said, row);
        let a = Cost { operations: 1000, total: 5999, first: 5, dearest: 6 };
        assert_eq!(cost("a"), Some(a));
        assert_eq!(cost("b"), None);
        assert_eq!(cost("a_b").map(|cost| cost.mean()), Some(10), "9.5, and a fraction is a whole");
        assert_eq!(super::cost("cost a 1 2 3\n", "a"), None, "a number is missing");
        assert_eq!(super::cost("cost a 1 2 3 4 5\n", "a"), None, "one too many");
    }

    #[test]
    fn the_compiler_is_known_by_what_it_wrote_into_the_image() {
        let strings = b"core\0clang LLVM (rustc version 1.2.3 (abc 2026-01-02))\0main\0";
        assert_eq!(producer(strings).as_deref(), Some("rustc 1.2.3 (abc 2026-01-02)"));
        assert_eq!(producer(b"clang\0"), None);
    }
}
