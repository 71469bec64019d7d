//! Bare areas as C code sees them: reserved, mapped, unmapped and removed by pointers and descriptors (S12, S16 to S20, S38, S47,
//! S48, S55, S85a).

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::{c_int, c_uint, c_void};
use core::ptr::{self, null};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};

use arch::smp;
use board::vexpress_a9::SYSTEM_REGISTERS;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::area::{AreaFlags, AreaKind, VmStruct};
use kerncore::attributes::Attributes;
use kerncore::frames::Frame;
use kerncore::va_space::Request;
use ktest::ktest;
use linux::areas::{
    __get_vm_area, __get_vm_area_caller, alloc_vm_area, free_vm_area, get_vm_area,
    get_vm_area_caller, map_vm_area, remove_vm_area, unmap_kernel_range, unmap_vm_area,
};
use linux::errno::{EBUSY, EINVAL, ENOMEM};
use linux::free::{vfree, vunmap};
use linux::lookup::{find_area_containing, find_vm_area, is_vmalloc_addr, vmalloc_to_pfn};
use linux::objects::{kfree, kvfree};
use linux::protection::PageProtection;
use linux::vmalloc::vmalloc;
use mm::kernel;
use mm::page_alloc::Pages;

use super::smp::Barrier;
use super::witness::{
    Books, NOBODY, ask_host, assert_absent, byte_at, feed, frame_at, linear, lowest_fit, plus,
    starve,
};

const VM_IOREMAP: c_uint = 0x01;
const VM_MAP: c_uint = 0x04;
const KERNEL: PageProtection = PageProtection::KERNEL;

fn pointer(address: VirtAddr) -> *const c_void {
    ptr::with_exposed_provenance(address.raw() as usize)
}

/// What `area` says: base, bytes, flags.
#[track_caller]
fn read(area: *const VmStruct) -> (VirtAddr, u32, u32) {
    // SAFETY: a descriptor of a live area, or one that the test has not freed yet.
    let area = unsafe { area.as_ref() }.expect("an area");
    (area.addr(), area.size(), area.flags().bits())
}

fn page_pointers(block: &Pages) -> Vec<*const Frame> {
    block.frames().map(linux::page::pointer_to).collect()
}

/// Maps `pages`, and says where the cursor is afterwards.
fn map(area: *const VmStruct, pages: &[*const Frame], prot: PageProtection) -> (c_int, usize) {
    let mut cursor = pages.as_ptr();
    // SAFETY: the tests give as many pages as the area has, and keep them while they are mapped.
    let answer = unsafe { map_vm_area(area, prot, &raw mut cursor) };
    (answer, (cursor.addr() - pages.as_ptr().addr()) / size_of::<*const Frame>())
}

fn free(area: *const VmStruct) {
    // SAFETY: nobody uses what is mapped there.
    unsafe { free_vm_area(area) };
}

fn unmap(address: VirtAddr, bytes: u32) {
    // SAFETY: nobody uses what is mapped there.
    unsafe { unmap_kernel_range(address.raw(), bytes) };
}

