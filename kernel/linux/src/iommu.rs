//! Devices behind an IOMMU, by the Linux names (S108, S109).
//!
//! A driver need not know that its device is: the `dma_*` names serve it as any other. Those here refuse a device that is attached to
//! nothing, and do the same for one that is; whether it snoops is the device's own property, so that each name serves both.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr::{self, NonNull};

use dma::device::Device;
use dma::iommu::{self, AttachError, IommuMapping, Shared};
use dma::scatter::{ScatterEntry, ScatterTable};
use dma::streaming::MAPPING_ERROR;
use kerncore::addr::DmaAddr;
use kerncore::coherent::AllocationFlags;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::frames::Frame;

use crate::errno::{EBUSY, EINVAL, ENXIO};
use crate::refusals::{Refusals, refusals};
use crate::user::VmAreaStruct;
use crate::{dma_attrs, dma_sgtable, streaming, streaming_sg, user};

/// Makes a mapping of `size` bytes of device addresses from `base` on, a page's, in whole pages; null on failure. Where one may sleep.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn arm_iommu_create_mapping(base: DmaAddr, size: c_uint) -> *mut Shared {
    match IommuMapping::new(base, size) {
        Ok(mapping) => mapping.into_raw(),
        Err(error) => {
            refusals!("arm_iommu_create_mapping").warn(format_args!("{error}"));
            ptr::null_mut()
        }
    }
}

/// Lets a mapping of [`arm_iommu_create_mapping`] go, which lives on as long as a device is attached to it, or a buffer of scattered
/// frames lies in it. Null is a no-op. Where one may sleep.
///
/// # Safety
/// It was given by that, is let go once, and is not used by this caller any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_release_mapping(mapping: *mut Shared) {
    if let Some(mapping) = NonNull::new(mapping) {
        // SAFETY: by the caller's promise.
        drop(unsafe { IommuMapping::from_raw(mapping) });
    }
}

/// Puts `dev` behind `mapping`: 0; `-EINVAL` without one of both, or for a device with memory of its own; `-EBUSY` if it is attached
/// already.
///
/// # Safety
/// `dev` points to a device, which has no buffers or mappings and is given none meanwhile; `mapping` was made by
/// [`arm_iommu_create_mapping`] and not yet let go.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_attach_device(
    dev: *const Device,
    mapping: *mut Shared,
) -> c_int {
    // SAFETY: the caller promises a device, or passes null.
    let (Some(device), Some(mapping)) = (unsafe { dev.as_ref() }, NonNull::new(mapping)) else {
        return -EINVAL;
    };
    // SAFETY: by the caller's promise; the caller keeps its part, so this is not dropped.
    let mapping = core::mem::ManuallyDrop::new(unsafe { IommuMapping::from_raw(mapping) });
    // SAFETY: by the caller's promise.
    match unsafe { mapping.attach(device) } {
        Ok(()) => 0,
        Err(error) => {
            refusals!("arm_iommu_attach_device").warn(format_args!("{error}"));
            if matches!(error, AttachError::Again { .. }) { -EBUSY } else { -EINVAL }
        }
    }
}

/// Takes `dev` from behind its IOMMU; one that is not is told of, and nothing is done. Where one may sleep.
///
/// # Safety
/// `dev` points to a device, or is null. It has no buffers or mappings, and is given none meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_detach_device(dev: *const Device) {
    static REFUSED: Refusals = Refusals::of("arm_iommu_detach_device");
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        return REFUSED.warn(format_args!("no device given"));
    };
    // SAFETY: by the caller's promise.
    if let Err(error) = unsafe { iommu::detach(device) } {
        REFUSED.warn(format_args!("{error}"));
    }
}

/// Whether `dev` is attached; otherwise the function of these refusals was called wrongly, and that is told.
///
/// # Safety
/// `dev` points to a device, or is null.
unsafe fn is_attached(refused: &Refusals, dev: *const Device) -> bool {
    // SAFETY: by the caller's promise.
    match unsafe { dev.as_ref() } {
        Some(device) if device.iommu().is_some() => return true,
        Some(device) => {
            refused.warn(format_args!("{} is attached to no IOMMU mapping", device.name()));
        }
        None => refused.warn(format_args!("no device given")),
    }
    false
}

/// [`dma_attrs::dma_alloc_attrs`] of a device behind an IOMMU; null if it is not.
///
/// # Safety
/// As for that.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_alloc_attrs(
    dev: *const Device,
    size: c_uint,
    handle: *mut DmaAddr,
    gfp: AllocationFlags,
    attrs: c_uint,
) -> *mut c_void {
    let (caller, refused) = (arch::backtrace::return_address(), refusals!("arm_iommu_alloc_attrs"));
    // SAFETY: by the caller's promise.
    if !unsafe { is_attached(refused, dev) } {
        return ptr::null_mut();
    }
    match DmaAttributes::from_bits(attrs) {
        // SAFETY: by the caller's promise.
        Ok(attributes) => unsafe {
            dma_attrs::alloc(refused, dev, size, handle, (gfp, attributes), caller)
        },
        Err(error) => {
            refused.warn(format_args!("{error}"));
            ptr::null_mut()
        }
    }
}

