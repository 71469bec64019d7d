//! Owners of memory for code: written first, executed once it is sealed, never both (S30, S112).
//!
//! ```text
//!   ExecArea ── a slice of bytes, never executed ──seal──▶ ExecText ── executed, a slice that nobody writes
//! ```
//!
//! Both are made, sealed and dropped where one may sleep, never in interrupt context (S10, S35).

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::slice;

use arch::machine::Authority;
use kerncore::addr::{PageRange, VirtAddr};
use kerncore::kernel_space::{ExecError, SealError};

use crate::kernel;
use crate::vm_area::memory_of;

/// The addresses of an area of `vmalloc_exec`, which goes with them.
#[derive(Debug)]
struct Owned(PageRange);

/// Unmaps and flushes at once, puts the frames back into the linear map, and frees them.
impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the owner is going, so no slice of its memory lives, and whoever executed it promised not to any more.
        let authority = unsafe { Authority::claim() };
        if let Err(error) = kernel().vfree(authority, self.0.start()) {
            log::error!("memory for code could not be freed: {error}");
        }
    }
}

/// Memory for code that can be written and never executed.
#[derive(Debug)]
pub struct ExecArea(Owned);

/// Code that can be executed and never written.
#[derive(Debug)]
pub struct ExecText(Owned);

/// Why an [`ExecArea`] was not sealed; it comes back.
pub struct SealAreaError {
    /// What was wrong.
    pub error: SealError,
    /// The memory.
    pub area: ExecArea,
}

impl ExecArea {
    /// At least `bytes` of zeroed memory, rounded up to pages.
    ///
    /// # Errors
    /// [`ExecError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn new(bytes: u32) -> Result<Self, ExecError> {
        let caller = arch::backtrace::return_address();
        Ok(Self(Owned(kernel().vmalloc_exec(bytes, caller)?.pages)))
    }

    /// The pages of addresses, without the guard.
    pub const fn pages(&self) -> PageRange {
        self.0.0
    }

    /// Makes it executable, and writable by nobody: what was written is executed, on every CPU.
    ///
    /// # Errors
    /// [`SealAreaError`], with the memory. Nothing does that but another's writing to the tables.
    pub fn seal(self) -> Result<ExecText, SealAreaError> {
        let pages = self.pages();
        // SAFETY: no slice of the memory lives, since `self` came by value.
        let authority = unsafe { Authority::claim() };
        match kernel().seal(authority, pages.start(), pages.count()) {
            Ok(()) => Ok(ExecText(self.0)),
            Err(error) => Err(SealAreaError { error, area: self }),
        }
    }
}

impl Deref for ExecArea {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = memory_of(self.pages());
        // SAFETY: the area is mapped, readable and writable, until it is sealed or dropped, its frames belong to it alone and
        // have no other address; `&self` keeps writers out. The frames were zeroed.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl DerefMut for ExecArea {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = memory_of(self.pages());
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

impl ExecText {
    /// The pages of addresses, without the guard.
    pub const fn pages(&self) -> PageRange {
        self.0.0
    }

    /// The first byte's address. To call it is `unsafe` as every pointer is, and ends before this value does; a CPU that
    /// learned of the address by polling, and not by an interrupt, executes an ISB first.
    pub const fn address(&self) -> VirtAddr {
        self.pages().start()
    }
}

impl Deref for ExecText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = memory_of(self.pages());
        // SAFETY: the area is mapped and readable until it is dropped, and nobody can write it.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl fmt::Debug for SealAreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Display for SealAreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl core::error::Error for SealAreaError {}
