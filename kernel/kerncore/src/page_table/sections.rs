//! Sections: a MiB by one first-level descriptor (S22, S24, S90).
//!
//! ```text
//!   map     table's slots all empty? ─▶ slot := 0 ─▶ forget ─▶ park the table ─▶ slot := section
//!   unmap   slot := 0 ─▶ forget ─▶ slot := a parked table
//! ```
//! A first-level slot that names a table goes by way of nothing (break-before-make), in both directions. The table waits with
//! the mapping: tables are never freed, and a repeated mapping makes none anew. Parked tables are chained through their own
//! first words, which are no descriptors of anything (a table's address ends in zeros: a fault); they are all alike, so it
//! does not matter which of them comes back to which section.

use core::iter;

use super::run::{Runs, Slots};
use super::tables::{Above, section_start};
use super::unmap::{Oddity, Removal};
use super::{MapError, PageTable};
use crate::addr::{PAGES_PER_SECTION, Pfn, PhysAddr};
use crate::attributes::Attributes;
use crate::descriptor::{PageSize, l1, l1::SUPERSECTION_SLOTS};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// To the next.
    On,
    /// No further.
    Ends,
}

/// Second-level tables that sections have displaced (S24).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped chain loses its tables"]
pub struct Parked {
    /// Where the first one lies, or 0.
    head: u32,
}

impl Parked {
    /// None.
    pub const fn new() -> Self {
        Self { head: 0 }
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.head == 0
    }
}

impl Default for Parked {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps the section at page `offset` of `range` to the frames from `first` on. The table that it displaces is parked. Not
    /// seen by every walker before the next barrier.
    ///
    /// # Errors
    /// [`MapError::DoesNotFit`] if the section does not lie in the range or either side is not aligned to it;
    /// [`MapError::Occupied`] if anything is mapped there (S17). Nothing has changed.
    pub fn map_section(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        first: Pfn,
        attributes: Attributes,
        parked: &mut Parked,
    ) -> Result<(), MapError> {
        let descriptor = l1::Descriptor::Section(first.base(), attributes);
        self.map_above(range, offset, (descriptor, PAGES_PER_SECTION), parked)
    }

    /// As [`PageTable::map_section`], by the one entry of `pages` that `descriptor` makes, whether of one slot or of sixteen.
    pub(super) fn map_above(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        (descriptor, pages): (l1::Descriptor, u32),
        parked: &mut Parked,
    ) -> Result<(), MapError> {
        let whole = range.pages();
        let misfit = MapError::DoesNotFit { range: whole, offset, frames: pages };
        let entry = whole.sub_range(offset, pages).ok_or(misfit)?;
        let word = descriptor.encode().map_err(|_misaligned| misfit)?;
        if !entry.first().is_multiple_of(pages) {
            return Err(misfit);
        }
        let (first, slots) = (l1::index(entry.start()), pages / PAGES_PER_SECTION);
        for index in 0..slots {
            match self.above(first + index) {
                Above::Nothing => {}
                Above::Table(table) => {
                    self.all_empty(range, offset + index * PAGES_PER_SECTION, table)?;
                }
                Above::Other(descriptor) => {
                    let address = section_start(first + index);
                    return Err(MapError::Occupied { address, descriptor, mapped: 0 });
                }
            }
        }
        // Nobody makes a table for a section of whose addresses he owns none; the lock is for those of the neighbours.
        self.making_tables.with(|()| {
            self.displace_tables(first, slots, parked);
            let slot = self.l1_slot(first);
            self.machine.write_descriptors(slot, iter::repeat_n(word, slots as usize));
            self.machine.clean_descriptors(slot, slots);
        });
        Ok(())
    }

    /// Takes the tables away from `slots` slots, no more than sixteen, from the one with number `first` on, and parks them.
    fn displace_tables(&self, first: u32, slots: u32, parked: &mut Parked) {
        let mut displaced = [None; SUPERSECTION_SLOTS as usize];
        for (section, place) in (first..first + slots).zip(&mut displaced) {
            if let Above::Table(table) = self.above(section) {
                self.write_l1(section, 0);
                *place = Some(table);
            }
        }
        if displaced.iter().all(Option::is_none) {
            return;
        }
        self.machine.barrier();
        for (section, table) in (first..).zip(displaced) {
            if table.is_some() {
                self.forget_section(section);
            }
        }
        self.machine.barrier();
        displaced.into_iter().flatten().for_each(|table| self.park(table, parked));
    }

