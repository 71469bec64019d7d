//! The Linux names as C code sees them: symbols to call, pointers, and a descriptor whose layout is C's (S13, S32, S34,
//! S37, S85a, S88).
//!
//! Nothing of the `linux` crate's own types is used: what is declared here is what a C header would say.

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::{c_uint, c_void};
use core::ptr::{self, null, null_mut};

use arch::exception::FaultStatus;
use arch::probe;
use board::vexpress_a9::SYSTEM_REGISTERS;
use image::capture::capture_log;
use kerncore::addr::{PAGE_SIZE, Pfn, VirtAddr};
use ktest::ktest;
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::{self, VmArea};

use super::witness::{
    Books, ask_host, assert_absent, byte_at, feed, frame_at, linear, plus, starve, word_at,
};

const VM_IOREMAP: u32 = 0x01;
const VM_ALLOC: u32 = 0x02;
const VM_MAP: u32 = 0x04;
const PAGE_KERNEL: c_uint = 0;
const PAGE_KERNEL_RO: c_uint = 1;
/// Bytes between two page pointers.
const STRIDE: usize = 16;

/// `struct page`: nothing but its address is known.
#[repr(C, align(16))]
struct Page([u8; STRIDE]);

/// `struct vm_struct`, written down from the seeds.
#[repr(C)]
struct Descriptor {
    next: *const Self,
    addr: *mut c_void,
    size: usize,
    flags: usize,
    pages: *const *const Page,
    nr_pages: c_uint,
    phys_addr: u32,
    caller: *const c_void,
}

unsafe extern "C" {
    safe fn vmalloc(size: c_uint) -> *mut c_void;
    safe fn vzalloc(size: c_uint) -> *mut c_void;
    fn vfree(address: *const c_void);
    fn vfree_atomic(address: *const c_void);
    fn vmap(pages: *const *const Page, count: c_uint, flags: c_uint, prot: c_uint) -> *mut c_void;
    fn vunmap(address: *const c_void);
    safe fn ioremap(physical: c_uint, size: c_uint) -> *mut c_void;
    fn iounmap(address: *const c_void);
    fn memunmap(address: *const c_void);
    safe fn find_vm_area(address: *const c_void) -> *const Descriptor;
    safe fn vmalloc_to_page(address: *const c_void) -> *const Page;
    safe fn alloc_pages(gfp: c_uint, order: c_uint) -> *const Page;
    fn __free_pages(page: *const Page, order: c_uint);
}

/// `GFP_KERNEL`, and with `__GFP_ZERO`.
const GFP_KERNEL: c_uint = 0xd0;
const GFP_ZEROED: c_uint = 0x80d0;

/// A removing call, so that tests can go through all three.
type Remove = unsafe extern "C" fn(*const c_void);

/// Calls `remove` with what it must refuse, or with what this test made and uses no longer.
fn call(remove: Remove, address: *const c_void) {
    // SAFETY: nobody uses what lies at `address`, if it is removed at all.
    unsafe { remove(address) };
}

#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn address(pointer: *const c_void) -> VirtAddr {
    VirtAddr::new(pointer.expose_provenance() as u32)
}

fn pointer(address: VirtAddr) -> *const c_void {
    ptr::with_exposed_provenance(address.raw() as usize)
}

/// The live descriptor of `area`, copied.
#[track_caller]
fn descriptor(area: *const c_void) -> Descriptor {
    let found = find_vm_area(area);
    assert!(!found.is_null(), "a live area");
    // SAFETY: the area is live for as long as the caller keeps it, and so is its descriptor.
    unsafe { found.read() }
}

/// The page pointers of these pages, as their linear addresses' owner would know them: through a vmalloc area's.
fn page_pointers(frames: impl Iterator<Item = Pfn>) -> Vec<*const Page> {
    frames.map(|frame| linux::page::pointer_to(frame).cast()).collect()
}

#[track_caller]
fn map(pages: &[*const Page], flags: c_uint, prot: c_uint) -> *mut c_void {
    let count = c_uint::try_from(pages.len()).expect("few");
    // SAFETY: the array has `count` pointers; the tests keep the pages while they are mapped.
    unsafe { vmap(pages.as_ptr(), count, flags, prot) }
}

#[ktest]
fn null_is_freed_and_found_by_nobody_s32() {
    let books = Books::now();
    let ((), log) = capture_log(|| {
        for remove in [vfree as Remove, vfree_atomic, vunmap, iounmap, memunmap] {
            call(remove, null());
        }
    });
    assert_eq!(log.text(), "", "and nothing is said of it");
    assert!(find_vm_area(null()).is_null());
    assert!(vmalloc_to_page(null()).is_null());
    books.assert_unchanged();
}

