//! Page frames: who owns each, and which are free.
//!
//! ```text
//!   RAM         ┌──────┬──────┬──────────────┬─────────────────────────┬───────────┐
//!               │ f+0  │ f+1  │  f+2   f+3   │  f+4   f+5   f+6   f+7   │  absent   │
//!               └──────┴──────┴──────────────┴─────────────────────────┴───────────┘
//!   frame table ┌──────┬──────┬──────┬───────┬──────┬──────┬─────┬─────┬─────┬─────┐
//!   16 bytes a  │head 0│head 0│head 1│inside │head 2│inside│     │     │  0  │  0  │
//!   frame       │ Slab │ Free │ Heap │       │ Free │      │     │     │     │     │
//!               └──────┴──────┴──────┴───────┴──────┴──────┴─────┴─────┴─────┴─────┘
//!                   one record: state │ next │ previous │ spare
//! ```
//!
//! Every frame belongs to exactly one *block*: 2^order frames, aligned to their size, free or owned. The first
//! frame's record, the head, says order and owner; the records inside a block carry no state. This is kept exact
//! (merging clears the head that becomes an inside), so one word decides every check of a free: a double free, a
//! free of a part, of another's frame or with the wrong order each shows in the state of that one frame.
//!
//! Links are atomics, so that whoever owns frames may chain them ([`FrameList`]) without the allocator's lock and
//! without memory. A free block's links belong to the allocator.
//!
//! [`FrameAllocator`] is a buddy allocator behind whatever lock the caller chooses. Small blocks that come back
//! wait, unmerged, on a front list of their order, for the next request is likely the same; they are merged when
//! the front list is full, when memory would otherwise be short, or by [`FrameAllocator::drain`]. They count as
//! free all the while. Before them stands one spare block of each order up to a section's, which is had without a lock ([`Spares`]).

mod allocator;
mod audit;
mod block;
mod buddy;
mod error;
mod frame;
mod front;
mod limited;
mod pointers;
mod region;
mod request;
mod shown;
mod spare;
mod table;
#[cfg(test)]
mod tests;

pub use allocator::{FrameAllocator, Freed};
pub use audit::Unsound;
pub(crate) use block::Chain;
pub use block::{Blocks, FrameBlock, FrameList, Frames};
pub use error::{AddError, AllocateError, FreeError};
pub use frame::{Frame, FrameOwner};
pub(crate) use limited::Supply;
pub use pointers::Pointers;
pub use request::{FrameRequest, NodeId, Place, ZoneKind};
pub use shown::{NotShown, ShownBlock};
pub use spare::{Displaced, Spared, Spares};
pub(crate) use table::Likeness;
pub use table::{Belonging, Census, FrameTable};

/// The largest order: blocks of 1,024 frames, 4 MiB.
pub const MAX_ORDER: u32 = 10;
/// Frames in the largest block.
pub const MAX_BLOCK: u32 = 1 << MAX_ORDER;
/// How many orders there are.
const ORDERS: usize = MAX_ORDER as usize + 1;

/// The smallest order whose block holds `pages` frames; 0 for none.
pub const fn order_for(pages: u32) -> u32 {
    if pages <= 1 { 0 } else { u32::BITS - (pages - 1).leading_zeros() }
}

/// The order of the largest block that `pages` frames from `index` begin with, which must be at least one.
///
/// Binary pieces, each aligned: this is how any run is cut, wherever it begins and ends.
const fn piece_order(index: u32, pages: u32) -> u32 {
    let mut order = u32::BITS - 1 - (pages | 1).leading_zeros();
    if index.trailing_zeros() < order {
        order = index.trailing_zeros();
    }
    if order > MAX_ORDER { MAX_ORDER } else { order }
}
