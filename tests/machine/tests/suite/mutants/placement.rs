//! Where an area goes: `VaSpace`, and a walk over a sorted list as the seed does it, with one check of the seed's
//! missing.

use super::{Verdict, board, same};
use crate::support::{ROOT, pages};
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    owned_range::OwnedRange,
    page_table::PageTable,
    va_space::{Alignment, Request, VaSpace, VaStorage, Window},
};
use machine::{Behaviour, HostLocks, SoftMachine};

const TOP: u64 = 1 << 32;
const PAGE: u64 = PAGE_SIZE as u64;
const MIB: u32 = 1 << 20;

/// What is asked for: bytes, an alignment as a power of two of pages, and bounds in bytes.
#[derive(Clone, Copy, Debug)]
struct Ask {
    bytes: u32,
    order: u32,
    start: u64,
    end: u64,
}

/// A set of areas inside one run of addresses.
trait Placement {
    /// The base of the lowest place, which is then taken, guard and all.
    fn take(&mut self, ask: Ask) -> Option<u64>;

    /// Usable bytes of the area at `base`.
    fn usable(&self, base: u64) -> Option<u64>;
}

/// Who makes one.
trait Placements {
    /// From the address `first`, so many pages, all free.
    fn make(&self, first: u64, pages: u32) -> Box<dyn Placement>;
}

/// `kerncore`'s.
struct Right;

struct Ours {
    space: VaSpace<'static, ()>,
    held: Vec<OwnedRange>,
}

impl Placements for Right {
    fn make(&self, first: u64, count: u32) -> Box<dyn Placement> {
        // The right to addresses comes from a page table, which is not used here.
        let machine = SoftMachine::new(Behaviour::Forgetful, 1, ROOT);
        let first = u32::try_from(first / PAGE).expect("a page number");
        let (_, range) = PageTable::<_, HostLocks>::new(machine.cpu(0), ROOT, pages(first, count));
        let books = vec![0; VaStorage::<()>::words(count)].leak();
        let records = vec![None; count as usize].leak();
        let storage = VaStorage::carve(books, records, count).expect("enough words");
        let space = VaSpace::new(range, storage).expect("enough storage");
        Box::new(Ours { space, held: Vec::new() })
    }
}

impl Placement for Ours {
    fn take(&mut self, ask: Ask) -> Option<u64> {
        let address = |at: u64| u32::try_from(at).map(VirtAddr::new);
        let start = address(ask.start).ok()?;
        let window = match address(ask.end) {
            Ok(end) => Window::new(start, end),
            Err(_) => Window::to_top(start),
        };
        let alignment = Alignment::Order(ask.order);
        let request = Request { bytes: ask.bytes, window: Some(window), alignment };
        let area = self.space.reserve(&request).ok()?;
        let base = area.start().raw().into();
        self.held.push(area);
        Some(base)
    }

    fn usable(&self, base: u64) -> Option<u64> {
        let area = self.held.iter().find(|area| u64::from(area.start().raw()) == base)?;
        Some(area.pages().bytes().into())
    }
}

/// How the walk came to the place that it is about to grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// There is no area at all.
    EmptyList,
    /// All areas lie below the first candidate, which never moved.
    AllBelow,
    /// The last area straddled the first candidate, which then moved behind it.
    Straddled,
    /// Alignment had jumped into or over the last area.
    Jumped,
    /// Behind an area that was stepped over: where the seed does check.
    SteppedOver,
    /// In the gap below an area.
    Gap,
}

/// A check that is missing, or arithmetic that wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slip {
    /// None: as SPEC says.
    Mended,
    /// S7: the window's end is not looked at on this path.
    NoEndCheck(Path),
    /// S7: end minus size wraps below zero.
    EndMinusSizeWraps,
    /// S6: candidate plus size wraps past 2³².
    SumWraps,
    /// S6: rounding a candidate up wraps to zero.
    RoundingWraps,
    /// S3: adding the guard wraps to zero.
    GuardWraps,
}

impl Placements for Slip {
    fn make(&self, first: u64, pages: u32) -> Box<dyn Placement> {
        let end = first + u64::from(pages) * PAGE;
        Box::new(List { areas: Vec::new(), bounds: (first, end), slip: *self })
    }
}

/// Areas by base, with their bytes, guard included.
struct List {
    areas: Vec<(u64, u64)>,
    bounds: (u64, u64),
    slip: Slip,
}

/// As 32 bits would have it, if `slip` is to let it wrap.
const fn wrapped(wraps: bool, sum: u64) -> u64 {
    if wraps { sum & (TOP - 1) } else { sum }
}

impl List {
    fn round_up(&self, at: u64, order: u32) -> u64 {
        let rounded = at.next_multiple_of(PAGE << order.min(20));
        wrapped(self.slip == Slip::RoundingWraps, rounded)
    }

