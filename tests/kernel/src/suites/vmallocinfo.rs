//! The listing of areas as the console prints it, compared letter by letter (S91).
//!
//! Every area here is made by a function with a C name, so that a test can write down what the listing is to call its maker.
//! What the test writes comes from the descriptors that C code reads, from the walker, and from sums of its own.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::ffi::{c_int, c_uint, c_void};
use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use arch::smp;
use board::vexpress_a9::VRAM;
use dma::device::Device;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PageRange, Pfn, VirtAddr};
use kerncore::area::VmStruct;
use kerncore::coherent::AllocationFlags;
use kerncore::frames::Frame;
use ktest::{Completion, ktest};
use linux::areas::{alloc_vm_area, free_vm_area, get_vm_area, get_vm_area_caller};
use linux::dma::{dma_alloc_coherent, dma_free_coherent};
use linux::exec::vmalloc_exec;
use linux::free::{vfree, vfree_atomic, vunmap};
use linux::ioremap::{ioremap, iounmap};
use linux::lookup::find_vm_area;
use linux::map_ram::{vm_map_ram, vm_unmap_ram};
use linux::page::pointer_to;
use linux::protection::PageProtection;
use linux::vmalloc::{vmalloc, vmalloc_huge, vmalloc_node, vmalloc_user, vzalloc};
use linux::vmap::vmap;
use mm::kernel;
use mm::page_alloc::Pages;

use super::huge::are_allowed;
use super::smp::another;
use super::symbols::has_symbols;
use super::witness::{Books, each_page, frame_at, plus};

const KIB: u32 = PAGE_SIZE >> 10;

static DEVICE: Device = Device::new("a listed device");

/// A function of that name makes an area, and is its caller: the call is not the last thing that it does.
macro_rules! callers {
    ($($name:ident($($argument:ident: $type:ty),*) = $call:expr;)*) => {$(
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name($($argument: $type),*) -> *const c_void {
            black_box($call).cast()
        }
    )*};
}

callers! {
    listed_vmalloc(size: c_uint) = vmalloc(size);
    listed_vzalloc(size: c_uint) = vzalloc(size);
    listed_user(size: c_uint) = vmalloc_user(size);
    listed_huge(size: c_uint) = vmalloc_huge(size);
    listed_exec(size: c_uint) = vmalloc_exec(size);
    listed_node(size: c_uint, node: c_int) = vmalloc_node(size, node);
    listed_ioremap(physical: c_uint, size: c_uint) = ioremap(physical, size);
    listed_bare(size: c_uint) = get_vm_area(size, 0);
    listed_tables(size: c_uint) = alloc_vm_area(size);
    // SAFETY: the callers give so many page pointers, and keep the pages while they are mapped.
    listed_vmap(pages: *const *const Frame, count: c_uint) = unsafe {
        vmap(pages, count, 0x0c, PageProtection::KERNEL)
    };
    // SAFETY: as above.
    listed_short(pages: *const *const Frame, count: c_uint) = unsafe {
        vm_map_ram(pages, count, -1)
    };
    // SAFETY: the device is there, and so is the place for the handle.
    listed_dma(size: c_uint, handle: *mut DmaAddr) = unsafe {
        dma_alloc_coherent(&raw const DEVICE, size, handle, AllocationFlags::KERNEL)
    };
}

/// What the console's command prints, line by line.
fn shown() -> Vec<String> {
    let mut text = String::new();
    monitor::execute("vmallocinfo", &mut text).expect("a command that shows something");
    assert!(text.ends_with('\n'));
    text.lines().map(String::from).collect()
}

/// The same without what it adds up.
fn shown_areas() -> Vec<String> {
    let mut lines = shown();
    lines.pop().expect("the totals");
    lines
}

/// Start and end of a line that was shown or is to be.
#[track_caller]
fn ends(line: &str) -> (u32, u32) {
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let ends = line.split_once(' ').and_then(|(range, _)| {
        let (start, end) = range.split_once('-')?;
        Some((number(start)?, number(end)?))
    });
    ends.unwrap_or_else(|| panic!("no range: {line}"))
}