/// With interrupts off an area is queued, in C as in Rust; it is not found any more, and is freed with the others.
#[ktest]
fn a_deferred_free_is_done_later_and_once_s89() {
    let books = Books::now();
    let [first, second] = [vmalloc(3 * PAGE_SIZE), vmalloc(1)];
    let third = VmArea::new(PAGE_SIZE).expect("memory");
    arch::irq::masked(|| {
        call(vfree_atomic, second);
        call(vfree_atomic, first);
        call(vfree_atomic, first);
        third.free_later();
        assert!(find_vm_area(first).is_null() && find_vm_area(second).is_null());
    });
    call(vfree, first);
    assert_eq!(kernel().deferred(), 3);
    assert_eq!(vm_area::free_deferred(), 3);
    assert_eq!(vm_area::free_deferred(), 0);
    books.assert_unchanged();
}

#[ktest]
fn sizes_that_cannot_be_are_null_s3_s26_s94() {
    let books = Books::now();
    for size in [0, 0xffff_efff, 0xffff_f000, 0xffff_f001, 0xffff_ffff] {
        assert!(vmalloc(size).is_null(), "{size:#x}");
        assert!(vzalloc(size).is_null(), "{size:#x}");
    }
    for (physical, size) in [(0x1000_0000, 0), (0xffff_ffff, 2), (0x6000_0000, 1), (0x5fff_ffff, 2)]
    {
        assert!(ioremap(physical, size).is_null(), "{size:#x} at {physical:#x}");
    }
    books.assert_unchanged();
}

#[ktest]
fn the_descriptor_says_what_the_area_is_in_c_s_own_layout_s11_s85a() {
    let books = Books::now();
    let area = vmalloc(2 * PAGE_SIZE + 1);
    let found = descriptor(area);
    assert!(found.next.is_null());
    assert!(!found.pages.is_null() && found.nr_pages == 3, "an array of three (S27)");
    assert_eq!(found.addr, area);
    assert_eq!(found.size, 4 * PAGE_SIZE as usize, "three pages and the guard (S2)");
    assert_eq!((found.flags, found.phys_addr), (VM_ALLOC as usize, 0));
    ask_host(address(area));
    assert!(boot::layout::image().contains(address(found.caller)), "a return address");
    call(vfree, area);

    let registers = ioremap(0x2000_1400, 0x400);
    assert!(find_vm_area(registers).is_null(), "the exact base only (S13)");
    let found = descriptor(pointer(address(registers).page_base()));
    assert_eq!((found.flags, found.phys_addr), (VM_IOREMAP as usize, 0x2000_1000));
    ask_host(address(registers));
    assert_eq!(found.size, 2 * PAGE_SIZE as usize);
    call(iounmap, registers);
    assert!(find_vm_area(pointer(address(registers).page_base())).is_null());
    books.assert_unchanged();
}

#[ktest]
fn an_area_is_found_by_its_base_alone_and_no_longer_than_it_lives_s13() {
    let area = vmalloc(3 * PAGE_SIZE);
    let base = address(area);
    for other in [1, 4, PAGE_SIZE, 2 * PAGE_SIZE, 3 * PAGE_SIZE, 4 * PAGE_SIZE - 1] {
        assert!(find_vm_area(pointer(plus(base, other))).is_null(), "{other:#x}");
    }
    assert_eq!(descriptor(area).addr, area);
    call(vfree, area);
    assert!(find_vm_area(area).is_null());
}

/// S88: from the first to the last byte of each page; nothing for the guard, the linear map, registers, or what was freed.
#[ktest]
fn a_page_pointer_stands_for_the_frame_that_the_walker_finds_s88() {
    let area = vmalloc(5 * PAGE_SIZE);
    let base = address(area);
    for number in 0..5 {
        let page = plus(base, number * PAGE_SIZE);
        let found = vmalloc_to_page(pointer(page));
        assert_eq!(linux::page::frame_of(found.cast()), Some(frame_at(page)));
        assert_eq!(linux::page::page_to_phys(found.cast()), frame_at(page).base());
        for inside in [1, 0x800, PAGE_SIZE - 1] {
            assert_eq!(vmalloc_to_page(pointer(plus(page, inside))), found);
        }
    }
    let first = frame_at(base);
    let nothing = [
        plus(base, 5 * PAGE_SIZE),
        plus(base, 6 * PAGE_SIZE - 1),
        linear(first),
        VirtAddr::new(0x8000_0000),
        VirtAddr::new(0x1000_0000),
        VirtAddr::new(0xffff_fffc),
    ];
    for address in nothing {
        assert!(vmalloc_to_page(pointer(address)).is_null(), "{address}");
    }
    let registers = ioremap(SYSTEM_REGISTERS.base.raw(), 4);
    assert!(vmalloc_to_page(registers).is_null(), "no frame stands behind a register");
    call(iounmap, registers);
    call(vfree, area);
    assert!(vmalloc_to_page(area).is_null());
}

