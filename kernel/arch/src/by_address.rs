//! Which addresses maintenance by address has to name: one in every line, or page, that a range touches.
//!
//! The emulator has no cache and flushes more than it is told, so nothing that runs there shows one too few. What names
//! them is therefore apart from the instructions that are issued for them, and tested on the host.

use kerncore::addr::{PAGE_SIZE, PageRange};
use kerncore::descriptor::SLOT_SIZE;

/// Names each line of `line` bytes, a power of two, that `bytes` from `start` touch, `AHEAD` lines a turn. A range that
/// would pass the top ends there.
#[inline(always)]
pub(crate) fn each_line<const AHEAD: u32>(
    start: u32,
    bytes: u32,
    line: u32,
    mut name: impl FnMut(u32),
) {
    if bytes == 0 {
        return;
    }
    let last = start.saturating_add(bytes - 1);
    let mut address = start & !(line - 1);
    // What lies behind the first byte of the line at `address`, up to the last byte of the range.
    let mut behind = last.wrapping_sub(address);
    let turn = line * AHEAD;
    while AHEAD > 1 && behind >= turn {
        for _ in 0..AHEAD {
            name(address);
            address = address.wrapping_add(line);
        }
        behind = behind.wrapping_sub(turn);
    }
    loop {
        name(address);
        if behind < line {
            return;
        }
        address = address.wrapping_add(line);
        behind = behind.wrapping_sub(line);
    }
}

/// Names each line of `line` bytes that `count` descriptors from the slot at `first` touch: seldom more than one or two, of many
/// four a turn. They lie in one table, or in an array of tables, which does not pass the top.
#[inline(always)]
pub(crate) fn each_line_of_slots(first: u32, count: u32, line: u32, mut name: impl FnMut(u32)) {
    const AHEAD: u32 = 4;
    if count == 0 {
        return;
    }
    // What is left of the slots, counted from the beginning of the line at `address`. Slots are aligned words: a single one lies
    // in one line, whichever it is.
    let mut left = (first & (line - SLOT_SIZE)).wrapping_add(count.wrapping_mul(SLOT_SIZE));
    let mut address = first & !(line - 1);
    while left > line * AHEAD {
        for _ in 0..AHEAD {
            name(address);
            address = address.wrapping_add(line);
        }
        left -= line * AHEAD;
    }
    loop {
        name(address);
        if left <= line {
            return;
        }
        address = address.wrapping_add(line);
        left -= line;
    }
}

/// Names each of `pages`, `AHEAD` a turn.
#[inline(always)]
pub(crate) fn each_page<const AHEAD: u32>(pages: PageRange, mut name: impl FnMut(u32)) {
    let mut address = pages.start().raw();
    let mut left = pages.count();
    while left >= AHEAD {
        for _ in 0..AHEAD {
            name(address);
            // Wrapping: the page behind the last one may be the first.
            address = address.wrapping_add(PAGE_SIZE);
        }
        left -= AHEAD;
    }
    while left > 0 {
        name(address);
        address = address.wrapping_add(PAGE_SIZE);
        left -= 1;
    }
}

/// Where in `[start, end)` the whole lines of `line` bytes begin and end. Before and behind them lie parts of lines.
pub(crate) fn whole_lines(start: u32, end: u32, line: u32) -> (u32, u32) {
    let first = start.checked_next_multiple_of(line).unwrap_or(end).min(end);
    (first, (end & !(line - 1)).max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is named, in order.
    fn named(run: impl FnOnce(&mut dyn FnMut(u32))) -> Vec<u32> {
        let mut named = Vec::new();
        run(&mut |address| named.push(address));
        named
    }

    /// The lines of the range's bytes, found byte by byte.
    fn touched(start: u32, bytes: u32, line: u32) -> Vec<u32> {
        let end = u64::from(start) + u64::from(bytes);
        let bytes = (start..=u32::MAX).take_while(|&byte| u64::from(byte) < end);
        let mut lines: Vec<u32> = bytes.map(|byte| byte / line * line).collect();
        lines.dedup();
        lines
    }

    #[test]
    fn every_line_that_a_range_touches_is_named_once_and_no_other() {
        let top = u32::MAX - 300;
        for line in [4, 32, 64] {
            for start in (0x1000..0x1000 + line).chain(top..top + line) {
                for bytes in (0..=5).chain(28..=36).chain((60..=68).step_by(4)).chain(250..=330) {
                    let wanted = touched(start, bytes, line);
                    let what = format!("{bytes} bytes from {start:#x}, lines of {line}");
                    assert_eq!(
                        named(|name| each_line::<1>(start, bytes, line, name)),
                        wanted,
                        "{what}"
                    );
                    assert_eq!(
                        named(|name| each_line::<4>(start, bytes, line, name)),
                        wanted,
                        "{what}"
                    );
                    assert_eq!(
                        named(|name| each_line::<8>(start, bytes, line, name)),
                        wanted,
                        "{what}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_line_with_a_slot_in_it_is_named_s16a() {
        for first in (0x8000..0x8040).step_by(4) {
            for count in 0..=100 {
                let named = named(|name| each_line_of_slots(first, count, 32, name));
                assert_eq!(named, touched(first, count * 4, 32), "{count} from {first:#x}");
            }
        }
    }

    #[test]
    fn every_page_of_a_range_is_named_once_and_no_other_s21() {
        for count in 1..=50 {
            for first in [0, 7, (1 << 20) - count] {
                let pages = PageRange::from_numbers(first, count).expect("inside");
                let wanted: Vec<u32> = (first..first + count).map(|page| page << 12).collect();
                assert_eq!(named(|name| each_page::<16>(pages, name)), wanted);
            }
        }
    }

    #[test]
    fn a_line_that_is_partly_another_s_is_not_a_whole_one() {
        for start in 0x100..0x140 {
            for end in start..start + 130 {
                let (first, behind) = whole_lines(start, end, 32);
                let whole = |line: &u32| *line >= start && line + 32 <= end;
                let wanted: Vec<u32> =
                    touched(start, end - start, 32).into_iter().filter(whole).collect();
                let found: Vec<u32> = (first..behind).step_by(32).collect();
                assert_eq!(found, wanted, "{start:#x} to {end:#x}");
                assert!(start <= first && first <= behind && behind <= end);
            }
        }
        assert_eq!(whole_lines(0xffff_ffe1, u32::MAX, 32), (u32::MAX, u32::MAX));
    }
}
