//! From descriptors back to nothing, and the flush that must come before anything else (S21 to S25).
//!
//! ```text
//!   unmap:  clear the slots ─▶ clean them ─▶ barrier        Unmapped { range, payload }   neither can be had
//!   flush:  invalidate the pages ─▶ barrier                 Released { range, payload }   both are free again
//! ```
//! The first barrier is as needed as the second: invalidated before the walker sees the empty slot, an entry may
//! be read into the TLB again.

use super::{
    PageTable,
    run::{FEW, Run, Runs, Slots},
    tables::{Above, section_start},
};
use crate::{
    addr::{PAGES_PER_SECTION, PageRange, PhysAddr, VirtAddr},
    descriptor::{L2_SLOTS, l1, l2},
    lock::{Lock, Locks},
    machine::Machine,
    owned_range::OwnedRange,
};
use core::{fmt, iter, mem::ManuallyDrop};

/// Something in the tables that no one should have put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// A second-level slot was not present and yet not zero (S21). It was cleared.
    Leftover {
        /// The address that the slot translates.
        address: VirtAddr,
        /// What it held.
        descriptor: u32,
    },
    /// A first-level slot was neither empty nor a table (S22). It was cleared, because all that it translates
    /// belongs to the range.
    NotATable {
        /// The first address that the slot translates.
        address: VirtAddr,
        /// What it held.
        descriptor: u32,
    },
    /// A slot of what should be a large page or a supersection is not as the first of the sixteen (S90, S96). It was cleared, and
    /// the others with it.
    Uneven {
        /// The address that the slot translates.
        address: VirtAddr,
        /// What it held.
        descriptor: u32,
    },
    /// An entry reaches beyond the range: a section or a large page that would have to be split. It was left
    /// alone, as it also translates the addresses of others (S90).
    ReachesOutside {
        /// The first address of the range that it translates.
        address: VirtAddr,
        /// What it holds.
        descriptor: u32,
    },
}

/// What an unmapping found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// How many pages had been mapped. Less than the range for a guard page, or when it was unmapped before (S25).
    pub pages: u32,
    /// How many entries were not as they should be.
    pub oddities: u32,
    /// How many of those were left alone: what they translate is still mapped.
    pub left_alone: u32,
    /// The first of them.
    pub first_oddity: Option<Oddity>,
}

impl Removal {
    pub(super) fn note(&mut self, oddity: Oddity) {
        self.oddities += 1;
        self.left_alone += u32::from(matches!(oddity, Oddity::ReachesOutside { .. }));
        self.first_oddity.get_or_insert(oddity);
    }
}

/// A range whose descriptors are cleared and whose translations may linger in TLBs.
///
/// Only [`Unmapped::flush`] gives range and payload back. One that is dropped leaks both: its payload's destructor
/// does not run, for a frame given back too early is worse than one that is lost.
#[must_use = "only `flush` gives the range and its frames back"]
pub struct Unmapped<'table, M, L: Locks, P> {
    table: &'table PageTable<M, L>,
    range: OwnedRange,
    payload: ManuallyDrop<P>,
    removal: Removal,
}

/// What may be used again, now that no TLB remembers it.
#[derive(Debug)]
#[must_use = "a dropped range leaks its addresses"]
pub struct Released<P> {
    /// The addresses.
    pub range: OwnedRange,
    /// What had to wait with them: the frames, as a rule.
    pub payload: P,
    /// What the unmapping found.
    pub removal: Removal,
}

