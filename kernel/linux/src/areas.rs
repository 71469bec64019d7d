//! Bare areas: addresses for a caller who maps there what it likes, by the Linux names.
//!
//! Whoever reserves an area holds its descriptor, reads it, and writes its flags, page array, page count, physical base and
//! caller; nothing of that decides what the kernel unmaps or frees (S85a). A pointer that is given as a descriptor is
//! believed only if the live area that it names has its descriptor exactly there.
//!
//! None of these may be called in interrupt context (S10, S35).

use core::ffi::{c_int, c_uint, c_void};
use core::fmt;
use core::ptr;
use core::slice;

use arch::machine::Authority;
use arch::probe;
use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::area::{AreaFlags, AreaSummary, VmStruct};
use kerncore::coherent::AllocationFlags;
use kerncore::frames::Frame;
use kerncore::kernel_space::{
    BareArea, BareError, ChangeError, FillAreaError, MapAreaError, NoArea, RemoveError,
    VmallocRequest, VmapError,
};
use kerncore::layout::{LINEAR_END, LINEAR_START};
use kerncore::page_table::MapError;
use kerncore::va_space::{Alignment, IoRemapPolicy, Request, ReserveError, Window};
use mm::report::dump_stack;

use crate::cause::{Cause, Refusal};
use crate::errno::{EBUSY, EINVAL, ENOMEM};
use crate::protection::PageProtection;
use crate::refusal::{mistake_unless, refused, refused_unless};
use crate::request::{self, ANY_NODE, no_node};
use crate::sync_all::vmalloc_sync_all;
use crate::{address, pointer};

/// `VM_IOREMAP`: the area is for registers, and aligned by the older rule (S4).
const VM_IOREMAP: AreaFlags = AreaFlags::IOREMAP;

/// What is asked of the address space: inside `window`, aligned as the flags say.
fn request(size: c_uint, flags: AreaFlags, window: Option<Window>) -> Request {
    let alignment = if flags.contains(VM_IOREMAP) {
        Alignment::IoRemap(IoRemapPolicy::Seed)
    } else {
        Alignment::Page
    };
    Request { bytes: size, window, alignment }
}

#[inline(never)]
fn reserve(
    what: &str,
    size: c_uint,
    flags: c_uint,
    window: Option<Window>,
    caller: VirtAddr,
) -> *const VmStruct {
    let flags = AreaFlags::from_bits(flags);
    let area = mm::kernel().reserve_area(request(size, flags, window), flags, caller);
    match (area, window) {
        (Err(NoArea::Addresses(error @ ReserveError::NoSpace { .. })), Some(window))
            if !holds_all(window) =>
        {
            refused(what, size, &NoRoomThere { window, error });
            ptr::null()
        }
        (area, _) => descriptor(what, size, area),
    }
}

/// Whether `window` has all addresses of areas.
fn holds_all(window: Window) -> bool {
    let all = mm::kernel().window();
    window.first() <= all.first() && all.end() <= window.end()
}

/// A window that the caller named has no room; no parameter makes that larger.
struct NoRoomThere {
    window: Window,
    error: ReserveError,
}

impl fmt::Display for NoRoomThere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, error } = self;
        write!(f, "in pages {:#x} to {:#x}: {error}", window.first(), window.end())
    }
}

impl Refusal for NoRoomThere {
    fn cause(&self) -> Cause {
        Cause::Window
    }
}

/// What a caller is given: the descriptor, or null.
#[inline(always)]
fn descriptor(what: &str, size: c_uint, area: Result<BareArea, NoArea>) -> *const VmStruct {
    match area {
        Ok(area) => area.descriptor,
        Err(error) => {
            refused(what, size, &error);
            ptr::null()
        }
    }
}

/// Reserves `size` bytes of addresses, rounded up to pages, and a guard; null on failure (S12). `flags` are shown, and
/// `VM_IOREMAP` aligns.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn get_vm_area(size: c_uint, flags: c_uint) -> *const VmStruct {
    let caller = arch::backtrace::return_address();
    let flags = AreaFlags::from_bits(flags);
    if !flags.contains(VM_IOREMAP) {
        let request = Request::of_bytes(size);
        if let Some(descriptor) = mm::kernel().reserve_at_hand(request, flags, caller) {
            return descriptor;
        }
    }
    reserve("get_vm_area", size, flags.bits(), None, caller)
}

