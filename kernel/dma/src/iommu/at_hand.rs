//! One piece of ordinary memory, mapped for a device behind an IOMMU and unmapped, where all is at hand: what drivers do, as a rule (S105,
//! S109).
//!
//! ```text
//!   map      may it have it in place? is it somebody's? ──▶ seen by the device ──▶ given to it ──▶ the driver is told where
//!   unmap    is it that, and still somebody's? ──▶ seen no more ──▶ taken back
//! ```
//! It is checked as the general way checks it ([`super::single`], [`crate::streaming::unmap`]), and what fails any check has changed
//! nothing and goes that way, which has words for it. So does all of it while there is a contiguous region, whose frames must be pinned;
//! while copies are forced; and while mappings are checked.

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, LARGE_PAGE_SIZE, PAGE_SIZE, Pfn, PhysAddr};
use kerncore::coherent::Coherency;
use kerncore::streaming::{Flow, Handover, Step, writes_part_of_a_line};
use mm::{Kernel, kernel};

use super::view::pages_of;
use super::{Shared, buffers};
use crate::bounce;
use crate::debug;
use crate::device::Device;
use crate::streaming::Call;

/// The most bytes that are at hand.
const MOST: u32 = 16 * PAGE_SIZE;

/// [`crate::streaming::map`] of `bytes` from `first` on by the call `name`, if `device` is behind an IOMMU, and all is at hand: `None` says that
/// that function is to be asked, and nothing has changed. Any context.
///
/// # Safety
/// As for that.
#[inline(always)]
pub unsafe fn map(
    name: &'static str,
    (device, flow): (&Device, Flow),
    (first, bytes): (PhysAddr, u32),
) -> Option<DmaAddr> {
    let iommu = device.iommu()?;
    if is_in_one_page(first.page_offset(), bytes) && device.coherency() == Coherency::Coherent {
        // SAFETY: by our caller's promise.
        unsafe { map_page((device, iommu), (first, bytes), flow) }
    } else {
        // SAFETY: as above.
        unsafe { map_more(name, (device, flow), (first, bytes)) }
    }
}

/// [`map`] of `bytes` from `offset` on in the frame whose record is at `record` and those behind it, with the way of one page inlined into
/// the caller; for one caller, or it would be inlined into none.
///
/// # Safety
/// As for [`map`].
#[inline(always)]
pub unsafe fn map_at_record(
    name: &'static str,
    (device, flow): (&Device, Flow),
    (record, offset, bytes): (usize, u32, u32),
) -> Option<DmaAddr> {
    let iommu = device.iommu()?;
    let kernel = kernel();
    // Of an offset beyond the page there is nothing in it.
    if bytes.wrapping_sub(1) < PAGE_SIZE.saturating_sub(offset)
        && device.coherency() == Coherency::Coherent
    {
        let frame = kernel.frame_at_hand(record)?;
        // SAFETY: by our caller's promise.
        let seen = unsafe { map_frame(kernel, (device, iommu), frame, (flow, offset + bytes)) };
        seen.map(|seen| DmaAddr::new(seen.raw() | offset))
    } else {
        let first = kernel.zones().table().frame_at_record(record)?.base().checked_add(offset)?;
        // SAFETY: as above.
        unsafe { map_more(name, (device, flow), (first, bytes)) }
    }
}

/// # Safety
/// As for [`map`].
#[inline(always)]
unsafe fn map_more(
    name: &'static str,
    (device, flow): (&Device, Flow),
    (first, bytes): (PhysAddr, u32),
) -> Option<DmaAddr> {
    if bytes.wrapping_sub(1) >= MOST {
        return None;
    }
    let seen = if is_in_large_page(first.raw(), bytes) {
        // SAFETY: by our caller's promise.
        unsafe { map_large_page(device, first, bytes, flow) }?
    } else {
        // SAFETY: as above.
        unsafe { map_few(device, first, bytes, flow) }?
    };
    if device.coherency() == Coherency::NonCoherent {
        // SAFETY: as above.
        unsafe { give_lines(name, flow, (first, bytes)) };
    }
    Some(DmaAddr::new(seen.raw() | first.page_offset()))
}

