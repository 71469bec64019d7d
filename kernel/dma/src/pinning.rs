//! Memory that could be moved, kept where it is while a device has it (S101, S105).
//!
//! Pages of the contiguous region that are lent, to programs and to movable buffers, are moved when a buffer wants their frames. While
//! one is mapped for a device it stays, whoever asks, even if its borrower has given it back: the device knows no other address.

use kerncore::addr::{Pfn, pages_for};
use kerncore::bounce::Original;
use kerncore::layout::linear_physical;

use crate::streaming::{MapError, Memory};

/// The frames of `bytes` from there on, if they are adjacent.
fn frames(original: Original, bytes: u32) -> Option<(Pfn, u32)> {
    let first = match original {
        Original::Physical(physical) => physical,
        // What is mapped elsewhere is vmalloc's or a coherent buffer's, which are never lent.
        Original::Address(address) => linear_physical(address)?,
    };
    Some((first.pfn(), pages_for(bytes.saturating_add(first.page_offset()))))
}

/// Keeps what of `bytes` of `memory` is lent where it is, until [`unpin`]. Any context.
///
/// # Errors
/// [`MapError::Moving`]; nothing is kept.
pub(crate) fn pin(memory: Memory, bytes: u32) -> Result<(), MapError> {
    let Some(region) = mm::kernel().contiguous() else { return Ok(()) };
    match frames(original_of(memory), bytes) {
        Some((first, pages)) if bytes != 0 => {
            region.pin(first, pages).map_err(|frame| MapError::Moving { frame })
        }
        _ => Ok(()),
    }
}

/// Ends one [`pin`] of the same memory. Any context.
pub(crate) fn unpin(original: Original, bytes: u32) {
    if let Some(region) = mm::kernel().contiguous()
        && let Some((first, pages)) = frames(original, bytes)
        && bytes != 0
    {
        region.unpin(first, pages);
    }
}

pub(crate) const fn original_of(memory: Memory) -> Original {
    match memory {
        Memory::Linear(address) | Memory::Anywhere(address) => Original::Address(address),
        Memory::Physical(physical) => Original::Physical(physical),
    }
}
