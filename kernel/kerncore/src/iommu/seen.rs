//! A buffer of frames that need not be adjacent, contiguous to the processor and to a device behind an IOMMU, each by addresses of its
//! own (S79, S109); and the only way out of it.
//!
//! ```text
//!   LentList ──show──▶ SeenList ──unmap──▶ UnmappedSeen ──flush──▶ StillSeen ──unmap──▶ UnmappedIova ──flush──▶ AbsentList
//!   the processor's    both see it         TLBs may remember       the device's alone   IOTLBs may remember     nobody's: restore, free
//! ```
//! Each step takes the one before it by value, and the frames come out of the last alone: they cannot be given back while a device
//! sees them, nor be hidden from the device while the processor does (S81).

use crate::addr::{DmaAddr, PageRange, Pfn, PhysAddr};
use crate::attributes::{Attributes, MemoryType};
use crate::coherent::Coherency;
use crate::frames::{FrameList, FrameTable};
use crate::iommu::domain::{Domain, Iova, UnmappedIova};
use crate::iommu::machine::Iotlb;
use crate::iommu::{DomainMapError, Grant};
use crate::linear_map::list::{AbsentList, LentList};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{PageTable, Released, Removal, Unmapped};

/// Where a device sees a buffer: what must be said of one to free or to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenAt {
    /// Which domain's device: where that has its first-level table.
    pub root: PhysAddr,
    /// The buffer's first device address.
    pub start: DmaAddr,
    /// Whether that device snoops.
    pub coherency: Coherency,
}

impl SeenAt {
    /// The type that every mapping of the buffer must have (S97).
    pub const fn memory(self) -> MemoryType {
        memory_for(self.coherency)
    }
}

/// The type of memory for a device that snoops, or does not.
pub(super) const fn memory_for(coherency: Coherency) -> MemoryType {
    match coherency {
        Coherency::Coherent => MemoryType::NormalWriteBack,
        Coherency::NonCoherent => MemoryType::NormalNonCacheable,
    }
}

/// What the processor's entries promise of a buffer for such a device.
pub(crate) const fn attributes_for(coherency: Coherency) -> Attributes {
    match coherency {
        Coherency::Coherent => Attributes::KERNEL_DATA,
        Coherency::NonCoherent => Attributes::WRITE_COMBINE,
    }
}

/// A domain, and whether the device snoops, in one word: a record has no room for two. The first is the address of a table, whose
/// lowest bit is never set.
#[derive(Clone, Copy, Debug)]
pub(super) struct View(u32);

impl View {
    const SNOOPED: u32 = 1;

    pub(super) const fn new(root: PhysAddr, coherency: Coherency) -> Self {
        match coherency {
            Coherency::Coherent => Self(root.raw() | Self::SNOOPED),
            Coherency::NonCoherent => Self(root.raw()),
        }
    }

    pub(super) const fn root(self) -> PhysAddr {
        PhysAddr::new(self.0 & !Self::SNOOPED)
    }

    pub(super) const fn coherency(self) -> Coherency {
        if self.0 & Self::SNOOPED == 0 { Coherency::NonCoherent } else { Coherency::Coherent }
    }
}

/// Frames that the processor and a device see.
#[derive(Debug)]
#[must_use = "a dropped list leaks its frames, and the addresses of both sides"]
pub struct SeenList {
    pub(super) lent: LentList,
    pub(super) start: DmaAddr,
    pub(super) view: View,
}

/// A buffer whose entries the processor's tables do not have any more, and whose translations may linger in TLBs. Dropped, it leaks.
#[must_use = "only `flush` goes on"]
pub struct UnmappedSeen<'t, M: Machine, L: Locks> {
    unmapped: Unmapped<'t, M, L, AbsentList>,
    iova: Iova,
}

/// A buffer that only the device sees.
///
/// There is no way from here to the frames but past the device:
///
/// ```compile_fail
/// fn frames(seen: kerncore::iommu::StillSeen) -> kerncore::linear_map::list::AbsentList {
///     let kerncore::iommu::StillSeen { absent, .. } = seen;
///     absent
/// }
/// ```
#[derive(Debug)]
#[must_use = "only `unmap` and its flush give the frames back"]
pub struct StillSeen {
    pub(super) absent: AbsentList,
    pub(super) iova: Iova,
}

/// What [`LentList::show`] gives back when there is no view.
#[derive(Debug)]
pub(crate) struct NotShown {
    pub(crate) error: DomainMapError,
    pub(crate) lent: LentList,
}

