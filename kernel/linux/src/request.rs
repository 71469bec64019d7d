//! What a caller's numbers say of the memory that it wants: `gfp_t`, node and `pgprot_t` (S30, S50).

use core::ffi::c_int;

use kerncore::addr::VirtAddr;
use kerncore::coherent::AllocationFlags;
use kerncore::frames::{FrameRequest, NodeId, Place, ZoneKind};
use kerncore::kernel_space::{Fill, Rights, VmallocRequest};

use crate::protection::PageProtection;

/// `__GFP_DMA`: the scarce low memory alone.
const DMA: u32 = 0x01;
/// `__GFP_HIGHMEM`: memory without linear addresses will do.
const HIGHMEM: u32 = 0x02;
/// `__GFP_THISNODE`: no other node will do.
const THIS_NODE: u32 = 0x4_0000;
/// Any node.
pub(crate) const ANY_NODE: c_int = -1;

/// Which frames will do. Less than zero is any node, as `NUMA_NO_NODE` is; a node that is not there is refused where frames
/// are asked for.
pub(crate) fn memory(gfp: AllocationFlags, node: c_int) -> FrameRequest {
    let AllocationFlags(bits) = gfp;
    let request = if bits & DMA != 0 {
        FrameRequest::of(ZoneKind::Dma)
    } else if bits & HIGHMEM != 0 {
        FrameRequest::ANY
    } else {
        FrameRequest::LOW
    };
    match u32::try_from(node).map(NodeId::new) {
        Err(_) => request,
        Ok(node) if bits & THIS_NODE != 0 => request.at(Place::Only(node)),
        Ok(node) => request.at(Place::Prefer(node)),
    }
}

/// What fresh memory is to hold.
pub(crate) const fn fill(gfp: AllocationFlags) -> Fill {
    if gfp.zero() { Fill::Zeroed } else { Fill::Uninitialised }
}

/// How memory of vmalloc may be used, or `None` for a protection that it cannot have.
pub(crate) const fn rights(prot: PageProtection) -> Option<Rights> {
    match prot {
        PageProtection::KERNEL => Some(Rights::ReadWrite),
        PageProtection::KERNEL_READ_ONLY => Some(Rights::ReadOnly),
        _ => None,
    }
}

/// All of it; `None` for a protection that memory of vmalloc cannot have.
pub(crate) fn of(
    bytes: u32,
    gfp: AllocationFlags,
    prot: PageProtection,
    node: c_int,
    caller: VirtAddr,
) -> Option<VmallocRequest> {
    let (fill, memory) = (fill(gfp), memory(gfp, node));
    Some(VmallocRequest { bytes, fill, memory, rights: rights(prot)?, caller })
}
