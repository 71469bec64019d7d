//! Contiguous memory that was set aside at boot, and is lent until somebody asks for it (S101).
//!
//! ```text
//!   cma=   ──▶ frames that no allocator gets ──▶ Region: who has which page
//!                                                  │
//!              buffers: adjacent frames ◀── take ──┤    lent pages in the way are moved out first:
//!                                                  │      program's page  unmap, flush, copy, map the copy
//!              programs' data, pinned buffers ◀────┘      pinned buffer   if no guard lives, copy
//!                                         lend
//! ```
//! Frames of the region stay set aside in the frame table, whoever has them: the allocator refuses to free them. Their owner there
//! is the buffer's or the borrower's, and *reserved* while nobody has them.
//!
//! What is lent is data of programs, whose faults can wait, and pages that are reached through a pinning guard ([`Places`]); never
//! memory of vmalloc, which another CPU or a handler may be touching.
//!
//! Whoever asks waits while pages are moved out, but never for a borrower: a page that cannot be moved now makes the next run be
//! tried, and at last is an error that names it.

mod error;
mod movable;
mod place;
mod region;
#[cfg(test)]
mod tests;

pub use error::{ContiguousError, GiveBackError, Unmovable};
pub use movable::{NoPlace, Place, Places};
pub use place::{LEFT_TO_OTHERS, set_aside};
pub use region::{Borrower, MAX_ALIGNMENT, PageUse, Region, RegionUse, Word};

use crate::addr::Pfn;
use crate::failure::Point;
use crate::frames::{FrameBlock, FrameOwner, FrameTable};
use crate::lock::{Class, Lock, Locks};

/// The contiguous region of a kernel, shared by all CPUs.
#[expect(missing_debug_implementations, reason = "a lock shows nothing; see `usage`")]
pub struct Contiguous<'r, L: Locks> {
    table: FrameTable<'r>,
    first: Pfn,
    pages: u32,
    region: L::Lock<Region<'r>>,
    /// Where movable pages are.
    places: L::Lock<Places<'r>>,
}

impl<'r, L: Locks> Contiguous<'r, L> {
    /// The frames of `table` from `first` on, as many as `region` has pages. They were set aside at boot, and begin a section. As many
    /// movable pages as there are `places` can be lent some at once. `None` if the frames are not all in the table, or begin none.
    pub fn new(
        table: FrameTable<'r>,
        first: Pfn,
        region: Region<'r>,
        places: Places<'r>,
    ) -> Option<Self> {
        let pages = region.pages();
        let inside = first
            .checked_sub(table.first())
            .is_some_and(|start| start.checked_add(pages).is_some_and(|end| end <= table.len()));
        let is_aligned = first.number().is_multiple_of(1 << MAX_ALIGNMENT);
        let region = Lock::new(Class::Contiguous, region);
        let places = Lock::new(Class::MovablePages, places);
        (inside && is_aligned).then_some(Self { table, first, pages, region, places })
    }

    /// The first frame.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// How many frames.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Whether `frame` is one of them. No lock.
    #[inline(always)]
    pub const fn contains(&self, frame: Pfn) -> bool {
        frame.number().wrapping_sub(self.first.number()) < self.pages
    }

    /// How full it is. Looks at every page, under its lock.
    pub fn usage(&self) -> RegionUse {
        self.region.with(|region| region.usage())
    }

    /// Takes `pages` adjacent frames for `owner`, aligned to their order, up to a section. What was lent of them is moved out by
    /// `move_out`, which is told the borrower and the frame, and gives the frame's handle when its contents are elsewhere. It is
    /// called under no lock.
    ///
    /// # Errors
    /// [`ContiguousError`].
    pub fn take(
        &self,
        pages: u32,
        owner: FrameOwner,
        move_out: impl FnMut(Borrower, Pfn) -> Result<FrameBlock, Unmovable>,
    ) -> Result<FrameBlock, ContiguousError> {
        if pages == 0 {
            return Err(ContiguousError::Zero);
        }
        if L::fails(Point::Frames) {
            return Err(ContiguousError::Exhausted { pages, usage: self.usage() });
        }
        match self.region.with(|region| region.take(pages)) {
            Some(first) => Ok(self.hand_out(first, pages, owner)),
            None => self.take_lent(pages, owner, move_out),
        }
    }

    /// As [`Contiguous::take`] of one page that nobody has. `None` says nothing about the region: ask that.
    #[inline(always)]
    pub(crate) fn take_waiting(&self, owner: FrameOwner) -> Option<FrameBlock> {
        if L::fails(Point::ShortCut) {
            return None;
        }
        let page = self.region.with(|region| region.take(1))?;
        Some(self.hand_out(page, 1, owner))
    }

    /// When there is no run that nobody has.
    #[cold]
    #[inline(never)]
    fn take_lent(
        &self,
        pages: u32,
        owner: FrameOwner,
        mut move_out: impl FnMut(Borrower, Pfn) -> Result<FrameBlock, Unmovable>,
    ) -> Result<FrameBlock, ContiguousError> {
        if pages > self.pages {
            return Err(ContiguousError::TooLarge { pages, region: self.pages });
        }
        let (mut from, mut stays) = (0, None);
        while let Some(first) = self.region.with(|region| region.claim(pages, from)) {
            let Err((page, why)) = self.move_all_out(first, pages, &mut move_out) else {
                return Ok(self.hand_out(first, pages, owner));
            };
            let given_up = self.region.with(|region| region.give_back(first, pages));
            debug_assert!(given_up.is_ok(), "claimed above: {given_up:?}");
            stays = stays.or(self.frame(page).map(|frame| (frame, why)));
            if matches!(why, Unmovable::NoMemory(_)) {
                break;
            }
            from = page + 1;
        }
        Err(match stays {
            Some((frame, why)) => ContiguousError::Unmovable { pages, frame, why },
            None => ContiguousError::Exhausted { pages, usage: self.usage() },
        })
    }

