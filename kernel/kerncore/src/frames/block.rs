//! Owned frames: a run of adjacent ones, or a chain of blocks that needs no memory.

use core::marker::PhantomData;
use core::sync::atomic::Ordering::Relaxed;

use super::frame::{NONE, State};
use super::{Frame, FrameOwner, FrameTable};
use crate::addr::Pfn;

/// Adjacent frames that somebody owns.
///
/// There is one such handle for an owned run, made by the allocator; it is neither `Clone` nor `Copy`. A dropped
/// one leaks its frames, which the ledger sees under their owner's name.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped FrameBlock leaks its frames"]
pub struct FrameBlock {
    first: Pfn,
    pages: u32,
}

impl FrameBlock {
    #[inline(always)]
    pub(super) const fn new(first: Pfn, pages: u32) -> Self {
        Self { first, pages }
    }

    /// The first frame.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// How many frames.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Gives the handle up and leaves the frames with their owner: for raw interfaces, whose callers keep nothing
    /// but an address and free by it ([`super::FrameAllocator::free_at`]).
    pub const fn leak(self) -> (Pfn, u32) {
        (self.first, self.pages)
    }
}

/// A chain of owned blocks, linked through their own records.
///
/// It needs no memory, however long it is. The order of the blocks is kept. A dropped list leaks its frames, which
/// the ledger sees. Every call must be given the table that the frames came from.
#[derive(Debug)]
#[must_use = "a dropped FrameList leaks its frames"]
pub struct FrameList {
    pub(super) head: u32,
    pub(super) tail: u32,
    pages: u32,
}

impl FrameList {
    /// A list of nothing.
    pub const fn new() -> Self {
        Self { head: NONE, tail: NONE, pages: 0 }
    }

    /// How many frames are in it.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// The list, moved out of a place that its caller overwrites next without looking.
    #[inline(always)]
    pub(crate) const fn moved(&self) -> Self {
        Self { head: self.head, tail: self.tail, pages: self.pages }
    }

    /// The list of the one block of `pages` frames that begins the chain, and ends it.
    #[inline(always)]
    pub(crate) const fn of_one(Chain(head): Chain, pages: u32) -> Self {
        Self { head, tail: head, pages }
    }

    /// The first frame, if the list, which is not empty, is one block: the others follow it.
    #[inline(always)]
    pub(crate) fn one_block(&self, table: &FrameTable<'_>) -> Option<Pfn> {
        debug_assert!(!self.is_empty(), "no block at all");
        (self.head == self.tail).then(|| table.pfn_at(self.head))
    }

    /// The chain, to be given back without the list.
    #[inline(always)]
    pub(crate) const fn head(&self) -> Chain {
        Chain(self.head)
    }

    /// Gives the list up and leaves its frames with their owner, for what takes frames for good; says how many.
    pub const fn leak(self) -> u32 {
        self.pages
    }

    /// Whether it holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Appends the frames of `block`, in their order.
    pub fn push(&mut self, table: &FrameTable<'_>, block: FrameBlock) {
        let (first, pages) = block.leak();
        let Some(start) = table.index_of(first) else { return };
        let end = start + pages;
        let mut index = start;
        while index < end {
            let record = table.record(index);
            let order = record.state().order();
            self.push_record(table, record, order);
            index += 1 << order;
        }
    }

    /// Takes the first block out: one piece of 2^order frames.
    pub fn pop(&mut self, table: &FrameTable<'_>) -> Option<FrameBlock> {
        let (index, order) = self.pop_index(table)?;
        Some(FrameBlock::new(table.pfn_at(index), 1 << order))
    }

    /// Appends all of `other`, in a constant number of steps.
    pub fn append(&mut self, table: &FrameTable<'_>, other: Self) {
        let (head, tail, pages) = other.into_parts();
        if head != NONE {
            self.append_chain(table, head, tail, pages);
        }
    }

