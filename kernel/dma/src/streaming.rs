//! Ordinary memory, mapped for a device for one transfer (S105).
//!
//! [`map`] and its like are the functions under every name: who calls them promises that nobody uses the memory while it is the
//! device's. [`Streaming`](crate::mapping::Streaming) is the owner that Rust code holds: it has taken the buffer, and there is no way to its bytes but
//! by `unsafe`, which says that the device is done.
//!
//! ```text
//!   buffer ──map──▶ Streaming<direction> ──unsafe sync_for_cpu──▶ Synced (a slice) ──drop──▶ the device's again
//!                          │
//!                          └──unsafe unmap──▶ buffer
//! ```
//! A `Streaming` that is dropped keeps its buffer for good: a device may still be writing there. Buffers that go together are a
//! [`StreamingList`](crate::mapping_list::StreamingList).

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PhysAddr, VirtAddr};
use kerncore::bounce::{Found, GiveBackError, Granule, Loan, Original};
use kerncore::frames::FrameOwner;
use kerncore::iommu::{Iova, IovaError};
use kerncore::kmap::KmapError;
use kerncore::layout::linear_physical;
use kerncore::misuse::Family;
use kerncore::streaming::{self, Bounced, Flow, Handover, Question, Refusal, Route, Step};
use mm::kernel;
use mm::streamable::is_streamable;

use crate::bounce::{self, Way};
use crate::debug;
use crate::device::Device;
pub use crate::iommu::at_hand::{map as map_at_hand, unmap as unmap_at_hand};
pub use crate::iommu::at_hand::{map_at_record, unmap_inlined};
use crate::iommu::{self, Shared, at_hand, buffers, scattered};
use crate::pinning;
pub use crate::streaming_error::{MapError, UnmapError};
pub use crate::streaming_sync::{sync_for_cpu, sync_for_device};

/// What a mapping that failed gives to C callers.
pub const MAPPING_ERROR: DmaAddr = DmaAddr::new(u32::MAX);

/// What is to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// What is at this linear address.
    Linear(VirtAddr),
    /// What is at this address of the kernel's, wherever that may be: a copy is made unless it is linear.
    Anywhere(VirtAddr),
    /// What lies there on the bus; it may be high memory.
    Physical(PhysAddr),
}

/// A call by one of the names.
#[derive(Clone, Copy, Debug)]
pub struct Call<'d> {
    /// Its name, for messages.
    pub name: &'static str,
    /// The device.
    pub device: &'d Device,
    /// Which way data flows.
    pub flow: Flow,
    /// Who called.
    pub caller: VirtAddr,
    /// To which functions it belongs.
    pub family: Family,
}

impl Call<'_> {
    pub(crate) fn handover(&self, step: Step) -> Handover {
        let Self { name, device, flow, .. } = *self;
        Handover { call: name, coherency: device.coherency(), flow, step }
    }
}

/// The last address on the bus that `device` reaches: any, behind an IOMMU.
fn reach(device: &Device) -> PhysAddr {
    if device.iommu().is_some() {
        return PhysAddr::new(u32::MAX);
    }
    device.physical_address(device.mask().last())
}

/// Maps `bytes` of `memory` for the device. Any context.
///
/// # Errors
/// [`MapError`]; nothing was taken.
///
/// # Safety
/// The memory is mapped for as long as this mapping stands, and nobody uses it meanwhile: what the device may write is neither
/// read nor written, what it only reads is not written, but between synchronisations.
pub unsafe fn map(call: Call<'_>, memory: Memory, bytes: u32) -> Result<DmaAddr, MapError> {
    if let Some(first) = bus_of(memory)
        // SAFETY: by our caller's promise.
        && let Some(dma) = unsafe { at_hand::map_soon(&call, first, bytes) }
    {
        return Ok(dma);
    }
    // SAFETY: as above.
    unsafe { map_in_general(call, memory, bytes) }
}

