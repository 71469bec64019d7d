//! What DMA needs to know of a device.

use kerncore::addr::{DmaAddr, PhysAddr};
use kerncore::coherent::Coherency;

/// A bus master.
#[derive(Debug)]
pub struct Device {
    name: &'static str,
    coherency: Coherency,
}

impl Device {
    /// A device that does not snoop the processor's caches, as every device of the board.
    pub const fn new(name: &'static str) -> Self {
        Self { name, coherency: Coherency::NonCoherent }
    }

    /// A device that snoops.
    pub const fn coherent(name: &'static str) -> Self {
        Self { name, coherency: Coherency::Coherent }
    }

    /// Its name, for messages.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it snoops.
    pub const fn coherency(&self) -> Coherency {
        self.coherency
    }

    /// The address at which it sees `physical`: the same, on a board without an IOMMU.
    #[expect(
        clippy::unused_self,
        reason = "which device it is matters as soon as one has an IOMMU"
    )]
    pub const fn dma_address(&self, physical: PhysAddr) -> DmaAddr {
        DmaAddr::new(physical.raw())
    }

    /// What lies at `address` as it sees it.
    #[expect(
        clippy::unused_self,
        reason = "which device it is matters as soon as one has an IOMMU"
    )]
    pub const fn physical_address(&self, address: DmaAddr) -> PhysAddr {
        PhysAddr::new(address.raw())
    }
}
