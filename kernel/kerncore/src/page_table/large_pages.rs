//! Large pages: 64 KiB by sixteen second-level slots that hold the same word (S22, S90; ARM DDI 0406C, B3.5.1).
//!
//! ```text
//!   slot     0  1  2  3  …  15 │ 16 …                 a multiple of sixteen, as are the frames
//!   word     w  w  w  w  …  w  │ w + 64 KiB …         whichever of the sixteen a walker reads, it makes one entry of all
//! ```
//! The sixteen are written into slots that were seen to be empty, and cleared together: at no time do two of them say
//! different things.

use super::map::Write;
use super::run::{Run, Runs, Slots};
use super::tables::Above;
use super::unmap::{Oddity, Removal};
use super::{MapError, PageTable, TableSource};
use crate::addr::{LARGE_PAGE_SIZE, Pfn};
use crate::attributes::Attributes;
use crate::descriptor::l2::{self, LARGE_PAGE_SLOTS};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;

/// Sixteen times this descriptor, then sixteen times that of the next 64 KiB, and so on.
struct Sixteens(u32);

impl Write for Sixteens {
    fn write(&mut self, machine: &impl Machine, slots: &mut Slots<'_>) -> u32 {
        let mut written = 0;
        while let Some(mut sixteen) = slots.sixteen(written) {
            sixteen.fill(machine, self.0);
            self.0 = self.0.wrapping_add(LARGE_PAGE_SIZE);
            written += LARGE_PAGE_SLOTS;
        }
        written
    }
}

impl<M: Machine, L: Locks> PageTable<M, L> {
    /// Maps `count` large pages from page `offset` of `range` on to consecutive frames from `first`. Not seen by every walker
    /// before the next barrier.
    ///
    /// # Errors
    /// [`MapError`]: what it says is mapped are pages, a multiple of sixteen. [`MapError::DoesNotFit`] also if either side is
    /// not aligned to 64 KiB.
    pub fn map_large_pages(
        &self,
        range: &mut OwnedRange,
        offset: u32,
        (first, count): (Pfn, u32),
        attributes: Attributes,
        tables: &impl TableSource,
    ) -> Result<(), MapError> {
        let whole = range.pages();
        let frames = count.saturating_mul(LARGE_PAGE_SLOTS);
        let misfit = MapError::DoesNotFit { range: whole, offset, frames };
        let pages = whole.sub_range(offset, frames).filter(|_| count != 0).ok_or(misfit)?;
        first.checked_add(frames - 1).ok_or(misfit)?;
        if !pages.first().is_multiple_of(LARGE_PAGE_SLOTS) {
            return Err(misfit);
        }
        let word = l2::Descriptor::LargePage(first.base(), attributes).encode();
        let mut write = Sixteens(word.map_err(|_misaligned| misfit)?);
        let runs = Runs::of(range, offset, frames).ok_or(misfit)?;
        let mut mapped = 0;
        self.map_runs(runs, &mut write, tables, &mut mapped)
    }

    /// Clears `runs`, which are known to be large pages: by the area, not by what the slots say (S22).
    pub(super) fn clear_large_pages<'range>(
        &self,
        runs: impl Iterator<Item = Run<'range>>,
        removal: &mut Removal,
    ) {
        for run in runs {
            match self.above(run.section()) {
                Above::Table(table) => self.clear_sixteens(&mut run.slots(table), removal),
                Above::Nothing => {}
                Above::Other(descriptor) => {
                    removal.note(Oddity::ReachesOutside { address: run.start(), descriptor });
                }
            }
        }
    }

    fn clear_sixteens(&self, slots: &mut Slots<'_>, removal: &mut Removal) {
        let mut index = 0;
        while let Some(sixteen) = slots.sixteen(index) {
            let all = sixteen.join_all(&self.machine, !0, |bits, descriptor| bits & descriptor);
            let any = sixteen.join_all(&self.machine, 0, |bits, descriptor| bits | descriptor);
            if all == any && l2::is_large(all) {
                removal.pages += LARGE_PAGE_SLOTS;
            } else {
                self.note_uneven(&sixteen, removal);
            }
            index += LARGE_PAGE_SLOTS;
        }
        slots.clear(&self.machine);
    }

    /// Sixteen slots that are not one large page: what is in them goes all the same, for it translates nobody else's addresses.
    #[cold]
    fn note_uneven(&self, slots: &Slots<'_>, removal: &mut Removal) {
        let first = slots.read(&self.machine, 0);
        for index in 0..slots.count() {
            let (address, descriptor) = (slots.address(index), slots.read(&self.machine, index));
            removal.pages += u32::from(l2::page_size(descriptor).is_some());
            if descriptor != first || !l2::is_large(descriptor) {
                removal.note(Oddity::Uneven { address, descriptor });
            }
        }
    }
}
