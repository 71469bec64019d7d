//! vmalloc: frames that need not be adjacent, behind addresses that are.

use core::fmt;

use crate::addr::{PAGE_SHIFT, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping, PageArray};
use crate::attributes::Attributes;
use crate::frames::{AllocateError, FrameList, FrameOwner, FrameRequest};
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::page_array::{address_of, flags_with};
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::{ArrayError, KernelSpace};
use crate::kmap::KmapError;
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::MapError;

/// What fresh memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Whatever the frames held before.
    Uninitialised,
    /// Zeros.
    Zeroed,
}

/// What vmalloc is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmallocRequest {
    /// Bytes, rounded up to pages (S3).
    pub bytes: u32,
    /// What the memory holds.
    pub fill: Fill,
    /// Which frames will do.
    pub memory: FrameRequest,
    /// How it may be used.
    pub rights: Rights,
    /// Who asks.
    pub caller: VirtAddr,
}

/// What the kernel may do with its memory; never executed, and of the linear map's own type (S97, S112).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read and write it.
    ReadWrite,
    /// Read it.
    ReadOnly,
}

impl VmallocRequest {
    /// What vmalloc gives by itself: any memory, high memory first, to be read and written (S30).
    pub const fn new(bytes: u32, fill: Fill, caller: VirtAddr) -> Self {
        Self { bytes, fill, memory: FrameRequest::ANY, rights: Rights::ReadWrite, caller }
    }
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
    /// No memory for the pointers to its pages (S27).
    PageArray(ArrayError),
    /// No frames (S28).
    Frames(AllocateError),
    /// High memory could not be reached to fill it with zeros.
    Zero(KmapError),
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
            Self::PageArray(error) => error.fmt(f),
            Self::Frames(error) => error.fmt(f),
            Self::Zero(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VmallocError {}

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
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
        self.vmalloc_as(VmallocRequest::new(bytes, fill, caller))
    }

    /// As [`KernelSpace::vmalloc`], of such memory and with such rights as the request says. Its zone says nothing of the
    /// kernel's own books of the area, which lie in low memory (S9).
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmalloc_with(&self, request: VmallocRequest) -> Result<AreaSummary, VmallocError> {
        self.vmalloc_as(request)
    }

    /// A function of its own for what vmalloc gives by itself, and one for the rest: what the first asks for is known when it
    /// is compiled.
    #[inline(always)]
    fn vmalloc_as(&self, request: VmallocRequest) -> Result<AreaSummary, VmallocError> {
        let VmallocRequest { bytes, fill, memory, rights, caller } = request;
        let Some(last) = bytes.checked_sub(1) else {
            return Err(VmallocError::ZeroSize);
        };
        let pages = (last >> PAGE_SHIFT).wrapping_add(1);
        let total = self.zones.total();
        if pages > total {
            return Err(VmallocError::MoreThanMemory { wanted: pages, total });
        }
        let attributes = match rights {
            Rights::ReadWrite => Attributes::KERNEL_DATA,
            Rights::ReadOnly => Attributes::KERNEL_RODATA,
        };
        match self.vmalloc_few(pages, attributes, (memory, fill), caller) {
            Some(area) => Ok(area),
            None => {
                self.unless_short(|| self.vmalloc_many(pages, attributes, (memory, fill), caller))
            }
        }
    }

