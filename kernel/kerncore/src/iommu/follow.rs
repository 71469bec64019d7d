//! Where device addresses lead that come one behind the other: the table that the last one was found by is remembered.
//!
//! ```text
//!   first level ──▶ second-level table ──▶ slot, slot, slot, …      looked up once a MiB, and not once a page
//! ```
//! It gives what [`Domain::translate`] does, slower for the first address and quicker for those that follow.

use crate::addr::{DmaAddr, PAGES_PER_SECTION, PageRange, PhysAddr, VirtAddr};
use crate::descriptor::{SLOT_SIZE, l1, l2};
use crate::iommu::domain::Domain;
use crate::iommu::machine::Iotlb;
use crate::lock::Locks;
use crate::machine::Machine;
use core::fmt;

/// A reader of a domain's tables. Tables live as long as their domain; what is mapped or unmapped meanwhile it may miss.
pub struct Follow<'d, 'k, 's, M: Machine, T: Iotlb, L: Locks> {
    domain: &'d Domain<'k, 's, M, T, L>,
    /// Which section was looked up last.
    section: u32,
    /// Its second-level table, if there is one, and all of the section lies in the window.
    below: Option<PhysAddr>,
}

impl<'k, 's, M: Machine, T: Iotlb, L: Locks> Domain<'k, 's, M, T, L> {
    /// Looks up addresses that follow one another. Whoever asks owns what is mapped there.
    pub const fn follow(&self) -> Follow<'_, 'k, 's, M, T, L> {
        Follow { domain: self, section: u32::MAX, below: None }
    }
}

impl<M: Machine, T: Iotlb, L: Locks> Follow<'_, '_, '_, M, T, L> {
    /// Where `address` leads, as [`Domain::translate`] has it.
    #[inline(always)]
    pub fn at(&mut self, address: DmaAddr) -> Option<PhysAddr> {
        let address = VirtAddr::new(address.raw());
        if l1::index(address) != self.section {
            self.turn_to(l1::index(address));
        }
        if let Some(below) = self.below {
            // The table is 1 KiB-aligned, so `|` adds.
            let slot = PhysAddr::new(below.raw() | (l2::index(address) * SLOT_SIZE));
            let descriptor = self.domain.table.read_descriptor(slot);
            if l2::is_small(descriptor) {
                let page = PhysAddr::new(descriptor).pfn().base();
                return Some(PhysAddr::new(page.raw() | address.page_offset()));
            }
        }
        self.otherwise(address)
    }

    #[cold]
    #[inline(never)]
    fn turn_to(&mut self, section: u32) {
        (self.section, self.below) = (section, None);
        let whole = PageRange::trusted(section * PAGES_PER_SECTION, PAGES_PER_SECTION);
        let domain = self.domain;
        domain.table.for_each_section(whole, |pages, above| {
            if pages == whole {
                self.below = l1::table(above);
            }
        });
    }

    /// Of what is no small page, and of what lies at the window's edge.
    #[cold]
    #[inline(never)]
    fn otherwise(&self, address: VirtAddr) -> Option<PhysAddr> {
        self.domain.table.translate(address).map(|found| found.physical)
    }
}

impl<M: Machine, T: Iotlb, L: Locks> fmt::Debug for Follow<'_, '_, '_, M, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("section", &self.section)
            .field("below", &self.below)
            .finish_non_exhaustive()
    }
}
