//! Memory that a device sees already: coherent buffers want no mapping.

use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::area::AreaKind;
use kerncore::layout::linear_physical;

use crate::device::Device;

/// Where `device` sees the `bytes` at `address`, if all of them lie in one coherent buffer with addresses of its own, or in the
/// atomic pool, and it reaches them; whoever asks has that buffer. Any context.
pub fn seen_at(device: &Device, address: VirtAddr, bytes: u32) -> Option<DmaAddr> {
    // Most memory is ordinary, and needs no search. Behind an IOMMU a device sees what was mapped for it, and nothing else.
    if linear_physical(address).is_some() || device.iommu().is_some() {
        return None;
    }
    let area = mm::kernel().find_containing(address).filter(|area| area.kind == AreaKind::Dma)?;
    let offset = address.checked_sub(area.pages.start())?;
    let left = area.pages.bytes().checked_sub(offset)?;
    let dma = device.dma_address(area.physical.checked_add(offset)?);
    (bytes <= left && device.mask().reaches(dma, bytes)).then_some(dma)
}
