//! From frames to descriptors, a run of slots at a time (S16 to S19).

use super::{
    PageTable, TableSource,
    run::{FEW, Run, Runs, Slots},
    tables::{ReserveError, section_start},
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    attributes::Attributes,
    descriptor::l2::SmallPages,
    failure::Point,
    frames::Frames,
    lock::Locks,
    machine::Machine,
    owned_range::OwnedRange,
};
use core::fmt;

/// Why not every frame was mapped. `mapped` pages, from the first on, are; whoever asked unmaps them (S19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// There was nothing to map (S20).
    NoFrames {
        /// Where it should have been mapped.
        range: PageRange,
    },
    /// The frames would run past the end of the range; nothing was done.
    DoesNotFit {
        /// The whole range.
        range: PageRange,
        /// The page of it at which the mapping was to begin.
        offset: u32,
        /// How many frames were offered.
        frames: u32,
    },
    /// A slot is in use; it was left alone (S17).
    Occupied {
        /// The address that the slot translates.
        address: VirtAddr,
        /// What the slot holds.
        descriptor: u32,
        /// How many pages were mapped: those of the second-level tables below this one.
        mapped: u32,
    },
    /// The list has a gap where a frame should be (S18).
    MissingFrame {
        /// The address that it should have been mapped at.
        address: VirtAddr,
        /// How many pages were mapped: all below.
        mapped: u32,
    },
    /// A second-level table is needed and cannot be had.
    Table {
        /// Why not, and for which address.
        reason: ReserveError,
        /// How many pages were mapped: all below.
        mapped: u32,
    },
}

impl MapError {
    /// How many pages are mapped all the same.
    pub const fn mapped(&self) -> u32 {
        match *self {
            Self::NoFrames { .. } | Self::DoesNotFit { .. } => 0,
            Self::Occupied { mapped, .. }
            | Self::MissingFrame { mapped, .. }
            | Self::Table { mapped, .. } => mapped,
        }
    }
}

/// `count` consecutive frames from `first`; `None` if they pass 4 GiB.
pub fn consecutive(
    first: Pfn,
    count: u32,
) -> Option<impl ExactSizeIterator<Item = Pfn> + Clone + fmt::Debug> {
    if count != 0 {
        first.checked_add(count - 1)?;
    }
    let first = first.number();
    Some((first..first + count).map(|number| PhysAddr::new(number << PAGE_SHIFT).pfn()))
}

/// What writes slots. Not a closure, which could not be told to be inlined.
pub(super) trait Write {
    /// Writes and cleans `slots`, from the first on, and says how many there were descriptors for.
    fn write(&mut self, machine: &impl Machine, slots: &mut Slots<'_>) -> u32;
}

/// These descriptors, in order.
struct Each<I>(I);

impl<I: Iterator<Item = u32>> Write for Each<I> {
    #[inline(always)]
    fn write(&mut self, machine: &impl Machine, slots: &mut Slots<'_>) -> u32 {
        slots.write(machine, &mut self.0)
    }
}

/// The descriptors of these frames, in order.
struct Listed<'f, 'l, 't> {
    frames: &'f mut Frames<'l, 't>,
    words: SmallPages,
}

impl Write for Listed<'_, '_, '_> {
    #[inline(always)]
    fn write(&mut self, machine: &impl Machine, slots: &mut Slots<'_>) -> u32 {
        let words = self.words;
        let next = self.frames.next_few(slots.count());
        let written = next.count_of_frames();
        slots.write_all(machine, next.map(|frame| words.word(frame)));
        slots.clean(machine, written);
        written
    }
}

/// From this descriptor on, each a page further than the one before.
struct Consecutive(u32);

impl Write for Consecutive {
    #[inline(always)]
    fn write(&mut self, machine: &impl Machine, slots: &mut Slots<'_>) -> u32 {
        slots.write_steps::<PAGE_SIZE>(machine, self.0);
        self.0 = self.0.wrapping_add(slots.count().wrapping_mul(PAGE_SIZE));
        slots.count()
    }
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps exactly `frames`, one a page and in order, at the pages of `range` from `offset` on, and returns how
    /// many that were. Fewer than the range holds are as good: a guard page stays unmapped.
    ///
    /// An item may be a frame or an `Option` of one, for lists with gaps (S18). A frame may occur twice (S37).
    /// When this returns, with success or an error, everything written is visible to every walker.
    ///
    /// # Errors
    /// [`MapError`]; slots written until then stay (S19). A slot in use is never overwritten (S17): the slots of one
    /// second-level table are looked at before the first of them is written.
    #[inline(always)]
    pub fn map<I>(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        frames: I,
        attributes: Attributes,
        tables: &impl TableSource,
    ) -> Result<u32, MapError>
    where
        I: IntoIterator<Item: Into<Option<Pfn>>, IntoIter: ExactSizeIterator>,
    {
        let mut frames = frames.into_iter();
        let wanted = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let whole = range.pages();
        if wanted == 0 {
            return Err(MapError::NoFrames { range: whole });
        }
        let Some(runs) = Runs::of(range, offset, wanted) else {
            return Err(MapError::DoesNotFit { range: whole, offset, frames: wanted });
        };
        let words = SmallPages::new(attributes);
        let descriptors = frames.by_ref().map_while(Into::into).map(|frame| words.word(frame));
        let mut mapped = 0;
        let mut write = Each(descriptors);
        let outcome = self.map_runs(runs, &mut write, tables, &mut mapped);
        // Also after an error: the pages that are mapped are the caller's to use or to unmap.
        self.machine.barrier();
        outcome.map(|()| mapped)
    }

