//! Questions about areas and addresses, by the Linux names. Any context.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr;

use kerncore::area::VmStruct;
use kerncore::frames::Frame;

use crate::address;

/// The descriptor of the live area that begins exactly at `addr`, or null (S13). No reference is taken: it is valid for as
/// long as the caller keeps the area from being removed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_vm_area(addr: *const c_void) -> *const VmStruct {
    let descriptor = mm::kernel().with_area(address(addr), |record| &raw const record.vm);
    descriptor.unwrap_or(ptr::null())
}

/// The page pointer of the frame behind `addr`, or null if nothing is mapped there or what is mapped is not RAM (S88).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_to_page(addr: *const c_void) -> *const Frame {
    mm::kernel().frame_behind(address(addr)).map_or(ptr::null(), ptr::from_ref)
}

/// The number of the frame behind `addr`, or 0 if nothing is mapped there. Any frame will do, of registers too (S88).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_to_pfn(addr: *const c_void) -> c_uint {
    let address = address(addr);
    let kernel = mm::kernel();
    let inside = kernel.window().contains(address);
    let found = inside.then(|| kernel.table().translate(address)).flatten();
    found.map_or(0, |translation| translation.physical.pfn().number())
}

/// Whether `addr` lies where vmalloc, vmap and ioremap put what they make: 1, or 0. Says nothing of what is there (S88).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_vmalloc_addr(addr: *const c_void) -> c_int {
    c_int::from(mm::kernel().window().contains(address(addr)))
}

/// The descriptor of the live area that has `addr` among its usable bytes, or null; a guard page is nobody's (S88). As with
/// [`find_vm_area`], no reference is taken.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_area_containing(addr: *const c_void) -> *const VmStruct {
    let at = address(addr);
    let descriptor = mm::kernel().with_area_containing(at, |record| &raw const record.vm);
    descriptor.unwrap_or(ptr::null())
}