    /// Whether `size` bytes from `at` end by `end`, judged as `slip` does on `path`.
    fn ends_within(&self, (at, size): (u64, u64), end: u64, path: Path) -> bool {
        match self.slip {
            Slip::NoEndCheck(unchecked) if unchecked == path => true,
            Slip::EndMinusSizeWraps => at <= wrapped(true, end.wrapping_sub(size)),
            slip => wrapped(slip == Slip::SumWraps, at + size) <= end,
        }
    }
}

impl Placement for List {
    fn take(&mut self, ask: Ask) -> Option<u64> {
        let usable = u64::from(ask.bytes).next_multiple_of(PAGE);
        let size = wrapped(self.slip == Slip::GuardWraps, usable + PAGE);
        if usable == 0 || usable + PAGE > TOP {
            return None;
        }
        if self.slip != Slip::GuardWraps && size == TOP {
            return None;
        }
        let (start, end) = (ask.start.max(self.bounds.0), ask.end.min(self.bounds.1));
        let mut at = self.round_up(start, ask.order);
        let mut path = if self.areas.is_empty() { Path::EmptyList } else { Path::AllBelow };
        let mut place = self.areas.len();
        for (index, &(base, taken)) in self.areas.iter().enumerate() {
            if base < at {
                if base + taken > at {
                    at = self.round_up(base + taken, ask.order);
                    path = match path {
                        Path::AllBelow => Path::Straddled,
                        _ => Path::Jumped,
                    };
                }
                continue;
            }
            if at + size <= base {
                (place, path) = (index, Path::Gap);
                break;
            }
            at = self.round_up(base + taken, ask.order);
            path = Path::SteppedOver;
        }
        if !self.ends_within((at, size), end, path) {
            return None;
        }
        self.areas.insert(place, (at, size));
        self.areas.sort_unstable();
        Some(at)
    }

    fn usable(&self, base: u64) -> Option<u64> {
        let (_, size) = self.areas.iter().find(|area| area.0 == base)?;
        Some(size.saturating_sub(PAGE))
    }
}

/// `count` pages on any page, between two addresses.
fn ask(count: u32, start: u64, end: u64) -> Ask {
    Ask { bytes: count * PAGE_SIZE, order: 0, start, end }
}

/// `count` pages at an alignment, anywhere.
fn aligned(count: u32, order: u32) -> Ask {
    Ask { order, ..ask(count, 0, TOP) }
}

const BASE: u64 = 0xc000_0000;

/// S3: a size that its guard would wrap is refused, not made an area without a byte.
fn a_size_that_its_guard_would_wrap_is_refused(placements: &impl Placements) -> Verdict {
    let mut space = placements.make(BASE, 256);
    for bytes in [0xffff_efff, 0xffff_f000, 0xffff_f001, u32::MAX, 0] {
        let base = space.take(Ask { bytes, ..ask(0, 0, TOP) });
        same(
            &format!("{bytes:#x} bytes, of {:?}", base.and_then(|at| space.usable(at))),
            &base,
            &None,
        )?;
    }
    same("one page", &space.take(ask(1, 0, TOP)), &Some(BASE))?;
    same("its usable bytes", &space.usable(BASE), &Some(PAGE))
}

/// S6: no sum passes the top of memory.
fn nothing_passes_the_top_of_memory(placements: &impl Placements) -> Verdict {
    let first = 0xffff_0000;
    let mut space = placements.make(first, 16);
    for count in [16, 17, 0x100] {
        same(&format!("{count} pages below the top"), &space.take(ask(count, first, TOP)), &None)?;
    }
    same("to the top, guard and all", &space.take(ask(15, first, TOP)), &Some(first))
}

/// S6: what is rounded up past the top does not begin at zero.
fn rounding_up_past_the_top_of_memory_fails(placements: &impl Placements) -> Verdict {
    let mut space = placements.make(0xffff_0000, 16);
    for order in [4, 5, 19] {
        let place = space.take(Ask { order, ..ask(1, 0xffff_1000, TOP) });
        same(&format!("aligned to 2^{order} pages"), &place, &None)?;
    }
    same("aligned to 8 pages", &space.take(aligned(1, 3)), &Some(0xffff_0000))
}

/// S7, in a space without an area.
fn an_empty_space_grants_nothing_beyond_its_end(placements: &impl Placements) -> Verdict {
    for count in [16, 17, 0x8_0000] {
        let mut space = placements.make(BASE, 16);
        same(&format!("{count} pages of 16"), &space.take(ask(count, 0, TOP)), &None)?;
    }
    let mut space = placements.make(BASE, 16);
    same("15 pages and their guard", &space.take(ask(15, 0, TOP)), &Some(BASE))
}

