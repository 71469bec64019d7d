//! Memory by size: small objects and areas under one name, and products that are checked (S30, S32, S86).

use core::ffi::c_void;
use core::ptr::{self, null};

use board::vexpress_a9::SYSTEM_REGISTERS;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::area::{AreaFlags, AreaKind};
use kerncore::coherent::AllocationFlags;
use kerncore::frames::ZoneKind;
use kerncore::layout::{HEAP_END, HEAP_START};
use ktest::ktest;
use linux::areas::{__vmalloc_area, __vmalloc_area_node, get_vm_area_node};
use linux::free::{vfree, vunmap};
use linux::lookup::{find_vm_area, is_vmalloc_addr};
use linux::objects::{kfree, kvfree, kvmalloc};
use linux::protection::PageProtection;
use linux::read_write::vread;
use linux::realloc::vrealloc;
use linux::vmalloc::{
    __vmalloc, __vmalloc_node, vcalloc, vmalloc, vmalloc_32, vmalloc_array, vmalloc_node,
};
use linux::vmap::vmap_pfn;
use mm::{heap, kernel};

use super::witness::{Books, ask_host, feed, frame_at, plus, starve, word_at};

const KERNEL: AllocationFlags = AllocationFlags::KERNEL;
const ZEROED: AllocationFlags = AllocationFlags(AllocationFlags::KERNEL.0 | AllocationFlags::ZERO);

#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn address(pointer: *const c_void) -> VirtAddr {
    VirtAddr::new(pointer.addr() as u32)
}

fn free(object: *const c_void) {
    // SAFETY: nobody uses it, if it is freed at all.
    unsafe { kvfree(object) };
}

fn fill(object: *mut c_void, bytes: u32, byte: u8) {
    // SAFETY: the object has so many bytes, and the test alone uses it.
    unsafe { object.write_bytes(byte, bytes as usize) };
}

/// Whether each byte of an object is `byte`.
fn is_all(object: *const c_void, bytes: u32, byte: u8) -> bool {
    let object: *const u8 = object.cast();
    // SAFETY: the object has so many bytes, all written.
    (0..bytes as usize).all(|index| unsafe { object.wrapping_add(index).read() } == byte)
}

/// S86: up to a page from the heap, beyond it an area; the free finds out by itself.
#[ktest]
fn small_objects_come_from_the_heap_and_large_ones_are_areas_s86() {
    let (books, used) = (Books::now(), heap::usage().used);
    for (bytes, is_area) in [(1, 0), (16, 0), (PAGE_SIZE, 0), (PAGE_SIZE + 1, 1), (1 << 20, 1)] {
        let object = kvmalloc(bytes, KERNEL);
        assert!(!object.is_null(), "{bytes:#x}");
        assert_eq!(is_vmalloc_addr(object), is_area, "{bytes:#x}");
        assert_eq!((HEAP_START..HEAP_END).contains(&address(object)), is_area == 0);
        assert_eq!(object.addr() % 16, 0, "{bytes:#x}");
        fill(object, bytes, 0xa5);
        let other = kvmalloc(bytes, ZEROED);
        assert!(is_all(other, bytes, 0) && is_all(object, bytes, 0xa5), "{bytes:#x}");
        free(object);
        free(other);
    }
    assert_eq!(heap::usage().used, used);
    books.assert_unchanged();
}

