//! Second-level tables: made on demand, kept for good (S16, S24).
//!
//! A first-level slot goes from empty to a table under the lock, checked again inside it, because two CPUs that
//! map different ranges of one MiB may both find it empty. The order inside:
//!
//! ```text
//!   zero the table ─▶ clean it ─▶ barrier ─▶ write the first-level slot ─▶ clean it ─▶ (the caller's barrier)
//! ```
//! Without the first barrier a walker could follow the new slot into what the memory held before.

use super::{PageTable, run::Runs};
use crate::{
    addr::{PageRange, PhysAddr, SECTION_SIZE, VirtAddr},
    descriptor::{L2_SLOTS, L2_TABLE_SIZE, l1},
    failure::Point,
    lock::{Lock, Locks},
    machine::Machine,
    owned_range::OwnedRange,
};
use core::{fmt, iter};

/// Where memory for second-level tables comes from.
pub trait TableSource {
    /// 1 KiB of memory, aligned to that, which nobody else uses; whatever it holds, the page table zeroes and
    /// cleans it. `None` when there is none. It never comes back (S24).
    ///
    /// Called with the lock on the making of tables held: it may take locks of its own, which must not lead back
    /// to a mapping, and may not sleep.
    fn take_table(&self) -> Option<PhysAddr>;
}

/// Why there is no second-level table for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveError {
    /// The source has no memory; the lowest address that lacks a table.
    NoTable(VirtAddr),
    /// Something other than a table holds the first-level slot, such as a section (S22).
    NotATable {
        /// The first address that the slot translates.
        address: VirtAddr,
        /// What the slot holds.
        descriptor: u32,
    },
}

/// Why tables made elsewhere cannot be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// The range does not begin and end on section boundaries.
    NotSections(PageRange),
    /// The tables do not lie on a 1 KiB boundary, or pass the end of physical memory.
    Tables(PhysAddr),
    /// A first-level slot holds something else.
    Occupied {
        /// The first address that the slot translates.
        address: VirtAddr,
        /// What the slot holds.
        descriptor: u32,
    },
}

/// What the first-level slot of one section holds.
pub(super) enum Above {
    Nothing,
    Table(PhysAddr),
    Other(u32),
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// What lies above the addresses of section number `section`.
    #[inline(always)]
    pub(super) fn above(&self, section: u32) -> Above {
        let descriptor = self.machine.read_descriptor(self.l1_slot(section));
        match l1::table(descriptor) {
            Some(table) => Above::Table(table),
            None if descriptor == 0 => Above::Nothing,
            None => Above::Other(descriptor),
        }
    }

    /// The second-level table of section number `section`, if there is one. The caller ends with a barrier.
    #[inline(always)]
    pub(super) fn table_there(&self, section: u32) -> Option<PhysAddr> {
        let slot = self.l1_slot(section);
        let table = l1::table(self.machine.read_descriptor(slot))?;
        // Another CPU may have written this slot just now and not have cleaned it yet. It will, but the walker must
        // see the slot when *we* return, so we do not rely on that.
        self.machine.clean_descriptors(slot, 1);
        Some(table)
    }

    /// The second-level table of section number `section`, made if there is none. The caller ends with a barrier.
    pub(super) fn table_for(
        &self,
        section: u32,
        tables: &impl TableSource,
    ) -> Result<PhysAddr, ReserveError> {
        match self.table_there(section) {
            Some(table) => Ok(table),
            None => self.make_table(section, tables),
        }
    }

    #[cold]
    fn make_table(
        &self,
        section: u32,
        tables: &impl TableSource,
    ) -> Result<PhysAddr, ReserveError> {
        self.making_tables.with(|()| match self.above(section) {
            Above::Table(table) => {
                // Made by another CPU since we looked. It has begun to clean the slot, but only its own barrier, which
                // comes after the lock, completes that: as in `table_for`, we do not rely on it.
                self.machine.clean_descriptors(self.l1_slot(section), 1);
                Ok(table)
            }
            Above::Other(descriptor) => Err(not_a_table(section, descriptor)),
            Above::Nothing => {
                let descriptor = |table| l1::Descriptor::Table(table).encode().ok();
                let made = tables.take_table().and_then(|table| Some((table, descriptor(table)?)));
                let Some((table, descriptor)) = made else {
                    return Err(ReserveError::NoTable(section_start(section)));
                };
                self.machine.write_descriptors(table, iter::repeat_n(0, L2_SLOTS as usize));
                self.machine.clean_descriptors(table, L2_SLOTS);
                self.machine.barrier();
                self.write_l1(section, descriptor);
                Ok(table)
            }
        })
    }

