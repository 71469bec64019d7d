//! The linear map: every frame of low RAM at one constant distance, until it is lent out.
//!
//! ```text
//!   window   ┌ MiB 0 ┬ MiB 1 ┬ MiB 2 ┬ … ┐   one second-level table for each, in one flat array, so that the slot
//!   tables   │256 × 4│256 × 4│256 × 4│ … │   of frame f is array + 4 × (f − first): no walk
//! ```
//! The first-level slots above it name those tables and never change; every page is a small page (S112). So any
//! frame's entry can be taken out without splitting anything live.
//!
//! # Lending a block
//!
//! A frame that is mapped with another memory type than the linear map's must not be in the linear map as well
//! (S97; ARM DDI 0406C, A3.5.7, "Mismatched memory attributes"), nor may one that is executable somewhere (S112).
//! The states are types, and each step consumes the one before:
//!
//! ```text
//!   FrameBlock ──withdraw──▶ Withdrawn ──flush──▶ Absent ──lend──▶ Lent { at its new addresses, clean }
//!       ▲          entries cleared      TLBs forget │                │
//!       └────────────restore────────────────────────┘◀──flush── Unmapped ◀──unmap
//! ```
//!
//! # Why the cache is cleaned last, and through the new mapping
//!
//! While a cacheable mapping can be reached, through a table or a stale TLB entry, the processor may read any line
//! of it into the cache on its own (speculation, prefetch). Lines cleaned and invalidated *before* the entry is gone
//! may therefore be back when the frame is first used uncached, and would hide what a device writes, or, left
//! dirty, overwrite it later. After the flush nothing can bring them back. But then the old address no longer
//! translates, and maintenance by MVA needs one that does. The new mapping serves: maintenance acts on the physical
//! line, whatever attributes the address has, and nobody has used the new mapping yet. The order is thus:
//!
//! 1. clear the linear entries, clean the slots, barrier;
//! 2. invalidate the TLBs, barrier: no cacheable translation is left;
//! 3. map the block at its new place;
//! 4. clean and invalidate its lines through that mapping, barrier: what was written through the linear map (zeros)
//!    is in memory, and no line is left;
//! 5. only now hand out the address.
//!
//! On the way back nothing is cached that could be stale: [`LinearMap::restore`] needs no maintenance.
//!
//! Frames that are not adjacent go the same way as a list, by types of their own: [`list`].

use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    attributes::Attributes,
    descriptor::l2::SmallPages,
    frames::FrameBlock,
    lines::Edge,
    lock::Locks,
    machine::Machine,
    owned_range::OwnedRange,
    page_table::{AdoptError, MapError, PageTable, Slots, TableSource, Unmapped, consecutive},
};
use core::fmt;

pub mod list;
mod page;
mod protect;

pub use protect::ProtectError;

/// What an entry of the linear map promises outside the kernel's image.
const ATTRIBUTES: Attributes = Attributes::KERNEL_DATA;

/// Whose steps the ledger of lines is told of.
const LENDING: &str = "memory lent uncached";

/// The addresses of low RAM, and the tables that translate them.
///
/// Whoever owns a [`FrameBlock`] owns its linear addresses; so the linear map writes their slots for the owner of
/// the block without a lock.
#[derive(Debug)]
pub struct LinearMap<M> {
    machine: M,
    /// Never given out: the right to every slot below.
    window: OwnedRange,
    /// The flat array's first slot, which is the window's first page's.
    slots: PhysAddr,
    /// The frame of the window's first page.
    first: Pfn,
}

/// Why pages of the linear map were not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillError {
    /// These frames do not all lie in the window.
    Outside {
        /// The first frame.
        first: Pfn,
        /// How many.
        count: u32,
    },
    /// An entry is there already; nothing was written.
    Occupied {
        /// The address that the slot translates.
        address: VirtAddr,
        /// What it holds.
        descriptor: u32,
    },
}

/// Why a block cannot leave the linear map or come back; it is given back as it was.
#[derive(Debug)]
pub enum LinearError<B> {
    /// It does not lie in the window: high memory has no linear addresses.
    Outside(B),
    /// An entry is not what it should be for a block in this state; nothing was written.
    Unexpected {
        /// The address that the slot translates.
        address: VirtAddr,
        /// What it should hold.
        wanted: u32,
        /// What it holds.
        found: u32,
        /// The block.
        block: B,
    },
}

