//! Memory of another size, by its Linux name.

use core::ffi::{c_uint, c_void};
use core::ptr;

use arch::machine::Authority;
use kerncore::coherent::AllocationFlags;
use kerncore::kernel_space::{ReallocError, VmallocRequest};
use mm::report::dump_stack;

use crate::refusal::{mistake_unless, refused_unless};
use crate::vmalloc::given_as;
use crate::{address, free, pointer, request};

/// Makes the memory of vmalloc at `p` one of `size` bytes, rounded up to pages, and gives its first byte, which may be another:
/// what it holds stays, as far as it goes, and is not copied (S86). Without `p` it allocates, without a size it frees and gives
/// null. What comes on top is of the zone that `gfp` names, or any, and zeroed if it asks for that. Null on failure; then the memory is as it was. What is not the base
/// of memory of vmalloc is reported and changes nothing. Not in interrupt context.
///
/// # Safety
/// Nobody uses the memory meanwhile, nor, if it moved or became shorter, what was given up of it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vrealloc(
    p: *const c_void,
    size: c_uint,
    gfp: AllocationFlags,
) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    if size == 0 {
        // SAFETY: by our caller's promise.
        unsafe { free::vfree(p) };
        return ptr::null_mut();
    }
    let VmallocRequest { fill, memory, .. } = match request::of_any(size, gfp, caller) {
        Ok(request) if p.is_null() => {
            return given_as(gfp, "vrealloc", size, mm::kernel().vmalloc_with(request));
        }
        Ok(request) => request,
        Err(error) => {
            mistake_unless(gfp, "vrealloc", size, &error);
            return ptr::null_mut();
        }
    };
    // SAFETY: by our caller's promise.
    let authority = unsafe { Authority::claim() };
    match mm::kernel().vrealloc(authority, address(p), size, fill, memory, caller) {
        Ok(area) => pointer(area.pages.start()),
        Err(ReallocError::Grow(error)) => {
            refused_unless(gfp, "vrealloc", size, &error);
            ptr::null_mut()
        }
        Err(error @ ReallocError::Change(_)) => {
            log::error!("vrealloc: {error}");
            dump_stack();
            ptr::null_mut()
        }
    }
}
