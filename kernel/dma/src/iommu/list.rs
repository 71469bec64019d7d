//! Scatter lists of a device behind an IOMMU: pieces whose seams are those of pages become one run of device addresses, and one segment
//! (S109).
//!
//! ```text
//!   map     each piece on the bus ──▶ as many as are one segment: addresses for all, entries ──▶ told by the next piece
//!   unmap   the device sees the segment no more, after one flush ──▶ each of its pieces is the processor's (S81)
//! ```
//! What the device is told is written into the first pieces, never into one whose turn is to come: there are no more segments than
//! pieces. The others are told that there is nothing for them.
//!
//! A copy in bounce buffers is a segment of its own: it lies where it lies, and not where its piece does, so that only the tables know.
//!
//! A list is gone through twice on either way: to check and give each piece, and to write its entry; to compare each piece with its
//! entry, and to take it back ([`super::lender`]).

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::iommu::{Grant, Iova, IovaError, Segment};

use super::lender::Lender;
use super::view::{run_of, type_for};
use super::{Shared, buffers, listed, scattered};
use crate::debug;
use crate::list::{ListMapError, NO_SEGMENT, Piece, Pieces, lost, segments};
use crate::streaming::{self, Call, MapError, UnmapError};

/// Pieces that are mapped on the bus, and that the device is to see as one: by themselves, or in their own places.
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
        let alone = (self.count == 1).then_some((self.first, self.bytes));
        let joined = self.each().take(if alone.is_some() { 0 } else { usize::MAX });
        alone.into_iter().chain(joined.filter_map(place_of))
    }
}

/// Where `piece` lies on the bus by itself, and how many bytes it has.
#[inline(always)]
fn place_of(piece: impl Piece) -> Option<(PhysAddr, u32)> {
    let (memory, bytes) = piece.memory()?;
    streaming::bus_of(memory).map(|first| (first, bytes))
}

/// [`crate::list::map`] of a device behind `iommu`.
///
/// # Safety
/// As for that.
#[cold]
#[inline(never)]
pub(crate) unsafe fn map(
    call: Call<'_>,
    iommu: &Shared,
    pieces: impl Pieces,
) -> Result<u32, ListMapError> {
    let (limits, lender) = (call.device.segment_limits(), Lender::new(call));
    let (mut told, mut rest) = (0, pieces.clone());
    let none = PhysAddr::new(0);
    let mut open =
        Open { pieces: pieces.clone(), count: 0, index: 0, first: none, bytes: 0, segment: None };
    let mut room = pieces.clone();
    let mut tell = |open: &Open<_>| {
        // SAFETY: what is open was given to the device below, by our caller's promise.
        let authority = unsafe { Authority::claim() };
        let (dma, bytes) = show(call, iommu, authority, open)?;
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
        let (on_bus, is_in_place) = match unsafe { lender.give(memory, bytes) } {
            Ok(given) => given,
            Err(error) => break Err(ListMapError::Piece { index, error }),
        };
        let own = is_in_place.then_some(Segment::new(on_bus, bytes));
        let joined = open.segment.and_then(|open| own.and(open.joined(on_bus, bytes, limits)));
        if joined.is_none() && open.count != 0 {
            if let Err(error) = tell(&open) {
                // SAFETY: mapped above, and the device was not told.
                lost(1, unsafe { streaming::unmap_on_bus(call, on_bus, bytes) });
                break Err(error);
            }
            open = Open { pieces: here, count: 0, index, first: none, bytes: 0, segment: None };
        }
        piece.tell(NO_SEGMENT.0, NO_SEGMENT.1);
        if open.count == 0 {
            (open.first, open.segment) = (on_bus, own);
        } else {
            open.segment = joined;
        }
        (open.count, open.bytes) = (open.count + 1, open.bytes + bytes);
        if let Some(segment) = &mut open.segment {
            // SAFETY: as above.
            open.count += unsafe { lender.give_joined(&mut rest, segment, limits) };
            open.bytes = segment.bytes();
        }
    };
    let Err(error) = outcome else { return Ok(told) };
    for (on_bus, bytes) in open.on_bus() {
        // SAFETY: mapped above, and the device sees nothing of it.
        lost(1, unsafe { streaming::unmap_on_bus(call, on_bus, bytes) });
    }
    // SAFETY: shown to the device above, which was not told.
    unsafe { unmap(call, iommu, pieces, told, lost) };
    Err(error)
}

