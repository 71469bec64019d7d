//! The frame table: a record for every frame of RAM, and the questions that anyone may ask it.

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use super::frame::{NONE, State};
use super::{AddError, Chain, Frame, FrameBlock, FrameOwner, MAX_BLOCK, MAX_ORDER, ORDERS};
use crate::addr::{PAGES_IN_ADDRESS_SPACE, Pfn};

/// The records of a run of frames, which need not all be RAM.
///
/// It is a view: copies speak of the same records. Asking needs no lock; an answer about a block that somebody is
/// allocating or freeing meanwhile is from before or after.
#[derive(Clone, Copy)]
pub struct FrameTable<'t> {
    frames: &'t [Frame],
    first: Pfn,
}

/// How the frames of a table are shared out, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Frames of each owner, in the order of [`FrameOwner::ALL`].
    pub pages: [u32; FrameOwner::COUNT],
    /// Free blocks of each order, those on the front lists included.
    pub free_blocks: [u32; ORDERS],
    /// Windows of programs that show blocks.
    pub shown: u32,
}

impl Census {
    /// Frames that `owner` has.
    pub const fn of(&self, owner: FrameOwner) -> u32 {
        self.pages[owner as usize]
    }
}

impl<'t> FrameTable<'t> {
    /// The bytes from one record to the next.
    #[expect(clippy::cast_possible_truncation, reason = "a record has 16 bytes")]
    pub(crate) const STRIDE: u32 = size_of::<Frame>() as u32;

    /// A table of no frames, to begin with.
    pub const fn empty() -> Self {
        let Some(first) = Pfn::new(0) else { unreachable!() };
        Self { frames: &[], first }
    }

    /// The table whose first record is that of frame `first`; every record is to be new or zeroed.
    ///
    /// `None` if `first` is not a multiple of [`MAX_BLOCK`] (give records for the hole below: buddies are found
    /// by their index) or if the table passes 4 GiB.
    pub fn new(frames: &'t [Frame], first: Pfn) -> Option<Self> {
        let count = u32::try_from(frames.len()).ok()?;
        let fits = PAGES_IN_ADDRESS_SPACE - first.number() >= count;
        (first.number().is_multiple_of(MAX_BLOCK) && fits).then_some(Self { frames, first })
    }

    /// The number of the first frame that has a record.
    pub const fn first(&self) -> Pfn {
        self.first
    }

    /// How many frames have a record.
    pub fn len(&self) -> u32 {
        // `new` saw that it fits.
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// Whether there are no records.
    pub const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The record of `frame`. Its address stands for the frame as long as the table lives (S85a).
    #[inline]
    pub fn frame(&self, frame: Pfn) -> Option<&'t Frame> {
        // What lies below the first frame wraps to an index that is too large.
        self.frames.get(frame.number().wrapping_sub(self.first.number()) as usize)
    }

    /// The frame whose record begins at `address`, as C code that holds page pointers asks (S85a).
    #[inline(always)]
    pub fn frame_at_record(&self, address: usize) -> Option<Pfn> {
        self.index_at_record(address).map(|index| self.pfn_at(index))
    }

    /// The pointer to the record of `frame`, as C code has it (S85a). On the target a pointer is one word; elsewhere these are the
    /// lower bits of one.
    #[inline(always)]
    pub fn pointer_to(&self, frame: Pfn) -> u32 {
        Self::pointer_from(self.pointer_to_frame_zero(), frame)
    }

