//! Owners of page frames, reached through the linear map.

use core::ops::{Deref, DerefMut};
use core::ptr;
use core::slice;

use kerncore::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use kerncore::frames::{AllocateError, FrameBlock, FrameOwner};
use kerncore::layout::linear_address;

use crate::kernel;
use crate::reserve::unless_short;

/// Adjacent page frames: a slice of bytes, aligned to its size rounded up to a power of two. They hold whatever they
/// held before.
///
/// May be taken and dropped in any context.
#[derive(Debug)]
pub struct Pages {
    block: Option<FrameBlock>,
    address: VirtAddr,
    first: Pfn,
    count: u32,
}

impl Pages {
    /// Takes 2^`order` frames.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    pub fn new(order: u32) -> Result<Self, AllocateError> {
        let take = || kernel().zones().allocate(order, FrameOwner::Pages);
        Ok(Self::owned(take().or_else(|error| unless_short(error, take))?))
    }

    /// Takes exactly `pages` frames.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    pub fn exactly(pages: u32) -> Result<Self, AllocateError> {
        let take = || kernel().zones().allocate_pages(pages, FrameOwner::Pages);
        Ok(Self::owned(take().or_else(|error| unless_short(error, take))?))
    }

    fn owned(block: FrameBlock) -> Self {
        let (first, count) = (block.first(), block.pages());
        // Nothing else was asked for, so this cannot be out of the linear map's reach.
        let address = linear_address(first.base()).expect("low memory was asked for");
        Self { block: Some(block), address, first, count }
    }

    /// The first frame.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// The physical address of the first byte.
    pub const fn physical(&self) -> PhysAddr {
        self.first.base()
    }

    /// The linear address of the first byte.
    pub const fn address(&self) -> VirtAddr {
        self.address
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

    fn memory(&self) -> (*mut u8, usize) {
        let start = ptr::with_exposed_provenance_mut(self.address.raw() as usize);
        (start, (self.count * PAGE_SIZE) as usize)
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = self.memory();
        // SAFETY: frames in use by an owner are mapped in the linear map, readable and writable, and this block belongs to
        // `self` alone; `&self` keeps writers out.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = self.memory();
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        arch::lock::memory_goes(|| Some((self.address, self.count * PAGE_SIZE)));
        if let Some(block) = self.block.take()
            && let Err(error) = kernel().zones().free(block)
        {
            log::error!("pages could not be freed: {error}");
        }
    }
}
