//! Blocks of addresses for short-lived mappings (S87): who has which pages of which block, without a lock.
//!
//! ```text
//!   a MiB of the window, aligned          one block: an area of its own, 255 pages and its guard
//!   ┌────────┬─┬───────────────┬─┬─────┬─┬──────────────────────────────────────┬─┐
//!   │fragment│g│   fragment    │g│frag.│g│               unused                 │G│
//!   └────────┴─┴───────────────┴─┴─────┴─┴──────────────────────────────────────┴─┘
//!    ◀──────────── used ─────────────────▶
//! ```
//!
//! * A fragment is 1 to [`LARGEST`] pages and a guard that is never mapped, as every area's (S2). Fragments are cut from the
//!   block's low end upwards; the highest one's pages can be cut again when it was put back, and all of them when none is
//!   left. Addresses are put back flushed (S23), so a block keeps no account of what is dirty.
//! * Each CPU cuts from a block of its own, found by the CPU's number; a fragment is put back by any CPU, into the block that
//!   its address says. Two CPUs that meet in a block are right all the same: everything about a block that changes is one
//!   word, changed by comparison.
//! * A block in which a fragment no longer fits is closed: nobody cuts from it, and who puts back its last fragment is told
//!   so and removes the area. An idle block that is still open is removed when somebody asks for it ([`MapRam::close_idle`]).
//!
//! Nothing here waits or allocates; any context. What a fragment's pages lead to is the business of whoever holds it.

mod block;
#[cfg(test)]
mod tests;

pub use block::Block;
use block::PutBack;

use core::array;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SHIFT, PAGES_PER_SECTION, PageRange, PhysAddr, SECTION_SIZE, VirtAddr};
use crate::descriptor::l1;
use crate::owned_range::OwnedRange;
use crate::va_space::GUARD_PAGES;

/// Pages of the largest fragment. What is larger gets an area of its own (S87).
pub const LARGEST: u32 = 64;
/// Usable pages of a block; with its guard it fills a section, below one second-level table.
pub const BLOCK_PAGES: u32 = PAGES_PER_SECTION - GUARD_PAGES;
/// CPUs that have a block of their own; those with greater numbers share.
pub const CPUS: usize = 4;

/// No block: not the number of a section of the window.
const NONE: u32 = u32::MAX;

/// The blocks of a window.
#[derive(Debug)]
pub struct MapRam<'s> {
    /// The number of the window's first section.
    first: u32,
    /// One for each section of the window.
    blocks: &'s [Block],
    /// Which block each CPU cuts from, as an index.
    current: [AtomicU32; CPUS],
}

/// Pages of a block that one caller has, and the table above them.
#[derive(Debug)]
#[must_use = "a dropped fragment is lost to its block"]
pub struct Fragment<'s> {
    /// The right to write its descriptors.
    pub(crate) range: OwnedRange,
    block: &'s Block,
}

impl<'s> Fragment<'s> {
    /// The fragment of `pages` from page number `first` of `block`: minted for whoever changed the block's word, or its mark,
    /// from nobody's to his.
    #[inline(always)]
    fn mint(block: &'s Block, first: u32, pages: u32) -> Self {
        Self { range: OwnedRange::mint(PageRange::within(first, pages)), block }
    }

    /// Notes that the fragment is used: from now on it can be claimed by its address.
    #[inline(always)]
    pub fn show(self) -> VirtAddr {
        let Self { range, block } = self;
        block.show(offset_of(range.start()), range.count());
        range.start()
    }

    /// Puts the fragment back, whose pages no table maps and no TLB remembers (S23).
    #[inline(always)]
    pub fn put_back(self) -> Aftermath {
        let Self { range, block } = self;
        match block.put_back(offset_of(range.start()), range.count()) {
            PutBack::Stays => Aftermath::Stays,
            PutBack::Last => Aftermath::Ended(base_of(range.start())),
        }
    }

    /// The right to its descriptors, and its block, to which it goes back when they are flushed.
    #[inline(always)]
    pub(crate) fn into_parts(self) -> (OwnedRange, &'s Block) {
        (self.range, self.block)
    }

    /// What [`Fragment::into_parts`] has taken apart.
    #[inline(always)]
    pub(crate) const fn from_parts(range: OwnedRange, block: &'s Block) -> Self {
        Self { range, block }
    }

    /// The second-level table that translates it: the block's, made before the block was opened and kept for good (S24).
    #[inline(always)]
    pub(crate) fn table(&self) -> PhysAddr {
        self.block.table()
    }
}

/// Why an address does not lead to a fragment of so many pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFragment {
    /// It lies in no block.
    NotInBlock,
    /// No fragment begins there.
    Unknown,
    /// The fragment that begins there has another size.
    OtherSize {
        /// Its pages.
        found: u32,
    },
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a block that ended is an area that somebody must remove"]
pub enum Aftermath {
    /// It stays.
    Stays,
    /// Nobody has anything of it, and nobody will: the area at this address is the caller's to remove.
    Ended(VirtAddr),
}

