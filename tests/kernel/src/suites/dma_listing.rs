//! Who has which memory for devices, as the console prints it, compared with what the test itself has taken (S64, S75, S83).
//!
//! Every buffer here is taken by a function with a C name, so that the test can write down whom the listing is to call its caller.

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::{c_uint, c_void};
use core::hint::black_box;

use board::vexpress_a9::VRAM;
use dma::atomic_pool;
use dma::attributes;
use dma::coherent::{Buffer, allocate};
use dma::device::Device;
use dma::dma_pool::DmaPool;
use dma::iommu::{IommuMapping, detach};
use dma::listing::{self, Source};
use dma::names::NAMELESS;
use dma::pool_growth::{grow, grown, release_idle};
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use kerncore::holder::Tag;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::dma_alloc_coherent;
use linux::dma_attrs::dma_alloc_attrs;
use mm::{clock, kernel};

use super::buffers::give;
use super::symbols::has_symbols;
use super::witness::{Books, NOBODY};

static DEVICE: Device = Device::new("a listed disk");
static SNOOPING: Device = Device::coherent("a listed card");

/// The call is not the last thing that it does, so that it is the caller.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn listed_buffer(
    device: *const Device,
    bytes: c_uint,
    dma: *mut DmaAddr,
    flags: AllocationFlags,
) -> *const c_void {
    // SAFETY: the callers give a device, and a place for an address.
    black_box(unsafe { dma_alloc_coherent(device, bytes, dma, flags) })
}

/// The same with attributes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn listed_with_attributes(
    device: *const Device,
    bytes: c_uint,
    dma: *mut DmaAddr,
    attributes: c_uint,
) -> *const c_void {
    let flags = AllocationFlags::KERNEL;
    // SAFETY: as above.
    black_box(unsafe { dma_alloc_attrs(device, bytes, dma, flags, attributes) })
}

#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn made(memory: *const c_void, dma: DmaAddr) -> Buffer {
    assert!(!memory.is_null(), "no memory");
    Buffer { address: VirtAddr::new(memory.addr() as u32), dma }
}

#[inline(never)]
fn take(device: &Device, bytes: u32, sleep: Sleep) -> Buffer {
    let flags = if sleep == Sleep::May { AllocationFlags::KERNEL } else { AllocationFlags::ATOMIC };
    let mut dma = DmaAddr::new(0);
    made(listed_buffer(device, bytes, &raw mut dma, flags), dma)
}

/// What the console's command prints, and its last line.
fn shown(command: &str) -> (Vec<String>, String) {
    let mut text = String::new();
    monitor::execute(command, &mut text).expect("a command that shows something");
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    let totals = lines.pop().expect("the totals");
    (lines, totals)
}

/// A line without its moment, which must be a number of seconds with three digits behind the point.
fn without_moment(line: &str) -> String {
    let (before, rest) = line.split_once(" since ").expect("a moment");
    let (moment, marks) = rest.split_once(' ').unwrap_or((rest, ""));
    let digits = moment.strip_suffix('s').and_then(|number| number.split_once('.'));
    let (seconds, thousandths) = digits.expect("seconds");
    assert!(seconds.parse::<u32>().is_ok() && thousandths.len() == 3, "{line}");
    let end = if marks.is_empty() { String::new() } else { format!(" {marks}") };
    format!("{before}{end}")
}

/// A line without the offset in its caller.
fn without_offset(line: &str) -> String {
    let Some((before, rest)) = line.split_once("+0x") else { return line.into() };
    let (_, after) = rest.split_once(' ').expect("more behind the caller");
    format!("{before} {after}")
}

/// What a line is to say of `pages` that `buffer` has.
fn wanted(
    (buffer, pages): (Buffer, u32),
    source: &str,
    (caller, device, marks): (&str, &str, &str),
) -> String {
    let (start, bytes) = (buffer.address.raw(), pages * PAGE_SIZE);
    let (end, dma) = (start + bytes, buffer.dma.raw());
    let from = format!("{start:#010x}-{end:#010x} {bytes:>9} {source}");
    format!("{from} dma={dma:#010x} {caller} for \"{device}\"{marks}")
}

/// Those that are in `lines` and not in `before`, with neither moments nor offsets.
fn new_lines(lines: &[String], before: &[String]) -> Vec<String> {
    let new = lines.iter().filter(|line| !before.contains(line));
    new.map(|line| without_offset(&without_moment(line))).collect()
}

