//! The buddy allocator.

use core::sync::atomic::Ordering::Relaxed;

use super::buddy::BuddyLists;
use super::frame::{NONE, State};
use super::front::{FRONT_ORDERS, FrontLists, Kept};
use super::table::is_lendable;
use super::{
    AddError, AllocateError, Chain, Frame, FrameBlock, FrameList, FrameOwner, FrameRequest,
    FrameTable, FreeError, MAX_BLOCK, MAX_ORDER, Supply, order_for, piece_order,
};
use crate::addr::Pfn;

/// The free frames of a [`FrameTable`], in blocks of orders 0 to [`MAX_ORDER`].
///
/// It is plain state: the caller keeps it behind a lock, and no call sleeps, so that any context that may take the
/// lock may call. What it gives depends only on what was asked before: the smallest block that fits, the one
/// that came back last first.
///
/// It may have all frames of the table or a part of them, whole blocks of [`MAX_BLOCK`]: so no two allocators of one table
/// ever merge each other's.
#[derive(Debug)]
pub struct FrameAllocator<'t> {
    pub(super) table: FrameTable<'t>,
    /// The index of its first frame, and behind its last.
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) front: FrontLists<'t>,
    pub(super) buddies: BuddyLists,
}

impl<'t> FrameAllocator<'t> {
    /// An allocator over `table` that has no frames yet: [`FrameAllocator::add_range`] brings them.
    pub fn new(table: FrameTable<'t>) -> Self {
        Self::part(table, 0, table.len())
    }

    /// The same over the frames from index `start` up to `end` of `table`, both multiples of [`MAX_BLOCK`] or the table's end.
    pub(crate) const fn part(table: FrameTable<'t>, start: u32, end: u32) -> Self {
        Self { table, start, end, front: FrontLists::new(), buddies: BuddyLists::new() }
    }

    /// The index of its first frame.
    pub(crate) const fn start(&self) -> u32 {
        self.start
    }

    /// The index behind its last.
    pub(crate) const fn end(&self) -> u32 {
        self.end
    }

    /// How many frames it may have.
    pub(crate) const fn len(&self) -> u32 {
        self.end - self.start
    }

    /// The number of the first frame that it may have.
    pub(crate) fn first(&self) -> Pfn {
        self.table.pfn_at(self.start)
    }

