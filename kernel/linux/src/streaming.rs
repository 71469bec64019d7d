//! The streaming DMA functions by their Linux names (S105).
//!
//! A mapping that fails gives [`MAPPING_ERROR`], which [`dma_mapping_error`] knows; why is told in a warning.

use core::ffi::{c_int, c_uint, c_void};

use dma::debug;
use dma::device::Device;
use dma::streaming::{self, Call, MAPPING_ERROR, Memory, UnmapError};
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::frames::Frame;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use mm::report::{RateLimit, dump_stack};

use crate::address;
use crate::errno::ENOMEM;
use crate::page::frame_of;

static REFUSED: RateLimit = RateLimit::new();

/// The call, if its device and its direction are any; otherwise it is reported.
///
/// # Safety
/// `dev` points to a device, or is null.
pub(crate) unsafe fn call<'d>(
    name: &'static str,
    dev: *const Device,
    dir: c_uint,
    family: Family,
    caller: VirtAddr,
) -> Option<Call<'d>> {
    // SAFETY: by the caller's promise.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        log::error!("{name}: no device given");
        return None;
    };
    let Some(flow) = Flow::from_number(dir) else {
        log::error!("{name}: {} is given {dir}, which is no direction", device.name());
        dump_stack();
        return None;
    };
    Some(Call { name, device, flow, caller, family })
}

/// # Safety
/// As for [`streaming::map`].
unsafe fn map(call: Option<Call<'_>>, memory: Memory, size: c_uint) -> DmaAddr {
    let Some(call) = call else { return MAPPING_ERROR };
    // SAFETY: by the caller's promise.
    match unsafe { streaming::map(call, memory, size) } {
        Ok(dma) => dma,
        Err(error) => {
            let Call { name, device, .. } = call;
            REFUSED.warn(format_args!(
                "{name}: {size} bytes for {} were refused: {error}",
                device.name()
            ));
            MAPPING_ERROR
        }
    }
}

/// Reports what went wrong with a mapping that stands.
pub(crate) fn report(call: &Call<'_>, result: Result<(), UnmapError>) {
    if let Err(error) = result {
        log::error!("{}: {}: {error}", call.name, call.device.name());
        dump_stack();
    }
}

/// Maps `size` bytes at the linear address `ptr` for the device, which has them until they are unmapped; [`MAPPING_ERROR`] if that
/// cannot be, as for memory of vmalloc. Any context.
///
/// # Safety
/// `dev` points to a device. Nobody uses the bytes while the device has them: what it may write is neither read nor written,
/// what it only reads is not written.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_map_single(
    dev: *const Device,
    ptr: *mut c_void,
    size: c_uint,
    dir: c_uint,
) -> DmaAddr {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    let call = unsafe { call("dma_map_single", dev, dir, Family::Single, caller) };
    // SAFETY: by the caller's promise.
    unsafe { map(call, Memory::Linear(address(ptr)), size) }
}

/// Ends a mapping of [`dma_map_single`]: the bytes are the processor's again. Any context.
///
/// # Safety
/// As many bytes were mapped there in that direction, and the device is done with them.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_unmap_single(
    dev: *const Device,
    dma_addr: DmaAddr,
    size: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    if let Some(call) = unsafe { call("dma_unmap_single", dev, dir, Family::Single, caller) } {
        // SAFETY: by the caller's promise.
        report(&call, unsafe { streaming::unmap(call, dma_addr, size) });
    }
}

/// As [`dma_map_single`], of `size` bytes from `offset` on in `page` and those behind it, which may be high memory.
///
/// # Safety
/// As for [`dma_map_single`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_map_page(
    dev: *const Device,
    page: *const Frame,
    offset: c_uint,
    size: c_uint,
    dir: c_uint,
) -> DmaAddr {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    let call = unsafe { call("dma_map_page", dev, dir, Family::Page, caller) };
    let Some(first) = frame_of(page).and_then(|frame| frame.base().checked_add(offset)) else {
        log::error!("dma_map_page: {page:p} and {offset} bytes is no page");
        return MAPPING_ERROR;
    };
    // SAFETY: by the caller's promise.
    unsafe { map(call, Memory::Physical(first), size) }
}

/// Ends a mapping of [`dma_map_page`].
///
/// # Safety
/// As for [`dma_unmap_single`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_unmap_page(
    dev: *const Device,
    dma_addr: DmaAddr,
    size: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    if let Some(call) = unsafe { call("dma_unmap_page", dev, dir, Family::Page, caller) } {
        // SAFETY: by the caller's promise.
        report(&call, unsafe { streaming::unmap(call, dma_addr, size) });
    }
}

/// Makes `size` bytes from `dma_addr` on, inside a mapping, the processor's, until [`dma_sync_single_for_device`] or the end of the
/// mapping. Whole cache lines change their owner. Any context.
///
/// # Safety
/// As for [`dma_unmap_single`]: the device is done with them.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_sync_single_for_cpu(
    dev: *const Device,
    dma_addr: DmaAddr,
    size: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    if let Some(call) = unsafe { call("dma_sync_single_for_cpu", dev, dir, Family::Single, caller) }
    {
        // SAFETY: by the caller's promise.
        report(&call, unsafe { streaming::sync_for_cpu(call, dma_addr, size) });
    }
}

/// Makes `size` bytes from `dma_addr` on, inside a mapping, the device's again. Whole cache lines change their owner. What was written there
/// reaches it if it reads; what it only writes is only read in between. Any context.
///
/// # Safety
/// As for [`dma_map_single`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_sync_single_for_device(
    dev: *const Device,
    dma_addr: DmaAddr,
    size: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    let call = unsafe { call("dma_sync_single_for_device", dev, dir, Family::Single, caller) };
    if let Some(call) = call {
        // SAFETY: by the caller's promise.
        report(&call, unsafe { streaming::sync_for_device(call, dma_addr, size) });
    }
}

/// Whether `dma_addr` is what a mapping that failed gives: `-ENOMEM`, or 0. A driver that does not ask is told so by the misuse
/// checker (S107).
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_mapping_error(dev: *const Device, dma_addr: DmaAddr) -> c_int {
    if dma_addr == MAPPING_ERROR {
        return -ENOMEM;
    }
    // SAFETY: by the caller's promise.
    if let Some(device) = unsafe { dev.as_ref() } {
        debug::asked(device, dma_addr);
    }
    0
}

/// The driver of `dev` lets it go; with `dma_debug=on` mappings that are left are counted, and one is named (S107).
///
/// # Safety
/// `dev` points to a device, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_debug_device_goes(dev: *const Device) {
    // SAFETY: by the caller's promise.
    if let Some(device) = unsafe { dev.as_ref() } {
        debug::device_goes(device);
    }
}
