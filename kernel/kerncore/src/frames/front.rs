//! Front lists: small blocks that came back, kept as they are for the next request.
//!
//! A loop that takes and gives back one frame would otherwise split a block of 1,024 ten times and merge it ten
//! times. Last in, first out, so that what is taken was used a moment ago and lies in the cache.

use core::sync::atomic::Ordering::Relaxed;

use super::FrameTable;
use super::frame::{NONE, State};

/// Orders 0 to 4 have a front list.
pub(super) const FRONT_ORDERS: u32 = 5;

/// Blocks that a front list holds before half of them are merged: 64 frames in all, and never fewer than 8 blocks.
const fn limit(order: u32) -> u32 {
    let blocks = 64 >> order;
    if blocks < 8 { 8 } else { blocks }
}

/// One stack of free blocks for each small order.
#[derive(Debug)]
pub(super) struct FrontLists {
    heads: [u32; FRONT_ORDERS as usize],
    counts: [u32; FRONT_ORDERS as usize],
}

impl FrontLists {
    pub(super) const fn new() -> Self {
        Self { heads: [NONE; FRONT_ORDERS as usize], counts: [0; FRONT_ORDERS as usize] }
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
        self.counts[order as usize] = self.counts[order as usize].wrapping_sub(1);
        Some(index)
    }

    /// Keeps a free block; `Overfull` asks the caller to merge [`FrontLists::excess`] blocks of this order.
    #[inline(always)]
    pub(super) fn push(&mut self, table: &FrameTable<'_>, index: u32, order: u32) -> Fill {
        let record = table.record(index);
        record.set_state(State::front(order));
        record.next.store(self.heads[order as usize], Relaxed);
        self.heads[order as usize] = index;
        let count = self.counts[order as usize].wrapping_add(1);
        self.counts[order as usize] = count;
        if count > limit(order) { Fill::Overfull } else { Fill::Room }
    }

    /// How many blocks to merge when a list is overfull: half, so that the next ones find room.
    pub(super) const fn excess(order: u32) -> u32 {
        limit(order) / 2
    }

    /// Blocks of `order` waiting here.
    pub(super) fn count(&self, order: u32) -> u32 {
        self.counts.get(order as usize).copied().unwrap_or(0)
    }

    /// Frames waiting here.
    pub(super) fn pages(&self) -> u32 {
        self.counts.iter().zip(0_u32..).map(|(count, order)| count << order).sum()
    }
}

/// Whether a front list has room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// It has.
    Room,
    /// It holds more than it should.
    Overfull,
}
