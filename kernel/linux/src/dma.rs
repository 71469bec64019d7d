//! The coherent DMA functions by their Linux names.

use core::ffi::{c_uint, c_void};
use core::ptr;

use dma::coherent::{self, Buffer};
use dma::device::Device;
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::frames::Freed;
use kerncore::gfp::Warning;
use mm::report::RateLimit;

use crate::{address, pointer};

static REFUSED: RateLimit = RateLimit::new();

/// Allocates `size` bytes of coherent memory for `dev`, rounded up to pages, and stores the device's view of it in
/// `dma_handle`; null on failure. With flags that let it sleep the memory is zeroed; without, it comes from the atomic pool as
/// it is, in any context (S76, S77), and is zeroed if the flags ask for that (S85).
///
/// # Safety
/// `dev` points to a device and `dma_handle` to a place for an address.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_alloc_coherent(
    dev: *const Device,
    size: c_uint,
    dma_handle: *mut DmaAddr,
    gfp: AllocationFlags,
) -> *mut c_void {
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        return alloc_without_device();
    };
    let caller = arch::backtrace::return_address();
    if gfp.sleep() == Sleep::May {
        // SAFETY: by the caller's promise.
        return unsafe { alloc_otherwise(device, size, dma_handle, gfp, caller) };
    }
    let Some(buffer) = coherent::take(device, size, caller) else {
        // SAFETY: by the caller's promise.
        return unsafe { alloc_atomic(device, size, dma_handle, gfp, caller) };
    };
    // SAFETY: by the caller's promise.
    unsafe { given(buffer, size, dma_handle, gfp) }
}

#[cold]
#[inline(never)]
fn alloc_without_device() -> *mut c_void {
    REFUSED.warn(format_args!("dma_alloc_coherent: no device given"));
    ptr::null_mut()
}

/// What the caller is given of a buffer of the atomic pool's, which is zeroed if the flags ask for that.
///
/// # Safety
/// `dma_handle` points to a place for an address.
#[inline(always)]
unsafe fn given(
    buffer: Buffer,
    size: c_uint,
    dma_handle: *mut DmaAddr,
    gfp: AllocationFlags,
) -> *mut c_void {
    // SAFETY: the caller promises a place for the address.
    unsafe { dma_handle.write(buffer.dma) };
    if gfp.zero() {
        zero(buffer, size);
    }
    pointer(buffer.address)
}

/// [`dma_alloc_coherent`] of what the atomic pool does not have at once.
///
/// # Safety
/// `dma_handle` points to a place for an address.
#[inline(never)]
unsafe fn alloc_atomic(
    device: &Device,
    size: c_uint,
    dma_handle: *mut DmaAddr,
    gfp: AllocationFlags,
    caller: VirtAddr,
) -> *mut c_void {
    let Some(buffer) = coherent::take_otherwise(device, size, caller) else {
        // SAFETY: by the caller's promise.
        return unsafe { alloc_otherwise(device, size, dma_handle, gfp, caller) };
    };
    // SAFETY: by the caller's promise.
    unsafe { given(buffer, size, dma_handle, gfp) }
}

/// [`dma_alloc_coherent`] of what does not come from the atomic pool, or not without a word.
///
/// # Safety
/// `dma_handle` points to a place for an address.
#[inline(never)]
unsafe fn alloc_otherwise(
    device: &Device,
    size: c_uint,
    dma_handle: *mut DmaAddr,
    gfp: AllocationFlags,
    caller: VirtAddr,
) -> *mut c_void {
    match coherent::allocate_quietly(device, size, gfp.sleep(), caller) {
        Ok(buffer) => {
            // SAFETY: the caller promises a place for the address.
            unsafe { dma_handle.write(buffer.dma) };
            if gfp.zero() && gfp.sleep() == Sleep::MayNot {
                zero(buffer, size);
            }
            pointer(buffer.address)
        }
        Err(_) if gfp.warning() == Warning::Untold => ptr::null_mut(),
        Err(error) => {
            error.complain(device, size);
            REFUSED.warn(format_args!(
                "dma_alloc_coherent: {size} bytes for {} were refused: {error}",
                device.name()
            ));
            ptr::null_mut()
        }
    }
}

/// Fills with zeros what was just allocated.
#[cold]
#[inline(never)]
pub(crate) fn zero(buffer: Buffer, size: c_uint) {
    let memory: *mut u8 = pointer(buffer.address);
    // SAFETY: the buffer has `size` bytes, is mapped and writable, and nobody else knows of it yet.
    unsafe { memory.write_bytes(0, size as usize) };
}

/// Gives back what [`dma_alloc_coherent`] gave. Null is a no-op; what is not such a buffer is reported and changes nothing
/// (S67, S74).
///
/// # Safety
/// `dev` points to the device; nobody uses the buffer any more, the device included.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_free_coherent(
    dev: *const Device,
    size: c_uint,
    cpu_addr: *const c_void,
    dma_handle: DmaAddr,
) {
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        return free_without_device(cpu_addr);
    };
    // SAFETY: the caller promises that nobody uses the buffer any more.
    if unsafe { coherent::give_back(device, size, address(cpu_addr), dma_handle) } == Freed::No {
        // SAFETY: by the same promise; nothing was done yet.
        unsafe { free_otherwise(device, size, cpu_addr, dma_handle) };
    }
}

#[cold]
#[inline(never)]
fn free_without_device(cpu_addr: *const c_void) {
    if !cpu_addr.is_null() {
        log::error!("dma_free_coherent: no device given");
    }
}

/// [`dma_free_coherent`] of what the atomic pool does not take back at once: null, what is not the pool's, and mistakes.
///
/// # Safety
/// As for [`dma_free_coherent`].
#[inline(never)]
unsafe fn free_otherwise(
    device: &Device,
    size: c_uint,
    cpu_addr: *const c_void,
    dma_handle: DmaAddr,
) {
    if cpu_addr.is_null() {
        return;
    }
    // What goes wrong was printed.
    // SAFETY: the caller promises that nobody uses the buffer any more.
    let _printed = unsafe { coherent::free(device, size, address(cpu_addr), dma_handle) };
}

/// Sized a region that no longer exists (S64): accepted, and does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn init_consistent_dma_size(_size: c_uint) {}
