//! The lists of free blocks, where buddies find each other.

use core::sync::atomic::Ordering::Relaxed;

use super::frame::{NONE, State};
use super::{FrameTable, MAX_ORDER, ORDERS, piece_order};

/// One doubly linked list of free blocks for each order; no two buddies lie on one.
#[derive(Debug)]
pub(super) struct BuddyLists {
    heads: [u32; ORDERS],
    /// Bit n is set while the list of order n holds a block.
    filled: u32,
    /// Frames in all the blocks.
    pages: u32,
}

impl BuddyLists {
    pub(super) const fn new() -> Self {
        Self { heads: [NONE; ORDERS], filled: 0, pages: 0 }
    }

    /// The order of the largest block.
    pub(super) const fn largest(&self) -> Option<u32> {
        self.filled.checked_ilog2()
    }

    /// The block of `order` that came last, or [`NONE`].
    pub(super) fn first(&self, order: u32) -> u32 {
        self.heads[order as usize]
    }

    /// Whether the list of `order` is marked as holding a block.
    pub(super) const fn is_filled(&self, order: u32) -> bool {
        self.filled & (1 << order) != 0
    }

    /// Frames in all the blocks.
    pub(super) const fn pages(&self) -> u32 {
        self.pages
    }

    /// Takes a block of `order` out of the lists, cut from the smallest that holds one.
    pub(super) fn cut(&mut self, table: &FrameTable<'_>, order: u32) -> Option<u32> {
        let fitting = self.filled & (u32::MAX << order);
        if fitting == 0 {
            return None;
        }
        let size = fitting.trailing_zeros();
        let index = self.unlink_first(table, size);
        self.keep_lower(table, index, size, order);
        Some(index)
    }

    /// As [`BuddyLists::cut`], of a block that ends at or below `end`: each list is walked until one is found.
    pub(super) fn cut_below(
        &mut self,
        table: &FrameTable<'_>,
        order: u32,
        end: u32,
    ) -> Option<u32> {
        (order..=MAX_ORDER).find_map(|size| {
            let reached = |&index: &u32| index + (1 << order) <= end;
            let index = self.blocks(table, size).find(reached)?;
            self.unlink(table, index, size);
            self.keep_lower(table, index, size, order);
            Some(index)
        })
    }

    /// Takes blocks out that end at or below `end`, the largest first, as long as they are no larger than what is `left` to
    /// take, and gives index and order of each.
    pub(super) fn take_whole_below(
        &mut self,
        table: &FrameTable<'_>,
        end: u32,
        left: &mut u32,
        mut give: impl FnMut(u32, u32),
    ) {
        for order in (0..=MAX_ORDER).rev() {
            let mut index = self.heads[order as usize];
            while index != NONE {
                // Before it is unlinked and its links are its new owner's.
                let next = table.record(index).next.load(Relaxed);
                if index + (1 << order) <= end && 1 << order <= *left {
                    self.unlink(table, index, order);
                    self.pages -= 1 << order;
                    *left -= 1 << order;
                    give(index, order);
                }
                index = next;
            }
        }
    }

    /// How many frames below `end` are free, and the order of the largest block among them.
    pub(super) fn supply_below(&self, table: &FrameTable<'_>, end: u32) -> (u32, Option<u32>) {
        let (mut free, mut largest) = (0, None);
        for order in 0..=MAX_ORDER {
            for index in self.blocks(table, order) {
                let below = end.saturating_sub(index).min(1 << order);
                free += below;
                // Of a block that the limit cuts in two, the largest aligned piece at its start.
                largest = largest.max(below.checked_ilog2());
            }
        }
        (free, largest)
    }

    /// The blocks on the list of `order`.
    fn blocks(&self, table: &FrameTable<'_>, order: u32) -> impl Iterator<Item = u32> {
        let some = |index| (index != NONE).then_some(index);
        core::iter::successors(some(self.heads[order as usize]), move |&index| {
            some(table.record(index).next.load(Relaxed))
        })
    }

    /// Gives back all but the first 2^`order` frames of a block of order `size` that was taken out.
    #[inline(always)]
    fn keep_lower(&mut self, table: &FrameTable<'_>, index: u32, size: u32, order: u32) {
        let mut size = size;
        while size > order {
            size -= 1;
            self.insert(table, index + (1 << size), size);
        }
        self.pages -= 1 << order;
    }

    /// Puts a run of free frames with clear records on the lists, in aligned pieces.
    pub(super) fn merge_run(&mut self, table: &FrameTable<'_>, start: u32, pages: u32) {
        let (mut index, mut left) = (start, pages);
        while left != 0 {
            let order = piece_order(index, left);
            self.merge(table, index, order);
            index += 1 << order;
            left -= 1 << order;
        }
    }

    /// Puts a free block on its list, joined with its buddy as long as that is free and whole too.
    pub(super) fn merge(&mut self, table: &FrameTable<'_>, index: u32, order: u32) {
        self.pages += 1 << order;
        let (mut index, mut order) = (index, order);
        while order < MAX_ORDER {
            let buddy = index ^ (1 << order);
            if buddy >= table.len() || table.record(buddy).state() != State::buddy(order) {
                break;
            }
            self.unlink(table, buddy, order);
            // The upper one becomes an inside; only heads carry a state.
            table.record(index | (1 << order)).set_state(State::INSIDE);
            index &= !(1 << order);
            order += 1;
        }
        self.insert(table, index, order);
    }

    fn insert(&mut self, table: &FrameTable<'_>, index: u32, order: u32) {
        let first = self.heads[order as usize];
        let record = table.record(index);
        record.set_state(State::buddy(order));
        record.next.store(first, Relaxed);
        record.previous.store(NONE, Relaxed);
        if first != NONE {
            table.record(first).previous.store(index, Relaxed);
        }
        self.heads[order as usize] = index;
        self.filled |= 1 << order;
    }

    fn unlink_first(&mut self, table: &FrameTable<'_>, order: u32) -> u32 {
        let index = self.heads[order as usize];
        self.unlink(table, index, order);
        index
    }

    fn unlink(&mut self, table: &FrameTable<'_>, index: u32, order: u32) {
        let record = table.record(index);
        let next = record.next.load(Relaxed);
        let previous = record.previous.load(Relaxed);
        if next != NONE {
            table.record(next).previous.store(previous, Relaxed);
        }
        if previous != NONE {
            table.record(previous).next.store(next, Relaxed);
            return;
        }
        self.heads[order as usize] = next;
        if next == NONE {
            self.filled &= !(1 << order);
        }
    }
}
