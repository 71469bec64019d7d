//! Memory that the kernel shares with programs.

use core::ptr;

use arch::machine::Authority;
use kerncore::addr::{PageRange, VirtAddr};
use kerncore::kernel_space::VmallocError;
use kerncore::user::ShowError;

use crate::kernel;
use crate::user::AddressSpace;

/// Memory from vmalloc that programs may see (S31): zeroed, and copied in and out, never borrowed, because a program may write it
/// at any time.
///
/// Made and dropped where one may sleep. Whoever shows it to programs ends their windows before dropping it; otherwise that says
/// so, and the memory stays out of use.
#[derive(Debug)]
pub struct UserArea {
    pages: PageRange,
}

impl UserArea {
    /// Memory of at least `bytes`, rounded up to pages.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn new(bytes: u32) -> Result<Self, VmallocError> {
        let caller = arch::backtrace::return_address();
        Ok(Self { pages: kernel().vmalloc_user(bytes, caller)?.pages })
    }

    /// The first byte's address.
    pub const fn address(&self) -> VirtAddr {
        self.pages.start()
    }

    /// The pages of addresses, without the guard.
    pub const fn pages(&self) -> PageRange {
        self.pages
    }

    /// Shows it, from its page `offset` on, in all of the reserved window of `space` that begins at `start`.
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show(
        &self,
        space: &AddressSpace,
        start: VirtAddr,
        offset: u32,
    ) -> Result<(), ShowError> {
        space.show_vmalloc(start, self.address(), offset)
    }

    /// Copies as much of it as fits into `to`, from its byte `offset` on, and says how much.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> usize {
        let (start, count) = self.part(offset, to.len());
        for (index, byte) in to.iter_mut().take(count).enumerate() {
            // SAFETY: `part` keeps within the area, which is mapped while its owner lives; a volatile access may meet a program's.
            *byte = unsafe { start.wrapping_add(index).read_volatile() };
        }
        count
    }

    /// Copies as much of `from` as fits into it, from its byte `offset` on, and says how much.
    pub fn write(&self, offset: usize, from: &[u8]) -> usize {
        let (start, count) = self.part(offset, from.len());
        for (index, &byte) in from.iter().take(count).enumerate() {
            // SAFETY: as in `read`; nobody has a reference to these bytes.
            unsafe { start.wrapping_add(index).write_volatile(byte) };
        }
        count
    }

    /// The byte at `offset`, and how many of `bytes` from there on lie inside.
    fn part(&self, offset: usize, bytes: usize) -> (*mut u8, usize) {
        let start: *mut u8 = ptr::with_exposed_provenance_mut(self.address().raw() as usize);
        let room = (self.pages.bytes() as usize).saturating_sub(offset);
        (start.wrapping_add(offset), bytes.min(room))
    }
}

impl Drop for UserArea {
    fn drop(&mut self) {
        // SAFETY: the owner is going, and has never given a reference out.
        let authority = unsafe { Authority::claim() };
        if let Err(error) = kernel().vfree(authority, self.address()) {
            log::error!("a UserArea could not be freed: {error}");
        }
    }
}
