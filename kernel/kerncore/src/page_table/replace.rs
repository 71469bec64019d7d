//! Another frame behind a live page, by break before make (B3.10.1).
//!
//! ```text
//!   clear the slot ─▶ clean it ─▶ barrier ─▶ invalidate ─▶ barrier ─▶ copy ─▶ write the new word ─▶ clean it ─▶ barrier
//!                                                          nobody can write to the old frame any more
//! ```
//! Copied any earlier, a write that comes by the old entry, or by what a TLB remembers of it, is lost. Whoever touches the page
//! meanwhile faults, and is to wait until the caller has done.

use super::{PageTable, run::Runs};
use crate::{
    addr::Pfn, attributes::Attributes, descriptor::l2::SmallPages, lock::Locks, machine::Machine,
    owned_range::OwnedRange,
};
use core::iter;

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Makes the page at `offset` of `range`, which leads to the frame `old`, lead to `new`. In between, when nobody reaches the old
    /// one by it any more, `copy` runs. Says whether; otherwise the page leads elsewhere, or is not there, and nothing has changed.
    pub fn replace(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        (old, new): (Pfn, Pfn),
        attributes: Attributes,
        copy: impl FnOnce(),
    ) -> bool {
        let words = SmallPages::new(attributes);
        let Some(run) = Runs::of(range, offset, 1).and_then(|mut runs| runs.next()) else {
            return false;
        };
        let Some(table) = self.table_of(&run) else { return false };
        let mut slots = run.slots(table);
        if slots.read(&self.machine, 0) != words.word(old) {
            return false;
        }
        slots.clear_first(&self.machine, 1);
        copy();
        slots.write(&self.machine, iter::once(words.word(new)));
        self.machine.barrier();
        true
    }
}
