//! The owner of a short-lived mapping of several pages (S87).

extern crate alloc;

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::slice;

use arch::machine::Authority;
use kerncore::addr::{PageRange, VirtAddr};
use kerncore::frames::Frame;
use kerncore::kernel_space::VmapError;

use crate::kernel;
use crate::page_alloc::Pages;
use crate::vm_area::{MapPagesError, keep_mapped, memory_of};

/// Pages mapped one after the other for a short while: as [`crate::vm_area::VmMap`], but up to
/// [`kerncore::map_ram::LARGEST`] pages at addresses of this CPU's own, by no lock that others take.
///
/// Made and dropped where one may sleep, never in interrupt context (S10, S35); dropped on whatever CPU. One that is forgotten
/// keeps its pages for good.
#[derive(Debug)]
pub struct ShortMap {
    mapped: PageRange,
    /// Out of reach through their own addresses while they are mapped here.
    pages: Vec<Pages>,
}

impl ShortMap {
    /// Maps all of `pages`, in their order.
    ///
    /// # Errors
    /// [`MapPagesError`], with the pages as they were.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn new(pages: Vec<Pages>) -> Result<Self, MapPagesError> {
        Self::mapped(pages, arch::backtrace::return_address())
    }

    fn mapped(pages: Vec<Pages>, caller: VirtAddr) -> Result<Self, MapPagesError> {
        let table = kernel().zones().table();
        let record = |frame| table.frame(frame).map_or(ptr::null(), ptr::from_ref);
        let records: Vec<*const Frame> = pages.iter().flat_map(Pages::frames).map(record).collect();
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        match kernel().map_ram(&records, caller) {
            Ok(start) => match PageRange::new(start, count) {
                Some(mapped) => Ok(Self { mapped, pages }),
                None => Err(MapPagesError { reason: VmapError::NoPages, pages }),
            },
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
        let ended = kernel().unmap_ram(authority, self.mapped.start(), self.mapped.count());
        match ended {
            Ok(()) => pages,
            Err(error) => {
                log::error!("a ShortMap could not be unmapped: {error}");
                keep_mapped(pages);
                Vec::new()
            }
        }
    }
}

impl Deref for ShortMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = memory_of(self.mapped);
        // SAFETY: the pages are mapped, readable and writable, until this is dropped. They are owned by `self.pages`, each
        // once, which nobody can read or write through while it lies here; `&self` keeps writers out.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl DerefMut for ShortMap {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = memory_of(self.mapped);
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

/// Unmaps and flushes; the pages are freed after that.
impl Drop for ShortMap {
    fn drop(&mut self) {
        drop(self.end());
    }
}
