//! vmap: somebody else's frames behind addresses of our own.

use core::fmt;

use crate::addr::{Pfn, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping};
use crate::attributes::{Attributes, MemoryType};
use crate::frames::{Belonging, Frame, FrameOwner, FrameTable};
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::map_ram::{self, write};
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::vmap_large::{FEWEST, may_begin_a_run};
use crate::kernel_space::{KernelSpace, StaticMapping};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{MapError, Slots};

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
    /// The list has a gap where a page should be (S18).
    MissingFrame {
        /// Which one.
        index: u32,
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
    /// The frame is RAM, where registers were asked for (S94).
    Ram {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
    },
    /// The board has the frame mapped for good, in a way that does not go together with this one (S95, S97).
    Static {
        /// The frame.
        frame: Pfn,
        /// How it was to be mapped.
        wanted: Attributes,
        /// What is mapped, and how.
        had: StaticMapping,
    },
    /// No addresses, no record for them, or pages of a device that somebody has mapped otherwise (S97).
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
            Self::MissingFrame { index } => write!(f, "page {index} is missing"),
            Self::NotMemory { frame, owner } => {
                write!(f, "frame {frame} is not memory in use ({owner})")
            }
            Self::MemoryType { frame, owner, wanted } => {
                write!(f, "frame {frame} ({owner}) cannot be mapped as {wanted:?} as well")
            }
            Self::Protection { frame, owner, wanted } => {
                write!(f, "frame {frame} ({owner}) cannot be mapped {wanted} as well")
            }
            Self::Ram { frame, owner } => write!(f, "frame {frame} ({owner}) is RAM"),
            Self::Static { frame, wanted, had } => {
                write!(f, "frame {frame} cannot be mapped {wanted} as well: {had}")
            }
            Self::Area(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VmapError {}

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Maps `frames` in their order, one page each, in the name of `caller` (S37). A frame may be listed twice; no
    /// reference is taken: the frames must outlive the mapping. Not in interrupt context (S10).
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmap(
        &self,
        frames: &[Pfn],
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmapError> {
        let flags = AreaKind::Vmap.flags();
        let table = *self.zones.table();
        let frames = frames.iter().map(move |&frame| Some(table.belonging(frame)));
        self.vmap_flags(frames, attributes, flags, caller)
    }

    /// As [`KernelSpace::vmap`], with `flags` to be found in the descriptor (S37), and for frames that become known
    /// one by one; `None` is a gap (S18). The first that may not be mapped ends it, with what was mapped before
    /// unmapped again.
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken.
    #[inline]
    pub fn vmap_flags<I>(
        &self,
        frames: I,
        attributes: Attributes,
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmapError>
    where
        I: ExactSizeIterator<Item = Option<Belonging>> + Clone,
    {
        let new = NewArea::new(AreaKind::Vmap, caller).flags(flags);
        if frames.len() >= FEWEST {
            let numbers = frames.clone().map(|item| item.map(|item| item.frame));
            if may_begin_a_run(numbers) {
                return self.unless_short(move || self.vmap_run(frames.clone(), attributes, new));
            }
        }
        self.unless_short(move || self.map_borrowed("vmap", frames.clone(), attributes, new))
    }

    /// As [`KernelSpace::vmap_flags`], as kernel data, of the frames whose records begin at `pages`; gives the first address.
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmap_pages(
        &self,
        pages: &[*const Frame],
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<VirtAddr, VmapError> {
        match self.vmap_at_hand(pages, flags, caller) {
            Some(address) => Ok(address),
            None => self.vmap_pages_anyhow(pages, flags, caller),
        }
    }

    /// As [`KernelSpace::vmap_pages`], for whoever has tried [`KernelSpace::vmap_at_hand`].
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmap_pages_anyhow(
        &self,
        pages: &[*const Frame],
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<VirtAddr, VmapError> {
        if pages.len() >= FEWEST && may_begin_a_run(frames_of(pages, self.zones.table())) {
            let table = *self.zones.table();
            let frames = pages.iter().map(move |page| table.belonging_at_record(page.addr()));
            let area = self.vmap_flags(frames, map_ram::ATTRIBUTES, flags, caller)?;
            return Ok(area.pages.start());
        }
        let total = self.zones.total();
        match u32::try_from(pages.len()) {
            // One comparison: there are some, and no more than RAM has.
            Ok(count) if count.wrapping_sub(1) < total => {
                self.unless_short(|| self.show(pages, count, flags, caller))
            }
            Ok(0) => Err(VmapError::NoPages),
            _ => Err(VmapError::MoreThanMemory { wanted: pages.len(), total }),
        }
    }

    /// Maps `pages`, which are `count`, in an area of their own.
    #[inline(always)]
    fn show(
        &self,
        pages: &[*const Frame],
        count: u32,
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<VirtAddr, VmapError> {
        let (mut usable, place) =
            self.reserve("vmap", |areas| areas.reserve_pages(count)).map_err(VmapError::Area)?;
        // As kernel data, and as short-lived mappings are.
        let write = |machine: &M, slots: &mut Slots<'_>, pages: &[*const Frame]| {
            write::write_all(machine, slots, pages, &self.ram)
        };
        let tables = self.tables.source(&self.zones);
        if let Err(error) = self.table.map_records(&mut usable, pages, write, &tables) {
            return Err(self.not_shown(usable, place, pages, error));
        }
        let new = NewArea::new(AreaKind::Vmap, caller).flags(flags);
        Ok(self.publish(place, Mapping::Borrowed { usable }, new).pages.start())
    }

    /// Gives back what could not be mapped.
    #[cold]
    #[inline(never)]
    fn not_shown(
        &self,
        usable: OwnedRange,
        place: AreaPlace<'s>,
        pages: &[*const Frame],
        error: MapError,
    ) -> VmapError {
        self.unwind(usable, place, &error, ());
        match error {
            MapError::MissingFrame { mapped, .. } => {
                let page = pages.get(mapped as usize);
                let item =
                    page.and_then(|page| self.zones.table().belonging_at_record(page.addr()));
                refusal(mapped, item, map_ram::ATTRIBUTES)
            }
            error => VmapError::Map(error),
        }
    }

    /// Maps frames of others in an area of their own.
    #[inline(always)]
    pub(super) fn map_borrowed<I>(
        &self,
        operation: &'static str,
        mut frames: I,
        attributes: Attributes,
        new: NewArea,
    ) -> Result<AreaSummary, VmapError>
    where
        I: ExactSizeIterator<Item = Option<Belonging>> + Clone,
    {
        let total = self.zones.total();
        let pages = match u32::try_from(frames.len()) {
            Ok(0) => return Err(VmapError::NoPages),
            Ok(pages) if pages <= total => pages,
            _ => return Err(VmapError::MoreThanMemory { wanted: frames.len(), total }),
        };
        let (mut usable, place) =
            self.reserve(operation, |areas| areas.reserve_pages(pages)).map_err(VmapError::Area)?;
        let allowed = OwnerSet::allowed_under(attributes);
        // A frame that may not be mapped is a gap to the tables, which stop before it.
        let checked = frames.clone().map(|item| match item {
            Some(Belonging { frame, owner }) if allowed.contains(owner) => Some(frame),
            _ => None,
        });
        if let Err(error) = self.map(&mut usable, checked, attributes) {
            self.unwind(usable, place, &error, ());
            return Err(match error {
                MapError::MissingFrame { mapped, .. } => {
                    refusal(mapped, frames.nth(mapped as usize).flatten(), attributes)
                }
                error => VmapError::Map(error),
            });
        }
        Ok(self.publish(place, Mapping::Borrowed { usable }, new))
    }
}

/// The frames whose records begin at `pages`; `None` for what is no record.
#[inline(always)]
pub(super) fn frames_of<'a>(
    pages: &'a [*const Frame],
    table: &'a FrameTable<'_>,
) -> impl Iterator<Item = Option<Pfn>> + 'a {
    pages.iter().map(|page| table.frame_at_record(page.addr()))
}

/// Why the item at `index` stopped the mapping.
#[cold]
pub(super) fn refusal(index: u32, item: Option<Belonging>, attributes: Attributes) -> VmapError {
    let Some(Belonging { frame, owner }) = item else {
        return VmapError::MissingFrame { index };
    };
    let wanted = attributes.memory();
    if is_not_memory(owner) {
        VmapError::NotMemory { frame, owner }
    } else if is_uncached(owner) || wanted != MemoryType::NormalWriteBack {
        VmapError::MemoryType { frame, owner, wanted }
    } else {
        VmapError::Protection { frame, owner, wanted: attributes }
    }
}

/// Owners of frames, a bit each.
#[derive(Clone, Copy)]
pub(super) struct OwnerSet(u16);

impl OwnerSet {
    const NONE: Self = Self(0);
    /// Memory in use whose linear mapping exists and is of the ordinary type.
    const READABLE: Self = {
        let mut set = 0;
        let mut number = 0;
        while number < FrameOwner::COUNT {
            let owner = FrameOwner::ALL[number];
            if !is_not_memory(owner) && !is_lent(owner) {
                set |= 1 << owner as u32;
            }
            number += 1;
        }
        Self(set)
    };
    /// Of those, what others than the kernel itself may write.
    const WRITABLE: Self = {
        let mut set = Self::READABLE.0;
        let mut number = 0;
        while number < FrameOwner::COUNT {
            let owner = FrameOwner::ALL[number];
            if is_kernels_own(owner) {
                set &= !(1 << owner as u32);
            }
            number += 1;
        }
        Self(set)
    };

    /// Whose frames a device may have for a transfer, the kernel's image aside, of which it may have a part.
    pub(super) const STREAMABLE: Self = Self::WRITABLE;

    /// A bit for each of them, as frames' records are asked.
    pub(super) const fn bits(self) -> u16 {
        self.0
    }

    /// Whose frames may have a second mapping with `attributes`: of the linear map's own type, and no way round the
    /// kernel's own protection.
    #[inline(always)]
    pub(super) const fn allowed_under(attributes: Attributes) -> Self {
        if !matches!(attributes.memory(), MemoryType::NormalWriteBack) || attributes.is_executable()
        {
            Self::NONE
        } else if attributes.is_writable() {
            Self::WRITABLE
        } else {
            Self::READABLE
        }
    }

    #[inline(always)]
    pub(super) const fn contains(self, owner: FrameOwner) -> bool {
        self.0 >> owner as u16 & 1 != 0
    }
}

/// Whether the kernel's safety hangs on who writes these frames: its text, its tables, its books.
pub(super) const fn is_kernels_own(owner: FrameOwner) -> bool {
    matches!(
        owner,
        FrameOwner::KernelImage
            | FrameOwner::FrameTable
            | FrameOwner::PageTable
            | FrameOwner::Slab
            | FrameOwner::VaStorage
    )
}

/// Nothing that anybody has.
pub(super) const fn is_not_memory(owner: FrameOwner) -> bool {
    matches!(owner, FrameOwner::Free | FrameOwner::Absent | FrameOwner::Reserved)
}

/// Mapped uncached, and absent from the linear map.
const fn is_uncached(owner: FrameOwner) -> bool {
    matches!(owner, FrameOwner::Dma | FrameOwner::AtomicPool)
}

/// Mapped uncached or executable, and absent from the linear map.
pub(super) const fn is_lent(owner: FrameOwner) -> bool {
    is_uncached(owner) || matches!(owner, FrameOwner::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which owners' frames a mapping may show: said once more, owner by owner.
    #[test]
    fn whose_frames_may_have_a_second_mapping_s97_s112() {
        use FrameOwner::{
            FrameTable, Heap, KernelImage, PageTable, Pages, Slab, Test, User, VaStorage, Vmalloc,
        };
        let writable = [Heap, Vmalloc, User, Pages, Test];
        let kernels_own = [KernelImage, FrameTable, PageTable, Slab, VaStorage];
        let readable = [&writable[..], &kernels_own].concat();
        let allowed: [(Attributes, &[FrameOwner]); 5] = [
            (Attributes::KERNEL_RODATA, &readable),
            (Attributes::KERNEL_DATA, &writable),
            (Attributes::KERNEL_TEXT, &[]),
            (Attributes::WRITE_COMBINE, &[]),
            (Attributes::DEVICE, &[]),
        ];
        for (attributes, owners) in allowed {
            for owner in FrameOwner::ALL {
                let may = OwnerSet::allowed_under(attributes).contains(owner);
                assert_eq!(may, owners.contains(&owner), "{owner:?} under {attributes:?}");
            }
        }
    }
}
