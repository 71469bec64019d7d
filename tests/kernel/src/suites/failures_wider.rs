//! As [`super::failures`], for the wider family: memory that changes its size, of a node, of a kind, by sections; frames of
//! devices; temporary mappings; and every C symbol that allocates (S18, S28, S47, S54, S85a to S88).

extern crate alloc;

use alloc::vec::Vec;
use core::cell::Cell;
use core::ffi::{c_uint, c_void};
use core::num::NonZeroU32;
use core::ptr;

use arch::failure::fail_nth;
use kerncore::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use kerncore::area::{AreaSummary, VmStruct};
use kerncore::attributes::Attributes;
use kerncore::coherent::AllocationFlags;
use kerncore::failure::{Afterwards, Outcome, Point};
use kerncore::frames::{Frame, FrameOwner, FrameRequest};
use kerncore::kernel_space::{ArrayError, Fill, ReallocError, VmallocError};
use kerncore::kmap::KmapError;
use ktest::{Completion, ktest};
use linux::areas;
use linux::page::pointer_to;
use linux::protection::PageProtection;
use mm::any_pages::{AnyPages, MapPageError, PageRef};
use mm::kernel;

use super::failures::{
    is_exhausted, no_area, no_table, no_vmalloc, no_vmap, survives, survives_by_name, vfree,
};
use super::kmap::slots;
use super::witness::{NOBODY, authority, byte_at, feed};

const SMALL: u32 = 3 * PAGE_SIZE;
const LARGE: u32 = 9 * PAGE_SIZE;
/// More pages than the 16 whose pointers a record holds.
const MANY: u32 = 19 * PAGE_SIZE;

fn resize(base: VirtAddr, bytes: u32) -> Result<AreaSummary, ReallocError> {
    kernel().vrealloc(authority(), base, bytes, Fill::Zeroed, FrameRequest::ANY, NOBODY)
}

/// Memory of vmalloc with a mark in its first and its last byte.
fn marked() -> VirtAddr {
    let mut area = mm::vm_area::VmArea::new(SMALL).expect("memory");
    (area[0], area[SMALL as usize - 1]) = (0x5a, 0xa5);
    area.into_address()
}

#[track_caller]
fn assert_marked(base: VirtAddr) {
    let last = base.checked_add(SMALL - 1).expect("an address");
    assert_eq!((byte_at(base), byte_at(last)), (0x5a, 0xa5));
}

/// An error that leaves the memory as it was.
#[track_caller]
fn grow(base: VirtAddr) -> Result<AreaSummary, ReallocError> {
    resize(base, LARGE).inspect_err(|_| {
        assert_eq!(kernel().find(base).map(|area| area.pages.bytes()), Some(SMALL));
        assert_marked(base);
    })
}

fn no_growth(point: Point, error: &ReallocError) -> bool {
    matches!(error, ReallocError::Grow(error) if no_vmalloc(point, error))
}

/// S27: what an area's page array needs.
pub(super) fn no_array(point: Point, error: &ArrayError) -> bool {
    match error {
        ArrayError::Area(error) => no_area(point, error),
        ArrayError::Frames(error) => point == Point::Frames && is_exhausted(error),
        ArrayError::Map(error) => no_table(point, error),
        ArrayError::Zero(_) => false,
    }
}

