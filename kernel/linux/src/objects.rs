//! Small objects and large ones by one name: `kvmalloc` and its free (S86).
//!
//! ```text
//!   up to a page    heap   ┌────────────┬─────────────┐
//!                          │ mark, size │ the object  │    the mark is made of the object's address, so that a free
//!                          └────────────┴─────────────┘    believes no other pointer
//!                           16 bytes     ▲ what the caller has
//!   more, or when the heap has none: an area of vmalloc
//! ```

extern crate alloc;

use core::alloc::Layout;
use core::ffi::{c_uint, c_void};
use core::fmt;
use core::ptr;

use arch::machine::Authority;
use arch::probe;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::frames::FrameRequest;
use kerncore::layout::{HEAP_END, HEAP_START};
use mm::report::dump_stack;

use crate::refusal::mistake_unless;
use crate::vmalloc::given_as;
use crate::{address, free, pointer, request};

/// What is in front of an object, and what objects are aligned to.
const HEADER: u32 = 16;
/// Makes a mark of an address.
const MARK: u32 = 0x6b76_6f62;
/// The largest object that the heap is asked for.
const LARGEST: u32 = PAGE_SIZE;

/// Why a pointer was not freed. Nothing has changed.
enum NotFreed {
    /// It is no pointer that was given out, or was freed before.
    NoObject,
    /// It is memory of vmalloc, for `kvfree` and `vfree`.
    Area,
}

impl fmt::Display for NotFreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoObject => "is no object, or was freed before",
            Self::Area => "is in an area, not in the heap",
        })
    }
}

/// The memory of an object of `size` bytes with its header.
const fn layout(size: u32) -> Option<Layout> {
    match Layout::from_size_align((size + HEADER) as usize, HEADER as usize) {
        Ok(layout) => Some(layout),
        Err(_) => None,
    }
}

/// An object of the heap, or null.
fn small(size: u32, gfp: AllocationFlags) -> *mut c_void {
    let Some(layout) = layout(size) else { return ptr::null_mut() };
    // SAFETY: the layout has the header's size at least.
    let start = unsafe { alloc::alloc::alloc(layout) };
    if start.is_null() {
        return ptr::null_mut();
    }
    let object = start.wrapping_add(HEADER as usize);
    let header: *mut u32 = start.cast();
    // SAFETY: the header is ours, aligned, and nobody else's yet.
    unsafe { header.write(mark_of(address(object))) };
    // SAFETY: as above.
    unsafe { header.wrapping_add(1).write(size) };
    if gfp.zero() {
        // SAFETY: `size` bytes of ours lie behind the header.
        unsafe { object.write_bytes(0, size as usize) };
    }
    object.cast()
}

const fn mark_of(object: VirtAddr) -> u32 {
    object.raw() ^ MARK
}

/// Allocates `size` bytes: an object of the heap up to a page, an area of vmalloc for more, when the heap has none, or when
/// `gfp` names a zone; null on failure. Aligned to 16 bytes. Any context for what the heap has; an area is not asked for by who may not sleep.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn kvmalloc(size: c_uint, gfp: AllocationFlags) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    if size == 0 {
        return ptr::null_mut();
    }
    let request = match request::of_any(size, gfp, caller) {
        Ok(request) => request,
        Err(error) => {
            mistake_unless(gfp, "kvmalloc", size, &error);
            return ptr::null_mut();
        }
    };
    if size <= LARGEST && request.memory == FrameRequest::ANY {
        let object = small(size, gfp);
        if !object.is_null() {
            return object;
        }
    }
    if gfp.sleep() == Sleep::MayNot {
        return ptr::null_mut();
    }
    given_as(gfp, "kvmalloc", size, mm::kernel().vmalloc_with(request))
}

/// Frees what [`kvmalloc`] gave, wherever it lies, and what [`crate::areas::remove_vm_area`] gave. Null is no-op; anything else is
/// reported, in the window by [`vfree`](free::vfree), and changes nothing. Not in interrupt context, if it is an area.
///
/// # Safety
/// Nobody uses the memory any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn kvfree(object: *const c_void) {
    if mm::kernel().window().contains(address(object)) {
        // SAFETY: by our caller's promise.
        unsafe { free::vfree(object) };
    } else {
        // SAFETY: as above.
        unsafe { kfree(object) };
    }
}

/// Frees an object of the heap that [`kvmalloc`] gave, or a descriptor that [`crate::areas::remove_vm_area`] gave. Null is no-op;
/// anything else is reported and changes nothing. Any context.
///
/// # Safety
/// Nobody uses the memory any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn kfree(object: *const c_void) {
    if object.is_null() {
        return;
    }
    // Descriptors lie in the linear map: an object of the heap is not sought among those that were removed.
    if !(HEAP_START..HEAP_END).contains(&address(object)) {
        // SAFETY: by our caller's promise.
        let authority = unsafe { Authority::claim() };
        if mm::kernel().free_removed(authority, object.cast()) {
            return;
        }
    }
    match layout_of(object) {
        // SAFETY: the header says that the heap gave it, with this layout; nobody uses it by our caller's promise.
        Ok(layout) => unsafe { free_small(object, layout) },
        Err(error) => {
            log::error!("kfree: {object:p} {error}");
            dump_stack();
        }
    }
}

/// The layout of an object of the heap, as its header says.
fn layout_of(object: *const c_void) -> Result<Layout, NotFreed> {
    let at = address(object);
    if mm::kernel().window().contains(at) {
        return Err(NotFreed::Area);
    }
    let header = at.checked_sub(VirtAddr::new(HEADER)).map(VirtAddr::new);
    let header = header.filter(|start| (HEAP_START..HEAP_END).contains(start));
    let header = header.filter(|start| start.raw().is_multiple_of(HEADER));
    let header = header.ok_or(NotFreed::NoObject)?;
    let word = |offset| probe::read_u32(header.checked_add(offset)?).ok();
    let (mark, size) = word(0).zip(word(4)).ok_or(NotFreed::NoObject)?;
    if mark != mark_of(at) || !(1..=LARGEST).contains(&size) {
        return Err(NotFreed::NoObject);
    }
    layout(size).ok_or(NotFreed::NoObject)
}

/// # Safety
/// `object` lies behind a header that the heap gave with `layout`, and nobody uses it.
unsafe fn free_small(object: *const c_void, layout: Layout) {
    let start: *mut u8 = pointer(VirtAddr::new(address(object).raw() - HEADER));
    let header: *mut u32 = start.cast();
    // So that a second free is seen, until the memory is used anew.
    // SAFETY: the header is the object's, which is the caller's to free.
    unsafe { header.write(0) };
    // SAFETY: by the caller's promise.
    unsafe { alloc::alloc::dealloc(start, layout) };
}