    /// The table of the frames.
    pub const fn table(&self) -> FrameTable<'t> {
        self.table
    }

    /// Frames that are free, those on the front lists included.
    pub fn free_pages(&self) -> u32 {
        self.buddies.pages() + self.front.pages()
    }

    /// The order of the largest free block among those that do not wait on a front list.
    pub fn largest_free_order(&self) -> Option<u32> {
        self.buddies.largest()
    }

    /// Takes `pages` frames from `first` into the allocator: RAM, or what was set aside at boot and is needed no
    /// more. Any boundaries will do; an empty range changes nothing.
    ///
    /// # Errors
    /// [`AddError`]; nothing was changed.
    pub fn add_range(&mut self, first: Pfn, pages: u32) -> Result<(), AddError> {
        let start = self.table.check_unmanaged(first, pages)?;
        if start < self.start || start + pages > self.end {
            return Err(AddError::OutsideTable { first, pages });
        }
        for record in self.table.records(start, pages) {
            record.set_state(State::INSIDE);
        }
        self.buddies.merge_run(&self.table, start, pages);
        Ok(())
    }

    /// Takes a block of 2^`order` frames, aligned to its size.
    ///
    /// # Errors
    /// [`AllocateError`], also for an order above [`MAX_ORDER`].
    #[inline(always)]
    pub fn allocate(&mut self, order: u32, owner: FrameOwner) -> Result<FrameBlock, AllocateError> {
        match self.take_waiting(order, owner) {
            Some(record) => {
                let first = self.table.pfn_at(self.table.index_of_record(record));
                Ok(FrameBlock::new(first, 1 << order))
            }
            None => self.allocate_merged(order, owner),
        }
    }

    /// As [`FrameAllocator::allocate`], for callers that keep no handle but the first frame's record; `None` when no such
    /// block waits on a front list, or `owner` is none.
    #[inline(always)]
    pub fn take_waiting(&mut self, order: u32, owner: FrameOwner) -> Option<&'t Frame> {
        if !is_lendable(owner) {
            return None;
        }
        let record = self.front.pop(order)?;
        record.set_state(State::owned(order, owner));
        Some(record)
    }

    /// Takes exactly `pages` adjacent frames; the first is aligned to the next power of two of `pages`.
    ///
    /// # Errors
    /// [`AllocateError`], also for more than [`MAX_BLOCK`] frames.
    pub fn allocate_pages(
        &mut self,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        if pages == 0 {
            return Err(AllocateError::Zero { owner });
        }
        if pages > MAX_BLOCK {
            return Err(AllocateError::TooLarge { pages, owner });
        }
        let block = self.allocate(order_for(pages), owner)?;
        Ok(self.keep_first(block, pages, owner))
    }

    /// Keeps the first `pages` frames of a block and frees the rest.
    pub(super) fn keep_first(
        &mut self,
        block: FrameBlock,
        pages: u32,
        owner: FrameOwner,
    ) -> FrameBlock {
        if pages == block.pages() {
            return block;
        }
        // Mark the part that stays as blocks of its own, largest first, and let the tail go.
        let (first, whole) = block.leak();
        let start = self.table.index_of(first).unwrap_or(NONE);
        let mut index = start;
        while index < start + pages {
            let piece = piece_order(index, start + pages - index);
            self.table.record(index).set_state(State::owned(piece, owner));
            index += 1 << piece;
        }
        self.buddies.merge_run(&self.table, index, whole - pages);
        FrameBlock::new(first, pages)
    }

    /// Takes `pages` frames that need not be adjacent, in as few blocks as can be had. All or none.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    pub fn allocate_list(
        &mut self,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameList, AllocateError> {
        if !is_lendable(owner) {
            return Err(AllocateError::NotAnOwner { owner });
        }
        if pages == 0 {
            return Err(AllocateError::Zero { owner });
        }
        // While so many are free, single frames can be had, so nothing below can fail half way.
        if pages > self.buddies.pages() && pages > self.free_pages() {
            return Err(self.exhausted(pages, owner));
        }
        let mut list = FrameList::new();
        let mut left = pages;
        while left != 0 {
            let Some((record, order)) = self.take_at_most(left.ilog2().min(MAX_ORDER)) else {
                break;
            };
            record.set_state(State::owned(order, owner));
            list.push_record(&self.table, record, order);
            left -= 1 << order;
        }
        debug_assert_eq!(left, 0, "the free count is exact");
        Ok(list)
    }

    /// As [`FrameAllocator::allocate_list`] of `pages`, if that is one block which waits on a front list: its first frame's
    /// index. Otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn take_list_of_one(&mut self, pages: u32, owner: FrameOwner) -> Option<Chain> {
        if !pages.is_power_of_two() || !is_lendable(owner) {
            return None;
        }
        let order = pages.trailing_zeros();
        let record = self.front.pop(order)?;
        record.set_state(State::owned(order, owner));
        record.next.store(NONE, Relaxed);
        Some(Chain(self.table.index_of_record(record)))
    }

    /// Gives a block back.
    ///
    /// # Errors
    /// [`FreeError`] when the records do not agree with the handle, which only a raw free behind its owner's back
    /// or a foreign table can bring about; frames before the one named are free then, the others are as they were.
    #[inline(always)]
    pub fn free(&mut self, block: FrameBlock) -> Result<(), FreeError> {
        let (first, pages) = block.leak();
        if let Some(record) = self.table.frame(first) {
            let state = record.state();
            let order = state.order();
            if state.is_owned()
                && pages == 1_u32.wrapping_shl(order)
                && record.claim(state, State::front(order))
            {
                self.release(record, order);
                return Ok(());
            }
        }
        self.free_pieces(first, pages)
    }

    /// Gives all the blocks of a list back.
    ///
    /// # Errors
    /// As [`FrameAllocator::free`]: those after the frame named are lost, for their links cannot be trusted.
    pub fn free_list(&mut self, list: FrameList) -> Result<(), FreeError> {
        match self.free_chain(list.into_head()) {
            Chain::END => Ok(()),
            stopped => Err(self.diagnose_chain(stopped)),
        }
    }

    /// Gives back the blocks of a list up to the first that is not owned, or is another allocator's: the rest.
    #[inline(always)]
    pub(crate) fn free_chain(&mut self, head: Chain) -> Chain {
        let mut index = head.0;
        // One comparison: the end of a list lies outside of every part.
        while index.wrapping_sub(self.start) < self.end.wrapping_sub(self.start) {
            let record = self.table.record(index);
            let (state, next) = (record.state(), record.next.load(Relaxed));
            if !state.is_owned() {
                break;
            }
            // Most are single frames, and for those there is less to look up.
            match state.order() {
                0 => self.release(record, 0),
                order => self.release(record, order),
            }
            index = next;
        }
        Chain(index)
    }

    /// Why [`FrameAllocator::free_chain`] stopped where it did.
    #[cold]
    pub(crate) fn diagnose_chain(&self, stopped: Chain) -> FreeError {
        self.diagnose(self.table.pfn_at(stopped.0), 0)
    }

    /// Gives back the block of `order` at `frame` in the name of `owner`: for raw interfaces, whose callers hold
    /// no handle. It can free nothing that a handle of another owner stands for.
    ///
    /// # Errors
    /// [`FreeError`]; nothing was changed.
    pub fn free_at(&mut self, frame: Pfn, order: u32, owner: FrameOwner) -> Result<(), FreeError> {
        let record = self.table.frame(frame).ok_or(FreeError::NotManaged { frame })?;
        let state = record.state();
        if order > MAX_ORDER || !state.is_owned_of(order) {
            return Err(self.diagnose(frame, order));
        }
        if state.owner() != owner {
            return Err(FreeError::OtherOwner { frame, owner: state.owner(), claimed: owner });
        }
        // Another CPU may be giving the same block back, as a spare.
        if !record.claim(state, State::front(order)) {
            return Err(self.diagnose(frame, order));
        }
        self.release(record, order);
        Ok(())
    }

    /// As [`FrameAllocator::free_at`] of the block that begins with `record`, where that takes no more than putting it on a
    /// front list. Otherwise nothing was changed, and [`FrameAllocator::free_at`] frees it or says what is wrong.
    #[inline(always)]
    pub fn give_back(&mut self, record: &'t Frame, order: u32, owner: FrameOwner) -> Freed {
        let owned = State::owned(order, owner);
        // One comparison tells that it is a head, in use, of that order, and that owner's.
        if !record.claim(owned, State::front(order)) {
            return Freed::No;
        }
        if self.front.push(record, order) == Kept::Yes {
            return Freed::Yes;
        }
        record.set_state(owned);
        Freed::No
    }

    /// Merges all that waits on the front lists.
    pub fn drain(&mut self) {
        for order in 0..FRONT_ORDERS {
            self.spill(order, usize::MAX);
        }
    }

    /// Frames that wait unmerged on the front lists.
    pub fn waiting_pages(&self) -> u32 {
        self.front.pages()
    }
}

