//! Copying and filling memory.
//!
//! The compiler calls `memcpy`, `memmove` and `memset`, under these names and those of the run-time ABI for Arm, for
//! Rust's own copies and fills. The ones defined here are strong symbols and so take the place of the generic ones that
//! come with the compiler, which go by single words. [`zero_pages`] is for what the kernel zeroes most.

use kerncore::addr::PageRange;

core::arch::global_asm!(include_str!("copy.S"), options(raw));
core::arch::global_asm!(include_str!("fill.S"), options(raw));

unsafe extern "C" {
    fn memory_zero_pages(first: u32, bytes: u32);
}

/// Fills `pages` with zeros, by store-multiple: about 170 instructions a page.
///
/// # Safety
/// The pages must be mapped writable, and nothing may rely on what they held.
///
/// # Panics
/// If `pages` is the whole address space, of which nobody can say that.
#[inline]
pub unsafe fn zero_pages(pages: PageRange) {
    assert!(pages.count() < 1 << 20, "the whole address space is not to be zeroed");
    if !pages.is_empty() {
        // SAFETY: by the caller's promise; start and size are multiples of the page size, and the size is not zero.
        unsafe { memory_zero_pages(pages.start().raw(), pages.bytes()) };
    }
}