/// S86: null, and what was never given out, or was freed, or lies inside an object; each is refused and changes nothing.
#[ktest]
fn a_free_of_what_is_no_object_changes_nothing_s32_s86() {
    let (books, used) = (Books::now(), heap::usage().used);
    let object = kvmalloc(100, ZEROED);
    let area = kvmalloc(3 * PAGE_SIZE, ZEROED);
    let (here, here_used) = (Books::now(), heap::usage().used);
    let local = 0_u32;
    let foreign = [
        null(),
        object.wrapping_byte_add(16),
        object.wrapping_byte_add(1),
        object.wrapping_byte_sub(16),
        area.wrapping_byte_add(PAGE_SIZE as usize),
        area.wrapping_byte_add(8),
        (&raw const local).cast(),
        ptr::without_provenance(0x1000),
        ptr::without_provenance(HEAP_START.raw() as usize),
        ptr::without_provenance(HEAP_END.raw() as usize - 16),
        ptr::without_provenance(usize::MAX),
    ];
    for foreign in foreign {
        free(foreign);
        // SAFETY: nothing is freed.
        unsafe { kfree(foreign) };
    }
    // SAFETY: nothing is freed: it is an area.
    unsafe { kfree(area) };
    here.assert_unchanged();
    assert_eq!(heap::usage().used, here_used);
    for _ in 0..2 {
        free(object);
        free(area);
        assert_eq!(heap::usage().used, used);
        books.assert_unchanged();
    }
}

/// S76, S86: who may not sleep is given an object or nothing; without memory there is nothing, and nothing is lost.
#[ktest]
fn without_memory_or_leave_to_sleep_there_is_no_area_s86() {
    let object = kvmalloc(64, AllocationFlags::ATOMIC);
    assert!(!object.is_null());
    free(object);
    let books = Books::now();
    assert!(kvmalloc(PAGE_SIZE + 1, AllocationFlags::ATOMIC).is_null());
    for size in [0, 0xffff_f000, u32::MAX] {
        assert!(kvmalloc(size, KERNEL).is_null(), "{size:#x}");
    }
    let hunger = starve(0);
    assert!(kvmalloc(16 * PAGE_SIZE, KERNEL).is_null());
    feed(hunger);
    books.assert_unchanged();
}

/// In a handler's place: with interrupts masked small objects come and go.
#[ktest]
fn small_objects_come_and_go_with_interrupts_off() {
    let used = heap::usage().used;
    arch::irq::masked(|| free(kvmalloc(256, AllocationFlags::ATOMIC)));
    assert_eq!(heap::usage().used, used);
}

/// S86: the product is checked; the elements of an array are zero if that was asked for.
#[ktest]
fn arrays_are_of_a_checked_product_s86() {
    let books = Books::now();
    for (n, size) in [(0x1_0000, 0x1_0000), (u32::MAX, 2), (2, u32::MAX), (0x8000_0000, 2)] {
        assert!(vmalloc_array(n, size).is_null(), "{n} of {size}");
        assert!(vcalloc(n, size).is_null(), "{n} of {size}");
    }
    for (n, size) in [(0, 5), (5, 0), (0, 0)] {
        assert!(vmalloc_array(n, size).is_null() && vcalloc(n, size).is_null());
    }
    let dirty = vmalloc_array(3, 1365);
    let pages = kernel().find(address(dirty)).expect("live").pages;
    assert_eq!(pages.count(), 1, "4,095 bytes");
    fill(dirty, 4095, 0xff);
    // SAFETY: nobody uses it.
    unsafe { vfree(dirty) };
    let clean = vcalloc(1024, 5);
    assert_eq!(kernel().find(address(clean)).expect("live").pages.count(), 2);
    assert!(is_all(clean, 2 * PAGE_SIZE, 0));
    free(clean);
    books.assert_unchanged();
}

/// S30: memory that 32 bits can address.
#[ktest]
fn vmalloc_32_is_memory_below_four_gigabytes_s30() {
    let books = Books::now();
    let area = vmalloc_32(5000);
    fill(area, 2 * PAGE_SIZE, 1);
    let other = vmalloc(1);
    for area in [area, other] {
        free(area);
    }
    assert!(vmalloc_32(0).is_null());
    books.assert_unchanged();
}

