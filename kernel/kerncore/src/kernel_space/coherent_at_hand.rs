//! One page of coherent memory, where everything is at hand: what most devices ask for, ring by ring.
//!
//! ```text
//!                                             ┌ lock of areas ──────────────────────────────────┐
//!   a frame that waits ─▶ zeros ─▶ withdrawn, │ addresses ─▶ descriptor ─▶ cleaned ─▶ record ─▶ Live │
//!                                  flushed    │ find ─▶ clear ─▶ flush ─▶ Free                    │ ─▶ linear entry ─▶ frame
//!                                             └─────────────────────────────────────────────────┘
//! ```
//! The order is that of [`crate::linear_map`]: no cacheable view when the lines are cleaned, through the new mapping. What is not at
//! hand, or not as it should be, is left to the general way ([`super::coherent`]), which begins anew and finds words for what is
//! wrong.

use core::mem;

use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::area::{AreaKind, AreaRecord, AreaSummary, Mapping};
use crate::attributes::Attributes;
use crate::descriptor::l2::SmallPages;
use crate::frames::{FrameBlock, FrameOwner, FrameRequest};
use crate::holder::Holder;
use crate::kernel_space::at_once::Ending;
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{CoherentFreed, FramesError, KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::va_space::End;

/// Whether so many bytes are one page.
#[inline(always)]
const fn is_one_page(bytes: u32) -> bool {
    bytes.wrapping_sub(1) < PAGE_SIZE
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// As [`KernelSpace::coherent_alloc`], of one page, if all is at hand. Otherwise nothing was taken.
    #[inline(always)]
    pub(super) fn coherent_at_hand(
        &self,
        bytes: u32,
        owner: FrameOwner,
        holder: Holder,
    ) -> Option<AreaSummary> {
        if !is_one_page(bytes) {
            return None;
        }
        let block = self.zones.take_waiting_block(FrameRequest::LOW, 0, owner)?;
        self.lend_page(block, holder)
    }

    /// As [`KernelSpace::contiguous_alloc`], of one page, if all is at hand. Otherwise nothing was taken.
    #[inline(always)]
    pub(super) fn contiguous_at_hand(
        &self,
        bytes: u32,
        owner: FrameOwner,
        holder: Holder,
    ) -> Option<AreaSummary> {
        if !is_one_page(bytes) {
            return None;
        }
        let block = self.contiguous?.take_waiting(owner)?;
        self.lend_page(block, holder)
    }

    /// Maps a fresh block of one page, zeroed, at an address of its own instead of its linear one.
    #[inline(always)]
    fn lend_page(&self, block: FrameBlock, holder: Holder) -> Option<AreaSummary> {
        let frame = block.first();
        let absent = match self.linear.withdraw_zeroed(block) {
            Ok(absent) => absent,
            Err(block) => {
                self.free_own(block);
                return None;
            }
        };
        let word = SmallPages::new(Attributes::WRITE_COMBINE).word(frame);
        let new = NewArea::new(AreaKind::Dma, holder.caller).at(frame.base());
        let lent = self.areas.with(|areas| {
            let Some((mut place, mut usable)) = areas.begin(1) else { return Err(absent) };
            if !self.table.map_few(&mut usable, word) {
                areas.give_up(usable, place);
                return Err(absent);
            }
            let range = usable.pages();
            let lent = absent.lent_at(self.table.machine(), usable);
            place.note_holder(holder);
            let area = new.describe(&mut place, Mapping::Lent(lent));
            areas.go_live(range, place);
            Ok(area)
        });
        match lent {
            Ok(area) => Some(area),
            Err(absent) => {
                self.take_back_own(absent);
                None
            }
        }
    }

    /// As [`KernelSpace::coherent_free_at`], of one page, if it is as it should be and nobody uses the area. Otherwise `None`, and
    /// nothing has changed.
    #[inline(always)]
    pub(super) fn coherent_free_at_hand(
        &self,
        base: VirtAddr,
        physical: PhysAddr,
        bytes: u32,
    ) -> Option<Result<CoherentFreed, RemoveError>> {
        if !is_one_page(bytes) {
            return None;
        }
        let mut gone = None;
        let end = |record: &mut AreaRecord, pages: u32| {
            if record.kind != AreaKind::Dma || record.users != 0 || pages != 1 {
                return None;
            }
            let Mapping::Lent(lent) = &mut record.mapping else { return None };
            if lent.first().base() != physical || !self.readers.are_none() {
                return None;
            }
            let home = self.linear.has_place_for(lent)?;
            L::memory_goes(|| Some((base, PAGE_SIZE)));
            if !lent.clear_at_hand(&self.table) {
                return None;
            }
            let mapping = mem::replace(&mut record.mapping, Mapping::Nothing);
            if let Mapping::Lent(lent) = mapping {
                gone = Some((lent.cleared(), home));
            }
            Some(End::Free)
        };
        let Some(Ending::Free) = self.areas.with(|areas| areas.end_at_once(base, end)) else {
            return None;
        };
        // The flush is behind us: nothing but the linear map leads there again.
        let (absent, home) = gone?;
        let freed = self.free_page_of(self.linear.restore_page(absent, home));
        let freed = freed.map_err(|error| RemoveError::Frames { address: base, error });
        Some(freed.map(|()| CoherentFreed { actual: 1, given: 1, missing: 0 }))
    }

    #[inline(always)]
    fn free_page_of(&self, block: FrameBlock) -> Result<(), FramesError> {
        if self.contiguous.is_some() {
            return self.free_block(block);
        }
        self.zones.free_block_of(block, FrameOwner::Dma).map_err(FramesError::Free)
    }
}