/// [`crate::streaming::unmap`] of `bytes` at `dma` by the call `name`, if `device` is behind an IOMMU, and all is at hand: `false` says that that
/// function is to be asked, and nothing has changed. Any context.
///
/// # Safety
/// As for that.
#[inline(always)]
pub unsafe fn unmap(
    name: &'static str,
    (device, flow): (&Device, Flow),
    (dma, bytes): (DmaAddr, u32),
) -> bool {
    let Some(iommu) = device.iommu() else { return false };
    if is_in_one_page(dma.raw() % PAGE_SIZE, bytes) && device.coherency() == Coherency::Coherent {
        // SAFETY: by our caller's promise.
        unsafe { unmap_page(iommu, dma) }
    } else {
        // SAFETY: as above.
        unsafe { unmap_more(name, (device, iommu, flow), (dma, bytes)) }
    }
}

/// [`unmap`] as [`map_at_record`] maps.
///
/// # Safety
/// As for [`unmap`].
#[inline(always)]
pub unsafe fn unmap_inlined(
    name: &'static str,
    (device, flow): (&Device, Flow),
    (dma, bytes): (DmaAddr, u32),
) -> bool {
    let Some(iommu) = device.iommu() else { return false };
    if is_in_one_page(dma.raw() % PAGE_SIZE, bytes) && device.coherency() == Coherency::Coherent {
        // SAFETY: by our caller's promise.
        unsafe { unmap_frame(iommu, dma) }
    } else {
        // SAFETY: as above.
        unsafe { unmap_more(name, (device, iommu, flow), (dma, bytes)) }
    }
}

/// # Safety
/// As for [`unmap`].
#[inline(always)]
unsafe fn unmap_more(
    name: &'static str,
    (device, iommu, flow): (&Device, &Shared, Flow),
    (dma, bytes): (DmaAddr, u32),
) -> bool {
    if bytes.wrapping_sub(1) >= MOST {
        return false;
    }
    let coherency = device.coherency();
    let ended = if is_in_large_page(dma.raw(), bytes) {
        // SAFETY: by our caller's promise.
        unsafe { unmap_large_page(iommu, coherency, dma, bytes) }
    } else {
        // SAFETY: as above.
        unsafe { unmap_few(iommu, coherency, dma, bytes) }
    };
    if coherency == Coherency::NonCoherent
        && let Some(first) = ended
    {
        // SAFETY: as above.
        unsafe { take_lines(name, flow, (first, bytes)) };
    }
    ended.is_some()
}

/// [`map`], for who is in no hurry.
///
/// # Safety
/// As for that.
#[inline(never)]
pub(crate) unsafe fn map_soon(call: &Call<'_>, first: PhysAddr, bytes: u32) -> Option<DmaAddr> {
    // SAFETY: by our caller's promise.
    unsafe { map(call.name, (call.device, call.flow), (first, bytes)) }
}

/// [`unmap`], for who is in no hurry.
///
/// # Safety
/// As for that.
#[inline(never)]
pub(crate) unsafe fn unmap_soon(call: &Call<'_>, dma: DmaAddr, bytes: u32) -> bool {
    // SAFETY: by our caller's promise.
    unsafe { unmap(call.name, (call.device, call.flow), (dma, bytes)) }
}

/// Whether they are some, and do.
#[inline(always)]
const fn is_in_one_page(offset: u32, bytes: u32) -> bool {
    bytes.wrapping_sub(1) < PAGE_SIZE - offset
}

/// Whether `bytes` from `address` on, which are some and no more than [`MOST`], touch each page of one large page.
#[inline(always)]
const fn is_in_large_page(address: u32, bytes: u32) -> bool {
    let offset = address % LARGE_PAGE_SIZE;
    offset < PAGE_SIZE && (offset + (bytes - 1)) / PAGE_SIZE == LARGE_PAGE_SIZE / PAGE_SIZE - 1
}

