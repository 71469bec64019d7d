//! TLB maintenance (ARM ARM B4.2.2).
//!
//! All of it is inner-shareable: every CPU that takes part in coherency forgets, and a global entry is forgotten
//! whatever the ASID. Nothing here waits. The caller's order is: descriptors written and cleaned, DSB; these functions;
//! DSB and ISB. Only then is the old translation gone.

use kerncore::addr::{PageRange, VirtAddr};

use crate::by_address;
use crate::cp15::{self, Tlbiallis, Tlbimvaais};

/// The largest range, in pages, that is invalidated page by page.
///
/// The A9's TLB holds 64 to 512 entries (A9 TRM 6.2.2): beyond a multiple of that, one broadcast that empties it costs
/// the hardware less than a thousand that search it.
pub const BY_PAGE_AT_MOST: u32 = 1024;

/// Pages an iteration.
const UNROLLED: u32 = 16;

/// Invalidates what every TLB holds for the page of `address`.
#[inline(always)]
pub fn invalidate_page(address: VirtAddr) {
    // SAFETY: a TLB holds copies of descriptors; to forget one is always allowed. Bits 11 to 0 are ignored for "all
    // ASIDs" operations, and should be zero.
    unsafe { cp15::issue::<Tlbimvaais>(address.page_base().raw()) };
}

/// Invalidates what every TLB holds for `pages`; for more than [`BY_PAGE_AT_MOST`], everything.
#[inline]
pub fn invalidate(pages: PageRange) {
    if pages.count() > BY_PAGE_AT_MOST {
        return invalidate_all();
    }
    // SAFETY: as in `invalidate_page`.
    let forget = |address| unsafe { cp15::issue::<Tlbimvaais>(address) };
    by_address::each_page::<UNROLLED>(pages, forget);
}

/// Invalidates all of every TLB.
#[inline]
pub fn invalidate_all() {
    // SAFETY: as in `invalidate_page`.
    unsafe { cp15::issue::<Tlbiallis>(0) };
}
