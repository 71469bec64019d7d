//! The linear map: every frame of RAM at its distance, or gone for a reason.

use super::owners::{Owners, is_lent};
use super::{Audit, Place, Violation};
use crate::addr::{PageRange, Pfn, VirtAddr};
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
        let mut owners = Owners::new(space.zone().table());
        space.table().for_each_section(space.linear().window(), |pages, above| {
            // A slot that names another table was reported, once, and what lies there is another's.
            if l1::table(above) == self.linear_table(pages) {
                self.linear_section(pages, &mut owners);
            }
        });
    }

    fn linear_section(&mut self, pages: PageRange, owners: &mut Owners<'_>) {
        let space = self.space;
        space.table().for_each_slot(pages, |slot| {
            let address = slot.pages.start();
            if let Some(frame) = space.linear().frame_of(address) {
                self.linear_page(slot, frame, owners.of(frame));
            }
        });
    }

    #[inline]
    fn linear_page(&mut self, slot: Slot, frame: Pfn, owner: FrameOwner) {
        let address = slot.pages.start();
        let rule = if self.expected.image.contains(address) {
            self.image_rule(address, frame, owner)
        } else {
            ram_rule(Place::Linear, owner)
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
                return ram_rule(Place::Image(part.name), owner);
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
}

/// RAM is mapped, unless it is lent.
const fn ram_rule(place: Place, owner: FrameOwner) -> Rule {
    if matches!(owner, FrameOwner::Absent) {
        Rule::Absent(Place::BeyondRam)
    } else if is_lent(owner) {
        Rule::Absent(Place::Lent(owner))
    } else {
        Rule::Mapped(place, Attributes::KERNEL_DATA)
    }
}