fn sleepers_source() -> &'static str {
    if kernel().contiguous().is_some() { "contiguous" } else { "remap" }
}

/// Whether there is a pool of 16 pages or more, all free.
fn has_pool() -> bool {
    let pool = atomic_pool::usage().filter(|pool| pool.pages >= 16);
    pool.is_some_and(|pool| pool.taken == 0 && grown() == (0, 0))
}

/// S75: a snooping device and one that does not, who may sleep and who may not; each by the back end that it has in this boot, with or
/// without a contiguous region. Then nobody any more.
#[ktest]
fn each_buffer_is_listed_with_its_back_end_until_it_is_freed_s64_s75_s83() -> Completion {
    if !has_pool() {
        return Skipped("no atomic pool of 16 pages or more in this boot");
    }
    if !has_symbols() {
        return Skipped("callers have no names in this image");
    }
    let books = Books::now();
    let (before, totals_before) = shown("dma");
    let listed_before = listing::for_each_line(|_| {});
    let mut taken = Vec::new();
    let mut expected = Vec::new();
    for (device, sleep, source) in [
        (&SNOOPING, Sleep::May, "direct"),
        (&SNOOPING, Sleep::MayNot, "direct"),
        (&DEVICE, Sleep::May, sleepers_source()),
        (&DEVICE, Sleep::MayNot, "atomic"),
    ] {
        for pages in [1, 3] {
            let bytes = (pages - 1) * PAGE_SIZE + 1;
            let buffer = take(device, bytes, sleep);
            // Frames at their linear addresses are blocks of a power of two.
            let whole = if source == "direct" { pages.next_power_of_two() } else { pages };
            taken.push((device, bytes, buffer));
            let who = ("listed_buffer", device.name(), "");
            expected.push(wanted((buffer, whole), source, who));
        }
    }
    let (lines, totals) = shown("dma");
    assert_eq!(shown("dma-mappings"), (lines.clone(), totals.clone()));
    let mut found = new_lines(&lines, &before);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let listed = listing::for_each_line(|_| {});
    assert_eq!(totals, listed.to_string());
    for (source, buffers, pages) in [(Source::Direct, 4, 10), (Source::Atomic, 2, 4)] {
        let (had, had_pages) = listed_before.of(source);
        assert_eq!(listed.of(source), (had + buffers, had_pages + pages), "{totals}");
    }
    // The last first, and one from the middle.
    let middle = taken.remove(3);
    taken.insert(0, middle);
    while let Some((device, bytes, buffer)) = taken.pop() {
        give(device, bytes, buffer);
        let start = format!("{:#010x}-", buffer.address.raw());
        let (lines, _) = shown("dma");
        assert!(!lines.iter().any(|line| line.starts_with(&start)), "{start} is listed still");
        assert_eq!(lines.len(), before.len() + taken.len());
    }
    assert_eq!(shown("dma"), (before, totals_before));
    books.assert_unchanged();
    Ran
}

