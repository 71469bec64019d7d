//! Reading the tables as the hardware does, for questions, listings and audits. No lock: tables are never freed.

use super::PageTable;
use crate::{
    addr::{PAGES_PER_SECTION, PageRange, Pfn, PhysAddr, VirtAddr},
    attributes::Attributes,
    descriptor::{BadDescriptor, L2_SLOTS, PageSize, SLOT_SIZE, l1, l2},
    lock::Locks,
    machine::Machine,
};

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address of the very byte asked for.
    pub physical: PhysAddr,
    /// What the entry covers.
    pub size: PageSize,
    /// The entry itself.
    descriptor: u32,
}

impl Translation {
    /// The entry, as it stands in the table.
    pub const fn descriptor(&self) -> u32 {
        self.descriptor
    }

    /// What the entry promises.
    ///
    /// # Errors
    /// [`BadDescriptor`] if it is not one that this project writes.
    pub const fn attributes(&self) -> Result<Attributes, BadDescriptor> {
        let mapping = match self.size {
            PageSize::Small | PageSize::Large => l2::mapping(self.descriptor),
            PageSize::Section | PageSize::Supersection => l1::mapping(self.descriptor),
        };
        match mapping {
            Ok((_, attributes)) => Ok(attributes),
            Err(bad) => Err(bad),
        }
    }
}

/// What one slot holds that is neither empty nor a table as we write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A mapping. Large pages and supersections are reported slot by slot, each with what *it* says, so that
    /// sixteen slots that disagree show.
    Mapping {
        /// The addresses that this slot translates and that were asked about.
        pages: PageRange,
        /// Where the first of them leads.
        physical: PhysAddr,
        /// What kind of entry it is.
        size: PageSize,
        /// What it promises.
        attributes: Attributes,
    },
    /// A word that no part of this project writes.
    Bad {
        /// The addresses that this slot translates and that were asked about.
        pages: PageRange,
        /// The word, and what is wrong with it.
        descriptor: BadDescriptor,
    },
}

impl Entry {
    fn new(
        pages: PageRange,
        descriptor: u32,
        mapping: Result<(PageSize, Attributes), BadDescriptor>,
    ) -> Self {
        match mapping {
            Ok((size, attributes)) => {
                let physical = leads_to(pages.start(), descriptor, size);
                Self::Mapping { pages, physical, size, attributes }
            }
            Err(descriptor) => Self::Bad { pages, descriptor },
        }
    }
}

/// Which of the two levels of tables a slot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The table of 1 MiB slots.
    First,
    /// A table of 4 KiB slots.
    Second,
}

/// A slot as it stands, whatever it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The addresses that it translates and that were asked about.
    pub pages: PageRange,
    /// Where it lies.
    pub level: Level,
    /// What it holds.
    pub descriptor: u32,
}

impl Slot {
    /// What it maps, well or badly; `None` if it is empty.
    pub fn entry(self) -> Option<Entry> {
        let mapping = match (self.descriptor, self.level) {
            (0, _) => return None,
            (descriptor, Level::First) => l1::mapping(descriptor),
            (descriptor, Level::Second) => l2::mapping(descriptor),
        };
        Some(Entry::new(self.pages, self.descriptor, mapping))
    }
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Where `address` leads; `None` if an access would find no mapping, or if it lies outside the window.
    ///
    /// It says nothing of what a TLB still remembers, and nothing of permissions.
    #[inline]
    pub fn translate(&self, address: VirtAddr) -> Option<Translation> {
        if !self.window.contains(address) {
            return None;
        }
        let above = self.machine.read_descriptor(self.l1_slot(l1::index(address)));
        let (descriptor, size) = match l1::table(above) {
            Some(table) => {
                let descriptor = self.machine.read_descriptor(l2_slot(table, l2::index(address)));
                (descriptor, l2::page_size(descriptor)?)
            }
            None => (above, l1::page_size(above)?),
        };
        Some(Translation { physical: leads_to(address, descriptor, size), size, descriptor })
    }

    /// The frame of the small page that `address`, which lies in the window, leads to. `None` says nothing of others.
    #[inline(always)]
    pub(crate) fn small_page(&self, address: VirtAddr) -> Option<Pfn> {
        let above = self.machine.read_descriptor(self.l1_slot(l1::index(address)));
        let slot = l2_slot(l1::table(above)?, l2::index(address));
        let descriptor = self.machine.read_descriptor(slot);
        l2::is_small(descriptor).then(|| PhysAddr::new(descriptor).pfn())
    }

    /// Shows every slot for `range` that is neither empty nor a table to `visit`, in order of addresses. What lies
    /// outside the window is left out.
    pub fn for_each_entry(&self, range: PageRange, mut visit: impl FnMut(Entry)) {
        self.for_each_slot(range, |slot| slot.entry().into_iter().for_each(&mut visit));
    }

    /// Shows every second-level slot for `range` to `visit`, empty or not, and every first-level slot that names no
    /// second-level table, in order of addresses. What lies outside the window is left out.
    #[inline]
    pub fn for_each_slot(&self, range: PageRange, mut visit: impl FnMut(Slot)) {
        self.for_each_section(range, |pages, above| match l1::table(above) {
            Some(table) => {
                for page in
                    (pages.first()..pages.end()).filter_map(|n| PageRange::from_numbers(n, 1))
                {
                    let slot = l2_slot(table, l2::index(page.start()));
                    let descriptor = self.machine.read_descriptor(slot);
                    visit(Slot { pages: page, level: Level::Second, descriptor });
                }
            }
            None => visit(Slot { pages, level: Level::First, descriptor: above }),
        });
    }

    /// How many second-level tables lie below `range`. They are never freed (S24), so this only grows.
    pub fn count_tables(&self, range: PageRange) -> u32 {
        let mut tables = 0;
        self.for_each_section(range, |_, above| tables += u32::from(l1::table(above).is_some()));
        tables
    }

    /// Shows the part of `range` in each section, with the section's first-level slot.
    #[inline]
    pub(crate) fn for_each_section(&self, range: PageRange, mut visit: impl FnMut(PageRange, u32)) {
        let Some(range) = range.intersection(self.window) else { return };
        let sections = range.first() / L2_SLOTS..range.end().div_ceil(L2_SLOTS);
        for section in sections {
            let whole = PageRange::from_numbers(section * L2_SLOTS, PAGES_PER_SECTION);
            if let Some(pages) = whole.and_then(|whole| whole.intersection(range)) {
                visit(pages, self.machine.read_descriptor(self.l1_slot(section)));
            }
        }
    }
}

/// Where `descriptor`, an entry of this size, leads `address`.
#[inline]
const fn leads_to(address: VirtAddr, descriptor: u32, size: PageSize) -> PhysAddr {
    let offset = size.bytes() - 1;
    PhysAddr::new(descriptor & !offset | address.raw() & offset)
}

/// Where the slot at `index` of a second-level table lies.
#[inline(always)]
const fn l2_slot(table: PhysAddr, index: u32) -> PhysAddr {
    // The table is 1 KiB-aligned, so `|` adds.
    PhysAddr::new(table.raw() | (index * SLOT_SIZE))
}
