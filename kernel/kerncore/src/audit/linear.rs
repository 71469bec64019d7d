//! The linear map: every frame of RAM at its distance, or gone for a reason.

use super::check::Slots;
use super::owners::{Owners, is_lent};
use super::{Audit, Place, Violation};
use crate::addr::{PageRange, Pfn, PhysAddr, VirtAddr};
use crate::attributes::Attributes;
use crate::descriptor::l1;
use crate::frames::FrameOwner;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::Slot;

/// What a page of the linear map should hold.
enum Rule {
    Mapped(Place, Attributes),
    Absent(Place),
}

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    /// Checks every page of the linear map.
    pub(super) fn linear(&mut self) {
        let space = self.space;
        let mut owners = Owners::new(space.zones().table());
        space.table().for_each_section(space.linear().window(), |pages, above| {
            // A slot that names another table was reported, once, and what lies there is another's.
            if let Some(table) = l1::table(above)
                && self.linear_table(pages) == Some(table)
            {
                self.linear_section(pages, table, &mut owners);
            }
        });
    }

    /// Run after run of pages that one rule holds for: a run that is as it should be costs a few instructions a page, and only
    /// one that is not is looked at page by page.
    fn linear_section(&mut self, pages: PageRange, table: PhysAddr, owners: &mut Owners<'_>) {
        let space = self.space;
        let mut offset = 0;
        while let Some(left) = pages.sub_range(offset, pages.count().saturating_sub(offset))
            && let Some(frame) = space.linear().frame_of(left.start())
        {
            let (owner, frames) = owners.run(frame);
            let count = self.of_one_rule(left).min(frames).min(left.count());
            let Some(run) = left.sub_range(0, count).filter(|run| !run.is_empty()) else { break };
            if !self.run_holds(run, table, frame, owner) {
                space.table().for_each_slot(run, |slot| {
                    if let Some(frame) = space.linear().frame_of(slot.pages.start()) {
                        self.linear_page(slot, frame, owner);
                    }
                });
            }
            offset += count;
        }
    }

    /// How many of `pages`, from the first on, are neither the image's nor constants; one if the first is.
    fn of_one_rule(&self, pages: PageRange) -> u32 {
        let before = |range: PageRange| match range.first().checked_sub(pages.first()) {
            _ if range.is_empty() => pages.count(),
            Some(0) => 1,
            Some(below) => below,
            None if range.contains(pages.start()) => 1,
            None => pages.count(),
        };
        before(self.expected.image).min(before(self.expected.constants))
    }

    /// Whether all of `pages`, outside the image, hold what they should for frames of `owner` from `first` on; counts them if so.
    fn run_holds(
        &mut self,
        pages: PageRange,
        table: PhysAddr,
        first: Pfn,
        owner: FrameOwner,
    ) -> bool {
        if self.expected.image.contains(pages.start()) {
            return false;
        }
        let rule = self.ram_rule(pages.start(), Place::Linear, owner);
        let slots = Slots::new(self.space.table().machine(), table, pages);
        match rule {
            Rule::Mapped(_, attributes) => {
                let holds = slots.lead_to(first, attributes);
                self.summary.linear_pages += if holds { pages.count() } else { 0 };
                holds
            }
            Rule::Absent(place) => {
                let holds = slots.are_empty();
                let lent = holds && matches!(place, Place::Lent(_));
                self.summary.lent_pages += if lent { pages.count() } else { 0 };
                holds
            }
        }
    }

    #[inline]
    fn linear_page(&mut self, slot: Slot, frame: Pfn, owner: FrameOwner) {
        let address = slot.pages.start();
        let rule = if self.expected.image.contains(address) {
            self.image_rule(address, frame, owner)
        } else {
            self.ram_rule(address, Place::Linear, owner)
        };
        match rule {
            Rule::Mapped(place, attributes) => {
                if self.exactly(slot, place, frame, attributes) {
                    self.summary.linear_pages += 1;
                }
            }
            Rule::Absent(place) => {
                if self.absent(slot, place) && matches!(place, Place::Lent(_)) {
                    self.summary.lent_pages += 1;
                }
            }
        }
    }

    /// The image keeps what the stub mapped, but for pages of it that were not needed and given to the allocator.
    fn image_rule(&mut self, address: VirtAddr, frame: Pfn, owner: FrameOwner) -> Rule {
        let part = self.expected.parts.iter().find(|part| part.pages.contains(address));
        let rule = match part {
            Some(part) if part.attributes == Attributes::KERNEL_DATA => {
                return self.ram_rule(address, Place::Image(part.name), owner);
            }
            Some(part) => Rule::Mapped(Place::Image(part.name), part.attributes),
            None => Rule::Absent(Place::ImageGuard),
        };
        if owner != FrameOwner::KernelImage {
            let (Rule::Mapped(place, _) | Rule::Absent(place)) = rule;
            let (wanted, had) = (FrameOwner::KernelImage, owner);
            self.found(Violation::WrongOwner { address, place, frame, wanted, had });
        }
        rule
    }

    /// RAM is mapped, unless it is lent, and may be written, unless it holds constants.
    fn ram_rule(&self, address: VirtAddr, place: Place, owner: FrameOwner) -> Rule {
        if matches!(owner, FrameOwner::Absent) {
            Rule::Absent(Place::BeyondRam)
        } else if self.expected.constants.contains(address) {
            Rule::Mapped(place, Attributes::KERNEL_RODATA)
        } else if is_lent(owner) {
            Rule::Absent(Place::Lent(owner))
        } else {
            Rule::Mapped(place, Attributes::KERNEL_DATA)
        }
    }
}
