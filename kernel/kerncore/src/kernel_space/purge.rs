//! The backlog of freed areas, and its purge (S89, S92).
//!
//! ```text
//!   vfree_atomic   Live → Dying, queued through its own record: still mapped, not found, addresses and frames taken
//!   purge          unmap up to BATCH of them ─▶ one flush for all ─▶ frames ─▶ addresses, under one lock
//! ```
//! Areas come here that are freed where they cannot be torn down. Others are not put off: to flush one range costs as
//! many instructions alone as among others, its frames and addresses are at hand for whoever asks next, and lowest first fit
//! (S1) finds them.
//!
//! What is unmapped and not yet flushed is bounded by [`BATCH`] ranges. What is queued is still mapped, and goes when a CPU waits,
//! when anybody makes an area while [`MOST_WAITING`] wait, and before anybody is refused for want of addresses, frames, records
//! or tables. Whoever queues cannot do it himself: where he is, nothing can be torn down.

use core::mem;
use core::sync::atomic::Ordering::{Relaxed, Release};

use crate::addr::VirtAddr;
use crate::area::{AreaKind, Mapping};
use crate::frames::FrameList;
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::{FramesError, KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{Backlog, Released};
use crate::slab::PlaceQueue;

/// How many ranges are flushed together at most. They lie on the stack meanwhile.
pub const BATCH: usize = 16;
/// How many areas may wait before whoever makes the next one frees them first.
pub const MOST_WAITING: u32 = 64;

/// What an area's frames and record wait for.
type Waiting<'t, 's, M, L> = Backlog<'t, M, L, (FrameList, AreaPlace<'s>), BATCH>;

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// As [`KernelSpace::vfree`], for where that may not be done, in a handler or with interrupts off: no lookup finds the area
    /// any more, and its memory and addresses come back with the next [`KernelSpace::free_deferred`] (S89). Any context.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub fn vfree_atomic(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
    ) -> Result<(), RemoveError> {
        let dying = self.retire(base, AreaKind::Vmalloc)?;
        // Counted before it can be taken out, lest the count fall below zero.
        self.waiting.fetch_add(1, Relaxed);
        self.deferred.with(|deferred| deferred.push(dying));
        Ok(())
    }

    /// How many areas [`KernelSpace::vfree_atomic`] has queued. Any context.
    pub fn deferred(&self) -> u32 {
        self.deferred.with(|deferred| deferred.count())
    }

    /// Frees what [`KernelSpace::vfree_atomic`] has queued, in that order (S89), ranges flushed together (S92), and says how many
    /// areas that were. What goes wrong with one is told to [`super::Support::deferred_free_failed`] and keeps no other. Not in
    /// interrupt context.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn free_deferred(&self) -> u32 {
        self.may_sleep_for("free_deferred");
        // Out of the lock, so that a handler may queue the next meanwhile.
        let queued = self.deferred.with(PlaceQueue::take_all);
        let mut count = 0;
        let mut waiting = Waiting::new(&self.table);
        for dying in queued {
            count += 1;
            self.put_off(&mut waiting, dying);
            if waiting.is_full() {
                self.purge(mem::replace(&mut waiting, Waiting::new(&self.table)));
            }
        }
        self.purge(waiting);
        // All of it can be had by who sees this.
        self.waiting.fetch_sub(count, Release);
        count
    }

    /// Before an area is made: frees what waits, if that is too much.
    #[inline(always)]
    pub(super) fn bound_backlog(&self) {
        if self.waiting.load(Relaxed) >= MOST_WAITING {
            self.free_too_many();
        }
    }

    #[cold]
    #[inline(never)]
    fn free_too_many(&self) {
        self.free_deferred();
    }

    /// Unmaps a dying area, whose flush waits for the next purge.
    fn put_off<'t>(&'t self, waiting: &mut Waiting<'t, 's, M, L>, mut dying: AreaPlace<'s>) {
        match mem::replace(&mut dying.mapping, Mapping::Nothing) {
            Mapping::Frames { usable, list } => {
                self.readers.wait_for(usable.start());
                self.assert_no_null(&dying, usable.pages());
                let pushed = waiting.push(self.table.unmap(usable, (list, dying)));
                debug_assert!(pushed.is_ok(), "there was room, and there is one table");
            }
            // None that is queued: vfree's areas have frames of their own.
            mapping => {
                dying.mapping = mapping;
                if let Err(error) = self.tear_down(dying) {
                    self.support.deferred_free_failed(&error);
                }
            }
        }
    }

    /// Flushes all that waits; only then frames and addresses go back (S23).
    fn purge(&self, waiting: Waiting<'_, 's, M, L>) {
        if waiting.count() == 0 {
            return;
        }
        for Released { range, payload: (list, mut place), removal } in waiting.flush() {
            let pages = range.pages();
            let freed = self.unless_odd(pages, removal, || {
                self.zones.free_list(list).map_err(FramesError::Free)
            });
            let array = self.free_array(mem::take(&mut place.array));
            self.give_up_addresses(range, removal, place);
            let address = pages.start();
            let freed = freed.map_err(|error| RemoveError::Frames { address, error });
            if let Err(error) = freed.and(array) {
                self.support.deferred_free_failed(&error);
            }
        }
    }
}
