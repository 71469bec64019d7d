//! `vmalloc_huge`: memory of vmalloc that is mapped by as few entries as its frames allow (S90).
//!
//! ```text
//!   addresses  ┌─ aligned to 1 MiB ─┬────────────────────┬────────┬────────┬──┬──┬──┐
//!   frames     │ 256 adjacent ones  │ 256 adjacent ones  │ 16     │ 16     │  │  │  │ the rest, one by one
//!              └────────────────────┴────────────────────┴────────┴────────┴──┴──┴──┘
//! ```
//! The frames come first, in blocks as large as there are: whole mebibytes of them are sections, and where none is left, in the
//! size that was asked for or in memory, 64 KiB of them are large pages. Where there are no aligned addresses, or large mappings
//! are forbidden (`nohugevmalloc`), small pages serve: the caller gets memory all the same. A large mapping is never split while
//! it lives: nothing changes a part of one.

use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGES_PER_SECTION, VirtAddr, pages_for};
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping, PageArray};
use crate::attributes::Attributes;
use crate::descriptor::l2::LARGE_PAGE_SLOTS;
use crate::frames::{Blocks, FrameList, FrameRequest};
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::page_array::{address_of, flags_with};
use crate::kernel_space::realloc::lengthen::after;
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::section::ONE_SECTION;
use crate::kernel_space::{ArrayError, Fill, KernelSpace, VmallocError};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{LargeParts, MapError, Mapped, Parked, Released};
use crate::va_space::{Alignment, Request};