/// As [`get_vm_area`], in the name of `caller`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn get_vm_area_caller(
    size: c_uint,
    flags: c_uint,
    caller: *const c_void,
) -> *const VmStruct {
    reserve("get_vm_area_caller", size, flags, None, address(caller))
}

/// As [`get_vm_area`], inside `[start, end)`, guard included (S5, S7).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn __get_vm_area(
    size: c_uint,
    flags: c_uint,
    start: c_uint,
    end: c_uint,
) -> *const VmStruct {
    let window = Some(Window::new(VirtAddr::new(start), VirtAddr::new(end)));
    reserve("__get_vm_area", size, flags, window, arch::backtrace::return_address())
}

/// As [`__get_vm_area`], in the name of `caller`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn __get_vm_area_caller(
    size: c_uint,
    flags: c_uint,
    start: c_uint,
    end: c_uint,
    caller: *const c_void,
) -> *const VmStruct {
    let window = Some(Window::new(VirtAddr::new(start), VirtAddr::new(end)));
    reserve("__get_vm_area_caller", size, flags, window, address(caller))
}

/// As [`get_vm_area`] for registers, with every table that the area and its guard can need, so that to map something there
/// never asks for memory (S47); null on failure.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn alloc_vm_area(size: c_uint) -> *const VmStruct {
    let caller = arch::backtrace::return_address();
    let request = request(size, VM_IOREMAP, None);
    let area = match mm::kernel().reserve_area_with_tables(request, VM_IOREMAP, caller) {
        Ok(area) => area.descriptor,
        Err(BareError::Area(error)) => return descriptor("alloc_vm_area", size, Err(error)),
        Err(error @ BareError::Table(_)) => {
            refused("alloc_vm_area", size, &error);
            return ptr::null();
        }
    };
    vmalloc_sync_all();
    area
}

/// Where a descriptor has its area's base.
const ADDR_OFFSET: u32 = 4;

/// The live area whose descriptor is `area`, or `None` for any other pointer.
fn area_of(area: *const VmStruct) -> Option<AreaSummary> {
    let found = mm::kernel().with_area(base_in(area)?, |record| {
        (&raw const record.vm == area).then(|| record.summary())
    });
    found.flatten()
}

/// The base that stands in the descriptor `area`, if it is one; what stands there, if it is none.
fn base_in(area: *const VmStruct) -> Option<VirtAddr> {
    let at = address(area);
    // Descriptors lie in frames of the linear map; nothing else is looked into, least of all registers behind its end.
    let is_linear = |at: VirtAddr| (LINEAR_START..LINEAR_END).contains(&at);
    let base = at.checked_add(ADDR_OFFSET).filter(|&base| is_linear(at) && is_linear(base));
    let base = base.filter(|base| base.raw().is_multiple_of(4))?;
    probe::read_u32(base).ok().map(VirtAddr::new)
}

/// As [`area_of`]; says what is wrong with any other pointer.
fn checked(what: &str, area: *const VmStruct) -> Option<AreaSummary> {
    let found = area_of(area);
    if found.is_none() {
        complain(what, &format_args!("{area:p} is not the descriptor of a live area"));
    }
    found
}

#[cold]
fn complain(what: &str, error: &dyn fmt::Display) {
    log::error!("{what}: {error}");
    dump_stack();
}

