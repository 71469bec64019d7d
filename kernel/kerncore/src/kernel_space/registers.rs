//! Registers that fill large entries: how they are mapped, and what is undone when that fails (S96).
//!
//! ```text
//!   physical    │ 16 MiB            │ 1 MiB │ 1 MiB │ 64 KiB │ 4 │ 4 │      first frame on a border of 16 MiB
//!               │ supersection      │ section …     │ large  │ small │
//!   addresses   └─ aligned to the size, up to 16 MiB (S4): so to whatever the first entry needs
//! ```
//! The addresses are those that S4 gives, whatever entries serve there; where the frames do not begin on a border of an entry, so
//! that the two are not congruent, smaller ones do ([`LargeParts::of_run`]).

use crate::addr::Pfn;
use crate::area::Mapping;
use crate::attributes::Attributes;
use crate::descriptor::l2::LARGE_PAGE_SLOTS;
use crate::frames::FrameList;
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::realloc::lengthen::after;
use crate::kernel_space::{IoRemapError, KernelSpace};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{LargeParts, MapError, Mapped, Parked};

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Maps `count` frames from `first` on at `usable`, by large entries first. Seen by every walker.
    ///
    /// # Errors
    /// [`IoRemapError::Map`]; the addresses and the place are given back.
    #[inline(never)]
    pub(super) fn map_registers(
        &self,
        mut usable: OwnedRange,
        place: AreaPlace<'s>,
        (first, count): (Pfn, u32),
        attributes: Attributes,
    ) -> Result<(Mapping, AreaPlace<'s>), IoRemapError> {
        let parts = LargeParts::of_run(first, count);
        let (mut mapped, mut parked) = (Mapped::default(), Parked::new());
        let run = (first, count, parts);
        match self.map_entries(&mut usable, run, attributes, (&mut mapped, &mut parked)) {
            Ok(()) => {
                let list = FrameList::new();
                Ok((Mapping::Large { usable, list, parts, parked }, place))
            }
            Err(error) => {
                let unmapped = self.table.unmap_large(usable, mapped, parked, ());
                self.abandon(unmapped.flush().range, place);
                Err(IoRemapError::Map(error))
            }
        }
    }

    /// Maps a run as its parts say, and notes how far that went.
    fn map_entries(
        &self,
        usable: &mut OwnedRange,
        (first, count, parts): (Pfn, u32, LargeParts),
        attributes: Attributes,
        (mapped, parked): (&mut Mapped, &mut Parked),
    ) -> Result<(), MapError> {
        let pages = usable.pages();
        let frame = |offset| {
            let misfit = MapError::DoesNotFit { range: pages, offset, frames: count };
            first.checked_add(offset).ok_or(misfit)
        };
        for done in 0..parts.supersections() {
            let offset = mapped.parts.pages();
            let mapping =
                self.table.map_supersection(usable, offset, frame(offset)?, attributes, parked);
            mapping.map_err(after(offset))?;
            mapped.parts = LargeParts::NONE.behind(done + 1);
        }
        let supersections = parts.supersections();
        if parts.sections() != 0 {
            let offset = mapped.parts.pages();
            let run = (frame(offset)?, parts.sections());
            let done = self.table.map_sections(usable, offset, run, attributes, parked);
            let sections = done.map_or_else(|(done, _)| done, |()| run.1);
            mapped.parts = LargeParts::new(sections, 0).behind(supersections);
            done.map_err(|(_, error)| after(mapped.parts.pages())(error))?;
        }
        let tables = self.tables.source(&self.zones);
        if parts.large_pages() != 0 {
            let offset = mapped.parts.pages();
            let run = (frame(offset)?, parts.large_pages());
            let done = self.table.map_large_pages(usable, offset, run, attributes, &tables);
            let large = done.map_or_else(|error| error.mapped() / LARGE_PAGE_SLOTS, |()| run.1);
            mapped.parts = LargeParts::new(parts.sections(), large).behind(supersections);
            done.map_err(after(offset))?;
        }
        let offset = parts.pages();
        if offset == count {
            self.table.machine().barrier();
            return Ok(());
        }
        let run = (frame(offset)?, count - offset);
        let small = self.table.map_consecutive(usable, offset, run, attributes, &tables);
        mapped.small = small.unwrap_or_else(|error| error.mapped());
        small.map(drop).map_err(after(offset))
    }
}
