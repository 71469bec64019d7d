//! vmalloc on the live tables (S1 to S8, S16, S24, S26 to S30, S86, S88, S112).

extern crate alloc;

use alloc::vec::Vec;
use core::hint::black_box;

use arch::exception::{Access, FaultStatus};
use arch::{probe, symbols};
use kerncore::addr::{PAGE_SIZE, PAGES_PER_SECTION, SECTION_SIZE, pages_for};
use kerncore::area::{AreaFlags, AreaKind, WITHIN};
use kerncore::attributes::Attributes;
use kerncore::frames::{AllocateError, FrameOwner};
use kerncore::kernel_space::{Fill, VmallocError};
use ktest::{assert_err, ktest};
use mm::kernel;
use mm::vm_area::VmArea;

use super::witness::{
    Books, NOBODY, Numbers, areas_by_address, assert_absent, assert_fenced, assert_leads, byte_at,
    each_page, feed, frame_at, guard_of, last_of, lowest_fit, minus, plus, starve, word_at,
};

/// Bytes that are compared at once.
const ROW: usize = 256;
/// Every byte in order, twice.
static BYTES: [u8; 2 * ROW] = {
    let mut bytes = [0; 2 * ROW];
    let (mut index, mut byte) = (0, 0_u8);
    while index < bytes.len() {
        bytes[index] = byte;
        byte = byte.wrapping_add(1);
        index += 1;
    }
    bytes
};

/// What row `row` of area `area` holds in these tests: it differs between areas, pages and neighbours.
fn pattern(area: usize, row: usize) -> &'static [u8] {
    let page = row * ROW / PAGE_SIZE as usize;
    let first = (area * 31 + page * 7) % ROW;
    &BYTES[first..first + ROW]
}

/// Whether a row is looked at: the first and the last of each page. What can be mixed up is pages.
const fn is_looked_at(row: usize) -> bool {
    let rows = PAGE_SIZE as usize / ROW;
    row.is_multiple_of(rows) || (row + 1).is_multiple_of(rows)
}

fn fill(area: &mut VmArea, number: usize) {
    for (row, bytes) in area.chunks_mut(ROW).enumerate().filter(|&(row, _)| is_looked_at(row)) {
        bytes.copy_from_slice(&pattern(number, row)[..bytes.len()]);
    }
}

#[track_caller]
fn assert_filled(area: &VmArea, number: usize) {
    let mut rows = area.chunks(ROW).enumerate().filter(|&(row, _)| is_looked_at(row));
    let wrong = rows.find(|&(row, bytes)| *bytes != pattern(number, row)[..bytes.len()]);
    assert_eq!(wrong, None, "area {number} at {}", area.address());
}

#[track_caller]
fn vmalloc(bytes: u32) -> VmArea {
    VmArea::new(bytes).unwrap_or_else(|error| panic!("{bytes:#x} bytes: {error}"))
}

#[ktest]
fn no_bytes_are_refused_and_change_nothing_s3_s26() {
    let books = Books::now();
    assert_err!(VmArea::new(0), VmallocError::ZeroSize);
    assert_err!(VmArea::zeroed(0), VmallocError::ZeroSize);
    books.assert_unchanged();
}

/// The three sizes at which rounding up, or adding the guard, would wrap to nothing; and one page more than RAM.
#[ktest]
fn sizes_at_the_wrap_and_beyond_ram_are_refused_and_change_nothing_s3_s26() {
    let books = Books::now();
    let ram = kernel().zones().total();
    let sizes = [
        (0xffff_efff, 0xf_ffff),
        (0xffff_f000, 0xf_ffff),
        (0xffff_f001, 0x10_0000),
        (0xffff_ffff, 0x10_0000),
        (ram * PAGE_SIZE + 1, ram + 1),
    ];
    for (bytes, pages) in sizes {
        for fill in [Fill::Uninitialised, Fill::Zeroed] {
            let refused = kernel().vmalloc(bytes, fill, NOBODY);
            let wanted = VmallocError::MoreThanMemory { wanted: pages, total: ram };
            assert_eq!(refused, Err(wanted), "{bytes:#x} bytes");
            books.assert_unchanged();
        }
    }
}

