//! Spare blocks: of each order up to a section's the one that came back last, in a word that no lock guards.
//!
//! ```text
//!   take:       ── the spare? ──▶ front list? ──▶ lists of blocks
//!                  one swap       under the lock of frames
//!   give back:  ── claim it ──▶ it is the spare ──▶ the one before it: front list, or lists of blocks
//!                  one exchange    one swap            under the lock of frames
//! ```
//!
//! Most who take a small block gave one back a moment ago, or will in a moment: each costs a few atomic steps then, and no
//! lock. A spare is free, and its record says so, as one on a front list. No allocator knows of it, though: whoever counts
//! what is free, or finds too little, brings the spares home first ([`FrameAllocator::take_home`]).
//!
//! A block is claimed from its owner by one exchange of its record's word, and so are the blocks that raw interfaces
//! give back under the lock: of two who give back the same block, one finds that it is free already.

use core::fmt;

use super::frame::State;
use super::table::{is_lendable, record_at};
use super::{Frame, FrameAllocator, FrameOwner};
use crate::lock::{Locks, Slot};

/// Orders 0 to 8 have a spare: a section's frames are a block that comes and goes as small ones do. Larger ones than the front
/// lists keep are merged when they are brought home.
const SPARE_ORDERS: usize = 9;

/// The spare blocks of one allocator's frames.
///
/// Any context; takes no lock.
pub struct Spares<'t, L: Locks> {
    slots: [L::Slot<'t, Frame>; SPARE_ORDERS],
}

impl<'t, L: Locks> Spares<'t, L> {
    /// None yet.
    pub const fn new() -> Self {
        Self { slots: [const { L::Slot::EMPTY }; SPARE_ORDERS] }
    }

    /// Takes the spare block of 2^`order` frames in the name of `owner`: its first frame's record. `None` says nothing about
    /// memory.
    #[inline(always)]
    pub fn take(&self, order: u32, owner: FrameOwner) -> Option<&'t Frame> {
        if !is_lendable(owner) {
            return None;
        }
        let record = self.slots.get(order as usize)?.take()?;
        record.set_state(State::owned(order, owner));
        Some(record)
    }

    /// Makes the block of 2^`order` frames that begins with `record` the spare one, if it is `owner`'s.
    #[inline(always)]
    pub(crate) fn keep(&self, record: &'t Frame, order: u32, owner: FrameOwner) -> Spared<'t> {
        let Some(slot) = self.slots.get(order as usize) else { return Spared::No };
        // One comparison tells that it is a head, in use, of that order, and that owner's.
        if !record.claim(State::owned(order, owner), State::front(order)) {
            return Spared::No;
        }
        match slot.exchange(record) {
            None => Spared::Yes,
            Some(record) => Spared::InPlaceOf(Displaced { record, order }),
        }
    }

    /// As [`Spares::keep`], of the block whose first record is at `address`, if that is one of `records`.
    #[inline(always)]
    pub fn keep_at(
        &self,
        records: &'t [Frame],
        address: usize,
        order: u32,
        owner: FrameOwner,
    ) -> Spared<'t> {
        match record_at(records, address) {
            Some(record) => self.keep(record, order, owner),
            None => Spared::No,
        }
    }

    /// Takes all spares out, each with its order. They are free.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = (&'t Frame, u32)> + '_ {
        (0..).zip(&self.slots).filter_map(|(order, slot)| Some((slot.take()?, order)))
    }
}

/// Whether a block was kept as a spare.
#[derive(Debug)]
#[must_use = "what was not kept is still to be freed"]
pub enum Spared<'t> {
    /// It was.
    Yes,
    /// It was, and this was the spare one before.
    InPlaceOf(Displaced<'t>),
    /// It is not what it was said to be, or too large; nothing has changed.
    No,
}

/// A free block that no allocator knows of.
#[derive(Debug)]
#[must_use = "a dropped one is lost"]
pub struct Displaced<'t> {
    record: &'t Frame,
    order: u32,
}

impl<L: Locks> Default for Spares<'_, L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Locks> fmt::Debug for Spares<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.slots.iter().map(|slot| !slot.is_empty());
        f.debug_list().entries(kept).finish()
    }
}

impl<'t> FrameAllocator<'t> {
    /// Takes in a block of its frames that was a spare one.
    pub(crate) fn take_displaced(&mut self, Displaced { record, order }: Displaced<'t>) {
        self.release(record, order);
    }

    /// Takes in the spare blocks of its frames, which then wait on the front lists or are merged.
    pub(crate) fn take_home<L: Locks>(&mut self, spares: &Spares<'t, L>) {
        for (record, order) in spares.take_all() {
            self.release(record, order);
        }
    }
}
