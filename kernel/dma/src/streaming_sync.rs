//! Memory that stays mapped, and changes hands for the moment (S105, S106): all of it, or a part.
//!
//! ```text
//!   the device's ──sync_for_cpu──▶ the processor's ──sync_for_device──▶ the device's
//! ```
//! What could refuse is asked before anything changes, also of what an IOMMU has joined: there each stretch that lies on the bus in a row
//! is asked of first. So is what goes on into the mapping behind: it is refused where the ends of mappings are known, of a copy to the byte and
//! behind an IOMMU to the page. On the bus only the checker knows them ([`debug`]).

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::bounce::Found;
use kerncore::streaming::{Flow, Step};
use mm::kernel;
use mm::streamable::is_streamable;

use crate::bounce::{self, Way};
use crate::debug;
use crate::streaming::{Call, UnmapError, place};

/// Makes `bytes` from `dma` on, inside a mapping, the processor's for the moment. Any context.
///
/// # Errors
/// [`UnmapError`].
///
/// # Safety
/// As for [`unmap`](crate::streaming::unmap), of what is mapped there, whose flow is that of the call; whole cache lines change their owner.
pub unsafe fn sync_for_cpu(call: Call<'_>, dma: DmaAddr, bytes: u32) -> Result<(), UnmapError> {
    debug::synced(&call, dma, bytes);
    // SAFETY: by our caller's promise.
    in_place(&call, dma, bytes, |found, stretch| unsafe { take_back(&call, found, stretch) })
}

/// # Safety
/// As for [`sync_for_cpu`], of a stretch that [`ask`] was asked of.
#[inline(always)]
unsafe fn take_back(
    call: &Call<'_>,
    found: Option<Found>,
    (physical, bytes): (PhysAddr, u32),
) -> Result<(), UnmapError> {
    // SAFETY: our caller promises that the device is done.
    let authority = unsafe { Authority::claim() };
    let (from, length) = lines_of(call.flow, physical, bytes);
    kernel()
        .take_from_device(authority, call.handover(Step::Sync), from, length)
        .map_err(UnmapError::Memory)?;
    match found {
        Some(Found { first, loan, offset }) if loan.flow.device_writes() => {
            // SAFETY: our caller's buffer; these bytes of the slots were just taken back.
            unsafe { bounce::copy(&loan, first, (offset, bytes), Way::Out) }
                .map_err(UnmapError::Memory)
        }
        _ => Ok(()),
    }
}

/// Makes `bytes` from `dma` on, inside a mapping, the device's again. Any context.
///
/// What the processor wrote there reaches the device if that reads, and otherwise nobody that could be relied on: a copy is not written
/// over (S106).
///
/// # Errors
/// [`UnmapError`].
///
/// # Safety
/// As for [`map`](crate::streaming::map), of what is mapped there, whose flow is that of the call; whole cache lines change their owner.
pub unsafe fn sync_for_device(call: Call<'_>, dma: DmaAddr, bytes: u32) -> Result<(), UnmapError> {
    debug::synced(&call, dma, bytes);
    // SAFETY: by our caller's promise.
    in_place(&call, dma, bytes, |found, stretch| unsafe { give_again(&call, found, stretch) })
}

/// # Safety
/// As for [`sync_for_device`], of a stretch that [`ask`] was asked of.
#[inline(always)]
unsafe fn give_again(
    call: &Call<'_>,
    found: Option<Found>,
    (physical, bytes): (PhysAddr, u32),
) -> Result<(), UnmapError> {
    // SAFETY: our caller promises that the memory is the device's now.
    let authority = unsafe { Authority::claim() };
    if let Some(Found { first, loan, offset }) = found
        && loan.flow.device_reads()
    {
        // SAFETY: our caller's buffer; these bytes of the slots are the processor's.
        unsafe { bounce::copy(&loan, first, (offset, bytes), Way::In) }
            .map_err(UnmapError::Memory)?;
    }
    let (from, length) = lines_of(call.flow, physical, bytes);
    kernel()
        .give_to_device(authority, call.handover(Step::Sync), from, length)
        .map_err(UnmapError::Memory)
}