/// The last line, added up from the others and the window.
fn totals_of(lines: &[String]) -> String {
    let window = kernel().window();
    let (mut areas, mut usable, mut unpurged, mut taken) = (0, 0, 0, 0);
    let (mut hole, mut below) = (0, window.start().raw());
    for line in lines {
        let (start, end) = ends(line);
        let bytes = end - start;
        if line.ends_with("unpurged vm_area") {
            unpurged += 1;
        } else {
            areas += 1;
            usable += (bytes >> 10) - KIB;
        }
        taken += bytes >> 10;
        hole = hole.max(start - below);
        below = end;
    }
    hole = hole.max(window.end().wrapping_mul(PAGE_SIZE).wrapping_sub(below)) >> 10;
    let window = window.count() * KIB;
    format!(
        "{areas} areas, {usable} KiB, {unpurged} unpurged; {taken} of {window} KiB of addresses taken, \
         largest hole {hole} KiB"
    )
}

/// What is listed is these lines, in the order of addresses, and what they add up to.
#[track_caller]
fn assert_listed(lines: &[String]) {
    let mut wanted: Vec<String> = lines.to_vec();
    // Of addresses of equal length: by text is by number.
    wanted.sort_unstable();
    wanted.push(totals_of(&wanted));
    let shown = shown();
    for (shown, wanted) in shown.iter().zip(&wanted) {
        assert_eq!(shown, wanted);
    }
    assert_eq!(shown.len(), wanted.len(), "{shown:?}");
}

fn at<T>(pointer: *const T) -> VirtAddr {
    VirtAddr::new(u32::try_from(pointer.expose_provenance()).expect("32 bits"))
}

fn pointer(address: VirtAddr) -> *const c_void {
    ptr::with_exposed_provenance(address.raw() as usize)
}

#[track_caller]
fn descriptor<'a>(base: VirtAddr) -> &'a VmStruct {
    // SAFETY: the live area's, which the test keeps.
    unsafe { find_vm_area(pointer(base)).as_ref() }.expect("a live area")
}

/// How a listing begins that has `pages` and a guard at `base` (S2).
fn beginning(base: VirtAddr, pages: u32) -> String {
    let bytes = (pages + 1) * PAGE_SIZE;
    format!("{:#010x}-{:#010x} {bytes:>9}", base.raw(), base.raw() + bytes)
}

/// Who made the area at `base`: the function that was asked to, and the instruction behind its call.
#[track_caller]
fn maker(base: VirtAddr, name: &str, function: *const ()) -> String {
    let (caller, start) = (descriptor(base).caller(), at(function));
    let offset = caller.raw().wrapping_sub(start.raw());
    assert!((4..0x100).contains(&offset), "{name} at {start} has called from {caller}");
    let before = arch::probe::read_u32(VirtAddr::new(caller.raw() - 4)).expect("text");
    assert_eq!(before >> 24, 0xeb, "a BL comes before {caller}: {before:#x}");
    if has_symbols() { within(name, start, offset) } else { format!("{caller}") }
}

/// An address in the function that begins at `start`, as listings name it. The function ends where its name does.
#[track_caller]
fn within(name: &str, start: VirtAddr, offset: u32) -> String {
    let is_inside = |bytes: &u32| {
        let found = arch::symbols::lookup(plus(start, *bytes));
        found.is_some_and(|symbol| symbol.name == name && symbol.offset == *bytes)
    };
    let size = (0..).step_by(4).find(|bytes| !is_inside(bytes)).expect("it ends");
    format!("{name}+{offset:#x}/{size:#x}")
}

/// The frames behind `pages` by node, as the walker finds them; nothing where there is one node.
fn nodes(base: VirtAddr, pages: u32) -> String {
    let mut on_nodes = [0; 2];
    for page in each_page(PageRange::new(base, pages).expect("pages")) {
        let (node, _) = kernel().zones().zone_of(frame_at(page)).expect("RAM");
        on_nodes[node.number() as usize] += 1;
    }
    if kernel().zones().nodes().count() == 1 {
        return String::new();
    }
    let named = on_nodes.iter().enumerate().filter(|&(_, &pages)| pages != 0);
    named.fold(String::new(), |text, (node, pages)| format!("{text} N{node}={pages}"))
}