/// S2, S4, S11, S12: where each call puts an area, and what its descriptor says.
#[ktest]
fn each_entry_point_reserves_and_differs_only_in_its_defaults_s12() {
    let books = Books::now();
    let wanted = lowest_fit(3, 0).expect("room");
    let area = get_vm_area(2 * PAGE_SIZE + 1, VM_MAP);
    assert_eq!(read(area), (wanted, 4 * PAGE_SIZE, VM_MAP));
    assert_eq!(find_vm_area(pointer(wanted)), area);
    assert_absent(wanted);
    // SAFETY: the area lives.
    let descriptor = unsafe { &*area };
    assert_eq!((descriptor.pages(), descriptor.nr_pages()), (0, 0), "no page array (S11)");
    assert!(boot::layout::image().contains(descriptor.caller()), "a return address");

    let aligned = lowest_fit(2, 2).expect("room");
    let registers = get_vm_area(2 * PAGE_SIZE, VM_IOREMAP);
    assert_eq!(read(registers), (aligned, 3 * PAGE_SIZE, VM_IOREMAP), "16 KiB for 8 (S4)");

    let start = plus(kernel().window().start(), 64 << 20);
    let end = plus(start, 4 * PAGE_SIZE);
    let within = __get_vm_area(PAGE_SIZE, 0, start.raw() + 1, end.raw());
    assert_eq!(read(within), (plus(start, PAGE_SIZE), 2 * PAGE_SIZE, 0), "rounded up (S5)");
    let full = __get_vm_area(2 * PAGE_SIZE, 0, start.raw(), end.raw());
    assert!(full.is_null(), "no room for two pages and a guard (S7)");

    let caller = kernel_main_address();
    let named = get_vm_area_caller(1, 0, caller);
    let also = __get_vm_area_caller(1, 0, start.raw(), u32::MAX, caller);
    for area in [named, also] {
        // SAFETY: the areas live.
        assert_eq!(unsafe { &*area }.caller().raw() as usize, caller.addr());
    }
    for area in [area, registers, within, named, also] {
        free(area);
    }
    books.assert_unchanged();
}

/// Some place in the image.
fn kernel_main_address() -> *const c_void {
    (kernel_main_address as fn() -> *const c_void as *const ()).cast()
}

/// S3: nothing, and sizes that wrap with their guard; a window of nothing.
#[ktest]
fn sizes_that_cannot_be_reserve_nothing_s3() {
    let books = Books::now();
    for size in [0, 0xffff_f000, 0xffff_f001, u32::MAX, 0xf000_0000] {
        assert!(get_vm_area(size, 0).is_null(), "{size:#x}");
        assert!(get_vm_area(size, VM_IOREMAP).is_null(), "{size:#x}");
        assert!(alloc_vm_area(size).is_null(), "{size:#x}");
    }
    let start = kernel().window().start().raw();
    assert!(__get_vm_area(1, 0, start, start).is_null());
    assert!(__get_vm_area(1, 0, u32::MAX, 0).is_null());
    books.assert_unchanged();
}

/// S16, S38: in order, as many as the area has; the cursor says how many.
#[ktest]
fn pages_are_mapped_into_a_reserved_area_and_the_cursor_moves_s38() {
    let books = Books::now();
    let block = Pages::exactly(3).expect("memory");
    let pages = page_pointers(&block);
    let area = get_vm_area(3 * PAGE_SIZE, VM_MAP);
    let (base, ..) = read(area);
    assert_eq!(map(area, &pages, KERNEL), (0, 3));
    for (number, frame) in (0..).zip(block.frames()) {
        let at = plus(base, number * PAGE_SIZE);
        assert_eq!(frame_at(at), frame);
        assert_eq!(byte_at(at), byte_at(linear(frame)));
        assert_eq!(vmalloc_to_pfn(pointer(at)), frame.number());
        ask_host(at);
    }
    assert_absent(plus(base, 3 * PAGE_SIZE));
    assert_eq!(map(area, &pages, KERNEL), (-EBUSY, 0), "a slot in use is left alone (S17)");
    // SAFETY: nobody uses what is mapped there.
    unsafe { unmap_vm_area(area) };
    for number in 0..3 {
        assert_absent(plus(base, number * PAGE_SIZE));
    }
    assert_eq!(map(area, &pages, PageProtection::KERNEL_READ_ONLY), (0, 3));
    free(area);
    assert_absent(base);
    drop(block);
    books.assert_unchanged();
}