/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn map_in_general(call: Call<'_>, memory: Memory, bytes: u32) -> Result<DmaAddr, MapError> {
    if let Some(iommu) = call.device.iommu() {
        // SAFETY: by our caller's promise.
        return unsafe { iommu::single::map(call, iommu, memory, bytes) };
    }
    // SAFETY: as above.
    let dma = unsafe { map_on_bus(call, memory, bytes)? };
    debug::mapped(&call, dma, bytes);
    Ok(dma)
}

/// [`map`] as far as the bus: no device behind an IOMMU sees it yet.
///
/// # Safety
/// As for [`map`].
#[inline(always)]
pub(crate) unsafe fn map_on_bus(
    call: Call<'_>,
    memory: Memory,
    bytes: u32,
) -> Result<DmaAddr, MapError> {
    pinning::pin(memory, bytes)?;
    // SAFETY: by our caller's promise.
    let mapped = unsafe { map_unchecked(call, memory, bytes) };
    mapped.inspect_err(|_| pinning::unpin(pinning::original_of(memory), bytes))
}

/// Where `memory` lies on the bus, if it is linear or the bus's.
pub(crate) fn bus_of(memory: Memory) -> Option<PhysAddr> {
    match memory {
        Memory::Physical(physical) => Some(physical),
        Memory::Linear(address) | Memory::Anywhere(address) => linear_physical(address),
    }
}

/// # Safety
/// As for [`map`], and what comes is its address on the bus.
unsafe fn map_unchecked(call: Call<'_>, memory: Memory, bytes: u32) -> Result<DmaAddr, MapError> {
    let (original, first) = match memory {
        Memory::Physical(physical) => (Original::Physical(physical), Some(physical)),
        Memory::Linear(address) => {
            let first = linear(address, bytes)
                .ok_or(MapError::NotLinear { address, area: kernel().find_containing(address) })?;
            (Original::Address(address), Some(first))
        }
        Memory::Anywhere(address) => (Original::Address(address), linear(address, bytes)),
    };
    let route = match first {
        Some(first) => match judge(&call, first, bytes) {
            // By an address, a driver may have a constant sent.
            Err(MapError::Memory(KmapError::KernelsOwn {
                owner: FrameOwner::KernelImage, ..
            })) if call.flow == Flow::ToDevice && matches!(original, Original::Address(_)) => {
                Route::Bounce(Bounced::Constant)
            }
            judged => judged?,
        },
        None if bytes == 0 => return Err(MapError::Refused(Refusal::Empty)),
        None => Route::Bounce(Bounced::Scattered),
    };
    match (route, first) {
        (Route::Direct, Some(first)) => {
            // SAFETY: our caller promises that the memory is the device's now.
            let authority = unsafe { Authority::claim() };
            kernel()
                .give_to_device(authority, call.handover(Step::Whole), first, bytes)
                .map_err(MapError::Memory)?;
            Ok(call.device.dma_address(first))
        }
        (Route::Direct, None) => unreachable!("what is nowhere on the bus is copied"),
        (Route::Bounce(why), _) => {
            let Call { flow, device, .. } = call;
            // Behind an IOMMU a device sees whole pages, and is to see nobody else's bytes there.
            let granule = if device.iommu().is_some() { Granule::Page } else { Granule::Slot };
            let loan = Loan { original, bytes, flow, device: device.name(), granule };
            // SAFETY: by our caller's promise.
            unsafe { map_copy(call, loan, why) }
        }
    }
}

/// What lies at `address` on the bus, if it and all of `bytes` are linear.
fn linear(address: VirtAddr, bytes: u32) -> Option<PhysAddr> {
    let first = linear_physical(address)?;
    let last = linear_physical(address.checked_add(bytes.max(1) - 1)?)?;
    let frames = last.page_number() - first.page_number() + 1;
    kernel().linear().pages_of(first.pfn(), frames).map(|_| first)
}

fn judge(call: &Call<'_>, first: PhysAddr, bytes: u32) -> Result<Route, MapError> {
    let question = Question {
        first,
        bytes,
        flow: call.flow,
        coherency: call.device.coherency(),
        last: reach(call.device),
        line: kernel().line_bytes(),
    };
    let route = streaming::route(&question).map_err(MapError::Refused)?;
    is_streamable(first, bytes).map_err(MapError::Memory)?;
    Ok(if bounce::is_forced() { Route::Bounce(Bounced::Forced) } else { route })
}

