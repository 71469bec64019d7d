//! One page of coherent memory for a device behind an IOMMU, where everything is at hand: what most of them ask for, ring by ring (S79, S81,
//! S109).
//!
//! ```text
//!                                                 ┌ lock of areas ──────────────────────────────────────────────────┐
//!   device address ─▶ a frame that waits ─▶ zeros │ addresses ─▶ descriptor ─▶ cleaned ─▶ device's descriptor ─▶ Live │
//!                    ─▶ withdrawn, flushed        │ find ─▶ clear ─▶ flush ─▶ Free                                   │ ─▶ device's
//!                                                 └─────────────────────────────────────────────────────────────────┘
//!   descriptor cleared, flushed, and its address free ─▶ linear entry ─▶ frame
//! ```
//! The order is that of buffers of any size ([`super::scattered`]), and so is what is compared under the lock. What is not at hand, or not
//! as it should be, is left to that way, which begins anew and finds words for what is wrong.

use core::mem;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{DmaAddr, PAGE_SIZE, Pfn, VirtAddr};
use crate::area::{AreaKind, AreaRecord, Mapping};
use crate::coherent::Coherency;
use crate::descriptor::l2::SmallPages;
use crate::frames::{FrameList, FrameOwner, FrameRequest, FrameTable};
use crate::holder::Holder;
use crate::iommu::machine::Iotlb;
use crate::iommu::{Domain, Iova, StillSeen, attributes_for};
use crate::kernel_space::areas::{AreaPlace, Areas};
use crate::kernel_space::at_once::Ending;
use crate::kernel_space::page_array::address_of;
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{
    CoherentFreed, FramesError, KernelSpace, RemoveError, ScatteredFreed, Viewer,
};
use crate::linear_map::list::{AbsentList, LentList};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{Released, Removal};
use crate::va_space::End;

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// As [`KernelSpace::scattered_alloc`], of one page, if all is at hand: where the processor sees it, and where the device does.
    /// Otherwise nothing was taken.
    ///
    /// # Panics
    /// In interrupt context (S10).
    #[inline(always)]
    pub fn scattered_page<T: Iotlb>(
        &self,
        domain: &Domain<'_, '_, M, T, L>,
        viewer: Viewer,
        holder: Holder,
    ) -> Option<(VirtAddr, DmaAddr)> {
        self.may_sleep_for("arm_iommu_alloc_attrs");
        self.bound_backlog();
        if !self.zones.begins_with_first(FrameRequest::LOW) {
            return None;
        }
        let iova = domain.page_at_hand(viewer.mask)?;
        let start = iova.start();
        let frames = self.zones.table();
        let Some(record) = self.zones.take_waiting(0, FrameOwner::Dma) else {
            return no_page(domain, iova);
        };
        let chain = frames.chain_of_one(record);
        let frame = frames.first_of(chain);
        let absent = match self.linear.withdraw_zeroed_list(FrameList::of_one(chain, 1), frame) {
            Ok(absent) => absent,
            Err(list) => {
                self.free_failed(list);
                return no_page(domain, iova);
            }
        };
        let pointer = FrameTable::pointer(record);
        let made = self.lend_and_show(domain, (absent, frame, pointer), iova, (viewer, holder));
        made.map(|base| (base, start))
    }

    #[inline(always)]
    fn lend_and_show<T: Iotlb>(
        &self,
        domain: &Domain<'_, '_, M, T, L>,
        (absent, frame, pointer): (AbsentList, Pfn, u32),
        mut iova: Iova,
        (viewer, holder): (Viewer, Holder),
    ) -> Option<VirtAddr> {
        const SNOOPED: SmallPages = SmallPages::new(attributes_for(Coherency::Coherent));
        const OTHERS: SmallPages = SmallPages::new(attributes_for(Coherency::NonCoherent));
        let coherency = viewer.coherency;
        let word = match coherency {
            Coherency::Coherent => SNOOPED.word(frame),
            Coherency::NonCoherent => OTHERS.word(frame),
        };
        let made = self.areas.with(|areas| {
            let Some((mut place, mut usable)) = areas.begin(1) else { return Err((absent, iova)) };
            if !self.table.map_few(&mut usable, word) {
                areas.give_up(usable, place);
                return Err((absent, iova));
            }
            let range = usable.pages();
            let lent = absent.lent_at(self.table.machine(), (usable, frame), coherency);
            if !domain.show_page(&mut iova, frame, coherency) {
                return Err((self.lent_in_vain(areas, (place, lent), coherency), iova));
            }
            let [first, ..] = &place.within;
            first.store(pointer, Relaxed);
            place.note_last(holder);
            let new = NewArea::new(AreaKind::Scattered, holder.caller)
                .pointers(address_of(&place.within), 1);
            let seen = lent.shown_at(iova, coherency);
            new.describe(&mut place, Mapping::Scattered(seen));
            areas.go_live(range, place);
            Ok(range.start())
        });
        match made {
            Ok(base) => Some(base),
            Err((absent, iova)) => {
                self.take_own_list_back(absent);
                no_page(domain, iova)
            }
        }
    }

    /// What the processor sees, and the device cannot.
    #[cold]
    #[inline(never)]
    fn lent_in_vain(
        &self,
        areas: &mut Areas<'s>,
        (place, lent): (AreaPlace<'s>, LentList),
        coherency: Coherency,
    ) -> AbsentList {
        if coherency == Coherency::NonCoherent {
            lent.note_returned(self.zones.table(), self.table.machine());
        }
        let Released { range, payload, removal } = lent.unmap(&self.table).flush();
        debug_assert_eq!(removal.oddities, 0, "mapped a moment ago: {removal:?}");
        areas.give_up(range, place);
        payload
    }

    /// As [`KernelSpace::scattered_free`], of one page, if all is as it should be and nobody uses the area. Otherwise `None`, and nothing
    /// has changed. The authority is that one's.
    ///
    /// # Panics
    /// In interrupt context (S35).
    #[inline(always)]
    pub fn scattered_free_page<T: Iotlb>(
        &self,
        _authority: M::Authority,
        domain: &Domain<'_, '_, M, T, L>,
        (base, start): (VirtAddr, DmaAddr),
    ) -> Option<Result<ScatteredFreed, RemoveError>> {
        self.may_sleep_for("arm_iommu_free_attrs");
        if !base.is_page_aligned() || L::fails(crate::failure::Point::ShortCut) {
            return None;
        }
        let (frames, root) = (self.zones.table(), domain.root());
        let mut gone = None;
        let end = |record: &mut AreaRecord, pages: u32| {
            if record.kind != AreaKind::Scattered || record.users != 0 || pages != 1 {
                return None;
            }
            let [pointer, ..] = &record.within;
            let Mapping::Scattered(seen) = &mut record.mapping else { return None };
            if !seen.is_seen_at(root, start)
                // A null, of which the general way has words (S33).
                || pointer.load(Relaxed) == 0
                || !self.readers.are_none()
            {
                return None;
            }
            let frame = seen.lent().one_frame(frames)?;
            let home = self.linear.empty_place_of(frame)?;
            L::memory_goes(|| Some((base, PAGE_SIZE)));
            if !seen.clear_page(&self.table, frame) {
                return None;
            }
            if let Mapping::Scattered(seen) = mem::replace(&mut record.mapping, Mapping::Nothing) {
                gone = Some((seen.cleared(), (home, frame)));
            }
            Some(End::Free)
        };
        let Some(Ending::Free) = self.areas.with(|areas| areas.end_at_once(base, end)) else {
            return None;
        };
        // The flush is behind us: the device alone sees it.
        let (still, home) = gone?;
        match still.end_page(domain, home.1) {
            Ok(absent) => {
                let list = self.linear.restore_one(absent, home);
                Some(match self.zones.give_back_list(list, FrameOwner::Dma) {
                    Ok(()) => Ok(ScatteredFreed::ONE),
                    Err(list) => self.free_one(base, list),
                })
            }
            Err(still) => Some(self.end_odd_page(domain, base, still)),
        }
    }

    /// Of a page that the device sees by an entry that is not as it was made.
    #[cold]
    #[inline(never)]
    fn end_odd_page<T: Iotlb>(
        &self,
        domain: &Domain<'_, '_, M, T, L>,
        address: VirtAddr,
        still: StillSeen,
    ) -> Result<ScatteredFreed, RemoveError> {
        let (absent, hidden) = still.unmap(domain).flush();
        // What a foreign entry still shows the device is nobody else's.
        let freed = if hidden.left_alone == 0 {
            self.take_list_back(absent)
        } else {
            Err(FramesError::StillMapped)
        };
        freed.map_err(|error| RemoveError::Frames { address, error })?;
        Ok(ScatteredFreed { hidden, ..ScatteredFreed::ONE })
    }

    /// Of a page that is no small block of the first zone.
    #[cold]
    #[inline(never)]
    fn free_one(&self, address: VirtAddr, list: FrameList) -> Result<ScatteredFreed, RemoveError> {
        let freed = self.zones.free_list(list).map_err(FramesError::Free);
        freed.map_err(|error| RemoveError::Frames { address, error })?;
        Ok(ScatteredFreed::ONE)
    }
}

impl ScatteredFreed {
    /// Of one page that was as it should be.
    const ONE: Self = Self {
        freed: CoherentFreed { actual: 1, given: 1, missing: 0 },
        hidden: Removal { pages: 1, oddities: 0, left_alone: 0, first_oddity: None },
    };
}

/// Gives the addresses back at which there is nothing.
#[cold]
#[inline(never)]
fn no_page<R, M: Machine, T: Iotlb, L: Locks>(
    domain: &Domain<'_, '_, M, T, L>,
    iova: Iova,
) -> Option<R> {
    domain.give_up_page(iova);
    None
}
