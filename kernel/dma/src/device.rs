//! What DMA needs to know of a device.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;

use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::coherent::Coherency;
use kerncore::dma_mask::{DmaMask, DmaMasks, MaskError};

/// A bus master.
#[derive(Debug)]
#[repr(C)] // with what the shortest ways ask at the start
pub struct Device {
    /// Whether the atomic pool serves it without another question: it does not snoop, reaches all memory and has none of its own.
    any_pool_memory: AtomicBool,
    coherency: Coherency,
    name: &'static str,
    masks: DmaMasks,
}

impl Device {
    /// A device that does not snoop the processor's caches, as every device of the board. It reaches all memory until it is told
    /// otherwise.
    pub const fn new(name: &'static str) -> Self {
        Self::of(name, Coherency::NonCoherent)
    }

    /// A device that snoops.
    pub const fn coherent(name: &'static str) -> Self {
        Self::of(name, Coherency::Coherent)
    }

    const fn of(name: &'static str, coherency: Coherency) -> Self {
        let any = matches!(coherency, Coherency::NonCoherent);
        Self { any_pool_memory: AtomicBool::new(any), coherency, name, masks: DmaMasks::new() }
    }

    /// Its name, for messages.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it snoops.
    pub const fn coherency(&self) -> Coherency {
        self.coherency
    }

    /// What is mapped for it lies no higher (S100).
    pub fn mask(&self) -> DmaMask {
        self.masks.streaming()
    }

    /// Its coherent buffers lie no higher (S100).
    pub fn coherent_mask(&self) -> DmaMask {
        self.masks.coherent()
    }

    /// Says how high it reaches in memory that is mapped for it (S100). What is mapped already stays. Any context.
    ///
    /// # Errors
    /// [`MaskError`] if that is below all RAM; the mask is what it was.
    pub fn set_mask(&self, mask: DmaMask) -> Result<(), MaskError> {
        self.masks.set_streaming(self.judged(mask)?);
        Ok(())
    }

    /// Says how high its coherent buffers may lie (S100). Those that it has stay where they are. Any context.
    ///
    /// # Errors
    /// [`MaskError`] if that is below all RAM; the mask is what it was.
    pub fn set_coherent_mask(&self, mask: DmaMask) -> Result<(), MaskError> {
        self.masks.set_coherent(self.judged(mask)?);
        self.find_short_cut();
        Ok(())
    }

    /// Both at once, or neither (S100). Any context.
    ///
    /// # Errors
    /// [`MaskError`] if that is below all RAM; both masks are what they were.
    pub fn set_mask_and_coherent(&self, mask: DmaMask) -> Result<(), MaskError> {
        self.set_mask(mask)?;
        self.set_coherent_mask(mask)
    }

    /// The mask, if RAM has a frame that it reaches.
    fn judged(&self, mask: DmaMask) -> Result<DmaMask, MaskError> {
        let first = mm::kernel().zones().table().first().base();
        // RAM does not end in its first frame.
        let last = PhysAddr::new(first.raw() | (PAGE_SIZE - 1));
        mask.checked(self.dma_address(last))
    }

    /// Whether any memory of the atomic pool will do for it, as for most.
    #[inline(always)]
    pub(crate) fn takes_any_pool_memory(&self) -> bool {
        self.any_pool_memory.load(Relaxed)
    }

    fn find_short_cut(&self) {
        let any = self.coherency == Coherency::NonCoherent && self.coherent_mask() == DmaMask::ALL;
        self.any_pool_memory.store(any, Relaxed);
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