/// The line of an area of `pages` at `base` that `function` has made.
macro_rules! line {
    ($base:expr, $pages:expr, $function:ident, $($words:tt)*) => {{
        let (base, pages): (VirtAddr, u32) = ($base, $pages);
        let maker = maker(base, stringify!($function), $function as *const ());
        format!("{} {maker} pages={pages}{}", beginning(base, pages), format_args!($($words)*))
    }};
}

fn blocks(count: u32) -> (Vec<Pages>, Vec<*const Frame>) {
    let pages: Vec<Pages> = (0..count).map(|_| Pages::new(0).expect("memory")).collect();
    let frames: Vec<Pfn> = pages.iter().flat_map(Pages::frames).collect();
    (pages, frames.into_iter().map(pointer_to).collect())
}

fn free(memory: VirtAddr) {
    // SAFETY: the test made it and has no reference to it.
    unsafe { vfree(pointer(memory)) };
}

/// Nothing waits, and no block is idle.
fn settle() {
    mm::vm_area::free_deferred();
    kernel().close_idle_blocks();
}

#[ktest]
fn memory_of_vmalloc_is_listed_with_its_flags_nodes_and_entries_s27_s31_s90_s91() {
    settle();
    let books = Books::now();
    let others = shown_areas();
    let mut lines = others.clone();
    let mut areas = vec![];
    let mut add = |base: VirtAddr, line| {
        areas.push(base);
        lines.push(line);
    };
    let base = at(listed_vmalloc(2 * PAGE_SIZE));
    add(base, line!(base, 2, listed_vmalloc, " vmalloc{}", nodes(base, 2)));
    let base = at(listed_vzalloc(17 * PAGE_SIZE));
    add(base, line!(base, 17, listed_vzalloc, " vmalloc{}", nodes(base, 17)));
    let base = at(listed_user(1));
    add(base, line!(base, 1, listed_user, " vmalloc user{}", nodes(base, 1)));
    let base = at(listed_exec(3 * PAGE_SIZE));
    add(base, line!(base, 3, listed_exec, " vmalloc{}", nodes(base, 3)));
    let base = at(listed_huge((256 + 32 + 1) * PAGE_SIZE));
    let on_nodes = nodes(base, 289);
    let words = if are_allowed() { " vmalloc sections=1 large_pages=2" } else { " vmalloc" };
    add(base, line!(base, 289, listed_huge, "{words}{on_nodes}"));
    let base = at(listed_node(5 * PAGE_SIZE, 0));
    add(base, line!(base, 5, listed_node, " vmalloc{}", nodes(base, 5)));
    assert_listed(&lines);
    areas.into_iter().for_each(free);
    assert_listed(&others);
    books.assert_unchanged();
}

/// The area of an array is listed as what it is, and by the same caller.
#[ktest]
fn a_page_array_of_its_own_has_its_own_line_s27_s91() {
    settle();
    let mut lines = shown_areas();
    let base = at(listed_vmalloc(1025 * PAGE_SIZE));
    let array = VirtAddr::new(descriptor(base).pages());
    lines.push(line!(base, 1025, listed_vmalloc, " vmalloc vpages{}", nodes(base, 1025)));
    lines.push(line!(array, 2, listed_vmalloc, " vmalloc{}", nodes(array, 2)));
    assert_listed(&lines);
    free(base);
}

#[ktest]
fn what_belongs_to_others_is_listed_with_its_physical_base_s91() {
    settle();
    let books = Books::now();
    let others = shown_areas();
    let mut lines = others.clone();
    // In whole pages, and the base is that of the first (S94).
    let registers = at(listed_ioremap(VRAM.base.raw() + 0x1404, PAGE_SIZE));
    let base = registers.page_base();
    lines.push(line!(base, 2, listed_ioremap, " phys=0x4c001000 ioremap"));
    let (pages, records) = blocks(3);
    let mapped = at(listed_vmap(records.as_ptr(), 3));
    lines.push(line!(mapped, 3, listed_vmap, " vmap user"));
    let mut handle = DmaAddr::new(0);
    let buffer = at(listed_dma(2 * PAGE_SIZE, &raw mut handle));
    let physical = format!(" phys={:#010x} user dma", handle.raw());
    lines.push(line!(buffer, 2, listed_dma, "{physical}{}", nodes(buffer, 2)));
    assert_listed(&lines);
    // SAFETY: the test's own, here and below, to which it has no reference.
    unsafe { iounmap(pointer(registers)) };
    // SAFETY: as above.
    unsafe { vunmap(pointer(mapped)) };
    // SAFETY: as above.
    unsafe { dma_free_coherent(&raw const DEVICE, 2 * PAGE_SIZE, pointer(buffer), handle) };
    drop(pages);
    assert_listed(&others);
    books.assert_unchanged();
}

