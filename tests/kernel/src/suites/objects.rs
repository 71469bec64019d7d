//! Memory by size: small objects and areas under one name, and products that are checked (S30, S32, S86).

use core::ffi::c_void;
use core::ptr::{self, null};

use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::coherent::AllocationFlags;
use kerncore::layout::{HEAP_END, HEAP_START};
use ktest::ktest;
use linux::free::vfree;
use linux::lookup::is_vmalloc_addr;
use linux::objects::{kfree, kvfree, kvmalloc};
use linux::vmalloc::{vcalloc, vmalloc, vmalloc_32, vmalloc_array};
use mm::{heap, kernel};

use super::witness::{Books, feed, starve};

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