/// Whether `bytes` from `physical` on, which the device sees from `dma` on, may change hands: of which copy they are, if of any.
#[inline(always)]
fn ask(dma: DmaAddr, (physical, bytes): (PhysAddr, u32)) -> Result<Option<Found>, UnmapError> {
    let found = bounce::find(physical).map_err(UnmapError::Bounce)?;
    within(found, dma, bytes)?;
    if found.is_none() {
        is_streamable(physical, bytes).map_err(UnmapError::Memory)?;
    }
    Ok(found)
}

/// Does `step` with `bytes` from `dma` on, of which [`ask`] allows all: all at once, but for what an IOMMU joins.
#[inline(always)]
fn in_place(
    call: &Call<'_>,
    dma: DmaAddr,
    bytes: u32,
    step: impl Fn(Option<Found>, (PhysAddr, u32)) -> Result<(), UnmapError>,
) -> Result<(), UnmapError> {
    if bytes > PAGE_SIZE - dma.raw() % PAGE_SIZE {
        in_one_mapping(call, dma, bytes)?;
    }
    let (physical, here) = place(call, dma, bytes)?;
    if here != bytes {
        return in_stretches(call, (dma, bytes), step);
    }
    step(ask(dma, (physical, bytes))?, (physical, bytes))
}

/// Whether `bytes` from `dma` on, in several pages, lie in one mapping, as far as that is known: behind an IOMMU each has its pages alone, and
/// what lies at the next address is somebody else's.
#[cold]
#[inline(never)]
fn in_one_mapping(call: &Call<'_>, dma: DmaAddr, bytes: u32) -> Result<(), UnmapError> {
    // Where nothing is mapped, that is told further on.
    let run = call.device.iommu().and_then(|iommu| iommu.domain().mapping_of(dma));
    let left = run.map_or(u32::MAX, |run| run.bytes() - (dma.raw() - run.start().raw()));
    if bytes > left { Err(UnmapError::Outside { dma, bytes, left }) } else { Ok(()) }
}

/// [`in_place`], stretch by stretch of what lies on the bus in a row. What could refuse is asked of all of them before the first changes
/// hands.
#[cold]
#[inline(never)]
fn in_stretches(
    call: &Call<'_>,
    (dma, bytes): (DmaAddr, u32),
    step: impl Fn(Option<Found>, (PhysAddr, u32)) -> Result<(), UnmapError>,
) -> Result<(), UnmapError> {
    let each = |act: &dyn Fn(Option<Found>, (PhysAddr, u32)) -> Result<(), UnmapError>| {
        let (mut at, mut left) = (dma, bytes);
        while left != 0 {
            let (physical, here) = place(call, at, left)?;
            act(ask(at, (physical, here))?, (physical, here))?;
            // Inside of what is mapped, so no more than all addresses.
            (at, left) = (DmaAddr::new(at.raw().wrapping_add(here)), left - here);
        }
        Ok(())
    };
    each(&|_, _| Ok(()))?;
    each(&step)
}

/// Whether `bytes` from `dma` on lie in what was found there.
fn within(found: Option<Found>, dma: DmaAddr, bytes: u32) -> Result<(), UnmapError> {
    let left = found.map_or(u32::MAX, |found| found.loan.bytes.saturating_sub(found.offset));
    if bytes > left { Err(UnmapError::Outside { dma, bytes, left }) } else { Ok(()) }
}

/// Whole lines around `bytes` from `first`, if the device writes: of what is mapped they belong to nobody else. Of what it only reads its
/// first and last line may hold something else, too, and were not given as a whole either.
fn lines_of(flow: Flow, first: PhysAddr, bytes: u32) -> (PhysAddr, u32) {
    if !flow.device_writes() {
        return (first, bytes);
    }
    let line = kernel().line_bytes();
    let start = first.raw() & !(line - 1);
    // No RAM lies at the top of the bus.
    let end = first.raw().saturating_add(bytes).checked_next_multiple_of(line).unwrap_or(start);
    (PhysAddr::new(start), end - start)
}
