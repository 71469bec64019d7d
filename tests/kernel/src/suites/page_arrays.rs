//! The page arrays of vmalloc's areas, read as C code reads them: from the descriptor, pointer by pointer (S27, S33, S85a).

use core::ffi::{c_uint, c_void};
use core::ptr;
use core::sync::atomic::Ordering::Relaxed;

use arch::probe;
use kerncore::addr::{PAGE_SIZE, PAGES_PER_SECTION, Pfn, SECTION_SIZE, VirtAddr};
use kerncore::area::{AreaFlags, AreaKind, AreaSummary, VmStruct};
use kerncore::coherent::AllocationFlags;
use kerncore::kernel_space::RemoveError;
use ktest::{Completion, ktest};
use linux::areas::{__vmalloc_area, get_vm_area};
use linux::free::{vfree, vfree_atomic};
use linux::lookup::{find_vm_area, vmalloc_to_page};
use linux::protection::PageProtection;
use linux::realloc::vrealloc;
use linux::vmalloc::{vmalloc, vmalloc_huge, vmalloc_user, vzalloc};
use mm::audit::page_pointers;
use mm::kernel;

use super::witness::{Books, authority, each_page, plus};

const WORD: u32 = u32::BITS / u8::BITS;
/// On either side of each border: in the record, in a frame, in an area.
const SIZES: [u32; 6] = [1, 16, 17, 1024, 1025, 1100];

#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn address(pointer: *const c_void) -> VirtAddr {
    VirtAddr::new(pointer.expose_provenance() as u32)
}

/// The descriptor of the area that begins at `memory`.
#[track_caller]
fn descriptor<'a>(memory: *const c_void) -> &'a VmStruct {
    // SAFETY: it is the live area's, which the test keeps.
    unsafe { find_vm_area(memory).as_ref() }.expect("a live area")
}

/// Every pointer of the array at `memory`'s descriptor, read where C code reads it, against the walker.
#[track_caller]
fn assert_walked(memory: *const c_void, count: u32) {
    assert!(!memory.is_null(), "memory");
    let vm = descriptor(memory);
    assert_eq!((vm.addr(), vm.nr_pages()), (address(memory), count));
    let array: *const *const c_void = ptr::with_exposed_provenance(vm.pages() as usize);
    assert!(!array.is_null());
    for index in 0..count {
        // SAFETY: the array has `nr_pages` pointers for as long as the area lives.
        let page = unsafe { array.wrapping_add(index as usize).read() };
        let inside = plus(address(memory), index * PAGE_SIZE);
        let inside = ptr::with_exposed_provenance(inside.raw() as usize);
        assert_eq!(page, vmalloc_to_page(inside).cast(), "page {index} of {count}");
    }
    assert_eq!(vm.flags().contains(AreaFlags::VPAGES), array_of(memory).is_some());
}

/// The area that the array of `memory` is, if it is one.
fn array_of(memory: *const c_void) -> Option<AreaSummary> {
    let found = kernel().find(VirtAddr::new(descriptor(memory).pages()));
    found.filter(|area| area.kind == AreaKind::PageArray)
}

fn free(memory: *const c_void) {
    // SAFETY: the test made it and has no reference to it.
    unsafe { vfree(memory) };
}

#[ktest]
fn every_area_of_vmalloc_has_its_pages_in_its_descriptor_s27_s33_s85a() {
    let books = Books::now();
    for make in
        [vmalloc, vzalloc, vmalloc_user, vmalloc_huge] as [extern "C" fn(c_uint) -> *mut c_void; 4]
    {
        for count in SIZES {
            let memory = make(count * PAGE_SIZE);
            assert_walked(memory, count);
            let pages = array_of(memory).map_or(0, |area| area.pages.count());
            assert_eq!(pages, if count > 1024 { 2 } else { 0 }, "{count} pages");
            free(memory);
        }
    }
    books.assert_unchanged();
}

#[ktest]
fn a_filled_area_a_deferred_free_and_memory_for_code_s27_s85a_s89() {
    let books = Books::now();
    for count in SIZES {
        let area = get_vm_area(count * PAGE_SIZE, 0);
        // SAFETY: the descriptor is the area's, which nobody else knows.
        let memory =
            unsafe { __vmalloc_area(area, AllocationFlags::KERNEL, PageProtection::KERNEL) };
        assert_walked(memory, count);
        // SAFETY: the test made it and has no reference to it.
        arch::irq::masked(|| unsafe { vfree_atomic(memory) });
        mm::vm_area::free_deferred();
    }
    for count in [1, 16, 17, 300] {
        let code = linux::exec::vmalloc_exec(count * PAGE_SIZE);
        assert_walked(code, count);
        free(code);
    }
    books.assert_unchanged();
}