/// S18, S19: what was mapped before the gap stays, and the cursor stands at the gap.
#[ktest]
fn a_mapping_stops_at_what_is_no_page_and_keeps_what_it_has_s18_s19() {
    let books = Books::now();
    let block = Pages::exactly(2).expect("memory");
    let mut pages = page_pointers(&block);
    pages.push(null());
    let area = get_vm_area(3 * PAGE_SIZE, VM_MAP);
    let (base, ..) = read(area);
    assert_eq!(map(area, &pages, KERNEL), (-ENOMEM, 2));
    assert_eq!(frame_at(plus(base, PAGE_SIZE)), block.frames().nth(1).expect("two"));
    assert_absent(plus(base, 2 * PAGE_SIZE));
    assert_eq!(map(area, &pages, PageProtection(9)), (-EINVAL, 0));
    let mut nothing: *const *const Frame = null();
    // SAFETY: there is nothing to be read.
    assert_eq!(unsafe { map_vm_area(area, KERNEL, &raw mut nothing) }, -EINVAL);
    // SAFETY: as above.
    assert_eq!(unsafe { map_vm_area(area, KERNEL, ptr::null_mut()) }, -EINVAL);
    free(area);
    drop(block);
    books.assert_unchanged();
}

/// S25, S55: by address and size, rounded out to pages; the area keeps its addresses. D unmaps and then frees.
#[ktest]
fn a_range_is_unmapped_and_its_area_stays_s25_s55() {
    let books = Books::now();
    let block = Pages::exactly(4).expect("memory");
    let area = get_vm_area(4 * PAGE_SIZE, VM_MAP);
    let (base, ..) = read(area);
    assert_eq!(map(area, &page_pointers(&block), KERNEL), (0, 4));
    unmap(plus(base, 2 * PAGE_SIZE - 1), 2);
    for (number, mapped) in [true, false, false, true].into_iter().enumerate() {
        let at = plus(base, u32::try_from(number).expect("few") * PAGE_SIZE);
        assert_eq!(kernel().table().translate(at).is_some(), mapped, "{at}");
    }
    unmap(base, 5 * PAGE_SIZE);
    unmap(base, 4 * PAGE_SIZE);
    assert_eq!(find_vm_area(pointer(base)), area);
    let other = vmalloc(1);
    let here = Books::now();
    for (address, bytes) in [
        (base, 6 * PAGE_SIZE),
        (plus(base, 4 * PAGE_SIZE), 1),
        (kernel().find_containing(plus(base, 5 * PAGE_SIZE)).expect("live").pages.start(), 1),
        (VirtAddr::new(0x8000_0000), PAGE_SIZE),
        (VirtAddr::new(0x1000), 1),
    ] {
        unmap(address, bytes);
    }
    here.assert_unchanged();
    // SAFETY: nobody uses it.
    unsafe { vunmap(pointer(base)) };
    // SAFETY: nobody uses it.
    unsafe { vfree(other) };
    drop(block);
    books.assert_unchanged();
}

/// S47: tables for all of it, its guard included, nothing mapped; mapping asks for no memory.
#[ktest]
fn an_area_with_tables_is_mapped_without_memory_s47() {
    let block = Pages::exactly(1).expect("memory");
    let books = Books::now();
    let area = alloc_vm_area(PAGE_SIZE);
    let (base, size, flags) = read(area);
    assert_eq!((size, flags, base.raw() % (2 * PAGE_SIZE)), (2 * PAGE_SIZE, VM_IOREMAP, 0));
    assert_absent(base);
    let hunger = starve(0);
    assert_eq!(map(area, &page_pointers(&block), KERNEL), (0, 1));
    ask_host(base);
    feed(hunger);
    free(area);
    books.assert_unchanged();
}