/// Whether every transfer is to go the general way.
#[inline(always)]
pub(super) fn is_special(kernel: &Kernel) -> bool {
    kernel.contiguous().is_some() | debug::is_on()
}

/// Whether `bytes` from `first` on are somebody's who may lend them, and the processor has linear addresses for what it is to look after.
#[inline(always)]
fn is_at_hand(kernel: &Kernel, coherency: Coherency, (first, bytes): (PhysAddr, u32)) -> bool {
    kernel.is_at_hand(first, bytes)
        && (coherency == Coherency::Coherent || kernel.low_piece(first, bytes).is_some())
}

/// Of a frame of which the kernel has said that it is at hand, up to `end` bytes of it, for a device that snoops: there are no lines to look
/// after, and the barriers of the tables stand between what was done before this call and what is done after it.
///
/// # Safety
/// As for [`map`].
#[inline(always)]
unsafe fn map_frame(
    kernel: &Kernel,
    (device, iommu): (&Device, &Shared),
    frame: Pfn,
    (flow, end): (Flow, u32),
) -> Option<DmaAddr> {
    if is_special(kernel) || bounce::is_forced() {
        return None;
    }
    let highest = device.mask().highest(end)?;
    // SAFETY: our caller promises that the memory is the device's now, and it is somebody's who may lend it.
    let authority = unsafe { Authority::claim() };
    iommu.domain().map_page_at_hand(authority, frame, (flow, Coherency::Coherent), highest)
}

/// The same of what lies in one page. Not inlined: it has all registers to itself.
///
/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn map_page(
    (device, iommu): (&Device, &Shared),
    (first, bytes): (PhysAddr, u32),
    flow: Flow,
) -> Option<DmaAddr> {
    let (kernel, frame, offset) = (kernel(), first.pfn(), first.page_offset());
    if !kernel.is_frame_at_hand(frame) {
        return None;
    }
    // SAFETY: by our caller's promise.
    let seen = unsafe { map_frame(kernel, (device, iommu), frame, (flow, offset + bytes)) };
    seen.map(|seen| DmaAddr::new(seen.raw() | offset))
}

/// Of what touches each page of one large page, for any device: where the device sees the first. Not inlined, as the above.
///
/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn map_large_page(
    device: &Device,
    first: PhysAddr,
    bytes: u32,
    flow: Flow,
) -> Option<DmaAddr> {
    let highest = may_map(device, (first, bytes), flow)?;
    let how = (flow, device.coherency());
    // SAFETY: as in `map_frame`.
    let authority = unsafe { Authority::claim() };
    device.iommu()?.domain().map_large_page_at_hand(authority, first.pfn(), how, highest)
}

/// Of what lies in a few pages, for any device: where the device sees the first. Not inlined, as the above.
///
/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn map_few(device: &Device, first: PhysAddr, bytes: u32, flow: Flow) -> Option<DmaAddr> {
    let highest = may_map(device, (first, bytes), flow)?;
    let run = (first.pfn(), pages_of(first.page_offset(), bytes));
    let how = (flow, device.coherency());
    // SAFETY: as in `map_frame`.
    let authority = unsafe { Authority::claim() };
    device.iommu()?.domain().map_few_at_hand(authority, run, how, highest)
}

/// The highest address at which the device may see the first page of that, if it may have it in place.
#[inline(always)]
fn may_map(device: &Device, (first, bytes): (PhysAddr, u32), flow: Flow) -> Option<DmaAddr> {
    let (kernel, coherency) = (kernel(), device.coherency());
    // No RAM lies at the top of the bus: what is at hand does not wrap.
    if is_special(kernel)
        || bounce::is_forced()
        || writes_part_of_a_line((first, bytes), kernel.line_bytes(), (flow, coherency))
        || !is_at_hand(kernel, coherency, (first, bytes))
    {
        return None;
    }
    device.mask().highest(first.page_offset() + bytes)
}

