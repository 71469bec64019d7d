//! What the console hears of refusals: once for what is worth it, and nothing where a caller or the seeds want silence (S3, S8,
//! S26).

extern crate alloc;

use alloc::string::{String, ToString};
use core::ptr::null;

use arch::failure::fail_nth;
use dma::coherent::CoherentBox;
use dma::device::Device;
use image::capture::capture_log;
use kerncore::addr::PAGE_SIZE;
use kerncore::coherent::AllocationFlags;
use kerncore::frames::{Frame, FrameOwner};
use ktest::ktest;
use linux::areas::{
    __get_vm_area, __vmalloc_area, __vmalloc_area_node, alloc_vm_area, free_vm_area, get_vm_area,
    get_vm_area_node, map_vm_area,
};
use linux::exec::vmalloc_exec;
use linux::map_ram::vm_map_ram;
use linux::objects::kvmalloc;
use linux::page::pointer_to;
use linux::protection::PageProtection;
use linux::realloc::vrealloc;
use linux::refusal::{Refusals, refusals};
use linux::vmalloc::{__vmalloc, vmalloc, vmalloc_node};
use linux::vmap::{vmap, vmap_pfn};
use mm::kernel;

use super::witness::{Books, feed, frame_at, starve};

const KERNEL: AllocationFlags = AllocationFlags::KERNEL;
const PROTECTED: PageProtection = PageProtection::KERNEL;

/// How often there was something to tell of what `act` does.
pub(super) fn told(act: impl FnOnce()) -> (u32, u32) {
    let before = refusals();
    act();
    let Refusals { short, mistaken, .. } = refusals();
    (short - before.short, mistaken - before.mistaken)
}

fn with(flags: u32) -> AllocationFlags {
    AllocationFlags(KERNEL.0 | flags)
}

/// However often callers ask for what means nothing, the first shortage is told.
#[ktest]
fn mistakes_and_shortage_are_counted_apart_s8() {
    let books = Books::now();
    let mistakes = told(|| {
        assert!(__vmalloc(PAGE_SIZE, with(0x8), PROTECTED).is_null());
        assert!(__vmalloc(PAGE_SIZE, KERNEL, PageProtection(9)).is_null());
        assert!(kvmalloc(16, with(0x3)).is_null());
        assert!(vmalloc_node(PAGE_SIZE, 9).is_null() && vmalloc_node(17 * PAGE_SIZE, 9).is_null());
        assert!(get_vm_area_node(PAGE_SIZE, 0, 9, KERNEL).is_null());
        assert!(get_vm_area_node(PAGE_SIZE, 0, 0, with(0x8)).is_null(), "flags of the record (S9)");
    });
    assert_eq!(mistakes, (0, 7));
    let hunger = starve(0);
    let short = told(|| assert!(vmalloc(PAGE_SIZE).is_null()));
    feed(hunger);
    assert_eq!(short, (1, 0));
    books.assert_unchanged();
}

/// What `refused` says at the first of the next refusals that is told; there are `before` already.
#[track_caller]
fn told_by(before: u32, refused: impl Fn()) -> String {
    let turn = if before < 4 { 1 } else { (before + 1).next_power_of_two() - before };
    let ((), log) = capture_log(|| (0..turn).for_each(|_| refused()));
    log.text().lines().next().expect("it is its turn").to_string()
}

/// However often memory is short, a window without room is told in its turn, with the parameter that makes it larger.
#[ktest]
fn a_window_without_room_has_a_limit_of_its_own_s8() {
    let books = Books::now();
    let before = refusals();
    let hunger = starve(0);
    let ((), _) = capture_log(|| (0..70).for_each(|_| assert!(vmalloc(PAGE_SIZE).is_null())));
    feed(hunger);
    let after = refusals();
    assert_eq!((after.short - before.short, after.addresses), (70, before.addresses));
    let whole = kernel().window().bytes();
    let line = told_by(after.addresses, || assert!(get_vm_area(whole, 0).is_null()));
    assert!(line.contains("get_vm_area: ") && line.contains("vmalloc=<size>"), "{line}");
    let full = refusals().addresses;
    assert_ne!(full, after.addresses);
    let pages = kernel().zones().allocate_list(1, FrameOwner::Test).expect("memory");
    let table = kernel().zones().table();
    let page: *const Frame = pages.frames(table).map(pointer_to).next().expect("one");
    let none = || {
        // SAFETY: one page pointer, of a page that stays.
        let mapped = unsafe { vm_map_ram([page; 65].as_ptr(), 65, -1) };
        if !mapped.is_null() {
            // SAFETY: made a moment before.
            unsafe { linux::map_ram::vm_unmap_ram(mapped, 65) };
        }
    };
    // The record first, then the addresses.
    let nth = core::num::NonZeroU32::new(2).expect("two");
    let after = kerncore::failure::Afterwards::Nothing;
    let ((), _) = fail_nth(nth, after, none);
    assert_eq!(refusals().addresses, full + 1, "vm_map_ram's, too");
    feed(pages);
    books.assert_unchanged();
}

/// No parameter makes the window larger that a caller names, unless that is all there is.
#[ktest]
fn a_window_that_a_caller_named_is_told_without_the_parameter_s8() {
    let books = Books::now();
    let window = kernel().window();
    let (first, end) = (window.start().raw(), window.end() * PAGE_SIZE);
    let addresses = refusals().addresses;
    let narrow =
        || assert!(__get_vm_area(2 * PAGE_SIZE, 0, first, first + 2 * PAGE_SIZE).is_null());
    assert_eq!(told(narrow), (1, 0));
    assert_eq!(refusals().addresses, addresses);
    // However many there are, its turn comes within as many again.
    let line = (0..1 << 14).find_map(|_| {
        let ((), log) = capture_log(narrow);
        log.text().lines().next().map(ToString::to_string)
    });
    let line = line.expect("it is told");
    assert!(line.contains("__get_vm_area: 8192 bytes were refused: in pages 0x"), "{line}");
    assert!(line.contains("no room for 3 pages") && !line.contains("vmalloc="), "{line}");
    let whole = || assert!(__get_vm_area(window.bytes(), 0, first, end).is_null());
    let line = told_by(addresses, whole);
    assert!(line.contains("__get_vm_area: ") && line.contains("vmalloc=<size>"), "{line}");
    books.assert_unchanged();
}