/// S14: the descriptor counts its guard no longer, and no other area's appears in its place until it is freed.
#[ktest]
fn a_removed_area_leaves_its_descriptor_s14() {
    let books = Books::now();
    let area = get_vm_area(2 * PAGE_SIZE, VM_MAP);
    let (base, ..) = read(area);
    // SAFETY: nobody uses it, here and below.
    let removed = unsafe { remove_vm_area(pointer(base)) };
    assert_eq!(removed, area);
    assert_eq!(read(removed), (base, 2 * PAGE_SIZE, VM_MAP));
    assert!(find_vm_area(pointer(base)).is_null());
    // SAFETY: nothing is removed.
    assert!(unsafe { remove_vm_area(pointer(base)) }.is_null(), "once");
    let next = get_vm_area(PAGE_SIZE, 0);
    assert_ne!(next, removed);
    assert_eq!(read(removed), (base, 2 * PAGE_SIZE, VM_MAP));
    // SAFETY: nobody reads it any more.
    unsafe { kfree(removed.cast()) };
    free(next);
    let area = get_vm_area(1, 0);
    let (base, ..) = read(area);
    // SAFETY: nobody uses it.
    let removed = unsafe { remove_vm_area(pointer(base)) };
    // SAFETY: nobody reads it any more.
    unsafe { kvfree(removed.cast()) };
    // SAFETY: nothing is freed.
    unsafe { kvfree(removed.cast()) };
    books.assert_unchanged();
}

/// S34: what has a removal of its own stays, with all that it holds.
#[ktest]
fn areas_of_other_kinds_are_not_removed_s34() {
    let books = Books::now();
    let memory = vmalloc(2 * PAGE_SIZE);
    let registers = linux::ioremap::ioremap(SYSTEM_REGISTERS.base.raw(), PAGE_SIZE);
    let here = Books::now();
    for address in [memory, registers, memory.wrapping_byte_add(1), ptr::null_mut()] {
        // SAFETY: nothing is removed.
        assert!(unsafe { remove_vm_area(address) }.is_null());
    }
    here.assert_unchanged();
    // SAFETY: nobody uses them.
    unsafe { linux::ioremap::iounmap(registers) };
    // SAFETY: as above.
    unsafe { vfree(memory) };
    books.assert_unchanged();
}

/// S85a: a pointer that is no descriptor, or whose base was damaged, is refused, and nothing changes.
#[ktest]
fn what_is_no_descriptor_is_refused_s85a() {
    let books = Books::now();
    let block = Pages::exactly(1).expect("memory");
    let pages = page_pointers(&block);
    let area = get_vm_area(PAGE_SIZE, VM_MAP);
    let (base, ..) = read(area);
    let bare = VmStruct::new(
        base,
        2 * PAGE_SIZE,
        AreaFlags::MAP,
        kerncore::addr::PhysAddr::new(0),
        NOBODY,
        (VirtAddr::new(0), 0),
    );
    let on_the_heap = Vec::from([base.raw(); 8]);
    let here = Books::now();
    let foreign: [*const VmStruct; 8] = [
        null(),
        &raw const bare,
        on_the_heap.as_ptr().cast(),
        area.wrapping_byte_add(4),
        area.wrapping_byte_add(1),
        pointer(base).cast(),
        ptr::without_provenance(0x1000_0000),
        ptr::without_provenance(0xbfff_fffc),
    ];
    for area in foreign {
        assert_eq!(map(area, &pages, KERNEL), (-EINVAL, 0), "{area:p}");
        // SAFETY: nothing is unmapped.
        unsafe { unmap_vm_area(area) };
        here.assert_unchanged();
    }
    // The third word is the size, which nothing goes by.
    let size: *mut u32 = area.cast_mut().cast::<u32>().wrapping_add(2);
    // SAFETY: a word of a live descriptor, as C code could write it.
    unsafe { size.write_volatile(0x10_0000) };
    assert_eq!(map(area, &pages, KERNEL), (0, 1));
    unmap(base, PAGE_SIZE);
    // The second word is the base: whoever overwrites it is refused until it is right again.
    let damaged: *mut u32 = area.cast_mut().cast::<u32>().wrapping_add(1);
    // SAFETY: a word of a live descriptor, as C code could write it.
    unsafe { damaged.write_volatile(base.raw() + PAGE_SIZE) };
    assert_eq!(map(area, &pages, KERNEL), (-EINVAL, 0));
    // SAFETY: as above.
    unsafe { damaged.write_volatile(base.raw()) };
    assert_eq!(map(area, &pages, KERNEL), (0, 1));
    free(area);
    drop(block);
    books.assert_unchanged();
}

