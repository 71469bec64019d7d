//! The kernel's half of the address space: areas, page tables, frames and the linear map, put together.
//!
//! This is the whole life of a mapping, without hardware: what SoftMachine runs on the host is what the Cortex-A9
//! runs in the kernel. The crate `mm` adds the owners (`VmArea`, `IoMem`) and the one step that no safe code
//! can do, which is to call an owned, mapped range memory.
//!
//! ```text
//!   vmalloc              ioremap              coherent             remove (all of them)
//!   ───────              ───────              ────────             ────────────────────
//!   reserve addresses    check the range      take a block         find by base, check the kind   ┐ one critical
//!   take frames          reserve addresses    zero it              retire: Live → Dying           ┘ section
//!   map                  map                  withdraw it from     unmap: addresses and frames are hidden
//!   publish              publish              the linear map       flush: Dying → Flushed
//!                                             reserve addresses    frames go back
//!                                             map, publish         release: Flushed → Free
//! ```
//!
//! Every step that can fail comes before the area can be found, and every error path gives back what was
//! taken, in reverse order.
//!
//! # Locks
//! Of the written order ([`Class`]) those from the making of tables to frames. Descriptors need none of
//! them: who owns a range writes its descriptors.

mod alias;
mod areas;
mod at_once;
mod bare;
mod change;
mod coherent;
mod coherent_at_hand;
mod contiguous;
mod copy;
mod descriptors;
mod exec;
mod extend;
mod few;
mod fill;
mod huge;
mod ioremap;
mod iounmap;
mod listing;
mod map_ram;
mod memremap;
mod movable;
mod page_array;
mod purge;
mod reach;
mod readers;
mod realloc;
mod registers;
mod registers_at_hand;
mod remove;
mod reserve;
mod scattered;
mod scattered_at_hand;
mod section;
mod sharing;
mod shortage;
mod statics;
mod stream;
mod stream_at_hand;
mod stream_listed;
mod table_memory;
#[cfg(test)]
pub(crate) mod tests;
mod users;
mod vmalloc;
mod vmap;
mod vmap_devices;
mod vmap_large;

pub(crate) use alias::NextRun;
pub use alias::{Alias, IndexChunk, LiveMapping};
pub use areas::{AreaChunk, AreaEntry, AreaPlace};
pub use at_once::{LeftToUnmap, MOST_AT_ONCE};
pub use bare::{BareArea, BareError, MapAreaError, UnmapAreaError};
pub use change::ChangeError;
pub use coherent::{CoherentError, CoherentFreed};
pub use copy::{Access, Span};
pub use exec::{ExecError, SealError};
pub use extend::ExtendError;
pub use fill::FillAreaError;
pub use ioremap::IoRemapError;
pub use listing::{Listed, ListedKind, LiveArea};
pub use map_ram::Ended;
pub use memremap::MemRemapError;
pub use movable::MovablePage;
pub use page_array::ArrayError;
pub(crate) use page_array::address_of;
pub use purge::{BATCH, MOST_WAITING};
pub use realloc::ReallocError;
pub use remove::{FramesError, RemoveError};
pub use reserve::{NoArea, Support};
pub use scattered::{ScatteredError, ScatteredFreed, Viewer};
pub use statics::{MOST_STATIC, StaticError, StaticMapping, StaticRequest};
pub(crate) use stream_listed::Streamable;
pub use table_memory::TableMemory;
pub use users::ShareError;
pub(crate) use users::Shared;
pub use vmalloc::{Fill, Rights, VmallocError, VmallocRequest};
pub use vmap::VmapError;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32};

use crate::addr::{PageRange, Pfn, VirtAddr};
use crate::area::{AreaRecord, AreaSummary};
use crate::contiguous::Contiguous;
use crate::frames::{
    AllocateError, Frame, FrameBlock, FrameOwner, FrameRequest, FreeError, Freed, Pointers,
};
use crate::kmap::Kmap;
use crate::linear_map::LinearMap;
use crate::lock::{Class, Lock, Locks, SharedLock};
use crate::machine::Machine;
use crate::map_ram::MapRam;
use crate::page_table::PageTable;
use crate::slab::PlaceQueue;
use crate::va_space::{CheckError, VaSpace};
use crate::zones::Zones;
use areas::Areas;
use map_ram::write::Ram;
use readers::Readers;
use statics::Statics;

/// The parts that a [`KernelSpace`] is put together from.
#[expect(missing_debug_implementations, reason = "locks and a trait object show nothing")]
pub struct Parts<'s, M: Machine, L: Locks> {
    /// The live tables.
    pub table: PageTable<M, L>,
    /// The vmalloc window's addresses.
    pub space: VaSpace<'s, AreaPlace<'s>>,
    /// The blocks of short-lived mappings, of the same window.
    pub map_ram: MapRam<'s>,
    /// RAM.
    pub zones: Zones<'s, L>,
    /// The linear map of low memory.
    pub linear: LinearMap<M>,
    /// Addresses for what is not in it.
    pub kmap: Kmap<M>,
    /// Pointers to the records of the frames of `zones`, which nobody can write to.
    pub pointers: Pointers<'s>,
    /// Memory for area records, and an ear for oddities.
    pub support: &'s dyn Support<'s>,
}

