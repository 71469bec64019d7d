//! `struct page *`: a pointer to a frame's record, at a fixed stride in the frame table (S85a).

use kerncore::addr::{PAGE_SHIFT, Pfn, PhysAddr};
use kerncore::frames::Frame;

/// The record that stands for `frame`, or null if it is not RAM.
pub fn pointer_to(frame: Pfn) -> *const Frame {
    match mm::kernel().zone().table().frame(frame) {
        Some(record) => record,
        None => core::ptr::null(),
    }
}

/// The frame that a page pointer stands for, or `None` if it points to no record.
pub fn frame_of(page: *const Frame) -> Option<Pfn> {
    mm::kernel().zone().table().frame_at_record(page.addr())
}

/// `page_to_phys`: the physical address behind a page pointer, or all ones for one that points to no record.
pub fn page_to_phys(page: *const Frame) -> PhysAddr {
    frame_of(page).map_or(PhysAddr::new(u32::MAX << PAGE_SHIFT), Pfn::base)
}
