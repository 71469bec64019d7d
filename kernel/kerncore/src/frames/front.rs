//! Front lists: small blocks that came back, kept as they are for the next request.
//!
//! A loop that takes and gives back one frame would otherwise split a block of 1,024 ten times and merge it ten
//! times. Last in, first out, so that what is taken was used a moment ago and lies in the cache.

use core::sync::atomic::Ordering::Relaxed;

use super::FrameTable;
use super::frame::{NONE, State};

/// Orders 0 to 4 have a front list.
pub(super) const FRONT_ORDERS: u32 = 5;

/// One stack of free blocks for each small order.
#[derive(Debug)]
pub(super) struct FrontLists {
    heads: [u32; FRONT_ORDERS as usize],
    /// Blocks that each may still take in.
    room: [u32; FRONT_ORDERS as usize],
}

impl FrontLists {
    pub(super) const fn new() -> Self {
        let mut room = [0; FRONT_ORDERS as usize];
        let mut order = 0;
        while order < FRONT_ORDERS {
            room[order as usize] = Self::limit(order);
            order += 1;
        }
        Self { heads: [NONE; FRONT_ORDERS as usize], room }
    }

    /// Blocks that a front list holds: 64 frames in all, and never fewer than 8 blocks.
    pub(super) const fn limit(order: u32) -> u32 {
        let blocks = 64 >> order;
        if blocks < 8 { 8 } else { blocks }
    }

    /// Takes the block that came last. Its state is the caller's to write.
    #[inline(always)]
    pub(super) fn pop(&mut self, table: &FrameTable<'_>, order: u32) -> Option<u32> {
        let head = self.heads.get_mut(order as usize)?;
        let index = *head;
        if index == NONE {
            return None;
        }
        *head = table.record(index).next.load(Relaxed);
        self.room[order as usize] = self.room[order as usize].wrapping_add(1);
        Some(index)
    }

    /// Keeps a free block. When the list is full then, the caller merges half of it.
    #[inline(always)]
    pub(super) fn push(&mut self, table: &FrameTable<'_>, index: u32, order: u32) -> Fill {
        let record = table.record(index);
        record.set_state(State::front(order));
        record.next.store(self.heads[order as usize], Relaxed);
        self.heads[order as usize] = index;
        let room = self.room[order as usize].wrapping_sub(1);
        self.room[order as usize] = room;
        if room == 0 { Fill::Full } else { Fill::Room }
    }

    /// The block of `order` that came last, or [`NONE`].
    pub(super) fn first(&self, order: u32) -> u32 {
        self.heads.get(order as usize).copied().unwrap_or(NONE)
    }

    /// Frames waiting here.
    pub(super) fn pages(&self) -> u32 {
        (0..FRONT_ORDERS)
            .map(|order| (Self::limit(order) - self.room[order as usize]) << order)
            .sum()
    }
}

/// Whether a front list has room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// It has.
    Room,
    /// It has none.
    Full,
}
