//! Registers that few entries lead to, made and removed in one critical section: what drivers ask for, as a rule.
//!
//! ```text
//!                             ┌ lock of areas ─────────────────────────────────────────────────┐
//!   zero? wraps? RAM? ─▶      │ aligned addresses ─▶ descriptors ─▶ record ─▶ Live              │
//!                             │ find ─▶ clear ─▶ flush (S23) ─▶ Free                           │
//!                             └────────────────────────────────────────────────────────────────┘
//! ```
//! Few entries are small pages below one table, a large page, sections, or a supersection: no more than sixteen slots are
//! written under the lock. What is made of several kinds, or is not at hand (a place for the record, addresses, the second-level
//! table, empty slots), or is to be refused, is left to the general way ([`super::ioremap`], [`super::registers`]), which begins
//! anew and finds words for what is wrong.

use core::mem;

use crate::addr::{
    LARGE_PAGE_SIZE, PAGE_SIZE, PAGES_PER_SECTION, PAGES_PER_SUPERSECTION, Pfn, PhysAddr,
    SECTION_SIZE, VirtAddr,
};
use crate::area::{AreaKind, AreaRecord, Mapping};
use crate::attributes::Attributes;
use crate::descriptor::l1::Sections;
use crate::descriptor::l2::{LARGE_PAGE_SLOTS, LargePages, SmallPages};
use crate::failure::Point;
use crate::frames::FrameList;
use crate::kernel_space::areas::Areas;
use crate::kernel_space::at_once::Ending;
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{KernelSpace, MOST_AT_ONCE};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{FEW, LargeParts, MOST_SLOTS, Parked, Supersection};
use crate::physical_index::{Class, Name};
use crate::va_space::{End, GUARD_PAGES};

const ONE_SUPERSECTION: LargeParts = LargeParts::NONE.behind(1);
const ONE_LARGE_PAGE: LargeParts = LargeParts::new(0, 1);

