//! Owners of virtually contiguous memory.
//!
//! ```text
//!   VmArea (vmalloc)                 VmMap (vmap)
//!   ┌──────┬──────┬──────┬───────┐   ┌──────┬──────┬───────┐
//!   │ page │ page │ page │ guard │   │ page │ page │ guard │
//!   └──┬───┴──┬───┴──┬───┴───────┘   └──┬───┴──┬───┴───────┘
//!      ▼      ▼      ▼                  ▼      ▼
//!    frames of its own               pages that it was given, and gives back
//! ```
//!
//! The second is [`crate::mapped_pages::VmMap`]. Both are made and dropped where one may sleep, never in interrupt context (S10, S35). What a handler has done with it frees
//! by [`VmArea::free_later`].

extern crate alloc;

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::slice;

use arch::machine::Authority;
use kerncore::addr::{PageRange, VirtAddr};
use kerncore::frames::FrameRequest;
use kerncore::kernel_space::{Fill, ReallocError, VmallocError, VmallocRequest};

use crate::kernel;
use crate::mapped_pages::{MapPagesError, VmMap};
use crate::page_alloc::Pages;

/// Frees what [`VmArea::free_later`] has queued, and says how many areas that were. Not in interrupt context.
pub fn free_deferred() -> u32 {
    kernel().free_deferred()
}

/// The memory of a mapping of ours.
pub(crate) fn memory_of(pages: PageRange) -> (*mut u8, usize) {
    let start = ptr::with_exposed_provenance_mut(pages.start().raw() as usize);
    (start, pages.bytes() as usize)
}

/// Keeps pages that might still be mapped from being used anew, for good (S23).
#[cold]
pub(crate) fn keep_mapped(pages: Vec<Pages>) {
    pages.into_iter().for_each(core::mem::forget);
}

/// Memory from vmalloc: pages that need not be adjacent, behind addresses that are. A slice of bytes.
#[derive(Debug)]
pub struct VmArea {
    pages: PageRange,
}

impl VmArea {
    /// Memory of at least `bytes`, rounded up to pages, with whatever the frames held before.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn new(bytes: u32) -> Result<Self, VmallocError> {
        Self::filled(bytes, Fill::Uninitialised, arch::backtrace::return_address())
    }

    /// The same, filled with zeros.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    #[inline(never)] // as in `new`
    pub fn zeroed(bytes: u32) -> Result<Self, VmallocError> {
        Self::filled(bytes, Fill::Zeroed, arch::backtrace::return_address())
    }

    /// Memory of the `memory` that is asked for: of a zone, up to an address, on a node (S28, S117).
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    #[inline(never)] // as in `new`
    pub fn of(memory: FrameRequest, bytes: u32, fill: Fill) -> Result<Self, VmallocError> {
        let caller = arch::backtrace::return_address();
        let request = VmallocRequest { memory, ..VmallocRequest::new(bytes, fill, caller) };
        Ok(Self { pages: kernel().vmalloc_with(request)?.pages })
    }

    /// Memory mapped by sections and large pages as far as frames and addresses allow, by small pages otherwise (S90). Its size
    /// stays.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    #[inline(never)] // as in `new`
    pub fn huge(bytes: u32, fill: Fill) -> Result<Self, VmallocError> {
        let caller = arch::backtrace::return_address();
        Ok(Self { pages: kernel().vmalloc_huge(bytes, fill, caller)?.pages })
    }

    pub(crate) fn filled(bytes: u32, fill: Fill, caller: VirtAddr) -> Result<Self, VmallocError> {
        Ok(Self { pages: kernel().vmalloc(bytes, fill, caller)?.pages })
    }

    /// Maps `pages` one after the other, in the order given, as kernel data.
    ///
    /// # Errors
    /// [`MapPagesError`], with the pages.
    #[inline(never)] // as in `new`
    pub fn map(pages: Vec<Pages>) -> Result<VmMap, MapPagesError> {
        VmMap::made(pages, arch::backtrace::return_address())
    }

    /// Makes it at least `bytes` long, rounded up to pages, without copying a byte: what it holds stays, as far as it goes, maybe
    /// at other addresses; what comes on top is filled as said (S86).
    ///
    /// # Errors
    /// [`ReallocError`]; the memory is as it was.
    #[inline(never)] // as in `new`
    pub fn resize(&mut self, bytes: u32, fill: Fill) -> Result<(), ReallocError> {
        let caller = arch::backtrace::return_address();
        // SAFETY: `&mut self` says that no slice of the memory lives.
        let authority = unsafe { Authority::claim() };
        let area = kernel().vrealloc(
            authority,
            self.pages.start(),
            bytes,
            fill,
            FrameRequest::ANY,
            caller,
        )?;
        self.pages = area.pages;
        Ok(())
    }

    /// The pages of addresses, without the guard.
    pub const fn pages(&self) -> PageRange {
        self.pages
    }

    /// The first byte's address.
    pub const fn address(&self) -> VirtAddr {
        self.pages.start()
    }

    /// Frees the memory later: for handlers and wherever interrupts are off (S89). It is freed when a CPU next waits
    /// ([`arch::cpu::wait_until`]), or memory or addresses run short, or [`free_deferred`] is called.
    pub fn free_later(self) {
        // SAFETY: the owner is going, so no slice of its memory lives.
        let authority = unsafe { Authority::claim() };
        if let Err(error) = kernel().vfree_atomic(authority, self.into_address()) {
            log::error!("a VmArea could not be freed: {error}");
        }
    }

    /// Gives the memory up to whoever frees it by its address.
    pub fn into_address(self) -> VirtAddr {
        let address = self.pages.start();
        core::mem::forget(self);
        address
    }
}

impl Deref for VmArea {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = memory_of(self.pages);
        // SAFETY: the area is mapped, readable and writable, until it is dropped, and its frames belong to it alone, so
        // nothing else reaches these bytes; `&self` keeps writers out. The frames hold some bytes, whichever.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl DerefMut for VmArea {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = memory_of(self.pages);
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

/// Unmaps, flushes, frees the frames, and gives back the addresses, in that order.
impl Drop for VmArea {
    fn drop(&mut self) {
        // SAFETY: the owner is going, so no slice of its memory lives.
        let authority = unsafe { Authority::claim() };
        let freed = kernel().vfree(authority, self.pages.start());
        if let Err(error) = freed {
            log::error!("a VmArea could not be freed: {error}");
        }
    }
}
