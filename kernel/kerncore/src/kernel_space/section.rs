//! `vmalloc_huge` of one mebibyte, where everything is at hand: made, and removed, in one critical section.
//!
//! ```text
//!                           ┌ lock of areas ───────────────────────────────────────────┐
//!   256 frames that wait ─▶ │ aligned addresses ─▶ one descriptor ─▶ record ─▶ Live    │
//!                           │ find ─▶ clear ─▶ flush (S23) ─▶ Free                     │ ─▶ frames
//!                           └──────────────────────────────────────────────────────────┘
//! ```
//! Its page pointers are there already ([`crate::frames::Pointers`]). What is not at hand (the block, a place for the record,
//! addresses, an empty first-level slot), or not as it should be, is left to the general way ([`super::huge`]), as few pages are
//! ([`super::few`]). A section that displaced a table is: to put that back takes a lock that comes before this one.

use core::num::NonZeroU32;

use crate::addr::{PAGES_PER_SECTION, PageRange, PhysAddr, VirtAddr};
use crate::area::{AreaKind, AreaRecord, AreaSummary, Mapping, PageArray};
use crate::attributes::Attributes;
use crate::descriptor::l1::Sections;
use crate::frames::{Frame, FrameList, FrameOwner, FrameRequest, Freed};
use crate::kernel_space::page_array::address_of;
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{Fill, KernelSpace};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{LargeParts, Parked};
use crate::va_space::GUARD_PAGES;

/// What its descriptor says.
const SECTIONS: Sections = Sections::new(Attributes::KERNEL_DATA);
/// One section, and nothing else.
pub(super) const ONE_SECTION: LargeParts = LargeParts::new(1, 0);
const SECTION_ORDER: u32 = PAGES_PER_SECTION.trailing_zeros();

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Memory of vmalloc of one section, if all is at hand. Otherwise nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub(super) fn vmalloc_section(&self, fill: Fill, caller: VirtAddr) -> Option<AreaSummary> {
        if !self.zones.begins_with_first(FrameRequest::ANY) {
            return None;
        }
        let first = self.make_section(caller, fill)?;
        Some(AreaSummary {
            pages: PageRange::trusted(first.get(), PAGES_PER_SECTION),
            kind: AreaKind::Vmalloc,
            flags: AreaKind::Vmalloc.flags(),
            physical: PhysAddr::new(0),
            caller,
            users: 0,
        })
    }

    /// The number of the first page.
    #[inline(never)]
    fn make_section(&self, caller: VirtAddr, fill: Fill) -> Option<NonZeroU32> {
        self.may_sleep_for("vmalloc_huge");
        self.bound_backlog();
        let record = self.zones.take_waiting(SECTION_ORDER, FrameOwner::Vmalloc)?;
        let table = self.zones.table();
        let chain = table.chain_of_one(record);
        let frame = table.first_of(chain);
        // A block of that order is aligned to its size.
        let word = SECTIONS.word(frame);
        if fill == Fill::Zeroed {
            match self.linear.pages_of(frame, PAGES_PER_SECTION) {
                Some(memory) => self.table.machine().zero_pages(memory),
                None => return self.section_not_at_hand(record),
            }
        }
        let Some(words) = self.pointers.of(frame, PAGES_PER_SECTION) else {
            return self.section_not_at_hand(record);
        };
        let made = self.areas.with(|areas| {
            let mut place = areas.records.take().ok()?;
            let wanted = PAGES_PER_SECTION.wrapping_add(GUARD_PAGES);
            let begun = areas.space.begin_aligned(wanted, PAGES_PER_SECTION - 1);
            let Some(start) = begun else {
                areas.records.give_back(place);
                return None;
            };
            let mut usable = start.range(PAGES_PER_SECTION);
            if !self.table.map_section_at_hand(&mut usable, word) {
                areas.give_up(usable, place);
                return None;
            }
            let range = usable.pages();
            place.array = PageArray::Shared { first: frame, pages: PAGES_PER_SECTION };
            let new = NewArea::new(AreaKind::Vmalloc, caller);
            let new = new.pointers(address_of(words), PAGES_PER_SECTION);
            let list = FrameList::of_one(chain, PAGES_PER_SECTION);
            let mapping =
                Mapping::Large { usable, list, parts: ONE_SECTION, parked: Parked::new() };
            new.describe(&mut place, mapping);
            areas.go_live(range, place);
            NonZeroU32::new(range.first())
        });
        if made.is_some() { made } else { self.section_not_at_hand(record) }
    }

    #[cold]
    #[inline(never)]
    fn section_not_at_hand(&self, record: &'s Frame) -> Option<NonZeroU32> {
        let freed = self.zones.give_back_record(record, SECTION_ORDER, FrameOwner::Vmalloc);
        debug_assert_eq!(freed, Freed::Yes, "nobody has seen them");
        None
    }

    /// Ends what is behind `record`, of an area of `pages` pages at `base` that nobody uses, if it is one section that displaced no
    /// table, and frees its frames. Says whether; otherwise there is still as much to end. Under the lock of areas, once nobody
    /// reads any.
    #[inline(never)]
    pub(super) fn end_section(&self, record: &mut AreaRecord, pages: u32, base: VirtAddr) -> bool {
        let (Mapping::Large { usable, list, parts, parked }, PageArray::Shared { .. }) =
            (&mut record.mapping, &record.array)
        else {
            return false;
        };
        // None of its pointers is null (S33): nobody can write there.
        if *parts != ONE_SECTION || pages != PAGES_PER_SECTION || !parked.is_empty() {
            return false;
        }
        L::memory_goes(|| Some((base, usable.pages().bytes())));
        if !self.table.clear_section_at_hand(usable) {
            return false;
        }
        // Flushed: the frames may be used anew (S23). What is wrong with them, if anything is, the general way says, which finds
        // an area that maps nothing any more.
        record.array = PageArray::Within;
        let left = self.zones.give_back_list(list.moved(), FrameOwner::Vmalloc);
        record.mapping = match left {
            Ok(()) => Mapping::Nothing,
            Err(list) => Mapping::Frames { usable: usable.moved(), list },
        };
        matches!(record.mapping, Mapping::Nothing)
    }
}
