//! Making windows: data, and text.

use crate::addr::{PAGE_SIZE, PageRange};
use crate::attributes::MemoryType;
use crate::failure::Point;
use crate::frames::FrameOwner;
use crate::linear_map::Absent;
use crate::lock::{Lock, Locks};
use crate::owned_range::OwnedRange;
use crate::page_table::{MapError, consecutive};
use crate::user::machine::UserMachine;
use crate::user::space::{UserSpace, WINDOWS};
use crate::user::window::{Backing, PlaceError, Protection, TEXT, Window};
use crate::user::windows::WindowError;

impl<M: UserMachine, L: Locks> UserSpace<'_, '_, M, L> {
    /// Zeroed memory at `pages`, for the program's data or stack.
    ///
    /// # Errors
    /// [`PlaceError`]; nothing was taken.
    pub fn map_data(&self, pages: PageRange, protection: Protection) -> Result<(), PlaceError> {
        let mut usable = self.take_pages(pages)?;
        let list = match self.zeroed(pages) {
            Ok(list) => list,
            Err(error) => return Err(self.abandon(usable, error)),
        };
        let attributes = protection.attributes(MemoryType::NormalWriteBack);
        let zones = self.kernel.zones();
        let frames = list.frames(zones.table());
        let mapped = self.table.map(&mut usable, 0, frames, attributes, &self.tables.source(zones));
        if let Err(error) = mapped {
            self.unwind(&mut usable, &error);
            let freed = self.free_data(list);
            debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
            return Err(self.abandon(usable, PlaceError::Map(error)));
        }
        self.publish(Window { usable, attributes, backing: Backing::Frames(list) });
        Ok(())
    }

    /// `program` at the start of `pages`, zeros behind it, to be read and executed. While it is there, nobody can write
    /// it: its frames have no linear mapping (S112).
    ///
    /// # Errors
    /// [`PlaceError`]; nothing was taken.
    pub fn map_text(&self, pages: PageRange, program: &[u8]) -> Result<(), PlaceError> {
        if program.len() as u64 > u64::from(pages.count()) * u64::from(PAGE_SIZE) {
            return Err(PlaceError::TooLong { bytes: program.len(), pages: pages.count() });
        }
        let mut usable = self.take_pages(pages)?;
        let absent = match self.written(pages.count(), program) {
            Ok(absent) => absent,
            Err(error) => return Err(self.abandon(usable, error)),
        };
        let zones = self.kernel.zones();
        let tables = self.tables.source(zones);
        let run = (absent.first(), absent.pages());
        if let Err(error) = self.table.map_consecutive(&mut usable, 0, run, TEXT, &tables) {
            self.unwind(&mut usable, &error);
            let taken = self.kernel.take_back(absent);
            debug_assert!(taken.is_ok(), "frames changed hands: {taken:?}");
            return Err(self.abandon(usable, PlaceError::Map(error)));
        }
        // New instructions at these addresses: what was fetched or guessed there before is void (B2.2.9).
        let machine = &self.table.machine().machine;
        machine.invalidate_instructions();
        machine.barrier();
        self.publish(Window { usable, attributes: TEXT, backing: Backing::Text(absent) });
        Ok(())
    }

    pub(super) fn take_pages(&self, pages: PageRange) -> Result<OwnedRange, PlaceError> {
        L::might_sleep("mapping user memory");
        if L::fails(Point::Window) {
            return Err(PlaceError::Window(WindowError::Full { capacity: WINDOWS }));
        }
        self.windows.with(|windows| windows.reserve(pages)).map_err(PlaceError::Window)
    }

    pub(super) fn publish(&self, window: Window) {
        let start = window.usable.start();
        let published = self.windows.with(|windows| windows.publish(start, window));
        debug_assert!(published.is_ok(), "not as `take_pages` left it");
    }

    /// Gives back addresses at which nothing is mapped; passes the reason on.
    fn abandon(&self, usable: OwnedRange, why: PlaceError) -> PlaceError {
        let released = self.windows.with(|windows| windows.release(usable));
        debug_assert!(released.is_ok(), "not as `take_pages` left it");
        why
    }

    /// Unmaps and flushes what was mapped before the error.
    fn unwind(&self, usable: &mut OwnedRange, error: &MapError) {
        let undone = self.table.unmap_part(usable, 0, error.mapped());
        debug_assert!(undone.is_ok() || error.mapped() == 0, "mapped, so inside: {undone:?}");
    }

    /// Adjacent frames with `program` in them, where instructions are fetched from, and out of the linear map.
    fn written(&self, pages: u32, program: &[u8]) -> Result<Absent, PlaceError> {
        let zones = self.kernel.zones();
        let block = zones.allocate_pages(pages, FrameOwner::Text).map_err(PlaceError::Frames)?;
        let machine = &self.table.machine().machine;
        self.kernel.zero_low_frames(block.first(), pages);
        machine.write_frames(block.first(), program);
        machine.clean_instructions(block.first(), pages);
        machine.barrier();
        self.kernel.withdraw(block).map_err(PlaceError::Linear)
    }
}

/// The frames of a program's text, in the order of its pages.
pub(super) fn text_frames(
    absent: &Absent,
) -> Option<impl ExactSizeIterator<Item = crate::addr::Pfn>> {
    consecutive(absent.first(), absent.pages())
}
