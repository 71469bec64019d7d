//! vmap of what is no RAM: registers and memory of devices, wherever they lie.

use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping};
use crate::attributes::Attributes;
use crate::frames::FrameOwner;
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::{KernelSpace, VmapError};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::va_space::Request;

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Maps page frames that are no RAM, in their order, one page each: registers and memory of devices, which need not be
    /// adjacent. What is mapped so is removed as vmap's is, and never copied through (S42). Not in interrupt context (S10).
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken. A type that caches is refused, and executable rights are; and what does not go together
    /// with how somebody else, or the board for good, has mapped one of the frames (S95, S97).
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmap_devices<I>(
        &self,
        frames: I,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<AreaSummary, VmapError>
    where
        I: ExactSizeIterator<Item = Pfn> + DoubleEndedIterator + Clone,
    {
        let first = frames.clone().next().ok_or(VmapError::NoPages)?;
        let too_many =
            VmapError::MoreThanMemory { wanted: frames.len(), total: self.zones.total() };
        let pages = u32::try_from(frames.len()).map_err(|_| too_many)?;
        let table = *self.zones.table();
        let (wanted, owner) = (attributes.memory(), table.owner_of(first));
        if wanted.is_cacheable() {
            return Err(VmapError::MemoryType { frame: first, owner, wanted });
        }
        if attributes.is_executable() {
            return Err(VmapError::Protection { frame: first, owner, wanted: attributes });
        }
        let is_ram = |frame: &Pfn| table.owner_of(*frame) != FrameOwner::Absent;
        if let Some(frame) = frames.clone().find(is_ram) {
            return Err(VmapError::Ram { frame, owner: table.owner_of(frame) });
        }
        if let Some((frame, had)) = self.static_clash(frames.clone(), attributes) {
            return Err(VmapError::Static { frame, wanted: attributes, had });
        }
        let request = Request::of_bytes(pages.saturating_mul(PAGE_SIZE));
        let (usable, place) = self.unless_short(move || {
            let (mut usable, mut place) = self
                .reserve("vmap_pfn", |areas| areas.reserve(&request))
                .map_err(VmapError::Area)?;
            if let Err(error) =
                self.note_runs(&mut place, frames.clone(), usable.pages().end(), attributes)
            {
                self.abandon(usable, place);
                return Err(VmapError::Area(error));
            }
            match self.map(&mut usable, frames.clone(), attributes) {
                Ok(_) => Ok((usable, place)),
                Err(error) => {
                    self.unwind(usable, place, &error, ());
                    Err(VmapError::Map(error))
                }
            }
        })?;
        let new = NewArea::new(AreaKind::Vmap, caller).flags(AreaFlags::IOREMAP);
        Ok(self.publish(place, Mapping::Devices { usable }, new))
    }

    /// Notes in the index that `frames` are to be mapped with `attributes` at the pages up to `end`: a run at a time, so that nobody
    /// waits for the lock of areas for longer, and from the last on, so that each can name the next.
    fn note_runs<I>(
        &self,
        place: &mut AreaPlace<'s>,
        frames: I,
        end: u32,
        attributes: Attributes,
    ) -> Result<(), NoArea>
    where
        I: DoubleEndedIterator<Item = Pfn>,
    {
        let mut frames = frames.rev().peekable();
        let mut end = end;
        while let Some(last) = frames.next() {
            let mut first = last;
            while let Some(below) = frames.next_if(|frame| frame.checked_add(1) == Some(first)) {
                first = below;
            }
            end -= last.number() - first.number() + 1;
            self.note_run(place, (first, last), end, attributes)?;
        }
        Ok(())
    }
}
