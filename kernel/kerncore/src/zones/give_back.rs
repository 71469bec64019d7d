//! Giving frames back: a frame's number says which zone's it is.

use super::Zones;
use crate::addr::Pfn;
use crate::frames::{Chain, FrameBlock, FrameList, FrameOwner, FreeError, Freed};
use crate::lock::{Lock, Locks};

impl<L: Locks> Zones<'_, L> {
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
        let (head, pages) = (list.head(), list.pages());
        // What is small is one block of the first zone, as a rule, and goes to a front list.
        let freed = self.is_first(head.index())
            && self.first.with(|zone| zone.give_back_list_of_one(head, pages, owner)) == Freed::Yes;
        if freed { Ok(()) } else { self.free_list_of_blocks(list) }
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

    /// As [`Zones::free_at`], of the frame whose record is at the address `record`, if that takes no more than putting it on
    /// a front list. Otherwise nothing was changed, and [`Zones::free_at`] frees it or says what is wrong.
    #[inline(always)]
    pub(crate) fn give_back(&self, record: usize, order: u32, owner: FrameOwner) -> Freed {
        // What is of another zone than the first goes the longer way.
        match self.first_table.record_at(record) {
            Some(record) => self.first.with(|zone| zone.give_back(record, order, owner)),
            None => Freed::No,
        }
    }
}
