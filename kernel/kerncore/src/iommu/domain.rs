//! One domain: its addresses, its tables, and its life.
//!
//! ```text
//!   map    addresses ──▶ entries (tables made) ──▶ barrier ──▶ Iova
//!             ◀─ each undone by whoever fails behind it ─┘
//!   claim  address ──▶ a run that is just that, and nobody else's to end ──▶ Iova
//!   unmap  Iova, payload ──▶ UnmappedIova: entries cleared ──flush──▶ IOTLB forgets ──▶ payload, and the addresses are free
//! ```
//!
//! # Locks
//! That of the addresses has none inside but what whoever may end a mapping asks under it ([`Domain::unmap_page_at_hand`]), of a later
//! class; that of table memory stands where the kernel's does, inside the making of tables and outside the frames. No lock is held while
//! entries are written: whoever has an [`Iova`] owns them.

use core::fmt;

use crate::addr::{DmaAddr, PAGE_SIZE, PAGES_PER_SECTION, PageRange, Pfn, PhysAddr, VirtAddr};
use crate::attributes::MemoryType;
use crate::descriptor::{SLOT_SIZE, l1};
use crate::failure::Point;
use crate::frames::{FrameBlock, FrameOwner, Freed, order_for};
use crate::iommu::Grant;
use crate::iommu::error::{CreateError, DomainMapError, IovaError};
use crate::iommu::iova::{IovaSpace, IovaUse, window};
use crate::iommu::machine::{DomainMachine, Iotlb};
use crate::iommu::tables::DomainTables;
use crate::kernel_space::KernelSpace;
use crate::lock::{Class, Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{
    MapError, PageTable, Parked, Released, Removal, Translation, UnmappedEntries,
};
use crate::pool::Word;

/// The right to a run of addresses of one domain, and what is mapped there.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped Iova leaks its addresses"]
pub struct Iova {
    pub(super) range: OwnedRange,
    /// Where its domain's first-level table lies.
    root: PhysAddr,
}

impl Iova {
    /// The first address.
    pub const fn start(&self) -> DmaAddr {
        DmaAddr::new(self.range.start().raw())
    }

    /// How many pages.
    pub const fn pages(&self) -> u32 {
        self.range.count()
    }

    /// Where it begins, and in which domain, for a buffer that knows how many pages it has ([`super::SeenList`]).
    pub(super) const fn forget(self) -> (DmaAddr, PhysAddr) {
        (self.start(), self.root)
    }

    /// What [`Iova::forget`] took apart, and nobody has put together since.
    pub(super) const fn again(start: DmaAddr, pages: u32, root: PhysAddr) -> Self {
        let first = start.raw() / PAGE_SIZE;
        Self { range: OwnedRange::mint(PageRange::trusted(first, pages)), root }
    }

    /// Gives the right up, for callers who come back with the address alone: the first address.
    pub const fn leak(self) -> DmaAddr {
        self.start()
    }
}

/// Device addresses, and where they lead.
///
/// All methods take `&self`, from any CPU and in any context but where it is said; none holds a lock when it returns.
pub struct Domain<'k, 's, M: Machine, T: Iotlb, L: Locks> {
    pub(super) kernel: &'k KernelSpace<'s, M, L>,
    pub(super) table: PageTable<DomainMachine<M, T>, L>,
    pub(super) iovas: L::Lock<IovaSpace<'s>>,
    pub(super) tables: DomainTables<L>,
    /// Never given out: `iovas` keeps account of what is.
    _whole: OwnedRange,
    /// The frames of the first-level table; gone only while the domain dies.
    root: Option<FrameBlock>,
}

/// Addresses that are mapped no more, and may linger in an IOTLB. Dropped, it leaks them and what waits with them.
#[must_use = "only `flush` gives the addresses and what waits with them back"]
pub struct UnmappedIova<'d, 's, M: Machine, T: Iotlb, L: Locks, P> {
    entries: UnmappedEntries<'d, DomainMachine<M, T>, L, P>,
    iovas: &'d L::Lock<IovaSpace<'s>>,
}

/// Slots of a first-level table that translates `window`: of the lower half, or of all addresses.
const fn slots_for(window: PageRange) -> u32 {
    const HALF: u32 = l1::TABLE_ALIGNMENT / SLOT_SIZE;
    if window.end() <= HALF * PAGES_PER_SECTION { HALF } else { 2 * HALF }
}

impl<'k, 's, M: Machine + Clone, T: Iotlb, L: Locks> Domain<'k, 's, M, T, L> {
    /// The pages of a window of `bytes` from `base`, for [`Domain::new`] and [`IovaSpace::words_for`].
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn window_of(base: DmaAddr, bytes: u32) -> Result<PageRange, CreateError> {
        window(base, bytes)
    }

    /// A domain with nothing mapped in `window`, whose translations `iotlb` remembers, and whose bitmaps lie in `words`
    /// ([`IovaSpace::words_for`]). Where one may sleep.
    ///
    /// # Errors
    /// [`CreateError`]; nothing was taken.
    pub fn new(
        kernel: &'k KernelSpace<'s, M, L>,
        iotlb: T,
        window: PageRange,
        words: &'s mut [Word],
    ) -> Result<Self, CreateError> {
        L::might_sleep("making an IOMMU domain");
        let slots = slots_for(window);
        let order = order_for(slots * SLOT_SIZE / PAGE_SIZE);
        let root = kernel.zeroed_frames(order, FrameOwner::PageTable);
        let root = root.map_err(CreateError::Frames)?;
        let machine = kernel.table().machine().clone();
        // The walker may not look into the cache (S16a).
        machine.clean_descriptors(root.first().base(), slots);
        machine.barrier();
        let machine = DomainMachine { machine, iotlb };
        let (table, whole) = PageTable::new(machine, root.first().base(), window);
        let iovas = match IovaSpace::new(window, words) {
            Ok(iovas) => iovas,
            Err(error) => {
                let freed = kernel.zones().free(root);
                debug_assert!(freed.is_ok(), "taken above: {freed:?}");
                return Err(error);
            }
        };
        let iovas = Lock::new(Class::DeviceAddresses, iovas);
        let tables = DomainTables::new();
        Ok(Self { kernel, table, iovas, tables, _whole: whole, root: Some(root) })
    }
}

impl<'s, M: Machine, T: Iotlb, L: Locks> Domain<'_, 's, M, T, L> {
    /// Maps `runs` of consecutive frames, one behind the other, for a device that may do there what `grant` says, as memory of the
    /// type `memory`. Scattered frames are contiguous to it. The authority promises that they are the caller's to show for as long as
    /// the mapping stands: nobody else refers to what a device may write, or is writing what it may read.
    ///
    /// ```compile_fail
    /// # use kerncore::{addr::Pfn, attributes::MemoryType, iommu::{Domain, Grant}, iommu::machine::Iotlb, lock::Locks, machine::Machine};
    /// fn anybodys<M: Machine, T: Iotlb, L: Locks>(domain: &Domain<'_, '_, M, T, L>, frame: Pfn) {
    ///     let run = core::iter::once((frame, 1));
    ///     let _iova = domain.map(run, Grant::ReadWrite, MemoryType::NormalWriteBack);
    /// }
    /// ```
    ///
    /// # Errors
    /// [`DomainMapError`]; nothing was taken.
    #[inline(always)]
    pub fn map(
        &self,
        _authority: M::Authority,
        runs: impl Iterator<Item = (Pfn, u32)> + Clone,
        grant: Grant,
        memory: MemoryType,
    ) -> Result<Iova, DomainMapError> {
        self.map_own(runs, grant, memory)
    }

    /// As [`Domain::map`], of frames that the caller holds.
    pub(super) fn map_own(
        &self,
        runs: impl Iterator<Item = (Pfn, u32)> + Clone,
        grant: Grant,
        memory: MemoryType,
    ) -> Result<Iova, DomainMapError> {
        let (mut pages, mut scattered) = (0_u32, true);
        for (_, count) in runs.clone() {
            pages = pages.saturating_add(count);
            scattered &= count == 1;
        }
        let mut iova = self.reserve(pages).map_err(DomainMapError::Iova)?;
        let mapped = if scattered {
            self.map_each(&mut iova, runs.map(|(frame, _)| frame), grant, memory)
        } else {
            self.map_all(&mut iova, runs, grant, memory)
        };
        match mapped {
            Ok(()) => Ok(iova),
            Err(error) => Err(self.unwind(iova, error)),
        }
    }

    pub(super) fn reserve(&self, pages: u32) -> Result<Iova, IovaError> {
        if L::fails(Point::Addresses) {
            return Err(IovaError::Exhausted { pages, largest: 0, free: 0 });
        }
        self.iovas.with(|iovas| iovas.take(pages)).map(|run| self.right_to(run))
    }

    /// Whether there are addresses for `pages` just now: before anybody takes memory that there are none for.
    ///
    /// # Errors
    /// [`IovaError::Empty`], [`IovaError::Exhausted`].
    pub fn has_room(&self, pages: u32) -> Result<(), IovaError> {
        self.iovas.with(|iovas| {
            let freed = iovas.take(pages).map(|run| iovas.release(run));
            debug_assert_ne!(freed, Ok(Freed::No), "taken a moment ago");
            freed.map(drop)
        })
    }

    /// Of a run that is taken, and that nobody else has the right to.
    const fn right_to(&self, run: PageRange) -> Iova {
        Iova { range: OwnedRange::mint(run), root: self.root() }
    }

    fn map_all(
        &self,
        iova: &mut Iova,
        runs: impl Iterator<Item = (Pfn, u32)>,
        grant: Grant,
        memory: MemoryType,
    ) -> Result<(), (u32, MapError)> {
        let (attributes, source) = (grant.attributes(memory), self.source());
        let mut parked = Parked::new();
        let mut outcome = Ok(());
        let mut offset = 0;
        for run in runs {
            let made = (&source, &mut parked);
            outcome = self.table.map_by_largest(&mut iova.range, offset, run, attributes, made);
            if let Err((mapped, _)) = &mut outcome {
                *mapped += offset;
                break;
            }
            offset += run.1;
        }
        // Also after an error: what is mapped is there to be unmapped.
        self.table.machine().barrier();
        self.tables.keep(&self.table, parked);
        outcome
    }

    pub(super) fn source(&self) -> impl crate::page_table::TableSource {
        self.tables.source(&self.table, self.kernel.zones())
    }

    #[cold]
    pub(super) fn unwind(
        &self,
        mut iova: Iova,
        (mapped, error): (u32, MapError),
    ) -> DomainMapError {
        if mapped != 0 {
            // Mapped a moment ago, so inside.
            let undone = self.table.unmap_entries_part(&mut iova.range, 0, mapped);
            debug_assert!(undone.is_ok(), "{undone:?}");
        }
        let freed = self.iovas.with(|iovas| iovas.release(iova.range.pages()));
        debug_assert_eq!(freed, Freed::Yes, "taken a moment ago");
        DomainMapError::Map(error)
    }

    /// Whether just the `pages` from `start` on are one mapping.
    ///
    /// # Errors
    /// [`IovaError`], if they are not.
    pub fn find(&self, start: DmaAddr, pages: u32) -> Result<(), IovaError> {
        self.iovas.with(|iovas| iovas.find(start, pages)).map(drop)
    }

    /// The right to the `pages` from `start` on, which [`Iova::leak`] gave up, to unmap them. The authority promises that nobody else
    /// does; who tries all the same while they are claimed is refused.
    ///
    /// # Errors
    /// [`IovaError`], if nothing of just that size is mapped there, or somebody has claimed it.
    pub fn claim(
        &self,
        _authority: M::Authority,
        start: DmaAddr,
        pages: u32,
    ) -> Result<Iova, IovaError> {
        self.iovas.with(|iovas| iovas.claim(start, pages)).map(|run| self.right_to(run))
    }

    /// What was claimed of `run` is not ended: another may claim it.
    #[cold]
    #[inline(never)]
    pub(super) fn disclaim(&self, run: PageRange) {
        self.iovas.with(|iovas| iovas.disclaim(run));
    }

    /// Takes the mapping of `iova` away. `payload`, what was mapped as a rule, waits with the addresses for the flush (S81).
    ///
    /// # Panics
    /// If they are another domain's.
    pub fn unmap<P>(&self, iova: Iova, payload: P) -> UnmappedIova<'_, 's, M, T, L, P> {
        assert!(iova.root == self.root(), "addresses of another domain are unmapped");
        let entries = self.table.unmap_entries(iova.range, payload);
        UnmappedIova { entries, iovas: &self.iovas }
    }

    /// Where `address` leads, by the tables; it says nothing of what an IOTLB remembers.
    pub fn translate(&self, address: DmaAddr) -> Option<Translation> {
        self.table.translate(VirtAddr::new(address.raw()))
    }

    /// What is mapped around `address`: where it begins, and how many pages it has.
    pub fn mapping_of(&self, address: DmaAddr) -> Option<PageRange> {
        self.iovas.with(|iovas| iovas.run_of(address))
    }

    /// What is mapped first from `page` of all addresses on: where it begins, and how many pages it has.
    pub fn mapping_from(&self, page: u32) -> Option<PageRange> {
        self.iovas.with(|iovas| iovas.run_from(page))
    }

    /// The addresses that it translates.
    pub const fn window(&self) -> PageRange {
        self.table.window()
    }

    /// Where its first-level table lies.
    pub const fn root(&self) -> PhysAddr {
        self.table.root()
    }

    /// What remembers its translations.
    pub const fn iotlb(&self) -> &T {
        &self.table.machine().iotlb
    }

    /// How full it is. Looks at every page.
    pub fn usage(&self) -> IovaUse {
        self.iovas.with(|iovas| iovas.usage())
    }

    /// Whether nothing is mapped. Looks at every word of its bitmaps.
    pub fn is_unused(&self) -> bool {
        self.iovas.with(|iovas| iovas.is_unused())
    }

    /// Slots of the first-level table.
    pub(super) const fn root_slots(&self) -> u32 {
        slots_for(self.window())
    }

    /// Empties the first level, and makes the IOTLB forget everything, before its tables go.
    fn forget_tables(&self) {
        let machine = self.table.machine();
        let (window, root) = (self.window(), self.root());
        let sections = window.first() / PAGES_PER_SECTION..window.end().div_ceil(PAGES_PER_SECTION);
        let slots = sections.filter_map(|index| root.checked_add(index * SLOT_SIZE));
        for slot in slots.filter(|&slot| machine.read_descriptor(slot) != 0) {
            machine.write_descriptors(slot, core::iter::once(0));
            machine.clean_descriptors(slot, 1);
        }
        machine.barrier();
        machine.iotlb.invalidate_all();
        machine.barrier();
    }
}

