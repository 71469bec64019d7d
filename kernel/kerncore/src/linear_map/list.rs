//! Frames that need not be adjacent, on their way out of the linear map and back.
//!
//! ```text
//!   FrameList ──withdraw_list──▶ WithdrawnList ──flush──▶ AbsentList ──lend──▶ LentList { at its addresses, clean } ──┐
//!       ▲          all entries cleared       TLBs forget all │  ▲                 │              ▲                    │
//!       └──────────────────restore_list──────────────────────┘  └─flush─ Unmapped ◀┘unmap        └───────remap────────┘
//! ```
//! Each step is of all frames or of none: every entry is looked at before the first is written. The steps are those of a block,
//! in its order and for its reasons ([`super`]), with one barrier and one flush for all blocks of the list. The list is chained
//! through the records of its frames, so that nothing here takes memory; every call must be given their table.

use core::fmt;

use super::{ATTRIBUTES, LENDING, LendError, LinearFault, LinearMap};
use crate::{
    addr::{PAGE_SIZE, PageRange, Pfn},
    attributes::Attributes,
    descriptor::l2::SmallPages,
    frames::{FrameList, FrameTable},
    lines::Edge,
    lock::Locks,
    machine::Machine,
    owned_range::OwnedRange,
    page_table::{MapError, PageTable, TableSource, Unmapped},
};

mod one;

/// Up to so many pages, as many as small TLBs have entries, the flush names each run of adjacent frames. From there on it names the
/// one range that spans them all, which a machine may take as a reason to empty its TLB at once.
const NAMED_AT_MOST: u32 = 64;

/// Why a list cannot leave the linear map or come back. Nothing was written, and it is given back as it was.
#[derive(Debug)]
pub struct ListError<B> {
    /// What was wrong, and with which frame.
    pub fault: LinearFault,
    /// The list.
    pub list: B,
}

/// Frames whose linear entries are cleared and whose translations may linger in TLBs. Dropped, it leaks.
#[must_use = "only `flush` gives the list back"]
pub struct WithdrawnList<'map, M> {
    map: &'map LinearMap<M>,
    list: FrameList,
}

/// Frames that no cacheable mapping reaches any more; their lines may still be in a cache.
#[derive(Debug)]
#[must_use = "a dropped list leaks its frames"]
pub struct AbsentList(FrameList);

/// Frames mapped at addresses of their own, absent from the linear map, with no line left in any cache when they were mapped.
#[derive(Debug)]
#[must_use = "a dropped list leaks its frames and addresses"]
pub struct LentList {
    range: OwnedRange,
    list: FrameList,
}

/// The entries of an area were not what its owner had made: somebody else wrote there. What is mapped now, he must not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disturbed;

impl<M: Machine> LinearMap<M> {
    /// Takes the entries of all frames of `list` out. The list comes back from [`WithdrawnList::flush`].
    ///
    /// # Errors
    /// [`ListError`].
    pub fn withdraw_list(
        &self,
        frames: &FrameTable<'_>,
        list: FrameList,
    ) -> Result<WithdrawnList<'_, M>, ListError<FrameList>> {
        let words = SmallPages::new(ATTRIBUTES);
        if let Err(fault) = self.expect::<PAGE_SIZE>(frames, &list, |first| words.word(first)) {
            return Err(ListError { fault, list });
        }
        self.write::<0>(frames, &list, |_| 0);
        Ok(WithdrawnList { map: self, list })
    }

    /// Puts the entries of a list back that is mapped nowhere. No cache maintenance, as for a block.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn restore_list(
        &self,
        frames: &FrameTable<'_>,
        absent: AbsentList,
    ) -> Result<FrameList, ListError<AbsentList>> {
        let AbsentList(list) = absent;
        if let Err(fault) = self.expect::<0>(frames, &list, |_| 0) {
            return Err(ListError { fault, list: AbsentList(list) });
        }
        let words = SmallPages::new(ATTRIBUTES);
        self.write::<PAGE_SIZE>(frames, &list, |first| words.word(first));
        Ok(list)
    }

    /// Whether every slot of `list` holds what it should: in each block what `wanted` says of its first frame, and `STEP` more
    /// in each further one.
    fn expect<const STEP: u32>(
        &self,
        frames: &FrameTable<'_>,
        list: &FrameList,
        wanted: impl Fn(Pfn) -> u32,
    ) -> Result<(), LinearFault> {
        for (first, count) in blocks(frames, list) {
            let outside = LinearFault::NoAddress { frame: first };
            let pages = self.pages_of(first, count).ok_or(outside)?;
            let mut wanted = wanted(first);
            self.with_slots(pages, |slots| {
                for index in 0..count {
                    let found = slots.read(&self.machine, index);
                    if found != wanted {
                        let address = slots.address(index);
                        return Err(LinearFault::Unexpected { address, wanted, found });
                    }
                    wanted = wanted.wrapping_add(STEP);
                }
                Ok(())
            })
            .ok_or(outside)??;
        }
        Ok(())
    }

    /// Writes every slot of `list`, of which [`LinearMap::expect`] has seen that it lies in the window, and makes them visible to
    /// walkers: in each block what `word` says of its first frame, and `STEP` more in each further one.
    fn write<const STEP: u32>(
        &self,
        frames: &FrameTable<'_>,
        list: &FrameList,
        word: impl Fn(Pfn) -> u32,
    ) {
        for (first, count) in blocks(frames, list) {
            let Some(pages) = self.pages_of(first, count) else { continue };
            self.with_slots(pages, |slots| slots.write_steps::<STEP>(&self.machine, word(first)));
        }
        self.machine.barrier();
    }
}