/// Lets the device see the pieces of `open`: where, and how many bytes. The authority is [`Shared::show`]'s.
fn show<P: Piece>(
    call: Call<'_>,
    iommu: &Shared,
    authority: Authority,
    open: &Open<impl Iterator<Item = P> + Clone>,
) -> Result<(DmaAddr, u32), ListMapError> {
    let failed = |error| ListMapError::Piece { index: open.index, error: MapError::Iommu(error) };
    let (first, bytes, offset) = (open.first, open.bytes, open.first.page_offset());
    let (grant, memory) = (Grant::for_flow(call.flow), type_for(call.device.coherency()));
    let (_, pages) = run_of((first, bytes));
    let shown = if open.count == 1 {
        iommu.show(authority, (first, bytes), grant, memory)
    } else if open.count == pages {
        // Each lies in one page, as they are joined where pages end.
        let frames = open.pieces.clone().map(|piece| place_of(piece).map(|(first, _)| first.pfn()));
        iommu.show_pages(authority, (frames, pages, offset), grant, memory)
    } else {
        iommu.show_runs(authority, (open.on_bus().map(run_of), offset), grant, memory)
    };
    let dma = shown.map_err(failed)?;
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
pub(crate) unsafe fn unmap(
    call: Call<'_>,
    iommu: &Shared,
    pieces: impl Pieces,
    most: u32,
    mut ended: impl FnMut(u32, Result<(), UnmapError>),
) {
    let mut rest = pieces.clone();
    for (dma, bytes) in segments(pieces).take(most as usize) {
        let own = rest.clone();
        // Most segments of one piece are seen to be that at a glance.
        let is_first_of_more = bytes > PAGE_SIZE && rest.glance().is_some();
        let first = if is_first_of_more { None } else { rest.next().and_then(Piece::memory) };
        let (count, may_end) = if first.is_some_and(|(_, found)| found >= bytes) {
            (1, Ok(()))
        } else {
            rest = own.clone();
            // SAFETY: by our caller's promise.
            if let Some(count) = unsafe { listed::unmap(&call, iommu, (dma, bytes), &mut rest) } {
                ended(count, Ok(()));
                continue;
            }
            compare(call, iommu, (dma, bytes), &mut rest)
        };
        let result = if count == 1 {
            // SAFETY: by our caller's promise.
            unsafe { streaming::unmap(call, dma, bytes) }
        } else {
            // SAFETY: as above.
            unsafe { end(call, iommu, (dma, bytes), own.take(count as usize), may_end) }
        };
        ended(count, result);
    }
}

/// How many of `pieces`, which are taken out, have the `bytes` that the device sees from `dma` on; and whether they have just as many, are
/// what the tables say of each, and still somebody's. All of them, while the device still sees it: a list that was changed meanwhile stays
/// mapped as it was.
#[inline(always)]
fn compare<P: Piece>(
    call: Call<'_>,
    iommu: &Shared,
    (dma, bytes): (DmaAddr, u32),
    pieces: &mut impl Iterator<Item = P>,
) -> (u32, Result<(), UnmapError>) {
    let (lender, mut seen) = (Lender::new(call), iommu.domain().follow());
    let (mut count, mut found, mut differs) = (0, 0_u32, false);
    let mut may_end = Ok(());
    while found < bytes
        && let Some(piece) = pieces.next()
    {
        count += 1;
        let at = DmaAddr::new(dma.raw().wrapping_add(found));
        let Some((memory, here)) = piece.memory() else {
            differs = true;
            continue;
        };
        found = found.saturating_add(here);
        match streaming::bus_of(memory) {
            Some(first) if seen.at(at) == Some(first) => {
                if let Err(error) = lender.may_end(first, here) {
                    may_end = may_end.and(Err(error));
                }
            }
            _ => differs = true,
        }
    }
    let others = found != bytes || differs;
    (count, if others { Err(iommu.other_pieces(dma, bytes)) } else { may_end })
}

/// The right to what the device sees of the segment of `bytes` at `dma`, if it `may_end`. The authority is [`Shared::claim`]'s.
#[inline(always)]
fn claim(
    iommu: &Shared,
    authority: Authority,
    (dma, bytes): (DmaAddr, u32),
    may_end: Result<(), UnmapError>,
) -> Result<Iova, UnmapError> {
    // What the tables say of the pieces is a buffer's, too, if they name one.
    if buffers::is_view(iommu, dma) {
        return Err(UnmapError::Coherent { dma });
    }
    match may_end {
        Err(UnmapError::Memory(_)) if scattered::is_view(iommu, dma) => {
            Err(UnmapError::Coherent { dma })
        }
        // What was freed meanwhile the device is to see no longer, whatever becomes of the others.
        Ok(()) | Err(UnmapError::Memory(_)) => {
            iommu.claim(authority, dma, bytes).map_err(UnmapError::Iommu)
        }
        Err(error) => Err(error),
    }
}

/// Ends the segment of `bytes` at `dma`, whose pieces are `own`, if it `may_end`.
///
/// # Safety
/// As for [`unmap`].
#[inline(always)]
unsafe fn end<P: Piece>(
    call: Call<'_>,
    iommu: &Shared,
    (dma, bytes): (DmaAddr, u32),
    own: impl Iterator<Item = P> + Clone,
    may_end: Result<(), UnmapError>,
) -> Result<(), UnmapError> {
    // SAFETY: our caller promises that the device is done.
    let authority = unsafe { Authority::claim() };
    let iova = match claim(iommu, authority, (dma, bytes), may_end) {
        Ok(iova) => iova,
        Err(error) => {
            debug::refused(&call, dma, bytes);
            return Err(error);
        }
    };
    debug::unmapped(&call, dma, bytes);
    iommu.hide_all(iova);
    let lender = Lender::new(call);
    let mut ended = may_end;
    if lender.takes_nothing() {
        return ended;
    }
    for (first, bytes) in own.filter_map(place_of) {
        // What is somebody else's by now has lines of his.
        let taken = if may_end.is_ok() { Ok(()) } else { lender.may_end(first, bytes) };
        // SAFETY: by our caller's promise; the tables said that this is what was mapped, and copies are not joined.
        let taken = taken.and_then(|()| unsafe { lender.take(first, bytes) });
        if let Err(error) = taken {
            ended = ended.and(Err(error));
        }
    }
    ended
}
