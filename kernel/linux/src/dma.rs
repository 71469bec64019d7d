//! The coherent DMA functions by their Linux names.

use core::ffi::{c_uint, c_void};
use core::ptr;

use dma::coherent;
use dma::device::Device;
use kerncore::addr::DmaAddr;
use kerncore::coherent::{AllocationFlags, Sleep};
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
    let caller = arch::backtrace::return_address();
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        REFUSED.warn(format_args!("dma_alloc_coherent: no device given"));
        return ptr::null_mut();
    };
    match coherent::allocate(device, size, gfp.sleep(), caller) {
        Ok(buffer) => {
            // SAFETY: the caller promises a place for the address.
            unsafe { dma_handle.write(buffer.dma) };
            let memory: *mut c_void = pointer(buffer.address);
            if gfp.zero() && gfp.sleep() == Sleep::MayNot {
                // SAFETY: the buffer has `size` bytes, is mapped and writable, and nobody else knows of it yet.
                unsafe { memory.cast::<u8>().write_bytes(0, size as usize) };
            }
            memory
        }
        Err(error) => {
            REFUSED.warn(format_args!(
                "dma_alloc_coherent: {size} bytes for {} were refused: {error}",
                device.name()
            ));
            ptr::null_mut()
        }
    }
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
    if cpu_addr.is_null() {
        return;
    }
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        log::error!("dma_free_coherent: no device given");
        return;
    };
    // What goes wrong was printed.
    // SAFETY: the caller promises that nobody uses the buffer any more.
    let _printed = unsafe { coherent::free(device, size, address(cpu_addr), dma_handle) };
}

/// Sized a region that no longer exists (S64): accepted, and does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn init_consistent_dma_size(_size: c_uint) {}
