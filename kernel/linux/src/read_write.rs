//! Copying out of areas and into them, by the Linux names. Not in interrupt context.

use core::ffi::{c_char, c_long, c_ulong, c_void};
use core::slice;

use arch::machine::Authority;
use mm::area_copy;

use crate::address;

/// No buffer in memory is larger, and no larger count could be told.
const MOST: usize = c_long::MAX as usize;

/// Copies up to `count` bytes from `addr` on to `buf`, and says how many that were: none beyond the last area. What is no memory
/// reads as zero: gaps, guards, registers, addresses where nothing is mapped yet (S39, S40, S42).
///
/// # Safety
/// `buf` has `count` bytes, which nobody else uses meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vread(buf: *mut c_char, addr: *const c_void, count: c_ulong) -> c_long {
    if buf.is_null() {
        return 0;
    }
    let length = (count as usize).min(MOST);
    // SAFETY: the caller promises so many bytes. They need not have been written before: bytes of whatever value are bytes.
    let buffer = unsafe { slice::from_raw_parts_mut(buf.cast(), length) };
    told(area_copy::read(address(addr), buffer))
}

/// Copies up to `count` bytes of `buf` to `addr` and above, and says how many were taken: none beyond the last area. Those for
/// what is no memory, or may not be written, are written nowhere (S39, S41, S42).
///
/// # Safety
/// `buf` has `count` bytes, which nobody writes meanwhile. Nobody in Rust has a reference to what is written.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vwrite(buf: *const c_char, addr: *mut c_void, count: c_ulong) -> c_long {
    if buf.is_null() {
        return 0;
    }
    let length = (count as usize).min(MOST);
    // SAFETY: the caller promises so many bytes.
    let buffer = unsafe { slice::from_raw_parts(buf.cast(), length) };
    // SAFETY: the caller promises that nobody has a reference to what is written.
    let authority = unsafe { Authority::claim() };
    told(area_copy::write(authority, buffer, address(addr)))
}

/// A count, as C callers are told it.
fn told(count: usize) -> c_long {
    c_long::try_from(count).unwrap_or(c_long::MAX)
}