    /// Maps all of `range`, which is to be one section, by the descriptor `word`, where no table stands above it. Says whether;
    /// otherwise nothing has changed. Seen by every walker.
    ///
    /// Without the lock on the making of tables: nobody makes one for a section of whose addresses he owns none, and here all are
    /// owned.
    #[inline(always)]
    pub(crate) fn map_section_at_hand(&self, range: &mut OwnedRange, word: u32) -> bool {
        let section = l1::index(range.start());
        if !is_one_section(range) || !matches!(self.above(section), Above::Nothing) {
            return false;
        }
        self.write_l1(section, word);
        self.machine.barrier();
        true
    }

    /// Clears and flushes all of `range`, if it is one section that displaced no table. Says whether; otherwise nothing has
    /// changed. Without a lock, as [`PageTable::map_section_at_hand`].
    #[inline(always)]
    pub(crate) fn clear_section_at_hand(&self, range: &mut OwnedRange) -> bool {
        let section = l1::index(range.start());
        let is_section = match self.above(section) {
            Above::Other(descriptor) => l1::page_size(descriptor) == Some(PageSize::Section),
            _ => false,
        };
        if !is_one_section(range) || !is_section {
            return false;
        }
        self.write_l1(section, 0);
        self.machine.barrier();
        self.forget_section(section);
        self.machine.barrier();
        true
    }

    /// Shows where each parked table lies, as long as `visit` wants to see the next.
    pub(crate) fn for_each_parked(&self, parked: &Parked, mut visit: impl FnMut(PhysAddr) -> Walk) {
        let mut next = parked.head;
        while next != 0 && visit(PhysAddr::new(next)) == Walk::On {
            next = self.machine.read_descriptor(PhysAddr::new(next));
        }
    }

    /// The slots of the section at page `offset` of `range`, in its table, must be empty: whatever is there would be hidden.
    pub(super) fn all_empty(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        table: PhysAddr,
    ) -> Result<(), MapError> {
        for run in Runs::of(range, offset, PAGES_PER_SECTION).into_iter().flatten() {
            let slots: Slots<'_> = run.slots(table);
            if slots.join_all(&self.machine, 0, |bits, descriptor| bits | descriptor) != 0 {
                return Err(self.first_in_use(&slots, 0));
            }
        }
        Ok(())
    }

    /// Clears the slot of one section, which is known to be one: by the area, not by what the slot says (S22).
    pub(super) fn clear_section(&self, section: u32, removal: &mut Removal) {
        self.making_tables.with(|()| match self.above(section) {
            Above::Other(descriptor) if l1::page_size(descriptor) == Some(PageSize::Section) => {
                self.write_l1(section, 0);
                removal.pages = removal.pages.wrapping_add(PAGES_PER_SECTION);
            }
            Above::Nothing => {}
            Above::Table(table) => {
                // Somebody else's, who maps through it what he likes.
                let (address, descriptor) = (section_start(section), table.raw());
                removal.note(Oddity::ReachesOutside { address, descriptor });
            }
            Above::Other(descriptor) => {
                let address = section_start(section);
                removal.note(Oddity::ReachesOutside { address, descriptor });
            }
        });
    }

    /// Invalidates what any TLB holds of one section.
    pub(super) fn forget_section(&self, section: u32) {
        self.forget_each(section * PAGES_PER_SECTION, PAGES_PER_SECTION, 1);
    }

    /// Links a table that no slot names any more.
    pub(super) fn park(&self, table: PhysAddr, parked: &mut Parked) {
        self.machine.write_descriptors(table, iter::once(parked.head));
        parked.head = table.raw();
    }

    /// Links all of `more`, which are parked, to the others.
    pub(crate) fn park_all(&self, mut more: Parked, parked: &mut Parked) {
        while let Some(table) = self.unpark(&mut more) {
            self.park(table, parked);
        }
    }

    /// Takes one table out, its first word made empty again.
    pub(crate) fn unpark(&self, parked: &mut Parked) -> Option<PhysAddr> {
        if parked.head == 0 {
            return None;
        }
        let table = PhysAddr::new(parked.head);
        parked.head = self.machine.read_descriptor(table);
        self.machine.write_descriptors(table, iter::once(0));
        self.machine.clean_descriptors(table, 1);
        self.machine.barrier();
        Some(table)
    }

    /// Puts parked tables back where sections were.
    pub(super) fn put_tables_back(&self, first: u32, sections: u32, mut parked: Parked) {
        for section in first..first.saturating_add(sections) {
            let Some(table) = self.unpark(&mut parked) else { return };
            let word = l1::Descriptor::Table(table).encode();
            self.making_tables.with(|()| {
                if let (Above::Nothing, Ok(word)) = (self.above(section), word) {
                    self.write_l1(section, word);
                }
            });
        }
        self.machine.barrier();
    }
}

/// Whether `range` is all that one first-level slot translates, and no more.
#[inline(always)]
const fn is_one_section(range: &OwnedRange) -> bool {
    range.count() == PAGES_PER_SECTION && range.pages().first().is_multiple_of(PAGES_PER_SECTION)
}
