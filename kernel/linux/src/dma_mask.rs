//! How high devices reach, by the Linux names (S100).

use core::ffi::c_int;

use dma::device::Device;
use kerncore::dma_mask::{DmaMask, MaskError};

use crate::errno::EIO;

/// The masks' setters: 0, or `-EIO` if there is no device or no RAM so low; the masks are what they were then.
///
/// # Safety
/// `dev` points to a device, or is null.
unsafe fn set(
    dev: *const Device,
    mask: u64,
    set: fn(&Device, DmaMask) -> Result<(), MaskError>,
    name: &str,
) -> c_int {
    // SAFETY: by the caller's promise.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        log::error!("{name}: no device given");
        return -EIO;
    };
    match set(device, DmaMask::new(mask)) {
        Ok(()) => 0,
        Err(error) => {
            log::warn!("{name}: {}: {error}", device.name());
            -EIO
        }
    }
}

/// Says that `dev` reaches addresses up to `mask` in memory that is mapped for it: 0, or `-EIO` if no RAM lies so low. Any context.
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_set_mask(dev: *const Device, mask: u64) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe { set(dev, mask, Device::set_mask, "dma_set_mask") }
}

/// Says that the coherent buffers of `dev` lie at addresses up to `mask`: 0, or `-EIO` if no RAM lies so low. Any context.
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_set_coherent_mask(dev: *const Device, mask: u64) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe { set(dev, mask, Device::set_coherent_mask, "dma_set_coherent_mask") }
}

/// [`dma_set_mask`] and [`dma_set_coherent_mask`], both or neither. Any context.
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_set_mask_and_coherent(dev: *const Device, mask: u64) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe { set(dev, mask, Device::set_mask_and_coherent, "dma_set_mask_and_coherent") }
}