/// S85a: what a C caller notes in its area's descriptor is kept for whoever asks, shown, and neither read nor freed.
#[ktest]
fn what_its_owner_writes_into_a_descriptor_is_kept_s85a() {
    let books = Books::now();
    let area = get_vm_area(PAGE_SIZE, 0);
    let (base, ..) = read(area);
    let words: *mut u32 = area.cast_mut().cast();
    for (index, word) in
        [(3, 0x48_u32), (4, 0xdead_bee0), (5, 77), (6, 0x6000_5000), (7, 0x8001_0000)]
    {
        // SAFETY: a word of a live descriptor that is its owner's to write.
        unsafe { words.wrapping_add(index).write_volatile(word) };
    }
    let found = find_vm_area(pointer(base));
    // SAFETY: the area lives.
    let found = unsafe { &*found };
    assert_eq!((found.flags().bits(), found.pages(), found.nr_pages()), (0x48, 0xdead_bee0, 77));
    let summary = kernel().find(base).expect("live");
    assert_eq!((summary.kind, summary.physical.raw()), (AreaKind::Bare, 0x6000_5000));
    let mut shown = alloc::string::String::new();
    mm::area_list::for_each_line(|line| {
        if line.0.pages.start() == base {
            shown = alloc::format!("{line}");
        }
    });
    assert!(shown.ends_with(" pages=1 phys=0x60005000 user dma"), "{shown}");
    free(area);
    books.assert_unchanged();
}

/// S88: any address inside, and nobody's guard.
#[ktest]
fn an_area_is_found_by_any_address_inside_s88() {
    let area = get_vm_area(3 * PAGE_SIZE, 0);
    let (base, ..) = read(area);
    for inside in [0, 1, PAGE_SIZE, 3 * PAGE_SIZE - 1] {
        assert_eq!(find_area_containing(pointer(plus(base, inside))), area, "{inside:#x}");
        assert_eq!(is_vmalloc_addr(pointer(plus(base, inside))), 1);
        assert_eq!(vmalloc_to_pfn(pointer(plus(base, inside))), 0, "nothing is mapped");
    }
    for outside in [plus(base, 3 * PAGE_SIZE), VirtAddr::new(base.raw() - 1), VirtAddr::new(0)] {
        assert_ne!(find_area_containing(pointer(outside)), area, "{outside}");
    }
    assert_eq!(is_vmalloc_addr(pointer(plus(base, 3 * PAGE_SIZE))), 1, "addresses, not areas");
    for elsewhere in [0, 0x8000_0000, 0xbfff_ffff, 0xf000_0000, 0xffff_ffff] {
        assert_eq!(is_vmalloc_addr(pointer(VirtAddr::new(elsewhere))), 0, "{elsewhere:#x}");
        assert_eq!(vmalloc_to_pfn(pointer(VirtAddr::new(elsewhere))), 0, "{elsewhere:#x}");
    }
    free(area);
    let registers = linux::ioremap::ioremap(SYSTEM_REGISTERS.base.raw(), 4);
    assert_eq!(vmalloc_to_pfn(registers), SYSTEM_REGISTERS.base.pfn().number());
    // SAFETY: nobody uses them.
    unsafe { linux::ioremap::iounmap(registers) };
}

