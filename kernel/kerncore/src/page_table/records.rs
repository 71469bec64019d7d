//! From page pointers to descriptors, by whoever knows which pages may be mapped.

use super::{
    PageTable, TableSource,
    map::MapError,
    run::{Run, Runs, Slots},
    tables::section_start,
};
use crate::{
    failure::Point, frames::Frame, lock::Locks, machine::Machine, owned_range::OwnedRange,
    page_table::ReserveError,
};

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps the frames whose records begin at `pages` at `range`, which has as many, no more than a second-level table has slots,
    /// if such a table is there that translates all of them. `write` writes and cleans the descriptors of pages in as many slots, up
    /// to the first page that may not be mapped or slot that is in use (S17).
    ///
    /// # Errors
    /// How many pages were written that somebody must unmap; all walkers may see them, or not yet.
    #[inline(always)]
    pub(crate) fn map_records_at_hand(
        &self,
        range: &mut OwnedRange,
        pages: &[*const Frame],
        write: impl Fn(&M, &mut Slots<'_>, &[*const Frame]) -> Result<(), u32>,
    ) -> Result<(), u32> {
        let run = Run::whole(range);
        match pages {
            // Below one table, and nothing to count.
            [_] => self.map_records_of_run(run.single(), pages, write),
            _ if run.is_below_one_table() => self.map_records_of_run(run, pages, write),
            _ => Err(0),
        }
    }

    #[inline(always)]
    fn map_records_of_run(
        &self,
        run: Run<'_>,
        pages: &[*const Frame],
        write: impl Fn(&M, &mut Slots<'_>, &[*const Frame]) -> Result<(), u32>,
    ) -> Result<(), u32> {
        let below = self.table_there(run.section()).ok_or(0_u32)?;
        write(&self.machine, &mut run.slots(below), pages)?;
        self.machine.barrier();
        Ok(())
    }

    /// Maps the frames whose records begin at `pages` at all of `range`, which has as many. `write` does as
    /// for [`PageTable::map_records_at_hand`]. Otherwise as [`PageTable::map`].
    ///
    /// # Errors
    /// As [`PageTable::map`]; what may not be mapped is a gap.
    #[inline(never)]
    pub(crate) fn map_records<W>(
        &self,
        range: &mut OwnedRange,
        pages: &[*const Frame],
        write: W,
        tables: &impl TableSource,
    ) -> Result<u32, MapError>
    where
        W: Fn(&M, &mut Slots<'_>, &[*const Frame]) -> Result<(), u32>,
    {
        let mut mapped = 0_u32;
        let whole = range.pages();
        let wanted = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        if wanted == 0 {
            return Err(MapError::NoFrames { range: whole });
        }
        let runs = Runs::of(range, 0, wanted);
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
            if let Err(written) = write(&self.machine, &mut slots, here) {
                outcome = Err(self.stopped_at(&mut slots, written, mapped));
                break;
            }
            mapped = mapped.wrapping_add(slots.count());
        }
        // Also after an error, as in `map`.
        self.machine.barrier();
        outcome.map(|()| mapped)
    }
}
