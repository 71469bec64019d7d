//! `struct page *`: a pointer to a frame's record, at a fixed stride in the frame table (S85a); and taking frames by it.

use core::ffi::c_uint;
use core::ptr;

use arch::machine::Authority;
use kerncore::addr::{PAGE_SHIFT, Pfn, PhysAddr};
use kerncore::coherent::AllocationFlags;
use kerncore::frames::{Frame, FrameOwner, Freed};
use kerncore::layout::linear_address;
use mm::report::{RateLimit, dump_stack};

use crate::pointer;

static REFUSED: RateLimit = RateLimit::new();

/// Takes 2^`order` adjacent pages, aligned to their size; null on failure. They are zeroed if the flags ask for that, and
/// hold whatever they held otherwise. Any context, whatever else the flags say.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn alloc_pages(gfp: AllocationFlags, order: c_uint) -> *const Frame {
    match mm::kernel().zones().take_waiting(order, FrameOwner::Pages) {
        Some(record) if !gfp.zero() => record,
        Some(record) => zeroed(record, order),
        None => alloc_merged(gfp, order),
    }
}

/// [`alloc_pages`], when no block of that order is at hand.
#[cold]
#[inline(never)]
fn alloc_merged(gfp: AllocationFlags, order: c_uint) -> *const Frame {
    match mm::kernel().zones().allocate(order, FrameOwner::Pages) {
        Ok(block) => {
            let (first, pages) = block.leak();
            if gfp.zero() {
                zero(first, pages);
            }
            pointer_to(first)
        }
        Err(error) => {
            REFUSED.warn(format_args!("alloc_pages: order {order} was refused: {error}"));
            ptr::null()
        }
    }
}

/// The pages of `record`, filled with zeros.
#[cold]
#[inline(never)]
fn zeroed(record: *const Frame, order: c_uint) -> *const Frame {
    zero(frame_of(record).expect("a record of the frame table"), 1 << order);
    record
}

/// Fills with zeros what [`alloc_pages`] has just taken.
fn zero(first: Pfn, pages: u32) {
    let address = linear_address(first.base()).expect("low memory was asked for");
    let memory: *mut u8 = pointer(address);
    let bytes = (pages << PAGE_SHIFT) as usize;
    // SAFETY: the pages are in use, so the linear map has them, writable; nobody else knows of them yet.
    unsafe { memory.write_bytes(0, bytes) };
}

/// Gives back what [`alloc_pages`] took with the same `order`. Null is a no-op; anything else is reported and changes
/// nothing. Any context.
///
/// # Safety
/// Nobody uses the pages any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn __free_pages(page: *const Frame, order: c_uint) {
    // SAFETY: our caller promises that nobody uses them.
    let authority = unsafe { Authority::claim() };
    // That it is a page pointer, and the pages are in use and taken with this order, is checked against their record.
    let freed = mm::kernel().give_back_frames(authority, page.addr(), order, FrameOwner::Pages);
    if freed == Freed::No {
        // SAFETY: by the same promise; nothing was done yet.
        unsafe { free_merged(page, order) };
    }
}

/// [`__free_pages`], when more is to be done, or something is wrong.
///
/// # Safety
/// As for [`__free_pages`].
#[cold]
#[inline(never)]
unsafe fn free_merged(page: *const Frame, order: c_uint) {
    if page.is_null() {
        return;
    }
    let Some(frame) = frame_of(page) else {
        log::error!("__free_pages: {page:p} is no page pointer");
        dump_stack();
        return;
    };
    // SAFETY: our caller promises that nobody uses them.
    let authority = unsafe { Authority::claim() };
    if let Err(error) = mm::kernel().free_frames_at(authority, frame, order, FrameOwner::Pages) {
        log::error!("__free_pages: {error}");
        dump_stack();
    }
}

/// The record that stands for `frame`, or null if it is not RAM.
pub fn pointer_to(frame: Pfn) -> *const Frame {
    match mm::kernel().zones().table().frame(frame) {
        Some(record) => record,
        None => ptr::null(),
    }
}

/// The frame that a page pointer stands for, or `None` if it points to no record.
#[inline]
pub fn frame_of(page: *const Frame) -> Option<Pfn> {
    mm::kernel().zones().table().frame_at_record(page.addr())
}

/// `page_to_phys`: the physical address behind a page pointer, or all ones for one that points to no record.
pub fn page_to_phys(page: *const Frame) -> PhysAddr {
    frame_of(page).map_or(PhysAddr::new(u32::MAX << PAGE_SHIFT), Pfn::base)
}
