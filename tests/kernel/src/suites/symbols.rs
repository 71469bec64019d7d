//! The image's own symbol table, and backtraces by it (S113).

use core::hint::black_box;

use arch::backtrace;
use arch::symbols::lookup;
use boot::layout::parts;
use kerncore::addr::{PageRange, VirtAddr};
use ktest::{Completion, ktest};
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

const NO_SYMBOLS: Completion = Completion::Skipped("the image has no symbols");

unsafe extern "C" {
    // Looked at, never called, so that any type will do.
    fn kernel_main();
    fn exception_vectors();
    fn probe_read_u32();
}

fn text() -> PageRange {
    parts()[0].pages
}

fn at(symbol: *const u8) -> VirtAddr {
    VirtAddr::new(symbol as u32)
}

fn code(function: *const ()) -> VirtAddr {
    VirtAddr::new(function as u32)
}

/// Whether the table was filled. Not by way of a look-up, whose failure would then pass for an empty table.
pub(super) fn has_symbols() -> bool {
    unsafe extern "C" {
        static __ksyms_start: u8;
    }
    arch::probe::read_u32(at(&raw const __ksyms_start)) == Ok(u32::from_le_bytes(*b"KSYM"))
}

/// The function that `address` lies in, and where it begins.
fn function(address: VirtAddr) -> Option<(&'static str, u32)> {
    lookup(address).map(|symbol| (symbol.name, address.raw() - symbol.offset))
}

#[ktest]
fn c_names_lead_to_their_functions_and_back_s113() -> Completion {
    if !has_symbols() {
        return NO_SYMBOLS;
    }
    for (symbol, name) in [
        (kernel_main as *const (), "kernel_main"),
        (exception_vectors as *const (), "exception_vectors"),
        (probe_read_u32 as *const (), "probe_read_u32"),
        (linux::vmalloc::vmalloc as *const (), "vmalloc"),
        (linux::vmalloc::vzalloc as *const (), "vzalloc"),
        (linux::free::vfree as *const (), "vfree"),
        (linux::vmap::vmap as *const (), "vmap"),
        (linux::free::vunmap as *const (), "vunmap"),
        (linux::ioremap::ioremap as *const (), "ioremap"),
        (linux::ioremap::iounmap as *const (), "iounmap"),
        (linux::dma::dma_alloc_coherent as *const (), "dma_alloc_coherent"),
        (linux::dma::dma_free_coherent as *const (), "dma_free_coherent"),
    ] {
        let found = lookup(code(symbol)).unwrap_or_else(|| panic!("{name} has no symbol"));
        assert_eq!(found.name, name);
        assert_eq!(found.offset, 0, "{name}");
        let next = VirtAddr::new(code(symbol).raw() + 4);
        let inside = lookup(next).unwrap_or_else(|| panic!("{name} has one instruction?"));
        assert_eq!((inside.name, inside.offset), (found.name, 4));
        let before = lookup(VirtAddr::new(code(symbol).raw() - 1));
        assert!(before.is_none_or(|before| before.name != found.name), "{name} begins earlier");
    }
    Completion::Ran
}

/// From the first to the last instruction: names change where functions do, and nowhere else.
#[ktest]
fn every_instruction_s_symbol_begins_at_or_below_it_and_functions_do_not_overlap() -> Completion {
    if !has_symbols() {
        return NO_SYMBOLS;
    }
    let end = text().start().raw() + text().bytes();
    let (mut functions, mut named, mut last) = (0, 0, None);
    for raw in (text().start().raw()..end).step_by(4) {
        let Some((name, start)) = function(VirtAddr::new(raw)) else { continue };
        named += 4;
        assert!(!name.is_empty(), "{raw:#x}");
        assert!(text().contains(VirtAddr::new(start)), "{name} begins at {start:#x}");
        if last != Some(start) {
            assert!(last.is_none_or(|last| last < start), "{name} lies inside of another");
            assert_eq!(start, raw, "{name} begins within what came before");
            last = Some(start);
            functions += 1;
        }
    }
    assert!(functions > 100, "{functions} functions");
    assert!(named > text().bytes() / 2, "{named} of {} bytes have names", text().bytes());
    Completion::Ran
}

#[ktest]
fn data_has_no_function_s_name() {
    static STATIC: u32 = 7;
    let local = black_box(7);
    let page = Pages::new(0).expect("a page");
    let area = VmArea::new(1).expect("memory");
    for address in [
        VirtAddr::new(0),
        VirtAddr::new(4),
        VirtAddr::new(u32::MAX),
        VirtAddr::new(text().start().raw() + text().bytes()),
        at((&raw const STATIC).cast()),
        at((&raw const local).cast()),
        page.address(),
        area.address(),
    ] {
        assert_eq!(lookup(address), None, "{address}");
    }
    for part in parts().iter().skip(1) {
        for number in part.pages.first()..part.pages.end() {
            let address = VirtAddr::new(number << 12);
            assert_eq!(lookup(address), None, "{address} in the {}", part.name);
        }
    }
}

/// What a chain of calls looked like from its inner end: the first calls, innermost first.
type Calls = [Option<VirtAddr>; 4];

#[inline(never)]
fn suite_chain_inner() -> Calls {
    let mut calls = backtrace::here();
    core::array::from_fn(|_| calls.next())
}

#[inline(never)]
fn suite_chain_middle() -> Calls {
    // Not the last thing done, so that it is a call and not a jump.
    black_box(suite_chain_inner())
}

#[inline(never)]
fn suite_chain_outer() -> Calls {
    black_box(suite_chain_middle())
}

#[ktest]
fn a_backtrace_names_the_callers_innermost_first_s113() -> Completion {
    let calls = suite_chain_outer();
    for call in calls {
        let call = call.expect("four calls led here");
        assert!(text().contains(call), "{call}");
    }
    if !has_symbols() {
        return NO_SYMBOLS;
    }
    let names = calls.map(|call| call.and_then(lookup).map_or("", |symbol| symbol.name));
    for (name, wanted) in names.iter().zip(["suite_chain_middle", "suite_chain_outer"]) {
        assert!(name.contains(wanted), "{name} where {wanted} was to be");
    }
    Completion::Ran
}

#[ktest]
fn a_backtrace_ends_at_the_kernel_s_first_call() -> Completion {
    let (count, last) =
        backtrace::here().fold((0, None), |(count, _), call| (count + 1, Some(call)));
    assert!((2..backtrace::MAX_FRAMES).contains(&count), "{count} calls");
    if !has_symbols() {
        return NO_SYMBOLS;
    }
    let first = last.and_then(lookup).expect("it lies in a function");
    assert_eq!(first.name, "boot_high");
    Completion::Ran
}

#[ktest]
fn a_return_address_lies_behind_the_call() {
    #[inline(never)]
    fn who() -> VirtAddr {
        black_box(backtrace::return_address())
    }
    let address = black_box(who());
    let called = backtrace::here().next();
    assert!(text().contains(address));
    let instruction = VirtAddr::new(address.raw() - 4);
    let word = arch::probe::read_u32(instruction).expect("text is readable");
    assert_eq!(word >> 24, 0xeb, "a BL comes before {address}: {word:#x}");
    assert_ne!(Some(instruction), called, "it is the caller's own caller");
}