#[ktest]
fn bare_areas_are_listed_in_the_name_of_whoever_was_named_s47_s91() {
    settle();
    let books = Books::now();
    let mut lines = shown_areas();
    let mut areas: Vec<*const VmStruct> = vec![];
    let mut add = |area: *const VmStruct, line: &dyn Fn(VirtAddr) -> String| {
        // SAFETY: the live area's, which the test keeps.
        lines.push(line(unsafe { area.as_ref() }.expect("addresses").addr()));
        areas.push(area);
    };
    add(listed_bare(PAGE_SIZE).cast(), &|base| line!(base, 1, listed_bare, ""));
    add(listed_tables(PAGE_SIZE).cast(), &|base| line!(base, 1, listed_tables, " ioremap"));
    let named = get_vm_area_caller(3 * PAGE_SIZE, 0x54, listed_bare as *const c_void);
    let maker = if has_symbols() {
        within("listed_bare", at(listed_bare as *const ()), 0)
    } else {
        format!("{}", at(listed_bare as *const ()))
    };
    add(named, &|base| format!("{} {maker} pages=3 vmap vpages dma", beginning(base, 3)));
    // Code that has no name, and nobody.
    let nameless = get_vm_area_caller(PAGE_SIZE, 0, ptr::without_provenance(0x1234));
    add(nameless, &|base| format!("{} 0x00001234 pages=1", beginning(base, 1)));
    let nobodys = get_vm_area_caller(PAGE_SIZE, 0, ptr::null());
    add(nobodys, &|base| format!("{} pages=1", beginning(base, 1)));
    assert_listed(&lines);
    for area in areas {
        // SAFETY: nothing is mapped there.
        unsafe { free_vm_area(area) };
    }
    books.assert_unchanged();
}

/// A block is listed, not what is cut from it; what is too large for one has an area of its own.
#[ktest]
fn short_lived_mappings_are_listed_by_their_blocks_s87_s91() {
    settle();
    let books = Books::now();
    let others = shown_areas();
    let (pages, records) = blocks(65);
    let map = |count| listed_short(records.as_ptr(), count);
    let (first, second) = (map(3), map(1));
    let block = VirtAddr::new(at(first).raw() >> 20 << 20);
    let listed = |fragments| {
        let mut lines = others.clone();
        let words = format!(" vmap vm_map_ram fragments={fragments}");
        lines.push(line!(block, 255, listed_short, "{words}"));
        lines
    };
    assert_listed(&listed(2));
    // SAFETY: the test's own, here and below, to which it has no reference.
    unsafe { vm_unmap_ram(second, 1) };
    assert_listed(&listed(1));
    let large = map(65);
    let mut lines = listed(1);
    lines.push(line!(at(large), 65, listed_short, " vmap vm_map_ram"));
    assert_listed(&lines);
    // SAFETY: as above.
    unsafe { vm_unmap_ram(large, 65) };
    // SAFETY: as above.
    unsafe { vm_unmap_ram(first, 3) };
    assert_listed(&listed(0));
    settle();
    assert_listed(&others);
    drop(pages);
    books.assert_unchanged();
}