    /// Keeps the first `pages` frames, and gives the others as a list of their own. A block that the boundary lies in is cut.
    pub fn split_off(&mut self, table: &FrameTable<'_>, pages: u32) -> Self {
        let mut kept = Self::new();
        while kept.pages < pages {
            let Some((index, order)) = self.pop_index(table) else { break };
            let (left, end) = (pages - kept.pages, index + (1 << order));
            if 1 << order <= left {
                kept.push_record(table, table.record(index), order);
            } else {
                // The upper part first: until the lower one is cut, the old head speaks for all of the block.
                let mut rest = Self::new();
                rest.push_pieces(table, index + left, end, table.record(index).state().owner());
                kept.push_pieces(table, index, index + left, table.record(index).state().owner());
                rest.append(table, core::mem::take(self));
                *self = rest;
            }
        }
        core::mem::replace(self, kept)
    }

    /// Appends the frames from the index `start` up to `end`, as blocks of their own.
    fn push_pieces(&mut self, table: &FrameTable<'_>, start: u32, end: u32, owner: FrameOwner) {
        let mut index = start;
        while index < end {
            let order = super::piece_order(index, end - index);
            table.record(index).set_state(State::owned(order, owner));
            self.push_record(table, table.record(index), order);
            index += 1 << order;
        }
    }

    /// The frames, one by one, in the order of the list.
    pub const fn frames<'l, 't>(&'l self, table: &FrameTable<'t>) -> Frames<'l, 't> {
        Frames {
            table: *table,
            list: PhantomData,
            next: self.head,
            current: 0,
            end: 0,
            left: self.pages,
        }
    }

    /// The blocks, in the order of the list.
    pub const fn blocks<'l, 't>(&'l self, table: &FrameTable<'t>) -> Blocks<'l, 't> {
        Blocks { table: *table, list: PhantomData, next: self.head, left: self.pages }
    }

    /// Writes `owner` over every frame, which change hands. An owner that frames cannot be lent to changes nothing.
    pub fn set_owner(&mut self, table: &FrameTable<'_>, owner: FrameOwner) {
        if !super::table::is_lendable(owner) {
            return;
        }
        let mut index = self.head;
        while index != NONE {
            let record = table.record(index);
            record.set_state(State::owned(record.state().order(), owner));
            index = record.next.load(Relaxed);
        }
    }

    /// Appends the owned block that begins with `record`.
    #[inline(always)]
    pub(super) fn push_record(&mut self, table: &FrameTable<'_>, record: &Frame, order: u32) {
        record.next.store(NONE, Relaxed);
        let index = table.index_of_record(record);
        self.append_chain(table, index, index, 1 << order);
    }

    fn pop_index(&mut self, table: &FrameTable<'_>) -> Option<(u32, u32)> {
        if self.head == NONE {
            return None;
        }
        let index = self.head;
        let record = table.record(index);
        let order = record.state().order();
        self.head = record.next.load(Relaxed);
        if self.head == NONE {
            self.tail = NONE;
        }
        self.pages = self.pages.saturating_sub(1 << order);
        Some((index, order))
    }

    /// Appends a chain whose last link ends it.
    #[inline(always)]
    fn append_chain(&mut self, table: &FrameTable<'_>, head: u32, tail: u32, pages: u32) {
        if self.tail == NONE {
            self.head = head;
        } else {
            table.record(self.tail).next.store(head, Relaxed);
        }
        self.tail = tail;
        self.pages += pages;
    }

    /// The chain, which is no list's any more.
    pub(crate) const fn into_head(self) -> Chain {
        Chain(self.head)
    }

    const fn into_parts(self) -> (u32, u32, u32) {
        (self.head, self.tail, self.pages)
    }
}

/// Where a chain of blocks begins, on its way back to their allocators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is chained is not free yet"]
pub(crate) struct Chain(pub(super) u32);

impl Chain {
    /// The end of every chain.
    pub(crate) const END: Self = Self(NONE);

    /// The index of the next block's first frame.
    #[inline(always)]
    pub(crate) const fn index(self) -> u32 {
        self.0
    }
}

impl Default for FrameList {
    fn default() -> Self {
        Self::new()
    }
}