/// Pages that were asked for and do not lie in the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideRange {
    /// The whole range.
    pub range: PageRange,
    /// The first page asked for, counted from the range's start.
    pub offset: u32,
    /// How many were asked for.
    pub count: u32,
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Clears every descriptor of `range`, visibly to every walker. `payload` waits with the range for the flush.
    ///
    /// Absent tables are skipped (S21), clearing what is clear does no harm (S25), tables stay (S24).
    #[inline(always)]
    pub fn unmap<P>(&self, mut range: OwnedRange, payload: P) -> Unmapped<'_, M, L, P> {
        let removal = self.clear(Runs::all(&mut range));
        Unmapped { table: self, range, payload: ManuallyDrop::new(payload), removal }
    }

    /// [`PageTable::unmap`] and [`Unmapped::flush`] in one step, of few pages below one table, all of them small ones: what
    /// waited for the flush is given out after it (S23).
    ///
    /// # Errors
    /// Gives range and payload back, with nothing changed, if it is not so.
    #[inline(always)]
    pub(crate) fn unmap_few<P>(
        &self,
        mut range: OwnedRange,
        payload: P,
    ) -> Result<(OwnedRange, P), (OwnedRange, P)> {
        if self.clear_few(Run::whole(&mut range)) {
            Ok((range, payload))
        } else {
            Err((range, payload))
        }
    }

    /// Clears and flushes few pages below one table, if all are small ones. Says whether; otherwise nothing has changed.
    ///
    /// Not inlined: it has all registers to itself.
    #[inline(never)]
    fn clear_few(&self, run: Run<'_>) -> bool {
        run.is_one_of_few() && self.clear_below_one_table(run)
    }

    /// Clears and flushes all of `range`, if one second-level table translates it and all its pages are small ones. Says whether;
    /// otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn clear_at_hand(&self, range: &mut OwnedRange) -> bool {
        let run = Run::whole(range);
        // A single page is below one table, and where it is known to be single there is nothing to count.
        if run.count() == 1 {
            self.clear_below_one_table(run.single())
        } else {
            self.clear_run(run)
        }
    }

    /// Not inlined: it has all registers to itself.
    #[inline(never)]
    fn clear_run(&self, run: Run<'_>) -> bool {
        run.count().wrapping_sub(1) < PAGES_PER_SECTION
            && run.is_below_one_table()
            && self.table_of(&run).is_some_and(|table| {
                if run.count() < FEW {
                    self.clear_and_flush(run, table)
                } else {
                    self.clear_and_flush_many(run, table)
                }
            })
    }

    #[inline(always)]
    fn clear_below_one_table(&self, run: Run<'_>) -> bool {
        self.table_of(&run).is_some_and(|table| self.clear_and_flush(run, table))
    }

    /// The second-level table that the first-level slot above `run` names.
    #[inline(always)]
    pub(super) fn table_of(&self, run: &Run<'_>) -> Option<PhysAddr> {
        l1::table(self.machine.read_descriptor(self.l1_slot(run.section())))
    }

    /// Clears and flushes all of `range`, which a block's section holds, whose second-level table is at `table`, if every page of it
    /// is a small one. Says whether; otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn clear_in_block(&self, table: PhysAddr, range: &mut OwnedRange) -> bool {
        let run = Run::whole(range);
        if run.count() == 1 {
            self.clear_and_flush(run.single(), table)
        } else {
            self.clear_and_flush_many(run, table)
        }
    }

    /// Not inlined: to go by many slots at once takes all registers.
    #[inline(never)]
    fn clear_and_flush_many(&self, run: Run<'_>, table: PhysAddr) -> bool {
        self.clear_and_flush(run, table)
    }

    /// Clears and flushes small pages below the table at `table`. Says whether they are; otherwise nothing has changed.
    #[inline(always)]
    fn clear_and_flush(&self, run: Run<'_>, table: PhysAddr) -> bool {
        let pages = run.pages();
        let cleared = self.clear_small_slots(&mut run.slots(table));
        if cleared {
            self.machine.barrier();
            self.flush_pages(pages);
        }
        cleared
    }

    /// Clears `count` pages of `range` from `offset` on, and flushes them before it returns: a borrowed range
    /// could be mapped again at once.
    ///
    /// # Errors
    /// [`OutsideRange`]; nothing was done.
    pub fn unmap_part(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        count: u32,
    ) -> Result<Removal, OutsideRange> {
        let whole = range.pages();
        let outside = OutsideRange { range: whole, offset, count };
        let runs = Runs::of(range, offset, count).ok_or(outside)?;
        let removal = self.clear(runs);
        self.flush_pages(whole.sub_range(offset, count).unwrap_or(whole));
        Ok(removal)
    }

    #[inline(always)]
    pub(super) fn flush_pages(&self, pages: PageRange) {
        self.machine.invalidate_tlb(pages);
        self.machine.barrier();
    }

    /// Clears what `runs` name.
    #[inline(always)]
    pub(super) fn clear(&self, mut runs: Runs<'_>) -> Removal {
        let whole = (runs.first(), runs.left());
        while let Some(mut run) = runs.next() {
            // The common run is small pages without a gap; anything else is looked at slot by slot, and what it is among by
            // the slower way, so that this one keeps nothing in memory.
            if !self.clear_small_pages(run.reborrow()) {
                return self.clear_rest(run, runs, whole);
            }
        }
        self.machine.barrier();
        Removal { pages: whole.1, oddities: 0, left_alone: 0, first_oddity: None }
    }

    /// As [`PageTable::clear`], from `run` on, which is not all small pages as those before it are.
    #[cold]
    #[inline(never)]
    fn clear_rest(&self, run: Run<'_>, rest: Runs<'_>, whole: (u32, u32)) -> Removal {
        let before = whole.1.wrapping_sub(rest.left()).wrapping_sub(run.count());
        let mut removal = Removal { pages: before, ..Removal::default() };
        for mut run in iter::once(run).chain(rest) {
            if self.clear_small_pages(run.reborrow()) {
                removal.pages = removal.pages.wrapping_add(run.count());
            } else {
                self.clear_uncommon(run, whole, &mut removal);
            }
        }
        self.machine.barrier();
        removal
    }

    /// Clears a run that is all small pages. Says whether it was.
    #[inline(always)]
    fn clear_small_pages(&self, run: Run<'_>) -> bool {
        let Some(table) = self.table_of(&run) else { return false };
        if run.count() < FEW {
            self.clear_small_slots(&mut run.slots(table))
        } else {
            self.clear_many(run, table)
        }
    }

    /// Not inlined: to go by many slots at once takes all registers.
    #[inline(never)]
    fn clear_many(&self, run: Run<'_>, table: PhysAddr) -> bool {
        self.clear_small_slots(&mut run.slots(table))
    }

    /// Clears slots that are all small pages. Says whether they were.
    #[inline(always)]
    fn clear_small_slots(&self, slots: &mut Slots<'_>) -> bool {
        let common = slots.join_all(&self.machine, !0, |bits, descriptor| bits & descriptor);
        let all_small = l2::is_small(common);
        if all_small {
            slots.clear(&self.machine);
        }
        all_small
    }

    #[cold]
    fn clear_uncommon(&self, run: Run<'_>, whole: (u32, u32), removal: &mut Removal) {
        match self.above(run.section()) {
            Above::Table(table) => self.clear_mixed(&mut run.slots(table), removal),
            Above::Nothing => {}
            Above::Other(descriptor) => self.clear_other(&run, whole, descriptor, removal),
        }
    }

    /// Clears a run with gaps, large pages or oddities in it.
    #[cold]
    fn clear_mixed(&self, slots: &mut Slots<'_>, removal: &mut Removal) {
        for index in 0..slots.count() {
            let descriptor = slots.read(&self.machine, index);
            let address = slots.address(index);
            if descriptor == 0 {
                continue;
            }
            if l2::is_large(descriptor) && !slots.hold_large_page_of(address) {
                removal.note(Oddity::ReachesOutside { address, descriptor });
                continue;
            }
            if l2::is_small(descriptor) || l2::is_large(descriptor) {
                removal.pages += 1;
            } else {
                removal.note(Oddity::Leftover { address, descriptor });
            }
            slots.clear_one(&self.machine, index);
        }
    }

    /// Clears a first-level slot that is no table, if everything that the entry translates is among the pages to be
    /// cleared, of which `first` and `count` are the number and how many (S22).
    #[cold]
    fn clear_other(
        &self,
        run: &Run<'_>,
        (first, count): (u32, u32),
        descriptor: u32,
        removal: &mut Removal,
    ) {
        let section = run.section();
        let slots = match l1::Descriptor::decode(descriptor) {
            Ok(l1::Descriptor::Supersection(..)) => l1::SUPERSECTION_SLOTS,
            _ => 1,
        };
        let reach = (section - section % slots) * L2_SLOTS;
        if reach >= first && reach + slots * L2_SLOTS <= first + count {
            self.making_tables.with(|()| self.write_l1(section, 0));
            removal.note(Oddity::NotATable { address: section_start(section), descriptor });
        } else {
            removal.note(Oddity::ReachesOutside { address: run.start(), descriptor });
        }
    }
}

