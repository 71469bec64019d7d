//! Scatter lists of a device behind an IOMMU: pieces whose seams are those of pages become one run of device addresses, and one segment
//! (S109).
//!
//! ```text
//!   map     each piece on the bus ──▶ as many as are one segment: addresses for all, entries ──▶ told by the next piece
//!   unmap   the device sees the segment no more, after one flush ──▶ each of its pieces is the processor's (S81)
//! ```
//! While a list is mapped, its pieces say where they lie on the bus; what the device is told is written over that, never over a piece
//! whose turn is to come: there are no more segments than pieces.
//!
//! A copy in bounce buffers is a segment of its own: it lies where it lies, and not where its piece does, so that only the tables know.

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PhysAddr};
use kerncore::iommu::{Grant, IovaError, Segment};

use super::Shared;
use super::view::{run_of, type_for};
use crate::debug;
use crate::list::{ListMapError, NO_SEGMENT, Piece, lost, segments};
use crate::streaming::{self, Call, MapError, UnmapError};

/// Pieces that are mapped on the bus, and that the device is to see as one.
struct Open<I> {
    pieces: I,
    /// How many.
    count: u32,
    /// Which of the list the first is.
    index: u32,
    /// Where the first lies on the bus, and how many bytes all have.
    first: PhysAddr,
    bytes: u32,
    /// `None`: nothing is joined to it.
    segment: Option<Segment>,
}

impl<P: Piece, I: Iterator<Item = P> + Clone> Open<I> {
    /// Each piece.
    fn each(&self) -> impl Iterator<Item = P> + Clone {
        self.pieces.clone().take(self.count as usize)
    }

    /// Where each lies on the bus.
    fn on_bus(&self) -> impl Iterator<Item = (PhysAddr, u32)> + Clone {
        self.each().map(|piece| {
            let (bus, bytes) = piece.told();
            (PhysAddr::new(bus.raw()), bytes)
        })
    }
}

/// [`crate::list::map`] of a device behind `iommu`.
///
/// # Safety
/// As for that.
#[cold]
#[inline(never)]
pub(crate) unsafe fn map<P: Piece>(
    call: Call<'_>,
    iommu: &Shared,
    pieces: impl Iterator<Item = P> + Clone,
) -> Result<u32, ListMapError> {
    let limits = call.device.segment_limits();
    let (mut told, mut rest) = (0, pieces.clone());
    let none = PhysAddr::new(0);
    let mut open =
        Open { pieces: pieces.clone(), count: 0, index: 0, first: none, bytes: 0, segment: None };
    let mut room = pieces.clone();
    let mut tell = |open: &Open<_>| {
        let (dma, bytes) = show(call, iommu, open)?;
        if let Some(piece) = room.next() {
            piece.tell(dma, bytes);
            told += 1;
        }
        Ok(())
    };
    let outcome = loop {
        let here = rest.clone();
        let index = open.index + open.count;
        let Some(piece) = rest.next() else {
            break if open.count == 0 { Ok(()) } else { tell(&open) };
        };
        let Some((memory, bytes)) = piece.memory() else {
            break Err(ListMapError::NoMemory { index });
        };
        // SAFETY: by our caller's promise.
        let on_bus = match unsafe { streaming::map_on_bus(call, memory, bytes) } {
            Ok(on_bus) => PhysAddr::new(on_bus.raw()),
            Err(error) => break Err(ListMapError::Piece { index, error }),
        };
        let own =
            (streaming::bus_of(memory) == Some(on_bus)).then_some(Segment::new(on_bus, bytes));
        let joined = open.segment.and_then(|open| own.and(open.joined(on_bus, bytes, limits)));
        if joined.is_none() && open.count != 0 {
            if let Err(error) = tell(&open) {
                // SAFETY: mapped above, and the device was not told.
                lost(1, unsafe { streaming::unmap_on_bus(call, on_bus, bytes) });
                break Err(error);
            }
            open = Open { pieces: here, count: 0, index, first: none, bytes: 0, segment: None };
        }
        piece.tell(DmaAddr::new(on_bus.raw()), bytes);
        if open.count == 0 {
            (open.first, open.segment) = (on_bus, own);
        } else {
            open.segment = joined;
        }
        (open.count, open.bytes) = (open.count + 1, open.bytes + bytes);
    };
    let Err(error) = outcome else {
        room.for_each(|piece| piece.tell(NO_SEGMENT.0, NO_SEGMENT.1));
        return Ok(told);
    };
    for (on_bus, bytes) in open.on_bus() {
        // SAFETY: mapped above, and the device sees nothing of it.
        lost(1, unsafe { streaming::unmap_on_bus(call, on_bus, bytes) });
    }
    // SAFETY: shown to the device above, which was not told.
    unsafe { unmap(call, iommu, pieces.take(open.index as usize), told, lost) };
    Err(error)
}

