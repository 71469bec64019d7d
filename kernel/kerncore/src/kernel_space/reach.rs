//! Reaching frames: at their linear addresses if they have any, else at temporary ones.

use crate::addr::{PageRange, Pfn, VirtAddr};
use crate::frames::FrameBlock;
use crate::kernel_space::KernelSpace;
use crate::kernel_space::vmap::{is_lent, is_not_memory};
use crate::kmap::{Kmap, KmapError, KunmapError, Mapped};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::consecutive;

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// The window of temporary mappings.
    pub const fn temporary(&self) -> &Kmap<M> {
        &self.kmap
    }

    /// Maps `frame`, which must stay in use for as long as it is mapped. Low memory is mapped already. Any context, as deep as
    /// there are slots.
    ///
    /// # Errors
    /// [`KmapError`].
    pub fn kmap(&self, frame: Pfn) -> Result<Mapped<'_, M>, KmapError> {
        let owner = self.zones.table().owner_of(frame);
        if is_not_memory(owner) {
            return Err(KmapError::NotMemory { frame, owner });
        }
        if is_lent(owner) {
            return Err(KmapError::Lent { frame, owner });
        }
        match self.linear.pages_of(frame, 1) {
            Some(page) => Ok(Mapped::linear(page)),
            None => self.kmap.map::<L>(frame),
        }
    }

    /// Calls `act` with the page at which `frame`, which must stay in use, is reached meanwhile: its linear one, or a temporary one, which
    /// there always is: for a step that may not fail. Any context, under no lock behind that of the last temporary address; nor does
    /// `act` take one before that.
    ///
    /// # Errors
    /// [`KmapError::NotMemory`] and [`KmapError::Lent`]; [`KmapError::Exhausted`] only where there is no window at all.
    pub fn reach<R>(&self, frame: Pfn, act: impl FnOnce(PageRange) -> R) -> Result<R, KmapError> {
        let exhausted = match self.kmap(frame) {
            Ok(mapped) => return Ok(act(mapped.page())),
            Err(exhausted @ KmapError::Exhausted { .. }) => exhausted,
            Err(error) => return Err(error),
        };
        self.last_address.with(|()| {
            let mapped = self.kmap.map_in_last(frame).ok_or(exhausted)?;
            Ok(act(mapped.page()))
        })
    }

    /// Ends the temporary mapping that `address` lies in, whose owner gave it up by [`Mapped::keep`].
    ///
    /// # Errors
    /// [`KunmapError`]; nothing has changed.
    pub fn kunmap(&self, _authority: M::Authority, address: VirtAddr) -> Result<(), KunmapError> {
        self.kmap.unmap_at(address)
    }

    /// Fills a block of whatever memory with zeros.
    ///
    /// # Errors
    /// [`KmapError::Exhausted`]: some of it may be filled.
    pub fn zero_block(&self, block: &FrameBlock) -> Result<(), KmapError> {
        let frames = consecutive(block.first(), block.pages());
        self.zero_frames(frames.into_iter().flatten())
    }

    /// Fills frames that are the caller's with zeros.
    ///
    /// # Errors
    /// [`KmapError::Exhausted`]: some may be filled.
    #[inline]
    pub(crate) fn zero_frames(&self, frames: impl Iterator<Item = Pfn>) -> Result<(), KmapError> {
        for frame in frames {
            if let Some(page) = self.linear.pages_of(frame, 1) {
                self.table.machine().zero_pages(page);
            } else {
                let mapped = self.kmap.map::<L>(frame)?;
                self.table.machine().zero_pages(mapped.page());
            }
        }
        Ok(())
    }

    /// Fills `count` frames from `first` with zeros, of low memory that is the caller's. High memory is left as it is.
    #[inline]
    pub(crate) fn zero_low_frames(&self, first: Pfn, count: u32) {
        if let Some(pages) = self.linear.pages_of(first, count) {
            self.table.machine().zero_pages(pages);
        }
    }
}
