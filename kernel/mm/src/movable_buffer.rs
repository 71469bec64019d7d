//! A buffer whose pages may be moved while nobody looks, and so may be in the contiguous region until that is asked for (S101).
//!
//! ```text
//!   MovableBuffer ──pin(2)────▶ PinnedPage     ┐ the page stays where it is, at its linear address,
//!                 ──pin_mut(2)▶ PinnedPageMut  ┘ until the guard is dropped
//! ```
//! There is no address to be had without a guard. While one lives, a coherent buffer that wants the page is refused, or finds
//! another run. A guard that is forgotten (`core::mem::forget`) keeps its page for good: then the owner, when it goes, keeps the frame
//! from everybody, and says so.

extern crate alloc;

use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};

use kerncore::addr::{PAGE_SIZE, Pfn, VirtAddr};
use kerncore::frames::AllocateError;
use kerncore::kernel_space::MovablePage;
use kerncore::layout::linear_address;

use crate::any_pages::Page;
use crate::kernel;
use crate::reserve::unless_short;

/// Zeroed pages of low memory, reached one by one through guards. May be made, used and dropped in any context.
#[derive(Debug)]
pub struct MovableBuffer {
    pages: Vec<MovablePage>,
}

/// Why there is no buffer. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovableError {
    /// No frame for one of its pages.
    Frames(AllocateError),
    /// No memory of the heap's for what is noted of so many pages.
    Heap {
        /// How many.
        pages: u32,
    },
}

impl fmt::Display for MovableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames(error) => error.fmt(f),
            Self::Heap { pages } => {
                write!(f, "the heap has no memory for a buffer of {pages} pages")
            }
        }
    }
}

impl core::error::Error for MovableError {}

impl MovableBuffer {
    /// A buffer of `pages`.
    ///
    /// # Errors
    /// [`MovableError`]; nothing was taken.
    pub fn new(pages: u32) -> Result<Self, MovableError> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(pages as usize).map_err(|_| MovableError::Heap { pages })?;
        // Dropped on the way, it gives back what it has.
        let mut buffer = Self { pages: memory };
        for _ in 0..pages {
            let take = || kernel().take_movable();
            let page = take().or_else(|error| unless_short(error, take));
            buffer.pages.push(page.map_err(MovableError::Frames)?);
        }
        Ok(buffer)
    }

    /// How many pages.
    pub const fn count(&self) -> usize {
        self.pages.len()
    }

    /// How many of its pages may still be moved: the others have frames of their own.
    pub fn movable(&self) -> usize {
        self.pages.iter().filter(|page| page.may_move()).count()
    }

    /// Keeps page `index` where it is, to be read. `None` if there is none.
    pub fn pin(&self, index: usize) -> Option<PinnedPage<'_>> {
        self.pinned(index).map(|pinned| PinnedPage { pinned })
    }

    /// Keeps page `index` where it is, to be read and written. `None` if there is none.
    pub fn pin_mut(&mut self, index: usize) -> Option<PinnedPageMut<'_>> {
        self.pinned(index).map(|pinned| PinnedPageMut { pinned })
    }

    fn pinned(&self, index: usize) -> Option<Pinned<'_>> {
        let page = self.pages.get(index)?;
        let frame = kernel().pin_movable(page)?;
        let address = linear_address(frame.base()).expect("movable pages are of low memory");
        Some(Pinned { page, frame, address })
    }
}

impl Drop for MovableBuffer {
    fn drop(&mut self) {
        for page in self.pages.drain(..) {
            if let Err(error) = kernel().free_movable(page) {
                log::error!("a page of a movable buffer could not be freed: {error}");
            }
        }
    }
}

/// A page that stays where it is.
struct Pinned<'b> {
    page: &'b MovablePage,
    frame: Pfn,
    address: VirtAddr,
}

impl Pinned<'_> {
    fn memory(&self) -> *mut Page {
        core::ptr::with_exposed_provenance_mut(self.address.raw() as usize)
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        arch::lock::memory_goes(|| Some((self.address, PAGE_SIZE)));
        kernel().unpin_movable(self.page);
    }
}

/// A page of a [`MovableBuffer`] that stays where it is, to be read.
#[must_use = "when it is dropped, the page may be moved"]
pub struct PinnedPage<'b> {
    pinned: Pinned<'b>,
}

/// A page of a [`MovableBuffer`] that stays where it is, to be read and written.
#[must_use = "when it is dropped, the page may be moved"]
pub struct PinnedPageMut<'b> {
    pinned: Pinned<'b>,
}

impl PinnedPage<'_> {
    /// Its frame, for as long as this lives.
    pub const fn frame(&self) -> Pfn {
        self.pinned.frame
    }
}

impl PinnedPageMut<'_> {
    /// Its frame, for as long as this lives.
    pub const fn frame(&self) -> Pfn {
        self.pinned.frame
    }
}

impl Deref for PinnedPage<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the frame is the buffer's until the guard is dropped, for pinned pages are neither moved nor freed, and the linear
        // map has it, for it is not a coherent buffer's. The buffer is borrowed for as long, so that no `PinnedPageMut` of it lives.
        // Any bytes are a `Page`.
        unsafe { &*self.pinned.memory() }
    }
}

impl Deref for PinnedPageMut<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: as in `PinnedPage`; the buffer is borrowed by this one alone.
        unsafe { &*self.pinned.memory() }
    }
}

impl DerefMut for PinnedPageMut<'_> {
    fn deref_mut(&mut self) -> &mut Page {
        // SAFETY: as in `PinnedPage`, and writable; the buffer is borrowed by this guard alone, and `&mut self` makes this the only
        // reference.
        unsafe { &mut *self.pinned.memory() }
    }
}

impl fmt::Debug for PinnedPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedPage").field(&self.frame()).finish()
    }
}

impl fmt::Debug for PinnedPageMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedPageMut").field(&self.frame()).finish()
    }
}