const SECTION_ORDER: u32 = PAGES_PER_SECTION.trailing_zeros();
const LARGE_ORDER: u32 = LARGE_PAGE_SLOTS.trailing_zeros();

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// From now on no mapping is a large one (`nohugevmalloc`, S90). Those that there are stay. Any context.
    pub fn forbid_large_mappings(&self) {
        self.large_forbidden.store(true, Relaxed);
    }

    /// Whether large mappings may be made.
    pub(super) fn may_map_large(&self) -> bool {
        !self.large_forbidden.load(Relaxed)
    }

    /// As [`KernelSpace::vmalloc`], mapped by sections and large pages as far as frames and addresses allow. Not in interrupt
    /// context (S10).
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmalloc_huge(
        &self,
        bytes: u32,
        fill: Fill,
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmallocError> {
        let pages = pages_for(bytes);
        let fits = pages >= LARGE_PAGE_SLOTS && pages <= self.zones.total();
        if !fits || !self.may_map_large() {
            return self.vmalloc(bytes, fill, caller);
        }
        if pages == PAGES_PER_SECTION
            && let Some(area) = self.vmalloc_section(fill, caller)
        {
            return Ok(area);
        }
        self.may_sleep_for("vmalloc_huge");
        self.unless_short(|| self.vmalloc_large(pages, (bytes, fill), caller))
    }

    fn vmalloc_large(
        &self,
        pages: u32,
        (bytes, fill): (u32, Fill),
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmallocError> {
        let list = self.filled_frames(FrameRequest::ANY, pages, fill)?;
        let parts = parts_of(list.blocks(self.zones.table()));
        let array = match self.array_for(&list, parts, caller) {
            Ok(array) => array,
            Err(error) => {
                self.free_unseen(list);
                return Err(VmallocError::PageArray(error));
            }
        };
        let (usable, place, parts) = match self.reserve_for(bytes, parts) {
            Ok(reserved) => reserved,
            Err(error) => {
                self.abandon_array(array);
                self.free_unseen(list);
                return Err(VmallocError::Area(error));
            }
        };
        self.map_parts(usable, place, parts, (list, array), caller)
    }

    /// Memory for the pointers to the frames of `list`: one section's are there already.
    fn array_for(
        &self,
        list: &FrameList,
        parts: LargeParts,
        caller: VirtAddr,
    ) -> Result<PageArray, ArrayError> {
        let pages = list.pages();
        match list.blocks(self.zones.table()).next() {
            Some((first, _)) if parts == ONE_SECTION && pages == PAGES_PER_SECTION => {
                Ok(PageArray::Shared { first, pages })
            }
            _ => self.take_array(pages, FrameRequest::ANY, caller),
        }
    }

    /// Takes addresses for `parts`, or, where there are none that are aligned so, for the next best.
    fn reserve_for(
        &self,
        bytes: u32,
        mut parts: LargeParts,
    ) -> Result<(OwnedRange, AreaPlace<'s>, LargeParts), NoArea> {
        let mut first = None;
        loop {
            let alignment = Alignment::Order(parts.alignment_order());
            let request = Request { alignment, ..Request::of_bytes(bytes) };
            match (self.reserve("vmalloc_huge", |areas| areas.reserve(&request)), parts.smaller()) {
                (Ok((usable, place)), _) => return Ok((usable, place, parts)),
                (Err(error), Some(smaller)) => {
                    first.get_or_insert(error);
                    parts = smaller;
                }
                // What was lacking first counts.
                (Err(error), None) => return Err(first.unwrap_or(error)),
            }
        }
    }

    /// Maps `list` and makes the area live, or gives everything back.
    fn map_parts(
        &self,
        mut usable: OwnedRange,
        mut place: AreaPlace<'s>,
        parts: LargeParts,
        (list, array): (FrameList, PageArray),
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmallocError> {
        let (mut mapped, mut parked) = (Mapped::default(), Parked::new());
        if let Err(error) = self.map_blocks(&mut usable, parts, &list, &mut mapped, &mut parked) {
            let unmapped = self.table.unmap_large(usable, mapped, parked, list);
            let Released { range, payload, .. } = unmapped.flush();
            self.abandon(range, place);
            self.abandon_array(array);
            self.free_unseen(payload);
            return Err(VmallocError::Map(error));
        }
        let words = self.array_words(&array, &place.within);
        if !matches!(array, PageArray::Shared { .. }) {
            self.note_list(&list, &array, words);
        }
        let new = NewArea::new(AreaKind::Vmalloc, caller)
            .flags(flags_with(&array, AreaFlags::ALLOC))
            .pointers(address_of(words), usable.count());
        place.array = array;
        let mapping = if parts.is_none() {
            Mapping::Frames { usable, list }
        } else {
            Mapping::Large { usable, list, parts, parked }
        };
        Ok(self.publish(place, mapping, new))
    }

    /// Maps the blocks of `list`, and notes in `mapped` how far that went. Seen by every walker.
    fn map_blocks(
        &self,
        usable: &mut OwnedRange,
        parts: LargeParts,
        list: &FrameList,
        mapped: &mut Mapped,
        parked: &mut Parked,
    ) -> Result<(), MapError> {
        let attributes = Attributes::KERNEL_DATA;
        let (pages, tables) = (usable.count(), self.tables.source(&self.zones));
        let mut blocks = list.blocks(self.zones.table());
        let (mut sections, mut large) = (0, 0);
        while sections < parts.sections()
            && let Some((first, order)) = blocks.next()
        {
            let (offset, run) =
                (sections * PAGES_PER_SECTION, (first, 1 << (order - SECTION_ORDER)));
            let done = self.table.map_sections(usable, offset, run, attributes, parked);
            sections += done.map_or_else(|(done, _)| done, |()| run.1);
            mapped.parts = LargeParts::new(sections, 0);
            done.map_err(|(_, error)| after(mapped.parts.pages())(error))?;
        }
        while large < parts.large_pages()
            && let Some((first, order)) = blocks.next()
        {
            let (offset, run) = (mapped.parts.pages(), (first, 1 << (order - LARGE_ORDER)));
            let done = self.table.map_large_pages(usable, offset, run, attributes, &tables);
            large += done.map_or_else(|error| error.mapped() / LARGE_PAGE_SLOTS, |()| run.1);
            mapped.parts = LargeParts::new(sections, large);
            done.map_err(after(offset))?;
        }
        let behind = parts.pages();
        if pages == behind {
            self.table.machine().barrier();
            return Ok(());
        }
        let small = self.table.map(usable, behind, blocks.frames(), attributes, &tables);
        mapped.small = small.unwrap_or_else(|error| error.mapped());
        small.map(drop).map_err(after(behind))
    }

    /// Gives frames back that nobody but this call has seen.
    #[cold]
    pub(super) fn free_unseen(&self, list: FrameList) {
        let freed = self.zones.free_list(list);
        debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
    }
}

/// By how many sections and large pages `blocks` can be mapped, in their order.
fn parts_of(blocks: Blocks<'_, '_>) -> LargeParts {
    let (mut sections, mut large) = (0, 0);
    for (_, order) in blocks {
        if order >= SECTION_ORDER && large == 0 {
            sections += 1 << (order - SECTION_ORDER);
        } else if order >= LARGE_ORDER {
            large += 1 << (order - LARGE_ORDER);
        } else {
            break;
        }
    }
    LargeParts::new(sections, large)
}
