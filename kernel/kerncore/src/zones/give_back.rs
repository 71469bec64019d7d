//! Giving frames back: a frame's number says which zone's it is.

use super::Zones;
use crate::addr::Pfn;
use crate::frames::{
    Chain, Displaced, Frame, FrameBlock, FrameList, FrameOwner, FreeError, Freed, Spared,
};
use crate::lock::{Lock, Locks};

impl<'s, L: Locks> Zones<'s, L> {
    /// Gives a block back.
    ///
    /// # Errors
    /// [`FreeError`] if the frame table disagrees with the handle.
    pub fn free(&self, block: FrameBlock) -> Result<(), FreeError> {
        let frame = block.first();
        let Some(zone) = self.index_of(frame).and_then(|index| self.zone_at(index)) else {
            return Err(FreeError::NotManaged { frame });
        };
        zone.with(|zone| zone.free(block))
    }

    /// As [`Zones::free`] of a block that `owner` has.
    ///
    /// # Errors
    /// [`FreeError`] if the frame table disagrees with the handle.
    #[inline(always)]
    pub(crate) fn free_block_of(
        &self,
        block: FrameBlock,
        owner: FrameOwner,
    ) -> Result<(), FreeError> {
        match self.give_back_block(block, owner) {
            Ok(()) => Ok(()),
            Err(block) => self.free(block),
        }
    }

    /// As [`Zones::free_block_of`], if it is a small block of the first zone.
    ///
    /// # Errors
    /// The block, if it is not: nothing has changed.
    #[inline(always)]
    pub(crate) fn give_back_block(
        &self,
        block: FrameBlock,
        owner: FrameOwner,
    ) -> Result<(), FrameBlock> {
        // A run of several blocks is none of that order, and is not taken for one.
        let order = block.pages().trailing_zeros();
        let record = self.first_table.frame(block.first());
        match record.map(|record| self.give_back_record(record, order, owner)) {
            Some(Freed::Yes) => Ok(()),
            _ => Err(block),
        }
    }

    /// Gives a list back.
    ///
    /// # Errors
    /// [`FreeError`] if the frame table disagrees with the list.
    pub fn free_list(&self, list: FrameList) -> Result<(), FreeError> {
        self.free_list_of_blocks(list)
    }

    /// As [`Zones::free_list`] of a list that `owner` has.
    ///
    /// # Errors
    /// [`FreeError`] if the frame table disagrees with the list.
    #[inline(always)]
    pub(crate) fn free_list_of(&self, list: FrameList, owner: FrameOwner) -> Result<(), FreeError> {
        match self.give_back_list(list, owner) {
            Ok(()) => Ok(()),
            Err(list) => self.free_list_of_blocks(list),
        }
    }

    /// As [`Zones::free_list_of`], if it is one small block of the first zone.
    ///
    /// # Errors
    /// The list, if it is not: nothing has changed.
    #[inline(always)]
    pub(crate) fn give_back_list(
        &self,
        list: FrameList,
        owner: FrameOwner,
    ) -> Result<(), FrameList> {
        let record = self.first_table.record_of_one(list.head(), self.first_span.0);
        let order = list.pages().trailing_zeros();
        match record.map(|record| self.give_back_record(record, order, owner)) {
            Some(Freed::Yes) => Ok(()),
            _ => Err(list),
        }
    }

    /// Takes in a block that another one took the place of as a spare.
    #[inline(never)]
    pub fn take_displaced(&self, displaced: Displaced<'s>) {
        self.first.with(|zone| zone.take_displaced(displaced));
    }

    #[inline(never)]
    fn free_list_of_blocks(&self, list: FrameList) -> Result<(), FreeError> {
        // A list is of one zone, as a rule, and of the first; of another, this does nothing.
        match self.first.with(|zone| zone.free_chain(list.into_head())) {
            Chain::END => Ok(()),
            rest => self.free_rest(rest),
        }
    }

    /// The rest of a list: each run of blocks of one zone is a turn.
    #[cold]
    #[inline(never)]
    fn free_rest(&self, mut rest: Chain) -> Result<(), FreeError> {
        while rest != Chain::END {
            let Some(zone) = self.zone_at(rest.index()) else { break };
            let next = zone.with(|zone| zone.free_chain(rest));
            if next == rest {
                return Err(zone.with(|zone| zone.diagnose_chain(rest)));
            }
            rest = next;
        }
        Ok(())
    }

    /// Gives back, by number, what `owner` took with an order: the way of callers that keep no handle.
    ///
    /// # Errors
    /// [`FreeError`]; nothing has changed.
    pub(crate) fn free_at(
        &self,
        frame: Pfn,
        order: u32,
        owner: FrameOwner,
    ) -> Result<(), FreeError> {
        let Some(zone) = self.index_of(frame).and_then(|index| self.zone_at(index)) else {
            return Err(FreeError::NotManaged { frame });
        };
        zone.with(|zone| zone.free_at(frame, order, owner))
    }

    /// As [`Zones::free_at`], of the frame whose record is at the address `record`, if it is one of the first zone's small blocks.
    /// Otherwise nothing was changed, and [`Zones::free_at`] frees it or says what is wrong.
    #[inline(always)]
    pub(crate) fn give_back(&self, record: usize, order: u32, owner: FrameOwner) -> Freed {
        // What is of another zone than the first goes the longer way.
        match self.first_table.record_at(record) {
            Some(record) => self.give_back_record(record, order, owner),
            None => Freed::No,
        }
    }

    /// As [`Zones::give_back`], of the block that begins with `record`, which is of the first zone.
    #[inline(always)]
    pub(crate) fn give_back_record(
        &self,
        record: &'s Frame,
        order: u32,
        owner: FrameOwner,
    ) -> Freed {
        match self.spares.keep(record, order, owner) {
            Spared::Yes => Freed::Yes,
            Spared::InPlaceOf(other) => {
                self.take_displaced(other);
                Freed::Yes
            }
            Spared::No => Freed::No,
        }
    }
}