/// Maps the pages behind `*pages` one after the other into all of `area`, and moves `*pages` behind those that it mapped, with
/// success or not (S16, S38). 0, `-EINVAL` for what is no such area or protection, `-EBUSY` where something is mapped already
/// (S17) and for an area that somebody else is changing, `-ENOMEM` for a pointer that is no page and for want of memory (S18). What was mapped before an error stays (S19).
///
/// # Safety
/// `pages` points to a pointer to as many page pointers as `area` has pages. The pages stay allocated while they are mapped,
/// and whoever uses both the mapping and the pages' other addresses keeps Rust's rules of aliasing.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn map_vm_area(
    area: *const VmStruct,
    prot: PageProtection,
    pages: *mut *const *const Frame,
) -> c_int {
    let Some(found) = checked("map_vm_area", area) else { return -EINVAL };
    let Some(attributes) = prot.attributes() else { return -EINVAL };
    // SAFETY: the caller promises a pointer, or passes null.
    let Some(cursor) = (unsafe { pages.as_mut() }) else { return -EINVAL };
    let count = found.pages.count();
    if cursor.is_null() {
        return -EINVAL;
    }
    // SAFETY: the caller promises as many page pointers as the area has pages.
    let list = unsafe { slice::from_raw_parts(*cursor, count as usize) };
    let table = *mm::kernel().zones().table();
    let frames = list.iter().map(move |page| table.belonging_at_record(page.addr()));
    let (mapped, answer) = match mm::kernel().map_area(found.pages.start(), frames, attributes) {
        Ok(mapped) => (mapped, 0),
        Err(error) => {
            refused("map_vm_area", count.saturating_mul(PAGE_SIZE), &error);
            match error {
                MapAreaError::Change(ChangeError::Busy { .. }) => (0, -EBUSY),
                MapAreaError::Change(_) => (0, -EINVAL),
                MapAreaError::Map { reason, mapped } => (mapped, -errno_of(&reason)),
            }
        }
    };
    *cursor = cursor.wrapping_add(mapped as usize);
    answer
}

const fn errno_of(reason: &VmapError) -> c_int {
    match reason {
        VmapError::Map(MapError::Occupied { .. }) => EBUSY,
        VmapError::MemoryType { .. } | VmapError::Protection { .. } => EINVAL,
        _ => ENOMEM,
    }
}

/// As [`get_vm_area`]. `node` is where the descriptor is wanted: it lies in low memory of that node, if that has any (S9). Null for a node that is not there, and for `gfp` that means nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn get_vm_area_node(
    size: c_uint,
    flags: c_uint,
    node: c_int,
    gfp: AllocationFlags,
) -> *const VmStruct {
    let caller = arch::backtrace::return_address();
    if let Some(error) = no_node(node) {
        mistake_unless(gfp, "get_vm_area_node", size, &error);
        return ptr::null();
    }
    match gfp.request(node) {
        Ok(memory) => {
            let flags = AreaFlags::from_bits(flags);
            let request = request(size, flags, None);
            let area = mm::kernel().reserve_area_for(memory, request, flags, caller);
            descriptor("get_vm_area_node", size, area)
        }
        Err(error) => {
            mistake_unless(gfp, "get_vm_area_node", size, &error);
            ptr::null()
        }
    }
}

/// Fills `area`, in which nothing is mapped, with memory, as `gfp` and `prot` say, and gives its first byte; from then on it is
/// one of vmalloc's, for `vfree` to free. Null on failure: then the area is gone, too, whether there was no memory or `gfp` or
/// `prot` mean nothing (S85a). What is not the descriptor of a bare area in which nothing is mapped is reported and stays.
///
/// # Safety
/// If the area is consumed, nobody uses its descriptor any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn __vmalloc_area(
    area: *const VmStruct,
    gfp: AllocationFlags,
    prot: PageProtection,
) -> *mut c_void {
    fill("__vmalloc_area", area, (gfp, ANY_NODE), prot)
}

/// As [`__vmalloc_area`], of memory of `node` as in [`crate::vmalloc::__vmalloc_node`].
///
/// # Safety
/// As for [`__vmalloc_area`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn __vmalloc_area_node(
    area: *const VmStruct,
    gfp: AllocationFlags,
    prot: PageProtection,
    node: c_int,
) -> *mut c_void {
    fill("__vmalloc_area_node", area, (gfp, node), prot)
}