/// The blocks of a [`FrameList`], one by one: the first frame, and the binary logarithm of how many there are, to which that
/// is aligned.
#[derive(Clone, Debug)]
pub struct Blocks<'l, 't> {
    table: FrameTable<'t>,
    /// Keeps the list from changing meanwhile.
    list: PhantomData<&'l FrameList>,
    /// The head of the next block.
    next: u32,
    /// Frames to come.
    left: u32,
}

impl<'l, 't> Blocks<'l, 't> {
    /// What is left, frame by frame.
    pub const fn frames(self) -> Frames<'l, 't> {
        let Self { table, next, left, .. } = self;
        Frames { table, list: PhantomData, next, current: 0, end: 0, left }
    }
}

impl Iterator for Blocks<'_, '_> {
    type Item = (Pfn, u32);

    #[inline]
    fn next(&mut self) -> Option<(Pfn, u32)> {
        if self.left == 0 {
            return None;
        }
        let record = self.table.record(self.next);
        let (first, order) = (self.table.pfn_at(self.next), record.state().order());
        self.next = record.next.load(Relaxed);
        self.left = self.left.saturating_sub(1 << order);
        Some((first, order))
    }
}

/// The frames of a [`FrameList`], one by one.
#[derive(Debug)]
pub struct Frames<'l, 't> {
    table: FrameTable<'t>,
    /// Keeps the list from changing meanwhile.
    list: PhantomData<&'l FrameList>,
    /// The head of the next block.
    next: u32,
    /// The next frame of the block begun, and where that block ends.
    current: u32,
    end: u32,
    /// Frames to come.
    left: u32,
}

impl<'l, 't> Frames<'l, 't> {
    /// How many are to come.
    #[inline(always)]
    pub(crate) const fn left(&self) -> u32 {
        self.left
    }

    /// The next `count` of them, or all that are left if those are fewer, for a loop that keeps its place in registers.
    #[inline(always)]
    pub(crate) fn next_few(&mut self, count: u32) -> NextFew<'_, 'l, 't> {
        let left = count.min(self.left);
        NextFew { frames: self, left }
    }
}

/// Some of the frames to come: [`Iterator::fold`] goes by blocks, and is what they are made for.
#[derive(Debug)]
pub(crate) struct NextFew<'f, 'l, 't> {
    frames: &'f mut Frames<'l, 't>,
    left: u32,
}

impl NextFew<'_, '_, '_> {
    /// How many there are.
    #[inline(always)]
    pub(crate) const fn count_of_frames(&self) -> u32 {
        self.left
    }
}

impl Iterator for NextFew<'_, '_, '_> {
    type Item = Pfn;

    #[inline(always)]
    fn next(&mut self) -> Option<Pfn> {
        self.left = self.left.checked_sub(1)?;
        self.frames.next()
    }

    #[inline(always)]
    fn fold<B, F: FnMut(B, Pfn) -> B>(self, init: B, mut give: F) -> B {
        let Self { frames, mut left } = self;
        let table = frames.table;
        let (mut next, mut current, mut end) = (frames.next, frames.current, frames.end);
        frames.left = frames.left.wrapping_sub(left);
        let mut given = init;
        while left != 0 {
            if current == end {
                let record = table.record(next);
                current = next;
                end = next.wrapping_add(1_u32.wrapping_shl(record.state().order()));
                next = record.next.load(Relaxed);
            }
            let here = end.wrapping_sub(current).min(left);
            left = left.wrapping_sub(here);
            let stop = current.wrapping_add(here);
            while current != stop {
                given = give(given, table.pfn_at(current));
                current = current.wrapping_add(1);
            }
        }
        (frames.next, frames.current, frames.end) = (next, current, end);
        given
    }
}

impl Iterator for Frames<'_, '_> {
    type Item = Pfn;

    #[inline(always)]
    fn next(&mut self) -> Option<Pfn> {
        if self.current == self.end {
            if self.left == 0 {
                return None;
            }
            let record = self.table.record(self.next);
            self.current = self.next;
            self.end = self.next + (1 << record.state().order());
            self.next = record.next.load(Relaxed);
        }
        let frame = self.table.pfn_at(self.current);
        self.current += 1;
        self.left = self.left.wrapping_sub(1);
        Some(frame)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Frames<'_, '_> {}
