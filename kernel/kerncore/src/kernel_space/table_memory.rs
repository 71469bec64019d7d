//! Memory for second-level tables: frames, cut in four.
//!
//! ```text
//!   one frame   ┌─────────┬─────────┬─────────┬─────────┐
//!               │ 1 KiB   │ 1 KiB   │ 1 KiB   │ 1 KiB   │   each maps 1 MiB
//!               └─────────┴─────────┴─────────┴─────────┘
//! ```
//!
//! Tables are kept for good (S24), so nothing here takes one back: walkers need no lock.

use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::descriptor::L2_TABLE_SIZE;
use crate::frames::FrameOwner;
use crate::lock::{Class, Lock, Locks};
use crate::page_table::TableSource;
use crate::zones::Zones;

/// The rest of the frame that was cut last.
#[derive(Debug)]
struct Rest {
    next: PhysAddr,
    left: u32,
    made: u32,
}

/// The stock of unused second-level tables.
#[expect(missing_debug_implementations, reason = "a lock shows nothing; see `tables_made`")]
pub struct TableMemory<L: Locks> {
    rest: L::Lock<Rest>,
}

impl<L: Locks> TableMemory<L> {
    /// No table, no frame.
    pub fn new() -> Self {
        let nothing = Rest { next: PhysAddr::new(0), left: 0, made: 0 };
        Self { rest: Lock::new(Class::TableMemory, nothing) }
    }

    /// Tables handed out since boot.
    pub fn tables_made(&self) -> u32 {
        self.rest.with(|rest| rest.made)
    }

    /// The frames that they lie in.
    pub fn frames(&self) -> u32 {
        self.tables_made().div_ceil(PAGE_SIZE / L2_TABLE_SIZE)
    }

    /// A view that can take frames when the stock is empty.
    pub const fn source<'a, 's>(&'a self, zones: &'a Zones<'s, L>) -> TablesFromFrames<'a, 's, L> {
        TablesFromFrames { memory: self, zones }
    }
}

impl<L: Locks> Default for TableMemory<L> {
    fn default() -> Self {
        Self::new()
    }
}

/// [`TableMemory`] with the means to refill it.
#[expect(missing_debug_implementations, reason = "a view of things that show nothing")]
pub struct TablesFromFrames<'a, 's, L: Locks> {
    memory: &'a TableMemory<L>,
    zones: &'a Zones<'s, L>,
}

impl<L: Locks> TableSource for TablesFromFrames<'_, '_, L> {
    fn take_table(&self) -> Option<PhysAddr> {
        self.memory.rest.with(|rest| {
            if rest.left == 0 {
                let (frame, _) = self.zones.allocate(0, FrameOwner::PageTable).ok()?.leak();
                rest.next = frame.base();
                rest.left = PAGE_SIZE / L2_TABLE_SIZE;
            }
            let table = rest.next;
            rest.left -= 1;
            rest.made += 1;
            rest.next = table.checked_add(L2_TABLE_SIZE).unwrap_or(table);
            Some(table)
        })
    }
}