/// A block whose linear entries are cleared and whose translations may linger in TLBs. Dropped, it leaks.
#[must_use = "only `flush` gives the block back"]
pub struct Withdrawn<'map, M> {
    machine: &'map M,
    stale: PageRange,
    block: FrameBlock,
}

/// A block that no cacheable mapping reaches any more; its lines may still be in a cache.
#[derive(Debug)]
#[must_use = "a dropped block leaks its frames"]
pub struct Absent(FrameBlock);

/// A block mapped at addresses of its own, absent from the linear map, with no line of it left in any cache.
#[derive(Debug)]
#[must_use = "a dropped block leaks its frames and addresses"]
pub struct Lent {
    range: OwnedRange,
    pages: PageRange,
    block: FrameBlock,
}

/// Why a block, or a list, could not be lent. It is unmapped again where it had been mapped, and everything comes back.
#[derive(Debug)]
pub struct LendError<B = Absent> {
    /// What went wrong.
    pub reason: MapError,
    /// The block, or the list, as it was.
    pub block: B,
    /// The addresses, as they were.
    pub range: OwnedRange,
}

impl<M: Machine> LinearMap<M> {
    /// The linear map at `window`, whose first page is frame `first`, over consecutive second-level tables from
    /// `tables`, which `table` adopts ([`PageTable::adopt_tables`]: entries that are there already stay).
    ///
    /// # Errors
    /// [`AdoptError`].
    pub fn new<L: Locks>(
        table: &PageTable<M, L>,
        mut window: OwnedRange,
        tables: PhysAddr,
        first: Pfn,
    ) -> Result<Self, AdoptError>
    where
        M: Clone,
    {
        table.adopt_tables(&mut window, tables)?;
        Ok(Self { machine: table.machine().clone(), window, slots: tables, first })
    }

    /// Its addresses.
    pub const fn window(&self) -> PageRange {
        self.window.pages()
    }

    /// Where the first of its second-level tables lies; the others follow it.
    pub const fn tables(&self) -> PhysAddr {
        self.slots
    }

    /// The linear addresses of `count` frames from `first`, or `None` if they do not all lie in the window. Says
    /// nothing of whether they are mapped just now.
    #[inline]
    pub fn pages_of(&self, first: Pfn, count: u32) -> Option<PageRange> {
        self.window.pages().sub_range(first.checked_sub(self.first)?, count)
    }

    /// The first address of [`LinearMap::pages_of`], for those who ask for each piece of a list.
    #[inline(always)]
    pub(crate) fn address_of(&self, first: Pfn, count: u32) -> Option<VirtAddr> {
        let pages = self.window.pages();
        let index = first.number().wrapping_sub(self.first.number());
        let is_inside = index < pages.count() && count <= pages.count().wrapping_sub(index);
        // It is an address of the window.
        is_inside.then(|| VirtAddr::new(pages.first().wrapping_add(index) << PAGE_SHIFT))
    }

    /// The frame at `address` of the window, mapped or not.
    #[inline]
    pub fn frame_of(&self, address: VirtAddr) -> Option<Pfn> {
        let pages = self.window.pages();
        let inside = pages.contains(address);
        inside.then(|| self.first.checked_add(address.page_number() - pages.first())).flatten()
    }

    /// Makes the entries of `count` frames from `first`, at boot: RAM that nobody has used yet.
    ///
    /// # Errors
    /// [`FillError`]; nothing was written.
    pub fn fill(&mut self, first: Pfn, count: u32) -> Result<(), FillError> {
        let outside = FillError::Outside { first, count };
        let frames = consecutive(first, count).ok_or(outside)?;
        let pages = self.pages_of(first, count).ok_or(outside)?;
        self.with_slots(pages, |slots| {
            for index in 0..count {
                let descriptor = slots.read(&self.machine, index);
                if descriptor != 0 {
                    let address = slots.address(index);
                    return Err(FillError::Occupied { address, descriptor });
                }
            }
            let words = SmallPages::new(ATTRIBUTES);
            slots.write(&self.machine, frames.map(|frame| words.word(frame)));
            Ok(())
        })
        .ok_or(outside)??;
        self.machine.barrier();
        Ok(())
    }

