//! How large a request is made.

use dma::bounce::largest_copy;

/// The most bytes of one request: one whose buffer the device cannot have in place is copied, and bounce buffers are scarce.
const REQUEST: usize = 64 << 10;

/// The same, and no more than there is room for in all bounce buffers together, so that none is refused for its size alone. Whole sectors.
pub(super) fn most_of_a_request() -> usize {
    let copy = largest_copy().and_then(|bytes| usize::try_from(bytes).ok());
    copy.map_or(REQUEST, |bytes| bytes.min(REQUEST))
}
