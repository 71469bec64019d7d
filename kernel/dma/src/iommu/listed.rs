//! Lists of whole pages for a device that snoops, where all is at hand: what drivers pass most, as a rule (S105, S109).
//!
//! ```text
//!   map      as many pages as are one segment ──▶ each somebody's, and seen by the device ──▶ told       … of all segments, or of none
//!   unmap    are they what it sees, and still somebody's? ──▶ seen no more
//! ```
//! The first piece of a list may begin inside its page, and the last one end there. It is checked as the general way checks it
//! ([`super::list`]), and what fails any check has changed nothing and goes that way, which has words for it. So does all of it while there
//! is a contiguous region, whose frames must be pinned; while copies are forced; and while mappings are checked.

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::coherent::Coherency;
use kerncore::iommu::{Records, Segment, SegmentLimits};
use mm::kernel;

use super::at_hand::is_special;
use super::view::pages_of;
use super::{Shared, buffers, list};
use crate::bounce;
use crate::list::{NO_SEGMENT, Piece, Pieces, lost};
use crate::streaming::{self, Call};

/// What of a page a piece is.
struct Part {
    /// Where the page's record begins.
    record: usize,
    /// From which byte on, and up to which.
    offset: u32,
    end: u32,
}

/// `None`: it is no memory of one page.
fn part_of(piece: impl Piece) -> Option<Part> {
    let (memory, bytes) = piece.memory()?;
    let first = streaming::bus_of(memory)?;
    let record = kernel().zones().table().pointer_to(first.pfn()) as usize;
    let offset = first.page_offset();
    let end = offset.checked_add(bytes).filter(|&end| bytes != 0 && end <= PAGE_SIZE)?;
    Some(Part { record, offset, end })
}

/// The pieces of one segment on their way to the device: their pages' records.
#[derive(Clone)]
struct Going<I> {
    rest: I,
    /// The pieces that were left before the first.
    whole: usize,
    /// Bytes of the last page that are not the device's.
    cut: u32,
}

impl<I: Pieces> Going<I> {
    /// The record of a page that `piece`, the last that was taken out, has a part of: up to its end if it is the first, or from its
    /// beginning on if it is the last.
    #[cold]
    #[inline(never)]
    fn edge(&mut self, piece: I::Item) -> Option<usize> {
        let Part { record, offset, end } = part_of(piece)?;
        let is_first = most_of(&self.rest)? + 1 == self.whole;
        let is_last = self.rest.clone().next().is_none();
        self.cut = PAGE_SIZE - end;
        ((is_first || offset == 0) && (is_last || end == PAGE_SIZE)).then_some(record)
    }
}

impl<I: Pieces> Records for Going<I> {
    #[inline(always)]
    fn glance(&self) -> Option<usize> {
        self.rest.glance()
    }

    #[inline(always)]
    fn step(&mut self) {
        if let Some(piece) = self.rest.step() {
            piece.tell(NO_SEGMENT.0, NO_SEGMENT.1);
        }
    }

    #[inline(always)]
    fn go_on_from(&mut self, other: Self) {
        self.rest = other.rest;
    }

    fn next(&mut self) -> Option<usize> {
        let piece = self.rest.next()?;
        piece.tell(NO_SEGMENT.0, NO_SEGMENT.1);
        match piece.whole_page() {
            None => self.edge(piece),
            page => page,
        }
    }
}

/// The pieces of one segment on their way back.
#[derive(Clone)]
struct Coming<I> {
    rest: I,
    /// The pieces that were left before the first.
    whole: usize,
    /// How many of them are the segment's.
    pages: u32,
    /// Bytes of the first page before the first piece, and of the last page behind the last.
    before: u32,
    behind: u32,
}

impl<I: Pieces> Coming<I> {
    /// As [`Going::edge`], of the segment.
    #[cold]
    #[inline(never)]
    fn edge(&mut self, piece: I::Item) -> Option<usize> {
        let Part { record, offset, end } = part_of(piece)?;
        let nth = self.whole.checked_sub(most_of(&self.rest)?)?;
        let (is_first, is_last) = (nth == 1, nth == self.pages as usize);
        if is_first {
            self.before = offset;
        }
        if is_last {
            self.behind = PAGE_SIZE - end;
        }
        ((is_first || offset == 0) && (is_last || end == PAGE_SIZE)).then_some(record)
    }
}

impl<I: Pieces> Records for Coming<I> {
    #[inline(always)]
    fn glance(&self) -> Option<usize> {
        self.rest.glance()
    }

    #[inline(always)]
    fn step(&mut self) {
        self.rest.step();
    }

    #[inline(always)]
    fn go_on_from(&mut self, other: Self) {
        self.rest = other.rest;
    }

    fn next(&mut self) -> Option<usize> {
        let piece = self.rest.next()?;
        match piece.whole_page() {
            None => self.edge(piece),
            page => page,
        }
    }
}

/// How many `pieces` there are at most; `None` if nobody knows.
#[inline(always)]
fn most_of(pieces: &impl Pieces) -> Option<usize> {
    pieces.size_hint().1
}

