//! Pages that may be moved while nobody looks (S101): from the contiguous region, or, when that has none to lend, of their own.

use crate::addr::Pfn;
use crate::contiguous::{Borrower, Unmovable};
use crate::failure::Point;
use crate::frames::{AllocateError, FrameBlock, FrameOwner};
use crate::kernel_space::{FramesError, KernelSpace};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::user::machine::UserMachine;

/// A page of low memory whose frame is asked for each time that it is used ([`KernelSpace::pin_movable`]).
#[derive(Debug)]
#[must_use = "a dropped page leaks its frame"]
pub struct MovablePage(Where);

#[derive(Debug)]
enum Where {
    /// At this place of the region's: it may be moved.
    Place(u32),
    /// In a frame of its own, for good.
    Own(FrameBlock),
}

impl MovablePage {
    /// Whether its frame may be another at the next time.
    pub const fn may_move(&self) -> bool {
        matches!(self.0, Where::Place(_))
    }
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Takes a zeroed page, in a frame that is lent if there is one. Any context.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    pub fn take_movable(&self) -> Result<MovablePage, AllocateError> {
        if let Some((place, frame)) = self.borrow_movable() {
            self.zero_low_frames(frame, 1);
            // It was pinned until now, so that it was not moved under the zeros.
            let page = MovablePage(Where::Place(place));
            self.unpin_movable(&page);
            return Ok(page);
        }
        let block = self.zones.allocate(0, FrameOwner::Pages)?;
        self.zero_low_frames(block.first(), 1);
        Ok(MovablePage(Where::Own(block)))
    }

    fn borrow_movable(&self) -> Option<(u32, Pfn)> {
        let contiguous = self.contiguous?;
        if L::fails(Point::ShortCut) {
            return None;
        }
        contiguous.with_places(|places| {
            let place = places.vacant()?;
            let block = contiguous.lend(Borrower::Movable { place }, FrameOwner::Pages)?;
            let (frame, _) = block.leak();
            // It was vacant under this very lock.
            places.occupy(place, frame).ok()?;
            Some((place, frame))
        })
    }

    /// The frame of `page`, which stays where it is until [`KernelSpace::unpin_movable`]. Any context.
    pub fn pin_movable(&self, page: &MovablePage) -> Option<Pfn> {
        match (&page.0, self.contiguous) {
            (Where::Own(block), _) => Some(block.first()),
            (Where::Place(place), Some(contiguous)) => {
                contiguous.with_places(|places| places.pin(*place)).ok()
            }
            (Where::Place(_), None) => None,
        }
    }

    /// Ends one [`KernelSpace::pin_movable`]. Any context.
    pub fn unpin_movable(&self, page: &MovablePage) {
        if let (Where::Place(place), Some(contiguous)) = (&page.0, self.contiguous) {
            let unpinned = contiguous.with_places(|places| places.unpin(*place));
            debug_assert!(unpinned.is_ok(), "unpinned more often than pinned");
        }
    }

    /// Gives `page` back. Any context.
    ///
    /// # Errors
    /// [`FramesError`]: a guard of it lives, so that its frame stays out of use, or its frame is not its own.
    pub fn free_movable(&self, page: MovablePage) -> Result<(), FramesError> {
        let (place, contiguous) = match (page.0, self.contiguous) {
            (Where::Own(block), _) => return self.free_block(block),
            (Where::Place(place), Some(contiguous)) => (place, contiguous),
            (Where::Place(_), None) => return Err(FramesError::NotLent),
        };
        let frame = contiguous
            .with_places(|places| places.vacate(place))
            .map_err(|_guards| FramesError::StillMapped)?;
        if contiguous.contains(frame) {
            return contiguous.take_back_frame(frame).map_err(|_use| FramesError::NotLent);
        }
        // It was moved out, into a frame of the allocator's.
        self.zones.free_at(frame, 0, FrameOwner::Pages).map_err(FramesError::Free)
    }
}

impl<M: UserMachine, L: Locks> KernelSpace<'_, M, L> {
    /// Moves the page at `place`, which is in the lent `frame`, to another frame, and gives the lent one's handle. Not in a handler.
    ///
    /// # Errors
    /// [`Unmovable`]: it is pinned, for one; nothing has changed.
    pub fn move_movable(&self, place: u32, frame: Pfn) -> Result<FrameBlock, Unmovable> {
        let contiguous = self.contiguous.ok_or(Unmovable::Busy)?;
        let new = self.zones.allocate(0, FrameOwner::Pages).map_err(Unmovable::NoMemory)?;
        let to = new.first();
        let machine = self.table.machine();
        let moved = contiguous.with_places(|places| {
            places.relocate(place, frame, to, || machine.copy_frame(frame, to))
        });
        match moved {
            Ok(()) => {
                let _its_place_knows = new.leak();
                Ok(contiguous.lent_block(frame))
            }
            Err(why) => {
                self.free_own(new);
                Err(why)
            }
        }
    }
}