/// Lets the device see the pieces of `open`: where, and how many bytes.
fn show<P: Piece>(
    call: Call<'_>,
    iommu: &Shared,
    open: &Open<impl Iterator<Item = P> + Clone>,
) -> Result<(DmaAddr, u32), ListMapError> {
    let failed = |error| ListMapError::Piece { index: open.index, error: MapError::Iommu(error) };
    let (offset, bytes) = (open.first.page_offset(), open.bytes);
    let (grant, memory) = (Grant::for_flow(call.flow), type_for(call.device.coherency()));
    let dma =
        iommu.show_runs((open.on_bus().map(run_of), offset), grant, memory).map_err(failed)?;
    if !call.device.mask().reaches(dma, bytes) {
        // SAFETY: nobody knows of it yet.
        let authority = unsafe { Authority::claim() };
        let hidden = iommu.hide(authority, dma, bytes);
        debug_assert_eq!(hidden, Ok(()), "shown above");
        let last = call.device.mask().last();
        return Err(failed(IovaError::OutOfReach { start: dma, last }.into()));
    }
    debug::mapped(&call, dma, bytes);
    Ok((dma, bytes))
}

/// [`crate::list::unmap`] of a device behind `iommu`, of the first `most` segments.
///
/// # Safety
/// As for that.
#[cold]
#[inline(never)]
pub(crate) unsafe fn unmap<P: Piece>(
    call: Call<'_>,
    iommu: &Shared,
    pieces: impl Iterator<Item = P> + Clone,
    most: u32,
    mut ended: impl FnMut(u32, Result<(), UnmapError>),
) {
    let mut rest = pieces.clone();
    for (dma, bytes) in segments(pieces).take(most as usize) {
        let (first, mut count, mut found) = (rest.clone(), 0, 0_u32);
        while found < bytes
            && let Some(piece) = rest.next()
        {
            found = found.saturating_add(piece.memory().map_or(0, |(_, bytes)| bytes));
            count += 1;
        }
        let own = first.take(count as usize);
        // SAFETY: by our caller's promise.
        ended(count, unsafe { end(call, iommu, (dma, bytes), own, (count, found)) });
    }
}

/// Ends the segment of `bytes` at `dma`, whose pieces are `own`: so many, with `found` bytes.
///
/// # Safety
/// As for [`unmap`].
unsafe fn end<P: Piece>(
    call: Call<'_>,
    iommu: &Shared,
    (dma, bytes): (DmaAddr, u32),
    own: impl Iterator<Item = P> + Clone,
    (count, found): (u32, u32),
) -> Result<(), UnmapError> {
    if count == 1 {
        // SAFETY: by our caller's promise.
        return unsafe { streaming::unmap(call, dma, bytes) };
    }
    debug::unmapped(&call, dma, bytes);
    iommu.find(dma, bytes).map_err(UnmapError::Iommu)?;
    let places = own.map(|piece| {
        let (memory, bytes) = piece.memory()?;
        streaming::bus_of(memory).map(|first| (first, bytes))
    });
    let mut at = dma.raw();
    let are_there = found == bytes
        && places.clone().all(|place| {
            place.is_some_and(|(first, bytes)| {
                let here = iommu.on_bus(DmaAddr::new(at)) == Some(first);
                at += bytes;
                here
            })
        });
    if !are_there {
        return Err(UnmapError::OtherPieces { dma, bytes });
    }
    // All of them, while the device still sees it: who has freed one meanwhile finds the others as they were.
    for (first, bytes) in places.clone().flatten() {
        mm::kernel().is_streamable(first, bytes).map_err(UnmapError::Memory)?;
    }
    // SAFETY: our caller promises that the device is done.
    let authority = unsafe { Authority::claim() };
    iommu.hide(authority, dma, bytes).map_err(UnmapError::Iommu)?;
    let mut ended = Ok(());
    for (first, bytes) in places.flatten() {
        // SAFETY: by our caller's promise; the tables said that this is what was mapped, and copies are not joined.
        ended = ended.and(unsafe { streaming::end_in_place(call, first, bytes) });
    }
    ended
}