/// What the pool has grown by, a device's own memory, a cookie's buffer, and the pages of a pool of blocks.
#[ktest]
fn the_less_usual_back_ends_are_listed_as_well_s64_s99_s102_s103_s104() -> Completion {
    if !has_pool() || !has_symbols() {
        return Skipped("no atomic pool, or callers have no names");
    }
    let pages = atomic_pool::usage().map_or(0, |pool| pool.pages);
    let (before, _) = shown("dma");
    // All of the pool, and what it grows by, one page of it.
    let all: Vec<Buffer> = (0..pages).map(|_| take(&DEVICE, PAGE_SIZE, Sleep::MayNot)).collect();
    grow().expect("memory for a larger pool");
    let behind = take(&DEVICE, PAGE_SIZE, Sleep::MayNot);
    let (lines, totals) = shown("dma");
    let new = new_lines(&lines, &before);
    assert_eq!(new.len(), all.len() + 1);
    let plain = ("listed_buffer", DEVICE.name(), "");
    assert!(all.iter().all(|page| new.contains(&wanted((*page, 1), "atomic", plain))));
    assert!(new.contains(&wanted((behind, 1), "grown", plain)), "{lines:?}");
    assert!(totals.contains("; grown 1, 4 KiB"), "{totals}");
    let (parts, last) = shown("pool");
    assert_eq!((parts.len(), last.ends_with(", grown")), (1, true), "{parts:?} {last}");
    assert!(last.starts_with(&format!("1 of {pages} pages at ")), "{last}");
    all.into_iter().chain([behind]).for_each(|buffer| give(&DEVICE, PAGE_SIZE, buffer));
    assert_eq!(release_idle(), pages);

    let owner = Device::new("a listed screen");
    let (place, dma) = (VRAM.base, DmaAddr::new(0x0010_0000));
    assert_eq!(owner.declare_memory((place, dma), 8 * PAGE_SIZE, NOBODY), Ok(()));
    let own = take(&owner, 2 * PAGE_SIZE, Sleep::May);
    let bits = DmaAttributes::NO_KERNEL_MAPPING.with(DmaAttributes::WRITE_COMBINE);
    let mut handle = DmaAddr::new(0);
    let cookie = listed_with_attributes(&raw const DEVICE, 1, &raw mut handle, bits.bits());
    let cookie = made(cookie, handle);
    let hidden = attributes::revealed(&DEVICE, cookie, bits).expect("a cookie");
    let blocks = DmaPool::new("blocks", &DEVICE, 64, 64, 0).expect("a layout");
    let block = blocks.allocate(Sleep::May, NOBODY).expect("memory");
    let (lines, _) = shown("dma");
    let new = new_lines(&lines, &before);
    assert_eq!(new.len(), 3, "{new:?}");
    let who = ("listed_buffer", owner.name(), "");
    let at_home = wanted((own, 2), "declared", who)
        .replace("dma=0x00100000", &format!("dma=0x00100000 phys={place}"));
    assert!(new.contains(&at_home), "{new:?} without {at_home}");
    let who = ("listed_with_attributes", DEVICE.name(), " no_kernel_mapping write_combine");
    assert!(new.contains(&wanted((hidden, 1), sleepers_source(), who)), "{new:?}");
    let cut = new.iter().find(|line| line.ends_with(" for \"a listed disk\" dma_pool \"blocks\""));
    assert!(cut.is_some_and(|line| line.contains(&format!(" dma={} ", block.dma))), "{new:?}");

    assert_eq!(blocks.free(block), Ok(()));
    // SAFETY: the test has no reference to a block.
    assert_eq!(unsafe { blocks.destroy() }, 0);
    // SAFETY: the test's own, without a reference.
    assert_eq!(unsafe { attributes::free(&DEVICE, 1, cookie, bits) }, Ok(()));
    give(&owner, 2 * PAGE_SIZE, own);
    // SAFETY: nobody but the test has the device.
    assert_eq!(unsafe { owner.release_memory() }, Ok(()));
    assert_eq!(shown("dma").0, before);
    Ran
}

