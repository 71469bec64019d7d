//! Giving back what vmalloc and vmap gave, by the Linux names.
//!
//! None but [`vfree_atomic`] may be called in interrupt context (S35).

use core::ffi::c_void;

use arch::machine::Authority;
use kerncore::addr::VirtAddr;
use kerncore::kernel_space::{LeftToUnmap, RemoveError};
use mm::report::dump_stack;

use crate::address;

/// Frees what [`crate::vmalloc::vmalloc`] gave. Null is no-op; anything else that is not the base of such an area is reported and changes
/// nothing (S32, S34).
///
/// # Safety
/// Nobody uses the memory any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vfree(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        report("vfree", mm::kernel().vfree(authority, address(addr)));
    }
}

/// As [`vfree`], for handlers and wherever interrupts are off: queues the area, whose memory comes back when there is time
/// ([`mm::vm_area::VmArea::free_later`], S89). Null is no-op; anything else that is not the base of such an area is reported and
/// changes nothing.
///
/// # Safety
/// Nobody uses the memory any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vfree_atomic(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        report("vfree_atomic", mm::kernel().vfree_atomic(authority, address(addr)));
    }
}

/// Ends a mapping that [`crate::vmap::vmap`] made. Null is no-op; anything else that is not the base of such an area is reported and
/// changes nothing (S32, S34).
///
/// # Safety
/// Nobody uses the mapping any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vunmap(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        let kernel = mm::kernel();
        if let Err(left) = kernel.vunmap_at_hand(authority, address(addr)) {
            vunmap_left(kernel, address(addr), left);
        }
    }
}

/// [`vunmap`], of many pages, or when something is wrong. Not inlined: what it says wants room on the stack.
#[inline(never)]
fn vunmap_left(kernel: &'static mm::Kernel, base: VirtAddr, left: LeftToUnmap<'static>) {
    report("vunmap", kernel.vunmap_left(base, left));
}

/// Says what was wrong with a free, and who did it.
#[inline(always)]
pub(crate) fn report(what: &str, removed: Result<(), RemoveError>) {
    if let Err(error) = removed {
        refused(what, &error);
    }
}

#[cold]
#[inline(never)]
fn refused(what: &str, error: &RemoveError) {
    log::error!("{what}: {error}");
    dump_stack();
}