/// As few entries of one size lead to a run of `pages` pages, if they do.
#[inline(always)]
fn few_parts(first: Pfn, pages: u32) -> Option<LargeParts> {
    let first = first.number();
    if pages == LARGE_PAGE_SLOTS && first.is_multiple_of(LARGE_PAGE_SLOTS) {
        return Some(ONE_LARGE_PAGE);
    }
    if !(first | pages).is_multiple_of(PAGES_PER_SECTION) {
        return None;
    }
    if pages >= PAGES_PER_SUPERSECTION && first.is_multiple_of(PAGES_PER_SUPERSECTION) {
        return (pages == PAGES_PER_SUPERSECTION).then_some(ONE_SUPERSECTION);
    }
    let sections = pages / PAGES_PER_SECTION;
    (sections <= MOST_SLOTS).then(|| LargeParts::sections_alone(sections))
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// As [`KernelSpace::ioremap`], if all is at hand. Otherwise nothing has changed.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub(super) fn ioremap_at_hand(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Option<VirtAddr> {
        let last = physical.checked_add(bytes.checked_sub(1)?)?;
        if self.zones.ram_within(physical, last).is_some() || self.statics.may_have(physical, last)
        {
            return None;
        }
        let first = physical.pfn();
        // Neither wraps: the last page is no lower than the first.
        let pages = last.pfn().number().wrapping_sub(first.number()).wrapping_add(1);
        let class = Class::new(attributes);
        let start = if pages < FEW {
            self.make_few_registers(
                SmallPages::new(attributes).word(first),
                pages,
                (class, caller),
            )?
        } else {
            let parts = few_parts(first, pages)?;
            let word = match parts {
                ONE_LARGE_PAGE => LargePages::new(attributes).word(first),
                ONE_SUPERSECTION => Sections::supersections(attributes).word(first),
                _ => Sections::new(attributes).word(first),
            };
            self.make_large_registers(word, (pages, parts), (class, caller))?
        };
        Some(VirtAddr::new(start.raw() | physical.page_offset()))
    }

    /// Of few small pages, the first of which has the descriptor `word`. Where they begin.
    ///
    /// Not inlined, and what it gives fits a register: it has all registers to itself.
    #[inline(never)]
    fn make_few_registers(
        &self,
        word: u32,
        pages: u32,
        (class, caller): (Class, VirtAddr),
    ) -> Option<VirtAddr> {
        self.may_sleep_for("ioremap");
        self.bound_backlog();
        let physical = PhysAddr::new(word & !(PAGE_SIZE - 1));
        let first = physical.pfn();
        let new = NewArea::new(AreaKind::IoRemap, caller).at(physical);
        self.areas.with(|areas| {
            let vacancy = areas.may_map_at_hand(first, pages, class)?;
            let mut place = areas.records.take().ok()?;
            let wanted = pages.wrapping_add(GUARD_PAGES);
            let begun = match pages {
                1 => areas.space.begin(wanted),
                pages => {
                    areas.space.begin_aligned(wanted, pages.next_power_of_two().wrapping_sub(1))
                }
            };
            let Some(start) = begun else {
                areas.records.give_back(place);
                return None;
            };
            let mut usable = start.range(pages);
            if !self.table.map_few(&mut usable, word) {
                areas.give_up(usable, place);
                return None;
            }
            let range = usable.pages();
            new.describe(&mut place, Mapping::Devices { usable });
            areas.note_at_hand(&mut place, first, range, (class, vacancy));
            areas.go_live(range, place);
            Some(range.start())
        })
    }

    /// Of large entries of one size, the first of which has the descriptor `word`. Where they begin.
    ///
    /// Not inlined, as the above.
    #[inline(never)]
    fn make_large_registers(
        &self,
        word: u32,
        (pages, parts): (u32, LargeParts),
        (class, caller): (Class, VirtAddr),
    ) -> Option<VirtAddr> {
        self.may_sleep_for("ioremap");
        self.bound_backlog();
        if L::fails(Point::ShortCut) {
            return None;
        }
        // All that a descriptor says beside the address lies below it.
        let border = if parts == ONE_LARGE_PAGE { LARGE_PAGE_SIZE } else { SECTION_SIZE };
        let physical = PhysAddr::new(word & border.wrapping_neg());
        let first = physical.pfn();
        let new = NewArea::new(AreaKind::IoRemap, caller).at(physical);
        self.areas.with(|areas| {
            let vacancy = areas.may_map_at_hand(first, pages, class)?;
            let mut place = areas.records.take().ok()?;
            let order = pages.next_power_of_two().min(PAGES_PER_SUPERSECTION);
            let wanted = pages.wrapping_add(GUARD_PAGES);
            let Some(start) = areas.space.begin_aligned(wanted, order.wrapping_sub(1)) else {
                areas.records.give_back(place);
                return None;
            };
            let mut usable = start.range(pages);
            let is_mapped = if parts == ONE_LARGE_PAGE {
                self.table.map_large_page_apart(&mut usable, word)
            } else {
                self.table.map_above_at_hand(&mut usable, word)
            };
            if !is_mapped {
                areas.give_up(usable, place);
                return None;
            }
            let range = usable.pages();
            let (list, parked) = (FrameList::new(), Parked::new());
            new.describe(&mut place, Mapping::Large { usable, list, parts, parked });
            areas.note_at_hand(&mut place, first, range, (class, vacancy));
            areas.go_live(range, place);
            Some(range.start())
        })
    }

    /// Ends the registers at `base`, if few entries lead to them, all as they should be, and nobody uses the area; or one use of
    /// them, if it has others. Says whether; otherwise nothing has changed.
    ///
    /// Not inlined, as the above.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(never)]
    pub(super) fn iounmap_at_hand(&self, base: VirtAddr) -> bool {
        self.may_sleep_for("iounmap");
        self.areas.with(|areas| {
            let (mut runs, mut is_less) = (Name::NONE, false);
            let end = |record: &mut AreaRecord, pages: u32| {
                if record.kind != AreaKind::IoRemap || record.users != 0 || !self.readers.are_none()
                {
                    return None;
                }
                // Others may use it: then there is nothing more to do ([`super::sharing`]).
                if record.devices.users != 0 {
                    is_less = Areas::count_less(&mut record.devices.users);
                    return None;
                }
                let is_gone = match &mut record.mapping {
                    Mapping::Devices { usable } => {
                        pages <= MOST_AT_ONCE
                            && usable.count() == pages
                            && self.table.clear_at_hand(usable)
                    }
                    Mapping::Large { usable, parts, parked, .. } => {
                        usable.count() == pages
                            && parked.is_empty()
                            && self.clear_few(usable, *parts)
                    }
                    _ => false,
                };
                is_gone.then(|| {
                    record.mapping = Mapping::Nothing;
                    runs = mem::replace(&mut record.devices.runs, Name::NONE);
                    End::Free
                })
            };
            let is_gone = matches!(areas.end_at_once(base, end), Some(Ending::Free));
            if is_gone {
                // It was flushed, so nobody remembers it (S97).
                areas.forget(runs, base.page_number());
            }
            is_gone | is_less
        })
    }

    #[inline(always)]
    fn clear_few(&self, usable: &mut OwnedRange, parts: LargeParts) -> bool {
        let pages = usable.count();
        if parts == LargeParts::sections_alone(pages / PAGES_PER_SECTION) {
            return pages <= MOST_SLOTS * PAGES_PER_SECTION
                && pages.is_multiple_of(PAGES_PER_SECTION)
                && pages != 0
                && self.table.clear_above_at_hand(usable, Supersection::No);
        }
        match (parts, pages) {
            (ONE_LARGE_PAGE, LARGE_PAGE_SLOTS) => self.table.clear_large_page_apart(usable),
            (ONE_SUPERSECTION, PAGES_PER_SUPERSECTION) => {
                self.table.clear_above_at_hand(usable, Supersection::Yes)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S96: whatever is at hand, the general way would make of the same entries.
    #[test]
    fn what_is_at_hand_is_made_of_the_entries_that_the_general_way_makes() {
        let lengths = (FEW..=600).chain((768..=9000).step_by(16)).chain([4095, 4097]);
        let mut at_hand = 0;
        for pages in lengths {
            for first in [0, 1, 16, 0x100, 0x110, 0xf00, 0x1000, 0x4_0000, 0x4_0f00, 0xf_0000] {
                let first = Pfn::new(first).expect("a frame");
                let Some(parts) = few_parts(first, pages) else { continue };
                assert_eq!(parts, LargeParts::of_run(first, pages), "{pages} from {first:?}");
                assert_eq!(parts.pages(), pages, "and nothing is left");
                assert!(parts.first_level_slots() + 16 * parts.large_pages() <= MOST_SLOTS);
                at_hand += 1;
            }
        }
        assert!(at_hand > 50, "{at_hand} runs were at hand");
    }
}
