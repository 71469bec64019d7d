//! The first level: nothing but empty slots and tables, and each table in one place.
//!
//! A table lies in the linear map's array, in a frame that the page tables took for it, or in the image, where boot code has
//! one for what it maps before there are frames.

use super::homes::Mark;
use super::{Audit, Place, Violation};
use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::area::Mapping;
use crate::descriptor::{L2_SLOTS, L2_TABLE_SIZE, PageSize, l1};
use crate::frames::FrameOwner;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{Entry, Level, Slot, Walk};

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    /// Checks every first-level slot of the window, and counts tables.
    pub(super) fn first_level(&mut self) {
        let space = self.space;
        let window = space.table().window();
        space.table().for_each_section(window, |_, above| {
            if let Some(table) = l1::table(above)
                && may_hold_tables(space.zones().table().owner_of(table.pfn()))
            {
                self.clear_mark(table.pfn());
            }
        });
        self.for_each_parked(|audit, _, table| audit.clear_mark(table.pfn()));
        self.for_each_parked(Self::other_table);
        space.table().for_each_section(window, |pages, above| match self.linear_table(pages) {
            Some(wanted) => self.linear_slot(pages.start(), above, wanted),
            None => self.other_slot(pages, above),
        });
    }

    /// Shows each table that a large mapping has displaced, with the mapping's first address (S24).
    fn for_each_parked(&mut self, mut visit: impl FnMut(&mut Self, VirtAddr, PhysAddr)) {
        self.for_each_area(|audit, record| {
            if let Mapping::Large { parked, parts, .. } = &record.mapping {
                // Bounded by the slots: a damaged chain may have no end.
                let (space, mut left) = (audit.space, parts.first_level_slots());
                let address = record.pages().start();
                space.table().for_each_parked(parked, |table| match left.checked_sub(1) {
                    Some(fewer) => {
                        left = fewer;
                        visit(audit, address, table);
                        Walk::On
                    }
                    None => Walk::Ends,
                });
            }
        });
    }

    /// Whether the section of `pages` is one of a large mapping's: what it says is judged with the area.
    fn is_in_large_area(&self, pages: PageRange) -> bool {
        let space = self.space;
        let area = space.find_containing(pages.start());
        area.and_then(|area| {
            space.with_area(area.pages.start(), |record| match &record.mapping {
                Mapping::Large { usable, parts, .. } => {
                    let offset = pages.first().saturating_sub(usable.pages().first());
                    matches!(parts.size_at(offset), PageSize::Section | PageSize::Supersection)
                }
                _ => false,
            })
        })
        .unwrap_or(false)
    }

    /// The table that the linear map has for the section of `pages`; `None` outside the linear map.
    pub(super) fn linear_table(&self, pages: PageRange) -> Option<PhysAddr> {
        let linear = self.space.linear();
        let window = linear.window();
        let offset = pages.first().checked_sub(window.first())?;
        let inside = offset < window.count();
        inside.then(|| linear.tables().checked_add(offset / L2_SLOTS * L2_TABLE_SIZE)).flatten()
    }

    fn linear_slot(&mut self, address: VirtAddr, above: u32, wanted: PhysAddr) {
        if l1::table(above) == Some(wanted) {
            self.summary.linear_tables += 1;
        } else {
            self.found(Violation::LinearTable { address, wanted, had: above });
        }
    }

    fn other_slot(&mut self, pages: PageRange, above: u32) {
        let address = pages.start();
        match l1::table(above) {
            Some(table) => self.other_table(address, table),
            None if above == 0 => {}
            None if self.is_in_large_area(pages) => {}
            None => {
                let place = self.place_of(address);
                match (Slot { pages, level: Level::First, descriptor: above }).entry() {
                    Some(Entry::Mapping { size: had, .. }) => {
                        self.found(Violation::PageSize { address, place, had });
                    }
                    Some(Entry::Bad { descriptor, .. }) => {
                        self.found(Violation::BadDescriptor { address, place, descriptor });
                    }
                    None => {}
                }
            }
        }
    }

    fn other_table(&mut self, second: VirtAddr, table: PhysAddr) {
        let linear = self.space.linear();
        let index = table.checked_sub(linear.tables()).map(|bytes| bytes / L2_TABLE_SIZE);
        if let Some(index) = index
            && let Some(section) = linear.window().sub_range(index * L2_SLOTS, L2_SLOTS)
        {
            let first = section.start();
            self.found(Violation::SharedTable { first, second, table });
            return;
        }
        let had = self.space.zones().table().owner_of(table.pfn());
        if !may_hold_tables(had) {
            self.found(Violation::ForeignTable { address: second, table, had });
            return;
        }
        match self.mark_table(table) {
            Mark::New if had == FrameOwner::PageTable => self.summary.tables += 1,
            Mark::New => self.summary.image_tables += 1,
            Mark::Known => {
                let first = self.first_user_of(table).unwrap_or(second);
                self.found(Violation::SharedTable { first, second, table });
            }
        }
    }

    /// The lowest address whose first-level slot names `table`.
    #[cold]
    fn first_user_of(&self, table: PhysAddr) -> Option<VirtAddr> {
        let mut first = None;
        let space = self.space;
        space.table().for_each_section(space.table().window(), |pages, above| {
            if first.is_none() && l1::table(above) == Some(table) {
                first = Some(pages.start());
            }
        });
        first
    }

    /// What a whole section is for, as far as that can be said.
    fn place_of(&self, address: VirtAddr) -> Place {
        if self.space.window().contains(address) {
            Place::NoArea
        } else if self.expected.heap.contains(address) {
            Place::Heap
        } else {
            Place::NoRegion
        }
    }
}

/// Whether second-level tables outside the linear map's array may lie in frames of `owner`.
const fn may_hold_tables(owner: FrameOwner) -> bool {
    matches!(owner, FrameOwner::PageTable | FrameOwner::KernelImage)
}