/// What is freed and not flushed yet keeps its addresses, and is nobody's any more (S14a).
#[ktest]
fn what_waits_for_its_flush_is_listed_as_such_s89_s91_s92() {
    settle();
    let others = shown_areas();
    let (low, high) = (at(listed_vmalloc(PAGE_SIZE)), at(listed_vmalloc(20 * PAGE_SIZE)));
    let mut lines = others.clone();
    lines.push(format!("{} unpurged vm_area", beginning(low, 1)));
    lines.push(line!(high, 20, listed_vmalloc, " vmalloc{}", nodes(high, 20)));
    // SAFETY: the test made them, here and below, and has no reference to them.
    unsafe { vfree_atomic(pointer(low)) };
    assert_listed(&lines);
    let last = lines.len() - 1;
    lines[last] = format!("{} unpurged vm_area", beginning(high, 20));
    // SAFETY: as above.
    unsafe { vfree_atomic(pointer(high)) };
    assert_listed(&lines);
    assert_eq!(mm::vm_area::free_deferred(), 2);
    assert_listed(&others);
}

/// What CPUs make and remove meanwhile: pages, caller and words belong together.
fn odd_words(pages: u32) -> (c_uint, &'static str) {
    match pages % 3 {
        0 => (0x04, " vmap"),
        1 => (0x48, " user dma"),
        _ => (0, ""),
    }
}

/// Each line is of one area at one moment: none has the bytes of one and the words of the next that lies there.
#[ktest]
fn a_listing_while_areas_come_and_go_on_every_cpu_does_not_tear_s91_s116() -> Completion {
    const LINES: u32 = 100;
    if let Err(skipped) = another() {
        return skipped;
    }
    settle();
    let others: BTreeSet<String> = shown_areas().into_iter().collect();
    let ended = AtomicBool::new(false);
    let lister = arch::cpu::id();
    smp::run_on_each(|cpu| {
        if cpu == lister {
            let mut seen = 0;
            let mut left = smp::PATIENCE;
            while seen < LINES {
                seen += check_moving(&others);
                left = left.checked_sub(1).expect("nobody makes areas");
                smp::beat();
            }
            ended.store(true, Ordering::Release);
            return;
        }
        let mut pages = cpu;
        while !ended.load(Ordering::Acquire) {
            let areas = [1, 2, 3].map(|more| {
                pages = pages % 9 + more;
                let caller = ptr::without_provenance(pages as usize * 0x1000);
                get_vm_area_caller(pages * PAGE_SIZE, odd_words(pages).0, caller)
            });
            for area in areas {
                assert!(!area.is_null(), "addresses");
                // SAFETY: this CPU's own, in which nothing is mapped.
                unsafe { free_vm_area(area) };
            }
            smp::stop_if_ended();
            smp::beat();
        }
    });
    Completion::Ran
}

/// Looks at every line of a listing, and says how many were of areas that come and go.
#[track_caller]
fn check_moving(others: &BTreeSet<String>) -> u32 {
    let (mut moving, mut below, mut still) = (0, 0, 0);
    for line in shown_areas() {
        let (start, end) = ends(&line);
        assert!(below <= start && start < end, "{line} begins below {below:#x}");
        below = end;
        if others.contains(&line) {
            still += 1;
            continue;
        }
        let pages = (end - start) / PAGE_SIZE - 1;
        let begins = beginning(VirtAddr::new(start), pages);
        let caller = pages * 0x1000;
        let lives = format!("{begins} {caller:#010x} pages={pages}{}", odd_words(pages).1);
        let wanted = [lives, format!("{begins} unpurged vm_area")];
        assert!((1..12).contains(&pages) && wanted.contains(&line), "{line} where {wanted:?}");
        moving += 1;
    }
    assert_eq!(still, others.len(), "what nobody touched is there");
    moving
}

/// The command's other name, and what the kernel prints by itself, are the same.
#[ktest]
fn every_way_to_the_listing_says_the_same_s91() {
    settle();
    let base = at(listed_vmalloc(PAGE_SIZE));
    let mut areas = String::new();
    monitor::execute("areas", &mut areas).expect("a command that shows something");
    let lines = shown();
    assert!(areas.lines().eq(lines.iter().map(String::as_str)), "{areas}");
    let mut visited = vec![];
    let totals = mm::area_list::for_each_line(|line| visited.push(format!("{line}")));
    visited.push(format!("{totals}"));
    assert_eq!(visited, lines);
    assert!(
        lines[..lines.len() - 1]
            .iter()
            .any(|line| ends(line) == (base.raw(), base.raw() + 2 * PAGE_SIZE))
    );
    free(base);
}
