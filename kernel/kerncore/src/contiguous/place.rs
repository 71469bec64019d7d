//! Where the region lies: at the end of low memory, as far from the scarce memory at its start as can be.

use crate::frames::MAX_BLOCK;
use crate::zones::DMA_PAGES;

/// So many pages of low memory, at least, are left to all others: 16 MiB.
pub const LEFT_TO_OTHERS: u32 = DMA_PAGES;

/// Where `wanted` pages are to be set aside of `low` pages of low memory, of which the first `used` are taken: the first page and
/// how many, both multiples of the largest block. Of no pages, or less than a block, none are.
///
/// # Errors
/// The most pages that could be, if so many cannot.
pub const fn set_aside(low: u32, used: u32, wanted: u32) -> Result<(u32, u32), u32> {
    let end = low / MAX_BLOCK * MAX_BLOCK;
    let pages = wanted / MAX_BLOCK * MAX_BLOCK;
    let most = end.saturating_sub(used.saturating_add(LEFT_TO_OTHERS)) / MAX_BLOCK * MAX_BLOCK;
    if pages <= most { Ok((end - pages, pages)) } else { Err(most) }
}
