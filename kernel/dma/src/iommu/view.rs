//! Where a device sees memory: its view of what lies on the bus, made, looked up and ended.

use core::iter;

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, pages_for};
use kerncore::attributes::MemoryType;
use kerncore::coherent::Coherency;
use kerncore::descriptor::PageSize;
use kerncore::iommu::{DomainMapError, Grant, Iova, IovaError};

use super::Shared;
use crate::streaming::UnmapError;

/// The pages that `bytes` from `offset` in the first of them lie in.
pub(super) const fn pages_of(offset: u32, bytes: u32) -> u32 {
    // Of what lies in RAM: less than 4 GiB with the offset.
    pages_for(bytes.saturating_add(offset))
}

/// The run of frames that `bytes` from `first` on lie in.
pub(crate) const fn run_of((first, bytes): (PhysAddr, u32)) -> (Pfn, u32) {
    (first.pfn(), pages_of(first.page_offset(), bytes))
}

impl Shared {
    /// Lets the device see the `bytes` from `first` on: where it does. Any context.
    ///
    /// The authority promises that the memory is the device's from now on, to do what `grant` says.
    pub(crate) fn show(
        &self,
        authority: Authority,
        (first, bytes): (PhysAddr, u32),
        grant: Grant,
        memory: MemoryType,
    ) -> Result<DmaAddr, DomainMapError> {
        let offset = first.page_offset();
        let run = iter::once(run_of((first, bytes)));
        self.show_runs(authority, (run, offset), grant, memory)
    }

    /// As [`Shared::show`], of runs of frames, one behind the other: where it sees what begins `offset` bytes into the first.
    pub(crate) fn show_runs(
        &self,
        authority: Authority,
        (runs, offset): (impl Iterator<Item = (Pfn, u32)> + Clone, u32),
        grant: Grant,
        memory: MemoryType,
    ) -> Result<DmaAddr, DomainMapError> {
        let iova = self.domain.map(authority, runs, grant, memory)?;
        Ok(DmaAddr::new(iova.leak().raw() | offset))
    }

    /// Ends what the device sees of `bytes` from `dma` on: when this returns, it sees nothing there. Any context.
    ///
    /// The authority promises that nobody else ends it.
    pub(crate) fn hide(
        &self,
        authority: Authority,
        dma: DmaAddr,
        bytes: u32,
    ) -> Result<(), IovaError> {
        self.claim(authority, dma, bytes).map(|iova| {
            self.hide_all(iova);
        })
    }

    /// The right to what the device sees of just `bytes` from `dma` on. The authority is [`Shared::hide`]'s.
    pub(crate) fn claim(
        &self,
        authority: Authority,
        dma: DmaAddr,
        bytes: u32,
    ) -> Result<Iova, IovaError> {
        let offset = dma.raw() % PAGE_SIZE;
        let start = DmaAddr::new(dma.raw() - offset);
        self.domain.claim(authority, start, pages_of(offset, bytes))
    }

    /// [`Shared::hide`] of all of `iova`. Says how many entries of somebody else's reach into it, by which the device sees what it saw, or
    /// anything: none, as a rule.
    pub(crate) fn hide_all(&self, iova: Iova) -> u32 {
        self.hide_all_and(iova, || ())
    }

    /// The same; `forget` is done as the addresses become free, under their lock.
    pub(super) fn hide_all_and(&self, iova: Iova, forget: impl FnOnce()) -> u32 {
        let start = iova.start();
        let ((), removal) = self.domain.unmap(iova, ()).flush_and(forget);
        if removal.oddities != 0 {
            log::error!("DMA: device addresses from {start}: {removal:?}");
        }
        removal.left_alone
    }

    /// Whether just `bytes` are seen from `dma` on.
    pub(crate) fn find(&self, dma: DmaAddr, bytes: u32) -> Result<(), IovaError> {
        let offset = dma.raw() % PAGE_SIZE;
        self.domain.find(DmaAddr::new(dma.raw() - offset), pages_of(offset, bytes))
    }

    /// Why `bytes` from `dma` on do not end by what was named of them: because there are other pieces of memory, or nothing of that size.
    #[cold]
    #[inline(never)]
    pub(crate) fn other_pieces(&self, dma: DmaAddr, bytes: u32) -> UnmapError {
        match self.find(dma, bytes) {
            Ok(()) => UnmapError::OtherPieces { dma, bytes },
            Err(error) => UnmapError::Iommu(error),
        }
    }

    /// Where `dma` leads on the bus, and how many of `bytes` from there on lie there in a row.
    #[cold]
    #[inline(never)]
    pub(crate) fn stretch(&self, dma: DmaAddr, bytes: u32) -> Option<(PhysAddr, u32)> {
        let left = |at: DmaAddr, size: PageSize| size.bytes() - at.raw() % size.bytes();
        let first = self.domain.translate(dma)?;
        let mut length = left(dma, first.size);
        while length < bytes {
            let at = DmaAddr::new(dma.raw().checked_add(length)?);
            match self.domain.translate(at) {
                Some(next) if Some(next.physical) == first.physical.checked_add(length) => {
                    length = length.saturating_add(left(at, next.size));
                }
                _ => break,
            }
        }
        Some((first.physical, length.min(bytes)))
    }

    /// Where `dma` leads on the bus.
    pub(crate) fn on_bus(&self, dma: DmaAddr) -> Option<PhysAddr> {
        self.domain.translate(dma).map(|found| found.physical)
    }

    /// As [`Shared::show`], of `pages` frames, one behind the other: where it sees what begins `offset` bytes into the first.
    #[inline(always)]
    pub(crate) fn show_pages(
        &self,
        authority: Authority,
        (frames, pages, offset): (impl Iterator<Item = Option<Pfn>>, u32, u32),
        grant: Grant,
        memory: MemoryType,
    ) -> Result<DmaAddr, DomainMapError> {
        let iova = self.domain.map_pages(authority, frames, pages, grant, memory)?;
        Ok(DmaAddr::new(iova.leak().raw() | offset))
    }
}

/// The type that a device sees memory by that the processor has cached: its own where it snoops.
pub(crate) const fn type_for(coherency: Coherency) -> MemoryType {
    match coherency {
        Coherency::Coherent => MemoryType::NormalWriteBack,
        Coherency::NonCoherent => MemoryType::NormalNonCacheable,
    }
}
