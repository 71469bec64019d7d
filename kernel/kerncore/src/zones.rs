//! All of RAM: the frame table, and the allocator behind its lock.
//!
//! ```text
//!  first                                                       first + len
//!   ┌────────────┬──────────────────────────────────────────────┐
//!   │ image      │ free frames, in blocks of 2⁰ … 2¹⁰           │
//!   └────────────┴──────────────────────────────────────────────┘
//!        every frame has one record in the frame table
//! ```
//!
//! A zone, as in Linux, is a set of frames under one allocator and one lock. So far there is one.

use crate::addr::{Pfn, PhysAddr};
use crate::failure::Point;
use crate::frames::{
    AllocateError, Census, Frame, FrameAllocator, FrameBlock, FrameList, FrameOwner, FrameTable,
    FreeError, Freed, Unsound,
};
use crate::lock::{Class, Lock, Locks};

/// The frames of RAM, shared by all CPUs.
///
/// Every method may be called from any context; none sleeps. The lock of frames comes after all others of memory.
#[expect(missing_debug_implementations, reason = "a lock shows nothing; see `census`")]
pub struct Zones<'s, L: Locks> {
    table: FrameTable<'s>,
    allocator: L::Lock<FrameAllocator<'s>>,
}

impl<'s, L: Locks> Zones<'s, L> {
    /// Shares `allocator`.
    pub fn new(allocator: FrameAllocator<'s>) -> Self {
        Self { table: allocator.table(), allocator: Lock::new(Class::Frames, allocator) }
    }

    /// The records of all frames.
    pub const fn table(&self) -> &FrameTable<'s> {
        &self.table
    }

    /// How many frames of RAM there are, the image's included.
    pub fn total(&self) -> u32 {
        self.table.len()
    }

    /// How many frames are free.
    pub fn free_pages(&self) -> u32 {
        self.allocator.with(|allocator| allocator.free_pages())
    }

    /// The first byte of RAM that the run of bytes `first ..= last` touches, if it touches RAM (S94).
    pub fn ram_within(&self, first: PhysAddr, last: PhysAddr) -> Option<PhysAddr> {
        let base = self.table.first();
        let end = base.number() + self.table.len();
        let touches = first.pfn().number() < end && last.pfn() >= base;
        touches.then(|| first.max(base.base()))
    }

    /// Takes a block of 2^`order` frames, aligned to its size.
    ///
    /// # Errors
    /// [`AllocateError`].
    pub fn allocate(&self, order: u32, owner: FrameOwner) -> Result<FrameBlock, AllocateError> {
        self.refuse_if_it_fails(1_u32.checked_shl(order).unwrap_or(u32::MAX), owner)?;
        self.allocator.with(|allocator| allocator.allocate(order, owner))
    }

    /// As [`Zones::allocate`], if that takes no more than a look at a front list, for callers that keep no handle: the
    /// record of the first frame. `None` says nothing about memory: ask [`Zones::allocate`].
    #[inline(always)]
    pub fn take_waiting(&self, order: u32, owner: FrameOwner) -> Option<&'s Frame> {
        if L::fails(Point::ShortCut) {
            return None;
        }
        self.allocator.with(|allocator| allocator.take_waiting(order, owner))
    }

    /// Takes exactly `pages` adjacent frames, the first aligned to the next power of two.
    ///
    /// # Errors
    /// [`AllocateError`].
    pub fn allocate_pages(
        &self,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        self.refuse_if_it_fails(pages, owner)?;
        self.allocator.with(|allocator| allocator.allocate_pages(pages, owner))
    }

    /// Takes `pages` frames that need not be adjacent: all or none.
    ///
    /// # Errors
    /// [`AllocateError`].
    pub fn allocate_list(&self, pages: u32, owner: FrameOwner) -> Result<FrameList, AllocateError> {
        self.refuse_if_it_fails(pages, owner)?;
        self.allocator.with(|allocator| allocator.allocate_list(pages, owner))
    }

    /// The refusal of `pages` frames that a test wants.
    #[inline(always)]
    fn refuse_if_it_fails(&self, pages: u32, owner: FrameOwner) -> Result<(), AllocateError> {
        if L::fails(Point::Frames) { Err(self.none_left(pages, owner)) } else { Ok(()) }
    }

    /// What is said when there are no `pages` frames for `owner`.
    pub(crate) fn none_left(&self, pages: u32, owner: FrameOwner) -> AllocateError {
        AllocateError::Exhausted { pages, owner, free: self.free_pages(), largest: None }
    }

    /// Gives a block back.
    ///
    /// # Errors
    /// [`FreeError`] if the frame table disagrees with the handle.
    pub fn free(&self, block: FrameBlock) -> Result<(), FreeError> {
        self.allocator.with(|allocator| allocator.free(block))
    }

    /// Gives a list back.
    ///
    /// # Errors
    /// [`FreeError`] if the frame table disagrees with the list.
    pub fn free_list(&self, list: FrameList) -> Result<(), FreeError> {
        self.allocator.with(|allocator| allocator.free_list(list))
    }

    /// Merges the free blocks that wait on the allocator's front lists.
    pub fn drain(&self) {
        self.allocator.with(FrameAllocator::drain);
    }

    /// Counts the frames of every owner.
    pub fn census(&self) -> Census {
        self.allocator.with(|allocator| allocator.table().census())
    }

    /// Whether the allocator's lists and the frame table agree.
    ///
    /// # Errors
    /// [`Unsound`].
    pub fn check(&self) -> Result<(), Unsound> {
        self.allocator.with(|allocator| allocator.check())
    }

    /// Gives back, by number, what `owner` took with an order: the way of callers that keep no handle.
    ///
    /// # Errors
    /// [`FreeError`]; nothing has changed.
    pub(crate) fn free_at(
        &self,
        frame: Pfn,
        order: u32,
        owner: FrameOwner,
    ) -> Result<(), FreeError> {
        self.allocator.with(|allocator| allocator.free_at(frame, order, owner))
    }

    /// As [`Zones::free_at`], of the frame whose record is at the address `record`, if that takes no more than putting it on
    /// a front list. Otherwise nothing was changed, and [`Zones::free_at`] frees it or says what is wrong.
    #[inline(always)]
    pub(crate) fn give_back(&self, record: usize, order: u32, owner: FrameOwner) -> Freed {
        match self.table.record_at(record) {
            Some(record) => {
                self.allocator.with(|allocator| allocator.give_back(record, order, owner))
            }
            None => Freed::No,
        }
    }

    /// Runs `visit` on the allocator, under its lock.
    pub(crate) fn with_allocator<R>(&self, visit: impl FnOnce(&mut FrameAllocator<'s>) -> R) -> R {
        self.allocator.with(visit)
    }
}
