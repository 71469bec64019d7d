//! vmalloc: frames that need not be adjacent, behind addresses that are.

use core::fmt;

use crate::addr::{VirtAddr, pages_for};
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping};
use crate::attributes::Attributes;
use crate::frames::{AllocateError, FrameList, FrameOwner};
use crate::kernel_space::KernelSpace;
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::MapError;
use crate::va_space::Request;

/// What fresh memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Whatever the frames held before.
    Uninitialised,
    /// Zeros.
    Zeroed,
}

/// Why vmalloc failed. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmallocError {
    /// A size of zero (S26).
    ZeroSize,
    /// More pages than there is RAM (S26): refused before anything is reserved.
    MoreThanMemory {
        /// Pages asked for.
        wanted: u32,
        /// Pages of RAM.
        total: u32,
    },
    /// No addresses, or no record for them.
    Area(NoArea),
    /// No frames (S28).
    Frames(AllocateError),
    /// The mapping failed (S29).
    Map(MapError),
}

impl fmt::Display for VmallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("a size of zero"),
            Self::MoreThanMemory { wanted, total } => {
                write!(f, "{wanted} pages wanted, RAM has {total}")
            }
            Self::Area(error) => error.fmt(f),
            Self::Frames(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VmallocError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Takes `bytes` of virtually contiguous kernel memory, rounded up to pages (S3), in the name of `caller`. Not in
    /// interrupt context (S10). If memory is short, what waits to be freed is freed first.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmalloc(
        &self,
        bytes: u32,
        fill: Fill,
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmallocError> {
        let pages = pages_for(bytes);
        let total = self.zones.total();
        if pages == 0 {
            return Err(VmallocError::ZeroSize);
        }
        if pages > total {
            return Err(VmallocError::MoreThanMemory { wanted: pages, total });
        }
        let request = Request::of_bytes(bytes);
        let (mut usable, place) =
            self.reserve("vmalloc", |areas| areas.reserve(&request)).map_err(VmallocError::Area)?;
        let list = match self.frames_for(pages) {
            Ok(list) => list,
            Err(error) => {
                self.abandon(usable, place);
                return Err(VmallocError::Frames(error));
            }
        };
        if fill == Fill::Zeroed {
            let frames = list.frames(self.zones.table());
            frames.for_each(|frame| self.table.machine().zero_frames(frame, 1));
        }
        let frames = list.frames(self.zones.table());
        if let Err(error) = self.map(&mut usable, frames, Attributes::KERNEL_DATA) {
            let list = self.unwind(usable, place, &error, list);
            let freed = self.zones.free_list(list);
            debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
            return Err(VmallocError::Map(error));
        }
        let new = NewArea::new(AreaKind::Vmalloc, caller);
        Ok(self.publish(place, Mapping::Frames { usable, list }, new))
    }

    /// As [`KernelSpace::vmalloc`], for memory that programs may see: filled with zeros, and then tagged (S31).
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmalloc_user(&self, bytes: u32, caller: VirtAddr) -> Result<AreaSummary, VmallocError> {
        let mut area = self.vmalloc(bytes, Fill::Zeroed, caller)?;
        area.flags = area.flags.with(AreaFlags::USERMAP);
        self.areas.with(|areas| {
            if let Some(record) = areas.find_mut(area.pages.start()) {
                record.vm.set_flags(area.flags);
            }
        });
        Ok(area)
    }

    #[inline(always)]
    pub(super) fn frames_for(&self, pages: u32) -> Result<FrameList, AllocateError> {
        loop {
            match self.zones.allocate_list(pages, FrameOwner::Vmalloc) {
                Err(_) if self.free_deferred() > 0 => {}
                taken => return taken,
            }
        }
    }
}