    /// The pointer to `record`, as [`FrameTable::pointer_to`] has it.
    #[inline(always)]
    pub(crate) fn pointer(record: &Frame) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "a pointer of the target is one word")]
        let pointer = core::ptr::from_ref(record).addr() as u32;
        pointer
    }

    /// What [`FrameTable::pointer_to`] would be for frame 0, which most tables have no record of.
    #[inline(always)]
    pub(crate) fn pointer_to_frame_zero(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "a pointer of the target is one word")]
        let first = self.frames.as_ptr().addr() as u32;
        first.wrapping_sub(self.first.number().wrapping_mul(Self::STRIDE))
    }

    /// The pointer to the record of `frame`, where that of frame 0 would be `zero`.
    #[inline(always)]
    pub(crate) const fn pointer_from(zero: u32, frame: Pfn) -> u32 {
        zero.wrapping_add(frame.number().wrapping_mul(Self::STRIDE))
    }

    /// The record at `address`, if one begins there.
    #[inline(always)]
    pub(crate) fn record_at(&self, address: usize) -> Option<&'t Frame> {
        record_at(self.frames, address)
    }

    /// The records from the first frame's on.
    pub const fn frames(&self) -> &'t [Frame] {
        self.frames
    }

    /// The list of the one block that begins with `record`, which is of this table.
    #[inline(always)]
    pub(crate) fn chain_of_one(&self, record: &Frame) -> Chain {
        record.next.store(NONE, Relaxed);
        Chain(self.index_of_record(record))
    }

    /// The block of 2^`order` frames that begins with `record`, which is of this table and was taken for whoever asks.
    #[inline(always)]
    pub(crate) fn block_at(&self, record: &Frame, order: u32) -> FrameBlock {
        FrameBlock::new(self.pfn_at(self.index_of_record(record)), 1_u32.wrapping_shl(order))
    }

    /// The frame that the list begins with.
    #[inline(always)]
    pub(crate) fn first_of(&self, Chain(head): Chain) -> Pfn {
        self.pfn_at(head)
    }

    /// The record that the list from `head` on begins with, if it is one of this table, which begins at the index `start` of
    /// the list's, and no other block follows.
    #[inline(always)]
    pub(crate) fn record_of_one(&self, Chain(head): Chain, start: u32) -> Option<&'t Frame> {
        let record = self.frames.get(head.wrapping_sub(start) as usize)?;
        (record.next.load(Relaxed) == NONE).then_some(record)
    }

    /// The table of the frames from index `start` up to `end` alone; of none, if they are not all in this one.
    pub(crate) fn part(&self, start: u32, end: u32) -> Self {
        let first = self.first.checked_add(start).unwrap_or(self.first);
        Self { frames: self.frames.get(start as usize..end as usize).unwrap_or_default(), first }
    }

    /// As [`FrameTable::frame_at_record`], with the frame's owner.
    #[inline(always)]
    pub fn belonging_at_record(&self, address: usize) -> Option<Belonging> {
        let index = self.index_at_record(address)?;
        Some(Belonging { frame: self.pfn_at(index), owner: self.owner_at(index) })
    }

    /// What the record at `address` says, if one begins there; for loops over page pointers, most of which say the same.
    #[inline(always)]
    pub(crate) fn likeness_at_record(&self, address: usize) -> Option<Likeness> {
        self.index_at_record(address).map(|index| Likeness(self.record(index).state()))
    }

    /// The number of the frame whose record begins at `address`, counted from the table's first, if the record by itself says
    /// that its owner is one of those whose bits are set in `owners`.
    #[inline(always)]
    pub(crate) fn index_if_owned(&self, address: usize, owners: u16) -> Option<u32> {
        let index = self.index_at_record(address)?;
        Likeness(self.record(index).state()).is_of(owners).then_some(index)
    }

    /// That frame itself.
    #[inline(always)]
    pub(crate) fn frame_if_owned(&self, address: usize, owners: u16) -> Option<Pfn> {
        self.index_if_owned(address, owners).map(|index| self.pfn_at(index))
    }

    /// The number of the frame whose record begins at `address`, if the record says `like`.
    #[inline(always)]
    pub(crate) fn index_if_like(&self, address: usize, like: Likeness) -> Option<u32> {
        let index = self.index_at_record(address)?;
        (self.record(index).state() == like.0).then_some(index)
    }

    /// The numbers of the four frames whose records begin at `addresses`, counted from the table's first, if all four records
    /// say `like`.
    #[inline(always)]
    pub(crate) fn indices_if_like(
        &self,
        addresses: [usize; 4],
        like: Likeness,
    ) -> Option<[u32; 4]> {
        let indices = addresses.map(|address| self.turned_offset(address));
        // Without a branch between them.
        let inside = indices.iter().fold(true, |inside, &index| inside & (index < self.len()));
        if !inside {
            return None;
        }
        // One after the other: all four at once would take more registers than there are.
        indices.iter().all(|&index| self.record(index).state() == like.0).then_some(indices)
    }

    /// `frame`, with its owner.
    #[inline]
    pub fn belonging(&self, frame: Pfn) -> Belonging {
        Belonging { frame, owner: self.owner_of(frame) }
    }

    #[inline(always)]
    fn index_at_record(&self, address: usize) -> Option<u32> {
        let index = self.turned_offset(address);
        (index < self.len()).then_some(index)
    }

    /// The index of the record that begins at `address`; what lies below or beyond the table, or between two records, gives a
    /// number that is too large.
    #[inline(always)]
    fn turned_offset(&self, address: usize) -> u32 {
        u32::try_from(turned_offset(self.frames, address)).unwrap_or(u32::MAX)
    }

    /// Whose `frame` is; [`FrameOwner::Absent`] outside the table.
    #[inline]
    pub fn owner_of(&self, frame: Pfn) -> FrameOwner {
        match self.index_of(frame) {
            Some(index) => self.owner_at(index),
            None => FrameOwner::Absent,
        }
    }

    #[inline(always)]
    fn owner_at(&self, index: u32) -> FrameOwner {
        match self.record(index).state() {
            // What is taken page by page is known at once.
            state if state.is_head() => state.owner(),
            _ => self.owner_within(index),
        }
    }

    /// Whose the block is that the frame at `index` lies in, behind its first frame.
    ///
    /// By value, for a loop over frames keeps the table in registers only if its address is not taken.
    #[inline(never)]
    fn owner_within(self, index: u32) -> FrameOwner {
        self.head_of(index).map_or(FrameOwner::Absent, |head| self.record(head).state().owner())
    }

    /// Whose `frame` is, and how many frames from it on are so by the same block; one outside the table.
    #[inline]
    pub fn owned_run(&self, frame: Pfn) -> (FrameOwner, u32) {
        let Some(index) = self.index_of(frame) else { return (FrameOwner::Absent, 1) };
        match self.record(index).state() {
            state if state.is_head() => (state.owner(), 1 << state.order()),
            _ => self.owned_run_within(index),
        }
    }

    /// [`FrameTable::owned_run`] of the first frame of a block; `None` of any other.
    #[inline(always)]
    pub(crate) fn owned_from_head(&self, frame: Pfn) -> Option<(FrameOwner, u32)> {
        let state = self.record(self.index_of(frame)?).state();
        state.is_head().then(|| (state.owner(), 1 << state.order()))
    }

    /// Whose the block is that begins with `frame`, if one does.
    #[inline(always)]
    pub(crate) fn owner_from_head(&self, frame: Pfn) -> Option<FrameOwner> {
        let state = self.record(self.index_of(frame)?).state();
        state.is_head().then(|| state.owner())
    }

    /// The same as [`FrameTable::owned_run`] from the frame at `index` on, behind the first of its block.
    #[inline(never)]
    fn owned_run_within(self, index: u32) -> (FrameOwner, u32) {
        self.head_of(index).map_or((FrameOwner::Absent, 1), |head| {
            let state = self.record(head).state();
            (state.owner(), (1 << state.order()) - (index - head))
        })
    }

    /// Whether `frame` is the allocator's to lend: free or owned, but neither absent nor set aside at boot.
    pub fn is_managed(&self, frame: Pfn) -> bool {
        match self.index_of(frame).and_then(|index| self.head_of(index)) {
            Some(head) => !self.record(head).state().is_pinned(),
            None => false,
        }
    }

    /// The block that holds `frame`: its first frame, its order and its owner.
    pub fn block_of(&self, frame: Pfn) -> Option<(Pfn, u32, FrameOwner)> {
        let head = self.head_of(self.index_of(frame)?)?;
        let state = self.record(head).state();
        Some((self.pfn_at(head), state.order(), state.owner()))
    }

    /// Counts the frames of every owner. It steps from block to block, so mostly free memory is counted quickly.
    ///
    /// Exact only while nobody allocates or frees: the ledger takes it under the allocator's lock.
    pub fn census(&self) -> Census {
        let (pages, free_blocks) = ([0; FrameOwner::COUNT], [0; ORDERS]);
        let mut census = Census { pages, free_blocks, shown: 0 };
        let mut index = 0;
        while index < self.len() {
            let state = self.record(index).state();
            let pages = if state.is_head() { 1 << state.order() } else { 1 };
            census.pages[state.owner() as usize] += pages;
            census.shown += u32::from(state.windows());
            if state.is_free() {
                census.free_blocks[state.order() as usize] += 1;
            }
            index += pages;
        }
        census
    }

    /// Sets aside `pages` frames from `first` for good, in the name of `owner`. Only for absent frames, at boot.
    ///
    /// # Errors
    /// [`AddError`]; nothing was changed.
    pub fn reserve(&self, first: Pfn, pages: u32, owner: FrameOwner) -> Result<(), AddError> {
        let start = self.check_unmanaged(first, pages)?;
        for index in start..start + pages {
            self.record(index).set_state(State::pinned(owner));
        }
        Ok(())
    }

    /// Writes `owner` over every frame of `block`, which changes hands. An owner that frames cannot be lent to
    /// changes nothing.
    pub fn set_owner(&self, block: &mut FrameBlock, owner: FrameOwner) {
        if !is_lendable(owner) {
            return;
        }
        let Some(start) = self.index_of(block.first()) else { return };
        let end = start + block.pages();
        let mut index = start;
        while index < end {
            let order = self.record(index).state().order();
            self.record(index).set_state(State::owned(order, owner));
            index += 1 << order;
        }
    }

    /// The index of the first of `pages` frames from `first`, if all have records and none is managed.
    pub(super) fn check_unmanaged(&self, first: Pfn, pages: u32) -> Result<u32, AddError> {
        let outside = AddError::OutsideTable { first, pages };
        let start = first.checked_sub(self.first).ok_or(outside)?;
        let end = start.checked_add(pages).filter(|&end| end <= self.len()).ok_or(outside)?;
        let mut index = start;
        // A managed block that begins below the range may reach into it.
        if let Some(head) = self.head_of(start).filter(|&head| head < start) {
            return Err(self.already_managed(start, head));
        }
        while index < end {
            let state = self.record(index).state();
            if state.is_head() && !state.is_pinned() {
                return Err(self.already_managed(index, index));
            }
            index += 1;
        }
        Ok(start)
    }

    fn already_managed(&self, index: u32, head: u32) -> AddError {
        let owner = self.record(head).state().owner();
        AddError::AlreadyManaged { frame: self.pfn_at(index), owner }
    }

    /// The head of the block that holds the frame at `index`.
    ///
    /// Blocks are aligned to their size and only their heads are marked, so the largest aligned candidate that
    /// reaches as far as `index` is the one.
    pub(super) fn head_of(&self, index: u32) -> Option<u32> {
        (0..=MAX_ORDER).rev().map(|order| index & !((1 << order) - 1)).find(|&head| {
            let state = self.record(head).state();
            state.is_head() && index - head < 1 << state.order()
        })
    }

    pub(super) fn index_of(&self, frame: Pfn) -> Option<u32> {
        frame.checked_sub(self.first).filter(|&index| index < self.len())
    }

    /// The index of a record of this table.
    #[inline(always)]
    pub(super) fn index_of_record(&self, record: &Frame) -> u32 {
        let offset = core::ptr::from_ref(record).addr().wrapping_sub(self.frames.as_ptr().addr());
        u32::try_from(offset / size_of::<Frame>()).unwrap_or(NONE)
    }

    #[inline(always)]
    pub(super) fn pfn_at(&self, index: u32) -> Pfn {
        // `new` saw that the table ends below 4 GiB, so the mask changes nothing; it spares a branch a frame.
        let number = self.first.number().wrapping_add(index) & (PAGES_IN_ADDRESS_SPACE - 1);
        Pfn::new(number).unwrap_or(self.first)
    }

    /// The records of `pages` frames from `start`.
    #[inline(always)]
    pub(super) fn records(&self, start: u32, pages: u32) -> &'t [Frame] {
        &self.frames[start as usize..][..pages as usize]
    }

    #[inline(always)]
    pub(super) fn record(&self, index: u32) -> &'t Frame {
        &self.frames[index as usize]
    }
}

