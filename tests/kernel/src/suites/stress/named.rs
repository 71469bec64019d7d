//! Memory that is had and given back by C names, as their callers have it.

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::{c_int, c_long, c_void};
use core::mem;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::slice;

use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::coherent::AllocationFlags;
use kerncore::frames::Frame;
use linux::areas::{alloc_vm_area, free_vm_area, get_vm_area, map_vm_area, unmap_vm_area};
use linux::map_ram::{vm_map_ram, vm_unmap_ram};
use linux::objects::{kvfree, kvmalloc};
use linux::page::pointer_to;
use linux::protection::PageProtection;
use linux::read_write::{vread, vwrite};
use mm::page_alloc::Pages;

/// `VM_MAP`.
const VM_MAP: u32 = 0x04;

/// A range of bytes that a C name gave.
pub(super) enum Named {
    /// By `kvmalloc`.
    Object { start: VirtAddr, bytes: u32 },
    /// By `vm_map_ram`, of these pages.
    ShortLived { start: VirtAddr, pages: Vec<Pages> },
    /// By `get_vm_area` or `alloc_vm_area`, whose descriptor lies there, with these pages mapped.
    Bare { start: VirtAddr, descriptor: VirtAddr, pages: Vec<Pages>, reserved: Reserve },
}

/// How a bare area is reserved.
#[derive(Clone, Copy)]
pub(super) enum Reserve {
    /// By `get_vm_area`.
    Plainly,
    /// By `alloc_vm_area`, which says that it is for registers: nobody reads those by `vread`.
    WithTables,
}

pub(super) fn pointer<T>(address: VirtAddr) -> *mut T {
    ptr::with_exposed_provenance_mut(address.raw() as usize)
}

pub(super) fn address<T>(pointer: *const T) -> VirtAddr {
    VirtAddr::new(u32::try_from(pointer.expose_provenance()).expect("32 bits"))
}

/// How many pages that are.
fn count_of(pages: &[Pages]) -> u32 {
    pages.iter().map(Pages::count).sum()
}

fn pointers_to(pages: &[Pages]) -> Vec<*const Frame> {
    pages.iter().flat_map(Pages::frames).map(pointer_to).collect()
}

/// Maps `pages` into all of the area with that descriptor.
fn map(descriptor: VirtAddr, pages: &[Pages]) -> c_int {
    let pointers = pointers_to(pages);
    let mut cursor = pointers.as_ptr();
    // SAFETY: as many page pointers as the area has pages; who has the area owns the pages, and uses them through it alone.
    unsafe { map_vm_area(pointer(descriptor), PageProtection::KERNEL, &raw mut cursor) }
}

impl Named {
    pub(super) fn object(bytes: u32) -> Self {
        let object = kvmalloc(bytes, AllocationFlags::KERNEL);
        assert!(!object.is_null(), "kvmalloc of {bytes} bytes");
        // So that all of it was written once.
        // SAFETY: so many bytes, which nobody else has.
        unsafe { ptr::write_bytes(object.cast::<u8>(), 0xa5, bytes as usize) };
        Self::Object { start: address(object), bytes }
    }

    pub(super) fn short_lived(pages: Vec<Pages>) -> Self {
        let (pointers, count) = (pointers_to(&pages), count_of(&pages));
        // SAFETY: so many page pointers; the pages are kept, and used through the mapping alone.
        let start = unsafe { vm_map_ram(pointers.as_ptr(), count, -1) };
        assert!(!start.is_null(), "vm_map_ram of {count} pages");
        Self::ShortLived { start: address(start), pages }
    }

    /// What is only reserved reads as zeros (S42).
    pub(super) fn bare(pages: Vec<Pages>, reserved: Reserve) -> Self {
        let bytes = count_of(&pages) * PAGE_SIZE;
        let area = match reserved {
            Reserve::Plainly => get_vm_area(bytes, VM_MAP),
            Reserve::WithTables => alloc_vm_area(bytes),
        };
        // SAFETY: the area lives, and its descriptor with it.
        let start = unsafe { area.as_ref() }.expect("addresses").addr();
        assert_reads_as_zero(start, bytes);
        let descriptor = address(area);
        assert_eq!(map(descriptor, &pages), 0, "map_vm_area at {start}");
        Self::Bare { start, descriptor, pages, reserved }
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Object { .. } => "kvmalloc",
            Self::ShortLived { .. } => "vm_map_ram",
            Self::Bare { .. } => "a bare area",
        }
    }

    const fn start(&self) -> VirtAddr {
        match self {
            Self::Object { start, .. }
            | Self::ShortLived { start, .. }
            | Self::Bare { start, .. } => *start,
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Object { bytes, .. } => *bytes as usize,
            Self::ShortLived { pages, .. } | Self::Bare { pages, .. } => {
                (count_of(pages) * PAGE_SIZE) as usize
            }
        }
    }

    /// Unmaps what a bare area has, and maps it again.
    pub(super) fn map_anew(&mut self) {
        let Self::Bare { start, descriptor, pages, .. } = self else { return };
        // SAFETY: `&mut self` says that no slice of it lives.
        unsafe { unmap_vm_area(pointer(*descriptor)) };
        assert_reads_as_zero(*start, count_of(pages) * PAGE_SIZE);
        assert_eq!(map(*descriptor, pages), 0, "map_vm_area once more at {start}");
    }
}

impl Deref for Named {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, readable and written from the first byte on until this is dropped, and this one's alone.
        unsafe { slice::from_raw_parts(pointer(self.start()), self.length()) }
    }
}

impl DerefMut for Named {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(pointer(self.start()), self.length()) }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        match self {
            // SAFETY: the owner is going, so nobody uses it.
            Self::Object { start, .. } => unsafe { kvfree(pointer(*start)) },
            Self::ShortLived { start, pages } => {
                // SAFETY: as above.
                unsafe { vm_unmap_ram(pointer(*start), count_of(pages)) };
                drop(mem::take(pages));
            }
            Self::Bare { descriptor, pages, .. } => {
                // SAFETY: as above.
                unsafe { free_vm_area(pointer(*descriptor)) };
                drop(mem::take(pages));
            }
        }
    }
}

/// `vread`.
pub(super) fn read(from: VirtAddr, to: &mut [u8]) -> usize {
    let count = u32::try_from(to.len()).expect("few");
    // SAFETY: so many bytes, which are the caller's.
    told(unsafe { vread(to.as_mut_ptr(), pointer::<c_void>(from), count) })
}

/// `vwrite`, to what the caller holds.
pub(super) fn write(from: &[u8], to: VirtAddr) -> usize {
    let count = u32::try_from(from.len()).expect("few");
    // SAFETY: so many bytes; of what is written the caller has no slice.
    told(unsafe { vwrite(from.as_ptr(), pointer(to), count) })
}

fn told(count: c_long) -> usize {
    usize::try_from(count).expect("a count")
}

fn assert_reads_as_zero(start: VirtAddr, bytes: u32) {
    let mut seen = alloc::vec![0xee; bytes as usize];
    assert_eq!(read(start, &mut seen), seen.len(), "vread of a bare area at {start}");
    assert!(seen.iter().all(|&byte| byte == 0), "vread of a bare area at {start}");
}
