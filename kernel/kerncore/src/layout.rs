//! The address map, in one place.
//!
//! ```text
//! 0xFFFF_FFFF ┌──────────────────────────────────────┐
//!             │ temporary mappings of single frames, │
//!             │ 32 for each CPU                      │
//! 0xFFF0_0000 ├──────────────────────────────────────┤ KMAP_START
//!             │ temporary mappings during boot       │
//! 0xFFE0_0000 ├──────────────────────────────────────┤ TEMPORARY_START
//!             │ static board mappings                │
//! 0xF800_0000 ├──────────────────────────────────────┤ STATIC_START
//!             │ the global allocator's heap          │
//! 0xF000_0000 ├──────────────────────────────────────┤ HEAP_START = VMALLOC_END
//!             │ vmalloc window: vmalloc, vmap,       │
//!             │ ioremap, DMA (`vmalloc=` moves its   │
//!             │ start)                               │
//! 0xC000_0000 ├──────────────────────────────────────┤ LINEAR_END
//!             │ linear map of RAM; the image in it   │
//!             │ (`lowmem=` ends it earlier)          │
//! 0x8000_0000 ├──────────────────────────────────────┤ LINEAR_START = KERNEL_START
//!             │ user (TTBR0)                         │
//! 0x0000_0000 └──────────────────────────────────────┘
//! ```
//!
//! `linker.ld` asserts its own half of this map.

use crate::addr::{PageRange, Pfn, PhysAddr, VirtAddr};

/// Where translation by TTBR1 begins (TTBCR.N = 1).
pub const KERNEL_START: VirtAddr = VirtAddr::new(0x8000_0000);
/// The linear map's first byte.
pub const LINEAR_START: VirtAddr = VirtAddr::new(0x8000_0000);
/// The first byte above the linear map: no RAM beyond it can be mapped linearly.
pub const LINEAR_END: VirtAddr = VirtAddr::new(0xc000_0000);
/// What the linear map's first byte stands for. The board's RAM begins here.
pub const LINEAR_PHYSICAL: PhysAddr = PhysAddr::new(0x6000_0000);
/// The first byte above the vmalloc window.
pub const VMALLOC_END: VirtAddr = VirtAddr::new(0xf000_0000);
/// Bytes of the vmalloc window unless `vmalloc=` says otherwise.
pub const VMALLOC_DEFAULT: u32 = 0x3000_0000;
/// The smallest window that `vmalloc=` may ask for.
pub const VMALLOC_MINIMUM: u32 = 16 << 20;
/// Where the heap's region begins.
pub const HEAP_START: VirtAddr = VirtAddr::new(0xf000_0000);
/// The first byte above the heap's region.
pub const HEAP_END: VirtAddr = VirtAddr::new(0xf800_0000);
/// Where the static board mappings' region begins.
pub const STATIC_START: VirtAddr = VirtAddr::new(0xf800_0000);
/// Where the temporary mappings' region begins.
pub const TEMPORARY_START: VirtAddr = VirtAddr::new(0xffe0_0000);
/// Where the temporary mappings of single frames begin, up to the end of the address space.
pub const KMAP_START: VirtAddr = VirtAddr::new(0xfff0_0000);

/// Bytes that the linear map can hold.
pub const LINEAR_BYTES: u32 = LINEAR_END.raw() - LINEAR_START.raw();

/// The linear address of a physical one, or `None` if it lies outside what the linear map can hold.
pub const fn linear_address(physical: PhysAddr) -> Option<VirtAddr> {
    match physical.checked_sub(LINEAR_PHYSICAL) {
        Some(offset) if offset < LINEAR_BYTES => LINEAR_START.checked_add(offset),
        _ => None,
    }
}

/// The physical address behind a linear one, or `None` if it is not a linear address.
pub const fn linear_physical(address: VirtAddr) -> Option<PhysAddr> {
    match address.checked_sub(LINEAR_START) {
        Some(offset) if offset < LINEAR_BYTES => LINEAR_PHYSICAL.checked_add(offset),
        _ => None,
    }
}

/// The linear pages of `count` frames from `first`, or `None` if some lie outside the linear map.
pub fn linear_pages(first: Pfn, count: u32) -> Option<PageRange> {
    let pages = PageRange::new(linear_address(first.base())?, count)?;
    (pages.end() <= LINEAR_END.page_number()).then_some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linear_map_is_one_to_one_and_ends_where_it_says() {
        assert_eq!(linear_address(PhysAddr::new(0x6001_0000)), Some(VirtAddr::new(0x8001_0000)));
        assert_eq!(linear_physical(VirtAddr::new(0x8001_0000)), Some(PhysAddr::new(0x6001_0000)));
        assert_eq!(linear_address(PhysAddr::new(0x9fff_ffff)), Some(VirtAddr::new(0xbfff_ffff)));
        assert_eq!(linear_address(PhysAddr::new(0xa000_0000)), None);
        assert_eq!(linear_address(PhysAddr::new(0x5fff_ffff)), None);
        assert_eq!(linear_physical(VirtAddr::new(0xc000_0000)), None);
        let last = PhysAddr::new(0x9fff_f000).pfn();
        assert!(linear_pages(last, 1).is_some());
        assert_eq!(linear_pages(last, 2), None);
    }

    #[test]
    fn the_regions_lie_in_order() {
        let edges = [LINEAR_START, LINEAR_END, VMALLOC_END, HEAP_END, TEMPORARY_START];
        assert!(edges.is_sorted());
        assert_eq!(VMALLOC_END.raw() - VMALLOC_DEFAULT, LINEAR_END.raw());
        assert_eq!(HEAP_START, VMALLOC_END);
        assert!((1 << 20..=VMALLOC_DEFAULT).contains(&VMALLOC_MINIMUM), "{VMALLOC_MINIMUM:#x}");
        assert_eq!(STATIC_START, HEAP_END);
    }
}
