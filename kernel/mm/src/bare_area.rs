//! The owner of a bare area: addresses first, pages when they are wanted, other pages later.

extern crate alloc;

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

use arch::machine::Authority;
use kerncore::addr::{PageRange, VirtAddr};
use kerncore::area::AreaFlags;
use kerncore::attributes::Attributes;
use kerncore::frames::Belonging;
use kerncore::kernel_space::{BareError, MapAreaError};
use kerncore::va_space::Request;

use crate::kernel;
use crate::page_alloc::Pages;
use crate::vm_area::{keep_mapped, memory_of};

/// Addresses, and whatever pages are mapped there just now: a slice of those.
///
/// Made, mapped, unmapped and dropped where one may sleep, never in interrupt context (S10, S35).
#[derive(Debug)]
pub struct BareArea {
    pages: PageRange,
    /// Out of reach through their own addresses while they are mapped here.
    mapped: Vec<Pages>,
}

/// Why pages were not mapped; they come back.
#[derive(Debug)]
pub struct MapError {
    /// What went wrong.
    pub reason: MapAreaError,
    /// The pages, as they were; none, if some were mapped and could not be unmapped again.
    pub pages: Vec<Pages>,
}

impl BareArea {
    /// Reserves what `request` asks for, with every second-level table that mapping there can need (S47).
    ///
    /// # Errors
    /// [`BareError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn with_tables(request: Request) -> Result<Self, BareError> {
        let caller = arch::backtrace::return_address();
        let made = kernel().reserve_area_with_tables(request, AreaFlags::NONE, caller)?;
        Ok(Self { pages: made.area.pages, mapped: Vec::new() })
    }

    /// Maps `pages` one after the other from the first address on, as kernel data. Nothing may be mapped there yet.
    ///
    /// # Errors
    /// [`MapError`]; nothing is mapped that was not before.
    pub fn map(&mut self, pages: Vec<Pages>) -> Result<(), MapError> {
        let table = *kernel().zones().table();
        let frames: Vec<Option<Belonging>> = pages
            .iter()
            .flat_map(Pages::frames)
            .map(|frame| Some(table.belonging(frame)))
            .collect();
        let mapped = kernel().map_area(self.address(), frames.into_iter(), Attributes::KERNEL_DATA);
        match mapped {
            Ok(_) => {
                self.mapped = pages;
                Ok(())
            }
            Err(reason) => {
                let pages = match reason {
                    MapAreaError::Map { mapped: 1.., .. } => self.end(pages),
                    _ => pages,
                };
                Err(MapError { reason, pages })
            }
        }
    }

    /// Unmaps what is mapped, and gives the pages back: none, if it could not be unmapped, for then they stay out of reach.
    pub fn unmap(&mut self) -> Vec<Pages> {
        let pages = core::mem::take(&mut self.mapped);
        self.end(pages)
    }

    /// The pages of addresses, without the guard.
    pub const fn pages(&self) -> PageRange {
        self.pages
    }

    /// The first byte's address.
    pub const fn address(&self) -> VirtAddr {
        self.pages.start()
    }

    /// The addresses that pages are mapped at.
    fn memory(&self) -> (*mut u8, usize) {
        let count = self.mapped.iter().map(Pages::count).sum();
        match self.pages.sub_range(0, count) {
            Some(mapped) if count != 0 => memory_of(mapped),
            _ => (NonNull::dangling().as_ptr(), 0),
        }
    }

    /// Unmaps `pages`. What might still be mapped is nobody's any more (S23).
    fn end(&mut self, pages: Vec<Pages>) -> Vec<Pages> {
        // SAFETY: `&mut self` says that no slice of what is mapped lives.
        let authority = unsafe { Authority::claim() };
        match kernel().unmap_area(authority, self.pages) {
            Ok(removal) if removal.left_alone == 0 => return pages,
            Ok(removal) => {
                log::error!("{} entries of a BareArea are not its own", removal.left_alone);
            }
            Err(error) => log::error!("a BareArea could not be unmapped: {error}"),
        }
        keep_mapped(pages);
        Vec::new()
    }
}

impl Deref for BareArea {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = self.memory();
        // SAFETY: the pages are mapped, readable and writable, until they are unmapped by `&mut self`. They are owned by
        // `self.mapped`, each once, which nobody can read or write through while it lies here; `&self` keeps writers out.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl DerefMut for BareArea {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = self.memory();
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

/// Unmaps and flushes, and gives the addresses back; the pages are freed after that, by their own `Drop`,
/// unless they might still be mapped (S23).
impl Drop for BareArea {
    fn drop(&mut self) {
        // SAFETY: the owner is going, so no slice of what is mapped lives.
        let authority = unsafe { Authority::claim() };
        if let Err(error) = kernel().vunmap(authority, self.address()) {
            log::error!("a BareArea could not be removed: {error}");
            keep_mapped(core::mem::take(&mut self.mapped));
        }
    }
}
