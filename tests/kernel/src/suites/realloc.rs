//! Memory of another size, as C code and as its Rust owner ask for it (S31, S32, S86).

use core::ffi::c_void;
use core::ptr;

use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::area::AreaFlags;
use kerncore::coherent::AllocationFlags;
use kerncore::kernel_space::Fill;
use ktest::ktest;
use linux::free::vfree;
use linux::lookup::{find_vm_area, vmalloc_to_pfn};
use linux::realloc::vrealloc;
use linux::vmalloc::{vmalloc, vmalloc_user, vzalloc};
use mm::vm_area::VmArea;

use super::witness::{Books, ask_host, assert_absent, feed, plus, starve, word_at};

const KERNEL: AllocationFlags = AllocationFlags::KERNEL;
const ZEROED: AllocationFlags = AllocationFlags(AllocationFlags::KERNEL.0 | AllocationFlags::ZERO);

#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn address(pointer: *const c_void) -> VirtAddr {
    VirtAddr::new(pointer.expose_provenance() as u32)
}

fn resize(memory: *const c_void, size: u32, gfp: AllocationFlags) -> *mut c_void {
    // SAFETY: the tests use nothing of what was given up.
    unsafe { vrealloc(memory, size, gfp) }
}

fn free(memory: *const c_void) {
    // SAFETY: nobody uses it.
    unsafe { vfree(memory) };
}

/// Writes each page's number into it.
fn mark(memory: *mut c_void, pages: u32) {
    for number in 0..pages {
        let word: *mut u32 = memory.wrapping_byte_add((number * PAGE_SIZE) as usize).cast();
        // SAFETY: a page of the test's own.
        unsafe { word.write_volatile(0xc0de_0000 + number) };
    }
}

#[track_caller]
fn assert_marked(memory: *mut c_void, pages: u32) {
    for number in 0..pages {
        let at = plus(address(memory), number * PAGE_SIZE);
        assert_eq!(word_at(at), 0xc0de_0000 + number, "{at}");
    }
}

/// In place both ways, over the old guard and back; what was given up faults.
#[ktest]
fn memory_grows_and_shrinks_where_it_is_s86() {
    let books = Books::now();
    let memory = vmalloc(3 * PAGE_SIZE);
    mark(memory, 3);
    assert_eq!(resize(memory, 8 * PAGE_SIZE, ZEROED), memory);
    assert_marked(memory, 3);
    for number in 3..8 {
        assert_eq!(word_at(plus(address(memory), number * PAGE_SIZE)), 0);
    }
    mark(memory, 8);
    ask_host(plus(address(memory), 7 * PAGE_SIZE));
    assert_absent(plus(address(memory), 8 * PAGE_SIZE));
    // SAFETY: the area lives.
    assert_eq!(unsafe { &*find_vm_area(memory) }.size(), 9 * PAGE_SIZE, "S2");
    assert_eq!(resize(memory, 2 * PAGE_SIZE + 1, KERNEL), memory);
    assert_marked(memory, 3);
    for number in 3..9 {
        assert_absent(plus(address(memory), number * PAGE_SIZE));
    }
    assert_eq!(resize(memory, 1, KERNEL), memory);
    // SAFETY: the area lives.
    assert_eq!(unsafe { &*find_vm_area(memory) }.size(), 2 * PAGE_SIZE);
    assert!(resize(memory, 0, KERNEL).is_null(), "freed");
    assert!(find_vm_area(memory).is_null());
    books.assert_unchanged();
}

/// The same frames at other addresses; the old ones fault.
#[ktest]
fn memory_moves_without_being_copied_s86() {
    let books = Books::now();
    let memory = vmalloc(5 * PAGE_SIZE);
    let fence = vmalloc(1);
    mark(memory, 5);
    let frame = |memory: *mut c_void, number: u32| {
        vmalloc_to_pfn(memory.wrapping_byte_add((number * PAGE_SIZE) as usize))
    };
    let before = [0, 1, 2, 3, 4].map(|number| frame(memory, number));
    let moved = resize(memory, 40 * PAGE_SIZE, ZEROED);
    assert_ne!(moved, memory);
    assert_eq!([0, 1, 2, 3, 4].map(|number| frame(moved, number)), before);
    assert_marked(moved, 5);
    for number in 0..6 {
        assert_absent(plus(address(memory), number * PAGE_SIZE));
    }
    ask_host(address(moved));
    for memory in [fence, moved] {
        free(memory);
    }
    books.assert_unchanged();
}

/// S31: memory that programs may see stays that, and is zero where it is new.
#[ktest]
fn memory_for_programs_stays_that_s31_s86() {
    let books = Books::now();
    let dirty = vmalloc(6 * PAGE_SIZE);
    mark(dirty, 6);
    free(dirty);
    let memory = vmalloc_user(PAGE_SIZE);
    let memory = resize(memory, 6 * PAGE_SIZE, KERNEL);
    // SAFETY: the area lives.
    assert!(unsafe { &*find_vm_area(memory) }.flags().contains(AreaFlags::USERMAP));
    for number in 0..6 {
        assert_eq!(word_at(plus(address(memory), number * PAGE_SIZE)), 0);
    }
    free(memory);
    books.assert_unchanged();
}

/// S32: null allocates; what is no such memory is refused; without memory nothing changes.
#[ktest]
fn what_cannot_be_changed_stays_s32_s86() {
    let books = Books::now();
    let memory = resize(ptr::null(), 2 * PAGE_SIZE, ZEROED);
    mark(memory, 2);
    let here = Books::now();
    for wrong in [1, 4, PAGE_SIZE as usize, 2 * PAGE_SIZE as usize] {
        assert!(resize(memory.wrapping_byte_add(wrong), PAGE_SIZE, KERNEL).is_null());
    }
    assert!(resize(ptr::without_provenance(0x8000_0000), PAGE_SIZE, KERNEL).is_null());
    assert!(resize(memory, 0xffff_f000, KERNEL).is_null());
    assert!(resize(memory, u32::MAX, KERNEL).is_null());
    let hunger = starve(3);
    assert!(resize(memory, 6 * PAGE_SIZE, KERNEL).is_null());
    feed(hunger);
    here.assert_unchanged();
    assert_marked(memory, 2);
    assert!(resize(ptr::null(), 0, KERNEL).is_null());
    free(memory);
    books.assert_unchanged();
}

/// The owner follows its memory.
#[ktest]
fn the_owner_of_memory_resizes_it_s86() {
    let books = Books::now();
    let mut memory = VmArea::zeroed(PAGE_SIZE).expect("memory");
    let fence = vzalloc(1);
    let before = memory.address();
    memory[17] = 0x5a;
    memory.resize(3 * PAGE_SIZE, Fill::Zeroed).expect("memory");
    assert_ne!(memory.address(), before, "there was no room");
    assert_eq!((memory.len(), memory[17]), (3 * PAGE_SIZE as usize, 0x5a));
    assert!(memory[PAGE_SIZE as usize..].iter().all(|&byte| byte == 0));
    memory.resize(1, Fill::Uninitialised).expect("less");
    assert_eq!((memory.len(), memory[17]), (PAGE_SIZE as usize, 0x5a));
    drop(memory);
    free(fence);
    books.assert_unchanged();
}