    /// As [`PageTable::map`] of all of `range`, for the frames of a list, as many or fewer.
    ///
    /// # Errors
    /// As [`PageTable::map`].
    #[inline]
    pub fn map_list(
        &self,
        range: &mut OwnedRange,
        mut frames: Frames<'_, '_>,
        attributes: Attributes,
        tables: &impl TableSource,
    ) -> Result<u32, MapError> {
        let (whole, wanted) = (range.pages(), frames.left());
        if wanted == 0 {
            return Err(MapError::NoFrames { range: whole });
        }
        let Some(runs) = Runs::of(range, 0, wanted) else {
            return Err(MapError::DoesNotFit { range: whole, offset: 0, frames: wanted });
        };
        let mut mapped = 0;
        let mut write = Listed { frames: &mut frames, words: SmallPages::new(attributes) };
        let outcome = self.map_runs(runs, &mut write, tables, &mut mapped);
        // Also after an error, as in `map`.
        self.machine.barrier();
        outcome.map(|()| mapped)
    }

    /// As [`PageTable::map_consecutive`] of all of `range`, if that is few pages, below one second-level table that is there, and
    /// no slot is in use; `first` is the descriptor of the first page. Says whether; otherwise nothing has changed.
    #[inline(always)]
    pub(crate) fn map_few(&self, range: &mut OwnedRange, first: u32) -> bool {
        self.map_few_words(Run::whole(range), first)
    }

    /// Not inlined: it has all registers to itself.
    #[inline(never)]
    fn map_few_words(&self, run: Run<'_>, first: u32) -> bool {
        if L::fails(Point::ShortCut) || !run.is_one_of_few() {
            return false;
        }
        let Some(below) = self.table_there(run.section()) else { return false };
        let mut slots = run.slots(below);
        let is_free = self.joined(&slots) == 0;
        if is_free {
            slots.write_steps::<PAGE_SIZE>(&self.machine, first);
            self.machine.barrier();
        }
        is_free
    }

    /// As [`PageTable::map`], for `count` consecutive frames from `first`, which is cheaper a page.
    ///
    /// # Errors
    /// As [`PageTable::map`]; frames that would pass 4 GiB do not fit.
    #[inline(always)]
    pub fn map_consecutive(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        (first, count): (Pfn, u32),
        attributes: Attributes,
        tables: &impl TableSource,
    ) -> Result<u32, MapError> {
        let whole = range.pages();
        let Some(beyond) = count.checked_sub(1) else {
            return Err(MapError::NoFrames { range: whole });
        };
        let runs = first.checked_add(beyond).and_then(|_| Runs::of(range, offset, count));
        let Some(runs) = runs else {
            return Err(MapError::DoesNotFit { range: whole, offset, frames: count });
        };
        let mut mapped = 0;
        let mut write = Consecutive(SmallPages::new(attributes).word(first));
        let outcome = self.map_runs(runs, &mut write, tables, &mut mapped);
        // Also after an error, as in `map`.
        self.machine.barrier();
        outcome.map(|()| mapped)
    }

    /// Why only the first `written` of `slots` could be written, before which `mapped` pages had been mapped: one of them is in use,
    /// and then those are cleared and flushed again, or there is no frame.
    #[cold]
    pub(crate) fn stopped_at(&self, slots: &mut Slots<'_>, written: u32, mapped: u32) -> MapError {
        let mut rest = written..slots.count();
        if rest.all(|index| slots.read(&self.machine, index) == 0) {
            let mapped = mapped.wrapping_add(written);
            return MapError::MissingFrame { address: slots.address(written), mapped };
        }
        slots.clear_first(&self.machine, written);
        self.first_in_use(slots, mapped)
    }