/// Whether all lists of the device of `call` go the general way just now.
#[inline(always)]
fn is_special_for(call: &Call<'_>) -> bool {
    call.device.coherency() != Coherency::Coherent || is_special(kernel())
}

/// [`crate::list::map`] of a device behind `iommu`, if all is at hand: `None` says that the general way is to be gone, and nothing has
/// changed but what the pieces were told.
///
/// # Safety
/// As for that.
#[inline(never)]
pub(crate) unsafe fn map(call: Call<'_>, iommu: &Shared, pieces: impl Pieces) -> Option<u32> {
    if is_special_for(&call) || bounce::is_forced() {
        return None;
    }
    let limits = call.device.segment_limits();
    let (mut rest, mut room, mut told) = (pieces.clone(), pieces.clone(), 0);
    while most_of(&rest)? != 0 {
        // SAFETY: by our caller's promise.
        let shown = unsafe { map_segment(&call, iommu, &mut rest, limits) };
        let (Some((dma, bytes)), Some(piece)) = (shown, room.next()) else {
            if told != 0 {
                // SAFETY: shown to the device above, which was not told.
                unsafe { list::unmap(call, iommu, pieces, told, lost) };
            }
            return None;
        };
        piece.tell(dma, bytes);
        told += 1;
    }
    (told != 0).then_some(told)
}

/// Lets the device see the first of `rest`, as many as are one segment, which are taken out: where, and how many bytes.
///
/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn map_segment<I: Pieces>(
    call: &Call<'_>,
    iommu: &Shared,
    rest: &mut I,
    limits: SegmentLimits,
) -> Option<(DmaAddr, u32)> {
    let whole = most_of(rest)?;
    let offset = match rest.glance() {
        Some(_) => 0,
        None => streaming::bus_of(rest.clone().next()?.memory()?.0)?.page_offset(),
    };
    let most = limits.pages_from(offset);
    let left = u32::try_from(whole).ok()?;
    let pages = if left == most + 1 && fits_in_part(rest, (offset, most), limits) {
        left
    } else {
        left.min(most)
    };
    let mut going = Going { rest: rest.clone(), whole, cut: 0 };
    // SAFETY: our caller promises that the memory is the device's now, and it is somebody's who may lend it.
    let authority = unsafe { Authority::claim() };
    let start = iommu.domain().map_list_at_hand(authority, pages, call.flow, &mut going)?;
    *rest = going.rest;
    let dma = DmaAddr::new(start.raw() | offset);
    let bytes = pages * PAGE_SIZE - offset - going.cut;
    if call.device.mask().reaches(dma, bytes) {
        return Some((dma, bytes));
    }
    // SAFETY: nobody knows of it yet.
    let authority = unsafe { Authority::claim() };
    let hidden = iommu.hide(authority, dma, bytes);
    debug_assert_eq!(hidden, Ok(()), "shown a moment ago");
    None
}

/// Whether the last of `pieces`, of which the first `most` are pages that are as many as one segment has, from `offset` in the first on, is
/// a part of one that fits all the same.
#[cold]
#[inline(never)]
fn fits_in_part(pieces: &impl Pieces, (offset, most): (u32, u32), limits: SegmentLimits) -> bool {
    let pages = Segment::new(PhysAddr::new(offset), most * PAGE_SIZE - offset);
    let last = pieces.clone().nth(most as usize).and_then(part_of);
    last.is_some_and(|Part { offset, end, .. }| {
        pages.joined(PhysAddr::new(offset), end - offset, limits).is_some()
    })
}

/// [`list::unmap`] of the segment of `bytes` at `dma`, which `pieces` begin with, if all is at hand: how many of them it was. Otherwise that
/// is to be asked, and nothing has changed.
///
/// # Safety
/// As for that.
#[inline(never)]
pub(crate) unsafe fn unmap<I: Pieces>(
    call: &Call<'_>,
    iommu: &Shared,
    (dma, bytes): (DmaAddr, u32),
    pieces: &mut I,
) -> Option<u32> {
    if is_special_for(call) {
        return None;
    }
    let before = dma.raw() % PAGE_SIZE;
    let pages = pages_of(before, bytes);
    let behind = before.wrapping_add(bytes).wrapping_neg() % PAGE_SIZE;
    let whole = most_of(pieces)?;
    let mut coming = Coming { rest: pieces.clone(), whole, pages, before: 0, behind: 0 };
    // SAFETY: our caller promises that the device is done, and that nobody else unmaps it.
    let authority = unsafe { Authority::claim() };
    let run = (DmaAddr::new(dma.raw() - before), pages);
    let is_hidden = iommu.domain().unmap_list_at_hand(
        authority,
        run,
        call.flow,
        &mut coming,
        |Coming { before: found, behind: left, .. }| {
            (*found, *left) == (before, behind) && !buffers::is_view_of_block(iommu, dma)
        },
    );
    *pieces = if is_hidden { coming.rest } else { return None };
    Some(pages)
}
