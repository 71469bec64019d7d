//! What changes from one version of the original to the next, as far as no other suite has it, and what none of them mends
//! (S50, S56).

use core::ffi::{c_long, c_uint, c_void};
use core::num::NonZeroU32;
use core::ptr;

use arch::failure::fail_nth;
use kerncore::addr::{PAGE_SIZE, Pfn, VirtAddr};
use kerncore::area::VmStruct;
use kerncore::coherent::AllocationFlags;
use kerncore::failure::Afterwards;
use kerncore::frames::{FrameRequest, NodeId, Place};
use ktest::ktest;
use linux::areas::{__get_vm_area, free_vm_area, get_vm_area, map_vm_area};
use linux::errno::{EBUSY, EINVAL};
use linux::free::vfree;
use linux::lookup::find_vm_area;
use linux::page::pointer_to;
use linux::protection::PageProtection;
use linux::read_write::{vread, vwrite};
use linux::user::remap_vmalloc_range;
use linux::vmalloc::{__vmalloc, __vmalloc_node, vmalloc, vmalloc_user};
use mm::kernel;
use mm::page_alloc::Pages;

use super::refusals::told;
use super::user_programs as code;
use super::user_sharing::{waiting, window};
use super::witness::{Books, assert_absent, frame_at, plus};

const PROTECTION: PageProtection = PageProtection::KERNEL;
/// `VM_IOREMAP`.
const FOR_REGISTERS: c_uint = 0x01;
/// Their pointers do not fit in the record any more: they are allocated, too.
const PAGES: u32 = 17;

fn free(memory: *const c_void) {
    // SAFETY: the tests made it, or it must be refused, and have no reference to it.
    unsafe { vfree(memory) };
}

fn with(flags: u32) -> AllocationFlags {
    AllocationFlags(AllocationFlags::KERNEL.0 | flags)
}

/// The frame in which the page pointers of `memory` lie.
#[track_caller]
fn array_of(memory: *const c_void) -> Pfn {
    // SAFETY: it is the live area's, which the test keeps.
    let vm = unsafe { find_vm_area(memory).as_ref() }.expect("a live area");
    assert_eq!(vm.nr_pages(), PAGES);
    frame_at(VirtAddr::new(vm.pages()))
}

/// What is allocated beside the pages is of the caller's node and waits for nothing either; but its zone is low memory,
/// whatever that of the pages is (S9).
#[ktest]
fn a_callers_flags_reach_what_is_allocated_beside_its_pages_s50() {
    let books = Books::now();
    let [high, dma] = [AllocationFlags::HIGH_MEMORY, AllocationFlags::DMA].map(with);
    for flags in [AllocationFlags::ATOMIC, AllocationFlags::KERNEL, high, dma] {
        let memory = arch::irq::masked(|| __vmalloc(PAGES * PAGE_SIZE, flags, PROTECTION));
        let array = array_of(memory);
        assert!(kernel().linear().pages_of(array, 1).is_some(), "{flags:?}: {array} is high");
        free(memory);
    }
    let zones = kernel().zones();
    for number in 0..zones.nodes().count() {
        let node = NodeId::new(number);
        if zones.free_pages_of(FrameRequest::LOW.at(Place::Only(node))) == 0 {
            continue;
        }
        let only = with(AllocationFlags::HIGH_MEMORY | AllocationFlags::THIS_NODE);
        let named = i32::try_from(number).expect("few");
        let memory = __vmalloc_node(PAGES * PAGE_SIZE, only, PROTECTION, named);
        assert_eq!(zones.zone_of(array_of(memory)).map(|zone| zone.0), Some(node));
        free(memory);
    }
    books.assert_unchanged();
}

/// Whatever is lacking, be it for the area's own books: the caller decides whether that is said.
#[ktest]
fn whoever_wants_no_words_hears_none_of_what_lies_beside_its_pages_s50() {
    let books = Books::now();
    for (flags, words) in [(AllocationFlags::NO_WARNING, 0), (0, 1)] {
        let mut points = 0;
        for nth in (1..100).filter_map(NonZeroU32::new) {
            let make = || __vmalloc(PAGES * PAGE_SIZE, with(flags), PROTECTION);
            let mut made = (ptr::null_mut(), None);
            let told = told(|| {
                let (memory, outcome) = fail_nth(nth, Afterwards::Nothing, make);
                made = (memory, outcome.failed);
            });
            let (memory, Some(point)) = made else {
                free(made.0);
                break;
            };
            assert!(memory.is_null(), "{point} failed");
            assert_eq!(told, (words, 0), "{point} failed");
            points += 1;
        }
        assert!(points > 3, "a record, addresses, an array, frames, a table: {points}");
    }
    books.assert_unchanged();
}