impl LentList {
    /// Lets the devices of `domain` see the frames, in their order, at addresses that follow one another.
    pub(crate) fn show<M: Machine, T: Iotlb, L: Locks>(
        self,
        frames: &FrameTable<'_>,
        domain: &Domain<'_, '_, M, T, L>,
        coherency: Coherency,
    ) -> Result<SeenList, NotShown> {
        let runs = Runs::of(&self, frames);
        match domain.map_own(runs, Grant::ReadWrite, memory_for(coherency)) {
            Ok(iova) => {
                let (start, root) = iova.forget();
                Ok(SeenList { lent: self, start, view: View::new(root, coherency) })
            }
            Err(error) => Err(NotShown { error, lent: self }),
        }
    }
}

impl SeenList {
    /// The processor's addresses.
    pub const fn pages(&self) -> PageRange {
        self.lent.pages()
    }

    /// The frames, in the order of both sides' addresses.
    pub const fn list(&self) -> &FrameList {
        self.lent.list()
    }

    /// Where the device sees it.
    pub const fn at(&self) -> SeenAt {
        let Self { start, view, .. } = self;
        SeenAt { root: view.root(), start: *start, coherency: view.coherency() }
    }

    /// What the processor's entries promise.
    pub const fn attributes(&self) -> Attributes {
        attributes_for(self.view.coherency())
    }

    /// The first `pages` of it in runs of adjacent frames, as long as can be.
    pub fn runs<'a>(
        &'a self,
        frames: &'a FrameTable<'_>,
        pages: u32,
    ) -> impl Iterator<Item = (Pfn, u32)> + Clone + 'a {
        Runs { left: pages.min(self.list().pages()), ..Runs::of(&self.lent, frames) }
    }

    /// Takes the view of the device away that has never been told of it; the processor's stays.
    pub(crate) fn hide<M: Machine, T: Iotlb, L: Locks>(
        self,
        domain: &Domain<'_, '_, M, T, L>,
    ) -> LentList {
        let Self { lent, start, view } = self;
        let iova = Iova::again(start, lent.pages().count(), view.root());
        let (lent, removal) = domain.unmap(iova, lent).flush();
        debug_assert_eq!(removal.oddities, 0, "mapped a moment ago: {removal:?}");
        lent
    }

    /// Takes the processor's view away.
    pub fn unmap<'t, M: Machine, L: Locks>(
        self,
        frames: &FrameTable<'_>,
        table: &'t PageTable<M, L>,
    ) -> UnmappedSeen<'t, M, L> {
        let Self { lent, start, view } = self;
        if view.coherency() == Coherency::NonCoherent {
            lent.note_returned(frames, table.machine());
        }
        let iova = Iova::again(start, lent.pages().count(), view.root());
        UnmappedSeen { unmapped: lent.unmap(table), iova }
    }
}

impl<M: Machine, L: Locks> UnmappedSeen<'_, M, L> {
    /// Waits until no TLB remembers the processor's addresses, which are free then.
    pub fn flush(self) -> (StillSeen, OwnedRange, Removal) {
        let Released { range, payload: absent, removal } = self.unmapped.flush();
        (StillSeen { absent, iova: self.iova }, range, removal)
    }
}

impl StillSeen {
    /// Takes the device's view away, which is `domain`'s. The frames come out of its flush.
    ///
    /// # Panics
    /// If it is another domain's.
    pub fn unmap<'d, 's, M: Machine, T: Iotlb, L: Locks>(
        self,
        domain: &'d Domain<'_, 's, M, T, L>,
    ) -> UnmappedIova<'d, 's, M, T, L, AbsentList> {
        let Self { absent, iova } = self;
        domain.unmap(iova, absent)
    }
}

/// Frames by runs that are as long as can be: blocks that adjoin are one.
#[derive(Clone)]
struct Runs<B> {
    blocks: B,
    /// The run that is being gathered.
    next: Option<(Pfn, u32)>,
    left: u32,
}

impl Runs<()> {
    fn of<'a>(
        lent: &'a LentList,
        frames: &FrameTable<'a>,
    ) -> Runs<impl Iterator<Item = (Pfn, u32)> + Clone + 'a> {
        let mut blocks = lent.list().blocks(frames).map(|(first, order)| (first, 1 << order));
        let next = blocks.next();
        Runs { blocks, next, left: lent.list().pages() }
    }
}

impl<B: Iterator<Item = (Pfn, u32)>> Iterator for Runs<B> {
    type Item = (Pfn, u32);

    fn next(&mut self) -> Option<(Pfn, u32)> {
        let (first, mut count) = self.next.take()?;
        for (block, pages) in self.blocks.by_ref() {
            if first.checked_add(count) != Some(block) {
                self.next = Some((block, pages));
                break;
            }
            count += pages;
        }
        let count = count.min(self.left);
        self.left -= count;
        (count != 0).then_some((first, count))
    }
}

impl<M: Machine, L: Locks> core::fmt::Debug for UnmappedSeen<'_, M, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UnmappedSeen").field("iova", &self.iova).finish_non_exhaustive()
    }
}
