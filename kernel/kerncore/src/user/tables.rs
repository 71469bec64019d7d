//! Memory for the second-level tables of one space: frames, cut in four, that go when the space goes.

use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::descriptor::L2_TABLE_SIZE;
use crate::frames::{FrameList, FrameOwner};
use crate::lock::{Class, Lock, Locks};
use crate::page_table::TableSource;
use crate::zones::Zones;

/// The tables of a space, and the rest of the frame that was cut last.
#[derive(Debug)]
struct Stock {
    frames: FrameList,
    next: PhysAddr,
    left: u32,
    made: u32,
}

impl Stock {
    const fn new() -> Self {
        Self { frames: FrameList::new(), next: PhysAddr::new(0), left: 0, made: 0 }
    }
}

/// The tables of one space.
pub(crate) struct SpaceTables<L: Locks>(L::Lock<Stock>);

impl<L: Locks> SpaceTables<L> {
    pub(crate) fn new() -> Self {
        Self(Lock::new(Class::TableMemory, Stock::new()))
    }

    /// A view that can take frames when the stock is empty.
    pub(crate) const fn source<'a, 's>(&'a self, zones: &'a Zones<'s, L>) -> Source<'a, 's, L> {
        Source { tables: self, zones }
    }

    /// How many tables were made, and how many frames they lie in.
    pub(crate) fn made(&self) -> (u32, u32) {
        self.0.with(|stock| (stock.made, stock.frames.pages()))
    }

    /// Takes all frames out. No first-level slot names a table any more, and no TLB remembers one.
    pub(crate) fn take(&self) -> FrameList {
        self.0.with(|stock| core::mem::replace(stock, Stock::new()).frames)
    }
}

/// [`SpaceTables`] with the means to refill them.
pub(crate) struct Source<'a, 's, L: Locks> {
    tables: &'a SpaceTables<L>,
    zones: &'a Zones<'s, L>,
}

impl<L: Locks> TableSource for Source<'_, '_, L> {
    fn take_table(&self) -> Option<PhysAddr> {
        self.tables.0.with(|stock| {
            if stock.left == 0 {
                let block = self.zones.allocate(0, FrameOwner::PageTable).ok()?;
                stock.next = block.first().base();
                stock.left = PAGE_SIZE / L2_TABLE_SIZE;
                stock.frames.push(self.zones.table(), block);
            }
            let table = stock.next;
            stock.left -= 1;
            stock.made += 1;
            stock.next = table.checked_add(L2_TABLE_SIZE).unwrap_or(table);
            Some(table)
        })
    }
}