    /// Has every page of a claimed run moved out that is lent.
    fn move_all_out(
        &self,
        first: u32,
        pages: u32,
        move_out: &mut impl FnMut(Borrower, Pfn) -> Result<FrameBlock, Unmovable>,
    ) -> Result<(), (u32, Unmovable)> {
        let lent = || self.region.with(|region| region.first_lent(first, pages));
        while let Some((page, borrower)) = lent() {
            let busy = (page, Unmovable::Busy);
            // It is claimed, so that from now on nobody pins it.
            match self.region.with(|region| region.pins(page)) {
                0 => {}
                devices => return Err((page, Unmovable::Mapped { devices })),
            }
            match move_out(borrower, self.frame(page).ok_or(busy)?) {
                Ok(block) => self.take_back(block).map_err(|_foreign| busy)?,
                // Its borrower may have given it back meanwhile.
                Err(why) if lent().is_some_and(|(still, _)| still == page) => {
                    return Err((page, why));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Takes a buffer's memory back.
    ///
    /// # Errors
    /// [`GiveBackError`], with the block.
    pub fn give_back(&self, block: FrameBlock) -> Result<(), (GiveBackError, FrameBlock)> {
        let frame = block.first();
        let Some(first) = self.index_of(frame) else {
            return Err((GiveBackError::Outside { frame }, block));
        };
        let freed = self.region.with(|region| {
            region.give_back(first, block.pages())?;
            self.table.take_home(frame, block.pages());
            Ok(())
        });
        freed.map_err(|page: u32| {
            (GiveBackError::NotHeld { frame: self.frame(page).unwrap_or(frame) }, block)
        })
    }

    /// Lends a frame to `borrower`, in the name of `owner`. `None` if nobody can do without one. Any context.
    pub fn lend(&self, borrower: Borrower, owner: FrameOwner) -> Option<FrameBlock> {
        if L::fails(Point::ShortCut) {
            return None;
        }
        let page = self.region.with(|region| region.lend(borrower))?;
        Some(self.hand_out(page, 1, owner))
    }

    /// Takes a lent frame back from its borrower. Any context.
    ///
    /// # Errors
    /// The block, if it is not one lent frame.
    pub fn take_back(&self, block: FrameBlock) -> Result<(), FrameBlock> {
        match block.pages() {
            1 => self.take_back_frame(block.first()).map_err(|_not_lent| block),
            _ => Err(block),
        }
    }

    /// As [`Contiguous::take_back`], by number: of a borrower that keeps no handle.
    ///
    /// # Errors
    /// What it is, if it is not lent.
    pub(crate) fn take_back_frame(&self, frame: Pfn) -> Result<(), PageUse> {
        let page = self.index_of(frame).ok_or(PageUse::Free)?;
        self.region.with(|region| {
            if region.take_back(page)? {
                self.table.take_home(frame, 1);
            }
            Ok(())
        })
    }

    /// Keeps those of `pages` frames from `first` on that are lent where they are until [`Contiguous::unpin`]: they are mapped for a
    /// device. Frames of others are nobody's to move, and stay anyway. Any context.
    ///
    /// # Errors
    /// A frame that is on its way elsewhere at this moment. Nothing was pinned.
    pub fn pin(&self, first: Pfn, pages: u32) -> Result<(), Pfn> {
        for index in 0..pages {
            let Some(frame) = first.checked_add(index) else { break };
            let Some(page) = self.index_of(frame) else { continue };
            if let Err(PageUse::Claimed | PageUse::Lent) =
                self.region.with(|region| region.pin(page))
            {
                self.unpin(first, index);
                return Err(frame);
            }
        }
        Ok(())
    }

    /// Ends one [`Contiguous::pin`] of the same frames. What its borrower has given back meanwhile is free with that. Any context.
    pub fn unpin(&self, first: Pfn, pages: u32) {
        for frame in (0..pages).map_while(|index| first.checked_add(index)) {
            let Some(page) = self.index_of(frame) else { continue };
            self.region.with(|region| {
                if region.unpin(page) == Ok(true) {
                    self.table.take_home(frame, 1);
                }
            });
        }
    }

    /// The handle of a lent frame, whose borrower kept none and has it no more.
    pub(crate) fn lent_block(&self, frame: Pfn) -> FrameBlock {
        self.table.hand_out(frame, 1, FrameOwner::Reserved)
    }

    /// Runs `act` on the places of movable pages, under their lock. Under it pages are lent.
    pub(crate) fn with_places<R>(&self, act: impl FnOnce(&mut Places<'r>) -> R) -> R {
        self.places.with(act)
    }

    /// How many movable pages are at places of the region, and how many guards of them live.
    pub fn movable_counts(&self) -> (u32, u32) {
        self.places.with(|places| places.counts())
    }

    /// What the books say of `frame`; `None` if it is not the region's.
    pub fn use_of(&self, frame: Pfn) -> Option<PageUse> {
        let page = self.index_of(frame)?;
        self.region.with(|region| region.use_of(page))
    }

    fn hand_out(&self, page: u32, pages: u32, owner: FrameOwner) -> FrameBlock {
        // The region's pages all have frames: `new` saw that.
        self.table.hand_out(self.frame(page).unwrap_or(self.first), pages, owner)
    }

    fn frame(&self, page: u32) -> Option<Pfn> {
        self.first.checked_add(page)
    }

    fn index_of(&self, frame: Pfn) -> Option<u32> {
        frame.checked_sub(self.first).filter(|&page| page < self.pages)
    }
}