/// # Safety
/// As for [`map`].
unsafe fn map_copy(call: Call<'_>, loan: Loan, why: Bounced) -> Result<DmaAddr, MapError> {
    let taken = bounce::take(loan, reach(call.device));
    let slots = taken.map_err(|error| MapError::Exhausted { why, error })?;
    // SAFETY: our caller's buffer, and slots that were just taken for it.
    let copied = unsafe { bounce::copy(&loan, slots, (0, loan.bytes), Way::In) };
    // SAFETY: the slots are the device's from now on.
    let authority = unsafe { Authority::claim() };
    let handover = call.handover(Step::Whole);
    let given = copied
        .and_then(|()| bounce::wipe_rest(handover, &loan, slots))
        .and_then(|()| kernel().give_to_device(authority, handover, slots, loan.bytes));
    match given {
        Ok(()) => Ok(call.device.dma_address(slots)),
        Err(error) => {
            // They were taken a moment ago, by this call.
            let _loan = bounce::give_back(slots);
            Err(MapError::Memory(error))
        }
    }
}

/// Ends the mapping at `dma`. Any context.
///
/// # Errors
/// [`UnmapError`].
///
/// # Safety
/// What was mapped there was mapped by [`map`], with as many bytes and the same flow, and the device is done with it. The memory is
/// as [`map`] demands until this returns.
pub unsafe fn unmap(call: Call<'_>, dma: DmaAddr, bytes: u32) -> Result<(), UnmapError> {
    // SAFETY: by our caller's promise.
    if unsafe { at_hand::unmap_soon(&call, dma, bytes) } {
        return Ok(());
    }
    // SAFETY: as above.
    unsafe { unmap_in_general(call, dma, bytes) }
}

/// # Safety
/// As for [`unmap`].
#[inline(never)]
unsafe fn unmap_in_general(call: Call<'_>, dma: DmaAddr, bytes: u32) -> Result<(), UnmapError> {
    // SAFETY: our caller promises that the device is done.
    let authority = unsafe { Authority::claim() };
    let (physical, copy, seen) = match may_end(&call, authority, dma, bytes) {
        Ok(found) => found,
        Err(error) => {
            debug::refused(&call, dma, bytes);
            return Err(error);
        }
    };
    debug::unmapped(&call, dma, bytes);
    if let Some((iommu, iova)) = seen {
        iommu.hide_all(iova);
    }
    // SAFETY: by our caller's promise; asked above.
    unsafe { end(call, physical, bytes, copy?) }
}

/// What ends with a mapping: where it lies on the bus, the copy that it is, and what a device behind an IOMMU sees of it. Memory that was freed
/// meanwhile is no copy, and not to be taken back: what a device sees of it ends all the same.
type Ending<'d> = (PhysAddr, Result<Option<Found>, UnmapError>, Option<(&'d Shared, Iova)>);

/// What could refuse an end is asked while the mapping stands. The authority is [`Shared::claim`]'s.
#[inline(always)]
fn may_end<'d>(
    call: &Call<'d>,
    authority: Authority,
    dma: DmaAddr,
    bytes: u32,
) -> Result<Ending<'d>, UnmapError> {
    let (physical, there) = place(call, dma, bytes)?;
    let Some(iommu) = call.device.iommu() else {
        return Ok((physical, Ok(ending(physical, bytes)?), None));
    };
    if there < bytes {
        return Err(iommu.other_pieces(dma, bytes));
    }
    if buffers::is_view(iommu, dma) {
        return Err(UnmapError::Coherent { dma });
    }
    let copy = match ending(physical, bytes) {
        Err(UnmapError::Memory(_)) if scattered::is_view(iommu, dma) => {
            return Err(UnmapError::Coherent { dma });
        }
        Err(error @ UnmapError::Memory(_)) => Err(error),
        copy => Ok(copy?),
    };
    let iova = iommu.claim(authority, dma, bytes).map_err(UnmapError::Iommu)?;
    Ok((physical, copy, Some((iommu, iova))))
}