/// Bytes that are read of `area`, and how many are said to be.
fn read(area: VirtAddr) -> (c_long, [u8; 8]) {
    let mut buffer = [0xee; 8];
    let from = ptr::with_exposed_provenance(area.raw() as usize);
    // SAFETY: eight bytes of our own.
    let count = unsafe { vread(buffer.as_mut_ptr(), from, 8) };
    (count, buffer)
}

/// S3, S6 and S7: sizes, sums and ends that wrap, or are looked at too late.
#[ktest]
fn no_size_no_sum_and_no_end_is_overlooked_as_in_every_version_s3_s6_s7_s56() {
    let books = Books::now();
    assert!(vmalloc(0xffff_f000).is_null(), "its guard makes nothing of it");
    assert!(get_vm_area(0xffff_f000, 0).is_null());
    for (start, flags) in [(0xffff_f001, 0), (0xff00_1000, FOR_REGISTERS)] {
        let area = __get_vm_area(0x0080_0000, flags, start, u32::MAX);
        assert!(area.is_null(), "from {start:#x} it ends, or begins, beyond the top");
    }
    let start = kernel().window().start();
    let (start, end) = (plus(start, 64 << 20).raw(), plus(start, 65 << 20).raw());
    assert!(__get_vm_area(2 << 20, 0, start, end).is_null(), "nothing else is there");
    assert!(__get_vm_area(1 << 20, 0, start, end).is_null(), "its guard has no room");
    let fits = __get_vm_area((1 << 20) - PAGE_SIZE, 0, start, end);
    assert!(!fits.is_null());
    remove(fits);
    books.assert_unchanged();
}

fn remove(area: *const VmStruct) {
    // SAFETY: nobody uses what is mapped there, nor the descriptor.
    unsafe { free_vm_area(area) };
}

/// S17 and S42: what is mapped is not overwritten, and what is not mapped is not touched.
#[ktest]
fn no_slot_is_overwritten_and_no_hole_read_as_in_every_version_s17_s42_s56() {
    let books = Books::now();
    let pages = [0, 1].map(|_| Pages::new(0).expect("memory"));
    let area = get_vm_area(PAGE_SIZE, 0);
    // SAFETY: the area lives.
    let base = unsafe { &*area }.addr();
    assert_eq!(read(base), (8, [0; 8]), "reserved, and nothing mapped");
    let to = ptr::with_exposed_provenance_mut(base.raw() as usize);
    // SAFETY: eight bytes, and nobody has a reference to what is written.
    assert_eq!(unsafe { vwrite([1_u8; 8].as_ptr(), to, 8) }, 8);
    assert_absent(base);
    let map = |page: &Pages| {
        let list = [pointer_to(page.first())];
        let mut cursor = list.as_ptr();
        // SAFETY: as many pages as the area has, which live as long as they are mapped.
        unsafe { map_vm_area(area, PROTECTION, &raw mut cursor) }
    };
    assert_eq!((map(&pages[0]), map(&pages[1])), (0, -EBUSY));
    assert_eq!(frame_at(base), pages[0].first());
    remove(area);
    drop(pages);
    books.assert_unchanged();
}

/// S44 and S46: an offset whose bytes wrap is refused, and what a program sees is not freed under it.
#[ktest]
fn no_window_leaves_its_area_nor_outlives_it_as_in_every_version_s44_s46_s56() {
    let memory = vmalloc_user(2 * PAGE_SIZE);
    let space = waiting(code::loads(), 2);
    let remap = |offset| {
        let mut vma = window(&space, 2, 0);
        // SAFETY: the window and its space live.
        unsafe { remap_vmalloc_range(&raw mut vma, memory, offset) }
    };
    for offset in [0x10_0000, 0xf_ffff, u32::MAX, 1] {
        assert_eq!(remap(offset), -EINVAL, "from page {offset:#x}");
    }
    assert_eq!(remap(0), 0);
    let books = Books::now();
    free(memory);
    books.assert_unchanged();
    assert!(!find_vm_area(memory).is_null(), "a program sees it");
    drop(space);
    free(memory);
    assert!(find_vm_area(memory).is_null());
}