    /// Takes the entries of `block` out. The block comes back from [`Withdrawn::flush`].
    ///
    /// # Errors
    /// [`LinearError`]: the entries are looked at before the first is cleared.
    #[inline]
    pub fn withdraw(&self, block: FrameBlock) -> Result<Withdrawn<'_, M>, LinearError<FrameBlock>> {
        let words = SmallPages::new(ATTRIBUTES);
        match self.replace::<PAGE_SIZE, 0>(&block, words.word(block.first()), 0) {
            Ok(stale) => Ok(Withdrawn { machine: &self.machine, stale, block }),
            Err(mismatch) => Err(mismatch.with(block)),
        }
    }

    /// Puts the entries of a block back that is mapped nowhere. No cache maintenance: see the module's words.
    ///
    /// # Errors
    /// [`LinearError`]: the entries are looked at before the first is written.
    #[inline]
    pub fn restore(&self, absent: Absent) -> Result<FrameBlock, LinearError<Absent>> {
        let Absent(block) = absent;
        let words = SmallPages::new(ATTRIBUTES);
        match self.replace::<0, PAGE_SIZE>(&block, 0, words.word(block.first())) {
            Ok(_) => Ok(block),
            Err(mismatch) => Err(mismatch.with(Absent(block))),
        }
    }

    /// Writes the slots of `block` from `new` on, `NEW` more in each, and makes it visible to walkers. All of them must
    /// hold what is wanted: `wanted`, and `WANTED` more in each.
    #[inline]
    fn replace<const WANTED: u32, const NEW: u32>(
        &self,
        block: &FrameBlock,
        mut wanted: u32,
        new: u32,
    ) -> Result<PageRange, Mismatch> {
        let (first, count) = (block.first(), block.pages());
        let pages = self.pages_of(first, count).ok_or(Mismatch::Outside)?;
        self.with_slots(pages, |slots| {
            for index in 0..count {
                let found = slots.read(&self.machine, index);
                if found != wanted {
                    let address = slots.address(index);
                    return Err(Mismatch::Unexpected { address, wanted, found });
                }
                wanted = wanted.wrapping_add(WANTED);
            }
            slots.write_steps::<NEW>(&self.machine, new);
            Ok(())
        })
        .ok_or(Mismatch::Outside)??;
        self.machine.barrier();
        Ok(pages)
    }

    /// Lends the slots of `pages`, which lie in the window, to `act`. `None` if they are not to be had.
    ///
    /// Only called with a block's pages by the block's owner, or with `&mut self`: nobody else writes them.
    #[inline]
    fn with_slots<R>(&self, pages: PageRange, act: impl FnOnce(&mut Slots<'_>) -> R) -> Option<R> {
        let mut range = OwnedRange::mint(pages);
        let mut slots = Slots::in_array(&mut range, self.slots, self.window.start())?;
        Some(act(&mut slots))
    }
}

impl<M: Machine> Withdrawn<'_, M> {
    /// Invalidates every TLB entry of the block's linear addresses, on every CPU, and waits for it.
    #[inline]
    pub fn flush(self) -> Absent {
        self.machine.invalidate_tlb(self.stale);
        self.machine.barrier();
        Absent(self.block)
    }
}

impl Absent {
    /// The first frame.
    pub const fn first(&self) -> Pfn {
        self.0.first()
    }

    /// How many frames.
    pub const fn pages(&self) -> u32 {
        self.0.pages()
    }

