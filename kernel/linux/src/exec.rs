//! Memory for code, by the Linux names.
//!
//! None of these may be called in interrupt context (S10).

use core::ffi::{c_int, c_uint, c_ulong, c_void};
use core::ptr;

use arch::machine::Authority;
use kerncore::addr::VirtAddr;
use mm::report::dump_stack;

use crate::errno::EINVAL;
use crate::pointer;
use crate::refusal::refused;

/// Allocates `size` bytes of zeroed memory for code, rounded up to pages, of low memory that need not be adjacent; null on failure,
/// and without a word for more than there is (S26). It can be written and not executed
/// until [`set_memory_rox`] has sealed it, and is freed by [`crate::free::vfree`] (S30).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_exec(size: c_uint) -> *mut c_void {
    match mm::kernel().vmalloc_exec(size, arch::backtrace::return_address()) {
        Ok(area) => pointer(area.pages.start()),
        Err(error) => {
            refused("vmalloc_exec", size, &error);
            ptr::null_mut()
        }
    }
}

/// Makes all `numpages` pages that [`vmalloc_exec`] gave at `addr` executable, and writable by nobody, at no address; 0, or
/// `-EINVAL` for anything else, which is reported and changes nothing: other memory, a part, a second time.
///
/// # Safety
/// Nobody writes there meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn set_memory_rox(addr: c_ulong, numpages: c_int) -> c_int {
    // SAFETY: our caller promises that nobody writes.
    let authority = unsafe { Authority::claim() };
    // A negative number is no area's.
    let pages = u32::try_from(numpages).unwrap_or(0);
    match mm::kernel().seal(authority, VirtAddr::new(addr), pages) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("set_memory_rox: {error}");
            dump_stack();
            -EINVAL
        }
    }
}
