//! One slot against what it should hold.

use super::{Audit, Place, Violation};
use crate::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr};
use crate::attributes::Attributes;
use crate::descriptor::{PageSize, SLOT_SIZE, l1, l2, l2::SmallPages};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{Entry, Level, Slot};

/// What a small page turned out to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) frame: Pfn,
    pub(super) attributes: Attributes,
}

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    /// The page must lead to `frame` with `attributes`.
    #[inline]
    pub(super) fn exactly(
        &mut self,
        slot: Slot,
        place: Place,
        frame: Pfn,
        attributes: Attributes,
    ) -> bool {
        // One comparison where all is well; what is wrong is asked only when something is.
        if slot.level == Level::Second && slot.descriptor == SmallPages::new(attributes).word(frame)
        {
            return true;
        }
        self.differs(slot, place, frame, attributes);
        false
    }

    #[cold]
    fn differs(&mut self, slot: Slot, place: Place, frame: Pfn, wanted: Attributes) {
        let address = slot.pages.start();
        if let Some(found) = self.small_page(slot, place, Some(frame)) {
            if found.frame != frame {
                let (wanted, had) = (frame.base(), found.frame.base());
                self.found(Violation::WrongFrame { address, place, wanted, had });
            }
            if found.attributes != wanted {
                let had = found.attributes;
                self.found(Violation::WrongAttributes { address, place, wanted, had });
            }
        }
    }

    /// What the page leads to. `None`, and a violation, if it is no small page of ours.
    pub(super) fn small_page(
        &mut self,
        slot: Slot,
        place: Place,
        wanted: Option<Pfn>,
    ) -> Option<Found> {
        let address = slot.pages.start();
        match slot.entry() {
            None => {
                let wanted = wanted.map(Pfn::base);
                self.found(Violation::Missing { address, place, wanted });
                None
            }
            // Every first-level slot that is neither empty nor a table was reported once, for all that it translates.
            Some(_) if slot.level == Level::First => None,
            Some(Entry::Mapping { physical, size: PageSize::Small, attributes, .. }) => {
                Some(Found { frame: physical.pfn(), attributes })
            }
            Some(Entry::Mapping { size: had, .. }) => {
                self.found(Violation::PageSize { address, place, had });
                None
            }
            Some(Entry::Bad { descriptor, .. }) => {
                self.found(Violation::BadDescriptor { address, place, descriptor });
                None
            }
        }
    }

    /// Nothing may be mapped at the page.
    #[inline]
    pub(super) fn absent(&mut self, slot: Slot, place: Place) -> bool {
        if slot.descriptor == 0 {
            return true;
        }
        self.present(slot, place);
        false
    }

    #[cold]
    fn present(&mut self, slot: Slot, place: Place) {
        let address = slot.pages.start();
        match slot.entry() {
            // As above.
            _ if slot.level == Level::First => {}
            Some(Entry::Mapping { physical: had, .. }) => {
                self.found(Violation::Present { address, place, had });
            }
            Some(Entry::Bad { descriptor, .. }) => {
                self.found(Violation::BadDescriptor { address, place, descriptor });
            }
            None => {}
        }
    }

    /// Nothing may be mapped at any of `pages`.
    pub(super) fn all_absent(&mut self, pages: PageRange, place: Place) {
        let table = self.space.table();
        table.for_each_section(pages, |pages, above| {
            let below = l1::table(above).map(|below| Slots::new(table.machine(), below, pages));
            // Most of what should be empty is.
            if above != 0 && !below.is_some_and(|below| below.are_empty()) {
                table.for_each_slot(pages, |slot| {
                    self.absent(slot, place);
                });
            }
        });
    }

    /// Shows each of `pages` with the slot that translates it: where no table is, the first-level slot again and again.
    pub(super) fn for_each_page(
        &mut self,
        pages: PageRange,
        mut visit: impl FnMut(&mut Self, Slot),
    ) {
        let space = self.space;
        space.table().for_each_slot(pages, |slot| match slot.level {
            Level::Second => visit(self, slot),
            Level::First => {
                let numbers = slot.pages.first()..slot.pages.end();
                for pages in numbers.filter_map(|number| PageRange::from_numbers(number, 1)) {
                    visit(self, Slot { pages, ..slot });
                }
            }
        });
    }
}

/// The slots of `table` for `pages`, which lie below one first-level slot: for walks over all of RAM, where each instruction
/// counts.
pub(super) struct Slots<'m, M> {
    machine: &'m M,
    /// The first.
    first: PhysAddr,
    count: u32,
}

impl<'m, M: Machine> Slots<'m, M> {
    pub(super) const fn new(machine: &'m M, table: PhysAddr, pages: PageRange) -> Self {
        // Nothing here or below can overflow, as a table has 256 slots.
        let first = table.raw().wrapping_add(l2::index(pages.start()).wrapping_mul(SLOT_SIZE));
        Self { machine, first: PhysAddr::new(first), count: pages.count() }
    }

    /// What they hold, one after the other.
    #[inline]
    pub(super) fn descriptors(&self) -> impl Iterator<Item = u32> + use<'_, 'm, M> {
        (0..self.count).map(|index| self.descriptor(index))
    }

    /// Joins what they hold, with their numbers, one after the other, to `start`.
    #[inline]
    fn fold(&self, start: u32, join: impl Fn(u32, u32, u32) -> u32) -> u32 {
        const STRIDE: u32 = 8;
        let next = |joined, index| join(joined, self.descriptor(index), index);
        let runs = self.count / STRIDE;
        let joined = (0..runs).fold(start, |joined, run| {
            (0..STRIDE).fold(joined, |joined, index| next(joined, run * STRIDE + index))
        });
        (runs * STRIDE..self.count).fold(joined, next)
    }

    /// Whether all are empty.
    #[inline]
    pub(super) fn are_empty(&self) -> bool {
        self.fold(0, |all, descriptor, _| all | descriptor) == 0
    }

    /// Whether all lead to small pages, wherever those are.
    #[inline]
    pub(super) fn are_small_pages(&self) -> bool {
        l2::is_small(self.fold(u32::MAX, |common, descriptor, _| common & descriptor))
    }

    /// Whether they lead to the frames from `first` on, with these attributes.
    #[inline]
    pub(super) fn lead_to(self, first: Pfn, attributes: Attributes) -> bool {
        let word = SmallPages::new(attributes).word(first);
        self.fold(0, |wrong, descriptor, index| {
            wrong | (descriptor ^ word.wrapping_add(index.wrapping_mul(PAGE_SIZE)))
        }) == 0
    }

    #[inline(always)]
    fn descriptor(&self, index: u32) -> u32 {
        let slot = self.first.raw().wrapping_add(index.wrapping_mul(SLOT_SIZE));
        self.machine.read_descriptor(PhysAddr::new(slot))
    }
}