/// As many pages as RAM has are not too many by S26, but the kernel has some of them: whatever refuses it leaves nothing.
#[ktest]
fn all_of_ram_is_asked_for_in_vain_and_changes_nothing_s28() {
    let books = Books::now();
    let ram = kernel().zones().total();
    let refused = kernel().vmalloc(ram * PAGE_SIZE, Fill::Uninitialised, NOBODY);
    assert_err!(refused, VmallocError::Frames(_) | VmallocError::Area(_));
    books.assert_unchanged();
}

#[ktest]
fn sizes_are_rounded_up_to_pages_and_a_guard_follows_s2_s3() {
    let sizes =
        [1, 2, 4095, 4096, 4097, 8191, 8192, 8193, 12345, (1 << 20) - 1, 1 << 20, (1 << 20) + 1];
    for bytes in sizes {
        let area = vmalloc(bytes);
        let pages = area.pages();
        assert_eq!(pages.count(), pages_for(bytes), "{bytes:#x} bytes");
        assert_eq!(area.len(), pages.bytes() as usize);
        assert!(kernel().window().contains(guard_of(pages)), "the guard lies in the window");
        let found = kernel().find(area.address()).expect("a live area");
        assert_eq!(found.bytes_with_guard(), pages.bytes() + PAGE_SIZE);
        assert_eq!((found.kind, found.flags), (AreaKind::Vmalloc, AreaFlags::ALLOC));
        let _readable = byte_at(last_of(pages));
        assert_fenced(pages);
    }
}

/// S16: one frame a page, each the area's own. Both walkers agree on every one.
#[ktest]
fn every_page_has_a_frame_of_its_own_which_vmalloc_owns_s16() {
    // Beside them, what their pointers take (S27).
    for (bytes, array) in
        [(PAGE_SIZE, 0), (17 * PAGE_SIZE, 1), (300 * PAGE_SIZE, 1), (1025 * PAGE_SIZE, 2)]
    {
        let before = kernel().zones().table().census().of(FrameOwner::Vmalloc);
        let area = vmalloc(bytes);
        let after = kernel().zones().table().census().of(FrameOwner::Vmalloc);
        assert_eq!(after - before, area.pages().count() + array);
        let mut frames: Vec<_> = each_page(area.pages()).map(frame_at).collect();
        for (page, &frame) in each_page(area.pages()).zip(&frames) {
            let physical = frame.base().checked_add(0xabc).expect("inside a frame");
            assert_leads(plus(page, 0xabc), physical);
            assert_eq!(kernel().zones().table().owner_of(frame), FrameOwner::Vmalloc);
        }
        frames.sort_unstable();
        frames.dedup();
        assert_eq!(frames.len(), area.pages().count() as usize, "a frame stands behind two pages");
    }
}

/// S27's boundary of the seeds, 1,024 and 1,025 pages, and sizes around a section, each to its last byte.
#[ktest]
fn many_areas_keep_their_bytes_while_others_come_and_go() {
    const SIZES: [u32; 10] = [
        1,
        4096,
        4097,
        65_537,
        SECTION_SIZE - 4096,
        SECTION_SIZE,
        SECTION_SIZE + 1,
        1024 * 4096,
        1025 * 4096,
        12_345,
    ];
    let books = Books::now();
    let mut areas: Vec<(usize, VmArea)> = Vec::new();
    for number in 0..40 {
        let mut area = vmalloc(SIZES[number % SIZES.len()]);
        fill(&mut area, number);
        areas.push((number, area));
    }
    let mut numbers = Numbers::new(0x5eed);
    for number in 40..80 {
        let victim = numbers.below(40) as usize;
        let (old, area) = areas.swap_remove(victim);
        assert_filled(&area, old);
        drop(area);
        let mut area = vmalloc(SIZES[number % SIZES.len()]);
        fill(&mut area, number);
        areas.push((number, area));
    }
    for (number, area) in &areas {
        assert_filled(area, *number);
    }
    drop(areas);
    books.assert_unchanged();
}

