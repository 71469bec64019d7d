//! vmalloc and vmap by their Linux names.
//!
//! None but [`vfree_atomic`] and the lookups may be called in interrupt context (S10, S35).

use core::ffi::{c_uint, c_void};
use core::fmt;
use core::ptr;
use core::slice;

use arch::machine::Authority;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::area::{AreaFlags, AreaSummary, VmStruct};
use kerncore::attributes::Attributes;
use kerncore::frames::Frame;
use kerncore::kernel_space::{Fill, RemoveError, VmallocError, VmapError};
use mm::report::{RateLimit, dump_stack};

use crate::{address, pointer};

/// How a mapping may be used: the `pgprot_t` of callers, who may pass anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct PageProtection(c_uint);

impl PageProtection {
    /// `PAGE_KERNEL`: read and written, never executed.
    pub const KERNEL: Self = Self(0);
    /// `PAGE_KERNEL_RO`: read.
    pub const KERNEL_READ_ONLY: Self = Self(1);

    /// What goes into the tables, or `None` for a number that means nothing.
    const fn attributes(self) -> Option<Attributes> {
        match self {
            Self::KERNEL => Some(Attributes::KERNEL_DATA),
            Self::KERNEL_READ_ONLY => Some(Attributes::KERNEL_RODATA),
            _ => None,
        }
    }
}

/// The most page pointers that [`vmap`] takes: more than RAM has frames is refused (S37) before the array is read.
fn too_many(count: c_uint) -> bool {
    count > mm::kernel().zones().total()
}

static REFUSED: RateLimit = RateLimit::new();

/// Warns of a failure, at a limited rate (S8).
fn warn(what: &str, bytes: u32, error: &dyn fmt::Display) {
    REFUSED.warn(format_args!("{what}: {bytes} bytes were refused: {error}"));
}

fn allocate(what: &str, bytes: u32, fill: Fill, caller: VirtAddr) -> *mut c_void {
    given(what, bytes, mm::kernel().vmalloc(bytes, fill, caller))
}

/// What a caller is given: the memory, or null.
#[inline(always)]
fn given(what: &str, bytes: u32, taken: Result<AreaSummary, VmallocError>) -> *mut c_void {
    match taken {
        Ok(area) => pointer(area.pages.start()),
        // Zero, or more than there is: null without a word (S26).
        Err(VmallocError::ZeroSize | VmallocError::MoreThanMemory { .. }) => ptr::null_mut(),
        Err(error) => {
            warn(what, bytes, &error);
            ptr::null_mut()
        }
    }
}

/// Allocates `size` bytes of virtually contiguous memory, rounded up to pages; null on failure (S26 to S30).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc(size: c_uint) -> *mut c_void {
    allocate("vmalloc", size, Fill::Uninitialised, arch::backtrace::return_address())
}

/// As [`vmalloc`], filled with zeros (S86).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vzalloc(size: c_uint) -> *mut c_void {
    allocate("vzalloc", size, Fill::Zeroed, arch::backtrace::return_address())
}

/// As [`vzalloc`], for memory that programs may see: tagged for [`crate::user::remap_vmalloc_range`] (S31).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_user(size: c_uint) -> *mut c_void {
    allocate_user("vmalloc_user", size, arch::backtrace::return_address())
}

/// As [`vmalloc_user`]: all memory here can be addressed by 32 bits.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_32_user(size: c_uint) -> *mut c_void {
    allocate_user("vmalloc_32_user", size, arch::backtrace::return_address())
}

fn allocate_user(what: &str, bytes: u32, caller: VirtAddr) -> *mut c_void {
    given(what, bytes, mm::kernel().vmalloc_user(bytes, caller))
}

/// Frees what [`vmalloc`] gave. Null is no-op; anything else that is not the base of such an area is reported and changes
/// nothing (S32, S34).
///
/// # Safety
/// Nobody uses the memory any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vfree(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        report("vfree", mm::kernel().vfree(authority, address(addr)));
    }
}

/// As [`vfree`], for handlers and wherever interrupts are off: queues the area, whose memory comes back when there is time
/// ([`mm::vm_area::VmArea::free_later`], S89). Null is no-op; anything else that is not the base of such an area is reported and
/// changes nothing.
///
/// # Safety
/// Nobody uses the memory any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vfree_atomic(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        report("vfree_atomic", mm::kernel().vfree_atomic(authority, address(addr)));
    }
}

/// Maps `count` pages, given by page pointers, one after the other; null on failure (S37). `flags` are stored.
///
/// # Safety
/// `pages` points to `count` page pointers. The pages stay allocated while the mapping lives, and whoever uses both the
/// mapping and the pages' other addresses keeps Rust's rules of aliasing.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vmap(
    pages: *const *const Frame,
    count: c_uint,
    flags: c_uint,
    prot: PageProtection,
) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    if pages.is_null() || count == 0 || too_many(count) {
        return ptr::null_mut();
    }
    // SAFETY: the caller promises `count` page pointers.
    let pages = unsafe { slice::from_raw_parts(pages, count as usize) };
    match map(pages, AreaFlags::from_bits(flags), prot, caller) {
        Ok(area) => pointer(area.pages.start()),
        Err(error) => {
            warn("vmap", count.saturating_mul(PAGE_SIZE), &error);
            ptr::null_mut()
        }
    }
}

/// Why [`vmap`] gave null.
enum Unmapped {
    Protection(PageProtection),
    NoPage { index: u32, page: *const Frame },
    Refused(VmapError),
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protection(PageProtection(number)) => write!(f, "no protection is {number:#x}"),
            Self::NoPage { index, page } => write!(f, "page {index}, {page:p}, is no page pointer"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

#[inline(always)]
fn map(
    pages: &[*const Frame],
    flags: AreaFlags,
    prot: PageProtection,
    caller: VirtAddr,
) -> Result<AreaSummary, Unmapped> {
    let attributes = prot.attributes().ok_or(Unmapped::Protection(prot))?;
    let kernel = mm::kernel();
    let table = *kernel.zones().table();
    let frames = pages.iter().map(move |page| table.belonging_at_record(page.addr()));
    let mapped = kernel.vmap_flags(frames, attributes, flags, caller);
    mapped.map_err(|error| match error {
        VmapError::MissingFrame { index } => {
            Unmapped::NoPage { index, page: pages[index as usize] }
        }
        error => Unmapped::Refused(error),
    })
}

/// Ends a mapping that [`vmap`] made. Null is no-op; anything else that is not the base of such an area is reported and
/// changes nothing (S32, S34).
///
/// # Safety
/// Nobody uses the mapping any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vunmap(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        report("vunmap", mm::kernel().vunmap(authority, address(addr)));
    }
}

/// Says what was wrong with a free, and who did it.
pub(crate) fn report(what: &str, removed: Result<(), RemoveError>) {
    if let Err(error) = removed {
        log::error!("{what}: {error}");
        dump_stack();
    }
}

/// The descriptor of the live area that begins exactly at `addr`, or null (S13). No reference is taken: it is valid for as
/// long as the caller keeps the area from being removed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_vm_area(addr: *const c_void) -> *const VmStruct {
    let descriptor = mm::kernel().with_area(address(addr), |record| &raw const record.vm);
    descriptor.unwrap_or(ptr::null())
}

/// The page pointer of the frame behind `addr`, or null if nothing is mapped there or what is mapped is not RAM (S88).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vmalloc_to_page(addr: *const c_void) -> *const Frame {
    mm::kernel().frame_behind(address(addr)).map_or(ptr::null(), ptr::from_ref)
}