impl<'s> MapRam<'s> {
    /// The books of `window`, which begins and ends on section boundaries, in `blocks`, one for each of its sections. `None`
    /// if that is not so.
    pub fn new(window: PageRange, blocks: &'s [Block]) -> Option<Self> {
        let first = window.first() / PAGES_PER_SECTION;
        let aligned = window.first().is_multiple_of(PAGES_PER_SECTION);
        let enough = blocks.len() >= Self::blocks_for(window);
        let current = array::from_fn(|_| AtomicU32::new(NONE));
        (aligned && enough).then_some(Self { first, blocks, current })
    }

    /// How many [`Block`]s a window wants.
    pub const fn blocks_for(window: PageRange) -> usize {
        (window.count() / PAGES_PER_SECTION) as usize
    }

    /// Cuts a fragment of `pages`, 1 to [`LARGEST`], from the block of CPU number `cpu`. `None` if that has none, or no room.
    #[inline(always)]
    pub fn cut(&self, cpu: usize, pages: u32) -> Option<Fragment<'s>> {
        let index = self.current[cpu % CPUS].load(Relaxed);
        let block = self.blocks.get(index as usize)?;
        let offset = block.cut(pages)?;
        // Of a block of the window: nothing wraps.
        let first = self.first.wrapping_add(index).wrapping_mul(PAGES_PER_SECTION);
        Some(Fragment::mint(block, first | offset, pages))
    }

    /// Takes the fragment of `pages` that begins at `address` out of use. Whoever else tries is refused.
    ///
    /// # Errors
    /// [`NoFragment`]; nothing has changed. An address that begins no page lies in no block.
    #[inline(always)]
    pub fn claim(&self, address: VirtAddr, pages: u32) -> Result<Fragment<'s>, NoFragment> {
        // What begins no page has a number, so turned, that lies beyond all pages.
        let page = address.raw().rotate_right(PAGE_SHIFT);
        let into_window = page.wrapping_sub(self.first.wrapping_mul(PAGES_PER_SECTION));
        let index = into_window / PAGES_PER_SECTION;
        let block = self.blocks.get(index as usize).ok_or(NoFragment::NotInBlock)?;
        block.claim(page % PAGES_PER_SECTION, pages)?;
        Ok(Fragment::mint(block, page, pages))
    }

    /// Makes a block of the section at `base`, whose pages but for the last are an area's for this purpose, and whose
    /// second-level table is `table`: CPU number `cpu` cuts from it. The block that it cut from is closed.
    pub fn open(&self, cpu: usize, base: VirtAddr, table: PhysAddr) -> Aftermath {
        let index = l1::index(base).wrapping_sub(self.first);
        // Who cut from the block that this section was before has none now: he is not to cut from another's.
        for current in &self.current {
            _ = current.compare_exchange(index, NONE, Relaxed, Relaxed);
        }
        if let Some(block) = self.blocks.get(index as usize) {
            block.open(table);
        }
        let former = self.current[cpu % CPUS].swap(index, Relaxed);
        self.close(former)
    }

    /// Closes blocks of which nobody has anything, one at a time: the one whose area the caller is to remove, or `None` when
    /// there is none.
    pub fn close_idle(&self) -> Option<VirtAddr> {
        self.current.iter().find_map(|current| {
            let index = current.load(Relaxed);
            self.blocks.get(index as usize)?.end_idle().then(|| self.base_at(index))
        })
    }

    /// What a page of a block belongs to, for audits and listings: the pages of the fragment that begins there, or 0.
    pub fn fragment_at(&self, address: VirtAddr) -> u32 {
        self.block_of(address).map_or(0, |block| block.fragment_at(offset_of(address)))
    }

    /// The pages of the used fragment that `address` lies in.
    pub fn fragment_containing(&self, address: VirtAddr) -> Option<PageRange> {
        let page = address.page_number();
        let lowest = (page + 1).saturating_sub(LARGEST).max(page - page % PAGES_PER_SECTION);
        let starts = (lowest..=page).rev();
        let fragments = starts
            .filter_map(|first| PageRange::from_numbers(first, 1))
            .map(|first| PageRange::from_numbers(first.first(), self.fragment_at(first.start())));
        fragments
            .flatten()
            .find(|fragment| !fragment.is_empty())
            .filter(|fragment| fragment.contains(address))
    }

    /// How many fragments are out of the block at `base`: used, or being made or put back.
    pub fn fragments_of(&self, base: VirtAddr) -> u32 {
        self.block_of(base).map_or(0, Block::fragments)
    }

    /// Nobody cuts from the block at `index` any more.
    fn close(&self, index: u32) -> Aftermath {
        match self.blocks.get(index as usize) {
            Some(block) if block.close() == PutBack::Last => Aftermath::Ended(self.base_at(index)),
            _ => Aftermath::Stays,
        }
    }

    #[inline(always)]
    fn block_of(&self, address: VirtAddr) -> Option<&'s Block> {
        self.blocks.get(l1::index(address).wrapping_sub(self.first) as usize)
    }

    fn base_at(&self, index: u32) -> VirtAddr {
        VirtAddr::new((self.first + index) * SECTION_SIZE)
    }
}

/// How many pages into its section `address` lies.
const fn offset_of(address: VirtAddr) -> u32 {
    address.page_number() % PAGES_PER_SECTION
}

/// The first address of the section of `address`.
const fn base_of(address: VirtAddr) -> VirtAddr {
    VirtAddr::new(address.raw() & !(SECTION_SIZE - 1))
}