#[ktest]
fn zeroed_memory_is_zero_to_its_last_page_after_dirty_frees_s86() {
    const BYTES: u32 = 300_001;
    let dirty = |count: u32| {
        let areas: Vec<_> = (0..count).map(|_| vmalloc(BYTES)).collect();
        for mut area in areas {
            area.fill(0xa5);
        }
    };
    dirty(8);
    let uninitialised = vmalloc(BYTES);
    assert!(uninitialised.contains(&0xa5), "no frame came back dirty: this test has no teeth");
    drop(uninitialised);
    dirty(8);
    for _ in 0..8 {
        let area = VmArea::zeroed(BYTES).expect("memory");
        let left = area.iter().position(|&byte| byte != 0);
        assert_eq!(left, None, "a byte that is not zero");
    }
}

/// S112, by entry and by trial: the code is one harmless return.
#[ktest]
fn vmalloc_memory_can_be_written_and_never_executed_s112() {
    const RETURN: u32 = 0xe12f_ff1e; // bx lr
    let mut area = vmalloc(3 * PAGE_SIZE);
    for page in area.chunks_exact_mut(PAGE_SIZE as usize) {
        page[..4].copy_from_slice(&RETURN.to_le_bytes());
    }
    for page in each_page(area.pages()) {
        let entry = kernel().table().translate(page).expect("an entry");
        assert_eq!(entry.attributes(), Ok(Attributes::KERNEL_DATA));
        assert_eq!(entry.descriptor() & 1, 1, "XN is bit 0 of a small page");
        // SAFETY: if it could be executed, it would return at once.
        let executed = unsafe { probe::execute(page) };
        let fault = executed.expect_err("the memory was executed");
        assert!(matches!(fault.status, FaultStatus::Permission(_)), "{fault}");
        assert_eq!((fault.access, fault.address), (Access::Execute, Some(page)));
    }
}

#[ktest]
fn a_freed_address_faults_at_once_on_every_page_s23() {
    for pages in [1, 2, 33, 257] {
        let area = vmalloc(pages * PAGE_SIZE);
        let range = area.pages();
        each_page(range).for_each(|page| {
            let _remembered = byte_at(page);
        });
        drop(area);
        each_page(range).for_each(assert_absent);
    }
}

/// S1, S2: single-page holes, holes that guards join, and the order of addresses, against nothing but arithmetic.
#[ktest]
fn a_freed_run_with_its_guards_is_one_hole_and_no_smaller_hole_is_used_s1_s2() {
    // Above everything that is there, so that all holes are of this test's making.
    let mut plugs = Vec::new();
    let highest = loop {
        let area = vmalloc(PAGE_SIZE);
        let address = area.address();
        plugs.push(area);
        if areas_by_address().all(|area| area.pages.start() <= address) {
            break address;
        }
    };
    let mut areas: [Option<VmArea>; 8] = core::array::from_fn(|_| Some(vmalloc(PAGE_SIZE)));
    let base = areas[0].as_ref().expect("just made").address();
    let slot = |number: u32| plus(base, number * 2 * PAGE_SIZE);
    assert_eq!(base, plus(highest, 2 * PAGE_SIZE));
    for (number, area) in (0..).zip(&areas) {
        assert_eq!(area.as_ref().map(VmArea::address), Some(slot(number)), "one page, one guard");
    }
    (areas[1], areas[5]) = (None, None);
    let two = vmalloc(2 * PAGE_SIZE);
    assert_eq!(two.address(), slot(8), "two pages and a guard do not fit a hole of two");
    let one = vmalloc(PAGE_SIZE);
    assert_eq!(one.address(), slot(1), "the lower of two holes");
    (areas[4], areas[6]) = (None, None);
    let six = vmalloc(6 * PAGE_SIZE);
    assert_eq!(six.address(), plus(slot(8), 3 * PAGE_SIZE), "six and a guard do not fit six");
    let five = vmalloc(5 * PAGE_SIZE);
    assert_eq!(five.address(), slot(4), "three areas and their guards are one hole");
}

