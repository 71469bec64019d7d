//! What is mapped of devices: what the tables say, what the physical index says, and whether any two mappings clash.

use core::iter;

use super::areas::place_of;
use super::check::Found;
use super::{Audit, Place, Violation};
use crate::addr::{PAGE_SIZE, PageRange, Pfn, VirtAddr};
use crate::area::{AreaKind, AreaRecord, AreaSummary};
use crate::attributes::Attributes;
use crate::frames::FrameOwner;
use crate::kernel_space::NextRun;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::physical_index::Run;

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    /// One run of physical pages that is no RAM, all of one kind.
    pub(super) fn device_pages(&mut self, record: &AreaRecord) {
        let place = place_of(record);
        let mut wanted = Some(record.vm.phys_addr().pfn());
        let mut promised = None;
        self.for_each_page(record.pages(), |audit, slot| {
            let Some(frame) = wanted else { return };
            wanted = frame.checked_add(1);
            let Some(found) = audit.small_page(slot, place, Some(frame)) else { return };
            audit.summary.area_pages += 1;
            audit.device_page(slot.pages.start(), place, frame, found);
            let attributes = *promised.get_or_insert(found.attributes);
            if attributes != found.attributes {
                let (address, had) = (slot.pages.start(), found.attributes);
                let wanted = attributes;
                audit.found(Violation::WrongAttributes { address, place, wanted, had });
            }
        });
    }

    pub(super) fn device_page(
        &mut self,
        address: VirtAddr,
        place: Place,
        wanted: Pfn,
        found: Found,
    ) {
        let physical = found.frame.base();
        let had = self.space.zones().table().owner_of(found.frame);
        if had != FrameOwner::Absent {
            self.found(Violation::DeviceOverRam { address, physical, had });
        } else if found.frame != wanted {
            let wanted = wanted.base();
            self.found(Violation::WrongFrame { address, place, wanted, had: physical });
        }
    }

    /// The index must have every run of pages that areas map of devices, and no other; and no page may be mapped in two ways that
    /// do not go together (S97, S112).
    pub(super) fn device_runs(&mut self) {
        let space = self.space;
        let (mut next, mut found) = (space.window().start(), 0);
        while let Some(area) = space.next_area(next) {
            found += self.runs_of(&area);
            match area.pages.start().checked_add(area.bytes_with_guard()) {
                Some(after) => next = after,
                None => break,
            }
        }
        match space.count_runs() {
            None => self.found(Violation::IndexUnsound),
            Some(runs) if runs != found => self.found(Violation::IndexRuns { runs, found }),
            Some(_) => {}
        }
    }

    /// Compares what an area maps with its runs; how many those are.
    fn runs_of(&mut self, area: &AreaSummary) -> u32 {
        let base = area.pages.start();
        let (mut runs, mut covered, mut last) = (0, area.pages.first(), None);
        // What is seen is judged outside the lock of areas, which judging takes.
        loop {
            match self.space.run_after(base, last) {
                NextRun::Next(run) => {
                    covered = run.page().saturating_add(run.pages());
                    runs += 1;
                    last = Some(run);
                    self.pages_of(area, &run);
                }
                NextRun::NoMore => {
                    self.pages_without_run(area, covered);
                    return runs;
                }
                NextRun::NoDevices => return runs,
            }
        }
    }

    /// Pages of the area from page number `from` on have no run.
    fn pages_without_run(&mut self, area: &AreaSummary, from: u32) {
        if from != area.pages.end() {
            let address = VirtAddr::new(from * PAGE_SIZE);
            if let Some((physical, attributes)) = self.leads_to(from) {
                self.found(Violation::Unindexed { address, physical: physical.base(), attributes });
            }
        }
    }

    /// Compares a run with the tables, and each of its pages with whoever else has it mapped.
    fn pages_of(&mut self, area: &AreaSummary, run: &Run) {
        let mut clashed = false;
        for (frame, page) in (run.first()..=run.last()).zip(run.page()..) {
            // One that is missing was reported with the area.
            let Some((physical, attributes)) = self.leads_to(page) else { continue };
            let address = VirtAddr::new(page * PAGE_SIZE);
            // So was one that is not as the first is.
            let is_first = page == run.page();
            let is_wrong = physical.number() != frame && area.kind == AreaKind::Vmap
                || is_first && attributes != run.attributes();
            if is_wrong {
                self.found(Violation::Unindexed { address, physical: physical.base(), attributes });
            }
            if !clashed {
                clashed = self.clashes(run, physical, (address, attributes));
            }
        }
    }

    /// Reports who else has `physical` mapped, the board for good or another area, in a way that does not go together with `mapped`;
    /// once for two.
    fn clashes(
        &mut self,
        run: &Run,
        physical: Pfn,
        (address, attributes): (VirtAddr, Attributes),
    ) -> bool {
        let mapped = (address, attributes);
        if let Some(against) = self.space.static_clash(iter::once(physical), attributes) {
            let (_, had) = against;
            let at = had.page_of(physical).unwrap_or(had.pages.start());
            self.found(mismatched(physical, mapped, (at, had.attributes)));
            return true;
        }
        let other = self.space.conflict_but(physical, attributes, run.page());
        let Some(other) = other else { return false };
        let against =
            (VirtAddr::new(other.page_of(physical.number()) * PAGE_SIZE), other.attributes());
        // Of two that both are as the index says, the upper one is asked.
        if mapped.0 < against.0 && attributes == run.attributes() {
            return false;
        }
        self.found(mismatched(physical, mapped, against));
        true
    }

    /// What the page is mapped to, if it is, and as we map.
    fn leads_to(&self, page: u32) -> Option<(Pfn, Attributes)> {
        let page = PageRange::from_numbers(page, 1)?;
        let entry = self.space.table().translate(page.start())?;
        Some((entry.physical.pfn(), entry.attributes().ok()?))
    }
}

/// Two mappings of one page that do not go together, the lower first.
fn mismatched(
    physical: Pfn,
    one: (VirtAddr, Attributes),
    other: (VirtAddr, Attributes),
) -> Violation {
    let ((first, had), (second, attributes)) =
        if one.0 < other.0 { (one, other) } else { (other, one) };
    if had.memory() == attributes.memory() {
        let (address, linear, linear_attributes) = (second, first, had);
        return Violation::ProtectionAlias {
            frame: physical,
            address,
            attributes,
            linear,
            linear_attributes,
        };
    }
    let (first_type, second_type) = (had.memory(), attributes.memory());
    let physical = physical.base();
    Violation::MemoryTypes { physical, first, first_type, second, second_type }
}
