//! Owners of page frames of whatever memory, and what they are reached by: low memory has an address for good, high memory
//! one of its own for as long as a guard lives.
//!
//! ```text
//!   AnyPages ──map(2)──▶ PageRef   ┐ a slot of this CPU, if the memory is high:
//!            ──map_mut─▶ PageMut   ┘ mapped when it is made, unmapped and flushed when it is dropped
//! ```
//! A guard borrows the owner: the memory cannot go while it is mapped, and no slice of it outlives the mapping. A guard that is
//! forgotten (`core::mem::forget`) is never unmapped; then its owner keeps the frames from everybody when it goes, as a `Dying`
//! area would, and says so.
//!
//! May be made, used and dropped in any context, by any CPU.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use arch::machine::CortexA9;
use kerncore::addr::{PAGE_SIZE, PageRange, Pfn};
use kerncore::frames::{AllocateError, FrameBlock, FrameOwner, FrameRequest};
use kerncore::kmap::{KmapError, Mapped};

use crate::kernel;
use crate::reserve::unless_short;
use crate::vm_area::memory_of;

/// A page of bytes.
pub type Page = [u8; PAGE_SIZE as usize];

/// Adjacent frames of whatever memory. They hold whatever they held before.
#[derive(Debug)]
pub struct AnyPages {
    block: Option<FrameBlock>,
    first: Pfn,
    count: u32,
    /// How many of them are at temporary addresses.
    mapped: AtomicU32,
}

/// Why a page was not mapped. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapPageError {
    /// There are not so many.
    NoPage {
        /// The page wanted, counted from zero.
        index: u32,
        /// How many there are.
        pages: u32,
    },
    /// It has no linear address, and no other is free: it is for the caller to give one up or to try later. Nobody waits here,
    /// as handlers map pages, too.
    Address(KmapError),
}

impl fmt::Display for MapPageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPage { index, pages } => write!(f, "there is no page {index} of {pages}"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for MapPageError {}

impl AnyPages {
    /// Takes 2^`order` frames that will do.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    pub fn new(order: u32, request: FrameRequest) -> Result<Self, AllocateError> {
        let take = || kernel().zones().allocate_from(request, order, FrameOwner::Pages);
        let block = take().or_else(|error| unless_short(error, take))?;
        let (first, count) = (block.first(), block.pages());
        Ok(Self { block: Some(block), first, count, mapped: AtomicU32::new(0) })
    }

    /// How many frames.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The frames, in order.
    pub fn frames(&self) -> impl Iterator<Item = Pfn> + use<> {
        let first = self.first;
        (0..self.count).map_while(move |index| first.checked_add(index))
    }

    /// Maps page `index`, to be read.
    ///
    /// # Errors
    /// [`MapPageError`].
    pub fn map(&self, index: u32) -> Result<PageRef<'_>, MapPageError> {
        self.reach(index).map(|reached| PageRef { reached })
    }

    /// Maps page `index`, to be read and written.
    ///
    /// # Errors
    /// [`MapPageError`].
    pub fn map_mut(&mut self, index: u32) -> Result<PageMut<'_>, MapPageError> {
        self.reach(index).map(|reached| PageMut { reached })
    }

    fn reach(&self, index: u32) -> Result<Reached<'_>, MapPageError> {
        let pages = self.count;
        let no_page = MapPageError::NoPage { index, pages };
        let frame = if index < pages { self.first.checked_add(index) } else { None };
        let mapped = kernel().kmap(frame.ok_or(no_page)?).map_err(MapPageError::Address)?;
        if mapped.is_temporary() {
            self.mapped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Reached { mapped: Some(mapped), owner: self })
    }
}

/// Frees the frames, unless one of them is still mapped by a guard that was forgotten: whoever had it next would share it.
impl Drop for AnyPages {
    fn drop(&mut self) {
        let Some(block) = self.block.take() else { return };
        let forgotten = *self.mapped.get_mut();
        if forgotten != 0 {
            let (first, pages) = block.leak();
            log::error!(
                "{pages} frames from {first} stay in use: {forgotten} mappings were forgotten"
            );
            return;
        }
        arch::lock::memory_goes(|| {
            let linear = kernel().linear().pages_of(self.first, self.count)?;
            Some((linear.start(), linear.bytes()))
        });
        if let Err(error) = kernel().zones().free(block) {
            log::error!("pages could not be freed: {error}");
        }
    }
}

/// A page of somebody's that is mapped.
struct Reached<'p> {
    mapped: Option<Mapped<'static, CortexA9>>,
    owner: &'p AnyPages,
}

impl Reached<'_> {
    const fn page(&self) -> PageRange {
        match &self.mapped {
            Some(mapped) => mapped.page(),
            None => PageRange::EMPTY,
        }
    }

    fn memory(&self) -> *mut Page {
        memory_of(self.page()).0.cast()
    }
}

/// 1. Unmaps. 2. Tells the owner.
impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if self.mapped.take().is_some_and(|mapped| mapped.is_temporary()) {
            self.owner.mapped.fetch_sub(1, Ordering::Release);
        }
    }
}

/// A page to be read, until this is dropped.
#[must_use = "dropped, it is unmapped"]
pub struct PageRef<'p> {
    reached: Reached<'p>,
}

/// A page to be read and written, until this is dropped.
#[must_use = "dropped, it is unmapped"]
pub struct PageMut<'p> {
    reached: Reached<'p>,
}

impl PageRef<'_> {
    /// Where it is.
    pub const fn page(&self) -> PageRange {
        self.reached.page()
    }
}

impl PageMut<'_> {
    /// Where it is.
    pub const fn page(&self) -> PageRange {
        self.reached.page()
    }
}

impl Deref for PageRef<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the page is mapped, readable, until `self` is dropped. Its frame belongs to the owner, which is borrowed
        // for as long, so that it is not freed, and no `PageMut` of it lives. Any bytes are a `Page`.
        unsafe { &*self.reached.memory() }
    }
}

impl Deref for PageMut<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: as in `PageRef`; the owner is borrowed by this one alone.
        unsafe { &*self.reached.memory() }
    }
}

impl DerefMut for PageMut<'_> {
    fn deref_mut(&mut self) -> &mut Page {
        // SAFETY: the page is mapped, writable, until `self` is dropped, and the owner is borrowed by this guard alone, so
        // that nothing else reaches the frame; `&mut self` makes this the only reference.
        unsafe { &mut *self.reached.memory() }
    }
}

impl fmt::Debug for PageRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PageRef").field(&self.page()).finish()
    }
}

impl fmt::Debug for PageMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PageMut").field(&self.page()).finish()
    }
}