impl<M: Machine, T: Iotlb, L: Locks, P> UnmappedIova<'_, '_, M, T, L, P> {
    /// Waits until no IOTLB remembers the addresses, which are free then, and gives what waited with them. If somebody else's entry
    /// reaches into them they stay out of use ([`Removal::left_alone`]), and may be claimed again.
    pub fn flush(self) -> (P, Removal) {
        self.flush_and(|| ())
    }

    /// As [`UnmappedIova::flush`]; `forget` is done in the same moment in which the addresses become free, so that nobody who is given them
    /// meets what was known of them. It is called under the lock of the addresses: it takes none but of a later class.
    pub fn flush_and(self, forget: impl FnOnce()) -> (P, Removal) {
        let Released { range, payload, removal } = self.entries.flush();
        if removal.left_alone == 0 {
            let freed = self.iovas.with(|iovas| {
                forget();
                iovas.release(range.pages())
            });
            debug_assert_eq!(freed, Freed::Yes, "{range:?} was not taken");
        } else {
            self.iovas.with(|iovas| iovas.disclaim(range.pages()));
        }
        (payload, removal)
    }
}

/// 1. the first level is emptied, and no IOTLB remembers anything;
/// 2. the tables go.
///
/// What is still mapped is seen no more; it was never the domain's.
impl<M: Machine, T: Iotlb, L: Locks> Drop for Domain<'_, '_, M, T, L> {
    fn drop(&mut self) {
        self.forget_tables();
        let zones = self.kernel.zones();
        let tables = zones.free_list(self.tables.take());
        let root = self.root.take().map(|root| zones.free(root));
        debug_assert!(
            tables.is_ok() && root.is_none_or(|root| root.is_ok()),
            "tables changed hands"
        );
    }
}

impl<M: Machine, T: Iotlb, L: Locks> fmt::Debug for Domain<'_, '_, M, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("window", &self.window())
            .field("root", &self.root())
            .finish_non_exhaustive()
    }
}

impl<M: Machine, T: Iotlb, L: Locks, P> fmt::Debug for UnmappedIova<'_, '_, M, T, L, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnmappedIova").field(&self.entries).finish()
    }
}
