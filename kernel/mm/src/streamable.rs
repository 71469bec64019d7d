//! Which memory a device may have for a transfer (S105, S112).

use kerncore::addr::{Pfn, PhysAddr};
use kerncore::kmap::KmapError;
use kerncore::layout::linear_address;

use crate::kernel;

/// Whether all of `bytes` from `first`, which do not wrap, is memory in use that buffers are made of: pages, the heap, areas, programs'
/// data, and the image's data and stacks, where `static`s and locals lie. Any context.
///
/// # Errors
/// The first frame that is not.
#[inline(always)]
pub fn is_streamable(first: PhysAddr, bytes: u32) -> Result<(), KmapError> {
    kernel().is_streamable(first, bytes, is_data)
}

/// Of the kernel's image.
#[cold]
#[inline(never)]
fn is_data(frame: Pfn) -> bool {
    linear_address(frame.base()).is_some_and(boot::layout::holds_data)
}
