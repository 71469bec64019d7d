//! What a caller's numbers say of the memory that it wants: `gfp_t`, node and `pgprot_t` (S30, S50).

use core::ffi::c_int;
use core::fmt;

use kerncore::addr::VirtAddr;
use kerncore::coherent::AllocationFlags;
use kerncore::gfp::BadFlags;
use kerncore::kernel_space::{Fill, Rights, VmallocRequest};

use crate::protection::{NoProtection, PageProtection};

/// Any node.
pub(crate) const ANY_NODE: c_int = -1;

/// What fresh memory is to hold.
const fn fill(gfp: AllocationFlags) -> Fill {
    if gfp.zero() { Fill::Zeroed } else { Fill::Uninitialised }
}

/// Why numbers ask for nothing that memory of vmalloc can be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoRequest {
    Protection(NoProtection),
    Flags(BadFlags),
}

impl fmt::Display for NoRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protection(error) => error.fmt(f),
            Self::Flags(error) => error.fmt(f),
        }
    }
}

/// How memory of vmalloc may be used.
const fn rights(prot: PageProtection) -> Result<Rights, NoRequest> {
    match prot {
        PageProtection::KERNEL => Ok(Rights::ReadWrite),
        PageProtection::KERNEL_READ_ONLY => Ok(Rights::ReadOnly),
        prot => Err(NoRequest::Protection(NoProtection(prot))),
    }
}

/// A node that is not there.
pub(crate) struct NoNode(u32);

impl fmt::Display for NoNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no node {}", self.0)
    }
}

/// What is wrong with `node`, if anything is; a negative one is anywhere.
pub(crate) fn no_node(node: c_int) -> Option<NoNode> {
    let node = u32::try_from(node).ok()?;
    (node >= mm::kernel().zones().nodes().count()).then_some(NoNode(node))
}

/// All of it.
pub(crate) fn of(
    bytes: u32,
    gfp: AllocationFlags,
    prot: PageProtection,
    node: c_int,
    caller: VirtAddr,
) -> Result<VmallocRequest, NoRequest> {
    let memory = gfp.request(node).map_err(NoRequest::Flags)?;
    Ok(VmallocRequest { bytes, fill: fill(gfp), memory, rights: rights(prot)?, caller })
}

/// As [`of`], to be read and written, on any node, and of high memory too where no zone is named.
pub(crate) fn of_any(
    bytes: u32,
    gfp: AllocationFlags,
    caller: VirtAddr,
) -> Result<VmallocRequest, NoRequest> {
    of(bytes, gfp.or_high(), PageProtection::KERNEL, ANY_NODE, caller)
}
