//! Ranges that are flushed together (S92).
//!
//! ```text
//!   unmap ─▶ Unmapped ─┐
//!   unmap ─▶ Unmapped ─┼─▶ Backlog ─▶ flush: invalidate each ─▶ one barrier ─▶ Released, Released, Released
//!   unmap ─▶ Unmapped ─┘
//! ```
//! What waits stays hidden as in each [`Unmapped`] by itself: only the flush of all gives ranges and payloads back (S23). A
//! backlog that is dropped leaks them.

use core::array;

use super::PageTable;
use super::unmap::{Released, Unmapped};
use crate::lock::Locks;
use crate::machine::Machine;

/// Up to `N` ranges of one table whose descriptors are cleared and whose translations may linger in TLBs.
#[must_use = "only `flush` gives the ranges and their frames back"]
pub struct Backlog<'table, M, L: Locks, P, const N: usize> {
    table: &'table PageTable<M, L>,
    waiting: [Option<Unmapped<'table, M, L, P>>; N],
    count: usize,
}

impl<'table, M: Machine, L: Locks, P, const N: usize> Backlog<'table, M, L, P, N> {
    /// Of ranges of `table`, none yet.
    pub fn new(table: &'table PageTable<M, L>) -> Self {
        Self { table, waiting: array::from_fn(|_| None), count: 0 }
    }

    /// How many ranges wait.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether no more can wait.
    pub const fn is_full(&self) -> bool {
        self.count >= N
    }

    /// Puts off the flush of `unmapped`.
    ///
    /// # Errors
    /// Gives it back if as many wait as can, or if it is of another table.
    pub fn push(
        &mut self,
        unmapped: Unmapped<'table, M, L, P>,
    ) -> Result<(), Unmapped<'table, M, L, P>> {
        if !core::ptr::eq(unmapped.table(), self.table) {
            return Err(unmapped);
        }
        match self.waiting.get_mut(self.count) {
            Some(place) => {
                *place = Some(unmapped);
                self.count += 1;
                Ok(())
            }
            None => Err(unmapped),
        }
    }

    /// Invalidates what any CPU's TLB holds for any of the ranges, waits for it once, and gives them all, in the order in which
    /// they came.
    pub fn flush(self) -> impl Iterator<Item = Released<P>> {
        for unmapped in self.waiting.iter().flatten() {
            self.table.machine.invalidate_tlb(unmapped.pages());
        }
        self.table.machine.barrier();
        self.waiting.into_iter().flatten().map(Unmapped::flushed)
    }
}

impl<M, L: Locks, P, const N: usize> core::fmt::Debug for Backlog<'_, M, L, P, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Backlog").field("count", &self.count).finish_non_exhaustive()
    }
}