impl<M: Machine, L: Locks, P> Unmapped<'_, M, L, P> {
    /// Invalidates every TLB entry of the range, on every CPU, and waits for it. From then on the addresses and
    /// what was mapped there may be used anew (S23).
    #[inline(always)]
    pub fn flush(self) -> Released<P> {
        self.table.flush_pages(self.range.pages());
        self.flushed()
    }
}

impl<M, L: Locks, P> Unmapped<'_, M, L, P> {
    /// The range and the payload, of whose flush somebody has seen the end.
    #[inline(always)]
    pub(super) fn flushed(self) -> Released<P> {
        let Self { range, payload, removal, .. } = self;
        Released { range, payload: ManuallyDrop::into_inner(payload), removal }
    }

    /// The table that it is of.
    pub(super) const fn table(&self) -> &PageTable<M, L> {
        self.table
    }

    /// Which addresses wait.
    pub const fn pages(&self) -> PageRange {
        self.range.pages()
    }

    /// What the unmapping found.
    pub const fn removal(&self) -> Removal {
        self.removal
    }
}

impl<M, L: Locks, P> fmt::Debug for Unmapped<'_, M, L, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unmapped")
            .field("range", &self.range)
            .field("removal", &self.removal)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leftover { address, descriptor } => {
                write!(f, "{address}: {descriptor:#010x} was not present, yet not zero; cleared")
            }
            Self::NotATable { address, descriptor } => {
                write!(f, "{address}: first-level {descriptor:#010x} was no table; cleared")
            }
            Self::Uneven { address, descriptor } => {
                write!(
                    f,
                    "{address}: {descriptor:#010x} was not as the rest of a large entry; cleared"
                )
            }
            Self::ReachesOutside { address, descriptor } => {
                write!(f, "{address}: {descriptor:#010x} reaches beyond the range; left alone")
            }
        }
    }
}