    /// Makes every second-level table below `range`, so that mapping anything there never needs one (S47, S77).
    ///
    /// # Errors
    /// [`ReserveError`]; the tables made until then stay, as all do.
    pub fn reserve_tables(
        &self,
        range: &mut OwnedRange,
        tables: &impl TableSource,
    ) -> Result<(), ReserveError> {
        let reserved = Runs::all(range).try_for_each(|run| {
            if L::fails(Point::Table) {
                return Err(ReserveError::NoTable(section_start(run.section())));
            }
            self.table_for(run.section(), tables).map(drop)
        });
        self.machine.barrier();
        reserved
    }

    /// As [`PageTable::reserve_tables`], of a range in one section; gives the table.
    ///
    /// # Errors
    /// [`ReserveError`]; nothing was made.
    pub(crate) fn reserve_table(
        &self,
        range: &mut OwnedRange,
        tables: &impl TableSource,
    ) -> Result<PhysAddr, ReserveError> {
        if L::fails(Point::Table) {
            return Err(ReserveError::NoTable(range.start()));
        }
        let table = self.table_for(l1::index(range.start()), tables)?;
        self.machine.barrier();
        Ok(table)
    }

    /// Puts consecutive second-level tables from `first`, made elsewhere, below all of `range`. A slot that names
    /// its table already is left as it is: the boot stub's slots for the kernel image are adopted so.
    ///
    /// Each table must be zero where the stub did not fill it, and belongs to the page table from now on.
    ///
    /// # Errors
    /// [`AdoptError`]. Slots written until then stay.
    pub fn adopt_tables(&self, range: &mut OwnedRange, first: PhysAddr) -> Result<(), AdoptError> {
        let pages = range.pages();
        let sections = pages.count() / L2_SLOTS;
        if !pages.first().is_multiple_of(L2_SLOTS) || !pages.count().is_multiple_of(L2_SLOTS) {
            return Err(AdoptError::NotSections(pages));
        }
        let adopted = self.making_tables.with(|()| {
            (0..sections).try_for_each(|index| {
                let table = first.checked_add(index * L2_TABLE_SIZE);
                let descriptor = table.and_then(|table| l1::Descriptor::Table(table).encode().ok());
                let descriptor = descriptor.ok_or(AdoptError::Tables(first))?;
                let section = l1::index(pages.start()) + index;
                match self.machine.read_descriptor(self.l1_slot(section)) {
                    0 => {
                        let table = PhysAddr::new(descriptor & !(L2_TABLE_SIZE - 1));
                        self.machine.clean_descriptors(table, L2_SLOTS);
                        self.machine.barrier();
                        self.write_l1(section, descriptor);
                        Ok(())
                    }
                    same if same == descriptor => Ok(()),
                    descriptor => {
                        let address = section_start(section);
                        Err(AdoptError::Occupied { address, descriptor })
                    }
                }
            })
        });
        self.machine.barrier();
        adopted
    }

    /// Writes one first-level slot and cleans it; the caller holds what guards it and ends with a barrier.
    pub(super) fn write_l1(&self, section: u32, descriptor: u32) {
        self.machine.write_descriptors(self.l1_slot(section), iter::once(descriptor));
        self.machine.clean_descriptors(self.l1_slot(section), 1);
    }
}

/// The first address of section number `section`.
pub(super) fn section_start(section: u32) -> VirtAddr {
    VirtAddr::new(section.wrapping_mul(SECTION_SIZE))
}

fn not_a_table(section: u32, descriptor: u32) -> ReserveError {
    ReserveError::NotATable { address: section_start(section), descriptor }
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable(address) => {
                write!(f, "no memory for the second-level table of {address}")
            }
            Self::NotATable { address, descriptor } => {
                write!(
                    f,
                    "first-level slot of {address} holds {descriptor:#010x}, which is no table"
                )
            }
        }
    }
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSections(range) => write!(f, "{range} is not made of whole sections"),
            Self::Tables(first) => write!(f, "no second-level tables can lie from {first}"),
            Self::Occupied { address, descriptor } => {
                write!(f, "first-level slot of {address} holds {descriptor:#010x} already")
            }
        }
    }
}
