//! Counting what is mapped, without judging it: for the ledger.

use super::check::Slots;
use super::owners::Owners;
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::descriptor::l1;
use crate::frames::FrameOwner;
use crate::kernel_space::KernelSpace;
use crate::ledger::{Count, Ledger};
use crate::lock::Locks;
use crate::machine::Machine;

/// What the tables hold at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Slots of the vmalloc window that are not empty.
    pub mapped_pages: u32,
    /// Second-level tables of the vmalloc window that hold an entry.
    pub tables_in_use: u32,
    /// Second-level tables outside the linear map, in use or kept (S24).
    pub tables_kept: u32,
    /// Frames of RAM without an entry in the linear map, the image's guards included.
    pub unmapped_linear: u32,
}

/// Counts what is mapped in the vmalloc window and what is missing in the linear map of `space`.
///
/// Exact only while nobody maps or unmaps. Takes no lock but to ask for the window; allocates nothing; any context.
pub fn survey<M: Machine, L: Locks>(space: &KernelSpace<'_, M, L>) -> Survey {
    let mut survey = Survey::default();
    let table = space.table();
    table.for_each_section(space.window(), |pages, above| {
        if let Some(below) = l1::table(above) {
            let slots = Slots::new(table.machine(), below, pages);
            if !slots.are_empty() {
                let entries = slots.descriptors().filter(|&descriptor| descriptor != 0).count();
                survey.mapped_pages += u32::try_from(entries).unwrap_or(u32::MAX);
                survey.tables_in_use += 1;
            }
        } else if above != 0 {
            survey.mapped_pages += pages.count();
        }
    });
    let linear = space.linear();
    survey.tables_kept = table.count_tables(table.window()) - table.count_tables(linear.window());
    survey.unmapped_linear = missing(space, linear.window());
    survey
}

/// What `space` has lent, mapped and taken at this moment, for the comparison with another. What lies beyond it (the heap,
/// a pool, buffers) is for its owner to enter. As exact as [`survey`]; takes the locks of areas and frames, one at a
/// time.
pub fn ledger<M: Machine, L: Locks>(space: &KernelSpace<'_, M, L>) -> Ledger {
    let census = space.zones().census();
    let counts = space.area_counts();
    let survey = survey(space);
    let space_tables =
        census.of(FrameOwner::PageTable).saturating_sub(space.table_memory().frames());
    Ledger::new(&census)
        .with(Count::Areas, counts.areas)
        .with(Count::ReservedPages, counts.pages_taken)
        .with(Count::MappedPages, survey.mapped_pages)
        .with(Count::TablesInUse, survey.tables_in_use)
        .with(Count::UnmappedLinear, survey.unmapped_linear)
        .with(Count::SlabRecords, counts.records)
        .with(Count::TemporaryMappings, space.temporary().taken())
        .with(Count::SpaceTables, space_tables)
}

/// Frames of RAM whose linear slot is empty. Those of lent blocks are among them: they come back when the block does.
fn missing<M: Machine, L: Locks>(space: &KernelSpace<'_, M, L>, window: PageRange) -> u32 {
    let mut owners = Owners::new(space.zones().table());
    let mut missing = 0;
    space.table().for_each_section(window, |pages, above| {
        let Some(table) = l1::table(above) else { return };
        let slots = Slots::new(space.table().machine(), table, pages);
        if slots.are_small_pages() {
            return;
        }
        let found = slots.descriptors().zip(pages.first()..);
        for (_, page) in found.filter(|&(descriptor, _)| descriptor == 0) {
            let frame = space.linear().frame_of(VirtAddr::new(page * PAGE_SIZE));
            let owner = frame.map(|frame| owners.of(frame));
            missing += u32::from(owner.is_some_and(|owner| owner != FrameOwner::Absent));
        }
    });
    missing
}
