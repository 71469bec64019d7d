//! `vmalloc_huge`: memory of vmalloc of which every whole mebibyte is a section (S90).
//!
//! ```text
//!   addresses  ┌─ aligned to 1 MiB ─┬────────────────────┬──┬──┬──┐
//!   frames     │ 256 adjacent ones  │ 256 adjacent ones  │  │  │  │ the rest, one by one
//!              └────────────────────┴────────────────────┴──┴──┴──┘
//! ```
//! Where so many adjacent frames are not to be had, or addresses, or where large mappings are forbidden
//! (`nohugevmalloc`), small pages serve: the caller gets memory all the same. A large mapping is never split while it lives:
//! nothing changes a part of one.

use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGES_PER_SECTION, VirtAddr, pages_for};
use crate::area::{AreaKind, AreaSummary, Mapping};
use crate::attributes::Attributes;
use crate::frames::{FrameList, FrameOwner};
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{Fill, KernelSpace, VmallocError};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{Parked, Released};
use crate::va_space::{Alignment, Request};

const SECTION_ORDER: u32 = PAGES_PER_SECTION.trailing_zeros();

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// From now on no mapping is a large one (`nohugevmalloc`, S90). Those that there are stay. Any context.
    pub fn forbid_large_mappings(&self) {
        self.large_forbidden.store(true, Relaxed);
    }

    /// As [`KernelSpace::vmalloc`], with every whole MiB mapped by a section where that can be had. Not in interrupt context
    /// (S10).
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
        let fits = pages >= PAGES_PER_SECTION && pages <= self.zones.total();
        if fits && !self.large_forbidden.load(Relaxed) {
            self.may_sleep_for("vmalloc_huge");
            if let Some(list) = self.adjacent_frames(pages)
                && let Some(area) = self.map_large(bytes, pages, list, fill, caller)?
            {
                return Ok(area);
            }
        }
        self.vmalloc(bytes, fill, caller)
    }

    /// Frames of which each MiB's are adjacent and aligned; `None` if there are not so many.
    fn adjacent_frames(&self, pages: u32) -> Option<FrameList> {
        let table = self.zones.table();
        let mut list = FrameList::new();
        for _ in 0..pages / PAGES_PER_SECTION {
            match self.zones.allocate(SECTION_ORDER, FrameOwner::Vmalloc) {
                Ok(block) => list.push(table, block),
                Err(_) => return self.none(list),
            }
        }
        match pages % PAGES_PER_SECTION {
            0 => Some(list),
            rest => match self.zones.allocate_list(rest, FrameOwner::Vmalloc) {
                Ok(rest) => {
                    list.append(table, rest);
                    Some(list)
                }
                Err(_) => self.none(list),
            },
        }
    }

    /// Gives `list`, which is not enough, back.
    #[cold]
    fn none(&self, list: FrameList) -> Option<FrameList> {
        let freed = self.zones.free_list(list);
        debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
        None
    }

    /// Maps `list`; `None`, with the frames given back, if there are no aligned addresses.
    fn map_large(
        &self,
        bytes: u32,
        pages: u32,
        list: FrameList,
        fill: Fill,
        caller: VirtAddr,
    ) -> Result<Option<AreaSummary>, VmallocError> {
        let alignment = Alignment::Order(SECTION_ORDER);
        let request = Request { alignment, ..Request::of_bytes(bytes) };
        let reserved = self.reserve("vmalloc_huge", |areas| areas.reserve(&request));
        let Ok((mut usable, place)) = reserved else {
            return Ok(self.none(list).and(None));
        };
        let table = self.zones.table();
        if fill == Fill::Zeroed {
            list.frames(table).for_each(|frame| self.zero_low_frames(frame, 1));
        }
        let sections = pages / PAGES_PER_SECTION;
        let (mut parked, mut done) = (Parked::new(), 0);
        let mut mapped = Ok(());
        for first in list.frames(table).step_by(PAGES_PER_SECTION as usize).take(sections as usize)
        {
            let (offset, attributes) = (done * PAGES_PER_SECTION, Attributes::KERNEL_DATA);
            mapped = self.table.map_section(&mut usable, offset, first, attributes, &mut parked);
            if mapped.is_err() {
                break;
            }
            done += 1;
        }
        self.table.machine().barrier();
        let behind = sections * PAGES_PER_SECTION;
        let mut small = 0;
        if mapped.is_ok() && pages > behind {
            let mut frames = list.frames(table);
            _ = frames.nth(behind as usize - 1);
            let tables = self.tables.source(&self.zones);
            let attributes = Attributes::KERNEL_DATA;
            match self.table.map(&mut usable, behind, frames, attributes, &tables) {
                Ok(_) => small = pages - behind,
                Err(error) => (small, mapped) = (error.mapped(), Err(error)),
            }
        }
        if let Err(error) = mapped {
            let unmapped = self.table.unmap_sections(usable, (done, small), parked, list);
            let Released { range, payload, .. } = unmapped.flush();
            self.abandon(range, place);
            return self.none(payload).map_or(Err(VmallocError::Map(error)), |_| Ok(None));
        }
        debug_assert!(sections == done, "each was mapped");
        let new = NewArea::new(AreaKind::Vmalloc, caller);
        let mapping = Mapping::Large { usable, list, sections, parked };
        Ok(Some(self.publish(place, mapping, new)))
    }
}