/// How blocks are found and taken back. Indices, not frame numbers.
impl<'t> FrameAllocator<'t> {
    #[inline(always)]
    pub(super) fn lend(&self, index: u32, order: u32, owner: FrameOwner) -> FrameBlock {
        self.table.record(index).set_state(State::owned(order, owner));
        FrameBlock::new(self.table.pfn_at(index), 1 << order)
    }

    /// When the front list had none.
    #[cold]
    fn allocate_merged(
        &mut self,
        order: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        Self::judge(order, owner)?;
        if let Some(index) = self.buddies.cut(&self.table, order) {
            return Ok(self.lend(index, order, owner));
        }
        self.drain();
        match self.buddies.cut(&self.table, order) {
            Some(index) => Ok(self.lend(index, order, owner)),
            None => Err(self.exhausted(1 << order, owner)),
        }
    }

    /// Whether such a block can be had at all.
    pub(crate) fn judge(order: u32, owner: FrameOwner) -> Result<(), AllocateError> {
        if !is_lendable(owner) {
            return Err(AllocateError::NotAnOwner { owner });
        }
        if order > MAX_ORDER {
            let pages = 1_u32.checked_shl(order).unwrap_or(u32::MAX);
            return Err(AllocateError::TooLarge { pages, owner });
        }
        Ok(())
    }

