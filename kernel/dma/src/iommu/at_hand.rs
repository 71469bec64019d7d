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
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::coherent::Coherency;
use kerncore::streaming::{Flow, Handover, Piece, Step, writes_part_of_a_line};
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
    // SAFETY: by our caller's promise.
    let page = |iommu: &Shared| unsafe { map_page(iommu, first, flow) };
    // SAFETY: as above.
    unsafe { map_by(page, name, (device, flow), (first, bytes)) }
}

/// [`map`] with the way of one page inlined into the caller, who has one call less then; for one caller, or it would be inlined into none.
///
/// # Safety
/// As for [`map`].
#[inline(always)]
pub unsafe fn map_inlined(
    name: &'static str,
    (device, flow): (&Device, Flow),
    (first, bytes): (PhysAddr, u32),
) -> Option<DmaAddr> {
    // SAFETY: by our caller's promise.
    let page = |iommu: &Shared| unsafe { map_frame(iommu, first, flow) };
    // SAFETY: as above.
    unsafe { map_by(page, name, (device, flow), (first, bytes)) }
}

/// # Safety
/// As for [`map`].
#[inline(always)]
unsafe fn map_by(
    page: impl FnOnce(&Shared) -> Option<DmaAddr>,
    name: &'static str,
    (device, flow): (&Device, Flow),
    (first, bytes): (PhysAddr, u32),
) -> Option<DmaAddr> {
    let iommu = device.iommu()?;
    if is_in_one_page(first.page_offset(), bytes) && device.coherency() == Coherency::Coherent {
        within_reach(device, (page(iommu)?, first, bytes))
    } else if bytes.wrapping_sub(1) < MOST {
        // SAFETY: as above.
        unsafe { map_some((device, iommu), (first, bytes), flow, name) }
    } else {
        None
    }
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
    // SAFETY: by our caller's promise.
    let page = |iommu: &Shared| unsafe { unmap_page(iommu, dma) };
    // SAFETY: as above.
    unsafe { unmap_by(page, name, (device, flow), (dma, bytes)) }
}

/// [`unmap`] as [`map_inlined`] maps.
///
/// # Safety
/// As for [`unmap`].
#[inline(always)]
pub unsafe fn unmap_inlined(
    name: &'static str,
    (device, flow): (&Device, Flow),
    (dma, bytes): (DmaAddr, u32),
) -> bool {
    // SAFETY: by our caller's promise.
    let page = |iommu: &Shared| unsafe { unmap_frame(iommu, dma) };
    // SAFETY: as above.
    unsafe { unmap_by(page, name, (device, flow), (dma, bytes)) }
}