/// S88: a short area comes to lie where a long one was, while other CPUs ask for an address that only the long one has.
#[ktest]
fn an_area_is_found_by_its_own_addresses_alone_smp_s88() {
    let (base, long) = (AtomicU32::new(0), AtomicU32::new(0));
    let (barrier, ended) = (Barrier::new(), AtomicU32::new(0));
    smp::run_on_each(|cpu| {
        barrier.wait();
        if cpu != 0 {
            while ended.load(Acquire) == 0 {
                smp::beat();
                let inside = VirtAddr::new(base.load(Acquire)).checked_add(2 * PAGE_SIZE);
                let found = find_area_containing(pointer(inside.expect("an address")));
                let found = u32::try_from(found.addr()).expect("32 bits");
                assert!([0, long.load(Acquire)].contains(&found), "the short one, at {found:#x}");
                arch::cpu::relax();
            }
            return;
        }
        // To look twice goes wrong in a few of so many.
        for _ in 0..4000 {
            smp::beat();
            let area = get_vm_area(3 * PAGE_SIZE, 0);
            let (start, at) = (read(area).0, u32::try_from(area.addr()).expect("32 bits"));
            // The same each time: what is removed has its descriptor still while the short one takes another.
            assert!([0, at].contains(&long.swap(at, Release)));
            base.store(start.raw(), Release);
            arch::cpu::relax();
            // SAFETY: nothing is mapped there.
            assert_eq!(unsafe { remove_vm_area(pointer(start)) }, area);
            let short = get_vm_area(PAGE_SIZE, 0);
            assert!(short != area && read(short).0 == start);
            free(short);
            // SAFETY: nobody looks at it.
            unsafe { kfree(area.cast()) };
        }
        ended.store(1, Release);
    });
}

/// S15: the pages for an area are asked for while it is changed; who asks for a second change meanwhile is told so.
#[ktest]
fn an_area_that_is_being_changed_is_busy_s15_s17() {
    let books = Books::now();
    let block = Pages::exactly(1).expect("memory");
    let pages = page_pointers(&block);
    let area = get_vm_area(PAGE_SIZE, 0);
    let (base, ..) = read(area);
    let table = *kernel().zones().table();
    let frames = pages.iter().map(|page| {
        assert_eq!(map(area, &pages, KERNEL), (-EBUSY, 0));
        table.belonging_at_record(page.addr())
    });
    assert_eq!(kernel().map_area(base, frames, Attributes::KERNEL_DATA), Ok(1));
    free(area);
    drop(block);
    books.assert_unchanged();
}

/// The Rust owner maps pages, gives them back, and is gone when it is dropped.
#[ktest]
fn the_owner_of_a_bare_area_maps_and_gives_back() {
    let books = Books::now();
    let mut area =
        mm::bare_area::BareArea::with_tables(Request::of_bytes(3 * PAGE_SIZE)).expect("room");
    assert!(area.is_empty());
    let mut block = Pages::exactly(2).expect("memory");
    block[PAGE_SIZE as usize] = 0x5a;
    area.map(Vec::from([block])).expect("mapped");
    assert_eq!(area.len(), 2 * PAGE_SIZE as usize);
    assert_eq!(area[PAGE_SIZE as usize], 0x5a);
    area[0] = 7;
    let refused = area.map(Vec::from([Pages::exactly(2).expect("memory")]));
    assert_eq!(refused.expect_err("no room").pages.len(), 1);
    let pages = area.unmap();
    assert_eq!(pages.first().expect("the block")[0], 7);
    assert!(area.is_empty());
    assert_absent(area.address());
    area.map(pages).expect("mapped again");
    drop(area);
    books.assert_unchanged();
}

#[ktest(fatal = "free_vm_area: 0x")]
fn freeing_what_is_no_descriptor_is_fatal_s48() {
    let bare = VmStruct::vacant();
    free(&raw const bare);
}

#[ktest(fatal = "free_vm_area: the area at")]
fn freeing_memory_of_vmalloc_by_its_descriptor_is_fatal_s48() {
    free(find_vm_area(vmalloc(1)));
}

#[ktest(fatal = "are no range")]
fn unmapping_nothing_is_fatal_s20() {
    unmap(kernel().window().start(), 0);
}

#[ktest(fatal = "are no range")]
fn unmapping_past_the_top_of_memory_is_fatal_s20() {
    unmap(VirtAddr::new(0xffff_f000), 0x1001);
}
