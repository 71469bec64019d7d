//! The page arrays of vmalloc's areas: taken when an area is made, freed when it goes (S27, S33).
//!
//! ```text
//!   reserve ──▶ array ──▶ frames ──▶ map ──▶ note each frame ──▶ publish
//!                 │ none: the addresses go back, and the record (S27)
//!                 ▼
//!   1,025 and more: reserve ──▶ zeroed frames of low memory, same node if it can be ──▶ map ──▶ publish, as a page array
//! ```

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SIZE, PageRange, Pfn, VirtAddr};
use crate::area::{
    AreaFlags, AreaKind, AreaRecord, ArrayArea, IN_A_FRAME, Mapping, PageArray, WITHIN, first_null,
};
use crate::attributes::Attributes;
use crate::frames::{AllocateError, FrameList, FrameOwner, FrameRequest, FrameTable, Place};
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::{Fill, FramesError, KernelSpace, RemoveError, VmallocError};
use crate::kmap::KmapError;
use crate::lock::Locks;
use crate::machine::{Machine, common_bits, write_steps};
use crate::page_table::MapError;
use crate::va_space::Request;

/// Why there is no page array for an area that was to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayError {
    /// No addresses for it, or no record.
    Area(NoArea),
    /// No frames for it.
    Frames(AllocateError),
    /// It could not be filled with zeros.
    Zero(KmapError),
    /// It could not be mapped.
    Map(MapError),
}

