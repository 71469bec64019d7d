//! Where a device sees memory: its view of what lies on the bus, made, looked up and ended.

use core::iter;

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, pages_for};
use kerncore::attributes::MemoryType;
use kerncore::coherent::Coherency;
use kerncore::iommu::{DomainMapError, Grant, IovaError};

use super::Shared;

/// The pages that `bytes` from `offset` in the first of them lie in.
const fn pages_of(offset: u32, bytes: u32) -> u32 {
    // Of what lies in RAM: less than 4 GiB with the offset.
    pages_for(bytes.saturating_add(offset))
}

impl Shared {
    /// Lets the device see the `bytes` from `first` on: where it does. Any context.
    pub(crate) fn show(
        &self,
        (first, bytes): (PhysAddr, u32),
        grant: Grant,
        memory: MemoryType,
    ) -> Result<DmaAddr, DomainMapError> {
        let offset = first.page_offset();
        let run = (first.pfn(), pages_of(offset, bytes));
        let iova = self.domain.map(iter::once(run), grant, memory)?;
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
        let offset = dma.raw() % PAGE_SIZE;
        let start = DmaAddr::new(dma.raw() - offset);
        let iova = self.domain.claim(authority, start, pages_of(offset, bytes))?;
        let ((), removal) = self.domain.unmap(iova, ()).flush();
        if removal.oddities != 0 {
            log::error!("DMA: device addresses from {start}: {removal:?}");
        }
        Ok(())
    }

    /// Whether just `bytes` are seen from `dma` on.
    pub(crate) fn find(&self, dma: DmaAddr, bytes: u32) -> Result<(), IovaError> {
        let offset = dma.raw() % PAGE_SIZE;
        self.domain.find(DmaAddr::new(dma.raw() - offset), pages_of(offset, bytes))
    }

    /// Where `dma` leads on the bus.
    pub(crate) fn on_bus(&self, dma: DmaAddr) -> Option<PhysAddr> {
        self.domain.translate(dma).map(|found| found.physical)
    }
}

/// The type that a device sees memory by that the processor has cached: its own where it snoops.
pub(crate) const fn type_for(coherency: Coherency) -> MemoryType {
    match coherency {
        Coherency::Coherent => MemoryType::NormalWriteBack,
        Coherency::NonCoherent => MemoryType::NormalNonCacheable,
    }
}
