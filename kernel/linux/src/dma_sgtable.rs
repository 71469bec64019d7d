//! Scatter lists, and that of a coherent buffer, by the Linux names (S99).

use core::ffi::{c_int, c_uint, c_void};

use dma::attributes;
use dma::coherent::{self, Buffer};
use dma::device::Device;
use dma::iommu::scattered;
use dma::scatter::{ScatterEntry, ScatterTable};
use kerncore::addr::{DmaAddr, PAGE_SIZE, pages_for};
use kerncore::coherent::AllocationFlags;
use kerncore::dma_attributes::DmaAttributes;

use crate::address;
use crate::errno::{EINVAL, ENOMEM, ENXIO};

/// Makes a list of `nents` entries of no memory in `table`: 0, `-EINVAL` for none, or `-ENOMEM`. Any context.
///
/// # Safety
/// `table` points to a place for a table, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn sg_alloc_table(
    table: *mut ScatterTable,
    nents: c_uint,
    _gfp: AllocationFlags,
) -> c_int {
    if table.is_null() || nents == 0 {
        return -EINVAL;
    }
    match ScatterTable::new(nents) {
        Ok(made) => {
            // SAFETY: the caller promises a place for it.
            unsafe { table.write(made) };
            0
        }
        Err(_) => -ENOMEM,
    }
}

/// Frees the list of `table`, which has none then. Null is a no-op. Any context.
///
/// # Safety
/// `table` points to a table that [`sg_alloc_table`] or [`dma_get_sgtable`] made, or is null; nobody uses its entries any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn sg_free_table(table: *mut ScatterTable) {
    // SAFETY: the caller promises a table, or passes null.
    if let Some(table) = unsafe { table.as_mut() } {
        // SAFETY: by the caller's promise.
        unsafe { table.free() };
    }
}

/// Makes the `nents` entries at `sgl` a list of no memory. Null is a no-op.
///
/// # Safety
/// There are so many places for entries, or `sgl` is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn sg_init_table(sgl: *mut ScatterEntry, nents: c_uint) {
    if !sgl.is_null() {
        for index in 0..nents as usize {
            // SAFETY: the caller promises the place.
            unsafe { sgl.wrapping_add(index).write(ScatterEntry::EMPTY) };
        }
        let list = core::ptr::slice_from_raw_parts_mut(sgl, nents as usize);
        // SAFETY: the places were written above, and are the caller's.
        ScatterEntry::initialise(unsafe { &mut *list });
    }
}

/// Makes in `sgt` the list of the coherent buffer of `size` bytes that [`crate::dma::dma_alloc_coherent`] gave: one entry, of whole
/// pages; behind an IOMMU one for each run of adjacent frames (S82). 0; `-ENXIO` if it is no such buffer, or has not so many pages;
/// `-EINVAL` for nothing; `-ENOMEM`. To be freed by [`sg_free_table`].
///
/// Memory that was declared for a device has no frames, and so no pages to make a list of: `-ENXIO`, as Linux says on this
/// architecture where a handle stands for no page.
///
/// # Safety
/// `dev` points to the device, `sgt` to a place for a table.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_get_sgtable(
    dev: *const Device,
    sgt: *mut ScatterTable,
    cpu_addr: *const c_void,
    handle: DmaAddr,
    size: c_uint,
) -> c_int {
    let given = Buffer { address: address(cpu_addr), dma: handle };
    // SAFETY: by the caller's promise.
    unsafe { list_of(dev, sgt, (given, size), DmaAttributes::NONE) }
}

/// [`dma_get_sgtable`] of what [`crate::dma_attrs::dma_alloc_attrs`] gave with the attributes `attrs`.
///
/// # Safety
/// As for [`dma_get_sgtable`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_get_sgtable_attrs(
    dev: *const Device,
    sgt: *mut ScatterTable,
    cpu_addr: *const c_void,
    handle: DmaAddr,
    size: c_uint,
    attrs: c_uint,
) -> c_int {
    let Ok(attributes) = DmaAttributes::from_bits(attrs) else { return -EINVAL };
    let given = Buffer { address: address(cpu_addr), dma: handle };
    // SAFETY: by the caller's promise.
    unsafe { list_of(dev, sgt, (given, size), attributes) }
}

/// # Safety
/// As for [`dma_get_sgtable`].
unsafe fn list_of(
    dev: *const Device,
    sgt: *mut ScatterTable,
    (given, size): (Buffer, c_uint),
    attributes: DmaAttributes,
) -> c_int {
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else { return -EINVAL };
    if sgt.is_null() || size == 0 {
        return -EINVAL;
    }
    let Some(buffer) = attributes::revealed(device, given, attributes) else { return -ENXIO };
    if let Some(entries) = scattered::for_each_run(device, buffer, size, |_, _| ()) {
        // SAFETY: by the caller's promise.
        return unsafe { list_of_runs(device, sgt, (buffer, size), entries) };
    }
    let Some(first) = coherent::first_frame(device, buffer, size) else { return -ENXIO };
    let Ok(table) = ScatterTable::new(1) else { return -ENOMEM };
    let page = mm::kernel().zones().table().pointer_to(first);
    // SAFETY: the one entry of the list made above.
    if let Some(entry) = unsafe { table.sgl.as_mut() } {
        // The buffer's pages are no more than there are.
        entry.set_page(page, pages_for(size) * PAGE_SIZE, 0);
    }
    // SAFETY: the caller promises a place for it.
    unsafe { sgt.write(table) };
    0
}

/// Of a buffer of scattered frames: an entry for each of its `entries` runs of adjacent ones (S82).
///
/// # Safety
/// As for [`dma_get_sgtable`].
unsafe fn list_of_runs(
    device: &Device,
    sgt: *mut ScatterTable,
    (buffer, size): (Buffer, c_uint),
    entries: u32,
) -> c_int {
    let Ok(mut table) = ScatterTable::new(entries) else { return -ENOMEM };
    let (frames, mut index) = (mm::kernel().zones().table(), 0);
    let filled = scattered::for_each_run(device, buffer, size, |first, bytes| {
        if index < entries {
            // SAFETY: one of the entries of the list made above, which nobody else has.
            if let Some(entry) = unsafe { table.sgl.wrapping_add(index as usize).as_mut() } {
                entry.set_page(frames.pointer_to(first), bytes, 0);
            }
        }
        index += 1;
    });
    if filled != Some(entries) {
        // Freed meanwhile, against the caller's promise.
        // SAFETY: made above, and nobody else has it.
        unsafe { table.free() };
        return -ENXIO;
    }
    // SAFETY: the caller promises a place for it.
    unsafe { sgt.write(table) };
    0
}
