//! vmalloc of a few pages, where everything is at hand: the way that most areas are made, and removed.
//!
//! ```text
//!                                                ┌ lock of areas ───────────────────────────────────────────┐
//!   a block that waits ─▶ zeros, if asked for ─▶ │ addresses ─▶ descriptors ─▶ record, page pointers ─▶ Live │
//!                                                │ find ─▶ clear ─▶ flush (S23) ─▶ Free                      │ ─▶ frames
//!                                                └──────────────────────────────────────────────────────────┘
//! ```
//! What is not at hand (a block of that size, a place for the record, addresses, the second-level table, empty slots), or not as
//! it should be, is left to the general way, which begins anew and finds words for what is wrong. Nothing of this one is left
//! then. See [`super::at_once`] for what is written and flushed under the lock.

use core::num::NonZeroU32;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::area::{AreaKind, AreaRecord, AreaSummary, Mapping, PageArray, WITHIN};
use crate::attributes::Attributes;
use crate::descriptor::l2::SmallPages;
use crate::frames::{Frame, FrameList, FrameOwner, FrameRequest, FrameTable, Freed};
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::at_once::Ending;
use crate::kernel_space::page_array::address_of;
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{Fill, FramesError, KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::FEW;
use crate::va_space::End;

/// How many pages are few.
const MOST_FEW: u32 = FEW - 1;

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
        if pages > MOST_FEW || !self.zones.begins_with_first(memory) {
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
            let (mut place, mut usable) = areas.begin(pages)?;
            if !self.table.map_few(&mut usable, words.word(frame)) {
                areas.give_up(usable, place);
                return None;
            }
            let range = usable.pages();
            place.array = PageArray::Within;
            note_few(record, pages, &place.within);
            let new = NewArea::new(AreaKind::Vmalloc, caller);
            let new = new.pointers(address_of(&place.within), pages);
            let list = FrameList::of_one(chain, pages);
            new.describe(&mut place, Mapping::Frames { usable, list });
            areas.go_live(range, place);
            NonZeroU32::new(range.first())
        });
        if made.is_some() { made } else { self.not_at_hand(record, order) }
    }

    /// Removes the vmalloc area at `base` and frees its frames (S33). Not in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`].
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn vfree(&self, _authority: M::Authority, base: VirtAddr) -> Result<(), RemoveError> {
        self.may_sleep_for("vfree");
        let mut frames = FrameList::new();
        // A few pages, of an area that nobody reads or has tampered with, go at once; their frames after the lock.
        let end = |record: &mut AreaRecord, pages: u32| {
            if record.kind != AreaKind::Vmalloc || record.users != 0 {
                return None;
            }
            if !self.readers.are_none() {
                return Some(End::Dying);
            }
            let Some((mut usable, list)) = record.take_few() else {
                let ended = self.end_section(record, pages, base);
                return Some(if ended { End::Free } else { End::Dying });
            };
            if usable.count() == pages && !has_null(record, pages) {
                L::memory_goes(|| Some((base, usable.pages().bytes())));
                if self.table.clear_at_hand(&mut usable) {
                    frames = list;
                    return Some(End::Free);
                }
            }
            record.mapping = Mapping::Frames { usable, list };
            Some(End::Dying)
        };
        match self.areas.with(|areas| areas.end_at_once(base, end)) {
            Some(Ending::Free) => match self.zones.give_back_list(frames, FrameOwner::Vmalloc) {
                Ok(()) => Ok(()),
                Err(list) => self.free_blocks(base, list),
            },
            Some(Ending::Dying(dying)) => self.vfree_dying(base, dying),
            None => self.remove_refused(base, AreaKind::Vmalloc),
        }
    }

    /// Of more than one block, or of another zone; or of none, where the frames were freed with the area.
    #[inline(never)]
    fn free_blocks(&self, address: VirtAddr, list: FrameList) -> Result<(), RemoveError> {
        if list.is_empty() {
            return Ok(());
        }
        let freed = self.zones.free_list(list);
        freed.map_err(|error| RemoveError::Frames { address, error: FramesError::Free(error) })
    }

    /// Ends an area of vmalloc that was retired.
    #[inline(never)]
    fn vfree_dying(&self, base: VirtAddr, dying: AreaPlace<'s>) -> Result<(), RemoveError> {
        L::memory_goes(|| Some((base, dying.pages().bytes())));
        self.tear_down(dying)
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

/// Whether one of the first `pages` pointers that the descriptor counts, which lie in the record, may be null (S33): then the
/// general way looks once more, and ends the kernel if it is.
#[inline(always)]
fn has_null(record: &AreaRecord, pages: u32) -> bool {
    let mut left = record.vm.nr_pages().min(pages);
    let mut common = u32::MAX;
    while left != 0 {
        left = left.wrapping_sub(1);
        let word = record.within.get(left as usize);
        common &= word.map_or(0, |word| word.load(Relaxed));
    }
    // All pointers have the topmost bit.
    common >> 31 == 0
}