#[ktest]
fn every_area_lies_at_the_lowest_fit_whatever_was_freed_s1() {
    let books = Books::now();
    let mut numbers = Numbers::new(0xf175);
    let mut live: Vec<VmArea> = Vec::new();
    for step in 0..600 {
        if !live.is_empty() && numbers.below(100) < 45 {
            let victim = numbers.below(u32::try_from(live.len()).expect("few")) as usize;
            live.swap_remove(victim);
            continue;
        }
        let pages = 1 + numbers.below(if step % 10 == 0 { 300 } else { 12 });
        let wanted = lowest_fit(pages, 0);
        let area = vmalloc(pages * PAGE_SIZE - numbers.below(PAGE_SIZE));
        assert_eq!(Some(area.address()), wanted, "step {step}: {pages} pages");
        live.push(area);
    }
    drop(live);
    books.assert_unchanged();
}

#[ktest]
fn three_thousand_areas_live_at_once_and_each_is_found_s13_s88() {
    const COUNT: usize = 3000;
    let books = Books::now();
    let mut areas: Vec<VmArea> = Vec::with_capacity(COUNT);
    for number in 0..COUNT {
        let mut area = vmalloc(if number % 7 == 0 { 2 * PAGE_SIZE } else { 1 });
        let tag = u32::try_from(number).expect("few").to_le_bytes();
        area[..4].copy_from_slice(&tag);
        let last = area.len() - 4;
        area[last..].copy_from_slice(&tag);
        areas.push(area);
    }
    let listed: Vec<_> = areas_by_address().map(|area| area.pages.start()).collect();
    assert!(listed.is_sorted());
    assert!(listed.len() >= COUNT);
    for area in &areas {
        let pages = area.pages();
        let found = kernel().find(pages.start()).expect("found by its base");
        assert_eq!(found.pages, pages);
        for inside in [pages.start(), plus(pages.start(), 2), last_of(pages)] {
            assert_eq!(kernel().find_containing(inside), Some(found));
        }
        assert_eq!(kernel().find(plus(pages.start(), 4)), None, "S13: the exact base only");
        assert_eq!(kernel().find(last_of(pages)), None);
        for guard in [guard_of(pages), plus(guard_of(pages), PAGE_SIZE - 1)] {
            assert_eq!((kernel().find(guard), kernel().find_containing(guard)), (None, None));
        }
        assert_eq!(kernel().next_area(pages.start()), Some(found));
        assert!(listed.binary_search(&pages.start()).is_ok(), "listed");
    }
    // 1,009 is prime to 3,000, so each is met once, in an odd order.
    let mut areas: Vec<_> = areas.into_iter().map(Some).collect();
    for step in 0..COUNT {
        let number = step * 1009 % COUNT;
        let area = areas[number].take().expect("met once");
        let tag = u32::try_from(number).expect("few");
        assert_eq!(word_at(area.address()), tag);
        assert_eq!(word_at(minus(guard_of(area.pages()), 4)), tag);
        let base = area.address();
        drop(area);
        assert_eq!((kernel().find(base), kernel().find_containing(base)), (None, None));
    }
    drop(areas);
    books.assert_unchanged();
}

