//! The streaming DMA functions by their Linux names (S105).
//!
//! A mapping that fails gives [`MAPPING_ERROR`], which [`dma_mapping_error`] knows; why is told in a warning.

use core::ffi::{c_int, c_uint, c_void};

use dma::debug;
use dma::device::Device;
use dma::streaming::{self, Call, MAPPING_ERROR, MapError, Memory, UnmapError};
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::frames::Frame;
use kerncore::layout::linear_physical;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use mm::report::{RateLimit, dump_stack};

use crate::address;
use crate::errno::ENOMEM;
use crate::page::frame_of;

static REFUSED: RateLimit = RateLimit::new();

/// The device and the direction of the call `name`, if they are any; otherwise that is reported.
///
/// # Safety
/// `dev` points to a device, or is null.
#[inline(always)]
unsafe fn parties<'d>(
    name: &'static str,
    dev: *const Device,
    dir: c_uint,
) -> Option<(&'d Device, Flow)> {
    // SAFETY: by the caller's promise.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        tell_no_device(name);
        return None;
    };
    let Some(flow) = Flow::from_number(dir) else {
        tell_no_direction(name, device, dir);
        return None;
    };
    Some((device, flow))
}

/// The call, if its device and its direction are any; otherwise it is reported.
///
/// # Safety
/// `dev` points to a device, or is null.
#[inline(always)]
pub(crate) unsafe fn call<'d>(
    name: &'static str,
    dev: *const Device,
    dir: c_uint,
    family: Family,
    caller: VirtAddr,
) -> Option<Call<'d>> {
    // SAFETY: by the caller's promise.
    let (device, flow) = unsafe { parties(name, dev, dir)? };
    Some(Call { name, device, flow, caller, family })
}

#[cold]
#[inline(never)]
fn tell_no_device(name: &str) {
    log::error!("{name}: no device given");
}

#[cold]
#[inline(never)]
fn tell_no_direction(name: &str, device: &Device, dir: c_uint) {
    log::error!("{name}: {} is given {dir}, which is no direction", device.name());
    dump_stack();
}

/// [`streaming::map`], of which there is no short cut.
///
/// Cold for its callers, who have asked much by then: what they do otherwise is to be inlined.
///
/// # Safety
/// As for that.
#[cold]
#[inline(never)]
unsafe fn map(
    (name, family, caller): (&'static str, Family, VirtAddr),
    (device, flow): (&Device, Flow),
    (memory, size): (Memory, c_uint),
) -> DmaAddr {
    let call = Call { name, device, flow, caller, family };
    // SAFETY: by the caller's promise.
    match unsafe { streaming::map(call, memory, size) } {
        Ok(dma) => dma,
        Err(error) => refused(&call, size, &error),
    }
}

/// [`streaming::unmap`], of which there is no short cut. Cold as the above.
///
/// # Safety
/// As for that.
#[cold]
#[inline(never)]
unsafe fn unmap(
    (name, family, caller): (&'static str, Family, VirtAddr),
    (device, flow): (&Device, Flow),
    (dma, size): (DmaAddr, c_uint),
) {
    let call = Call { name, device, flow, caller, family };
    // SAFETY: by the caller's promise.
    report(&call, unsafe { streaming::unmap(call, dma, size) });
}

#[cold]
#[inline(never)]
fn no_page(page: *const Frame, offset: c_uint) -> DmaAddr {
    log::error!("dma_map_page: {page:p} and {offset} bytes is no page");
    MAPPING_ERROR
}

#[cold]
#[inline(never)]
fn refused(call: &Call<'_>, size: c_uint, error: &MapError) -> DmaAddr {
    let Call { name, device, .. } = call;
    REFUSED.warn(format_args!("{name}: {size} bytes for {} were refused: {error}", device.name()));
    MAPPING_ERROR
}

/// Reports what went wrong when a mapping was to end, or to change hands.
#[inline(always)]
pub(crate) fn report(call: &Call<'_>, result: Result<(), UnmapError>) {
    if let Err(error) = result {
        tell(call, &error);
    }
}

#[cold]
#[inline(never)]
fn tell(call: &Call<'_>, error: &UnmapError) {
    log::error!("{}: {}: {error}", call.name, call.device.name());
    dump_stack();
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
    let (name, ptr) = ("dma_map_single", address(ptr));
    // SAFETY: by the caller's promise.
    let Some(device) = (unsafe { parties(name, dev, dir) }) else { return MAPPING_ERROR };
    if let Some(first) = linear_physical(ptr)
        // SAFETY: by the caller's promise.
        && let Some(dma) = unsafe { streaming::map_at_hand(name, device, (first, size)) }
    {
        return dma;
    }
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    unsafe { map((name, Family::Single, caller), device, (Memory::Linear(ptr), size)) }
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
    let name = "dma_unmap_single";
    // SAFETY: by the caller's promise.
    let Some(device) = (unsafe { parties(name, dev, dir) }) else { return };
    // SAFETY: by the caller's promise.
    if unsafe { streaming::unmap_at_hand(name, device, (dma_addr, size)) } {
        return;
    }
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    unsafe { unmap((name, Family::Single, caller), device, (dma_addr, size)) };
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
    let name = "dma_map_page";
    // SAFETY: by the caller's promise.
    let Some(device) = (unsafe { parties(name, dev, dir) }) else { return MAPPING_ERROR };
    let asked = (page.addr(), offset, size);
    // SAFETY: by the caller's promise.
    if let Some(dma) = unsafe { streaming::map_at_record(name, device, asked) } {
        return dma;
    }
    let Some(first) = frame_of(page).and_then(|frame| frame.base().checked_add(offset)) else {
        return no_page(page, offset);
    };
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    unsafe { map((name, Family::Page, caller), device, (Memory::Physical(first), size)) }
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
    let name = "dma_unmap_page";
    // SAFETY: by the caller's promise.
    let Some(device) = (unsafe { parties(name, dev, dir) }) else { return };
    // SAFETY: by the caller's promise.
    if unsafe { streaming::unmap_inlined(name, device, (dma_addr, size)) } {
        return;
    }
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    unsafe { unmap((name, Family::Page, caller), device, (dma_addr, size)) };
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
