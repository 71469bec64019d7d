//! What the console hears when registers or memory are not mapped: who asked, for what, and what stands in the way (S93 to S97).

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use core::ffi::{c_uint, c_void};

use board::vexpress_a9::{L2_CACHE_CONTROLLER, SRAM, UARTS, VRAM};
use image::capture::capture_log;
use kerncore::addr::{PAGE_SIZE, PhysAddr};
use kerncore::attributes::Attributes;
use kerncore::frames::FrameOwner;
use ktest::ktest;
use linux::ioremap::{
    MEMREMAP_WB, MEMREMAP_WC, MEMREMAP_WT, ioremap, ioremap_exec, ioremap_np, ioremap_shared,
    ioremap_wc, memremap,
};
use linux::protection::PageProtection;
use linux::refusal::tell_again;
use linux::vmap::vmap_pfn;
use mm::kernel;

use super::witness::{Books, NOBODY, authority};

/// Registers that no test needs to be mapped as anything.
const DEVICE: u32 = UARTS[2].base.raw();
/// The last byte below RAM.
const BELOW: u32 = 0x5fff_ffff;

fn write_combine(physical: c_uint, size: c_uint) -> *mut c_void {
    memremap(physical, size, MEMREMAP_WC)
}

fn by_number(physical: c_uint, _size: c_uint) -> *mut c_void {
    let number = physical / PAGE_SIZE;
    // SAFETY: one number.
    unsafe { vmap_pfn(&raw const number, 1, PageProtection::WRITE_COMBINE) }
}

