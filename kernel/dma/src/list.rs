//! Scatter lists, mapped for a device as a whole (S105, S109).
//!
//! ```text
//!   on the bus        piece  piece  piece      behind an IOMMU     piece  piece  piece
//!                       │      │      │                              └──┬──┘      │
//!   what it is told   there  there  there                             there     there      (`crate::iommu::list`)
//! ```
//! The pieces are whoever's who has the list, and say where they lie; where the device sees them is written into the first of them,
//! one to each of its segments. Nothing here asks the heap for memory.

use core::fmt;

use kerncore::addr::DmaAddr;

use crate::iommu;
use crate::streaming::{self, Call, MAPPING_ERROR, MapError, Memory, UnmapError};

/// A piece of a list, and the place where it says what the device is told.
pub trait Piece: Copy {
    /// Where it lies, and how many bytes it has; `None` if it names no memory.
    fn memory(self) -> Option<(Memory, u32)>;

    /// The address of the record of its page, if it is all of one. `None` says nothing.
    fn whole_page(self) -> Option<usize>;

    /// What was told last: where the device sees a segment, and how many bytes.
    fn told(self) -> (DmaAddr, u32);

    /// Notes what the device is told.
    fn tell(self, dma: DmaAddr, bytes: u32);
}

/// The pieces of a list, one behind the other.
pub trait Pieces: Iterator<Item: Piece> + Clone {
    /// Where the record of the next piece's page may begin, if it is all of one. Most are; of the others this says nothing.
    #[inline(always)]
    fn glance(&self) -> Option<usize> {
        None
    }

    /// The next piece, of which [`Pieces::glance`] says something, by less than [`Iterator::next`]. If that says nothing, this may give
    /// nothing, and then none is taken out.
    #[inline(always)]
    fn step(&mut self) -> Option<Self::Item> {
        self.next()
    }
}

/// What a piece is told for which the device has no segment: the list has fewer of them than pieces.
pub(crate) const NO_SEGMENT: (DmaAddr, u32) = (MAPPING_ERROR, 0);

/// Why a list was not mapped. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListMapError {
    /// A piece names no memory.
    NoMemory {
        /// Which, from 0 on.
        index: u32,
    },
    /// A piece cannot be mapped, or the device not see it.
    Piece {
        /// Which, from 0 on: the first of those that it would see as one.
        index: u32,
        /// Why.
        error: MapError,
    },
}

impl ListMapError {
    /// The piece, from 0 on.
    pub const fn index(&self) -> u32 {
        match *self {
            Self::NoMemory { index } | Self::Piece { index, .. } => index,
        }
    }
}

impl fmt::Display for ListMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory { .. } => f.write_str("it names no memory"),
            Self::Piece { error, .. } => error.fmt(f),
        }
    }
}

impl core::error::Error for ListMapError {}

/// Maps all of `pieces` for the device, or none: in how many segments it sees them, each told by one of the first pieces. Any context.
///
/// # Errors
/// [`ListMapError`].
///
/// # Safety
/// As for [`streaming::map`], of each piece. The iterator gives the same pieces each time, and if it says how many there are at most, then
/// one less with each, or none.
pub unsafe fn map(call: Call<'_>, pieces: impl Pieces) -> Result<u32, ListMapError> {
    if let Some(iommu) = call.device.iommu() {
        // SAFETY: by our caller's promise.
        if let Some(told) = unsafe { map_only(&call, pieces.clone()) } {
            return Ok(told);
        }
        // SAFETY: as above.
        if let Some(told) = unsafe { iommu::listed::map(call, iommu, pieces.clone()) } {
            return Ok(told);
        }
        // SAFETY: as above.
        return unsafe { iommu::list::map(call, iommu, pieces) };
    }
    let mut index = 0;
    for piece in pieces.clone() {
        let mapped = match piece.memory() {
            // SAFETY: by our caller's promise.
            Some((memory, bytes)) => unsafe { streaming::map(call, memory, bytes) }
                .map(|dma| piece.tell(dma, bytes))
                .map_err(|error| ListMapError::Piece { index, error }),
            None => Err(ListMapError::NoMemory { index }),
        };
        if let Err(error) = mapped {
            // SAFETY: those were mapped above, and the device was told of none.
            unsafe { end_each(call, pieces.take(index as usize), lost) };
            return Err(error);
        }
        index += 1;
    }
    Ok(index)
}