/// The copy that begins at `physical`, if slots lie there; memory that is no copy is still somebody's.
#[inline(always)]
fn ending(physical: PhysAddr, bytes: u32) -> Result<Option<Found>, UnmapError> {
    match bounce::find(physical).map_err(UnmapError::Bounce)? {
        Some(Found { first, offset: 1.., .. }) => {
            Err(UnmapError::Bounce(GiveBackError::NotAStart { physical, first }))
        }
        None => {
            is_streamable(physical, bytes).map_err(UnmapError::Memory)?;
            Ok(None)
        }
        copy => Ok(copy),
    }
}

/// [`unmap`] of what lies at `physical` on the bus, whether the device sees that or not.
///
/// # Safety
/// As for [`unmap`].
#[inline(always)]
pub(crate) unsafe fn unmap_on_bus(
    call: Call<'_>,
    physical: PhysAddr,
    bytes: u32,
) -> Result<(), UnmapError> {
    let copy = ending(physical, bytes)?;
    // SAFETY: by our caller's promise; asked above.
    unsafe { end(call, physical, bytes, copy) }
}

/// Ends what is no copy, which [`KernelSpace::is_streamable`](kerncore::kernel_space::KernelSpace::is_streamable) has said of it.
///
/// # Safety
/// As for [`unmap`].
#[inline(always)]
pub(crate) unsafe fn end_in_place(
    call: Call<'_>,
    physical: PhysAddr,
    bytes: u32,
) -> Result<(), UnmapError> {
    // SAFETY: our caller promises that the device is done.
    let authority = unsafe { Authority::claim() };
    kernel()
        .take_from_device(authority, call.handover(Step::Whole), physical, bytes)
        .map_err(UnmapError::Memory)?;
    pinning::unpin(Original::Physical(physical), bytes);
    Ok(())
}

/// Ends what lies at `physical`, of which [`ending`] has said that it is `copy`, or none.
///
/// # Safety
/// As for [`unmap`].
#[inline(always)]
unsafe fn end(
    call: Call<'_>,
    physical: PhysAddr,
    bytes: u32,
    copy: Option<Found>,
) -> Result<(), UnmapError> {
    let Some(Found { first, loan, .. }) = copy else {
        // SAFETY: by our caller's promise.
        return unsafe { end_in_place(call, physical, bytes) };
    };
    // SAFETY: our caller promises that the device is done.
    let authority = unsafe { Authority::claim() };
    let handover = call.handover(Step::Whole);
    let mut back = kernel().take_from_device(authority, handover, first, loan.bytes);
    if loan.flow.device_writes() && back.is_ok() {
        // SAFETY: our caller's buffer; the slots were just taken back.
        back = unsafe { bounce::copy(&loan, first, (0, loan.bytes), Way::Out) };
    }
    // Whatever came of that, the device is done, and nobody will name these slots again.
    let loan = bounce::give_back(first).map_err(UnmapError::Bounce)?;
    pinning::unpin(loan.original, loan.bytes);
    back.map_err(UnmapError::Memory)
}

/// Where `dma` is on the bus, if `bytes` from there on can have been mapped; and how many of them lie there in a row.
pub(crate) fn place(
    call: &Call<'_>,
    dma: DmaAddr,
    bytes: u32,
) -> Result<(PhysAddr, u32), UnmapError> {
    if dma == MAPPING_ERROR {
        return Err(UnmapError::MappingError);
    }
    if bytes == 0 {
        return Err(UnmapError::Refused(Refusal::Empty));
    }
    if let Some(iommu) = call.device.iommu() {
        let nothing = UnmapError::Iommu(IovaError::Free { start: dma });
        return iommu.stretch(dma, bytes).ok_or(nothing);
    }
    let first = call.device.physical_address(dma);
    match first.checked_add(bytes - 1) {
        Some(_) => Ok((first, bytes)),
        None => Err(UnmapError::Refused(Refusal::Wraps { first, bytes })),
    }
}