fn fill(
    what: &str,
    area: *const VmStruct,
    (gfp, node): (AllocationFlags, c_int),
    prot: PageProtection,
) -> *mut c_void {
    let Some(found) = checked(what, area) else { return ptr::null_mut() };
    let (base, bytes) = (found.pages.start(), found.pages.bytes());
    let VmallocRequest { fill, memory, rights, .. } =
        match request::of(bytes, gfp, prot, node, found.caller) {
            Ok(request) => request,
            Err(error) => {
                mistake_unless(gfp, what, bytes, &error);
                if let Err(error) = mm::kernel().consume_area(base) {
                    complain(what, &error);
                }
                return ptr::null_mut();
            }
        };
    match mm::kernel().fill_area_with(base, fill, (memory, rights)) {
        Ok(area) => pointer(area.pages.start()),
        Err(error @ FillAreaError::Consumed(_)) => {
            refused_unless(gfp, what, bytes, &error);
            ptr::null_mut()
        }
        Err(error) => {
            complain(what, &error);
            ptr::null_mut()
        }
    }
}

/// Unmaps all that is mapped in `area`, which keeps its addresses. What is not the descriptor of a bare or vmap area is reported
/// and changes nothing.
///
/// # Safety
/// Nobody uses what is mapped there any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn unmap_vm_area(area: *const VmStruct) {
    if let Some(found) = checked("unmap_vm_area", area) {
        // SAFETY: our caller promises that nobody uses it.
        unsafe { unmap("unmap_vm_area", found.pages) };
    }
}

/// Unmaps `size` bytes from `addr`, rounded out to pages, which lie in one bare or vmap area, its guard counted; the area keeps
/// its addresses (S55). What is not mapped there stays so (S25). Anything else is reported and changes nothing.
///
/// # Panics
/// If `size` is zero or the range wraps (S20).
///
/// # Safety
/// Nobody uses what is mapped there any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn unmap_kernel_range(addr: c_uint, size: c_uint) {
    let last = size.checked_sub(1).and_then(|beyond| addr.checked_add(beyond));
    let Some(last) = last.map(VirtAddr::new) else {
        panic!("unmap_kernel_range: {size:#x} bytes from {addr:#010x} are no range")
    };
    let first = VirtAddr::new(addr).page_number();
    if let Some(pages) = PageRange::from_numbers(first, last.page_number() - first + 1) {
        // SAFETY: our caller promises that nobody uses it.
        unsafe { unmap("unmap_kernel_range", pages) };
    }
}

/// # Safety
/// Nobody uses what is mapped at `pages` any more.
unsafe fn unmap(what: &str, pages: PageRange) {
    // SAFETY: by the caller's promise.
    let authority = unsafe { Authority::claim() };
    if let Err(error) = mm::kernel().unmap_area(authority, pages) {
        complain(what, &error);
    }
}

/// Removes the bare or vmap area at `addr` and gives its descriptor, which is the caller's until [`crate::objects::kfree`] and
/// no longer counts the guard (S14). Null if no area begins there; one of another kind is reported, too, and stays.
///
/// # Safety
/// Nobody uses what is mapped there any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn remove_vm_area(addr: *const c_void) -> *const VmStruct {
    // SAFETY: our caller promises that nobody uses it.
    let authority = unsafe { Authority::claim() };
    match mm::kernel().remove_area(authority, address(addr)) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            complain("remove_vm_area", &error);
            ptr::null()
        }
    }
}

/// Removes `area` and frees its descriptor.
///
/// # Panics
/// If `area` is not the descriptor of a live bare or vmap area (S48).
///
/// # Safety
/// Nobody uses what is mapped there any more, nor the descriptor.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn free_vm_area(area: *const VmStruct) {
    // SAFETY: our caller promises that nobody uses it.
    let authority = unsafe { Authority::claim() };
    let freed = base_in(area).map(|base| mm::kernel().free_area(authority, base, area));
    match freed {
        Some(Ok(())) => {}
        None | Some(Err(RemoveError::Unknown { .. } | RemoveError::Misaligned { .. })) => {
            panic!("free_vm_area: {area:p} is not the descriptor of a live area")
        }
        Some(Err(error)) => panic!("free_vm_area: {error}"),
    }
}
