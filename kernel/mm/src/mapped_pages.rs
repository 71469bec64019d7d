//! The owner of pages that are mapped one after the other: one slice of bytes, whatever frames they lie in.
//!
//! | owner | made by | at addresses |
//! |---|---|---|
//! | [`VmMap`] | [`crate::vm_area::VmArea::map`], as by vmap (S37) | of an area of its own |
//! | [`ShortMap`] | [`ShortMap::new`], as by `vm_map_ram` (S87) | of this CPU's block, for a short while, if they are few |
//!
//! Both are made and dropped where one may sleep, never in interrupt context (S10, S35); dropped on whatever CPU. One that is
//! forgotten keeps its pages for good.

extern crate alloc;

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::slice;

use arch::machine::Authority;
use kerncore::addr::{PageRange, Pfn, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::frames::Frame;
use kerncore::kernel_space::{RemoveError, VmapError};

use crate::kernel;
use crate::page_alloc::Pages;
use crate::vm_area::{keep_mapped, memory_of};

/// Why pages were not mapped; they come back.
pub struct MapPagesError {
    /// What went wrong.
    pub reason: VmapError,
    /// The pages, as they were.
    pub pages: Vec<Pages>,
}

impl fmt::Debug for MapPagesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

/// A way to map pages, and to end that.
pub trait Way {
    /// What its owner is called in messages.
    const OWNER: &'static str;

    /// Maps all frames of `pages`, in their order, as kernel data.
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken.
    fn map(pages: &[Pages], caller: VirtAddr) -> Result<PageRange, VmapError>;

    /// Ends that, and flushes; nobody uses the mapping any more, says the authority.
    ///
    /// # Errors
    /// [`RemoveError`]; some pages might still be mapped.
    fn end(authority: Authority, mapped: PageRange) -> Result<(), RemoveError>;
}

/// By an area of its own.
#[derive(Debug)]
pub enum Whole {}

impl Way for Whole {
    const OWNER: &'static str = "VmMap";

    fn map(pages: &[Pages], caller: VirtAddr) -> Result<PageRange, VmapError> {
        let frames: Vec<Pfn> = pages.iter().flat_map(Pages::frames).collect();
        Ok(kernel().vmap(&frames, Attributes::KERNEL_DATA, caller)?.pages)
    }

    fn end(authority: Authority, mapped: PageRange) -> Result<(), RemoveError> {
        kernel().vunmap(authority, mapped.start())
    }
}

/// Up to [`kerncore::map_ram::LARGEST`] pages at addresses of this CPU's own, by no lock that others take.
#[derive(Debug)]
pub enum Short {}

impl Way for Short {
    const OWNER: &'static str = "ShortMap";

    fn map(pages: &[Pages], caller: VirtAddr) -> Result<PageRange, VmapError> {
        let table = kernel().zones().table();
        let record = |frame| table.frame(frame).map_or(ptr::null(), ptr::from_ref);
        let records: Vec<*const Frame> = pages.iter().flat_map(Pages::frames).map(record).collect();
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let start = kernel().map_ram(&records, caller)?;
        PageRange::new(start, count).ok_or(VmapError::NoPages)
    }

    fn end(authority: Authority, mapped: PageRange) -> Result<(), RemoveError> {
        kernel().unmap_ram(authority, mapped.start(), mapped.count())
    }
}

/// Pages mapped one after the other, by an area of their own.
pub type VmMap = MappedPages<Whole>;

/// The same for a short while.
pub type ShortMap = MappedPages<Short>;

/// Pages mapped one after the other, in one of the ways.
#[derive(Debug)]
pub struct MappedPages<W: Way> {
    mapped: PageRange,
    /// Out of reach through their own addresses while they are mapped here.
    pages: Vec<Pages>,
    way: PhantomData<W>,
}

impl ShortMap {
    /// Maps all of `pages`, in their order.
    ///
    /// # Errors
    /// [`MapPagesError`], with the pages as they were.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn new(pages: Vec<Pages>) -> Result<Self, MapPagesError> {
        Self::made(pages, arch::backtrace::return_address())
    }
}

impl<W: Way> MappedPages<W> {
    pub(crate) fn made(pages: Vec<Pages>, caller: VirtAddr) -> Result<Self, MapPagesError> {
        match W::map(&pages, caller) {
            Ok(mapped) => Ok(Self { mapped, pages, way: PhantomData }),
            Err(reason) => Err(MapPagesError { reason, pages }),
        }
    }

    /// The pages of addresses, without the guard.
    pub const fn pages(&self) -> PageRange {
        self.mapped
    }

    /// The first byte's address.
    pub const fn address(&self) -> VirtAddr {
        self.mapped.start()
    }

    /// Ends the mapping and gives the pages back: none, if it could not be ended, for then they stay out of reach.
    pub fn unmap(mut self) -> Vec<Pages> {
        let pages = self.end();
        core::mem::forget(self);
        pages
    }

    /// Ends the mapping. What might still be mapped is nobody's any more (S23).
    fn end(&mut self) -> Vec<Pages> {
        let pages = core::mem::take(&mut self.pages);
        // SAFETY: the owner is going, so no slice of its memory lives.
        let authority = unsafe { Authority::claim() };
        match W::end(authority, self.mapped) {
            Ok(()) => pages,
            Err(error) => {
                log::error!("a {} could not be unmapped: {error}", W::OWNER);
                keep_mapped(pages);
                Vec::new()
            }
        }
    }
}

impl<W: Way> Deref for MappedPages<W> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = memory_of(self.mapped);
        // SAFETY: the pages are mapped, readable and writable, until this is dropped. They are owned by `self.pages`, each
        // once, which nobody can read or write through while it lies here; `&self` keeps writers out.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl<W: Way> DerefMut for MappedPages<W> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = memory_of(self.mapped);
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

/// Unmaps and flushes; the pages are freed after that.
impl<W: Way> Drop for MappedPages<W> {
    fn drop(&mut self) {
        drop(self.end());
    }
}
