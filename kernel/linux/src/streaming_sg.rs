//! Scatter lists for the streaming DMA functions, by their Linux names (S105).
//!
//! Each entry is mapped by itself: what is adjacent by accident is not joined, so that a list has as many entries for the device as
//! it has for its driver.

use core::ffi::{c_int, c_uint};

use dma::device::Device;
use dma::scatter::{Link, ScatterEntry};
use dma::streaming::{self, Call, MAPPING_ERROR, UnmapError};
use kerncore::addr::{DmaAddr, PhysAddr};
use kerncore::misuse::Family;

use crate::page::frame_of;
use crate::streaming::{call, map_for, report};

/// The entries of a list, from the first on.
struct Entries {
    next: *mut ScatterEntry,
    left: c_uint,
}

impl Entries {
    /// At most `count` entries from `first`, which may be null.
    ///
    /// # Safety
    /// `first` points to a list of as many entries, which nobody else uses for as long as this is used.
    const unsafe fn new(first: *mut ScatterEntry, count: c_uint) -> Self {
        Self { next: first, left: count }
    }
}

impl Iterator for Entries {
    type Item = *mut ScatterEntry;

    fn next(&mut self) -> Option<*mut ScatterEntry> {
        loop {
            if self.left == 0 || self.next.is_null() {
                return None;
            }
            // SAFETY: by the promise of `new`: the list has another entry, and this is it.
            let entry = unsafe { self.next.read() };
            if let Link::Chain(next) = entry.link() {
                self.next = core::ptr::with_exposed_provenance_mut(next as usize);
                continue;
            }
            let found = self.next;
            self.left -= 1;
            self.next = if entry.is_last() {
                core::ptr::null_mut()
            } else {
                // SAFETY: entries are adjacent up to the last, or one that leads to others.
                unsafe { found.add(1) }
            };
            return Some(found);
        }
    }
}

/// Where the memory of an entry lies.
fn place(entry: &ScatterEntry) -> Option<PhysAddr> {
    match entry.link() {
        Link::Page(page) => {
            let page = core::ptr::with_exposed_provenance(page as usize);
            frame_of(page)?.base().checked_add(entry.offset)
        }
        Link::Chain(_) => None,
    }
}

/// Maps the first `nents` entries of a list for the device: each then says where the device sees it, and how many bytes. As many as were
/// mapped, or 0, and nothing is mapped then. Any context.
///
/// # Safety
/// `dev` points to a device and `sg` to a list of as many entries. Nobody uses the bytes while the device has them.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_map_sg(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nents: c_uint,
    dir: c_uint,
) -> c_int {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    let Some(call) = (unsafe { call("dma_map_sg", dev, dir, Family::Scatter, caller) }) else {
        return 0;
    };
    let mut mapped = 0;
    // SAFETY: by the caller's promise.
    for entry in unsafe { Entries::new(sg, nents) } {
        // SAFETY: an entry of the list.
        let entry = unsafe { &mut *entry };
        let dma = match place(entry) {
            // SAFETY: by the caller's promise.
            Some(first) => unsafe { map_for(call, first, entry.length) },
            None => MAPPING_ERROR,
        };
        if dma == MAPPING_ERROR {
            log::error!("dma_map_sg: entry {mapped} of {nents} for {} fails", call.device.name());
            // SAFETY: those were mapped a moment ago, and the device knows of none.
            unsafe { undo(call, sg, mapped) };
            return 0;
        }
        (entry.dma_address, entry.dma_length) = (dma, entry.length);
        mapped += 1;
    }
    c_int::try_from(mapped).unwrap_or(c_int::MAX)
}

/// # Safety
/// As for [`dma_unmap_sg`].
unsafe fn undo(call: Call<'_>, sg: *mut ScatterEntry, count: c_uint) {
    let step = |call: Call<'_>, dma, bytes| {
        // SAFETY: by the caller's promise.
        unsafe { streaming::unmap(call, dma, bytes) }
    };
    // SAFETY: by the caller's promise.
    unsafe { each(call, sg, count, step) };
}

/// Does `step` with each of the first `count` entries, and reports what fails.
///
/// # Safety
/// `sg` points to a list of as many entries, which are mapped.
unsafe fn each(
    call: Call<'_>,
    sg: *mut ScatterEntry,
    count: c_uint,
    step: impl Fn(Call<'_>, DmaAddr, u32) -> Result<(), UnmapError>,
) {
    // SAFETY: by the caller's promise.
    for entry in unsafe { Entries::new(sg, count) } {
        // SAFETY: an entry of the list.
        let ScatterEntry { dma_address, dma_length, .. } = unsafe { entry.read() };
        report(&call, step(call, dma_address, dma_length));
    }
}

/// Ends the mapping of a list. Any context.
///
/// # Safety
/// [`dma_map_sg`] has mapped as many entries in that direction, and the device is done with them.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_unmap_sg(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nents: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    if let Some(call) = unsafe { call("dma_unmap_sg", dev, dir, Family::Scatter, caller) } {
        // SAFETY: by the caller's promise.
        unsafe { undo(call, sg, nents) };
    }
}

/// Makes a mapped list the processor's for the moment. Any context.
///
/// # Safety
/// As for [`dma_unmap_sg`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_sync_sg_for_cpu(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nelems: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    if let Some(call) = unsafe { call("dma_sync_sg_for_cpu", dev, dir, Family::Scatter, caller) } {
        let step = |call: Call<'_>, dma, bytes| {
            // SAFETY: by the caller's promise.
            unsafe { streaming::sync_for_cpu(call, dma, bytes) }
        };
        // SAFETY: by the caller's promise.
        unsafe { each(call, sg, nelems, step) };
    }
}

/// Makes a mapped list the device's again. Any context.
///
/// # Safety
/// As for [`dma_map_sg`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_sync_sg_for_device(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nelems: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    let call = unsafe { call("dma_sync_sg_for_device", dev, dir, Family::Scatter, caller) };
    if let Some(call) = call {
        let step = |call: Call<'_>, dma, bytes| {
            // SAFETY: by the caller's promise.
            unsafe { streaming::sync_for_device(call, dma, bytes) }
        };
        // SAFETY: by the caller's promise.
        unsafe { each(call, sg, nelems, step) };
    }
}
