//! The audit of one domain: is all that its tables say of addresses that are taken, and do they lie where they should?

use core::fmt;

use crate::addr::{PAGE_SIZE, PageRange, PhysAddr, VirtAddr};
use crate::attributes::Scope;
use crate::descriptor::{SLOT_SIZE, l1};
use crate::frames::FrameOwner;
use crate::iommu::domain::Domain;
use crate::iommu::machine::Iotlb;
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::Entry;

/// One rule broken in a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainViolation {
    /// Something is mapped at addresses that nobody has.
    Stray {
        /// The first address that it translates.
        address: VirtAddr,
        /// Where it leads.
        physical: PhysAddr,
    },
    /// A word that no part of this project writes.
    Bad {
        /// The first address that it translates.
        address: VirtAddr,
    },
    /// An entry could be executed, or serves every address space.
    Rights {
        /// The first address that it translates.
        address: VirtAddr,
    },
    /// A page that is taken leads nowhere.
    Missing {
        /// Its address.
        address: VirtAddr,
    },
    /// A page leads to a frame that nobody has, or that belongs to the kernel itself.
    Owner {
        /// Its address.
        address: VirtAddr,
        /// The frame.
        physical: PhysAddr,
        /// Whose it is.
        had: FrameOwner,
    },
    /// A first-level slot names a table in a frame that is no table's.
    ForeignTable {
        /// The first address below it.
        address: VirtAddr,
        /// The table.
        table: PhysAddr,
        /// Whose the frame is.
        had: FrameOwner,
    },
    /// The tables that first-level slots name, and those kept for later, are not those that were made.
    Tables {
        /// How many were made.
        made: u32,
        /// How many were found.
        found: u32,
    },
}

/// What one domain has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainSummary {
    /// Frames of [`FrameOwner::PageTable`]: tables of both levels.
    pub table_frames: u32,
    /// Runs of addresses that are taken.
    pub runs: u32,
    /// Pages mapped.
    pub pages: u32,
}

/// Whose frames a device may be led to: everybody's that hold data.
const fn may_be_seen(owner: FrameOwner) -> bool {
    !matches!(
        owner,
        FrameOwner::Free
            | FrameOwner::FrameTable
            | FrameOwner::PageTable
            | FrameOwner::Slab
            | FrameOwner::Text
            | FrameOwner::VaStorage
    )
}

impl<M: Machine, T: Iotlb, L: Locks> Domain<'_, '_, M, T, L> {
    /// Walks the tables and the bitmaps and hands `report` every rule that is broken. Nothing may be mapped or unmapped in this
    /// domain meanwhile. `report` is called with the lock of the addresses held.
    pub fn audit(&self, report: &mut dyn FnMut(DomainViolation)) -> DomainSummary {
        let mut summary = DomainSummary::default();
        self.audit_tables(&mut summary, report);
        self.iovas.with(|iovas| {
            let mut next = self.window().first();
            for run in iovas.runs() {
                summary.runs += 1;
                self.audit_free(next, run.first(), report);
                self.audit_run(run, &mut summary, report);
                next = run.end();
            }
            self.audit_free(next, self.window().end(), report);
        });
        summary
    }

    fn audit_tables(&self, summary: &mut DomainSummary, report: &mut dyn FnMut(DomainViolation)) {
        let mut found = self.tables.displaced(&self.table);
        self.table.for_each_section(self.window(), |pages, above| {
            let Some(table) = l1::table(above) else { return };
            found += 1;
            let had = self.kernel.zones().table().owner_of(table.pfn());
            if had != FrameOwner::PageTable {
                report(DomainViolation::ForeignTable { address: pages.start(), table, had });
            }
        });
        let (made, frames) = self.tables.made();
        if made != found {
            report(DomainViolation::Tables { made, found });
        }
        summary.table_frames = frames + self.root_slots() * SLOT_SIZE / PAGE_SIZE;
    }

    /// Nothing may be mapped from page number `first` up to `end`.
    fn audit_free(&self, first: u32, end: u32, report: &mut dyn FnMut(DomainViolation)) {
        let Some(pages) = PageRange::from_numbers(first, end.saturating_sub(first)) else { return };
        self.table.for_each_entry(pages, |entry| {
            report(match entry {
                Entry::Mapping { pages, physical, .. } => {
                    DomainViolation::Stray { address: pages.start(), physical }
                }
                Entry::Bad { pages, .. } => DomainViolation::Bad { address: pages.start() },
            });
        });
    }

    /// All of `run` must be mapped, to frames that a device may see.
    fn audit_run(
        &self,
        run: PageRange,
        summary: &mut DomainSummary,
        report: &mut dyn FnMut(DomainViolation),
    ) {
        let frames = self.kernel.zones().table();
        let mut next = run.first();
        let missing = |from: u32, to: u32, report: &mut dyn FnMut(DomainViolation)| {
            if let Some(gap) = PageRange::from_numbers(from, to - from).filter(|_| to > from) {
                report(DomainViolation::Missing { address: gap.start() });
            }
        };
        self.table.for_each_entry(run, |entry| match entry {
            Entry::Bad { pages, .. } => report(DomainViolation::Bad { address: pages.start() }),
            Entry::Mapping { pages, physical, attributes, .. } => {
                missing(next, pages.first(), report);
                next = pages.end();
                summary.pages += pages.count();
                let address = pages.start();
                if attributes.is_executable() || attributes.scope() != Scope::NonGlobal {
                    report(DomainViolation::Rights { address });
                }
                for index in 0..pages.count() {
                    let Some(frame) = physical.pfn().checked_add(index) else { break };
                    let had = frames.owner_of(frame);
                    if !may_be_seen(had) {
                        let physical = frame.base();
                        report(DomainViolation::Owner { address, physical, had });
                    }
                }
            }
        });
        missing(next, run.end(), report);
    }
}

impl fmt::Display for DomainViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("device addresses: ")?;
        match self {
            Self::Stray { address, physical } => {
                write!(f, "{address} is nobody's and leads to {physical}")
            }
            Self::Bad { address } => write!(f, "the entry of {address} is no descriptor of ours"),
            Self::Rights { address } => {
                write!(f, "{address} could be executed, or serves every address space")
            }
            Self::Missing { address } => write!(f, "{address} is taken and leads nowhere"),
            Self::Owner { address, physical, had } => {
                write!(f, "{address} leads to {physical}, which is {had}")
            }
            Self::ForeignTable { address, table, had } => {
                write!(f, "the table of {address} at {table} lies in a frame of {had}")
            }
            Self::Tables { made, found } => {
                write!(f, "{made} second-level tables were made, and {found} found")
            }
        }
    }
}
