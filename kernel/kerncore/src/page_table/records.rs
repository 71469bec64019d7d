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
    /// if such a table is there that translates all of them. `write` writes the descriptors of pages into as many slots, up to
    /// the first page that may not be mapped or slot that is in use (S17), says how many, and cleans nothing. Says how many were
    /// mapped; none if it is not so.
    #[inline(always)]
    pub(crate) fn map_records_at_hand(
        &self,
        range: &mut OwnedRange,
        pages: &[*const Frame],
        write: impl Fn(&M, &mut Slots<'_>, &[*const Frame]) -> u32,
    ) -> u32 {
        self.map_run_at_hand(Run::whole(range), pages, write)
    }

    /// Not inlined: it has all registers to itself.
    #[inline(never)]
    fn map_run_at_hand(
        &self,
        run: Run<'_>,
        pages: &[*const Frame],
        write: impl Fn(&M, &mut Slots<'_>, &[*const Frame]) -> u32,
    ) -> u32 {
        if !run.is_below_one_table() {
            return 0;
        }
        let Some(below) = self.table_there(run.section()) else { return 0 };
        let mut slots = run.slots(below);
        let written = write(&self.machine, &mut slots, pages);
        slots.clean(&self.machine, written);
        self.machine.barrier();
        written
    }

    /// Maps the frames whose records begin at `pages` at all of `range`, which has as many. `write` writes the descriptors of
    /// pages into as many slots, none of which is in use, up to the first page that may not be mapped, says how many, and cleans
    /// nothing. Otherwise as [`PageTable::map`].
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
        W: Fn(&M, &mut Slots<'_>, &[*const Frame]) -> u32,
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
            if !slots.are_empty(&self.machine) {
                outcome = Err(self.first_in_use(&slots, mapped));
                break;
            }
            let rest = pages.get(mapped as usize..).unwrap_or_default();
            let here = rest.get(..slots.count() as usize).unwrap_or(rest);
            let written = write(&self.machine, &mut slots, here);
            slots.clean(&self.machine, written);
            mapped = mapped.wrapping_add(written);
            if written != slots.count() {
                let address = slots.address(written);
                outcome = Err(MapError::MissingFrame { address, mapped });
                break;
            }
        }
        // Also after an error, as in `map`.
        self.machine.barrier();
        outcome.map(|()| mapped)
    }
}
