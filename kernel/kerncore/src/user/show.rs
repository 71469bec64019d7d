//! Windows that show memory of the kernel's (S43 to S46, S78).
//!
//! ```text
//!   reserve ──▶ a window without memory ──▶ show_vmalloc, show_coherent ──▶ unmap, or the end of the space
//!                                            pin the area, then map it        unmap, flush, then unpin
//! ```
//!
//! From before the first page is mapped until after the flush of the last the area is pinned: its removal is refused. So is a block
//! of frames that has no area (`show_block`).

use crate::addr::{PageRange, PhysAddr, VirtAddr};
use crate::attributes::MemoryType;
use crate::frames::ShownBlock;
use crate::iommu::SeenAt;
use crate::kernel_space::{ShareError, Shared};
use crate::lock::{Lock, Locks};
use crate::user::machine::UserMachine;
use crate::user::space::UserSpace;
use crate::user::window::{Backing, PlaceError, Protection, ShowError, Source, Window};

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
        self.show_area(start, (base, Shared::Vmalloc), offset, || Ok(()))
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
        self.show_area(start, (base, Shared::Coherent(physical)), offset, || Ok(()))
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
        self.show_area(start, (base, Shared::Seen(at)), offset, || Ok(()))
    }

    /// Shows memory of a device's own, whose uncached mapping begins at `base` and at `physical` on the bus, from the mapping's page
    /// `offset` on, in all of the reserved window that begins at `start`, if `may_be` agrees (S102). From before that is asked until the
    /// window shows it, or will not, [`UserSpace::windows_onto`] has no answer.
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show_device_memory(
        &self,
        start: VirtAddr,
        (base, physical): (VirtAddr, PhysAddr),
        offset: u32,
        may_be: impl FnOnce() -> Result<(), ShareError>,
    ) -> Result<(), ShowError> {
        self.show_area(start, (base, Shared::Device(physical)), offset, may_be)
    }

    /// Shows the block that `pin` gives, which got it from [`crate::kernel_space::KernelSpace::show_block`] and is told how many pages the window has, from its
    /// page `offset` on, in all of the reserved window that begins at `start`: as the linear map has it (S78, S97). `pin` may take a
    /// lock under which the block's owner would free it.
    ///
    /// # Errors
    /// [`ShowError`], also what `pin` says.
    pub fn show_block(
        &self,
        start: VirtAddr,
        offset: u32,
        pin: impl FnOnce(u32) -> Result<ShownBlock, ShareError>,
    ) -> Result<(), ShowError> {
        self.show(start, offset, |window| {
            let block = pin(window)?;
            let area = block.pages();
            // Subtracted, never added: nothing can wrap.
            if offset >= area || window > area - offset {
                self.kernel.hide_block(block);
                return Err(ShareError::Outside { area, offset, window });
            }
            Ok(Source::Block(block))
        })
    }

    /// How many windows of this space show any of the `pages` (a first one and a count) of the kernel's mapping at `base`. `None` while
    /// a window is being made or ended, which might be one of them. Any context in which this space's owner may be asked.
    pub fn windows_onto(&self, base: VirtAddr, pages: (u32, u32)) -> Option<u32> {
        let (first, count) = pages;
        let shows = |(range, window): &(PageRange, &Window)| match window.backing {
            Backing::Shown { source: Source::Area { base: of, .. }, offset, .. } => {
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

    /// Shows the area at `base`, if it may be, which is counted once `may_be` agrees, from its page `offset` on.
    fn show_area(
        &self,
        start: VirtAddr,
        (base, what): (VirtAddr, Shared),
        offset: u32,
        may_be: impl FnOnce() -> Result<(), ShareError>,
    ) -> Result<(), ShowError> {
        self.show(start, offset, |pages| {
            may_be()?;
            self.kernel.pin(base, what, (offset, pages))?;
            Ok(Source::Area { base, what })
        })
    }

    /// Shows what `pin` gives for a window of so many pages, which lie in it from page `offset` on. The window is nobody else's while
    /// that is asked.
    fn show(
        &self,
        start: VirtAddr,
        offset: u32,
        pin: impl FnOnce(u32) -> Result<Source, ShareError>,
    ) -> Result<(), ShowError> {
        L::might_sleep("showing memory to a program");
        let is_empty = |window: &Window| match window.backing {
            Backing::Nothing(_) => Ok(()),
            _ => Err(ShowError::InUse { address: start }),
        };
        let mut window = self.windows.with(|windows| windows.take_if(start, is_empty))?;
        let shown = match pin(window.usable.count()) {
            Ok(source) => self.show_pinned(&mut window, source, offset),
            Err(error) => Err(ShowError::Share(error)),
        };
        self.publish(window);
        shown
    }

    fn show_pinned(
        &self,
        window: &mut Window,
        source: Source,
        offset: u32,
    ) -> Result<(), ShowError> {
        if let Backing::Nothing(protection) = window.backing {
            window.attributes = protection.attributes(source.memory());
        }
        let (usable, attributes) = (&mut window.usable, window.attributes);
        let pages = usable.count();
        let tables = self.tables.source(self.kernel.zones());
        let mapped = match &source {
            Source::Area { base, .. } => {
                let frames = self.kernel.shown_frames(*base, (offset, pages));
                self.table.map(usable, 0, frames, attributes, &tables)
            }
            Source::Block(block) => {
                let frames =
                    (0..pages).map(|index| block.first().checked_add(offset.checked_add(index)?));
                self.table.map(usable, 0, frames, attributes, &tables)
            }
        };
        let count = mapped.unwrap_or_else(|error| error.mapped());
        window.backing = Backing::Shown { source, offset, mapped: count };
        mapped.map(drop).map_err(ShowError::Map)
    }
}
