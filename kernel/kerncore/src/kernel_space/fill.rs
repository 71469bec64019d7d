//! Memory of vmalloc at addresses that its caller reserved (S85a).

use core::fmt;

use crate::addr::{PageRange, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping, PageArray};
use crate::attributes::Attributes;
use crate::frames::{FrameList, FrameRequest};
use crate::kernel_space::page_array::{address_of, flags_with};
use crate::kernel_space::{ChangeError, Fill, KernelSpace, Rights, VmallocError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

/// Why a reserved area was not filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillAreaError {
    /// It is no area that its caller may fill. Nothing has changed.
    Change(ChangeError),
    /// Something is mapped in it already. Nothing has changed.
    Mapped {
        /// The address given.
        address: VirtAddr,
    },
    /// No memory, or it could not be mapped. The area is gone (S85a), and nothing else was taken.
    Consumed(VmallocError),
}

impl fmt::Display for FillAreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(error) => error.fmt(f),
            Self::Mapped { address } => write!(f, "the area at {address} maps something already"),
            Self::Consumed(error) => write!(f, "{error}; the area is removed"),
        }
    }
}

impl core::error::Error for FillAreaError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// As [`KernelSpace::fill_area_with`], with any memory, to be read and written.
    ///
    /// # Errors
    /// [`FillAreaError`]: if there is no memory, the area is gone too (S85a).
    ///
    /// # Panics
    /// In interrupt context.
    pub fn fill_area(&self, base: VirtAddr, fill: Fill) -> Result<AreaSummary, FillAreaError> {
        self.fill_area_with(base, fill, (FrameRequest::ANY, Rights::ReadWrite))
    }

    /// Fills the bare area at `base`, in which nothing is mapped, with such memory and rights: from then on it is one of
    /// vmalloc's. Not in interrupt context (S10).
    ///
    /// # Errors
    /// [`FillAreaError`]: if there is no memory, the area is gone too (S85a).
    ///
    /// # Panics
    /// In interrupt context.
    pub fn fill_area_with(
        &self,
        base: VirtAddr,
        fill: Fill,
        (memory, rights): (FrameRequest, Rights),
    ) -> Result<AreaSummary, FillAreaError> {
        self.may_sleep_for("__vmalloc_area");
        let mut usable = self.take_empty(base)?;
        let pages = usable.count();
        let caller = self.find(base).map_or(VirtAddr::new(0), |area| area.caller);
        let filled =
            self.unless_short(|| self.fill_range(&mut usable, fill, (memory, rights), caller));
        let (list, array) = match filled {
            Ok(filled) => filled,
            Err(error) => return Err(self.consume(base, usable, error)),
        };
        // Outside the lock, unless they are few.
        let words = self.words_elsewhere(&array);
        self.note_all(list.frames(self.zones.table()), words);
        let elsewhere = address_of(words);
        let filled = self.put(base, Mapping::Frames { usable, list }, |record| {
            let first = match (&array, &record.mapping) {
                (PageArray::Within, Mapping::Frames { list, .. }) => {
                    self.note_all(list.frames(self.zones.table()), &record.within);
                    address_of(&record.within)
                }
                _ => elsewhere,
            };
            record.kind = AreaKind::Vmalloc;
            record.vm.set_pages(first, pages);
            // What its owner wrote there while it was his.
            record.vm.forget_phys_addr();
            let flags = record.vm.flags().with(AreaFlags::ALLOC);
            record.vm.set_flags(flags_with(&array, flags));
            record.array = array;
            record.summary()
        });
        filled.ok_or(FillAreaError::Change(ChangeError::Unknown { address: base }))
    }

    /// Frames, and an array for their pointers, mapped in all of `usable`; nothing is, if there is an error.
    fn fill_range(
        &self,
        usable: &mut OwnedRange,
        fill: Fill,
        (memory, rights): (FrameRequest, Rights),
        caller: VirtAddr,
    ) -> Result<(FrameList, PageArray), VmallocError> {
        let pages = usable.count();
        let array = self.take_array(pages, memory, caller).map_err(VmallocError::PageArray)?;
        let list = match self.filled_frames(memory, pages, fill) {
            Ok(list) => list,
            Err(error) => {
                self.abandon_array(array);
                return Err(error);
            }
        };
        let attributes = match rights {
            Rights::ReadWrite => Attributes::KERNEL_DATA,
            Rights::ReadOnly => Attributes::KERNEL_RODATA,
        };
        let frames = list.frames(self.zones.table());
        let tables = self.tables.source(&self.zones);
        // By an iterator of its own, as is the mapping of a list elsewhere.
        let mapped = self.table.map(usable, 0, frames.map(Some), attributes, &tables);
        if let Err(error) = mapped {
            self.unmap_failed(usable, 0, &error);
            self.free_failed(list);
            self.abandon_array(array);
            return Err(VmallocError::Map(error));
        }
        Ok((list, array))
    }

    /// Ends the bare area at `base`, in which nothing is mapped: for whoever was to fill it and is asked for what cannot be, so
    /// that every failure leaves the same behind (S85a). Not in interrupt context.
    ///
    /// # Errors
    /// [`FillAreaError`], as [`KernelSpace::fill_area`] would have judged the area; it stays.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn consume_area(&self, base: VirtAddr) -> Result<(), FillAreaError> {
        self.may_sleep_for("__vmalloc_area");
        let usable = self.take_empty(base)?;
        self.end_empty(base, usable);
        Ok(())
    }

    /// Takes the range of the bare area at `base`, if nothing is mapped there, or nothing any more (S55).
    fn take_empty(&self, base: VirtAddr) -> Result<OwnedRange, FillAreaError> {
        let taken = self.take(base, |record| record.kind == AreaKind::Bare);
        let is_empty = |pages: PageRange| {
            let mut each = (0..pages.count()).filter_map(|index| pages.sub_range(index, 1));
            each.all(|page| self.table.translate(page.start()).is_none())
        };
        match taken.map_err(FillAreaError::Change)? {
            Mapping::Reserved { usable } => Ok(usable),
            // Whoever unmapped has flushed.
            Mapping::Borrowed { usable } if is_empty(usable.pages()) => Ok(usable),
            mapping => {
                self.put(base, mapping, |_| ());
                Err(FillAreaError::Mapped { address: base })
            }
        }
    }

    /// Ends the area whose mapping was taken and in which nothing is mapped.
    #[cold]
    fn consume(&self, base: VirtAddr, usable: OwnedRange, error: VmallocError) -> FillAreaError {
        self.end_empty(base, usable);
        FillAreaError::Consumed(error)
    }

    fn end_empty(&self, base: VirtAddr, usable: OwnedRange) {
        self.areas.with(|areas| {
            if let Some(place) = areas.space.retire(base) {
                areas.release(usable, place);
            }
        });
    }
}