/// [`dma_attrs::dma_free_attrs`] of a device behind an IOMMU.
///
/// # Safety
/// As for that.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_free_attrs(
    dev: *const Device,
    size: c_uint,
    cpu_addr: *const c_void,
    handle: DmaAddr,
    attrs: c_uint,
) {
    // SAFETY: by the caller's promise.
    if unsafe { is_attached(refusals!("arm_iommu_free_attrs"), dev) } {
        // SAFETY: by the caller's promise.
        unsafe { dma_attrs::dma_free_attrs(dev, size, cpu_addr, handle, attrs) };
    }
}

/// [`user::dma_mmap_attrs`] of a device behind an IOMMU: the window and its offset must lie in the buffer (S82). `-ENXIO` if it is not.
///
/// # Safety
/// As for that.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_mmap_attrs(
    dev: *const Device,
    vma: *mut VmAreaStruct,
    cpu_addr: *const c_void,
    dma_addr: DmaAddr,
    size: c_uint,
    attrs: c_uint,
) -> c_int {
    // SAFETY: by the caller's promise.
    if !unsafe { is_attached(refusals!("arm_iommu_mmap_attrs"), dev) } {
        return -ENXIO;
    }
    // SAFETY: by the caller's promise.
    unsafe { user::dma_mmap_attrs(dev, vma, cpu_addr, dma_addr, size, attrs) }
}

/// [`dma_sgtable::dma_get_sgtable_attrs`] of a device behind an IOMMU; `-ENXIO` if it is not.
///
/// # Safety
/// As for that.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_get_sgtable(
    dev: *const Device,
    sgt: *mut ScatterTable,
    cpu_addr: *const c_void,
    dma_addr: DmaAddr,
    size: c_uint,
    attrs: c_uint,
) -> c_int {
    // SAFETY: by the caller's promise.
    if !unsafe { is_attached(refusals!("arm_iommu_get_sgtable"), dev) } {
        return -ENXIO;
    }
    // SAFETY: by the caller's promise.
    unsafe { dma_sgtable::dma_get_sgtable_attrs(dev, sgt, cpu_addr, dma_addr, size, attrs) }
}

/// [`streaming::dma_map_page`] of a device behind an IOMMU; [`MAPPING_ERROR`] if it is not.
///
/// # Safety
/// As for that.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_map_page(
    dev: *const Device,
    page: *const Frame,
    offset: c_uint,
    size: c_uint,
    dir: c_uint,
) -> DmaAddr {
    // SAFETY: by the caller's promise.
    if !unsafe { is_attached(refusals!("arm_iommu_map_page"), dev) } {
        return MAPPING_ERROR;
    }
    // SAFETY: by the caller's promise.
    unsafe { streaming::dma_map_page(dev, page, offset, size, dir) }
}

/// [`streaming_sg::dma_map_sg`] of a device behind an IOMMU; 0 if it is not.
///
/// # Safety
/// As for that.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_iommu_map_sg(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nents: c_uint,
    dir: c_uint,
) -> c_int {
    // SAFETY: by the caller's promise.
    if !unsafe { is_attached(refusals!("arm_iommu_map_sg"), dev) } {
        return 0;
    }
    // SAFETY: by the caller's promise.
    unsafe { streaming_sg::dma_map_sg(dev, sg, nents, dir) }
}

/// Functions that do as another does, for a device behind an IOMMU.
macro_rules! behind {
    ($($(#[$doc:meta])+ $name:ident($dev:ident, $($argument:ident: $kind:ty),+) = $other:path;)+) => {
        $($(#[$doc])+
        ///
        /// # Safety
        /// As for that.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub unsafe extern "C" fn $name($dev: *const Device, $($argument: $kind),+) {
            // SAFETY: by the caller's promise.
            if unsafe { is_attached(refusals!(stringify!($name)), $dev) } {
                // SAFETY: by the caller's promise.
                unsafe { $other($dev, $($argument),+) };
            }
        })+
    };
}

behind! {
    /// [`streaming::dma_unmap_page`] of a device behind an IOMMU.
    arm_iommu_unmap_page(dev, handle: DmaAddr, size: c_uint, dir: c_uint) = streaming::dma_unmap_page;
    /// [`streaming::dma_sync_single_for_cpu`] of a device behind an IOMMU.
    arm_iommu_sync_single_for_cpu(dev, handle: DmaAddr, size: c_uint, dir: c_uint) = streaming::dma_sync_single_for_cpu;
    /// [`streaming::dma_sync_single_for_device`] of a device behind an IOMMU.
    arm_iommu_sync_single_for_device(dev, handle: DmaAddr, size: c_uint, dir: c_uint) = streaming::dma_sync_single_for_device;
    /// [`streaming_sg::dma_unmap_sg`] of a device behind an IOMMU.
    arm_iommu_unmap_sg(dev, sg: *mut ScatterEntry, nents: c_uint, dir: c_uint) = streaming_sg::dma_unmap_sg;
    /// [`streaming_sg::dma_sync_sg_for_cpu`] of a device behind an IOMMU.
    arm_iommu_sync_sg_for_cpu(dev, sg: *mut ScatterEntry, nelems: c_uint, dir: c_uint) = streaming_sg::dma_sync_sg_for_cpu;
    /// [`streaming_sg::dma_sync_sg_for_device`] of a device behind an IOMMU.
    arm_iommu_sync_sg_for_device(dev, sg: *mut ScatterEntry, nelems: c_uint, dir: c_uint) = streaming_sg::dma_sync_sg_for_device;
}
