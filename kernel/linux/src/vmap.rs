//! Mapping pages side by side, by the Linux names.
//!
//! None of these may be called in interrupt context (S10).

use core::ffi::{c_uint, c_void};
use core::fmt;
use core::ptr;
use core::slice;

use kerncore::addr::{PAGE_SIZE, PAGES_IN_ADDRESS_SPACE, Pfn, PhysAddr, VirtAddr};
use kerncore::area::AreaFlags;
use kerncore::frames::Frame;
use kerncore::kernel_space::VmapError;

use crate::cause::{Cause, Refusal};
use crate::pointer;
use crate::protection::{NoProtection, PageProtection};
use crate::refusal::{mistake, refused, refused_to};

/// The most page pointers that [`vmap`] takes: more than RAM has frames is refused (S37) before the array is read.
pub(crate) fn too_many(count: c_uint) -> bool {
    count > mm::kernel().zones().total()
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
    let kernel = mm::kernel();
    if !pages.is_null() && prot == PageProtection::KERNEL && kernel.are_few(count) {
        // SAFETY: the caller promises `count` page pointers.
        let list = unsafe { slice::from_raw_parts(pages, count as usize) };
        let area_flags = AreaFlags::from_bits(flags);
        if let Some(address) = kernel.vmap_at_hand(list, area_flags, caller) {
            return pointer(address);
        }
        // What is known of the attributes, and can be had again of the caller, need not be kept until here.
        let caller = arch::backtrace::return_address();
        // SAFETY: our caller's promises are what it asks for.
        return unsafe { map_anyhow(kernel, pages, count, flags, PageProtection::KERNEL, caller) };
    }
    // SAFETY: our caller's promises are what it asks for.
    unsafe { map_anyhow(kernel, pages, count, flags, prot, caller) }
}

/// [`vmap`], of more pages or other attributes, or when what is at hand will not do.
///
/// # Safety
/// As for [`vmap`].
#[inline(never)]
unsafe fn map_anyhow(
    kernel: &'static mm::Kernel,
    pages: *const *const Frame,
    count: c_uint,
    flags: c_uint,
    prot: PageProtection,
    caller: VirtAddr,
) -> *mut c_void {
    if pages.is_null() || count == 0 || count > kernel.zones().total() {
        return ptr::null_mut();
    }
    // SAFETY: the caller promises `count` page pointers.
    let pages = unsafe { slice::from_raw_parts(pages, count as usize) };
    match map(kernel, pages, AreaFlags::from_bits(flags), prot, caller) {
        Ok(address) => pointer(address),
        Err(error) => {
            refused("vmap", count.saturating_mul(PAGE_SIZE), &error);
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
            Self::Protection(number) => NoProtection(*number).fmt(f),
            &Self::NoPage { index, page } => {
                write!(f, "page {index}, {page:p}, is no page pointer")
            }
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl Refusal for Unmapped {
    fn cause(&self) -> Cause {
        match self {
            Self::Protection(_) | Self::NoPage { .. } => Cause::Mistake,
            Self::Refused(error) => error.cause(),
        }
    }
}

#[inline(always)]
fn map(
    kernel: &mm::Kernel,
    pages: &[*const Frame],
    flags: AreaFlags,
    prot: PageProtection,
    caller: VirtAddr,
) -> Result<VirtAddr, Unmapped> {
    if prot == PageProtection::KERNEL {
        let mapped = kernel.vmap_pages_anyhow(pages, flags, caller);
        return mapped.map_err(|error| because(pages, error));
    }
    let attributes = prot.attributes().ok_or(Unmapped::Protection(prot))?;
    let table = *kernel.zones().table();
    let frames = pages.iter().map(move |page| table.belonging_at_record(page.addr()));
    let mapped = kernel.vmap_flags(frames, attributes, flags, caller);
    mapped.map(|area| area.pages.start()).map_err(|error| because(pages, error))
}

#[cold]
#[inline(never)]
fn because(pages: &[*const Frame], error: VmapError) -> Unmapped {
    match error {
        VmapError::MissingFrame { index } => {
            Unmapped::NoPage { index, page: pages[index as usize] }
        }
        error => Unmapped::Refused(error),
    }
}

/// Maps `count` page frames that are no RAM, given by their numbers, one after the other, for [`crate::free::vunmap`] to end;
/// null on failure. `prot` is one that no cache serves; RAM is refused, as `ioremap` refuses it (S37, S94).
///
/// # Safety
/// `pfns` points to `count` numbers.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn vmap_pfn(
    pfns: *const c_uint,
    count: c_uint,
    prot: PageProtection,
) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    if pfns.is_null() || count == 0 || count > PAGES_IN_ADDRESS_SPACE {
        return ptr::null_mut();
    }
    // SAFETY: the caller promises `count` numbers.
    let pfns = unsafe { slice::from_raw_parts(pfns, count as usize) };
    let bytes = count.saturating_mul(PAGE_SIZE);
    let Some(attributes) = prot.attributes() else {
        mistake("vmap_pfn", bytes, &NoProtection(prot));
        return ptr::null_mut();
    };
    if let Some(beyond) = pfns.iter().find(|&&number| Pfn::new(number).is_none()) {
        mistake("vmap_pfn", bytes, &format_args!("{beyond:#x} is no number of a frame"));
        return ptr::null_mut();
    }
    let none = PhysAddr::new(0).pfn();
    let frames = pfns.iter().map(move |&number| Pfn::new(number).unwrap_or(none));
    match mm::kernel().vmap_devices(frames, attributes, caller) {
        Ok(area) => pointer(area.pages.start()),
        Err(error) => {
            refused_to(caller, "vmap_pfn", bytes, &error);
            ptr::null_mut()
        }
    }
}