/// Where there is room behind it, and addresses need not be asked for; where there is none, it moves.
#[ktest]
fn memory_that_grows_in_place_or_moves_s28_s86() {
    let base = kernel().vmalloc(LARGE, Fill::Uninitialised, NOBODY).expect("memory").pages.start();
    assert_eq!(resize(base, SMALL).map(|area| area.pages.start()), Ok(base));
    for (offset, value) in [(0, 0x5a), (SMALL - 1, 0xa5)] {
        let at = base.checked_add(offset).expect("an address");
        // SAFETY: memory of this test's own, to which it keeps no reference.
        unsafe { arch::probe::write_u8(at, value) }.expect("writable");
    }
    let shrink = |area: AreaSummary| {
        assert_marked(area.pages.start());
        assert_eq!(resize(base, SMALL).map(|area| area.pages.start()), Ok(base), "in place");
    };
    survives("vrealloc, in place", || grow(base), no_growth, shrink);
    assert_eq!(kernel().vfree(authority(), base), Ok(()));

    let memory = Cell::new(marked());
    // Right behind its guard, unless somebody else is there already.
    let block = |base: VirtAddr| {
        let behind = base.raw() + SMALL + PAGE_SIZE;
        areas::__get_vm_area(PAGE_SIZE, 0, behind, behind + 2 * PAGE_SIZE)
    };
    let blocked = Cell::new(block(memory.get()));
    let unblock = || {
        if !blocked.get().is_null() {
            // SAFETY: reserved a moment before; nothing is mapped there.
            unsafe { areas::free_vm_area(blocked.get()) };
        }
    };
    survives(
        "vrealloc, to another place",
        || grow(memory.get()),
        no_growth,
        |area| {
            assert_ne!(area.pages.start(), memory.get(), "it moved");
            assert_marked(area.pages.start());
            // Put at the same places, so that each time the same is asked.
            unblock();
            vfree(area);
            memory.set(marked());
            blocked.set(block(memory.get()));
        },
    );
    unblock();
    assert_eq!(kernel().vfree(authority(), memory.get()), Ok(()));
}

/// S27: what grows beyond the pointers that its record holds needs a page array, too.
#[ktest]
fn memory_that_grows_until_it_needs_a_page_array_s27_s86() {
    let base = marked();
    let grown = || {
        resize(base, MANY).inspect_err(|_| {
            assert_eq!(kernel().find(base).map(|area| area.pages.bytes()), Some(SMALL));
            assert_marked(base);
        })
    };
    // Nothing lies behind it, as a rule: it stays where it is, and goes back to what it was.
    let in_arrays = Cell::new(0);
    let is_right = |point, error: &ReallocError| {
        let in_array = matches!(error, ReallocError::Grow(VmallocError::PageArray(_)));
        in_arrays.set(in_arrays.get() + u32::from(in_array));
        no_growth(point, error)
    };
    let shrink = |area: AreaSummary| {
        assert_marked(area.pages.start());
        assert_eq!(kernel().vfree(authority(), area.pages.start()), Ok(()));
        assert_eq!(marked(), base, "the lowest fit again");
    };
    survives("vrealloc, to a page array", grown, is_right, shrink);
    assert_ne!(in_arrays.get(), 0, "no page array has failed");
    assert_eq!(kernel().vfree(authority(), base), Ok(()));
}

/// To become shorter takes nothing, so that nothing can be short.
#[ktest]
fn memory_that_shrinks_needs_nothing_s86() {
    let base = kernel().vmalloc(LARGE, Fill::Uninitialised, NOBODY).expect("memory").pages.start();
    let (shrunk, outcome) = fail_nth(NonZeroU32::MIN, Afterwards::Nothing, || resize(base, SMALL));
    assert_eq!(shrunk.map(|area| area.pages.start()), Ok(base));
    assert_eq!(outcome, Outcome { asked: 0, failed: None });
    assert_eq!(kernel().vfree(authority(), base), Ok(()));
}

/// Without frames or addresses for sections it has pages; the error then is that of the second way.
#[ktest]
fn memory_by_sections_s28_s90() {
    let points = [Point::Record, Point::Addresses, Point::Frames, Point::Table];
    survives(
        "vmalloc_huge, 1 MiB and 5 pages",
        // Not zeroed: each of so many pages of high memory would be a point.
        || kernel().vmalloc_huge((1 << 20) + 5 * PAGE_SIZE, Fill::Uninitialised, NOBODY),
        |_, error: &VmallocError| points.iter().any(|&point| no_vmalloc(point, error)),
        vfree,
    );
}

/// Behind RAM on a board that has all it can; nobody touches what is mapped there.
const BEYOND_RAM: u32 = 0xa0000;