#[ktest]
fn page_pointers_of_adjacent_frames_are_one_stride_apart_s85a() {
    let block = Pages::new(3).expect("memory");
    let pointers = page_pointers(block.frames());
    for (lower, upper) in pointers.iter().zip(&pointers[1..]) {
        assert_eq!(lower.addr() + STRIDE, upper.addr());
    }
}

#[ktest]
fn vmap_takes_page_pointers_in_any_order_and_stores_the_flags_s37() {
    let block = Pages::exactly(4).expect("memory");
    let mut pages = page_pointers(block.frames());
    pages.reverse();
    pages.push(pages[0]);
    let area = map(&pages, VM_MAP | 0x08, PAGE_KERNEL);
    let found = descriptor(area);
    assert_eq!((found.addr, found.flags), (area, (VM_MAP | 0x08) as usize));
    assert_eq!(
        (found.size, found.nr_pages),
        (6 * PAGE_SIZE as usize, 0),
        "the pages are not its own"
    );
    for (number, &page) in (0..).zip(&pages) {
        let at = plus(address(area), number * PAGE_SIZE);
        assert_eq!(vmalloc_to_page(pointer(at)), page);
        assert_eq!(byte_at(at), byte_at(linear(frame_at(at))));
        ask_host(at);
    }
    call(vunmap, area);
    assert_absent(address(area));
    let area = map(&pages, VM_MAP, PAGE_KERNEL_RO);
    // SAFETY: nobody borrows the page, should the store succeed.
    let stored = unsafe { probe::write_u8(address(area), 1) };
    let fault = stored.expect_err("a read-only page was written");
    ask_host(address(area));
    assert!(matches!(fault.status, FaultStatus::Permission(_)), "{fault}");
    call(vunmap, area);
}

/// S18, S37: null, inside a record, before and behind the table, somewhere else; each last in an array of good ones.
#[ktest]
fn a_pointer_that_is_no_page_makes_vmap_null_and_changes_nothing_s18_s37() {
    let block = Pages::exactly(2).expect("memory");
    let good = page_pointers(block.frames());
    let table = kernel().zones().table();
    let first: *const Page = linux::page::pointer_to(table.first()).cast();
    let bad = [
        null(),
        good[0].wrapping_byte_add(1),
        good[0].wrapping_byte_add(8),
        first.wrapping_sub(1),
        first.wrapping_add(table.len() as usize),
        ptr::without_provenance(usize::MAX),
        ptr::from_ref(&good).cast(),
    ];
    let mut pages = good.clone();
    for bad in bad {
        pages.push(bad);
        let books = Books::now();
        assert_eq!(linux::page::frame_of(bad.cast()), None, "{bad:p}");
        assert!(map(&pages, VM_MAP, PAGE_KERNEL).is_null(), "{bad:p}");
        books.assert_unchanged();
        pages.pop();
    }
    let area = map(&pages, VM_MAP, PAGE_KERNEL);
    assert!(!area.is_null());
    call(vunmap, area);
}

#[ktest]
fn vmap_of_nothing_or_of_more_than_ram_is_null_before_the_array_is_read_s37() {
    let books = Books::now();
    let nowhere: *const *const Page = ptr::without_provenance(4);
    for count in [0, kernel().zones().total() + 1, 0x10_0000, 0x10_0001, c_uint::MAX] {
        // SAFETY: none of these counts is a count of pointers to be read.
        let area = unsafe { vmap(nowhere, count, VM_MAP, PAGE_KERNEL) };
        assert!(area.is_null(), "{count}");
    }
    // SAFETY: as above.
    assert!(unsafe { vmap(null(), 1, VM_MAP, PAGE_KERNEL) }.is_null());
    books.assert_unchanged();
}

#[ktest]
fn without_memory_what_needs_some_is_null_and_changes_nothing() {
    let block = Pages::new(0).expect("memory");
    let pages = page_pointers(block.frames());
    // The table and the record that one area needs are there afterwards.
    call(vunmap, map(&pages, VM_MAP, PAGE_KERNEL));
    let hunger = starve(0);
    let books = Books::now();
    assert!(vmalloc(1).is_null());
    assert!(vzalloc(1).is_null());
    let mapped = map(&pages, VM_MAP, PAGE_KERNEL);
    assert!(!mapped.is_null(), "the pages are the caller's, and no list of them is made");
    call(vunmap, mapped);
    books.assert_unchanged();
    feed(hunger);
}