/// S7, where the window begins above all areas.
fn a_window_above_all_areas_holds_its_end(placements: &impl Placements) -> Verdict {
    let mut space = placements.make(BASE, 64);
    same("an area below", &space.take(ask(1, 0, TOP)), &Some(BASE))?;
    let (start, end) = (BASE + 0x4000, BASE + 0x8000);
    same("four pages of four", &space.take(ask(4, start, end)), &None)?;
    same("three", &space.take(ask(3, start, end)), &Some(start))
}

/// S7, where an area straddles the window's start.
fn an_area_across_the_windows_start_is_stepped_over_within_the_end(
    placements: &impl Placements,
) -> Verdict {
    let mut space = placements.make(BASE, 64);
    same("pages 0 to 9", &space.take(ask(9, 0, TOP)), &Some(BASE))?;
    let (start, end) = (BASE + 0x4000, BASE + 0x1_0000);
    same("six pages of six", &space.take(ask(6, start, end)), &None)?;
    same("five", &space.take(ask(5, start, end)), &Some(BASE + 0xa000))
}

/// S7, where rounding up behind one area leads into the next, which is the last.
fn alignment_that_jumps_over_the_last_area_stays_within_the_end(
    placements: &impl Placements,
) -> Verdict {
    let mut space = placements.make(BASE, 12);
    same("pages 0 to 1", &space.take(ask(1, 0, TOP)), &Some(BASE))?;
    same("pages 3 to 5", &space.take(ask(2, BASE + 0x3000, TOP)), &Some(BASE + 0x3000))?;
    // Behind the first at page 4, which is the second's; behind that at page 8, where four pages are left.
    same("four pages on a multiple of four", &space.take(aligned(4, 2)), &None)?;
    same("three", &space.take(aligned(3, 2)), &Some(BASE + 0x8000))
}

/// S7, with an area of another window above.
fn a_gap_below_a_foreign_area_ends_with_the_window(placements: &impl Placements) -> Verdict {
    let mut space = placements.make(BASE, 0x3_0000);
    let foreign = space.take(ask(1, 0xe000_0000, 0xf000_0000));
    same("an area of another window", &foreign, &Some(0xe000_0000))?;
    let end = BASE + u64::from(MIB);
    same("2 MiB of 1 MiB", &space.take(ask(512, BASE, end)), &None)?;
    same("1 MiB without its guard", &space.take(ask(256, BASE, end)), &None)?;
    same("1 MiB less a page", &space.take(ask(255, BASE, end)), &Some(BASE))
}

/// S7: the size is larger than the address at which the window ends.
fn a_size_larger_than_its_windows_end_does_not_underflow(placements: &impl Placements) -> Verdict {
    let mut space = placements.make(0x1_0000, 64);
    for count in [64, 0x1000, 0x8_0000] {
        let place = space.take(ask(count, 0x1_0000, 0x2_0000));
        same(&format!("{count} pages of 16"), &place, &None)?;
    }
    same("15 pages of 16", &space.take(ask(15, 0x1_0000, 0x2_0000)), &Some(0x1_0000))
}

board! {
    a_size_that_its_guard_would_wrap_is_refused(Right, Slip::Mended) {
        guard_wraps_the_size: "S3", "0xfffff000 bytes and a guard are none", Slip::GuardWraps;
    }
    nothing_passes_the_top_of_memory(Right, Slip::Mended) {
        sum_wraps: "S6", "candidate plus size wraps past the top", Slip::SumWraps;
    }
    rounding_up_past_the_top_of_memory_fails(Right, Slip::Mended) {
        rounding_wraps: "S6", "a candidate rounded up wraps to zero", Slip::RoundingWraps;
    }
    an_empty_space_grants_nothing_beyond_its_end(Right, Slip::Mended) {
        end_unchecked_in_an_empty_list: "S7", "no look at the end without an area", Slip::NoEndCheck(Path::EmptyList);
    }
    a_window_above_all_areas_holds_its_end(Right, Slip::Mended) {
        end_unchecked_above_all_areas: "S7", "no look at the end when all areas lie below", Slip::NoEndCheck(Path::AllBelow);
    }
    an_area_across_the_windows_start_is_stepped_over_within_the_end(Right, Slip::Mended) {
        end_unchecked_behind_a_straddler: "S7", "no look at the end behind an area across the start", Slip::NoEndCheck(Path::Straddled);
    }
    alignment_that_jumps_over_the_last_area_stays_within_the_end(Right, Slip::Mended) {
        end_unchecked_after_a_jump: "S7", "no look at the end when alignment jumped over the last area", Slip::NoEndCheck(Path::Jumped);
    }
    a_gap_below_a_foreign_area_ends_with_the_window(Right, Slip::Mended) {
        end_unchecked_in_a_gap: "S7", "no look at the end in a gap below another window's area", Slip::NoEndCheck(Path::Gap);
    }
    a_size_larger_than_its_windows_end_does_not_underflow(Right, Slip::Mended) {
        end_minus_size_underflows: "S7", "end minus size wraps below zero", Slip::EndMinusSizeWraps;
    }
}
