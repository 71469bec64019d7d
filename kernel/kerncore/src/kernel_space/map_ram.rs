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

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PAGES_PER_SECTION, Pfn, VirtAddr};
use crate::area::{AreaKind, Mapping};
use crate::attributes::Attributes;
use crate::descriptor::l2::SmallPages;
use crate::frames::{Frame, FrameTable, Likeness};
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::vmap::{OwnerSet, refusal};
use crate::kernel_space::{FramesError, KernelSpace, RemoveError, VmapError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::map_ram::{Aftermath, BLOCK_PAGES, Fragment, LARGEST, NoFragment};
use crate::page_table::{MapError, Released, Slots};
use crate::va_space::{Alignment, Request};

/// What fragments are mapped as.
const ATTRIBUTES: Attributes = Attributes::KERNEL_DATA;
const WORDS: SmallPages = SmallPages::new(ATTRIBUTES);

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
    #[inline]
    pub fn map_ram(&self, pages: &[*const Frame], caller: VirtAddr) -> Result<VirtAddr, VmapError> {
        self.may_sleep_for("vm_map_ram");
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

    /// Ends the mapping of `count` pages that [`KernelSpace::map_ram`] made at `address`, on whatever CPU. When this returns,
    /// no TLB leads to the frames (S23). Not in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`].
    ///
    /// # Panics
    /// In interrupt context.
    #[inline]
    pub fn unmap_ram(
        &self,
        _authority: M::Authority,
        address: VirtAddr,
        count: u32,
    ) -> Result<(), RemoveError> {
        self.may_sleep_for("vm_unmap_ram");
        if !address.is_page_aligned() {
            return Err(RemoveError::Misaligned { address });
        }
        match self.map_ram.claim(address, count) {
            Ok(fragment) => self.clear_fragment(fragment),
            Err(refused) => self.unmap_ram_area(address, count, refused),
        }
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

    /// Maps `pages`, as many as the fragment has, and shows it.
    #[inline(always)]
    fn fill(&self, mut fragment: Fragment, pages: &[*const Frame]) -> Result<VirtAddr, VmapError> {
        let mut frames = Usable::new(*self.zones.table());
        let write = |machine: &M, slots: &mut Slots<'_>| frames.write(machine, slots, pages);
        match self.table.map_below(fragment.table, &mut fragment.range, write) {
            Ok(()) => Ok(self.map_ram.show(fragment)),
            Err(error) => Err(self.give_up(fragment, pages, error)),
        }
    }

    /// Undoes what [`KernelSpace::fill`] has begun.
    #[cold]
    fn give_up(&self, fragment: Fragment, pages: &[*const Frame], error: MapError) -> VmapError {
        let Fragment { mut range, table } = fragment;
        let mapped = error.mapped();
        let undone = self.table.unmap_part(&mut range, 0, mapped);
        debug_assert!(undone.is_ok(), "mapped, so inside: {undone:?}");
        // What stands in the way stands in the way of whoever comes next, too, but is not ours to remove.
        self.put_back(Fragment { range, table });
        match error {
            MapError::MissingFrame { mapped, .. } => {
                let page = pages.get(mapped as usize);
                let item =
                    page.and_then(|page| self.zones.table().belonging_at_record(page.addr()));
                refusal(mapped, item, ATTRIBUTES)
            }
            error => VmapError::Map(error),
        }
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
            match self.make_block(caller) {
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
        let area = self.map_borrowed("vm_map_ram", frames, ATTRIBUTES, new)?;
        Ok(area.pages.start())
    }

    /// Of a fragment that was claimed.
    #[inline(always)]
    fn clear_fragment(&self, fragment: Fragment) -> Result<(), RemoveError> {
        let Fragment { range, table } = fragment;
        let Released { range, removal, .. } = self.table.unmap_below(table, range, ()).flush();
        if removal.oddities != 0 {
            self.support.odd_tables(range.pages(), removal);
        }
        if removal.left_alone != 0 {
            let address = range.start();
            return Err(RemoveError::Frames { address, error: FramesError::StillMapped });
        }
        self.put_back(Fragment { range, table });
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
                self.tear_down(dying).map(drop)
            }
        }
    }

    #[inline(always)]
    fn put_back(&self, fragment: Fragment) {
        let aftermath = self.map_ram.put_back(fragment);
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

/// Which frames may be mapped; quick where one is like the one before.
struct Usable<'t> {
    table: FrameTable<'t>,
    like: Likeness,
}

impl<'t> Usable<'t> {
    const fn new(table: FrameTable<'t>) -> Self {
        Self { table, like: Likeness::NONE }
    }

    /// Writes the descriptors of `pages`, up to the first that may not be mapped, and says how many.
    #[inline(always)]
    fn write(
        &mut self,
        machine: &impl Machine,
        slots: &mut Slots<'_>,
        pages: &[*const Frame],
    ) -> u32 {
        let mut written = 0;
        if pages.len() >= MANY && self.check(pages[0].addr()).is_some() {
            written = write_alike(machine, slots, pages, self.table, self.like);
        }
        let rest = pages.get(written as usize..).unwrap_or_default();
        let frames = rest.iter().map_while(|page| self.check(page.addr()));
        written + slots.write_from(machine, written, frames.map(|frame| WORDS.word(frame)))
    }

    /// The frame whose record begins at `record`, if it may be mapped.
    #[inline(always)]
    fn check(&mut self, record: usize) -> Option<Pfn> {
        let (frame, likeness) = self.table.likeness_at_record(record)?;
        if likeness != self.like {
            self.look_closer(record, likeness)?;
        }
        Some(frame)
    }

    #[cold]
    #[inline(never)]
    fn look_closer(&mut self, record: usize, likeness: Likeness) -> Option<()> {
        let owner = self.table.belonging_at_record(record)?.owner;
        if likeness.names_owner() {
            self.like = likeness;
        }
        let allowed = OwnerSet::allowed_under(ATTRIBUTES).contains(owner);
        if !allowed {
            self.like = Likeness::NONE;
        }
        allowed.then_some(())
    }
}

/// So many pages are worth the quick loop.
const MANY: usize = 8;

/// Writes the descriptors of `pages` as long as their records say `like`, and says how many.
///
/// Not inlined, so that the loop has the registers to itself: it is most of what a large mapping costs.
#[inline(never)]
fn write_alike(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    table: FrameTable<'_>,
    like: Likeness,
) -> u32 {
    let first = WORDS.word(table.first());
    slots.write_fours(machine, pages, |page| {
        let index = table.index_if_like(page.addr(), like)?;
        // The table ends below 4 GiB, so nothing is carried into the attributes.
        Some(first.wrapping_add(index << PAGE_SHIFT))
    })
}
