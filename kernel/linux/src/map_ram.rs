//! `vm_map_ram`: short-lived mappings (S87).
//!
//! Neither may be called in interrupt context (S10, S35).

use core::ffi::{c_int, c_uint, c_void};
use core::fmt;
use core::ptr;
use core::slice;

use arch::machine::Authority;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::frames::Frame;
use kerncore::kernel_space::{Ended, VmapError};
use kerncore::map_ram::LARGEST;

use crate::cause::{Cause, Refusal};
use crate::free::report;
use crate::refusal::{self, mistake};
use crate::request::no_node;
use crate::vmap::too_many;
use crate::{address, pointer};

/// Maps `count` pages, given by page pointers, one after the other, to be read and written, for a short while; null on
/// failure. Up to [`kerncore::map_ram::LARGEST`] pages that touches nothing which other CPUs use. Nothing is allocated on
/// `node`, but one that is not there is refused.
///
/// # Safety
/// `pages` points to `count` page pointers. The pages stay allocated while the mapping lives, and whoever uses both the
/// mapping and the pages' other addresses keeps Rust's rules of aliasing.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vm_map_ram(
    pages: *const *const Frame,
    count: c_uint,
    node: c_int,
) -> *mut c_void {
    if !pages.is_null() && count.wrapping_sub(1) < LARGEST && node <= 0 {
        // SAFETY: the caller promises `count` page pointers.
        let pages = unsafe { slice::from_raw_parts(pages, count as usize) };
        if let Some(address) = mm::kernel().map_ram_at_hand(pages) {
            return pointer(address);
        }
    }
    // SAFETY: our caller's promises are what it asks for.
    unsafe { map_anyhow(pages, count, node, arch::backtrace::return_address()) }
}

/// [`vm_map_ram`], when what is at hand will not do.
///
/// # Safety
/// As for [`vm_map_ram`].
#[cold]
#[inline(never)]
unsafe fn map_anyhow(
    pages: *const *const Frame,
    count: c_uint,
    node: c_int,
    caller: VirtAddr,
) -> *mut c_void {
    if let Some(error) = no_node(node) {
        mistake("vm_map_ram", count.saturating_mul(PAGE_SIZE), &error);
        return ptr::null_mut();
    }
    if pages.is_null() || too_many(count) {
        return ptr::null_mut();
    }
    // SAFETY: the caller promises `count` page pointers.
    let pages = unsafe { slice::from_raw_parts(pages, count as usize) };
    match mm::kernel().map_ram(pages, caller) {
        Ok(address) => pointer(address),
        Err(error) => refused(pages, error),
    }
}

#[cold]
#[inline(never)]
fn refused(pages: &[*const Frame], error: VmapError) -> *mut c_void {
    /// Why there is no mapping, with the pointer that C passed.
    struct Why<'p>(&'p [*const Frame], VmapError);
    impl fmt::Display for Why<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match (self.1, self.0) {
                (VmapError::MissingFrame { index }, pages) => match pages.get(index as usize) {
                    Some(&page) => write!(f, "page {index}, {page:p}, is no page pointer"),
                    None => self.1.fmt(f),
                },
                (error, _) => error.fmt(f),
            }
        }
    }
    impl Refusal for Why<'_> {
        fn cause(&self) -> Cause {
            self.1.cause()
        }
    }
    // As many as RAM has at most: their bytes fit.
    let bytes = u32::try_from(pages.len()).unwrap_or(u32::MAX).saturating_mul(PAGE_SIZE);
    refusal::refused("vm_map_ram", bytes, &Why(pages, error));
    ptr::null_mut()
}

/// Ends a mapping that [`vm_map_ram`] made of `count` pages, on whatever CPU. Null is no-op; what is not the start of such a
/// mapping, or has another size, is reported and changes nothing.
///
/// # Safety
/// Nobody uses the mapping any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vm_unmap_ram(mem: *const c_void, count: c_uint) {
    if mem.is_null() {
        return;
    }
    // SAFETY: our caller promises that nobody uses it.
    let authority = unsafe { Authority::claim() };
    if mm::kernel().unmap_ram_at_hand(authority, address(mem), count) == Ended::No {
        // SAFETY: by the same promise; nothing was done yet.
        unsafe { unmap_anyhow(mem, count) };
    }
}

/// [`vm_unmap_ram`], when it is no mapping in a block, or something is wrong.
///
/// # Safety
/// As for [`vm_unmap_ram`].
#[cold]
#[inline(never)]
unsafe fn unmap_anyhow(mem: *const c_void, count: c_uint) {
    // SAFETY: our caller promises that nobody uses it.
    let authority = unsafe { Authority::claim() };
    report("vm_unmap_ram", mm::kernel().unmap_ram(authority, address(mem), count));
}