static DEVICE: Device = Device::new("a device whose memory is not to be mapped");

/// What cannot be mapped so, however much there is, is the caller's mistake.
#[ktest]
fn what_cannot_be_mapped_so_is_a_mistake_s17_s37_s97() {
    let books = Books::now();
    let buffer = CoherentBox::new(&DEVICE, PAGE_SIZE).expect("memory");
    let of_device = pointer_to(frame_at(buffer.address()));
    let list = kernel().zones().allocate_list(2, FrameOwner::Test).expect("memory");
    let table = kernel().zones().table();
    let frames = {
        let mut frames = list.frames(table);
        [frames.next(), frames.next()].map(|frame| frame.expect("two"))
    };
    let (pages, ram) = (frames.map(pointer_to), frames[0].number());
    let beyond = 0xa0010;
    let mistakes = told(|| {
        for prot in [PROTECTED, PageProtection::WRITE_COMBINE] {
            // SAFETY: one page pointer.
            assert!(unsafe { vmap(&raw const of_device, 1, 4, prot) }.is_null());
        }
        // SAFETY: one number.
        assert!(unsafe { vmap_pfn(&raw const ram, 1, PageProtection::NONCACHED) }.is_null());
        // SAFETY: one number.
        assert!(unsafe { vmap_pfn(&raw const beyond, 1, PROTECTED) }.is_null());
        // SAFETY: one page pointer.
        assert!(unsafe { vm_map_ram(&raw const of_device, 1, -1) }.is_null());
    });
    assert_eq!(mistakes, (0, 5));
    let area = get_vm_area(2 * PAGE_SIZE, 0);
    let mistakes = told(|| {
        for _ in 0..2 {
            let mut cursor = pages.as_ptr();
            // SAFETY: as many as the area has; the second time something is mapped there.
            let _answer = unsafe { map_vm_area(area, PROTECTED, &raw mut cursor) };
        }
        // SAFETY: the area is consumed, and its descriptor not used.
        let filled = |area| unsafe { __vmalloc_area_node(area, KERNEL, PROTECTED, 9) };
        assert!(filled(get_vm_area(PAGE_SIZE, 0)).is_null(), "an unknown node");
    });
    assert_eq!(mistakes, (0, 2));
    // SAFETY: nobody uses it.
    unsafe { free_vm_area(area) };
    feed(list);
    drop(buffer);
    kernel().close_idle_blocks();
    books.assert_unchanged();
}

#[ktest]
fn callers_who_want_no_words_are_refused_in_silence() {
    let books = Books::now();
    let quiet = |flags| with(flags | AllocationFlags::NO_WARNING);
    let refused = |quiet: &dyn Fn(u32) -> AllocationFlags| {
        let filled = |gfp, prot| {
            let area = get_vm_area_node(PAGE_SIZE, 2, -1, KERNEL);
            // SAFETY: a consumed area's descriptor is not used.
            unsafe { __vmalloc_area(area, gfp, prot) }
        };
        assert!(__vmalloc(PAGE_SIZE, quiet(0x8), PROTECTED).is_null());
        assert!(kvmalloc(PAGE_SIZE, quiet(0x8)).is_null());
        // SAFETY: there is no memory yet that could be used.
        assert!(unsafe { vrealloc(null(), PAGE_SIZE, quiet(0x8)) }.is_null());
        assert!(get_vm_area_node(PAGE_SIZE, 0, 9, quiet(0)).is_null());
        assert!(filled(quiet(0x8), PROTECTED).is_null());
        assert!(filled(quiet(0), PageProtection(9)).is_null());
        let hunger = starve(0);
        assert!(__vmalloc(PAGE_SIZE, quiet(0), PROTECTED).is_null());
        assert!(kvmalloc(2 * PAGE_SIZE, quiet(0)).is_null());
        // SAFETY: as above.
        assert!(unsafe { vrealloc(null(), PAGE_SIZE, quiet(0)) }.is_null());
        assert!(filled(quiet(0), PROTECTED).is_null());
        feed(hunger);
    };
    assert_eq!(told(|| refused(&quiet)), (0, 0));
    assert_eq!(told(|| refused(&with)), (4, 6), "those who do not forbid it are heard");
    books.assert_unchanged();
}

/// Sizes that cannot be: null, and not a word.
#[ktest]
fn impossible_sizes_are_refused_in_silence_s3_s26() {
    let books = Books::now();
    let silence = told(|| {
        for size in [0, 0xffff_f000, u32::MAX] {
            assert!(alloc_vm_area(size).is_null(), "{size:#x}");
            assert!(vmalloc_exec(size).is_null(), "{size:#x}");
            assert!(vmalloc(size).is_null(), "{size:#x}");
        }
        assert!(vmalloc_exec(0x8000_0000).is_null(), "more than the board's RAM");
    });
    assert_eq!(silence, (0, 0));
    let all = kernel().zones().total() * PAGE_SIZE;
    let told = told(|| assert!(vmalloc_exec(all).is_null(), "some of it is in use"));
    assert_eq!(told, (1, 0));
    books.assert_unchanged();
}