/// Many drivers' names, one as good as the other; beyond what there is room for, the listing says just that.
#[ktest]
fn each_of_many_devices_is_listed_by_its_own_name_s64_s83() {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
    // 26 beginnings, 10 lengths.
    let names = (0..26).flat_map(|from| (1..=10).map(move |count| &LETTERS[from..from + count]));
    let mut last = None;
    for name in names {
        let device = Device::new(name);
        let buffer = allocate(&device, PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
        let mut found = Vec::new();
        listing::for_each_line(|line| {
            if line.address == buffer.address {
                found.push(*line);
            }
        });
        let [line] = found[..] else { panic!("{} lines", found.len()) };
        assert_eq!((line.device(), line.pool), (name, None));
        give(&device, PAGE_SIZE, buffer);
        last = Some(line);
    }
    let mut line = last.expect("260 of them");
    line.holder.tag = Tag::of(Tag::LAST_NAME, 0);
    let words = format!(" for \"{NAMELESS}\" ");
    assert!(line.to_string().contains(&words), "{line}");
}

/// Pools are called by their own names, each in the lines of its own memory, for as long as it has that; also one that has moved.
#[ktest]
fn the_memory_of_each_pool_is_listed_with_its_name_s64_s103() {
    let (before, _) = shown("dma");
    let make = |name, size| DmaPool::new(name, &DEVICE, size, 4, 0).expect("a layout");
    let pools = [make("urbs", 64), make("", 4096), make("thirty-two bytes of a name, cut off", 8)];
    let names = ["urbs", "", "thirty-two bytes of a name, cut "];
    let marked = |name: &str| format!(" dma_pool \"{name}\"");
    let blocks: Vec<Buffer> =
        pools.iter().map(|pool| pool.allocate(Sleep::May, NOBODY).expect("memory")).collect();
    let all = Vec::from(pools);
    let (lines, _) = shown("dma");
    for (block, name) in blocks.iter().zip(names) {
        let start = format!("dma={}", block.dma);
        let line = lines.iter().find(|line| line.contains(&start)).expect("a line");
        assert!(line.ends_with(&marked(name)), "{line}");
    }
    for (pool, block) in all.into_iter().zip(blocks) {
        assert_eq!(pool.free(block), Ok(()));
        // SAFETY: the test has no reference to a block.
        assert_eq!(unsafe { pool.destroy() }, 0);
    }
    assert_eq!(shown("dma").0, before);
    // The same memory, most likely, and no pool's.
    let plain = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
    assert!(!shown("dma").0.iter().any(|line| line.contains("dma_pool")));
    give(&DEVICE, PAGE_SIZE, plain);
}

/// What the device uses, and where that lies on the bus, of each back end; and the bus address again when there is no IOMMU any more.
#[ktest]
fn behind_an_iommu_a_buffer_is_listed_where_its_device_sees_it_s64_s109() {
    static BEHIND: Device = Device::new("a listed disk behind an IOMMU");
    static SNOOPS: Device = Device::coherent("a listed card behind an IOMMU");
    let has_pool = has_pool();
    let lines_of = |buffer: &Buffer| {
        let mut found = Vec::new();
        listing::for_each_line(|line| {
            if line.address == buffer.address {
                found.push(*line);
            }
        });
        found
    };
    for device in [&BEHIND, &SNOOPS] {
        let mapping = IommuMapping::new(DmaAddr::new(0x2000_0000), 1 << 20).expect("memory");
        // SAFETY: the device has nothing yet.
        unsafe { mapping.attach(device) }.expect("attached to nothing");
        let mut buffers = Vec::new();
        for (pages, sleep) in
            [(1, Sleep::May), (3, Sleep::May), (2, Sleep::MayNot), (1, Sleep::May)]
        {
            if sleep == Sleep::May || has_pool {
                let bytes = pages * PAGE_SIZE;
                let buffer = allocate(device, bytes, sleep, NOBODY).expect("memory");
                buffers.push((buffer, bytes));
            }
        }
        for (buffer, _) in &buffers {
            let lines = lines_of(buffer);
            let [line] = &lines[..] else { panic!("{} lines", lines.len()) };
            let physical = device.physical_address(buffer.dma);
            assert_eq!((line.dma, line.physical), (buffer.dma, physical));
            assert!(line.to_string().contains(&format!(" dma={} phys={physical} ", buffer.dma)));
        }
        for (buffer, bytes) in buffers {
            give(device, bytes, buffer);
        }
        // SAFETY: the device has nothing any more.
        unsafe { detach(device) }.expect("attached");
        let buffer = allocate(device, PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
        assert!(lines_of(&buffer).iter().all(|line| line.dma.raw() == line.physical.raw()));
        give(device, PAGE_SIZE, buffer);
    }
}

/// The clock runs, and what was taken later is listed as later, from every back end.
#[ktest]
fn a_buffer_is_listed_since_when_it_was_taken_s83() -> Completion {
    if !has_pool() {
        return Skipped("no atomic pool of 16 pages or more in this boot");
    }
    let tick = || {
        let start = clock::now().ticks();
        // Reading a device's register takes a while, on every machine.
        let ran = (0..10_000_000).any(|_| clock::now().ticks().wrapping_sub(start) > 1);
        assert!(ran, "the clock stands still at {start}");
    };
    for (device, sleep) in
        [(&SNOOPING, Sleep::May), (&DEVICE, Sleep::May), (&DEVICE, Sleep::MayNot)]
    {
        let mut last = clock::now().ticks();
        let buffers = [0; 3].map(|_| {
            tick();
            let buffer = take(device, 1, sleep);
            let after = clock::now().ticks();
            let mut since = None;
            listing::for_each_line(|line| {
                if line.address == buffer.address {
                    since = Some(line.holder.since.ticks());
                }
            });
            let since = since.expect("it is listed");
            assert!(last < since && since <= after, "{since} is not in {last}..={after}");
            last = since;
            buffer
        });
        for buffer in buffers {
            give(device, 1, buffer);
        }
    }
    Ran
}
