//! ioremap by its Linux name.

use core::ffi::{c_uint, c_void};
use core::ptr;

use arch::machine::Authority;
use kerncore::addr::PhysAddr;
use kerncore::attributes::Attributes;

use crate::free::report;
use crate::refusal::refused;
use crate::{address, pointer};

/// Maps `size` bytes of device registers at physical address `phys_addr`, which need not be aligned; null on failure (S93,
/// S94). Not in interrupt context.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ioremap(phys_addr: c_uint, size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    let physical = PhysAddr::new(phys_addr);
    match mm::kernel().ioremap(physical, size, Attributes::DEVICE, caller) {
        Ok(address) => pointer(address),
        Err(error) => {
            refused("ioremap", size, &error);
            ptr::null_mut()
        }
    }
}

/// Ends a mapping of [`ioremap`], given any address inside it. Null is no-op; anything else is reported and changes
/// nothing. Not in interrupt context.
///
/// # Safety
/// Nobody uses the mapping any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn iounmap(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        report("iounmap", mm::kernel().iounmap(authority, address(addr)));
    }
}
