//! vmalloc of a few pages, where everything is at hand: the way that most areas are made.
//!
//! ```text
//!   a block that waits ─▶ zeros, if asked for ─▶ ┌ lock of areas ─────────────────────────────────────────────┐
//!                                                │ addresses ─▶ descriptors, barrier ─▶ record, array ─▶ live │
//!                                                └────────────────────────────────────────────────────────────┘
//! ```
//! What is not at hand (a block of that size, a place for the record, a hole or the open space, the second-level table, empty
//! slots) is left to the general way, which begins anew and finds words for what is wrong. Nothing of this one is left then.
//!
//! Descriptors are written under no lock elsewhere. Here they are few (fewer than [`FEW`]) and so is what the lock waits for: one
//! barrier of this CPU, and no other CPU. That is less than it costs to go in twice.

use core::num::NonZeroU32;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SHIFT, PageRange, PhysAddr, VirtAddr};
use crate::area::{AreaKind, AreaRecord, AreaSummary, Mapping, PageArray, WITHIN, first_null};
use crate::attributes::Attributes;
use crate::descriptor::l2::SmallPages;
use crate::frames::{Frame, FrameList, FrameOwner, FrameRequest, FrameTable, Freed};
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::page_array::{address_of, null_page};
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{Fill, FramesError, KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::FEW;

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Memory of vmalloc of so many pages, if they are few and all is at hand. Otherwise nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub(super) fn vmalloc_few(
        &self,
        pages: u32,
        attributes: Attributes,
        (memory, fill): (FrameRequest, Fill),
        caller: VirtAddr,
    ) -> Option<AreaSummary> {
        if pages >= FEW || !self.zones.begins_with_first(memory) {
            return None;
        }
        let words = SmallPages::new(attributes);
        let first = self.make_few(pages, words, caller, fill)?;
        Some(AreaSummary {
            pages: PageRange::trusted(first.get(), pages),
            kind: AreaKind::Vmalloc,
            flags: AreaKind::Vmalloc.flags(),
            physical: PhysAddr::new(0),
            caller,
            users: 0,
        })
    }

    /// The number of the first page.
    ///
    /// Not inlined, and what it gives fits a register: it has all registers to itself.
    #[inline(never)]
    fn make_few(
        &self,
        pages: u32,
        words: SmallPages,
        caller: VirtAddr,
        fill: Fill,
    ) -> Option<NonZeroU32> {
        self.may_sleep_for("vmalloc");
        self.bound_backlog();
        let order = pages.is_power_of_two().then(|| pages.trailing_zeros())?;
        let record = self.zones.take_waiting(order, FrameOwner::Vmalloc)?;
        let table = self.zones.table();
        let chain = table.chain_of_one(record);
        let frame = table.first_of(chain);
        if fill == Fill::Zeroed {
            match self.linear.pages_of(frame, pages) {
                Some(memory) => self.table.machine().zero_pages(memory),
                None => return self.not_at_hand(record, order),
            }
        }
        let made = self.areas.with(|areas| {
            let (start, mut place) = areas.reserve_lowest(pages)?;
            let mut usable = start.range(pages);
            if !self.table.map_few(&mut usable, words.word(frame)) {
                areas.release(usable, place);
                return None;
            }
            let first = usable.pages().first();
            place.array = PageArray::Within;
            note_few(record, pages, &place.within);
            let new = NewArea::new(AreaKind::Vmalloc, caller);
            let new = new.pointers(address_of(&place.within), pages);
            let list = FrameList::of_one(chain, pages);
            new.describe(&mut place, Mapping::Frames { usable, list });
            areas.publish(VirtAddr::new(first << PAGE_SHIFT), place);
            NonZeroU32::new(first)
        });
        if made.is_some() { made } else { self.not_at_hand(record, order) }
    }

    /// Dying → Flushed → Free, of an area of vmalloc; quickly, if it is of a few small pages whose frames are one block.
    ///
    /// # Errors
    /// [`RemoveError::Frames`].
    #[inline(always)]
    pub(super) fn end_few(&self, mut dying: AreaPlace<'s>) -> Result<(), RemoveError> {
        let Some((usable, list)) = dying.take_few() else {
            return self.tear_down_not_inlined(dying);
        };
        self.readers.wait_for(usable.start());
        assert_no_null(&dying, usable.pages());
        match self.table.unmap_few(usable, list) {
            Ok((range, list)) => match self.zones.give_back_list(list, FrameOwner::Vmalloc) {
                Ok(()) => {
                    self.areas.with(|areas| areas.release(range, dying));
                    Ok(())
                }
                Err(list) => self.end_flushed(range, list, dying),
            },
            Err((range, list)) => self.end_many_frames(range, list, dying),
        }
    }

    #[inline(never)]
    fn tear_down_not_inlined(&self, dying: AreaPlace<'s>) -> Result<(), RemoveError> {
        self.tear_down(dying)
    }

    /// Flushed → Free, of an area whose frames are more than one block.
    #[inline(never)]
    fn end_flushed(
        &self,
        range: OwnedRange,
        list: FrameList,
        dying: AreaPlace<'s>,
    ) -> Result<(), RemoveError> {
        let address = range.start();
        let freed = self.zones.free_list(list);
        self.areas.with(|areas| areas.release(range, dying));
        freed.map_err(|error| RemoveError::Frames { address, error: FramesError::Free(error) })
    }

    #[cold]
    #[inline(never)]
    fn not_at_hand(&self, record: &'s Frame, order: u32) -> Option<NonZeroU32> {
        let freed = self.zones.give_back_record(record, order, FrameOwner::Vmalloc);
        debug_assert_eq!(freed, Freed::Yes, "nobody has seen them");
        None
    }
}

/// Writes pointers to `pages` adjacent frames, of which `first` is the first, into `words`.
#[inline(always)]
fn note_few(first: &Frame, pages: u32, words: &[AtomicU32; WITHIN]) {
    let mut pointer = FrameTable::pointer(first);
    for word in words.iter().take(pages as usize) {
        word.store(pointer, Relaxed);
        pointer = pointer.wrapping_add(FrameTable::STRIDE);
    }
}

/// As [`KernelSpace::assert_no_null`], of pages that are few, so that their pointers lie in the record.
#[inline(always)]
fn assert_no_null(record: &AreaRecord, pages: PageRange) {
    let mut left = record.vm.nr_pages().min(pages.count());
    let mut common = u32::MAX;
    while left != 0 {
        left = left.wrapping_sub(1);
        let word = record.within.get(left as usize);
        common &= word.map_or(0, |word| word.load(Relaxed));
    }
    if common >> 31 == 0 {
        null_among(record, pages);
    }
}

/// It may be that somebody has written something else than null.
#[cold]
#[inline(never)]
fn null_among(record: &AreaRecord, pages: PageRange) {
    let counted = record.vm.nr_pages().min(pages.count()) as usize;
    if let Some(index) = record.within.get(..counted).and_then(first_null) {
        null_page(pages, index);
    }
}
