//! Pages of which each has a word of its own, by a loop that does nothing else: what a page of a list costs is what it costs here (S105).
//!
//! ```text
//!   map     no slot of the run is in use? ──▶ word, word, word, …  ──▶ … of all runs ──▶ barrier
//!   clear   each slot holds its word, of all runs? may it end? ──▶ cleared ──▶ barrier, flush
//! ```

use core::iter;

use super::PageTable;
use super::run::{Runs, Slots};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

/// Words for pages, one behind the other. Not a closure, which could not be told to be inlined.
pub(crate) trait Series: Clone {
    /// The next word, if there is one at a glance. Otherwise [`Series::at_length`] is asked for it.
    fn next(&mut self) -> Option<u32>;

    /// The next word; `None` if there is none.
    fn at_length(&mut self) -> Option<u32>;

    /// Goes on where `other` is, a clone of this that [`Series::next`] was asked of alone.
    fn go_on_from(&mut self, other: Self);
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps the pages of `range` by `words`, as long as there are some, the tables are there, and no slot is in use: how many, from the
    /// first on. Those are seen by every walker.
    #[inline(always)]
    pub(crate) fn map_each_at_hand(&self, range: &mut OwnedRange, words: &mut impl Series) -> u32 {
        let mut mapped = 0_u32;
        for mut run in Runs::all(range) {
            let Some(below) = self.table_above_empty(run.reborrow()) else { break };
            let mut slots = run.slots(below);
            let written = self.write_each(&mut slots, words);
            slots.clean(&self.machine, written);
            mapped = mapped.wrapping_add(written);
            if written != slots.count() {
                break;
            }
        }
        self.machine.barrier();
        mapped
    }

    /// Writes `words` into `slots`, as many as there are; cleans nothing.
    #[inline(always)]
    fn write_each(&self, slots: &mut Slots<'_>, words: &mut impl Series) -> u32 {
        let mut written = self.write_at_a_glance(slots, 0, words);
        while written != slots.count()
            && let Some(word) = words.at_length()
        {
            let behind = written.wrapping_add(1);
            slots.write_from(&self.machine, written, iter::once(word));
            // The last page of a list is one of those, as a rule.
            written = if behind == slots.count() {
                behind
            } else {
                self.write_at_a_glance(slots, behind, words)
            };
        }
        written
    }

    /// Not inlined: the loop has the registers to itself.
    #[inline(never)]
    fn write_at_a_glance(
        &self,
        slots: &mut Slots<'_>,
        written: u32,
        words: &mut impl Series,
    ) -> u32 {
        let mut own = words.clone();
        let written = slots.write_while(&self.machine, written, || own.next());
        words.go_on_from(own);
        written
    }

    /// Whether each page's slot, of all of `range`, holds what `words` have for it.
    #[inline(always)]
    pub(crate) fn holds_each_at_hand(
        &self,
        range: &mut OwnedRange,
        words: &mut impl Series,
    ) -> bool {
        Runs::all(range).all(|run| match self.table_of(&run) {
            Some(below) => self.holds_each(&run.slots(below), words),
            None => false,
        })
    }

    /// Clears and flushes all of `range`, of which [`PageTable::holds_each_at_hand`] says yes.
    #[inline(always)]
    pub(crate) fn clear_each_at_hand(&self, range: &mut OwnedRange) {
        for run in Runs::all(range) {
            if let Some(below) = self.table_of(&run) {
                run.slots(below).clear(&self.machine);
            }
        }
        self.machine.barrier();
        self.flush_pages(range.pages());
    }

    #[inline(always)]
    fn holds_each(&self, slots: &Slots<'_>, words: &mut impl Series) -> bool {
        let mut held = 0;
        loop {
            held = match self.held_at_a_glance(slots, held, words) {
                None => return false,
                Some(all) if all == slots.count() => return true,
                Some(some) => some,
            };
            if words.at_length() != Some(slots.read(&self.machine, held)) {
                return false;
            }
            held = held.wrapping_add(1);
            if held == slots.count() {
                return true;
            }
        }
    }

    /// Up to which of `slots`, from that at `held` on, each holds its word, as far as there are some at a glance; `None`: one does not.
    ///
    /// Not inlined, as the above.
    #[inline(never)]
    fn held_at_a_glance(
        &self,
        slots: &Slots<'_>,
        held: u32,
        words: &mut impl Series,
    ) -> Option<u32> {
        let (mut own, mut held) = (words.clone(), held);
        while held < slots.count()
            && let Some(word) = own.next()
        {
            if slots.read(&self.machine, held) != word {
                return None;
            }
            held = held.wrapping_add(1);
        }
        words.go_on_from(own);
        Some(held)
    }
}