/// S30: such memory, to be used so, as the numbers say; nothing for a protection or a node that is not there.
#[ktest]
fn the_named_kinds_of_vmalloc_give_what_they_say_s30() {
    let books = Books::now();
    let (read_write, read_only) = (PageProtection::KERNEL, PageProtection::KERNEL_READ_ONLY);
    let word = |area: *mut c_void| word_at(address(area));
    for zeroed in [__vmalloc(5000, ZEROED, read_write), __vmalloc_node(5000, ZEROED, read_only, 0)]
    {
        assert_eq!((word(zeroed), word(zeroed.wrapping_byte_add(8188))), (0, 0));
        ask_host(address(zeroed));
        free(zeroed);
    }
    let constant = __vmalloc(1, ZEROED, read_only);
    // SAFETY: nobody borrows the page, should the store succeed.
    let stored = unsafe { arch::probe::write_u8(address(constant), 1) };
    assert!(stored.is_err(), "read-only memory was written");
    free(constant);
    let dma = AllocationFlags(AllocationFlags::KERNEL.0 | 0x01);
    let low = __vmalloc(3 * PAGE_SIZE, dma, read_write);
    let zone = kernel().zones().zone_of(frame_at(address(low))).expect("RAM");
    assert_eq!(zone.1, ZoneKind::Dma, "the scarce low memory alone");
    free(low);
    for node in [-1, 0] {
        let area = vmalloc_node(PAGE_SIZE, node);
        fill(area, PAGE_SIZE, 3);
        free(area);
    }
    let here = Books::now();
    for node in [9, 70_000, i32::MAX] {
        assert!(vmalloc_node(PAGE_SIZE, node).is_null(), "node {node}");
        assert!(__vmalloc_node(PAGE_SIZE, KERNEL, read_write, node).is_null());
        assert!(get_vm_area_node(PAGE_SIZE, 0, node, KERNEL).is_null());
    }
    assert!(__vmalloc(PAGE_SIZE, KERNEL, PageProtection(9)).is_null());
    assert!(__vmalloc(PAGE_SIZE, KERNEL, PageProtection::NONCACHED).is_null(), "S97");
    assert!(__vmalloc(0, KERNEL, read_write).is_null());
    here.assert_unchanged();
    books.assert_unchanged();
}

/// S9, S30: flags that mean nothing, or name two zones, are refused by whoever takes flags, and change nothing; one zone is
/// honoured by all.
#[ktest]
fn flags_are_understood_by_all_who_take_them_or_refused_s9() {
    let books = Books::now();
    let resized = |memory, gfp| {
        // SAFETY: nobody else uses the memory, and what is refused leaves it as it was.
        unsafe { vrealloc(memory, 2 * PAGE_SIZE, gfp) }
    };
    let filled = |area, gfp| {
        // SAFETY: as above.
        unsafe { __vmalloc_area(area, gfp, PageProtection::KERNEL) }
    };
    let kept = vmalloc(PAGE_SIZE);
    fill(kept, PAGE_SIZE, 7);
    let here = Books::now();
    for nonsense in [0x0008, 0x8000_0000, 0x01 | 0x02, 0x02 | 0x04, 0x07] {
        let gfp = AllocationFlags(KERNEL.0 | nonsense);
        assert!(__vmalloc(PAGE_SIZE, gfp, PageProtection::KERNEL).is_null(), "{nonsense:#x}");
        assert!(__vmalloc_node(PAGE_SIZE, gfp, PageProtection::KERNEL, 0).is_null());
        assert!(kvmalloc(16, gfp).is_null() && kvmalloc(2 * PAGE_SIZE, gfp).is_null());
        assert!(resized(kept, gfp).is_null() && resized(null(), gfp).is_null());
        assert!(get_vm_area_node(PAGE_SIZE, 2, -1, gfp).is_null());
        let area = get_vm_area_node(PAGE_SIZE, 2, -1, KERNEL);
        assert!(filled(area, gfp).is_null(), "and consumed (S85a)");
        here.assert_unchanged();
    }
    let dma = AllocationFlags(KERNEL.0 | AllocationFlags::DMA);
    let area = get_vm_area_node(PAGE_SIZE, 2, -1, dma);
    let (kept, filled) = (resized(kept, dma), filled(area, dma));
    let object = kvmalloc(16, dma);
    for page in [kept.wrapping_byte_add(PAGE_SIZE as usize), filled, object] {
        let zone = kernel().zones().zone_of(frame_at(address(page))).expect("RAM");
        assert_eq!(zone.1, ZoneKind::Dma);
    }
    assert!(is_all(kept, PAGE_SIZE, 7), "what it held stays");
    for memory in [kept, filled, object] {
        free(memory);
    }
    books.assert_unchanged();
}