/// # Safety
/// As for [`unmap`].
#[inline(always)]
unsafe fn unmap_by(
    page: impl FnOnce(&Shared) -> bool,
    name: &'static str,
    (device, flow): (&Device, Flow),
    (dma, bytes): (DmaAddr, u32),
) -> bool {
    let Some(iommu) = device.iommu() else { return false };
    if is_in_one_page(dma.raw() % PAGE_SIZE, bytes) && device.coherency() == Coherency::Coherent {
        page(iommu)
    } else {
        // SAFETY: as above.
        bytes.wrapping_sub(1) < MOST
            && unsafe { unmap_some((device, iommu), (dma, bytes), flow, name) }
    }
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

/// Whether every transfer is to go the general way.
#[inline(always)]
pub(super) fn is_special(kernel: &Kernel) -> bool {
    kernel.contiguous().is_some() | debug::is_on()
}

/// What is to be given or taken of memory that is at hand.
enum Upkeep {
    /// Nothing: the device snoops.
    Nothing,
    /// The lines of this.
    Lines(Piece),
}

/// `None`: the processor has no linear addresses for it.
#[inline(always)]
fn upkeep_of(
    kernel: &Kernel,
    coherency: Coherency,
    (first, bytes): (PhysAddr, u32),
) -> Option<Upkeep> {
    match coherency {
        Coherency::Coherent => Some(Upkeep::Nothing),
        Coherency::NonCoherent => kernel.low_piece(first, bytes).map(Upkeep::Lines),
    }
}

/// Of what lies in one page, for a device that snoops: there are no lines to look after, and the barriers of the tables stand between what
/// was done before this call and what is done after it.
///
/// # Safety
/// As for [`map`].
#[inline(always)]
unsafe fn map_frame(iommu: &Shared, first: PhysAddr, flow: Flow) -> Option<DmaAddr> {
    let kernel = kernel();
    if is_special(kernel) || bounce::is_forced() || !kernel.is_frame_at_hand(first.pfn()) {
        return None;
    }
    // SAFETY: our caller promises that the memory is the device's now, and it is somebody's who may lend it.
    let authority = unsafe { Authority::claim() };
    iommu.domain().map_page_at_hand(authority, first.pfn(), (flow, Coherency::Coherent))
}

/// The same. Not inlined: it has all registers to itself.
///
/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn map_page(iommu: &Shared, first: PhysAddr, flow: Flow) -> Option<DmaAddr> {
    // SAFETY: by our caller's promise.
    unsafe { map_frame(iommu, first, flow) }
}

/// Of what lies in a few pages, for any device. Not inlined, as the above.
///
/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn map_some(
    (device, iommu): (&Device, &Shared),
    (first, bytes): (PhysAddr, u32),
    flow: Flow,
    name: &'static str,
) -> Option<DmaAddr> {
    let (kernel, coherency) = (kernel(), device.coherency());
    // No RAM lies at the top of the bus: what is at hand does not wrap.
    if is_special(kernel)
        || bounce::is_forced()
        || writes_part_of_a_line((first, bytes), kernel.line_bytes(), (flow, coherency))
        || !kernel.is_at_hand(first, bytes)
    {
        return None;
    }
    let upkeep = upkeep_of(kernel, coherency, (first, bytes))?;
    let run = (first.pfn(), pages_of(first.page_offset(), bytes));
    // SAFETY: as in `map_page`.
    let authority = unsafe { Authority::claim() };
    let seen = iommu.domain().map_at_hand(authority, run, (flow, coherency))?;
    let dma = within_reach(device, (seen, first, bytes))?;
    if let Upkeep::Lines(piece) = upkeep {
        // SAFETY: our caller promises that the memory is the device's now.
        let authority = unsafe { Authority::claim() };
        kernel.give_piece(authority, handover(name, flow), piece);
    }
    Some(dma)
}

/// What is handed over of a device that does not snoop.
const fn handover(call: &'static str, flow: Flow) -> Handover {
    Handover { call, coherency: Coherency::NonCoherent, flow, step: Step::Whole }
}

/// Where the device sees what begins in the frame that it sees at `seen`, if it reaches that far; or it sees it no more.
#[inline(always)]
fn within_reach(
    device: &Device,
    (seen, first, bytes): (DmaAddr, PhysAddr, u32),
) -> Option<DmaAddr> {
    let dma = DmaAddr::new(seen.raw() | first.page_offset());
    if device.mask().reaches(dma, bytes) { Some(dma) } else { hide(device, dma, bytes) }
}

#[cold]
#[inline(never)]
fn hide(device: &Device, dma: DmaAddr, bytes: u32) -> Option<DmaAddr> {
    let iommu = device.iommu()?;
    // SAFETY: nobody knows of it yet.
    let authority = unsafe { Authority::claim() };
    let hidden = iommu.hide(authority, dma, bytes);
    debug_assert_eq!(hidden, Ok(()), "shown a moment ago");
    None
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

/// Of what lies in a few pages, for any device. Not inlined, as the above.
///
/// # Safety
/// As for [`unmap`].
#[inline(never)]
unsafe fn unmap_some(
    (device, iommu): (&Device, &Shared),
    (dma, bytes): (DmaAddr, u32),
    flow: Flow,
    name: &'static str,
) -> bool {
    let (kernel, coherency) = (kernel(), device.coherency());
    if is_special(kernel) {
        return false;
    }
    let offset = dma.raw() % PAGE_SIZE;
    let run = (DmaAddr::new(dma.raw() - offset), pages_of(offset, bytes));
    let mut upkeep = None;
    // SAFETY: as in `unmap_page`.
    let authority = unsafe { Authority::claim() };
    let is_hidden = iommu.domain().unmap_at_hand(authority, run, |frame| {
        let first = PhysAddr::new(frame.raw() | offset);
        upkeep = upkeep_of(kernel, coherency, (first, bytes));
        kernel.is_at_hand(first, bytes)
            && upkeep.is_some()
            && !buffers::is_view_of_block(iommu, dma)
    });
    if is_hidden && let Some(Upkeep::Lines(piece)) = upkeep {
        // SAFETY: as above.
        let authority = unsafe { Authority::claim() };
        kernel.take_piece(authority, handover(name, flow), piece);
    }
    is_hidden
}