/// [`map`] of a device behind an IOMMU, if `pieces` are one alone, and it is at hand: one segment.
///
/// # Safety
/// As for [`map`].
#[inline(always)]
unsafe fn map_only<P: Piece>(call: &Call<'_>, mut pieces: impl Iterator<Item = P>) -> Option<u32> {
    let piece = pieces.next()?;
    if pieces.next().is_some() {
        return None;
    }
    let (memory, bytes) = piece.memory()?;
    // SAFETY: by our caller's promise.
    let dma = unsafe { iommu::at_hand::map_soon(call, streaming::bus_of(memory)?, bytes)? };
    piece.tell(dma, bytes);
    Some(1)
}

/// Says of pieces that were mapped a moment ago why they are not taken back: a mistake of this project.
pub(crate) fn lost(pieces: u32, ended: Result<(), UnmapError>) {
    if let Err(error) = ended {
        log::error!("DMA: {pieces} pieces of a list are lost: {error}");
    }
}

/// Ends the mapping of `pieces`. `ended` is told of each segment, in their order: how many of the pieces were in it, and how that
/// went; what fails stays mapped, but for [`UnmapError::Memory`] behind an IOMMU. Any context.
///
/// # Safety
/// [`map`] has mapped these pieces, with the same flow, and told them where; the device is done with them. The memory is as that
/// demands until this returns.
pub unsafe fn unmap(
    call: Call<'_>,
    pieces: impl Pieces,
    mut ended: impl FnMut(u32, Result<(), UnmapError>),
) {
    match call.device.iommu() {
        // SAFETY: by our caller's promise.
        Some(_) if unsafe { unmap_only(&call, pieces.clone()) } => ended(1, Ok(())),
        // SAFETY: by our caller's promise.
        Some(iommu) => unsafe { iommu::list::unmap(call, iommu, pieces, u32::MAX, ended) },
        // SAFETY: as above.
        None => unsafe { end_each(call, pieces, ended) },
    }
}

/// [`unmap`] of a device behind an IOMMU, if `pieces` are one alone, which is one segment, and at hand. Says whether; otherwise nothing has
/// changed.
///
/// # Safety
/// As for [`unmap`].
#[inline(always)]
unsafe fn unmap_only<P: Piece>(call: &Call<'_>, mut pieces: impl Iterator<Item = P>) -> bool {
    let Some(piece) = pieces.next() else { return false };
    let (dma, bytes) = piece.told();
    let is_all = piece.memory().is_some_and(|(_, found)| found >= bytes);
    // SAFETY: by our caller's promise.
    is_all
        && (dma, bytes) != NO_SEGMENT
        && pieces.next().is_none()
        && unsafe { iommu::at_hand::unmap_soon(call, dma, bytes) }
}

/// # Safety
/// As for [`unmap`], on the bus.
unsafe fn end_each<P: Piece>(
    call: Call<'_>,
    pieces: impl Iterator<Item = P>,
    mut ended: impl FnMut(u32, Result<(), UnmapError>),
) {
    for (dma, bytes) in pieces.map(Piece::told) {
        // SAFETY: by our caller's promise.
        ended(1, unsafe { streaming::unmap(call, dma, bytes) });
    }
}

/// What the device was told of `pieces`, which are mapped: where it sees each segment, and how many bytes.
pub fn segments<P: Piece>(pieces: impl Iterator<Item = P>) -> impl Iterator<Item = (DmaAddr, u32)> {
    pieces.map(Piece::told).take_while(|told| *told != NO_SEGMENT)
}
