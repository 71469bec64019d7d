//! Coherent buffers with attributes, by the Linux names (S99).

use core::ffi::{c_uint, c_void};
use core::ptr;

use dma::attributes;
use dma::coherent::Buffer;
use dma::device::Device;
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use kerncore::gfp::Warning;

use crate::dma::zero;
use crate::refusals::{Refusals, refusals};
use crate::{address, pointer};

/// As [`crate::dma::dma_alloc_coherent`], with the attributes `attrs`. With `DMA_ATTR_NO_KERNEL_MAPPING` what comes back may be a
/// cookie, which only [`dma_free_attrs`], [`crate::user::dma_mmap_attrs`] and [`crate::dma_sgtable::dma_get_sgtable_attrs`]
/// understand. Attributes that mean nothing are refused.
///
/// # Safety
/// `dev` points to a device and `dma_handle` to a place for an address.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_alloc_attrs(
    dev: *const Device,
    size: c_uint,
    dma_handle: *mut DmaAddr,
    gfp: AllocationFlags,
    attrs: c_uint,
) -> *mut c_void {
    let (caller, refused) = (arch::backtrace::return_address(), refusals!("dma_alloc_attrs"));
    match DmaAttributes::from_bits(attrs) {
        // SAFETY: by the caller's promise.
        Ok(attributes) => unsafe {
            alloc(refused, dev, size, dma_handle, (gfp, attributes), caller)
        },
        Err(error) => {
            refused.warn(format_args!("{error}"));
            ptr::null_mut()
        }
    }
}

/// As [`crate::dma::dma_alloc_coherent`], of memory to which writes may be combined, as they are anyway.
///
/// # Safety
/// As for [`dma_alloc_attrs`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_alloc_wc(
    dev: *const Device,
    size: c_uint,
    dma_handle: *mut DmaAddr,
    gfp: AllocationFlags,
) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    unsafe {
        let what = (gfp, DmaAttributes::WRITE_COMBINE);
        alloc(refusals!("dma_alloc_wc"), dev, size, dma_handle, what, caller)
    }
}

/// [`dma_alloc_attrs`] in the name of `caller`, for the function of these refusals.
///
/// # Safety
/// As for that.
pub(crate) unsafe fn alloc(
    refused: &Refusals,
    dev: *const Device,
    size: c_uint,
    dma_handle: *mut DmaAddr,
    (gfp, attributes): (AllocationFlags, DmaAttributes),
    caller: VirtAddr,
) -> *mut c_void {
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        refused.warn(format_args!("no device given"));
        return ptr::null_mut();
    };
    let attributes = match gfp.warning() {
        Warning::Told => attributes,
        Warning::Untold => attributes.with(DmaAttributes::NO_WARN),
    };
    match attributes::allocate(device, size, gfp.sleep(), attributes, caller) {
        Ok(buffer) => {
            // SAFETY: the caller promises a place for the address.
            unsafe { dma_handle.write(buffer.dma) };
            // Only a sleeper's buffer is a cookie, and that is zero.
            if gfp.zero() && gfp.sleep() == Sleep::MayNot {
                zero(buffer, size);
            }
            pointer(buffer.address)
        }
        Err(error) => {
            if !attributes.contains(DmaAttributes::NO_WARN) {
                refused
                    .warn(format_args!("{size} bytes for {} were refused: {error}", device.name()));
            }
            ptr::null_mut()
        }
    }
}

/// Gives back what [`dma_alloc_attrs`] gave with the same attributes. Null is a no-op; what is not such a buffer, or no cookie where
/// there should be one, is reported and changes nothing (S67, S99).
///
/// # Safety
/// `dev` points to the device; nobody uses the buffer any more, the device included.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_free_attrs(
    dev: *const Device,
    size: c_uint,
    cpu_addr: *const c_void,
    dma_handle: DmaAddr,
    attrs: c_uint,
) {
    match DmaAttributes::from_bits(attrs) {
        // SAFETY: by the caller's promise.
        Ok(attributes) => unsafe { free(dev, size, cpu_addr, dma_handle, attributes) },
        Err(error) => log::error!("dma_free_attrs: {error}"),
    }
}

/// Gives back what [`dma_alloc_wc`] gave.
///
/// # Safety
/// As for [`dma_free_attrs`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_free_wc(
    dev: *const Device,
    size: c_uint,
    cpu_addr: *const c_void,
    dma_handle: DmaAddr,
) {
    // SAFETY: by the caller's promise.
    unsafe { free(dev, size, cpu_addr, dma_handle, DmaAttributes::WRITE_COMBINE) };
}

/// # Safety
/// As for [`dma_free_attrs`].
unsafe fn free(
    dev: *const Device,
    size: c_uint,
    cpu_addr: *const c_void,
    dma_handle: DmaAddr,
    attributes: DmaAttributes,
) {
    if cpu_addr.is_null() {
        return;
    }
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        return log::error!("dma_free_attrs: no device given");
    };
    let given = Buffer { address: address(cpu_addr), dma: dma_handle };
    // What goes wrong was printed.
    // SAFETY: the caller promises that nobody uses the buffer any more.
    let _printed = unsafe { attributes::free(device, size, given, attributes) };
}
