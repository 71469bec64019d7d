//! The areas as the kernel prints them when it is asked on its command line, by either image (S91). What each word means is
//! tested in the kernel; here it is that what a user is shown is whole, in order, and adds up.

use crate::disk::Disk;
use crate::pool::Job;
use crate::qemu::{self, Console, DEFAULT_DISK, KERNEL_TESTS, MAPWRIGHT, Machine, Start};

/// The window, if nobody says how large it is to be.
const WINDOW: (u64, u64) = (0xc000_0000, 0xf000_0000);
const PAGE: u64 = 4096;

/// What both images have mapped when they print: the interrupt controller's registers, and the pool.
const WANTED: [&str; 2] = [" pages=1 phys=0x1e001000 ioremap", " user dma"];

/// One of each image.
pub(crate) fn jobs() -> Vec<Job> {
    vec![
        Job::test("run::vmallocinfo_is_printed_when_the_work_is_done_s91", |context| {
            let disk = Disk::random(&context.scratch.join("vmallocinfo.img"), 512, 91)?;
            let words = ["vmallocinfo".to_owned()];
            let machine = Machine::USUAL;
            let ended =
                qemu::boot(machine, Console::Run, &Start::of(MAPWRIGHT), &disk.path, &words)?;
            ended.expect_status(0)?;
            let (_, after) = ended.output.split_once(&disk.sha256).ok_or("no digest")?;
            adds_up(after.trim_start().lines())
        }),
        Job::test("run::vmallocinfo_is_printed_before_the_tests_s91", |_| {
            let words = ["vmallocinfo".to_owned(), "test=none_of_them".to_owned()];
            let (machine, start) = (Machine::USUAL, Start::of(KERNEL_TESTS));
            let ended = qemu::boot(machine, Console::Test, &start, DEFAULT_DISK.as_ref(), &words)?;
            let (before, _) = ended.output.split_once("KTAP").ok_or("no tests")?;
            let said = before.lines().filter_map(|line| line.strip_prefix("# "));
            adds_up(said.skip_while(|line| !line.starts_with("0x")))
        }),
    ]
}

/// Start, end and bytes of an area's line, and the rest of it.
fn parse(line: &str) -> Option<(u64, u64, u64, &str)> {
    let (start, rest) = line.strip_prefix("0x")?.split_once("-0x")?;
    let (end, rest) = rest.split_at_checked(8)?;
    let (bytes, rest) = rest.trim_start().split_once(' ')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?, bytes.parse().ok()?, rest))
}

/// Whether these are areas in the order of their addresses, each with its guard counted and its maker named, and then what they
/// add up to, and nothing more.
fn adds_up<'a>(lines: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut lines: Vec<&str> = lines.collect();
    let totals = lines.pop().ok_or("nothing is listed")?;
    let (mut below, mut usable, mut taken, mut hole) = (WINDOW.0, 0, 0, 0);
    for line in &lines {
        let (start, end, bytes, rest) = parse(line).ok_or(format!("no area: {line}"))?;
        let pages = bytes / PAGE - 1;
        if start < below || end - start != bytes || !bytes.is_multiple_of(PAGE) {
            return Err(format!("out of order, or of a wrong size: {line}"));
        }
        let (caller, words) = rest.split_once(' ').ok_or(format!("no words: {line}"))?;
        let is_named = caller.split_once("+0x").is_some_and(|(name, within)| {
            let number = |text| u64::from_str_radix(text, 16).ok();
            let (offset, size) = within.split_once("/0x").unwrap_or_default();
            let lies_within = number(offset).zip(number(size)).is_some_and(|(at, of)| at < of);
            !name.is_empty() && lies_within
        });
        if !is_named || words.split(' ').next() != Some(&format!("pages={pages}")) {
            return Err(format!("no caller, or wrong pages: {line}"));
        }
        (hole, below) = (hole.max(start - below), end);
        (usable, taken) = (usable + pages * PAGE, taken + bytes);
    }
    let hole = hole.max(WINDOW.1 - below);
    let wanted = format!(
        "{} areas, {} KiB, 0 unpurged; {} of {} KiB of addresses taken, largest hole {} KiB",
        lines.len(),
        usable >> 10,
        taken >> 10,
        (WINDOW.1 - WINDOW.0) >> 10,
        hole >> 10
    );
    if totals != wanted {
        return Err(format!("{totals}\nis not what was added up:\n{wanted}"));
    }
    let is_missing = |wanted: &&str| !lines.iter().any(|line| line.ends_with(wanted));
    WANTED
        .iter()
        .find(|wanted| is_missing(wanted))
        .map_or(Ok(()), |wanted| Err(format!("no line ends with {wanted}:\n{}", lines.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 3] = [
        "0xc0000000-0xc0002000      8192 main+0x48/0x2c8 pages=1 phys=0x1e001000 ioremap",
        "0xc0040000-0xc0081000    266240 main+0x10/0x2c8 pages=64 phys=0x7ff00000 user dma",
        "2 areas, 260 KiB, 0 unpurged; 268 of 786432 KiB of addresses taken, largest hole 785916 KiB",
    ];

    #[test]
    fn a_listing_that_is_in_order_and_adds_up_is_good() {
        assert_eq!(adds_up(GOOD.into_iter()), Ok(()));
    }

    #[test]
    fn whatever_is_changed_or_missing_is_noticed() {
        assert!(adds_up([].into_iter()).is_err());
        for left_out in 0..3 {
            let left = GOOD.iter().enumerate().filter(|(index, _)| *index != left_out);
            assert!(adds_up(left.map(|(_, line)| *line)).is_err(), "without {left_out}");
        }
        assert!(adds_up([GOOD[1], GOOD[0], GOOD[2]].into_iter()).is_err(), "the order");
        for (line, from, to) in [
            (0, "8192", "4096"),
            (0, "pages=1", "pages=2"),
            (0, "main+0x48/0x2c8", "0x80010000"),
            (0, "/0x2c8", ""),
            (0, "+0x48", "+0x2c8"),
            (0, " ioremap", ""),
            (1, "-0xc0081000", "-0xc0080000"),
            (1, " user dma", " user"),
            (2, "2 areas", "3 areas"),
            (2, "hole 785916", "hole 785920"),
        ] {
            let mut lines = GOOD.map(String::from);
            lines[line] = lines[line].replace(from, to);
            assert!(adds_up(lines.iter().map(String::as_str)).is_err(), "{}", lines[line]);
        }
    }
}