impl fmt::Display for ArrayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the page array: ")?;
        match self {
            Self::Area(error) => error.fmt(f),
            Self::Frames(error) => error.fmt(f),
            Self::Zero(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ArrayError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Memory for the pointers to `pages` pages of such memory: in the record, or else in low memory, of the same node if it
    /// has any (S9, S27, S117).
    #[inline(always)]
    pub(super) fn take_array(
        &self,
        pages: u32,
        memory: FrameRequest,
        caller: VirtAddr,
    ) -> Result<PageArray, ArrayError> {
        if pages as usize <= WITHIN {
            return Ok(PageArray::Within);
        }
        self.take_array_elsewhere(pages, memory, caller)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn take_array_elsewhere(
        &self,
        pages: u32,
        memory: FrameRequest,
        caller: VirtAddr,
    ) -> Result<PageArray, ArrayError> {
        // A node may have no low memory (S117); one that is not there is refused all the same.
        let place = match memory.place() {
            Place::Only(node) => Place::Prefer(node),
            place => place,
        };
        let memory = FrameRequest::LOW.at(place);
        if pages > IN_A_FRAME {
            return self.take_array_area(pages, memory, caller).map(PageArray::Area);
        }
        // Not zeroed: its words are written before anybody can find the area, those behind the pointers too.
        if let Some(block) = self.zones.take_waiting_block(memory, 0, FrameOwner::Vmalloc) {
            return Ok(PageArray::Frame(block));
        }
        let block = self.unless_short(|| self.zones.allocate_from(memory, 0, FrameOwner::Vmalloc));
        block.map(PageArray::Frame).map_err(ArrayError::Frames)
    }

    fn take_array_area(
        &self,
        pages: u32,
        memory: FrameRequest,
        caller: VirtAddr,
    ) -> Result<ArrayArea, ArrayError> {
        let request = Request::of_bytes(pages.div_ceil(IN_A_FRAME).saturating_mul(PAGE_SIZE));
        let (mut usable, place) =
            self.reserve("vmalloc", |areas| areas.reserve(&request)).map_err(ArrayError::Area)?;
        let place = self.at_home(place, memory);
        let list = match self.filled_frames(memory, usable.count(), Fill::Zeroed) {
            Ok(list) => list,
            Err(error) => {
                self.abandon(usable, place);
                return Err(match error {
                    VmallocError::Zero(error) => ArrayError::Zero(error),
                    VmallocError::Frames(error) => ArrayError::Frames(error),
                    // What frames are not refused with.
                    _ => {
                        ArrayError::Frames(self.zones.none_left(memory, pages, FrameOwner::Vmalloc))
                    }
                });
            }
        };
        if let Err(error) = self.map_list(&mut usable, 0, &list, Attributes::KERNEL_DATA) {
            let list = self.unwind(usable, place, &error, list);
            let freed = self.zones.free_list(list);
            debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
            return Err(ArrayError::Map(error));
        }
        let new = NewArea::new(AreaKind::PageArray, caller);
        let area = self.publish(place, Mapping::Frames { usable, list }, new);
        Ok(ArrayArea::new(area.pages))
    }

    /// The words of `array`, which is that of the record that has `within`: as many as it has room for.
    #[inline(always)]
    pub(crate) fn array_words<'a>(
        &'a self,
        array: &'a PageArray,
        within: &'a [AtomicU32; WITHIN],
    ) -> &'a [AtomicU32] {
        match array {
            PageArray::Within => within,
            array => self.words_elsewhere(array),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn words_elsewhere<'a>(&'a self, array: &'a PageArray) -> &'a [AtomicU32] {
        match array {
            PageArray::Within => &[],
            PageArray::Frame(block) => self.support.frame_words(block),
            PageArray::Area(area) => self.support.area_words(area),
            &PageArray::Shared { first, pages } => self.pointers.of(first, pages).unwrap_or(&[]),
        }
    }

    /// Writes pointers to the frames of `list` into `words`, which are those of `array`: what is behind them is zero afterwards,
    /// but in a record.
    #[inline(always)]
    pub(super) fn note_list(&self, list: &FrameList, array: &PageArray, words: &[AtomicU32]) {
        match array {
            PageArray::Within => self.note_within(list, words),
            array => self.note_elsewhere(list, array, words),
        }
    }

    /// Few, and no machine has a quicker way.
    #[inline(never)]
    fn note_within(&self, list: &FrameList, words: &[AtomicU32]) {
        self.note_blocks(list, words, write_steps::<{ FrameTable::STRIDE }>);
    }

    #[cold]
    #[inline(never)]
    fn note_elsewhere(&self, list: &FrameList, array: &PageArray, words: &[AtomicU32]) {
        let machine = self.table.machine();
        let behind = self.note_blocks(list, words, |words, first| {
            machine.write_steps::<{ FrameTable::STRIDE }>(words, first);
        });
        // An area of its own was filled with zeros when it was made.
        if let PageArray::Frame(_) = array {
            machine.clear_words(behind);
        }
    }

    /// Writes pointers to the frames of `list` into `words`, a block at a time by `write`; the words behind them.
    #[inline(always)]
    fn note_blocks<'a>(
        &self,
        list: &FrameList,
        mut words: &'a [AtomicU32],
        write: impl Fn(&[AtomicU32], u32),
    ) -> &'a [AtomicU32] {
        let zero = self.zones.table().pointer_to_frame_zero();
        for (first, order) in list.blocks(self.zones.table()) {
            let here = words.split_at_checked(1 << order);
            let (here, rest) = here.unwrap_or((words, &[]));
            write(here, FrameTable::pointer_from(zero, first));
            words = rest;
        }
        words
    }

    /// Writes pointers to `frames` into `words`, and nulls behind them.
    pub(super) fn note_all(&self, frames: impl Iterator<Item = Pfn>, words: &[AtomicU32]) {
        let zero = self.zones.table().pointer_to_frame_zero();
        let mut words = words.iter();
        for (word, frame) in words.by_ref().zip(frames) {
            word.store(FrameTable::pointer_from(zero, frame), Relaxed);
        }
        words.for_each(|word| word.store(0, Relaxed));
    }

    /// A null among the pages that the descriptor of memory of vmalloc counts means that somebody has written over its array
    /// (S33). Of an area without an array that the kernel made it says nothing.
    ///
    /// # Panics
    /// If there is one.
    #[inline(always)]
    pub(super) fn assert_no_null(&self, record: &AreaRecord, pages: PageRange) {
        let counted = record.vm.nr_pages().min(pages.count()) as usize;
        match &record.array {
            // Few, and no machine has a quicker way.
            PageArray::Within => {
                if let Some(words) = record.within.get(..counted)
                    && let Some(index) = first_null(words, common_bits(words))
                {
                    null_page(pages, index);
                }
            }
            array => self.assert_no_null_elsewhere(array, counted, pages),
        }
    }

    #[cold]
    #[inline(never)]
    fn assert_no_null_elsewhere(&self, array: &PageArray, counted: usize, pages: PageRange) {
        if let Some(words) = self.words_elsewhere(array).get(..counted)
            && let Some(index) = first_null(words, self.table.machine().common_bits(words))
        {
            null_page(pages, index);
        }
    }

    /// Frees an array whose area is gone, or was never made.
    #[inline(always)]
    pub(super) fn free_array(&self, array: PageArray) -> Result<(), RemoveError> {
        match array {
            PageArray::Within => Ok(()),
            array => self.free_array_elsewhere(array),
        }
    }

    #[cold]
    #[inline(never)]
    fn free_array_elsewhere(&self, array: PageArray) -> Result<(), RemoveError> {
        match array {
            PageArray::Within | PageArray::Shared { .. } => Ok(()),
            PageArray::Frame(block) => {
                let address = self.linear.pages_of(block.first(), 1);
                let address = address.map_or(VirtAddr::new(0), PageRange::start);
                let freed = self.zones.free_block_of(block, FrameOwner::Vmalloc);
                freed.map_err(|error| RemoveError::Frames {
                    address,
                    error: FramesError::Free(error),
                })
            }
            PageArray::Area(area) => {
                let base = area.into_pages().start();
                let dying =
                    self.retire(base, AreaKind::PageArray).map_err(|_| array_stays(base))?;
                self.tear_down(dying)
            }
        }
    }

    /// Frees an array that nobody but this call has seen.
    #[cold]
    #[inline(never)]
    pub(super) fn abandon_array(&self, array: PageArray) {
        let freed = self.free_array(array);
        debug_assert!(freed.is_ok(), "nobody knows of it: {freed:?}");
    }
}

/// The flag of an area with such an array, beyond those of its kind.
#[inline(always)]
pub(super) const fn flags_with(array: &PageArray, flags: AreaFlags) -> AreaFlags {
    match array {
        PageArray::Area(_) => flags.with(AreaFlags::VPAGES),
        _ => flags,
    }
}

/// Where the words begin, as C code has it.
#[inline(always)]
pub(crate) fn address_of(words: &[AtomicU32]) -> VirtAddr {
    #[expect(clippy::cast_possible_truncation, reason = "a pointer of the target is one word")]
    VirtAddr::new(words.as_ptr().addr() as u32)
}

/// What is said of an area that is gone: that of its array, at `address`, is not.
const fn array_stays(address: VirtAddr) -> RemoveError {
    RemoveError::Frames { address, error: FramesError::PageArray }
}

#[cold]
#[inline(never)]
fn null_page(area: PageRange, index: usize) -> ! {
    panic!("vfree: page {index} of the area at {} is null", area.start())
}