    #[cold]
    fn exhausted(&mut self, pages: u32, owner: FrameOwner) -> AllocateError {
        let Supply { free, largest } = self.supply();
        AllocateError::Exhausted { pages, owner, free, largest, from: FrameRequest::ANY }
    }

    /// Takes a block of `order`, or the largest that is left when there is none.
    #[inline(always)]
    fn take_at_most(&mut self, order: u32) -> Option<(&'t Frame, u32)> {
        match self.front.pop(order) {
            Some(record) => Some((record, order)),
            None => self.take_merged_at_most(order),
        }
    }

    #[inline(never)]
    fn take_merged_at_most(&mut self, order: u32) -> Option<(&'t Frame, u32)> {
        if let Some(index) = self.buddies.cut(&self.table, order) {
            return Some((self.table.record(index), order));
        }
        self.drain();
        let order = order.min(self.buddies.largest()?);
        let index = self.buddies.cut(&self.table, order)?;
        Some((self.table.record(index), order))
    }

    /// Takes back a block whose record was checked.
    #[inline(always)]
    pub(super) fn release(&mut self, record: &'t Frame, order: u32) {
        if self.front.push(record, order) == Kept::No {
            self.release_merged(record, order);
        }
    }

    /// When the front list had no room.
    #[cold]
    #[inline(never)]
    fn release_merged(&mut self, record: &'t Frame, order: u32) {
        // Half of what waits goes too, or the next one would come here again.
        self.spill(order, self.front.blocks(order).len() / 2);
        self.buddies.merge(&self.table, self.table.index_of_record(record), order);
    }

    /// Merges up to `blocks` blocks from the front list of `order`.
    fn spill(&mut self, order: u32, blocks: usize) {
        for _ in 0..blocks {
            let Some(record) = self.front.pop(order) else { break };
            self.buddies.merge(&self.table, self.table.index_of_record(record), order);
        }
    }

    /// Frees a run of an odd count piece by piece, or says what is wrong with it.
    #[cold]
    fn free_pieces(&mut self, first: Pfn, pages: u32) -> Result<(), FreeError> {
        let foreign = FreeError::NotManaged { frame: first };
        let start = self.table.index_of(first).ok_or(foreign)?;
        let end = start + pages;
        let mut index = start;
        while index < end {
            let order = piece_order(index, end - index);
            let claimed = index < self.table.len() && {
                let (record, front) = (self.table.record(index), State::front(order));
                let state = record.state();
                state.is_owned_of(order) && record.claim(state, front)
            };
            if !claimed {
                return Err(self.diagnose(self.table.pfn_at(index), order));
            }
            self.release(self.table.record(index), order);
            index += 1 << order;
        }
        Ok(())
    }

    /// Why the block of `order` at `frame` cannot be freed.
    #[cold]
    fn diagnose(&self, frame: Pfn, order: u32) -> FreeError {
        let Some(head) = self.table.index_of(frame).and_then(|index| self.table.head_of(index))
        else {
            return FreeError::NotManaged { frame };
        };
        let state = self.table.record(head).state();
        let (actual, owner, head) = (state.order(), state.owner(), self.table.pfn_at(head));
        if state.is_pinned() {
            FreeError::Reserved { frame, owner }
        } else if state.is_free() {
            FreeError::AlreadyFree { frame }
        } else if head != frame {
            FreeError::InsideBlock { frame, head, order: actual, owner }
        } else if state.windows() != 0 {
            FreeError::Shown { frame, owner, windows: state.windows() }
        } else if order > MAX_ORDER || frame.number().trailing_zeros() < order {
            FreeError::Misaligned { frame, order }
        } else {
            FreeError::WrongOrder { frame, owner, order, actual }
        }
    }
}

/// Whether a block was given back at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was not given back is still in use"]
pub enum Freed {
    /// It was.
    Yes,
    /// It was not, and nothing has changed.
    No,
}