    /// The error that names the first of `slots` that is in use.
    #[cold]
    pub(crate) fn first_in_use(&self, slots: &Slots<'_>, mapped: u32) -> MapError {
        let in_use = |&index: &u32| slots.read(&self.machine, index) != 0;
        let index = (0..slots.count()).find(in_use).unwrap_or(0);
        let descriptor = slots.read(&self.machine, index);
        MapError::Occupied { address: slots.address(index), descriptor, mapped }
    }

    /// Maps `frames` in all of `range`, which [`PageTable::unmap_part`] has emptied just now: so the tables are there, and nothing
    /// can be short. Says whether it could be done: whether the slots were still empty, and the frames as many.
    pub(crate) fn map_again(
        &self,
        range: &mut OwnedRange,
        frames: impl Iterator<Item = Pfn>,
        attributes: Attributes,
    ) -> bool {
        let words = SmallPages::new(attributes);
        let mut descriptors = frames.map(|frame| words.word(frame));
        let mapped = Runs::all(range).all(|mut run| {
            let Some(table) = self.table_above_empty(run.reborrow()) else { return false };
            let mut slots = run.slots(table);
            slots.write(&self.machine, &mut descriptors) == slots.count()
        });
        self.machine.barrier();
        mapped
    }

    #[inline(always)]
    pub(super) fn map_runs(
        &self,
        runs: Runs<'_>,
        write: &mut impl Write,
        tables: &impl TableSource,
        mapped: &mut u32,
    ) -> Result<(), MapError> {
        for run in runs {
            self.map_run(run, write, tables, mapped)?;
        }
        Ok(())
    }

    /// Maps one run by `write`.
    #[inline(always)]
    fn map_run(
        &self,
        mut run: Run<'_>,
        write: &mut impl Write,
        tables: &impl TableSource,
        mapped: &mut u32,
    ) -> Result<(), MapError> {
        if L::fails(Point::Table) {
            let reason = ReserveError::NoTable(section_start(run.section()));
            return Err(MapError::Table { reason, mapped: *mapped });
        }
        let table = match self.table_above_empty(run.reborrow()) {
            Some(table) => table,
            None => self.table_made_for(run.reborrow(), tables, *mapped)?,
        };
        let mut slots = run.slots(table);
        let count = slots.count();
        let written = write.write(&self.machine, &mut slots);
        *mapped = mapped.wrapping_add(written);
        if written == count {
            Ok(())
        } else {
            let address = slots.address(written);
            Err(MapError::MissingFrame { address, mapped: *mapped })
        }
    }

    /// The second-level table above `run` if there is one and none of the run's slots is in use.
    #[inline(always)]
    pub(super) fn table_above_empty(&self, run: Run<'_>) -> Option<PhysAddr> {
        let table = self.table_there(run.section())?;
        let in_use = if run.count() < FEW {
            self.joined(&run.slots(table))
        } else {
            self.joined_of_many(run, table)
        };
        (in_use == 0).then_some(table)
    }

    /// What any of `slots` holds: one `or` a slot; which of them is in use is asked only when one is.
    #[inline(always)]
    pub(super) fn joined(&self, slots: &Slots<'_>) -> u32 {
        slots.join_all(&self.machine, 0, |bits, descriptor| bits | descriptor)
    }

    /// Not inlined: to go by many slots at once takes all registers.
    #[inline(never)]
    fn joined_of_many(&self, run: Run<'_>, table: PhysAddr) -> u32 {
        self.joined(&run.slots(table))
    }

    /// When there was no table, or a slot in use: the table, made, or the error that names what is in the way.
    #[cold]
    fn table_made_for(
        &self,
        run: Run<'_>,
        tables: &impl TableSource,
        mapped: u32,
    ) -> Result<PhysAddr, MapError> {
        let table = self
            .table_for(run.section(), tables)
            .map_err(|reason| MapError::Table { reason, mapped })?;
        let slots = run.slots(table);
        let in_use = |&index: &u32| slots.read(&self.machine, index) != 0;
        match (0..slots.count()).find(in_use) {
            Some(index) => {
                let descriptor = slots.read(&self.machine, index);
                Err(MapError::Occupied { address: slots.address(index), descriptor, mapped })
            }
            None => Ok(table),
        }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrames { range } => write!(f, "nothing to map at {range}"),
            Self::DoesNotFit { range, offset, frames } => {
                write!(f, "{frames} frames do not fit {range} from its page {offset}")
            }
            Self::Occupied { address, descriptor, mapped } => {
                write!(f, "{address} is mapped already, by {descriptor:#010x} ({mapped} mapped)")
            }
            Self::MissingFrame { address, mapped } => {
                write!(f, "no frame given for {address} ({mapped} mapped)")
            }
            Self::Table { reason, mapped } => write!(f, "{reason} ({mapped} mapped)"),
        }
    }
}
