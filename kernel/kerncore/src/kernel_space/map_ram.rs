//! `vm_map_ram`: somebody else's frames behind addresses of our own, for a short while (S87).
//!
//! ```text
//!   map_ram    cut a fragment of this CPU's block ─▶ map ─▶ show
//!   unmap_ram  claim it by its address ─▶ unmap ─▶ flush (S23) ─▶ put it back
//! ```
//! No lock is taken and the set of areas is not touched; a block is made when a CPU's own has no room. What is
//! larger than a fragment, or finds no room for a block, gets an area of its own, as by vmap.
//!
//! The flush is part of the unmapping and not put off until the block's addresses are used again: the frames are somebody
//! else's, who may free them as soon as this returns, and no frame may be free while a TLB leads to it (S23). It costs the
//! same: each page is invalidated once, then or later.

pub(super) mod write;

use write::write;

use crate::addr::{PAGE_SIZE, PAGES_PER_SECTION, VirtAddr};
use crate::area::{AreaKind, Mapping};
use crate::attributes::Attributes;
use crate::descriptor::l2::SmallPages;
use crate::frames::Frame;
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::vmap::{OwnerSet, refusal};
use crate::kernel_space::{FramesError, KernelSpace, RemoveError, VmapError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::map_ram::{Aftermath, BLOCK_PAGES, Block, Fragment, LARGEST, NoFragment};
use crate::owned_range::OwnedRange;
use crate::page_table::{MapError, Released, Slots};
use crate::va_space::{Alignment, Request};

/// What fragments are mapped as.
pub(super) const ATTRIBUTES: Attributes = Attributes::KERNEL_DATA;
const WORDS: SmallPages = SmallPages::new(ATTRIBUTES);
/// Whose frames may be.
const OWNERS: u16 = OwnerSet::allowed_under(ATTRIBUTES).bits();

/// A block and its guard fill a section.
const BLOCK: Request = Request {
    bytes: BLOCK_PAGES * PAGE_SIZE,
    window: None,
    alignment: Alignment::Order(PAGES_PER_SECTION.trailing_zeros()),
};

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Maps the frames whose records begin at `pages`, in their order, for a short while, and says where (S87). As vmap's, a
    /// frame may be listed twice, no reference is taken, and the frames must outlive the mapping. Not in interrupt context
    /// (S10).
    ///
    /// # Errors
    /// [`VmapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn map_ram(&self, pages: &[*const Frame], caller: VirtAddr) -> Result<VirtAddr, VmapError> {
        match self.map_ram_at_hand(pages) {
            Some(address) => Ok(address),
            None => self.map_ram_anyhow(pages, caller),
        }
    }

    /// As [`KernelSpace::map_ram`], if this CPU's block has room and every frame may be mapped, which is the rule. Otherwise
    /// nothing has changed, and [`KernelSpace::map_ram`] does it some other way or says what is wrong.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn map_ram_at_hand(&self, pages: &[*const Frame]) -> Option<VirtAddr> {
        self.may_sleep_for("vm_map_ram");
        match u32::try_from(pages.len()) {
            Ok(count @ 1..=LARGEST) => self.map_fragment(count, pages),
            _ => None,
        }
    }

    /// Ends the mapping of `count` pages that [`KernelSpace::map_ram`] made at `address`, on whatever CPU. When this returns,
    /// no TLB leads to the frames (S23). Not in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`].
    ///
    /// # Panics
    /// In interrupt context.
    pub fn unmap_ram(
        &self,
        _authority: M::Authority,
        address: VirtAddr,
        count: u32,
    ) -> Result<(), RemoveError> {
        match self.end_fragment(address, count) {
            Ended::Yes => Ok(()),
            Ended::No => self.unmap_ram_anyhow(address, count),
        }
    }

    /// As [`KernelSpace::unmap_ram`], of a mapping in a block that nobody has tampered with, which is the rule. Otherwise
    /// nothing has changed, and [`KernelSpace::unmap_ram`] ends it or says what is wrong.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn unmap_ram_at_hand(
        &self,
        _authority: M::Authority,
        address: VirtAddr,
        count: u32,
    ) -> Ended {
        self.end_fragment(address, count)
    }

    /// Removes the blocks that nobody has anything of, and says how many. Not in interrupt context.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn close_idle_blocks(&self) -> u32 {
        self.may_sleep_for("close_idle_blocks");
        let mut closed = 0;
        while let Some(base) = self.map_ram.close_idle() {
            self.remove_block(base);
            closed += 1;
        }
        closed
    }

    /// Maps `pages`, which are `count`, in a fragment that is cut for them.
    #[inline(always)]
    fn map_fragment(&self, count: u32, pages: &[*const Frame]) -> Option<VirtAddr> {
        let fragment = self.map_ram.cut(self.table.machine().cpu(), count)?;
        let (mut range, block) = fragment.into_parts();
        let mut slots = Slots::of_block(&mut range, block.table());
        match write(self.table.machine(), &mut slots, pages, &self.ram) {
            Ok(()) => {
                self.table.machine().barrier();
                Some(Fragment::from_parts(range, block).show())
            }
            Err(written) => {
                self.give_up(range, block, written);
                None
            }
        }
    }

    /// When what was at hand would not do.
    #[cold]
    #[inline(never)]
    fn map_ram_anyhow(
        &self,
        pages: &[*const Frame],
        caller: VirtAddr,
    ) -> Result<VirtAddr, VmapError> {
        let count = match u32::try_from(pages.len()) {
            Ok(0) => return Err(VmapError::NoPages),
            Ok(count) if count <= LARGEST => count,
            _ => return self.map_ram_area(pages, caller),
        };
        match self.map_ram.cut(self.table.machine().cpu(), count) {
            Some(fragment) => self.fill(fragment, pages),
            None => self.map_ram_anew(pages, count, caller),
        }
    }

    /// Maps `pages`, as many as the fragment has, and shows it, or says why not.
    fn fill(
        &self,
        mut fragment: Fragment<'_>,
        pages: &[*const Frame],
    ) -> Result<VirtAddr, VmapError> {
        let table = fragment.table();
        let mut slots = Slots::of_block(&mut fragment.range, table);
        let written = write(self.table.machine(), &mut slots, pages, &self.ram);
        self.table.machine().barrier();
        let Err(written) = written else { return Ok(fragment.show()) };
        let error = self.table.stopped_at(&mut slots, written, 0);
        let mapped = error.mapped();
        // What stands in the way stands in the way of whoever comes next, too, but is not ours to remove.
        let (range, block) = fragment.into_parts();
        self.give_up(range, block, mapped);
        Err(match error {
            MapError::MissingFrame { .. } => {
                let page = pages.get(mapped as usize);
                let item =
                    page.and_then(|page| self.zones.table().belonging_at_record(page.addr()));
                refusal(mapped, item, ATTRIBUTES)
            }
            error => VmapError::Map(error),
        })
    }

    /// Puts a fragment back of which `written` pages were mapped and nobody was told.
    #[cold]
    #[inline(never)]
    fn give_up(&self, mut range: OwnedRange, block: &Block, written: u32) {
        let undone = self.table.unmap_part(&mut range, 0, written);
        debug_assert!(undone.is_ok(), "mapped, so inside: {undone:?}");
        self.put_back(Fragment::from_parts(range, block));
    }

    /// When this CPU's block has no room, or there is none.
    #[cold]
    #[inline(never)]
    fn map_ram_anew(
        &self,
        pages: &[*const Frame],
        count: u32,
        caller: VirtAddr,
    ) -> Result<VirtAddr, VmapError> {
        // A block that somebody else used up before we came to cut from it: once more, and then without.
        for _ in 0..2 {
            match self.unless_short(|| self.make_block(caller)) {
                Ok(()) => {}
                Err(VmapError::Area(_)) => break,
                Err(error) => return Err(error),
            }
            if let Some(fragment) = self.map_ram.cut(self.table.machine().cpu(), count) {
                return self.fill(fragment, pages);
            }
        }
        self.map_ram_area(pages, caller)
    }

    /// Makes a block for this CPU.
    fn make_block(&self, caller: VirtAddr) -> Result<(), VmapError> {
        let (mut usable, place) =
            self.reserve("vm_map_ram", |areas| areas.reserve(&BLOCK)).map_err(VmapError::Area)?;
        let (base, pages) = (usable.start(), usable.pages());
        let tables = self.tables.source(&self.zones);
        let table = self.table.reserve_table(&mut usable, &tables);
        let table = match table {
            Ok(table) => table,
            Err(reason) => {
                self.abandon(usable, place);
                return Err(VmapError::Map(MapError::Table { reason, mapped: 0 }));
            }
        };
        debug_assert_eq!(pages.count(), BLOCK_PAGES, "what was asked for");
        let new = NewArea::new(AreaKind::MapRamBlock, caller);
        self.publish(place, Mapping::Borrowed { usable }, new);
        let former = self.map_ram.open(self.table.machine().cpu(), base, table);
        self.settle(former);
        Ok(())
    }

    /// In an area of its own.
    #[cold]
    #[inline(never)]
    fn map_ram_area(
        &self,
        pages: &[*const Frame],
        caller: VirtAddr,
    ) -> Result<VirtAddr, VmapError> {
        let table = *self.zones.table();
        let frames = pages.iter().map(move |page| table.belonging_at_record(page.addr()));
        let new = NewArea::new(AreaKind::MapRam, caller);
        let area =
            self.unless_short(|| self.map_borrowed("vm_map_ram", frames.clone(), ATTRIBUTES, new))?;
        Ok(area.pages.start())
    }

    /// Ends a mapping in a block, if its pages are as they were made.
    #[inline(always)]
    fn end_fragment(&self, address: VirtAddr, count: u32) -> Ended {
        self.may_sleep_for("vm_unmap_ram");
        let Ok(fragment) = self.map_ram.claim(address, count) else { return Ended::No };
        let (mut range, block) = fragment.into_parts();
        let cleared = self.table.clear_in_block(block.table(), &mut range);
        let fragment = Fragment::from_parts(range, block);
        if cleared {
            // Only now can it be put back (S23).
            self.put_back(fragment);
            Ended::Yes
        } else {
            let _shown = fragment.show();
            Ended::No
        }
    }

    /// When it was no fragment, or one that somebody has tampered with.
    #[cold]
    #[inline(never)]
    fn unmap_ram_anyhow(&self, address: VirtAddr, count: u32) -> Result<(), RemoveError> {
        if !address.is_page_aligned() {
            return Err(RemoveError::Misaligned { address });
        }
        match self.map_ram.claim(address, count) {
            Ok(fragment) => self.clear_odd_fragment(fragment),
            Err(refused) => self.unmap_ram_area(address, count, refused),
        }
    }

    /// Of a fragment that was claimed.
    fn clear_odd_fragment(&self, fragment: Fragment<'_>) -> Result<(), RemoveError> {
        let (range, block) = fragment.into_parts();
        let Released { range, removal, .. } = self.table.unmap(range, ()).flush();
        if removal.oddities != 0 {
            self.support.odd_tables(range.pages(), removal);
        }
        if removal.left_alone != 0 {
            let address = range.start();
            return Err(RemoveError::Frames { address, error: FramesError::StillMapped });
        }
        self.put_back(Fragment::from_parts(range, block));
        Ok(())
    }

    /// What [`KernelSpace::map_ram_area`] made, or nothing that this call may remove.
    #[cold]
    #[inline(never)]
    fn unmap_ram_area(
        &self,
        address: VirtAddr,
        wanted: u32,
        refused: NoFragment,
    ) -> Result<(), RemoveError> {
        match refused {
            NoFragment::OtherSize { found } => {
                Err(RemoveError::OtherSize { address, found, wanted })
            }
            NoFragment::Unknown => Err(RemoveError::Unknown { address }),
            NoFragment::NotInBlock => {
                let dying = self
                    .areas
                    .with(|areas| areas.retire_sized(address, AreaKind::MapRam, wanted))?;
                self.tear_down(dying)
            }
        }
    }

    #[inline(always)]
    fn put_back(&self, fragment: Fragment<'_>) {
        let aftermath = fragment.put_back();
        if let Aftermath::Ended(base) = aftermath {
            self.remove_block(base);
        }
    }

    fn settle(&self, aftermath: Aftermath) {
        if let Aftermath::Ended(base) = aftermath {
            self.remove_block(base);
        }
    }

    /// Removes the area of a block that ended. All of it is unmapped and flushed once more, which does no harm (S25).
    #[cold]
    #[inline(never)]
    fn remove_block(&self, base: VirtAddr) {
        let removed =
            self.retire(base, AreaKind::MapRamBlock).and_then(|dying| self.tear_down(dying));
        debug_assert!(removed.is_ok(), "a block that ended is an area: {removed:?}");
    }
}

/// Whether a mapping was ended at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was not ended is still mapped"]
pub enum Ended {
    /// It was.
    Yes,
    /// It was not, and nothing has changed.
    No,
}