    /// When they are many, or not all is at hand.
    #[inline(never)]
    fn vmalloc_many(
        &self,
        pages: u32,
        attributes: Attributes,
        (memory, fill): (FrameRequest, Fill),
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmallocError> {
        let (mut usable, place) = self
            .reserve("vmalloc", |areas| areas.reserve_pages(pages))
            .map_err(VmallocError::Area)?;
        let mut place = self.at_home(place, memory);
        let array = match self.take_array(pages, memory, caller) {
            Ok(array) => array,
            Err(error) => {
                self.abandon(usable, place);
                return Err(VmallocError::PageArray(error));
            }
        };
        let list = match self.filled_frames(memory, pages, fill) {
            Ok(list) => list,
            Err(error) => {
                self.abandon_array(array);
                self.abandon(usable, place);
                return Err(error);
            }
        };
        if let Err(error) = self.map_frames(&mut usable, &list, attributes) {
            return Err(self.not_mapped(usable, place, (list, array), error));
        }
        let words = self.array_words(&array, &place.within);
        let pointers = address_of(words);
        self.note_list(&list, &array, words);
        let flags = flags_with(&array, AreaFlags::ALLOC);
        let new = NewArea::new(AreaKind::Vmalloc, caller).flags(flags).pointers(pointers, pages);
        place.array = array;
        Ok(self.publish(place, Mapping::Frames { usable, list }, new))
    }

    #[inline(never)]
    fn map_frames(
        &self,
        usable: &mut OwnedRange,
        list: &FrameList,
        attributes: Attributes,
    ) -> Result<u32, MapError> {
        let (table, tables) = (self.zones.table(), self.tables.source(&self.zones));
        match list.one_block(table) {
            Some(first) => {
                let frames = (first, list.pages());
                self.table.map_consecutive(usable, 0, frames, attributes, &tables)
            }
            None => self.table.map_list(usable, list.frames(table), attributes, &tables),
        }
    }

    /// Gives back what could not be mapped.
    #[cold]
    #[inline(never)]
    fn not_mapped(
        &self,
        usable: OwnedRange,
        place: AreaPlace<'s>,
        (list, array): (FrameList, PageArray),
        error: MapError,
    ) -> VmallocError {
        let list = self.unwind(usable, place, &error, list);
        let freed = self.zones.free_list(list);
        debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
        self.abandon_array(array);
        VmallocError::Map(error)
    }

    /// As [`KernelSpace::vmalloc`], for memory that programs may see: filled with zeros, and then tagged (S31).
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmalloc_user(&self, bytes: u32, caller: VirtAddr) -> Result<AreaSummary, VmallocError> {
        self.vmalloc_user_of(bytes, FrameRequest::ANY, caller)
    }

    /// As [`KernelSpace::vmalloc_user`], of such memory.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmalloc_user_of(
        &self,
        bytes: u32,
        memory: FrameRequest,
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmallocError> {
        let request = VmallocRequest::new(bytes, Fill::Zeroed, caller);
        let mut area = self.vmalloc_with(VmallocRequest { memory, ..request })?;
        area.flags = area.flags.with(AreaFlags::USERMAP);
        self.areas.with(|areas| {
            if let Some(record) = areas.find_mut(area.pages.start()) {
                record.vm.set_flags(area.flags);
            }
        });
        Ok(area)
    }

    /// Takes `pages` frames that hold what they should.
    #[inline(always)]
    pub(super) fn filled_frames(
        &self,
        memory: FrameRequest,
        pages: u32,
        fill: Fill,
    ) -> Result<FrameList, VmallocError> {
        let list = self.frames_for(memory, pages).map_err(VmallocError::Frames)?;
        if fill == Fill::Zeroed
            && let Err(error) = self.zero_list(&list)
        {
            let freed = self.zones.free_list(list);
            debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
            return Err(VmallocError::Zero(error));
        }
        Ok(list)
    }

    /// Fills the frames of `list` with zeros; at once, if they are one block of low memory.
    fn zero_list(&self, list: &FrameList) -> Result<(), KmapError> {
        let table = self.zones.table();
        let first = list.one_block(table);
        match first.and_then(|first| self.linear.pages_of(first, list.pages())) {
            Some(memory) => {
                self.table.machine().zero_pages(memory);
                Ok(())
            }
            None => self.zero_frames(list.frames(table)),
        }
    }

    #[inline(always)]
    fn frames_for(&self, memory: FrameRequest, pages: u32) -> Result<FrameList, AllocateError> {
        self.unless_short(|| self.zones.allocate_list_from(memory, pages, FrameOwner::Vmalloc))
    }
}