/// What it grew into, it keeps: the array that served 1,025 pages serves one.
#[ktest]
fn an_array_follows_vrealloc_s27_s86() {
    let books = Books::now();
    let mut memory = vmalloc(PAGE_SIZE);
    for count in [16, 17, 1024, 1025, 1100, 1024, 3, 20, 1] {
        // SAFETY: the test made it and has no reference to it.
        memory = unsafe { vrealloc(memory, count * PAGE_SIZE, AllocationFlags::KERNEL) };
        assert_walked(memory, count);
    }
    free(memory);
    books.assert_unchanged();
}

/// S34: the array is freed with its area, and by nobody else.
#[ktest]
fn the_area_of_an_array_is_nobodys_to_free_s27_s34() {
    let books = Books::now();
    let memory = vmalloc(1025 * PAGE_SIZE);
    let array = array_of(memory).expect("an array of its own").pages.start();
    let refused = Err(RemoveError::WrongKind { address: array, found: AreaKind::PageArray });
    assert_eq!(kernel().vfree(authority(), array), refused);
    assert_eq!(kernel().vfree_atomic(authority(), array), refused);
    assert_eq!(kernel().vunmap(authority(), array), refused);
    assert_walked(memory, 1025);
    free(memory);
    assert_eq!(kernel().find(array), None);
    books.assert_unchanged();
}

/// The areas of others have none (S11, S37).
#[ktest]
fn who_owns_no_pages_has_no_array_s11_s37() {
    let bare = get_vm_area(PAGE_SIZE, 0);
    // SAFETY: it is the live area's.
    let vm = unsafe { &*bare };
    assert_eq!((vm.pages(), vm.nr_pages()), (0, 0));
    // SAFETY: nothing is mapped there.
    unsafe { linux::areas::free_vm_area(bare) };
}

fn free_with_a_null(count: u32, index: u32) {
    let memory = vmalloc(count * PAGE_SIZE);
    let word: *mut u32 = ptr::with_exposed_provenance_mut(descriptor(memory).pages() as usize);
    // SAFETY: the array has so many pointers, and is its owner's to write.
    unsafe { word.wrapping_add(index as usize).write_volatile(0) };
    free(memory);
}

#[ktest(fatal = "vfree: page 1 of the area at")]
fn a_null_page_is_fatal_s33() {
    free_with_a_null(2, 1);
}

#[ktest(fatal = "vfree: page 1024 of the area at")]
fn a_null_page_of_many_is_fatal_s33() {
    free_with_a_null(1025, 1024);
}

/// A section's pointers are those to all frames, which whoever has the area cannot write to.
#[ktest]
fn the_pointers_of_a_section_are_read_only_s27_s33_s90() -> Completion {
    if !super::huge::are_allowed() {
        return Completion::Skipped("large mappings are forbidden (nohugevmalloc)");
    }
    let books = Books::now();
    let memory = vmalloc_huge(SECTION_SIZE);
    assert_walked(memory, PAGES_PER_SECTION);
    let (array, all) = (VirtAddr::new(descriptor(memory).pages()), page_pointers());
    let last = plus(array, (PAGES_PER_SECTION - 1) * WORD);
    assert!(all.contains(array) && all.contains(last), "{array} is not in {all}");
    for word in [array, last] {
        let held = probe::read_u32(word).expect("mapped");
        // SAFETY: it faults, or the assertion behind it fails.
        let written = unsafe { probe::write_u32(word, 0) };
        assert!(written.is_err(), "{word} was written");
        assert_eq!(probe::read_u32(word).ok(), Some(held));
    }
    free(memory);
    books.assert_unchanged();
    Completion::Ran
}

/// All of them, from the first frame's to the last one's, in pages that hold nothing else.
#[ktest]
fn every_frame_has_its_pointer_and_none_can_be_written_s27_s112() {
    let (words, table) = (kernel().pointers().words(), kernel().zones().table());
    assert_eq!(words.len(), table.len() as usize);
    for (number, word) in (table.first().number()..).zip(words) {
        let frame = Pfn::new(number).expect("RAM");
        assert_eq!(word.load(Relaxed), table.pointer_to(frame), "frame {frame}");
    }
    for page in each_page(page_pointers()) {
        // SAFETY: it faults, or the assertion fails.
        assert!(unsafe { probe::write_u32(page, 0) }.is_err(), "{page} was written");
    }
}
