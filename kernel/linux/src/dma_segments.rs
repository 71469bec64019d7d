//! What of a scatter list a device takes as one piece, by the Linux names: behind an IOMMU entries are joined up to there (S109).

use core::ffi::{c_int, c_uint};

use dma::device::Device;
use kerncore::iommu::{LimitError, SegmentLimits};

use crate::errno::EINVAL;
use crate::refusals::{Refusals, refusals};

/// The limits of `dev`, or those of a device that has not said any.
///
/// # Safety
/// `dev` points to a device, or is null.
unsafe fn limits(dev: *const Device) -> SegmentLimits {
    // SAFETY: by the caller's promise.
    unsafe { dev.as_ref() }.map_or(SegmentLimits::DEFAULT, Device::segment_limits)
}

/// Sets what `change` makes of the limits of `dev`, or says why not.
///
/// # Safety
/// `dev` points to a device, or is null.
unsafe fn set(
    refused: &Refusals,
    dev: *const Device,
    change: impl FnOnce(SegmentLimits) -> Result<SegmentLimits, LimitError>,
) -> c_int {
    // SAFETY: by the caller's promise.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        refused.warn(format_args!("no device given"));
        return -EINVAL;
    };
    match change(device.segment_limits()) {
        Ok(limits) => {
            device.set_segment_limits(limits);
            0
        }
        Err(error) => {
            refused.warn(format_args!("{}: {error}", device.name()));
            -EINVAL
        }
    }
}

/// Says that `dev` takes at most `size` bytes as one piece: 0, or `-EINVAL` if that is none. Any context.
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_set_max_seg_size(dev: *const Device, size: c_uint) -> c_int {
    let change = |limits: SegmentLimits| SegmentLimits::new(size, limits.boundary());
    // SAFETY: by the caller's promise.
    unsafe { set(refusals!("dma_set_max_seg_size"), dev, change) }
}

/// Says that `dev` takes no piece with a multiple of `mask` and one inside: 0, or `-EINVAL` if that is no power of two. Any context.
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_set_seg_boundary(dev: *const Device, mask: c_uint) -> c_int {
    let change = |limits: SegmentLimits| SegmentLimits::new(limits.most(), mask);
    // SAFETY: by the caller's promise.
    unsafe { set(refusals!("dma_set_seg_boundary"), dev, change) }
}

/// How many bytes `dev` takes as one piece: 64 KiB, if it has not said otherwise. Any context.
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_get_max_seg_size(dev: *const Device) -> c_uint {
    // SAFETY: by the caller's promise.
    unsafe { limits(dev) }.most()
}

/// One less than the boundary of which no multiple lies inside a piece for `dev`. Any context.
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_get_seg_boundary(dev: *const Device) -> c_uint {
    // SAFETY: by the caller's promise.
    unsafe { limits(dev) }.boundary()
}