/// A frame, and whose it was when the table was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belonging {
    /// The frame.
    pub frame: Pfn,
    /// Whose it is; [`FrameOwner::Absent`] outside the table.
    pub owner: FrameOwner,
}

/// What a frame's record says of it. Two that are alike belong to the same owner.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Likeness(State);

impl Likeness {
    /// What the record says of a frame that `owner` has by itself, and that no program sees.
    pub(crate) const fn single(owner: FrameOwner) -> Self {
        Self(State::owned(0, owner))
    }

    /// Whether the record by itself says that the frame's owner is one of those whose bits are set in `owners`: those inside a
    /// block say nothing.
    #[inline(always)]
    pub(crate) const fn is_of(self, owners: u16) -> bool {
        self.0.is_head_of(owners)
    }
}

/// The one of `records` that begins at `address`.
#[inline(always)]
pub(super) fn record_at(records: &[Frame], address: usize) -> Option<&Frame> {
    records.get(turned_offset(records, address))
}

/// The index of the one of `records` that begins at `address`; what lies below or beyond them, or between two, gives a number
/// that is too large.
///
/// Turned first and then subtracted, which takes one instruction. What begins no record differs from them in the bits that come
/// out on top, and the rest cannot make up for that: it would have to lie as far below them as the address space is large, less
/// the records, and they end within it.
#[inline(always)]
fn turned_offset(records: &[Frame], address: usize) -> usize {
    const SHIFT: u32 = size_of::<Frame>().trailing_zeros();
    const { assert!(size_of::<Frame>().is_power_of_two(), "a stride that shifts can find") };
    let first = records.as_ptr().addr().rotate_right(SHIFT);
    address.rotate_right(SHIFT).wrapping_sub(first)
}

/// Whether the allocator lends frames in this name.
pub(super) const fn is_lendable(owner: FrameOwner) -> bool {
    !matches!(owner, FrameOwner::Absent | FrameOwner::Free)
}

impl fmt::Debug for FrameTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameTable({} frames from {})", self.frames.len(), self.first)
    }
}