/// S32, S34: wrong kind, interior, guard, unaligned, never mapped; the area is there afterwards with all that it holds.
#[ktest]
fn a_wrong_free_changes_nothing_s32_s34() {
    let block = Pages::exactly(2).expect("memory");
    let made: [(*mut c_void, Remove); 3] = [
        (vzalloc(2 * PAGE_SIZE), vfree),
        (map(&page_pointers(block.frames()), VM_MAP, PAGE_KERNEL), vunmap),
        (ioremap(SYSTEM_REGISTERS.base.raw(), PAGE_SIZE), iounmap),
    ];
    let books = Books::now();
    for (own, (area, _)) in made.iter().enumerate() {
        let base = address(*area);
        let word = word_at(base);
        for (other, (_, remove)) in made.iter().enumerate() {
            if other != own {
                call(*remove, *area);
            }
            call(*remove, pointer(plus(base, 2 * PAGE_SIZE)));
            if other != 2 {
                call(*remove, pointer(plus(base, 1)));
                call(*remove, pointer(plus(base, PAGE_SIZE - 1)));
            }
        }
        assert_eq!(descriptor(*area).addr, *area);
        assert_eq!(word_at(base), word);
        books.assert_unchanged();
    }
    for never in [0x8000_0000, 0x0000_1000, 0xffff_f000] {
        for (_, remove) in &made {
            call(*remove, pointer(VirtAddr::new(never)));
        }
    }
    books.assert_unchanged();
    for (area, remove) in made {
        call(remove, area);
        assert_absent(address(area));
        let books = Books::now();
        call(remove, area);
        books.assert_unchanged();
    }
}

#[ktest]
fn vzalloc_is_zero_where_vmalloc_was_written_s86() {
    let dirty = vmalloc(4 * PAGE_SIZE);
    // SAFETY: four pages of our own.
    unsafe { dirty.write_bytes(0xff, 4 * PAGE_SIZE as usize) };
    call(vfree, dirty);
    let clean = vzalloc(4 * PAGE_SIZE);
    assert_eq!(clean, dirty, "the lowest fit is the hole just made");
    for word in (0..4 * PAGE_SIZE).step_by(4) {
        assert_eq!(word_at(plus(address(clean), word)), 0);
    }
    call(vfree, clean);
}

#[ktest]
fn ioremap_reads_a_register_and_iounmap_takes_any_pointer_inside_s59() {
    let registers = ioremap(SYSTEM_REGISTERS.base.raw(), PAGE_SIZE);
    assert_eq!(word_at(address(registers)), 0x1190_f500, "SYS_ID");
    call(iounmap, pointer(plus(address(registers), PAGE_SIZE - 1)));
    assert_absent(address(registers));
    assert_ne!(registers, null_mut());
}

/// The frame behind a page pointer, as the crate that gave it reads it.
fn frame_behind(page: *const Page) -> Pfn {
    linux::page::frame_of(page.cast()).expect("a page pointer")
}

#[ktest]
fn alloc_pages_gives_aligned_pages_zeroed_if_asked_and_free_pages_takes_them_back_once() {
    for order in [0, 3] {
        let books = Books::now();
        let page = alloc_pages(GFP_KERNEL, order);
        let first = linear(frame_behind(page));
        assert_eq!(first.raw() % (PAGE_SIZE << order), 0, "order {order}");
        let memory: *mut u8 = pointer(first).cast_mut().cast();
        // SAFETY: 2^order pages of our own, in the linear map.
        unsafe { memory.write_bytes(0xff, (PAGE_SIZE << order) as usize) };
        // SAFETY: nobody uses them; what must be refused changes nothing.
        let free = |page, order| unsafe { __free_pages(page, order) };
        ask_host(first);
        free(page, order + 1);
        assert_eq!(alloc_pages(GFP_KERNEL, 11), null(), "more than the largest block");
        free(page, order);
        free(page, order);
        free(null(), order);
        free(pointer(first).cast(), order);
        books.assert_unchanged();

        let zeroed = alloc_pages(GFP_ZEROED, order);
        for word in (0..PAGE_SIZE << order).step_by(4) {
            assert_eq!(word_at(plus(linear(frame_behind(zeroed)), word)), 0, "order {order}");
        }
        free(zeroed, order);
        books.assert_unchanged();
    }
}
