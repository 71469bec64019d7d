//! Removal by callers that hold a descriptor (S14, S48).
//!
//! ```text
//!   remove_area(base)         Live ──▶ … ──▶ addresses Free; the descriptor stays readable ──free_removed──▶ its place is free
//!   free_area(descriptor)     Live ──▶ … ──▶ addresses and place Free, in one step
//! ```
//!
//! A descriptor that was given out keeps its place until its owner frees it: what it says of size and flags stays true, and
//! no other area's description appears where the owner still reads (S14).

use core::mem;

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::area::{AreaKind, AreaRecord, Mapping, VmStruct};
use crate::kernel_space::areas::{AreaPlace, Areas};
use crate::kernel_space::{Ended, FramesError, KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{Released, Removal};

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Removes the bare or vmap area at `base`, and gives its descriptor, which is the caller's until
    /// [`KernelSpace::free_removed`] and no longer counts the guard (S2, S14). Not in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`]. Memory of vmalloc, of devices, and registers have removals of their own (S34).
    ///
    /// # Panics
    /// In interrupt context.
    pub fn remove_area(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
    ) -> Result<*const VmStruct, RemoveError> {
        self.may_sleep_for("remove_vm_area");
        if !base.is_page_aligned() {
            return Err(RemoveError::Misaligned { address: base });
        }
        let mut gone = self.areas.with(|areas| areas.retire_plain(base, |_| true))?;
        self.readers.wait_for(base);
        let mapping = mem::replace(&mut gone.mapping, Mapping::Nothing);
        let pages = mapping.pages();
        let (range, removal) = match mapping {
            Mapping::Reserved { usable } => (usable, Removal::default()),
            Mapping::Borrowed { usable } | Mapping::Devices { usable } => {
                let Released { range, removal, .. } = self.table.unmap(usable, ()).flush();
                (range, removal)
            }
            Mapping::Large { usable, list, parts, parked } => {
                let Released { range, removal, .. } =
                    self.vunmap_large(usable, parts, parked, list);
                (range, removal)
            }
            // Of no area that is retired as plain.
            _ => return Err(RemoveError::Unknown { address: base }),
        };
        if removal.oddities != 0 {
            self.support.odd_tables(pages, removal);
        }
        self.forget_devices(&mut gone);
        gone.vm.set_size(pages.count() * PAGE_SIZE);
        let descriptor = &raw const gone.vm;
        self.areas.with(|areas| {
            if removal.left_alone == 0 {
                let released = areas.space.release(range);
                debug_assert!(released.is_ok(), "an area's range was exchanged: {released:?}");
                areas.removed.push(gone);
                return Ok(descriptor);
            }
            areas.records.give_back(gone);
            Err(RemoveError::Frames { address: base, error: FramesError::StillMapped })
        })
    }

    /// Frees the descriptor that [`KernelSpace::remove_area`] gave; says whether it is one. Any context.
    pub fn free_removed(&self, _authority: M::Authority, descriptor: *const VmStruct) -> bool {
        self.areas.with(|areas| {
            let is_it = |record: &AreaRecord| &raw const record.vm == descriptor;
            let place = areas.removed.take_where(is_it);
            place.map(|place| areas.records.give_back(place)).is_some()
        })
    }

    /// Removes the bare or vmap area at `base`, if `descriptor` is its descriptor (S48). Not in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`]; [`RemoveError::Unknown`] also for the descriptor of another area.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn free_area(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
        descriptor: *const VmStruct,
    ) -> Result<(), RemoveError> {
        // One in which nothing was ever mapped, as a rule.
        match self.free_reserved(base, descriptor) {
            Ended::Yes => Ok(()),
            Ended::No => self.free_mapped(base, descriptor),
        }
    }

    #[inline(never)]
    fn free_mapped(&self, base: VirtAddr, descriptor: *const VmStruct) -> Result<(), RemoveError> {
        let is_it = |record: &AreaRecord| &raw const record.vm == descriptor;
        self.tear_down(self.areas.with(|areas| areas.retire_plain(base, is_it))?)
    }
}

impl<'s> Areas<'s> {
    /// Live → Dying of a bare or vmap area of which `may` says that it is the one.
    #[inline(always)]
    fn retire_plain(
        &mut self,
        base: VirtAddr,
        may: impl Fn(&AreaRecord) -> bool,
    ) -> Result<AreaPlace<'s>, RemoveError> {
        let unknown = RemoveError::Unknown { address: base };
        let judge = |place: &AreaPlace<'s>| match (place.kind, place.users) {
            _ if !may(place) => Err(unknown),
            (AreaKind::Bare | AreaKind::Vmap, 0) => Ok(()),
            (AreaKind::Bare | AreaKind::Vmap, users) => Err(RemoveError::in_use(base, users)),
            (found, _) => Err(RemoveError::WrongKind { address: base, found }),
        };
        self.space.retire_if(base, judge).unwrap_or(Err(unknown))
    }
}
