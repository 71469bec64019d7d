//! `struct page *`: a pointer to a frame's record, at a fixed stride in the frame table (S85a); and taking frames by it.

use core::ffi::{c_int, c_uint, c_void};
use core::fmt;
use core::ptr;

use arch::machine::Authority;
use kerncore::addr::{PAGE_SHIFT, Pfn, PhysAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::frames::{AllocateError, Frame, FrameOwner, Freed};
use kerncore::gfp::{BadFlags, Warning};
use kerncore::kmap::KmapError;
use mm::report::{RateLimit, dump_stack};
use mm::reserve::unless_short;

use crate::{address, pointer};

static REFUSED: RateLimit = RateLimit::new();

/// Takes 2^`order` adjacent pages, aligned to their size, of such memory as the flags name; null on failure. They are zeroed
/// if the flags ask for that, and hold whatever they held otherwise. Any context, whatever else the flags say.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn alloc_pages(gfp: AllocationFlags, order: c_uint) -> *const Frame {
    if order == 0
        && gfp.is_plain()
        && !gfp.zero()
        && let Some(record) = mm::take_spare(0, FrameOwner::Pages)
    {
        return record;
    }
    alloc_more_pages(gfp, order)
}

/// [`alloc_pages`], when it is not a spare page.
#[inline(never)]
fn alloc_more_pages(gfp: AllocationFlags, order: c_uint) -> *const Frame {
    if !gfp.is_plain() {
        return alloc_pages_node(ANYWHERE, gfp, order);
    }
    match mm::kernel().zones().take_waiting(order, FrameOwner::Pages) {
        Some(record) if !gfp.zero() => record,
        Some(record) => zeroed(record, order),
        None => alloc_pages_node(ANYWHERE, gfp, order),
    }
}

/// The node of callers who do not care.
const ANYWHERE: c_int = -1;

/// As [`alloc_pages`], on that node, or on another if it has none and the flags do not forbid that; a negative node is
/// anywhere. There being no such node is a failure.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn alloc_pages_node(
    nid: c_int,
    gfp: AllocationFlags,
    order: c_uint,
) -> *const Frame {
    match take(nid, gfp, order) {
        Ok(page) => page,
        Err(error) => {
            if gfp.warning() == Warning::Told {
                REFUSED.warn(format_args!("alloc_pages: order {order} was refused: {error}"));
            }
            ptr::null()
        }
    }
}

/// Why a C caller was given no pages.
enum Refusal {
    Flags(BadFlags),
    Frames(AllocateError),
    Zero(KmapError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flags(error) => error.fmt(f),
            Self::Frames(error) => error.fmt(f),
            Self::Zero(error) => error.fmt(f),
        }
    }
}

fn take(nid: c_int, gfp: AllocationFlags, order: c_uint) -> Result<*const Frame, Refusal> {
    let zones = mm::kernel().zones();
    let request = gfp.request(nid).map_err(Refusal::Flags)?;
    let allocate = || zones.allocate_from(request, order, FrameOwner::Pages);
    let block = allocate().or_else(|error| match gfp.sleep() {
        Sleep::May => unless_short(error, allocate),
        Sleep::MayNot => Err(error),
    });
    let block = block.map_err(Refusal::Frames)?;
    if gfp.zero()
        && let Err(error) = mm::kernel().zero_block(&block)
    {
        // Nobody else has seen it, so that the frame table cannot disagree.
        let _freed = zones.free(block);
        return Err(Refusal::Zero(error));
    }
    Ok(pointer_to(block.leak().0))
}

/// The pages of `record`, which are of low memory, filled with zeros.
#[cold]
#[inline(never)]
fn zeroed(record: *const Frame, order: c_uint) -> *const Frame {
    let first = frame_of(record).expect("a record of the frame table");
    let pages = mm::kernel().linear().pages_of(first, 1 << order).expect("low memory");
    let memory: *mut u8 = pointer(pages.start());
    // SAFETY: the pages are in use, so the linear map has them, writable; nobody else knows of them yet.
    unsafe { memory.write_bytes(0, pages.bytes() as usize) };
    record
}

/// Maps a page of whatever memory until [`kunmap_local`], as deep as there are slots; null if there is none, or it is no page
/// in use. Any context.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn kmap_local_page(page: *const Frame) -> *mut c_void {
    let Some(frame) = frame_of(page) else {
        log::error!("kmap_local_page: {page:p} is no page pointer");
        return ptr::null_mut();
    };
    match mm::kernel().kmap(frame) {
        Ok(mapped) => pointer(mapped.keep()),
        Err(error) => {
            REFUSED.warn(format_args!("kmap_local_page: {error}"));
            ptr::null_mut()
        }
    }
}

/// Ends a mapping of [`kmap_local_page`]; any address in the page will do. Null is a no-op, and so is an address of low memory;
/// anything else is reported and changes nothing. Any context.
///
/// # Safety
/// Nobody uses the mapping any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn kunmap_local(addr: *const c_void) {
    let at = address(addr);
    if addr.is_null() || mm::kernel().linear().window().contains(at) {
        return;
    }
    // SAFETY: our caller promises that nobody uses it.
    let authority = unsafe { Authority::claim() };
    if let Err(error) = mm::kernel().kunmap(authority, at) {
        log::error!("kunmap_local: {error}");
        dump_stack();
    }
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
    // That it is a page pointer, and the page is in use and taken with this order, is checked against its record.
    if order != 0 || mm::give_back_page(authority, page.addr(), FrameOwner::Pages) == Freed::No {
        // SAFETY: by the same promise; nothing was done yet.
        unsafe { free_more_pages(page, order) };
    }
}

/// [`__free_pages`], when it is not one page of the zone that serves the most.
///
/// # Safety
/// As for [`__free_pages`].
#[inline(never)]
unsafe fn free_more_pages(page: *const Frame, order: c_uint) {
    // SAFETY: our caller promises that nobody uses them.
    let authority = unsafe { Authority::claim() };
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