/// S28: whatever comes short gives all back; the error says how much was wanted and how much there was.
#[ktest]
fn memory_that_runs_out_is_told_and_all_of_it_comes_back_s28() {
    let mut live: Vec<VmArea> = Vec::with_capacity(4096);
    let books = Books::now();
    let hunger = starve(3000);
    for pages in [517_u32, 64, 3, 1] {
        loop {
            let (before, free) = (Books::now(), kernel().zones().free_pages());
            let refused = match VmArea::new(pages * PAGE_SIZE) {
                Ok(mut area) => {
                    fill(&mut area, live.len());
                    live.push(area);
                    continue;
                }
                Err(refused) => refused,
            };
            before.assert_unchanged();
            assert_eq!(kernel().zones().free_pages(), free);
            // Taken before them, for their pointers (S27).
            let array = u32::from(pages as usize > WITHIN);
            match refused {
                VmallocError::Frames(AllocateError::Exhausted {
                    pages: wanted, free: had, ..
                }) => {
                    assert_eq!((wanted, had), (pages, free - array));
                    assert!(had < pages, "{had} frames were free, {pages} were refused");
                }
                // The pages were there, and none was left for their table.
                VmallocError::Map(_) => assert_eq!(free, pages + array, "{refused}"),
                VmallocError::PageArray(_) => assert_eq!((free, array), (0, 1), "{refused}"),
                other => panic!("{other}"),
            }
            break;
        }
    }
    assert!(kernel().zones().free_pages() <= 1);
    live.iter().enumerate().for_each(|(number, area)| assert_filled(area, number));
    drop(live);
    feed(hunger);
    books.assert_unchanged();
    let again = vmalloc(2000 * PAGE_SIZE);
    drop(again);
    books.assert_unchanged();
}

/// S24: a table for each section that an area touches, made when it is first needed, and kept.
#[ktest]
fn tables_are_made_for_the_sections_touched_and_for_no_other_and_kept_s24() {
    let window = kernel().window();
    let sections = || -> Vec<bool> {
        (0..window.count() / PAGES_PER_SECTION)
            .filter_map(|n| window.sub_range(n * PAGES_PER_SECTION, PAGES_PER_SECTION))
            .map(|section| kernel().table().count_tables(section) == 1)
            .collect()
    };
    let (before, made) = (sections(), kernel().table_memory().tables_made());
    let area = vmalloc(5 * SECTION_SIZE / 2);
    let touched = area.pages();
    let after = sections();
    let mut new = 0;
    for (number, (&was, &is)) in (0..).zip(before.iter().zip(&after)) {
        let section = window.sub_range(number * PAGES_PER_SECTION, PAGES_PER_SECTION);
        let needed = section.expect("in the window").overlaps(touched);
        assert_eq!(is, was || needed, "section {number} of the window");
        new += u32::from(is && !was);
    }
    assert_eq!(kernel().table_memory().tables_made() - made, new);
    drop(area);
    assert_eq!(sections(), after, "kept when the area has gone");
}

#[ktest]
fn a_repeat_at_the_same_address_takes_no_table_and_no_frame_s24() {
    let bytes = 3 * SECTION_SIZE + 5;
    let first = vmalloc(bytes).address();
    let tables = kernel().table_memory().tables_made();
    let free = kernel().zones().free_pages();
    for _ in 0..30 {
        assert_eq!(vmalloc(bytes).address(), first);
        assert_eq!(kernel().table_memory().tables_made(), tables);
        assert_eq!(kernel().zones().free_pages(), free);
    }
}

/// S83. What follows the call keeps it from becoming a jump, which would leave no return address here.
#[inline(never)]
fn somebody_with_a_name() -> VmArea {
    let area = vmalloc_from_here();
    black_box(area)
}

#[inline(always)]
fn vmalloc_from_here() -> VmArea {
    VmArea::zeroed(1).expect("memory")
}

#[ktest]
fn an_area_remembers_who_asked_for_it_s83() {
    let area = somebody_with_a_name();
    let found = kernel().find(area.address()).expect("a live area");
    let entry = (somebody_with_a_name as fn() -> VmArea) as usize;
    let offset =
        (found.caller.raw() as usize).checked_sub(entry).expect("a call lies behind an entry");
    assert!(offset < 1024, "{} is not in the function at {entry:#x}", found.caller);
    // An image straight from the linker has no symbols.
    if let Some(symbol) = symbols::lookup(found.caller) {
        assert!(symbol.name.contains("somebody_with_a_name"), "{symbol}");
    }
}
