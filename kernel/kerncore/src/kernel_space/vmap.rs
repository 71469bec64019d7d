//! vmap: somebody else's frames behind addresses of our own.

use core::fmt;

use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping};
use crate::attributes::{Attributes, MemoryType};
use crate::frames::FrameOwner;
use crate::kernel_space::KernelSpace;
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::MapError;
use crate::va_space::Request;

/// Why vmap failed. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmapError {
    /// No pages (S37).
    NoPages,
    /// More pages than there is RAM (S37).
    MoreThanMemory {
        /// Pages given.
        wanted: usize,
        /// Pages of RAM.
        total: u32,
    },
    /// The frame is not RAM, or is free.
    NotMemory {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
    },
    /// The frame has, or is to have, a mapping of another memory type, which the architecture forbids (S97).
    MemoryType {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
        /// The type asked for.
        wanted: MemoryType,
    },
    /// The frame must not have a second view with these rights (S112): an executable one, while the linear map writes it, or a
    /// writable one of what the kernel alone may write.
    Protection {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
        /// What was asked for.
        wanted: Attributes,
    },
    /// No addresses, or no record for them.
    Area(NoArea),
    /// The mapping failed.
    Map(MapError),
}

impl fmt::Display for VmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPages => f.write_str("no pages given"),
            Self::MoreThanMemory { wanted, total } => {
                write!(f, "{wanted} pages given, RAM has {total}")
            }
            Self::NotMemory { frame, owner } => {
                write!(f, "frame {frame} is not memory in use ({owner})")
            }
            Self::MemoryType { frame, owner, wanted } => {
                write!(f, "frame {frame} ({owner}) cannot be mapped as {wanted:?} as well")
            }
            Self::Protection { frame, owner, wanted } => {
                write!(f, "frame {frame} ({owner}) cannot be mapped {wanted} as well")
            }
            Self::Area(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VmapError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Maps `frames` in their order, one page each, in the name of `caller` (S37). A frame may be listed twice; no
    /// reference is taken: the frames must outlive the mapping. May not be called in interrupt context (S10).
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken.
    pub fn vmap(
        &self,
        frames: &[Pfn],
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmapError> {
        self.vmap_flags(frames, attributes, AreaKind::Vmap.flags(), caller)
    }

    /// As [`KernelSpace::vmap`], with `flags` to be found in the descriptor (S37).
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken.
    pub fn vmap_flags(
        &self,
        frames: &[Pfn],
        attributes: Attributes,
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmapError> {
        let total = self.zone.total();
        let pages = match u32::try_from(frames.len()) {
            Ok(0) => return Err(VmapError::NoPages),
            Ok(pages) if pages <= total => pages,
            _ => return Err(VmapError::MoreThanMemory { wanted: frames.len(), total }),
        };
        frames.iter().try_for_each(|&frame| self.agrees(frame, attributes))?;
        let request = Request::of_bytes(pages.saturating_mul(PAGE_SIZE));
        let (mut usable, reserved) = self.reserve(&request).map_err(VmapError::Area)?;
        if let Err(error) = self.map(&mut usable, frames.iter().copied(), attributes) {
            self.unwind(usable, reserved, &error, ());
            return Err(VmapError::Map(error));
        }
        let new = NewArea::new(AreaKind::Vmap, caller).flags(flags);
        Ok(self.publish(reserved, Mapping::Borrowed { usable }, new))
    }

    /// Whether a second mapping of `frame` with these attributes is allowed: memory in use, whose linear mapping
    /// exists and is of the same type, and no way round the kernel's own protection.
    fn agrees(&self, frame: Pfn, attributes: Attributes) -> Result<(), VmapError> {
        let owner = self.zone.table().owner_of(frame);
        let wanted = attributes.memory();
        if matches!(owner, FrameOwner::Free | FrameOwner::Absent | FrameOwner::Reserved) {
            Err(VmapError::NotMemory { frame, owner })
        } else if matches!(owner, FrameOwner::Dma | FrameOwner::AtomicPool)
            || wanted != MemoryType::NormalWriteBack
        {
            Err(VmapError::MemoryType { frame, owner, wanted })
        } else if attributes.is_executable() || attributes.is_writable() && is_kernels_own(owner) {
            Err(VmapError::Protection { frame, owner, wanted: attributes })
        } else {
            Ok(())
        }
    }
}

/// Whether the kernel's safety hangs on who writes these frames: its text, its tables, its books.
const fn is_kernels_own(owner: FrameOwner) -> bool {
    matches!(
        owner,
        FrameOwner::KernelImage
            | FrameOwner::FrameTable
            | FrameOwner::PageTable
            | FrameOwner::Slab
            | FrameOwner::VaStorage
    )
}
