//! Live page tables: who may write which descriptor, and in which order things become true.
//!
//! ```text
//!   VA   31          20 19       12 11        0
//!       │ first level  │ 2nd level │  offset  │
//!          │                │
//!          ▼                ▼
//!   root ┌────┐       ┌──────────┐          one table of 256 slots for each MiB that was ever mapped;
//!        │slot│──────▶│ 256 slots│──▶ frame  made on demand under a lock, then kept for good (S24)
//!        └────┘ table └──────────┘
//!   first-level slots: written under the lock,   second-level slots: written without one,
//!   from empty to a table, once                  by whoever owns the range of addresses
//! ```
//!
//! * **Ownership instead of locks.** A second-level slot is written only through `Slots`, which borrow an
//!   [`OwnedRange`]. Two CPUs that map different ranges never wait for each other, but for the making of a table.
//! * **No live entry is changed.** An entry goes from empty to something and from something to empty; what replaces
//!   it comes after the flush (break-before-make, ARM DDI 0406C, B3.10.1).
//! * **Order is a type.** [`PageTable::unmap`] hides range and payload in an [`Unmapped`]; only
//!   [`Unmapped::flush`] gives them back (S23).
//! * **Walkers need no lock**: tables are never freed, slots are atomic words.
//!
//! Everything here may be called in any context, with interrupts on or off, provided that the [`TableSource`] may.

use crate::{
    addr::{PageRange, PhysAddr},
    descriptor::l1,
    lock::{Class, Lock, Locks},
    machine::Machine,
    owned_range::OwnedRange,
};
use core::fmt;

mod at_hand;
mod backlog;
mod entries;
mod large;
mod large_pages;
mod listed;
mod map;
mod records;
mod replace;
mod run;
mod sections;
mod supersections;
mod tables;
mod unmap;
mod walk;

pub(crate) use at_hand::{MOST_SLOTS, Supersection};
pub(crate) use listed::Series;
pub(crate) use run::{FEW, Paired, Slots};
pub(crate) use sections::Walk;

pub use backlog::Backlog;
pub use entries::UnmappedEntries;
pub use large::{LargeParts, Mapped, UnmappedLarge};
pub use map::{MapError, consecutive};
pub use sections::Parked;
pub use tables::{AdoptError, ReserveError, TableSource};
pub use unmap::{Oddity, OutsideRange, Released, Removal, Unmapped};
pub use walk::{Entry, Level, Slot, Translation};

/// One first-level table, and the right to write what translates one window of addresses.
pub struct PageTable<M, L: Locks> {
    machine: M,
    root: PhysAddr,
    window: PageRange,
    /// Held while a first-level slot goes from empty to a table.
    making_tables: L::Lock<()>,
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// The table whose first level lies at `root`, and the right to all of `window`.
    ///
    /// The authority is `machine`: whoever could make a value that drives live tables has promised that nothing
    /// in `window` is memory that Rust sees except through handles that this table gives out, and that the
    /// table's memory is reached only through it. Entries already there (the boot stub's) are kept.
    ///
    /// # Panics
    /// If `root` is not aligned for a first-level table.
    pub fn new(machine: M, root: PhysAddr, window: PageRange) -> (Self, OwnedRange) {
        assert!(root.raw().is_multiple_of(l1::TABLE_ALIGNMENT), "{root} cannot hold a table");
        let making_tables = L::Lock::<()>::new(Class::MakingTables, ());
        (Self { machine, root, window, making_tables }, OwnedRange::mint(window))
    }

    /// The machine, within this crate: everything here keeps to owned ranges.
    pub(crate) const fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine itself, past all owners.
    pub fn raw_machine(&self, _authority: M::Authority) -> &M {
        &self.machine
    }

    /// What the slot at `slot`, which lies in table memory, holds. Changes nothing; any context.
    pub fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        self.machine.read_descriptor(slot)
    }

    /// Where the first level lies.
    pub const fn root(&self) -> PhysAddr {
        self.root
    }

    /// The addresses that it translates.
    pub const fn window(&self) -> PageRange {
        self.window
    }
}

impl<M, L: Locks> fmt::Debug for PageTable<M, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageTable")
            .field("root", &self.root)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