impl<M: Machine> WithdrawnList<'_, M> {
    /// Invalidates every TLB entry of the frames' linear addresses, on every CPU, and waits for it once.
    pub fn flush(self, frames: &FrameTable<'_>) -> AbsentList {
        let Self { map, list } = self;
        let mut stale = None;
        let spans = list.pages() > NAMED_AT_MOST;
        for (first, count) in blocks(frames, &list) {
            // Inside the window: its entries were cleared.
            let Some(pages) = map.pages_of(first, count) else { continue };
            let joined = stale.and_then(|stale| join(stale, pages, spans));
            if let (None, Some(stale)) = (joined, stale) {
                map.machine.invalidate_tlb(stale);
            }
            stale = joined.or(Some(pages));
        }
        if let Some(stale) = stale {
            map.machine.invalidate_tlb(stale);
        }
        map.machine.barrier();
        AbsentList(list)
    }
}

impl AbsentList {
    /// How many frames.
    pub const fn pages(&self) -> u32 {
        self.0.pages()
    }

    /// Maps the frames in all of `range`, in their order, and cleans and invalidates their cache lines through the new mapping.
    /// When this returns, the memory behind the addresses holds what was written through the linear map, and no cache holds
    /// anything of it.
    ///
    /// # Errors
    /// [`LendError`], which gives everything back.
    pub fn lend<M: Machine, L: Locks>(
        self,
        frames: &FrameTable<'_>,
        table: &PageTable<M, L>,
        mut range: OwnedRange,
        attributes: Attributes,
        tables: &impl TableSource,
    ) -> Result<LentList, LendError<Self>> {
        let (whole, count) = (range.pages(), self.pages());
        let mapped = if whole.count() == count {
            // By an iterator of its own, as is the mapping of a list elsewhere.
            table.map(&mut range, 0, self.0.frames(frames).map(Some), attributes, tables)
        } else {
            Err(MapError::DoesNotFit { range: whole, offset: 0, frames: count })
        };
        if let Err(reason) = mapped {
            // Cannot fail: these pages were mapped a moment ago. Nobody has used them.
            let _removal = table.unmap_part(&mut range, 0, reason.mapped());
            return Err(LendError { reason, block: self, range });
        }
        let lent = LentList { range, list: self.0 };
        if attributes.memory().is_cacheable() {
            lent.clean(frames, table);
        } else {
            lent.note(frames, table.machine(), Edge::Lending);
            lent.clean(frames, table);
            lent.note(frames, table.machine(), Edge::Lent);
        }
        Ok(lent)
    }
}

impl LentList {
    /// The addresses.
    pub const fn pages(&self) -> PageRange {
        self.range.pages()
    }

    /// The frames, in the order of the addresses.
    pub const fn list(&self) -> &FrameList {
        &self.list
    }

    /// Maps the frames with other attributes at the same addresses, by break before make (B3.10.1): nobody remembers the entries
    /// that were, when those that will be are written. Then cleans and invalidates their lines through the new mapping, so that
    /// what was written is where devices, walkers and instruction fetches see it.
    ///
    /// # Errors
    /// [`Disturbed`].
    pub(crate) fn remap<M: Machine, L: Locks>(
        &mut self,
        frames: &FrameTable<'_>,
        table: &PageTable<M, L>,
        attributes: Attributes,
    ) -> Result<(), Disturbed> {
        let count = self.range.count();
        let was = table.unmap_part(&mut self.range, 0, count);
        if !was.is_ok_and(|removal| removal.left_alone == 0 && removal.pages == count) {
            return Err(Disturbed);
        }
        if !table.map_again(&mut self.range, self.list.frames(frames), attributes) {
            return Err(Disturbed);
        }
        self.clean(frames, table);
        Ok(())
    }

    /// Says that its lines, which were used uncached, are not any more.
    pub(crate) fn note_returned(&self, frames: &FrameTable<'_>, machine: &impl Machine) {
        self.note(frames, machine, Edge::Returned);
    }

    /// Tells the ledger of lines of each block.
    fn note(&self, frames: &FrameTable<'_>, machine: &impl Machine, edge: Edge) {
        for (first, count) in blocks(frames, &self.list) {
            machine.note(LENDING, edge, first.base(), count * PAGE_SIZE);
        }
    }

    /// Ends the mapping. After the flush the list is an [`AbsentList`] again and can be restored.
    pub fn unmap<M: Machine, L: Locks>(
        self,
        table: &PageTable<M, L>,
    ) -> Unmapped<'_, M, L, AbsentList> {
        table.unmap(self.range, AbsentList(self.list))
    }

    /// Cleans and invalidates the lines of all frames, through their new mapping.
    fn clean<M: Machine, L: Locks>(&self, frames: &FrameTable<'_>, table: &PageTable<M, L>) {
        let mut offset = 0;
        for (first, count) in blocks(frames, &self.list) {
            if let Some(pages) = self.pages().sub_range(offset, count) {
                table.machine().clean_and_invalidate(pages, first);
            }
            offset += count;
        }
        table.machine().barrier();
    }
}

/// The blocks of `list`: the first frame of each, and how many there are.
fn blocks(frames: &FrameTable<'_>, list: &FrameList) -> impl Iterator<Item = (Pfn, u32)> {
    list.blocks(frames).map(|(first, order)| (first, 1 << order))
}

/// `pages` and those before them in one range, if they adjoin, or if it may have others `between` them.
fn join(before: PageRange, pages: PageRange, between: bool) -> Option<PageRange> {
    let adjoin = before.end() == pages.first() || pages.end() == before.first();
    let first = before.first().min(pages.first());
    let end = before.end().max(pages.end());
    (between || adjoin).then(|| PageRange::trusted(first, end - first))
}

impl<M> fmt::Debug for WithdrawnList<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithdrawnList").field("list", &self.list).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for ListError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}
