//! vmap of frames that lie one after the other: by sections and large pages (S90).
//!
//! The list is read run by run: as long as 256 frames follow each other from a multiple of 256 on they are a section, then as
//! long as 16 do so they are a large page, and what comes behind is small pages. What begins otherwise is not asked further.

use crate::addr::{PAGE_SIZE, PAGES_PER_SECTION, Pfn};
use crate::area::{AreaSummary, Mapping};
use crate::attributes::Attributes;
use crate::descriptor::l2::LARGE_PAGE_SLOTS;
use crate::frames::{Belonging, FrameList};
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::vmap::OwnerSet;
use crate::kernel_space::{KernelSpace, VmapError};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{LargeParts, MapError, Mapped, Parked, Released};
use crate::va_space::{Alignment, Request};

/// The least number of pages that is worth a look.
pub(super) const FEWEST: usize = LARGE_PAGE_SLOTS as usize;

/// Whether the first two of `frames` are such as a large entry begins with: all that most lists are asked.
#[inline(always)]
pub(super) fn may_begin_a_run(mut frames: impl Iterator<Item = Option<Pfn>>) -> bool {
    let mut number = || frames.next().flatten().map(Pfn::number);
    number().is_some_and(|first| {
        first.is_multiple_of(LARGE_PAGE_SLOTS) && number().is_some_and(|second| second == first + 1)
    })
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Maps frames that may be a run: by large entries, or else by small pages. If these lack something too, what was lacking
    /// first counts; what is wrong with the frames, they find.
    ///
    /// Not inlined, so that the mapping of most lists stays a function of one caller.
    #[inline(never)]
    pub(super) fn vmap_run<I>(
        &self,
        frames: I,
        attributes: Attributes,
        new: NewArea,
    ) -> Result<AreaSummary, VmapError>
    where
        I: ExactSizeIterator<Item = Option<Belonging>> + Clone,
    {
        let first = match self.vmap_large(frames.clone(), attributes, new) {
            Ok(Some(area)) => return Ok(area),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        // Of its own kind of iterator, for the same reason.
        match (self.map_borrowed("vmap", frames.fuse(), attributes, new), first) {
            (Err(VmapError::Area(_) | VmapError::Map(_)), Some(first)) => Err(first),
            (mapped, _) => mapped,
        }
    }

    /// Maps frames of others by large entries, if they begin so that they can be; `None` if not.
    ///
    /// # Errors
    /// [`VmapError`], of an unfit frame not the very one; nothing was taken. Small pages may serve.
    #[inline(always)]
    fn vmap_large<I>(
        &self,
        frames: I,
        attributes: Attributes,
        new: NewArea,
    ) -> Result<Option<AreaSummary>, VmapError>
    where
        I: ExactSizeIterator<Item = Option<Belonging>> + Clone,
    {
        let Ok(pages) = u32::try_from(frames.len()) else { return Ok(None) };
        let allowed = OwnerSet::allowed_under(attributes);
        let mut left = frames.map(move |item| match item {
            Some(Belonging { frame, owner }) if allowed.contains(owner) => Some(frame),
            _ => None,
        });
        let head = take_run(&mut left.clone(), LARGE_PAGE_SLOTS);
        if head.is_none() || !self.may_map_large() || pages > self.zones.total() {
            return Ok(None);
        }
        let section = take_run(&mut left, PAGES_PER_SECTION);
        let parts = LargeParts::new(u32::from(section.is_some()), 1);
        let alignment = Alignment::Order(parts.alignment_order());
        let request = Request { alignment, ..Request::of_bytes(pages.saturating_mul(PAGE_SIZE)) };
        let (mut usable, place) =
            self.reserve("vmap", |areas| areas.reserve(&request)).map_err(VmapError::Area)?;
        let (mut mapped, mut parked) = (Mapped::default(), Parked::new());
        let done =
            self.map_runs(&mut usable, (section, left), attributes, &mut mapped, &mut parked);
        if let Err(error) = done {
            let unmapped = self.table.unmap_large(usable, mapped, parked, ());
            self.abandon(unmapped.flush().range, place);
            return Err(VmapError::Map(error));
        }
        let (list, parts) = (FrameList::new(), mapped.parts);
        Ok(Some(self.publish(place, Mapping::Large { usable, list, parts, parked }, new)))
    }

    /// Maps `section`, if there is one, and then all of `left`; notes in `mapped` how far that went. Seen by every walker.
    fn map_runs<F>(
        &self,
        usable: &mut OwnedRange,
        (mut section, mut left): (Option<Pfn>, F),
        attributes: Attributes,
        mapped: &mut Mapped,
        parked: &mut Parked,
    ) -> Result<(), MapError>
    where
        F: ExactSizeIterator<Item = Option<Pfn>> + Clone,
    {
        let tables = self.tables.source(&self.zones);
        let (mut sections, mut large) = (0, 0);
        while let Some(first) = section {
            let offset = mapped.parts.pages();
            self.table.map_section(usable, offset, first, attributes, parked)?;
            sections += 1;
            mapped.parts = LargeParts::new(sections, 0);
            section = take_run(&mut left, PAGES_PER_SECTION);
        }
        while let Some(first) = take_run(&mut left, LARGE_PAGE_SLOTS) {
            let offset = mapped.parts.pages();
            self.table.map_large_pages(usable, offset, (first, 1), attributes, &tables)?;
            large += 1;
            mapped.parts = LargeParts::new(sections, large);
        }
        if left.len() == 0 {
            self.table.machine().barrier();
            return Ok(());
        }
        let small = self.table.map(usable, mapped.parts.pages(), left, attributes, &tables);
        mapped.small = small.unwrap_or_else(|error| error.mapped());
        small.map(drop)
    }

    /// Ends what [`KernelSpace::vmap_large`] made; its addresses.
    pub(super) fn vunmap_large(
        &self,
        usable: OwnedRange,
        parts: LargeParts,
        parked: Parked,
        list: FrameList,
    ) -> Released<()> {
        let Released { range, payload, removal } = self.unmap_large(usable, parts, parked, list);
        debug_assert!(payload.is_empty(), "vmap owns no frames");
        _ = payload.leak();
        Released { range, payload: (), removal }
    }
}

/// Takes the next `count` of `frames`, if each follows the one before and the first is aligned to them all. Otherwise nothing
/// is taken.
fn take_run(frames: &mut (impl Iterator<Item = Option<Pfn>> + Clone), count: u32) -> Option<Pfn> {
    let mut ahead = frames.clone();
    let first = ahead.next()??;
    if !first.number().is_multiple_of(count) {
        return None;
    }
    for number in first.number() + 1..first.number() + count {
        if ahead.next()??.number() != number {
            return None;
        }
    }
    *frames = ahead;
    Some(first)
}