#[ktest]
fn frames_of_devices_s18_s37() {
    let frames = (BEYOND_RAM..BEYOND_RAM + 300).filter_map(Pfn::new);
    let frames: Vec<Pfn> = frames.collect();
    survives(
        "vmap_pfn, 300 pages",
        || kernel().vmap_devices(frames.iter().copied(), Attributes::DEVICE, NOBODY),
        no_vmap,
        |area| assert_eq!(kernel().vunmap(authority(), area.pages.start()), Ok(())),
    );
}

/// S117: an address for a page that has none is the one thing taken.
#[ktest]
fn temporary_mappings() -> Completion {
    if let Err(skipped) = slots() {
        return skipped;
    }
    let own = AnyPages::new(0, FrameRequest::ANY).expect("memory");
    let exhausted =
        |error: &MapPageError| matches!(error, MapPageError::Address(KmapError::Exhausted { .. }));
    let is_right = |point, error: &MapPageError| point == Point::Slot && exhausted(error);
    survives("kmap", || own.map(0), is_right, drop::<PageRef<'_>>);
    let record = pointer_to(own.frames().next().expect("one"));
    // SAFETY: nobody uses the mapping.
    let end = |mapped: *mut c_void| unsafe { linux::page::kunmap_local(mapped) };
    survives_by_name("kmap_local_page", || linux::page::kmap_local_page(record), end);
    Completion::Ran
}

/// `GFP_KERNEL | __GFP_HIGHMEM | __GFP_ZERO`.
const GFP: AllocationFlags = AllocationFlags(AllocationFlags::HIGH_USER.0 | AllocationFlags::ZERO);
const PROT: PageProtection = PageProtection::KERNEL;

/// Everything by its C name that [`super::failures`] has not: null, and nothing lost.
#[ktest]
fn c_callers_get_null_for_the_wider_family_s8_s28_s53_s85a_s86() {
    // SAFETY: made a moment before, and nobody has a reference.
    let free = |address: *mut c_void| unsafe { linux::free::vfree(address) };
    let bytes = 2 * PAGE_SIZE;
    survives_by_name("vmalloc_node", || linux::vmalloc::vmalloc_node(bytes, 0), free);
    survives_by_name("vmalloc_32", || linux::vmalloc::vmalloc_32(bytes), free);
    survives_by_name("vmalloc_32_user", || linux::vmalloc::vmalloc_32_user(bytes), free);
    survives_by_name("vmalloc_array", || linux::vmalloc::vmalloc_array(bytes / 8, 8), free);
    survives_by_name("vcalloc", || linux::vmalloc::vcalloc(bytes / 8, 8), free);
    survives_by_name("__vmalloc", || linux::vmalloc::__vmalloc(bytes, GFP, PROT), free);
    let node = || linux::vmalloc::__vmalloc_node(bytes, GFP, PROT, 0);
    survives_by_name("__vmalloc_node", node, free);
    survives_by_name("vmalloc_huge", || linux::vmalloc::vmalloc_huge(1 << 20), free);
    // SAFETY: without memory to change, it makes some.
    let make = || unsafe { linux::realloc::vrealloc(ptr::null(), bytes, GFP) };
    survives_by_name("vrealloc(NULL)", make, free);
    survives_by_name(
        "alloc_pages_node",
        || linux::page::alloc_pages_node(0, GFP, 1).cast_mut(),
        // SAFETY: as above.
        |page| unsafe { linux::page::__free_pages(page, 1) },
    );
}

/// Mappings by their C names.
#[ktest]
fn c_callers_get_null_for_mappings_s18_s37_s87() {
    let zones = kernel().zones();
    let list = zones.allocate_list(3, FrameOwner::Test).expect("memory");
    let records: Vec<*const Frame> = list.frames(zones.table()).map(pointer_to).collect();
    let count = 3;
    // SAFETY: three page pointers, of pages that stay.
    let map = || unsafe { linux::vmap::vmap(records.as_ptr(), count, 0, PROT) };
    // SAFETY: made a moment before, and nobody has a reference.
    let unmap = |address: *mut c_void| unsafe { linux::free::vunmap(address) };
    survives_by_name("vmap(3 pages)", map, unmap);
    let numbers: [c_uint; 3] = [BEYOND_RAM, BEYOND_RAM + 7, BEYOND_RAM + 1];
    let device = PageProtection::NONCACHED;
    // SAFETY: three numbers.
    let map = || unsafe { linux::vmap::vmap_pfn(numbers.as_ptr(), count, device) };
    survives_by_name("vmap_pfn(3 frames)", map, unmap);
    // SAFETY: three page pointers, of pages that stay.
    let map = || unsafe { linux::map_ram::vm_map_ram(records.as_ptr(), count, -1) };
    // SAFETY: as above.
    let unmap = |address: *mut c_void| unsafe { linux::map_ram::vm_unmap_ram(address, count) };
    survives_by_name("vm_map_ram(3 pages)", map, unmap);
    feed(list);
}

/// S85a: whoever fails to fill an area has none any more.
#[ktest]
fn c_callers_lose_the_area_that_was_not_filled_s28_s85a() {
    // SAFETY: made a moment before, and nobody has a reference.
    let free = |address: *mut c_void| unsafe { linux::free::vfree(address) };
    let fill = |bytes, filled: &dyn Fn(*const VmStruct) -> *mut c_void| {
        let area = areas::get_vm_area(bytes, 0);
        if area.is_null() { ptr::null_mut() } else { filled(area) }
    };
    // SAFETY: the descriptor of a bare area, which is not used again.
    let filled = |area| unsafe { areas::__vmalloc_area(area, GFP, PROT) };
    survives_by_name("__vmalloc_area", || fill(2 * PAGE_SIZE, &filled), free);
    survives_by_name("__vmalloc_area, with a page array", || fill(MANY, &filled), free);
    // SAFETY: as above.
    let filled = |area| unsafe { areas::__vmalloc_area_node(area, GFP, PROT, 0) };
    survives_by_name("__vmalloc_area_node", || fill(2 * PAGE_SIZE, &filled), free);
}

/// Each name that reserves an area.
#[ktest]
fn c_callers_get_null_for_areas_s8_s9_s12() {
    // SAFETY: reserved a moment before; nothing is mapped there.
    let free = |area: *mut VmStruct| unsafe { areas::free_vm_area(area) };
    let survives = |name, reserve: &dyn Fn() -> *const VmStruct| {
        survives_by_name(name, || reserve().cast_mut(), free);
    };
    let (bytes, caller) = (2 * PAGE_SIZE, ptr::null());
    let window = kernel().window();
    let (start, end) = (window.start().raw(), window.end() * PAGE_SIZE);
    survives("get_vm_area_node", &|| areas::get_vm_area_node(bytes, 0, 0, AllocationFlags::KERNEL));
    survives("get_vm_area_caller", &|| areas::get_vm_area_caller(bytes, 0, caller));
    survives("__get_vm_area", &|| areas::__get_vm_area(bytes, 0, start, end));
    survives("__get_vm_area_caller", &|| areas::__get_vm_area_caller(bytes, 0, start, end, caller));
}

/// S27, S28: code of more pages than a record has pointers.
#[ktest]
fn c_callers_get_null_for_code_with_a_page_array_s27_s28() {
    let make = || linux::exec::vmalloc_exec(MANY);
    // SAFETY: made a moment before, and nobody has a reference.
    let free = |address: *mut c_void| unsafe { linux::free::vfree(address) };
    survives_by_name("vmalloc_exec, with a page array", make, free);
}

/// S94: registers, by their C name.
#[ktest]
fn c_callers_get_null_for_registers_s8_s94() {
    let make = || linux::ioremap::ioremap(PhysAddr::new(BEYOND_RAM * PAGE_SIZE).raw(), PAGE_SIZE);
    // SAFETY: made a moment before, and nobody has a reference.
    survives_by_name("ioremap(1 page)", make, |io| unsafe { linux::ioremap::iounmap(io) });
}