/// Gives the device, which does not snoop, the lines of `bytes` from `first` on, which are at hand.
///
/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn give_lines(name: &'static str, flow: Flow, (first, bytes): (PhysAddr, u32)) {
    let kernel = kernel();
    if let Some(piece) = kernel.low_piece(first, bytes) {
        // SAFETY: our caller promises that the memory is the device's now.
        let authority = unsafe { Authority::claim() };
        kernel.give_piece(authority, handover(name, flow), piece);
    }
}

/// Takes them back.
///
/// # Safety
/// As for [`unmap`].
#[inline(never)]
unsafe fn take_lines(name: &'static str, flow: Flow, (first, bytes): (PhysAddr, u32)) {
    let kernel = kernel();
    if let Some(piece) = kernel.low_piece(first, bytes) {
        // SAFETY: our caller promises that the device is done.
        let authority = unsafe { Authority::claim() };
        kernel.take_piece(authority, handover(name, flow), piece);
    }
}

/// What is handed over of a device that does not snoop.
const fn handover(call: &'static str, flow: Flow) -> Handover {
    Handover { call, coherency: Coherency::NonCoherent, flow, step: Step::Whole }
}

/// Of what lies in one page, for a device that snoops.
///
/// # Safety
/// As for [`unmap`].
#[inline(always)]
unsafe fn unmap_frame(iommu: &Shared, dma: DmaAddr) -> bool {
    let kernel = kernel();
    if is_special(kernel) {
        return false;
    }
    // SAFETY: our caller promises that the device is done, and that nobody else unmaps it.
    let authority = unsafe { Authority::claim() };
    iommu.domain().unmap_page_at_hand(authority, dma, |frame| {
        kernel.is_frame_at_hand(frame.pfn()) && !buffers::is_view_of_block(iommu, dma)
    })
}

/// The same. Not inlined, as the above.
///
/// # Safety
/// As for [`unmap`].
#[inline(never)]
unsafe fn unmap_page(iommu: &Shared, dma: DmaAddr) -> bool {
    // SAFETY: by our caller's promise.
    unsafe { unmap_frame(iommu, dma) }
}

/// Of what touches each page of one large page: where it led to. Not inlined, as the above.
///
/// # Safety
/// As for [`unmap`].
#[inline(never)]
unsafe fn unmap_large_page(
    iommu: &Shared,
    coherency: Coherency,
    dma: DmaAddr,
    bytes: u32,
) -> Option<PhysAddr> {
    let kernel = kernel();
    if is_special(kernel) {
        return None;
    }
    let offset = dma.raw() % PAGE_SIZE;
    let mut first = PhysAddr::new(0);
    // SAFETY: as in `unmap_frame`.
    let authority = unsafe { Authority::claim() };
    let start = DmaAddr::new(dma.raw() - offset);
    let is_hidden = iommu.domain().unmap_large_page_at_hand(authority, start, |frame| {
        first = PhysAddr::new(frame.raw() | offset);
        is_at_hand(kernel, coherency, (first, bytes)) && !buffers::is_view_of_block(iommu, dma)
    });
    is_hidden.then_some(first)
}

/// Of what lies in a few pages: where it led to. Not inlined, as the above.
///
/// # Safety
/// As for [`unmap`].
#[inline(never)]
unsafe fn unmap_few(
    iommu: &Shared,
    coherency: Coherency,
    dma: DmaAddr,
    bytes: u32,
) -> Option<PhysAddr> {
    let kernel = kernel();
    if is_special(kernel) {
        return None;
    }
    let offset = dma.raw() % PAGE_SIZE;
    let run = (DmaAddr::new(dma.raw() - offset), pages_of(offset, bytes));
    let mut first = PhysAddr::new(0);
    // SAFETY: as in `unmap_frame`.
    let authority = unsafe { Authority::claim() };
    let is_hidden = iommu.domain().unmap_few_at_hand(authority, run, |frame| {
        first = PhysAddr::new(frame.raw() | offset);
        is_at_hand(kernel, coherency, (first, bytes)) && !buffers::is_view_of_block(iommu, dma)
    });
    is_hidden.then_some(first)
}
