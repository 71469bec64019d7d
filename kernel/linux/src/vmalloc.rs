//! Taking memory of vmalloc, by the Linux names.
//!
//! None of these may be called in interrupt context (S10).

use core::ffi::{c_int, c_uint, c_void};
use core::ptr;

use kerncore::addr::VirtAddr;
use kerncore::area::AreaSummary;
use kerncore::coherent::AllocationFlags;
use kerncore::frames::FrameRequest;
use kerncore::gfp::Warning;
use kerncore::kernel_space::{Fill, VmallocError};

use crate::pointer;
use crate::protection::PageProtection;
use crate::refusal::{mistake_unless, no_product, refused};
use crate::request::{self, ANY_NODE};

#[inline(always)]
pub(crate) fn allocate(what: &str, bytes: u32, fill: Fill, caller: VirtAddr) -> *mut c_void {
    given(what, bytes, mm::kernel().vmalloc(bytes, fill, caller))
}

/// What a caller is given: the memory, or null.
#[inline(always)]
pub(crate) fn given(
    what: &str,
    bytes: u32,
    taken: Result<AreaSummary, VmallocError>,
) -> *mut c_void {
    match taken {
        Ok(area) => pointer(area.pages.start()),
        Err(error) => {
            refused(what, bytes, &error);
            ptr::null_mut()
        }
    }
}

/// As [`given`], without words if the caller's flags forbid them.
pub(crate) fn given_as(
    gfp: AllocationFlags,
    what: &str,
    bytes: u32,
    taken: Result<AreaSummary, VmallocError>,
) -> *mut c_void {
    if taken.is_err() && gfp.warning() == Warning::Untold {
        return ptr::null_mut();
    }
    given(what, bytes, taken)
}

/// Allocates `size` bytes of virtually contiguous memory, rounded up to pages; null on failure (S26 to S30).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc(size: c_uint) -> *mut c_void {
    allocate("vmalloc", size, Fill::Uninitialised, arch::backtrace::return_address())
}

/// As [`vmalloc`], filled with zeros (S86).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vzalloc(size: c_uint) -> *mut c_void {
    allocate("vzalloc", size, Fill::Zeroed, arch::backtrace::return_address())
}

/// As [`vmalloc`], with every whole MiB mapped by a section where that can be had (S90).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_huge(size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    given("vmalloc_huge", size, mm::kernel().vmalloc_huge(size, Fill::Uninitialised, caller))
}

/// As [`vzalloc`], for memory that programs may see: tagged for [`crate::user::remap_vmalloc_range`] (S31).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_user(size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    allocate_user("vmalloc_user", size, FrameRequest::ANY, caller)
}

/// As [`vmalloc_user`], of low memory alone, as [`vmalloc_32`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_32_user(size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    allocate_user("vmalloc_32_user", size, FrameRequest::LOW, caller)
}

fn allocate_user(what: &str, bytes: u32, memory: FrameRequest, caller: VirtAddr) -> *mut c_void {
    given(what, bytes, mm::kernel().vmalloc_user_of(bytes, memory, caller))
}

/// As [`vmalloc`], of low memory alone, which 32 bits can address and every driver can (S30).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_32(size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    requested("vmalloc_32", size, AllocationFlags::KERNEL, PageProtection::KERNEL, ANY_NODE, caller)
}

/// As [`vmalloc`], of memory of `node`, or of another where that has none; -1 is any. Null for a node that is not there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_node(size: c_uint, node: c_int) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    requested("vmalloc_node", size, VMALLOC, PageProtection::KERNEL, node, caller)
}

/// As [`vmalloc`], of such memory as `gfp` says: `__GFP_HIGHMEM` for any, `__GFP_DMA` for the lowest alone, low memory without
/// either; `__GFP_ZERO` fills it with zeros. To be used as `prot` says. The zone is that of the memory alone: what the kernel
/// notes of the area lies in low memory (S9, S30, S50).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn __vmalloc(
    size: c_uint,
    gfp: AllocationFlags,
    prot: PageProtection,
) -> *mut c_void {
    requested("__vmalloc", size, gfp, prot, ANY_NODE, arch::backtrace::return_address())
}

/// As [`__vmalloc`], of `node` as in [`vmalloc_node`]; with `__GFP_THISNODE` of no other.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn __vmalloc_node(
    size: c_uint,
    gfp: AllocationFlags,
    prot: PageProtection,
    node: c_int,
) -> *mut c_void {
    requested("__vmalloc_node", size, gfp, prot, node, arch::backtrace::return_address())
}

/// What vmalloc asks for by itself.
const VMALLOC: AllocationFlags = AllocationFlags(AllocationFlags::KERNEL.0 | 0x02);

fn requested(
    what: &str,
    bytes: u32,
    gfp: AllocationFlags,
    prot: PageProtection,
    node: c_int,
    caller: VirtAddr,
) -> *mut c_void {
    match request::of(bytes, gfp, prot, node, caller) {
        Ok(request) => given_as(gfp, what, bytes, mm::kernel().vmalloc_with(request)),
        Err(error) => {
            mistake_unless(gfp, what, bytes, &error);
            ptr::null_mut()
        }
    }
}

/// As [`vmalloc`], of `n` elements of `size` bytes; null if that is more than can be counted (S86).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_array(n: c_uint, size: c_uint) -> *mut c_void {
    array("vmalloc_array", n, size, Fill::Uninitialised, arch::backtrace::return_address())
}

/// As [`vmalloc_array`], filled with zeros (S86).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vcalloc(n: c_uint, size: c_uint) -> *mut c_void {
    array("vcalloc", n, size, Fill::Zeroed, arch::backtrace::return_address())
}

fn array(what: &str, n: u32, size: u32, fill: Fill, caller: VirtAddr) -> *mut c_void {
    if let Some(bytes) = n.checked_mul(size) {
        return allocate(what, bytes, fill, caller);
    }
    no_product(what, n, size);
    ptr::null_mut()
}
