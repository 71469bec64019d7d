//! Supersections: 16 MiB by sixteen first-level descriptors that hold the same word (S22, S96; ARM DDI 0406C, B3.5.1).
//!
//! ```text
//!   map     slots of all tables empty? ─▶ tables' slots := 0 ─▶ forget ─▶ park the tables ─▶ sixteen slots := word
//!   unmap   sixteen slots := 0 ─▶ forget the one entry ─▶ slots := parked tables
//! ```
//! As with sections, no slot goes from a table to something else but by way of nothing (break-before-make), and the tables that
//! are displaced, up to sixteen, wait with the mapping. As with large pages, the sixteen are written into slots that are empty by
//! then, and cleared together: at no time do two of them say different things, and a TLB that read any of them holds all 16 MiB.

use super::sections::Parked;
use super::tables::{Above, section_start};
use super::unmap::{Oddity, Removal};
use super::{MapError, PageTable};
use crate::addr::{PAGES_PER_SECTION, PAGES_PER_SUPERSECTION, Pfn};
use crate::attributes::Attributes;
use crate::descriptor::{PageSize, l1, l1::SUPERSECTION_SLOTS};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps the supersection at page `offset` of `range` to the frames from `first` on. The tables that it displaces are parked.
    /// Not seen by every walker before the next barrier.
    ///
    /// # Errors
    /// [`MapError::DoesNotFit`] if the supersection does not lie in the range or either side is not aligned to it;
    /// [`MapError::Occupied`] if anything is mapped there (S17). Nothing has changed.
    pub fn map_supersection(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        first: Pfn,
        attributes: Attributes,
        parked: &mut Parked,
    ) -> Result<(), MapError> {
        let descriptor = l1::Descriptor::Supersection(first.base(), attributes);
        self.map_above(range, offset, (descriptor, PAGES_PER_SUPERSECTION), parked)
    }

    /// Clears the sixteen slots from that of section number `first` on, which are known to be one supersection: by the area, not by
    /// what the slots say (S22).
    pub(super) fn clear_supersection(&self, first: u32, removal: &mut Removal) {
        self.making_tables.with(|()| {
            let slot = self.l1_slot(first);
            let join = |bits, by: fn(u32, u32) -> u32| {
                self.machine.join_descriptors(slot, SUPERSECTION_SLOTS, bits, by)
            };
            let all = join(!0, |bits, descriptor| bits & descriptor);
            let any = join(0, |bits, descriptor| bits | descriptor);
            if all == any && l1::page_size(all) == Some(PageSize::Supersection) {
                self.machine.clear_descriptors(slot, SUPERSECTION_SLOTS);
                self.machine.clean_descriptors(slot, SUPERSECTION_SLOTS);
                removal.pages += PAGES_PER_SUPERSECTION;
            } else if any != 0 {
                self.clear_uneven(first, removal);
            }
        });
    }

    /// Sixteen slots that are not one supersection: what maps goes all the same, for it translates nobody else's addresses. A table
    /// stays, for somebody put it there who maps through it what he likes.
    #[cold]
    fn clear_uneven(&self, first: u32, removal: &mut Removal) {
        let rest = self.machine.read_descriptor(self.l1_slot(first));
        for section in first..first + SUPERSECTION_SLOTS {
            let address = section_start(section);
            match self.above(section) {
                Above::Table(table) => {
                    removal.note(Oddity::ReachesOutside { address, descriptor: table.raw() });
                }
                Above::Nothing => removal.note(Oddity::Uneven { address, descriptor: 0 }),
                Above::Other(descriptor) => {
                    self.write_l1(section, 0);
                    removal.pages += PAGES_PER_SECTION;
                    if descriptor != rest {
                        removal.note(Oddity::Uneven { address, descriptor });
                    }
                }
            }
        }
    }
}