/// S85a: memory at addresses that were reserved before, by the descriptor; without memory, or asked for a protection that is none,
/// the area is gone.
#[ktest]
fn a_reserved_area_is_filled_by_its_descriptor_or_consumed_s85a() {
    let books = Books::now();
    let fill_area = |area, gfp, prot| {
        // SAFETY: a consumed area's descriptor is not used.
        unsafe { __vmalloc_area(area, gfp, prot) }
    };
    let area = get_vm_area_node(3 * PAGE_SIZE, 2, -1, KERNEL);
    assert!(fill_area(area, ZEROED, PageProtection(7)).is_null());
    books.assert_unchanged();
    let area = get_vm_area_node(3 * PAGE_SIZE, 2, -1, KERNEL);
    let memory = fill_area(area, ZEROED, PageProtection::KERNEL);
    assert_eq!(find_vm_area(memory), area);
    assert!(is_all(memory, 3 * PAGE_SIZE, 0));
    assert!(fill_area(area, ZEROED, PageProtection::KERNEL).is_null(), "filled before");
    // SAFETY: nobody uses it.
    unsafe { vfree(memory) };
    let area = get_vm_area_node(16 * PAGE_SIZE, 2, 0, KERNEL);
    let hunger = starve(3);
    // SAFETY: a consumed area's descriptor is not used.
    assert!(unsafe { __vmalloc_area_node(area, KERNEL, PageProtection::KERNEL, 0) }.is_null());
    feed(hunger);
    assert!(fill_area(null(), KERNEL, PageProtection::KERNEL).is_null());
    books.assert_unchanged();
}

/// S37, S94: registers by their frames' numbers, in any order; no RAM, nothing that would be cached.
#[ktest]
fn frames_of_devices_are_mapped_by_number_and_ram_is_not_s37_s94() {
    let books = Books::now();
    let registers = SYSTEM_REGISTERS.base.pfn().number();
    let pfns = [registers + 1, registers];
    // SAFETY: the array has two numbers.
    let map = |pfns: &[u32; 2], prot| unsafe { vmap_pfn(pfns.as_ptr(), 2, prot) };
    let area = map(&pfns, PageProtection::NONCACHED);
    assert_eq!(word_at(plus(address(area), PAGE_SIZE)), 0x1190_f500, "SYS_ID");
    let summary = kernel().find(address(area)).expect("live");
    assert_eq!((summary.kind, summary.flags), (AreaKind::Vmap, AreaFlags::IOREMAP));
    let mut seen = [7; 4];
    let second = area.wrapping_byte_add(PAGE_SIZE as usize);
    // SAFETY: four bytes of the test's own.
    assert_eq!(unsafe { vread(seen.as_mut_ptr(), second, 4) }, 4);
    assert_eq!(seen, [0; 4], "registers are not copied (S42)");
    // SAFETY: nobody uses it.
    unsafe { vunmap(area) };
    let here = Books::now();
    let ram = kernel().zones().table().first().number();
    for (pfns, prot) in [
        (pfns, PageProtection::KERNEL),
        (pfns, PageProtection(9)),
        ([registers, ram], PageProtection::NONCACHED),
        ([registers, 0x10_0000], PageProtection::NONCACHED),
    ] {
        assert!(map(&pfns, prot).is_null(), "{pfns:x?}");
    }
    // SAFETY: there is nothing to be read.
    assert!(unsafe { vmap_pfn(null(), 1, PageProtection::NONCACHED) }.is_null());
    // SAFETY: as above.
    assert!(unsafe { vmap_pfn(pfns.as_ptr().cast(), 0, PageProtection::NONCACHED) }.is_null());
    here.assert_unchanged();
    books.assert_unchanged();
}