    /// Maps the block at the start of `range`, whose further pages stay a guard, and cleans and invalidates its
    /// cache lines through the new mapping. When this returns, the memory behind the addresses holds what was
    /// written through the linear map, and no cache holds anything of it.
    ///
    /// # Errors
    /// [`LendError`], which gives everything back.
    #[inline]
    pub fn lend<M: Machine, L: Locks>(
        self,
        table: &PageTable<M, L>,
        mut range: OwnedRange,
        attributes: Attributes,
        tables: &impl TableSource,
    ) -> Result<Lent, LendError> {
        let (first, count) = (self.first(), self.pages());
        let whole = range.pages();
        let Some(pages) = whole.sub_range(0, count) else {
            let reason = MapError::DoesNotFit { range: whole, offset: 0, frames: count };
            return Err(LendError { reason, block: self, range });
        };
        let mapped = table.map_consecutive(&mut range, 0, (first, count), attributes, tables);
        if let Err(reason) = mapped {
            // Cannot fail: these pages were mapped a moment ago. Nobody has used them.
            let _removal = table.unmap_part(&mut range, 0, reason.mapped());
            return Err(LendError { reason, block: self, range });
        }
        let machine = table.machine();
        machine.note(LENDING, Edge::Lending, first.base(), pages.bytes());
        machine.clean_and_invalidate(pages, first);
        machine.barrier();
        machine.note(LENDING, Edge::Lent, first.base(), pages.bytes());
        Ok(Lent { range, pages, block: self.0 })
    }
}

impl Lent {
    /// The addresses of the block, without guard pages.
    pub const fn pages(&self) -> PageRange {
        self.pages
    }

    /// All addresses that wait with it, guard pages included.
    pub const fn range(&self) -> PageRange {
        self.range.pages()
    }

    /// The first frame.
    pub const fn first(&self) -> Pfn {
        self.block.first()
    }

    /// Ends the mapping. After the flush the block is [`Absent`] again and can be restored.
    #[inline]
    pub fn unmap<M: Machine, L: Locks>(
        self,
        table: &PageTable<M, L>,
    ) -> Unmapped<'_, M, L, Absent> {
        table.machine().note(LENDING, Edge::Returned, self.first().base(), self.pages.bytes());
        table.unmap(self.range, Absent(self.block))
    }
}

/// [`LinearError`] before it is given its block back.
enum Mismatch {
    Outside,
    Unexpected { address: VirtAddr, wanted: u32, found: u32 },
}

impl Mismatch {
    fn with<B>(self, block: B) -> LinearError<B> {
        match self {
            Self::Outside => LinearError::Outside(block),
            Self::Unexpected { address, wanted, found } => {
                LinearError::Unexpected { address, wanted, found, block }
            }
        }
    }
}

impl<M> fmt::Debug for Withdrawn<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawn").field("block", &self.block).finish_non_exhaustive()
    }
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { first, count } => {
                write!(f, "{count} frames from {first} are not in the linear map")
            }
            Self::Occupied { address, descriptor } => {
                write!(f, "{address} is mapped already, by {descriptor:#010x}")
            }
        }
    }
}

impl<B> fmt::Display for LinearError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(_) => f.write_str("the block is not in the linear map"),
            Self::Unexpected { address, wanted, found, .. } => {
                write!(f, "linear entry of {address} is {found:#010x} and not {wanted:#010x}")
            }
        }
    }
}

/// What [`LinearError`] says, without the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearFault {
    /// The block does not lie in the window.
    Outside,
    /// A frame of a list does not lie in the window.
    NoAddress {
        /// The frame.
        frame: Pfn,
    },
    /// An entry is not what it should be.
    Unexpected {
        /// The address that the slot translates.
        address: VirtAddr,
        /// What it should hold.
        wanted: u32,
        /// What it holds.
        found: u32,
    },
}

impl<B> LinearError<B> {
    /// The fault, and the block that comes back.
    pub fn into_parts(self) -> (LinearFault, B) {
        match self {
            Self::Outside(block) => (LinearFault::Outside, block),
            Self::Unexpected { address, wanted, found, block } => {
                (LinearFault::Unexpected { address, wanted, found }, block)
            }
        }
    }
}

impl fmt::Display for LinearFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Outside => LinearError::Outside(()).fmt(f),
            Self::NoAddress { frame } => write!(f, "frame {frame} is not in the linear map"),
            Self::Unexpected { address, wanted, found } => {
                LinearError::Unexpected { address, wanted, found, block: () }.fmt(f)
            }
        }
    }
}
