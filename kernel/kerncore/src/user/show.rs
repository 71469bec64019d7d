//! Windows that show memory of the kernel's (S43 to S46, S78).
//!
//! ```text
//!   reserve ──▶ a window without memory ──▶ show_vmalloc, show_coherent ──▶ unmap, or the end of the space
//!                                            pin the area, then map it        unmap, flush, then unpin
//! ```
//!
//! From before the first page is mapped until after the flush of the last the area is pinned: its removal is refused.

use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::attributes::MemoryType;
use crate::iommu::SeenAt;
use crate::kernel_space::Shared;
use crate::lock::{Lock, Locks};
use crate::user::machine::UserMachine;
use crate::user::space::UserSpace;
use crate::user::window::{Backing, PlaceError, Protection, ShowError, Window};

impl<M: UserMachine, L: Locks> UserSpace<'_, '_, M, L> {
    /// A window at `pages` in which nothing is mapped yet.
    ///
    /// # Errors
    /// [`PlaceError`]; nothing was taken. A window without pages is refused (S44).
    pub fn reserve(&self, pages: PageRange, protection: Protection) -> Result<(), PlaceError> {
        let usable = self.take_pages(pages)?;
        let attributes = protection.attributes(MemoryType::NormalWriteBack);
        self.publish(Window { usable, attributes, backing: Backing::Nothing(protection) });
        Ok(())
    }

    /// Shows the memory of vmalloc at `base`, from its page `offset` on, in all of the reserved window that begins at `start`
    /// (S43, S44).
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_vmalloc(
        &self,
        start: VirtAddr,
        base: VirtAddr,
        offset: u32,
    ) -> Result<(), ShowError> {
        self.show(start, base, offset, Shared::Vmalloc)
    }

    /// Shows the coherent buffer at `base`, which lies at `physical` on the bus, from its page `offset` on, in all of the
    /// reserved window that begins at `start` (S78).
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_coherent(
        &self,
        start: VirtAddr,
        base: VirtAddr,
        physical: PhysAddr,
        offset: u32,
    ) -> Result<(), ShowError> {
        self.show(start, base, offset, Shared::Coherent(physical))
    }

    /// Shows the coherent buffer of scattered frames at `base`, which a device sees at `at`, from its page `offset` on, in all of the
    /// reserved window that begins at `start` (S82).
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_seen(
        &self,
        start: VirtAddr,
        base: VirtAddr,
        at: SeenAt,
        offset: u32,
    ) -> Result<(), ShowError> {
        self.show(start, base, offset, Shared::Seen(at))
    }

    /// Shows memory of a device's own, whose uncached mapping begins at `base` and at `physical` on the bus, from the mapping's page
    /// `offset` on, in all of the reserved window that begins at `start` (S102).
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_device_memory(
        &self,
        start: VirtAddr,
        base: VirtAddr,
        physical: PhysAddr,
        offset: u32,
    ) -> Result<(), ShowError> {
        self.show(start, base, offset, Shared::Device(physical))
    }

    /// How many windows of this space show any of the `pages` (a first one and a count) of the kernel's mapping at `base`. `None` while
    /// a window is being made or ended, which might be one of them. Any context in which this space's owner may be asked.
    pub fn windows_onto(&self, base: VirtAddr, pages: (u32, u32)) -> Option<u32> {
        let (first, count) = pages;
        let shows = |(range, window): &(PageRange, &Window)| match window.backing {
            Backing::Area { base: of, offset, .. } => {
                let window_end = offset.saturating_add(range.count());
                of == base && offset < first.saturating_add(count) && first < window_end
            }
            _ => false,
        };
        self.windows.with(|windows| {
            let shown = windows.live().filter(shows).map(|_| 1).sum();
            (windows.unfinished() == 0).then_some(shown)
        })
    }

    fn show(
        &self,
        start: VirtAddr,
        base: VirtAddr,
        offset: u32,
        what: Shared,
    ) -> Result<(), ShowError> {
        L::might_sleep("showing memory to a program");
        let is_empty = |window: &Window| match window.backing {
            Backing::Nothing(_) => Ok(()),
            _ => Err(ShowError::InUse { address: start }),
        };
        let mut window = self.windows.with(|windows| windows.take_if(start, is_empty))?;
        let pages = window.usable.count();
        let shown = match self.kernel.pin(base, what, (offset, pages)) {
            Ok(()) => self.show_pinned(&mut window, base, offset, what),
            Err(error) => Err(ShowError::Share(error)),
        };
        self.publish(window);
        shown
    }

    fn show_pinned(
        &self,
        window: &mut Window,
        base: VirtAddr,
        offset: u32,
        what: Shared,
    ) -> Result<(), ShowError> {
        if let Backing::Nothing(protection) = window.backing {
            window.attributes = protection.attributes(what.memory());
        }
        let pages = window.usable.count();
        let frames = self.kernel.shown_frames(base, (offset, pages));
        let tables = self.tables.source(self.kernel.zones());
        let mapped = self.table.map(&mut window.usable, 0, frames, window.attributes, &tables);
        let count = mapped.unwrap_or_else(|error| error.mapped());
        window.backing = Backing::Area { base, offset, mapped: count, what };
        mapped.map(drop).map_err(ShowError::Map)
    }
}
