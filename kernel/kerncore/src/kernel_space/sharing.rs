//! Mappings of registers that several users share, each with a use of his own (S57 to S63).
//!
//! Two devices whose registers lie in one page need not have two mappings of it. By default each caller of ioremap gets his own all
//! the same: it costs him some addresses, and he answers to nobody. [`KernelSpace::ioremap_shared`] uses what is mapped already,
//! if that was made to be shared, has the same attributes, and has all pages of the request.
//!
//! ```text
//!   ioremap_shared                              iounmap
//!   ──────────────                              ───────
//!   find a mapping that has all pages  ┐ one    find it by any address inside         ┐
//!   count one more user                ┘        users > 1: count one less, return     │ one
//!     or, if there is none:                     users = 1: no more found by frames,   │
//!   take addresses, note the run       ─ one               retire it                  ┘
//!   map                                ─ none   unmap, flush                          ─ none
//!   publish: found from now on, 1 user ─ one    forget the run, free the addresses    ─ one
//! ```
//! "One" is one critical section of the lock of areas, exclusive; "none" is a step under no lock.
//!
//! # The rules
//! 1. The number of users, whether the physical index shows a run to those who want to share it, and whether the area lives,
//!    change under the lock of areas alone, and together: a run is shown if and only if its area lives and has a user.
//! 2. To find a mapping and to count oneself among its users is one step. Between two another CPU could take the last user
//!    away, and with him the mapping (S60).
//! 3. To count a user less and to look whether he was the last is one step, in which the last one also takes the mapping out of
//!    sight. So there is exactly one last user, he knows that he is, and nobody comes after him.
//! 4. What is not mapped yet is not found, and what failed never was. Two who begin at once may therefore each make a mapping; both
//!    are right, and whoever comes later shares one of them.
//! 5. What is being unmapped is not found any more, but its run stays in the index until after the flush: nobody may map the
//!    page with another type before (S97).
//!
//! # Why iounmap may return early
//! Who is not the last user returns without having unmapped anything, and that is all he has to do: his was one of several uses, his
//! pointer is his no more, and the mapping is the others'. He saw under the lock that another use is left, whose end comes by this
//! same way, so the teardown is not forgotten; and it was not he whom rule 3 tells to do it, so it is not done twice. Nothing that
//! he could still do could matter to anybody, which is why nothing is done after the lock.
//!
//! A use is counted and not listed. Who gives up his use by address, as C callers do, could give up another's; whoever owns an `IoMem` of
//! the crate `mm` cannot, for it ends with its one owner. When all uses are given up, one more is refused: no area is there.

