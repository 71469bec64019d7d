//! A region that grows at its top and never shrinks: the global allocator's heap.

use core::fmt;

use crate::attributes::Attributes;
use crate::frames::{AllocateError, FrameOwner};
use crate::kernel_space::KernelSpace;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::MapError;

/// Why a region did not grow. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendError {
    /// No frames.
    Frames(AllocateError),
    /// The region is full, or the mapping failed.
    Map(MapError),
}

impl fmt::Display for ExtendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ExtendError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Puts `pages` fresh frames of `owner` at page `offset` of `region` for good. May be called in any context.
    ///
    /// # Errors
    /// [`ExtendError`]; nothing was taken.
    pub fn extend(
        &self,
        region: &mut OwnedRange,
        offset: u32,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<(), ExtendError> {
        let list = self.zones.allocate_list(pages, owner).map_err(ExtendError::Frames)?;
        let frames = list.frames(self.zones.table());
        let tables = self.tables.source(&self.zones);
        let mapped = self.table.map(region, offset, frames, Attributes::KERNEL_DATA, &tables);
        if let Err(error) = mapped {
            // What was written before the error goes again, and is flushed before its frames go.
            let undone = self.table.unmap_part(region, offset, error.mapped());
            debug_assert!(undone.is_ok() || error.mapped() == 0, "mapped, so inside: {undone:?}");
            let freed = self.zones.free_list(list);
            debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
            return Err(ExtendError::Map(error));
        }
        // The frames stay with the region: the list that named them has done its work.
        list.leak();
        Ok(())
    }
}