/// The kernel's address space and the memory behind it.
///
/// All methods take `&self`, from any CPU. Unless a method says otherwise it may be called with interrupts on or
/// off, holds no lock when it returns, and does not sleep.
#[expect(missing_debug_implementations, reason = "it is the whole kernel; listings show its parts")]
pub struct KernelSpace<'s, M: Machine, L: Locks> {
    table: PageTable<M, L>,
    window: PageRange,
    areas: L::SharedLock<Areas<'s>>,
    /// Who copies from or to areas.
    readers: Readers,
    /// Dying areas whose memory is not freed yet.
    deferred: L::Lock<PlaceQueue<'s, AreaRecord>>,
    /// How many those are, or were a moment ago.
    waiting: AtomicU32,
    large_forbidden: AtomicBool,
    /// Whether ioremap shares when it is not said.
    shares: AtomicBool,
    /// [`MOST_AT_ONCE`] pages, or all that RAM has.
    most_at_once: u32,
    map_ram: MapRam<'s>,
    tables: TableMemory<L>,
    /// What is mapped for good.
    statics: Statics,
    zones: Zones<'s, L>,
    /// The frames of `zones`, as whoever maps page pointers asks for them.
    ram: Ram<'s>,
    linear: LinearMap<M>,
    kmap: Kmap<M>,
    /// Whose is the slot of it that is kept back.
    last_address: L::Lock<()>,
    /// The page arrays of whatever is one block.
    pointers: Pointers<'s>,
    support: &'s dyn Support<'s>,
    /// Memory that is lent until buffers ask for it (S101).
    contiguous: Option<&'s Contiguous<'s, L>>,
}

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Puts the parts together. No area exists yet.
    pub fn new(parts: Parts<'s, M, L>) -> Self {
        Self {
            window: parts.space.range(),
            table: parts.table,
            areas: Lock::new(Class::Areas, Areas::new(parts.space)),
            readers: Readers::new(),
            deferred: Lock::new(Class::DeferredFrees, PlaceQueue::new()),
            waiting: AtomicU32::new(0),
            large_forbidden: AtomicBool::new(false),
            shares: AtomicBool::new(false),
            most_at_once: MOST_AT_ONCE.min(parts.zones.total()),
            map_ram: parts.map_ram,
            tables: TableMemory::new(),
            statics: Statics::NONE,
            ram: Ram::new(*parts.zones.table()),
            zones: parts.zones,
            linear: parts.linear,
            kmap: parts.kmap,
            last_address: Lock::new(Class::LastAddress, ()),
            pointers: parts.pointers,
            support: parts.support,
            contiguous: None,
        }
    }

    /// The live page tables, for lookups and audits.
    pub const fn table(&self) -> &PageTable<M, L> {
        &self.table
    }

    /// RAM.
    pub const fn zones(&self) -> &Zones<'s, L> {
        &self.zones
    }

    /// The memory of second-level tables.
    pub const fn table_memory(&self) -> &TableMemory<L> {
        &self.tables
    }

    /// The blocks of short-lived mappings.
    pub const fn map_ram_blocks(&self) -> &MapRam<'s> {
        &self.map_ram
    }

    /// The linear map.
    pub const fn linear(&self) -> &LinearMap<M> {
        &self.linear
    }

    /// A pointer to each frame's record.
    pub const fn pointers(&self) -> Pointers<'_> {
        self.pointers
    }

    /// Takes 2^`order` zeroed frames of low memory.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    pub fn zeroed_frames(
        &self,
        order: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        self.zeroed_frames_from(FrameRequest::LOW, order, owner)
    }

    /// As [`KernelSpace::zeroed_frames`], of those that will do for `request`, which asks for low memory.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    pub fn zeroed_frames_from(
        &self,
        request: FrameRequest,
        order: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        let block = if request == FrameRequest::LOW {
            self.zones.allocate(order, owner)?
        } else {
            self.zones.allocate_from(request, order, owner)?
        };
        self.zero_low_frames(block.first(), block.pages());
        Ok(block)
    }

    /// Gives back, by number, the block of 2^`order` frames that `owner` has at `frame`: the way of callers that keep no
    /// handle.
    ///
    /// # Errors
    /// [`FreeError`]; nothing has changed.
    pub fn free_frames_at(
        &self,
        _authority: M::Authority,
        frame: Pfn,
        order: u32,
        owner: FrameOwner,
    ) -> Result<(), FreeError> {
        L::memory_goes(|| self.linear_memory(Some(frame), order));
        self.zones.free_at(frame, order, owner)
    }

    /// Where 2^`order` frames from `first` lie in the linear map.
    fn linear_memory(&self, first: Option<Pfn>, order: u32) -> Option<(VirtAddr, u32)> {
        let pages = self.linear.pages_of(first?, 1_u32.checked_shl(order)?)?;
        Some((pages.start(), pages.bytes()))
    }

    /// As [`KernelSpace::free_frames_at`], of the block whose first frame's record is at the address `record`, if that is
    /// quickly done. Otherwise nothing has changed, and [`KernelSpace::free_frames_at`] frees it or says what is wrong.
    #[inline(always)]
    pub fn give_back_frames(
        &self,
        _authority: M::Authority,
        record: usize,
        order: u32,
        owner: FrameOwner,
    ) -> Freed {
        L::memory_goes(|| self.memory_at_record(record, order));
        self.zones.give_back(record, order, owner)
    }

    /// Where the 2^`order` frames whose first record is at the address `record` lie in the linear map, if they do.
    pub fn memory_at_record(&self, record: usize, order: u32) -> Option<(VirtAddr, u32)> {
        self.linear_memory(self.zones.table().frame_at_record(record), order)
    }

    /// The live area whose first byte is `base` (S13). The result is a copy, valid for as long as the caller keeps the
    /// area from being removed.
    pub fn find(&self, base: VirtAddr) -> Option<AreaSummary> {
        self.areas.look(|areas| areas.find(base).map(AreaRecord::summary))
    }

    /// Runs `visit` on the record of the live area whose first byte is `base`, under the lock of areas.
    pub fn with_area<R>(&self, base: VirtAddr, visit: impl FnOnce(&AreaRecord) -> R) -> Option<R> {
        self.areas.look(|areas| areas.find(base).map(visit))
    }

    /// The live area that `address` lies in; a guard page belongs to none (S88).
    pub fn find_containing(&self, address: VirtAddr) -> Option<AreaSummary> {
        self.areas.look(|areas| areas.find_containing(address))
    }

    /// As [`KernelSpace::with_area`], of the live area that `address` lies in (S88): found and visited in one look.
    pub fn with_area_containing<R>(
        &self,
        address: VirtAddr,
        visit: impl FnOnce(&AreaRecord) -> R,
    ) -> Option<R> {
        self.areas.look(|areas| areas.space.find_containing(address).map(|(_, place)| visit(place)))
    }

    /// The first live area that begins at or after `address`; with the page after its guard as the next `address` this
    /// lists all areas in order, holding the lock for one step at a time.
    pub fn next_area(&self, address: VirtAddr) -> Option<AreaSummary> {
        self.areas.look(|areas| areas.next_area(address))
    }

    /// The live area that `address` lies in, its guard included, or else the nearest: for reports (S113).
    ///
    /// # Errors
    /// [`AreasBusy`]: whoever reports a fault cannot wait for a lock that the faulting code may hold.
    pub fn nearest_area(&self, address: VirtAddr) -> Result<Option<AreaSummary>, AreasBusy> {
        self.areas.try_look(|areas| areas.nearest_area(address)).ok_or(AreasBusy)
    }

    /// Counts for listings and the ledger: live areas, and addresses that are taken.
    pub fn area_counts(&self) -> AreaCounts {
        self.areas.look(Areas::counts)
    }

    /// Checks the books of the vmalloc window against themselves, under the lock of areas. O(n) in its pages.
    ///
    /// # Errors
    /// The first [`CheckError`] found.
    pub fn check_books(&self) -> Result<(), CheckError> {
        self.areas.look(|areas| areas.space.check())
    }

    /// As [`KernelSpace::check_books`], but for what is said of addresses above all areas: for those who check after each step.
    ///
    /// # Errors
    /// The first [`CheckError`] found.
    pub fn check_books_in_use(&self) -> Result<(), CheckError> {
        self.areas.look(|areas| areas.space.check_in_use())
    }

    /// The record of the frame behind `address`, if that lies in the vmalloc window, is mapped, and leads to RAM (S88). Takes
    /// no lock: it is the caller who keeps the mapping from going.
    #[inline(always)]
    pub fn frame_behind(&self, address: VirtAddr) -> Option<&'s Frame> {
        if !self.window.contains(address) {
            return None;
        }
        match self.table.small_page(address) {
            Some(frame) => self.zones.table().frame(frame),
            None => self.frame_behind_other(address),
        }
    }

    /// When it is no small page.
    #[cold]
    fn frame_behind_other(&self, address: VirtAddr) -> Option<&'s Frame> {
        self.zones.table().frame(self.table.translate(address)?.physical.pfn())
    }

    /// The pages of the vmalloc window. Takes no lock.
    pub const fn window(&self) -> PageRange {
        self.window
    }
}

/// The set of areas cannot be asked just now: its lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreasBusy;

impl fmt::Display for AreasBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock of areas is held")
    }
}

impl core::error::Error for AreasBusy {}

/// How much of the vmalloc window is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaCounts {
    /// Records in use, those of areas being made included.
    pub records: u32,
    /// Of those, how many are of removed areas whose descriptors C callers have not freed.
    pub removed: u32,
    /// Records that there is memory for.
    pub record_capacity: u32,
    /// Areas in whatever state.
    pub areas: u32,
    /// Pages of addresses that are not free, guards included.
    pub pages_taken: u32,
    /// Pages in the largest hole.
    pub largest_hole: u32,
}