/// A way to map, by its name.
#[derive(Clone, Copy)]
struct Name(&'static str, fn(c_uint, c_uint) -> *mut c_void);

const IOREMAP: Name = Name("ioremap", |physical, size| ioremap(physical, size));
const SHARED: Name = Name("ioremap_shared", |physical, size| ioremap_shared(physical, size));
const COMBINING: Name = Name("ioremap_wc", |physical, size| ioremap_wc(physical, size));
const NON_POSTED: Name = Name("ioremap_np", |physical, size| ioremap_np(physical, size));
const CODE: Name = Name("ioremap_exec", |physical, size| ioremap_exec(physical, size));
const MEMORY: Name = Name("memremap", write_combine);
const NUMBER: Name = Name("vmap_pfn", by_number);

/// Whose request is refused says the line, and what it was for; `words` in their order say the rest.
#[track_caller]
fn says(name: Name, (physical, size): (u32, u32), words: &[&str]) {
    let books = Books::now();
    tell_again();
    let ((), log) = capture_log(|| {
        assert!(name.1(physical, size).is_null(), "{} of {physical:#x}", name.0);
    });
    let line: String = log.text().lines().next().expect("a line").to_string();
    let bytes = if name.0 == "vmap_pfn" { PAGE_SIZE } else { size };
    let begin = format!("{}: {bytes} bytes for kernel_tests::", name.0);
    let mut rest = line.strip_prefix(&begin).unwrap_or_else(|| panic!("{line:?}, not {begin:?}"));
    for word in [" were refused: "].iter().chain(words) {
        let found = rest.split_once(word);
        rest = found.unwrap_or_else(|| panic!("{line:?} does not say {word:?}, or not there")).1;
    }
    books.assert_unchanged();
}

/// S94: each has words of its own, by whatever name.
#[ktest]
fn zero_wraps_and_ram_are_told_apart_by_each_name_s94() {
    for name in [IOREMAP, SHARED, COMBINING, NON_POSTED] {
        says(name, (DEVICE + 4, 0), &["a size of zero", &PhysAddr::new(DEVICE + 4).to_string()]);
        says(name, (u32::MAX, 2), &["0x2 bytes at 0xffffffff", "pass the top"]);
        says(name, (BELOW, 9), &["0x9 bytes at 0x5fffffff", "RAM at 0x60000000"]);
    }
    for name in [CODE, MEMORY] {
        says(name, (SRAM.base.raw(), 0), &["a size of zero", &SRAM.base.to_string()]);
        says(name, (u32::MAX, 2), &["0x2 bytes at 0xffffffff", "pass the top"]);
    }
    says(MEMORY, (BELOW, 9), &["0x9 bytes at 0x5fffffff", "is RAM, from 0x60000000 on"]);
    let on_chip = [&*format!("0x4 bytes at {}", VRAM.base), &*SRAM.base.to_string()];
    says(CODE, (VRAM.base.raw(), 4), &on_chip);
    let ram = ["frame 0x60000 ", "is RAM"];
    says(NUMBER, (BELOW + 1, 4), &ram);
}

/// S93, S97: the linear map is the other party, or its lack.
#[ktest]
fn memory_that_is_mapped_otherwise_is_told_with_where_and_how_s93_s97() {
    let text = 0x6001_0000;
    let had = ["RAM at 0x60010000 cannot be", "non-cacheable", "at 0x80010000 it is", "write-back"];
    says(MEMORY, (text, 4), &had);
    let lent = kernel().coherent_alloc(PAGE_SIZE, FrameOwner::Dma, NOBODY).expect("memory");
    let at = lent.physical.to_string();
    says(MEMORY, (lent.physical.raw(), 4), &["RAM at ", &at, "no linear address"]);
    let freed = kernel().coherent_free(authority(), lent.pages.start(), PAGE_SIZE);
    assert!(freed.is_ok(), "{freed:?}");
}

/// S97: both mappings, each with its type, and who made the one that is there.
#[ktest]
fn registers_that_are_mapped_otherwise_are_told_with_who_has_them_s97() {
    let caller = arch::backtrace::return_address();
    let physical = PhysAddr::new(DEVICE);
    let live = kernel().ioremap_own(physical, 4, Attributes::DEVICE, caller).expect("addresses");
    let (wanted, at) = (format!("0x1000 bytes at {physical} cannot be"), live.to_string());
    let for_whom = format!("by ioremap for {caller}");
    for (name, kind) in [
        (COMBINING, "non-cacheable"),
        (NON_POSTED, "strongly-ordered"),
        (MEMORY, "non-cacheable"),
        (NUMBER, "non-cacheable"),
    ] {
        let words = [&*wanted, kind, &at, "they are", "device", &for_whom];
        says(name, (DEVICE + 0x404, 4), &words);
    }
    kernel().iounmap(authority(), live).expect("ours");
    let number = physical.pfn();
    let area = kernel().vmap_devices([number].into_iter(), Attributes::WRITE_COMBINE, caller);
    let live = area.expect("addresses").pages.start();
    let (at, for_whom) = (live.to_string(), format!("by vmap for {caller}"));
    for name in [IOREMAP, SHARED] {
        let words = [&*wanted, "device", &at, "they are", "non-cacheable", &for_whom];
        says(name, (DEVICE, 4), &words);
    }
    kernel().vunmap(authority(), live).expect("ours");
    // What can be written is not executed, nor the other way round.
    let on_chip = SRAM.base.raw() + 5 * PAGE_SIZE;
    let live = kernel().ioremap_own(PhysAddr::new(on_chip), 4, Attributes::WRITE_COMBINE, caller);
    let live = live.expect("addresses");
    says(CODE, (on_chip, 4), &["cannot be r-x", &live.to_string(), "they are rw-", "by ioremap"]);
    kernel().iounmap(authority(), live).expect("ours");
}

/// S95: what the board has mapped for good is the other party.
#[ktest]
fn registers_that_are_mapped_for_good_are_told_with_their_name_s95() {
    let l2 = L2_CACHE_CONTROLLER;
    let had = kernel().static_mappings().next().expect("the board has one").pages.start();
    for (name, kind) in [
        (COMBINING, "non-cacheable"),
        (NON_POSTED, "strongly-ordered"),
        (MEMORY, "non-cacheable"),
        (NUMBER, "non-cacheable"),
    ] {
        says(name, (l2.base.raw(), 4), &[kind, l2.name, "device", &had.to_string()]);
    }
}

/// Of two types that may be, the first one's refusal is told.
#[ktest]
fn of_several_types_the_first_refusal_is_told_s93() {
    let either = |physical, size| memremap(physical, size, MEMREMAP_WT | MEMREMAP_WC);
    says(Name("memremap", either), (0x6001_0000, 4), &["cannot be", "write-through"]);
    let any = |physical, size| memremap(physical, size, MEMREMAP_WB | MEMREMAP_WT);
    says(Name("memremap", any), (BELOW, 2), &["0x2 bytes at 0x5fffffff", "0x60000000"]);
}
