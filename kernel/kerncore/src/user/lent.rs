//! Programs' data in frames that are lent to them (S101), and how such a page is moved when they are asked for.
//!
//! ```text
//!   another frame ──▶ lock of windows ──▶ unmap, flush, copy, map ──▶ unlock ──▶ the lent frame's handle
//!                          ▲
//!        a program that touches the page meanwhile faults, and waits here for as long
//! ```
//! All of it under the lock of the space's windows: nobody sees the window without the page but the processor, and whoever ends the
//! window comes before it or after it. The price is that the copy of a page is made with interrupts masked on this CPU.

use crate::addr::{PAGE_SIZE, PageRange, Pfn, VirtAddr};
use crate::contiguous::{Borrower, Unmovable};
use crate::frames::{FrameBlock, FrameList, FrameOwner};
use crate::kernel_space::FramesError;
use crate::lock::{Lock, Locks};
use crate::user::machine::UserMachine;
use crate::user::space::UserSpace;
use crate::user::window::{Backing, PlaceError, Window};

impl<M: UserMachine, L: Locks> UserSpace<'_, '_, M, L> {
    /// Zeroed frames for `pages`: those that the contiguous region can do without, and then others, so that memory that anybody can
    /// use lasts longer.
    pub(super) fn zeroed(&self, pages: PageRange) -> Result<FrameList, PlaceError> {
        let zones = self.kernel.zones();
        let mut list = self.borrowed(pages);
        let rest = pages.count() - list.pages();
        if rest != 0 {
            match zones.allocate_list(rest, FrameOwner::User) {
                Ok(others) => list.append(zones.table(), others),
                Err(error) => {
                    let freed = self.free_data(list);
                    debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
                    return Err(PlaceError::Frames(error));
                }
            }
        }
        list.frames(zones.table()).for_each(|frame| self.kernel.zero_low_frames(frame, 1));
        Ok(list)
    }

    /// Frames for the first of `pages`, as many as are lent.
    fn borrowed(&self, pages: PageRange) -> FrameList {
        let mut list = FrameList::new();
        let Some(contiguous) = self.kernel.contiguous() else { return list };
        for page in pages.first()..pages.end() {
            let borrower = Borrower::Program { space: self.id(), page };
            let Some(block) = contiguous.lend(borrower, FrameOwner::User) else { break };
            list.push(self.kernel.zones().table(), block);
        }
        list
    }

    /// Gives frames of data back: lent ones to where they came from, the others to the allocator.
    pub(super) fn free_data(&self, mut list: FrameList) -> Result<(), FramesError> {
        let zones = self.kernel.zones();
        let Some(contiguous) = self.kernel.contiguous() else {
            return zones.free_list(list).map_err(FramesError::Free);
        };
        let (mut others, mut freed) = (FrameList::new(), Ok(()));
        while let Some(block) = list.pop(zones.table()) {
            if contiguous.contains(block.first()) {
                let back = contiguous.take_back(block).map_err(|_lost| FramesError::NotLent);
                freed = freed.and(back);
            } else {
                others.push(zones.table(), block);
            }
        }
        freed.and(zones.free_list(others).map_err(FramesError::Free))
    }

    /// Moves the page of the number `page`, which is in the lent `frame`, to another frame, and gives the lent one's handle. A program
    /// that touches it meanwhile faults, and goes on when [`UserSpace::is_there`] says so. Any context but a handler's.
    ///
    /// # Errors
    /// [`Unmovable`]; nothing has changed.
    pub fn move_out(&self, page: u32, frame: Pfn) -> Result<FrameBlock, Unmovable> {
        let zones = self.kernel.zones();
        let new = zones.allocate(0, FrameOwner::User).map_err(Unmovable::NoMemory)?;
        let address = VirtAddr::new(page.wrapping_mul(PAGE_SIZE));
        let moved = self.windows.with(|windows| match windows.find_mut(address) {
            Some(window) => self.replace(window, page, frame, new),
            None => Err(new),
        });
        moved.map_err(|new| {
            let freed = zones.free(new);
            debug_assert!(freed.is_ok(), "taken above: {freed:?}");
            Unmovable::Busy
        })
    }

    /// Gives the block `new` back if the window's page is not in the frame `old`.
    fn replace(
        &self,
        window: &mut Window,
        page: u32,
        old: Pfn,
        new: FrameBlock,
    ) -> Result<FrameBlock, FrameBlock> {
        let Backing::Frames(list) = &mut window.backing else { return Err(new) };
        let frames = self.kernel.zones().table();
        let to = new.first();
        let was = list.replace(frames, old, new)?;
        let offset = page.wrapping_sub(window.usable.pages().first());
        let machine = &self.table.machine().machine;
        let copy = || machine.copy_frame(old, to);
        if self.table.replace(&mut window.usable, offset, (old, to), window.attributes, copy) {
            Ok(was)
        } else {
            // The frame is another page's: as it was.
            Err(list.replace(frames, to, was).unwrap_or_else(|block| block))
        }
    }

    /// Whether something is mapped at `address` when nobody is just moving it. A program that met a translation fault there may try
    /// again if so.
    pub fn is_there(&self, address: VirtAddr) -> bool {
        self.windows.with(|_nobody_moves| self.translate(address).is_some())
    }
}
