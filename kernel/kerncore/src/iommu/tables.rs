//! Memory for a domain's second-level tables: as a program's, with those that larger entries have displaced used again first.

use crate::addr::PhysAddr;
use crate::frames::FrameList;
use crate::lock::{Class, Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{PageTable, Parked, TableSource, Walk};
use crate::user::tables::{Source, SpaceTables};

/// The tables of one domain.
pub(super) struct DomainTables<L: Locks> {
    made: SpaceTables<L>,
    displaced: L::Lock<Parked>,
}

impl<L: Locks> DomainTables<L> {
    pub(super) fn new() -> Self {
        let displaced = Lock::new(Class::TableMemory, Parked::new());
        Self { made: SpaceTables::new(), displaced }
    }

    /// How many tables were made, and how many frames they lie in.
    pub(super) fn made(&self) -> (u32, u32) {
        self.made.made()
    }

    /// How many of them no slot names.
    pub(super) fn displaced<M: Machine>(&self, table: &PageTable<M, L>) -> u32 {
        self.displaced.with(|parked| {
            let mut count = 0;
            table.for_each_parked(parked, |_| {
                count += 1;
                Walk::On
            });
            count
        })
    }

    /// Keeps tables that entries of `table` have displaced; no IOTLB remembers them.
    pub(super) fn keep<M: Machine>(&self, table: &PageTable<M, L>, more: Parked) {
        if !more.is_empty() {
            self.displaced.with(|parked| table.park_all(more, parked));
        }
    }

    /// Takes all frames out, when nothing names or remembers a table any more.
    pub(super) fn take(&self) -> FrameList {
        self.displaced.with(|parked| *parked = Parked::new());
        self.made.take()
    }
}

/// [`DomainTables`] with the means to refill them.
pub(super) struct DomainSource<'a, 's, M, L: Locks> {
    pub(super) tables: &'a DomainTables<L>,
    pub(super) table: &'a PageTable<M, L>,
    pub(super) fresh: Source<'a, 's, L>,
}

impl<L: Locks> DomainTables<L> {
    pub(super) const fn source<'a, 's, M>(
        &'a self,
        table: &'a PageTable<M, L>,
        zones: &'a crate::zones::Zones<'s, L>,
    ) -> DomainSource<'a, 's, M, L> {
        DomainSource { tables: self, table, fresh: self.made.source(zones) }
    }
}

impl<M: Machine, L: Locks> TableSource for DomainSource<'_, '_, M, L> {
    fn take_table(&self) -> Option<PhysAddr> {
        let displaced = self.tables.displaced.with(|parked| self.table.unpark(parked));
        displaced.or_else(|| self.fresh.take_table())
    }
}
