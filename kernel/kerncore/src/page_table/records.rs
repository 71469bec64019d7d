//! From page pointers to descriptors, by whoever knows which pages may be mapped.

use super::{
    PageTable, TableSource,
    map::MapError,
    run::{Run, Runs, Slots},
    tables::section_start,
};
use crate::{
    failure::Point,
    frames::{Frame, FrameTable},
    lock::Locks,
    machine::Machine,
    owned_range::OwnedRange,
    page_table::ReserveError,
};

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps the frames whose records begin at `pages` at all of `range`, which has as many. `write` writes the descriptors of
    /// pages into as many slots, up to the first page that may not be mapped or slot that is in use (S17), says how many, and
    /// cleans nothing. Otherwise as [`PageTable::map`].
    ///
    /// # Errors
    /// As [`PageTable::map`]; what may not be mapped is a gap.
    #[inline(always)]
    pub(crate) fn map_records<W>(
        &self,
        range: &mut OwnedRange,
        pages: &[*const Frame],
        table: &FrameTable<'_>,
        write: W,
        tables: &impl TableSource,
    ) -> Result<u32, MapError>
    where
        W: Fn(&M, &mut Slots<'_>, &[*const Frame], &FrameTable<'_>) -> u32,
    {
        let count = range.count();
        let written = self.map_few_records(Run::whole(range), pages, table, &write);
        if written == count && written != 0 {
            Ok(count)
        } else {
            self.map_many_records(range, (pages, written), table, write, tables)
        }
    }

    /// As [`PageTable::map_records`], if they are few, below one second-level table that is there. Says how many were mapped; none
    /// if it is not so.
    ///
    /// Not inlined: it has all registers to itself.
    #[inline(never)]
    fn map_few_records<W>(
        &self,
        run: Run<'_>,
        pages: &[*const Frame],
        table: &FrameTable<'_>,
        write: &W,
    ) -> u32
    where
        W: Fn(&M, &mut Slots<'_>, &[*const Frame], &FrameTable<'_>) -> u32,
    {
        if L::fails(Point::Table) || !run.is_one_of_few() {
            return 0;
        }
        let Some(below) = self.table_there(run.section()) else { return 0 };
        let mut slots = run.slots(below);
        let written = write(&self.machine, &mut slots, pages, table);
        slots.clean(&self.machine, written);
        self.machine.barrier();
        written
    }

    /// Maps what comes after the first pages, of which `pages` says how many are mapped.
    #[inline(never)]
    fn map_many_records<W>(
        &self,
        range: &mut OwnedRange,
        pages: (&[*const Frame], u32),
        table: &FrameTable<'_>,
        write: W,
        tables: &impl TableSource,
    ) -> Result<u32, MapError>
    where
        W: Fn(&M, &mut Slots<'_>, &[*const Frame], &FrameTable<'_>) -> u32,
    {
        let (pages, mut mapped) = pages;
        let whole = range.pages();
        let wanted = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        if wanted == 0 {
            return Err(MapError::NoFrames { range: whole });
        }
        let runs = Runs::of(range, mapped, wanted.wrapping_sub(mapped));
        let Some(runs) = runs.filter(|_| wanted == whole.count()) else {
            return Err(MapError::DoesNotFit { range: whole, offset: 0, frames: wanted });
        };
        let mut outcome = Ok(());
        for run in runs {
            let made = if L::fails(Point::Table) {
                Err(ReserveError::NoTable(section_start(run.section())))
            } else {
                self.table_for(run.section(), tables)
            };
            let mut slots = match made {
                Ok(below) => run.slots(below),
                Err(reason) => {
                    outcome = Err(MapError::Table { reason, mapped });
                    break;
                }
            };
            let rest = pages.get(mapped as usize..).unwrap_or_default();
            let here = rest.get(..slots.count() as usize).unwrap_or(rest);
            let written = write(&self.machine, &mut slots, here, table);
            slots.clean(&self.machine, written);
            mapped = mapped.wrapping_add(written);
            if written != slots.count() {
                outcome = Err(self.stopped(&slots, written, mapped));
                break;
            }
        }
        // Also after an error, as in `map`.
        self.machine.barrier();
        outcome.map(|()| mapped)
    }

    /// What stands in the way of the slot at `index`.
    #[cold]
    fn stopped(&self, slots: &Slots<'_>, index: u32, mapped: u32) -> MapError {
        let address = slots.address(index);
        match slots.read(&self.machine, index) {
            0 => MapError::MissingFrame { address, mapped },
            descriptor => MapError::Occupied { address, descriptor, mapped },
        }
    }
}