use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::area::{AreaKind, AreaSummary, Mapping};
use crate::attributes::Attributes;
use crate::kernel_space::areas::{AreaPlace, Areas};
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{IoRemapError, KernelSpace, RemoveError};
use crate::lock::{Lock, Locks, SharedLock};
use crate::machine::Machine;
use crate::physical_index::{Class, Sharing};

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// As [`KernelSpace::ioremap_own`], but uses what somebody else has mapped to be shared, if that has the same attributes and all
    /// pages of the request (S58); the address has the request's own offset (S59). Each use is ended by an
    /// [iounmap](KernelSpace::iounmap) of its own; the last ends the mapping. Not in interrupt context (S10).
    ///
    /// # Errors
    /// [`IoRemapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn ioremap_shared(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<VirtAddr, IoRemapError> {
        match self.share_at_hand(physical, bytes, Class::new(attributes)) {
            Some(address) => Ok(address),
            None => self.map_shared(physical, bytes, attributes, caller),
        }
    }

    /// As [`KernelSpace::ioremap_shared`], of what is mapped to be shared already. Otherwise nothing has changed.
    ///
    /// Not inlined, and what it gives fits a register: it has all registers to itself.
    #[inline(never)]
    fn share_at_hand(&self, physical: PhysAddr, bytes: u32, class: Class) -> Option<VirtAddr> {
        let last = physical.checked_add(bytes.checked_sub(1)?)?;
        if self.statics.may_have(physical, last) {
            return None;
        }
        let address = self.use_at_hand((physical.pfn(), last.pfn()), class)?;
        Some(VirtAddr::new(address.raw() | physical.page_offset()))
    }

    /// As [`KernelSpace::ioremap_shared`], of what is to be mapped, or refused.
    #[cold]
    #[inline(never)]
    fn map_shared(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<VirtAddr, IoRemapError> {
        self.map_devices(physical, bytes, attributes, (Sharing::Shared, caller))
    }

    /// From now on [`KernelSpace::ioremap`] shares (`ioremap=shared`). What is mapped already stays its user's own. Any context.
    pub fn share_by_default(&self) {
        self.shares.store(true, Relaxed);
    }

    /// Whether [`KernelSpace::ioremap`] shares.
    #[inline(always)]
    pub fn shares_by_default(&self) -> bool {
        self.shares.load(Relaxed)
    }

    /// How many users the mapping has that `address` lies in; zero if it is not made to be shared, `None` if there is none.
    pub fn users_of(&self, address: VirtAddr) -> Option<u32> {
        self.areas.look(|areas| {
            let (_, place) = areas.space.find_containing(address)?;
            Some(place.devices.users)
        })
    }

    /// Finds pages with those attributes that are mapped to be shared, and counts one user more: where the first is.
    #[inline(never)]
    pub(super) fn use_again(&self, range: (Pfn, Pfn), attributes: Attributes) -> Option<VirtAddr> {
        self.use_at_hand(range, Class::new(attributes))
    }

    #[inline(always)]
    fn use_at_hand(&self, range: (Pfn, Pfn), class: Class) -> Option<VirtAddr> {
        self.may_sleep_for("ioremap_shared");
        self.areas.with(|areas| areas.use_again(range, class))
    }

    /// As [`KernelSpace::publish`]; others may use it from now on.
    pub(super) fn publish_shared(
        &self,
        mut place: AreaPlace<'s>,
        mapping: Mapping,
        new: NewArea,
    ) -> AreaSummary {
        let area = new.describe(&mut place, mapping);
        self.areas.with(|areas| {
            areas.show_run(&mut place, Sharing::Shared);
            place.devices.users = 1;
            areas.publish(area.pages.start(), place);
        });
        area
    }
}

impl<'s> Areas<'s> {
    #[inline(always)]
    fn use_again(&mut self, range: (Pfn, Pfn), class: Class) -> Option<VirtAddr> {
        let run = self.index.covering(range, class)?;
        let users = &mut self.find_mut(run.address())?.devices.users;
        // One more than can be counted gets a mapping of his own.
        *users = users.checked_add(1)?;
        Some(VirtAddr::new(run.page_of(range.0.number()) * PAGE_SIZE))
    }

    /// Counts one user less of a mapping that has more than this one, and says whether it did.
    #[inline(always)]
    pub(super) fn count_less(users: &mut u32) -> bool {
        let has_others = *users > 1;
        if has_others {
            *users = users.wrapping_sub(1);
        }
        has_others
    }

    /// Counts one user less of the mapping that `address` lies in. If he was the last, or the only one: Live → Dying.
    #[inline(always)]
    pub(super) fn end_use(
        &mut self,
        address: VirtAddr,
    ) -> Result<Option<AreaPlace<'s>>, RemoveError> {
        let base = self.base_of(address).ok_or(RemoveError::Unknown { address })?;
        let is_own = |place: &AreaPlace<'s>| {
            place.kind == AreaKind::IoRemap && place.users == 0 && place.devices.users == 0
        };
        match self.space.retire_where(base, is_own) {
            Some(dying) => Ok(Some(dying)),
            None => self.end_shared_use(base),
        }
    }

    #[cold]
    #[inline(never)]
    fn end_shared_use(&mut self, base: VirtAddr) -> Result<Option<AreaPlace<'s>>, RemoveError> {
        let users = self.find_mut(base).map(|record| &mut record.devices.users);
        if users.is_some_and(Self::count_less) {
            return Ok(None);
        }
        let mut dying = self.retire(base, AreaKind::IoRemap)?;
        dying.devices.users = 0;
        self.show_run(&mut dying, Sharing::Own);
        Ok(Some(dying))
    }

    /// Shows the run of the area of `place` to those who want to share it, or no more.
    fn show_run(&mut self, place: &mut AreaPlace<'s>, sharing: Sharing) {
        let devices = &mut place.devices;
        devices.runs = self.index.set_sharing(devices.runs, devices.page, sharing);
    }
}
