//! Where this board's devices lie.
//!
//! Data and nothing else: addresses, sizes and interrupt numbers, each with the document or the measurement it comes
//! from. The images read it and pass it down; no layer below them names a board, so that another board is another
//! module here and another word in the images.
//!
//! An address in this crate is a *place*. It gives no right to touch anything there: that is what mapping it gives
//! (`mm`'s `IoMem` for registers, the page-frame allocator for RAM).
#![no_std]
#![forbid(unsafe_code)]

pub mod vexpress_a9;

use core::fmt;
use kerncore::addr::{PAGE_SIZE, PhysAddr};
use kerncore::bus::BusRange;

/// A named piece of the physical address space. Not necessarily whole pages: several devices may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// What lies there, as `/proc/iomem` would call it.
    pub name: &'static str,
    /// Its first byte.
    pub base: PhysAddr,
    /// Its length in bytes; never zero.
    pub size: u32,
}

impl Region {
    /// The `size` bytes at `base`.
    ///
    /// # Panics
    ///
    /// In a constant's evaluation, if the region is empty or passes the top of the address space.
    pub const fn new(name: &'static str, base: u32, size: u32) -> Self {
        assert!(size != 0, "a region holds at least a byte");
        assert!(base.checked_add(size - 1).is_some(), "a region ends below 4 GiB");
        Self { name, base: PhysAddr::new(base), size }
    }

    /// The address of the last byte. (The one after it may lie above 4 GiB and so have no name.)
    pub const fn last(self) -> PhysAddr {
        PhysAddr::new(self.base.raw() + (self.size - 1))
    }

    /// The same range, for those who know no boards.
    pub const fn on_bus(self) -> BusRange {
        BusRange { name: self.name, first: self.base, last: self.last() }
    }

    /// Whether the byte at `address` lies inside.
    pub const fn contains(self, address: PhysAddr) -> bool {
        address.raw() >= self.base.raw() && address.raw() <= self.last().raw()
    }

    /// Whether the two have a byte in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.base.raw() <= other.last().raw() && other.base.raw() <= self.last().raw()
    }

    /// The part of `size` bytes from `offset`.
    ///
    /// # Panics
    ///
    /// In a constant's evaluation, if that part is empty or does not lie inside.
    pub const fn part(self, name: &'static str, offset: u32, size: u32) -> Self {
        assert!(offset < self.size && size <= self.size - offset, "a part lies inside its region");
        Self::new(name, self.base.raw() + offset, size)
    }

    /// Whether it starts and ends at page boundaries, so that mapping it shows nothing else.
    pub const fn is_page_aligned(self) -> bool {
        self.base.is_page_aligned() && self.size.is_multiple_of(PAGE_SIZE)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}-{:#010x} {}", self.base.raw(), self.last().raw(), self.name)
    }
}

/// An interrupt as the GIC numbers it: 0 to 15 software, 16 to 31 private to a CPU, 32 and up shared
/// (ARM IHI 0048B, 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interrupt(u16);

impl Interrupt {
    /// The first interrupt that all CPUs share.
    pub const FIRST_SHARED: u16 = 32;

    /// The private peripheral interrupt with GIC number `id`, 16 to 31.
    const fn private(id: u16) -> Self {
        assert!(id >= 16 && id < Self::FIRST_SHARED, "private interrupts are 16 to 31");
        Self(id)
    }

    /// The shared interrupt on input `line` of the board, as its manual counts them from 0.
    const fn shared(line: u16) -> Self {
        Self(Self::FIRST_SHARED + line)
    }

    /// The number the GIC's registers use.
    pub const fn id(self) -> u16 {
        self.0
    }

    /// Whether each CPU has one of its own.
    pub const fn is_private(self) -> bool {
        self.0 < Self::FIRST_SHARED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_may_end_at_the_top_of_the_address_space() {
        let top = Region::new("top", 0xffff_f000, 0x1000);
        assert_eq!(top.last(), PhysAddr::new(0xffff_ffff));
        assert!(
            top.contains(PhysAddr::new(0xffff_ffff)) && !top.contains(PhysAddr::new(0xffff_efff))
        );
        assert!(!top.overlaps(Region::new("bottom", 0, 0x1000)));
    }

    #[test]
    fn regions_that_share_one_byte_overlap_and_neighbours_do_not() {
        let one = Region::new("one", 0x1000, 0x1000);
        assert!(one.overlaps(Region::new("last byte", 0x1fff, 1)));
        assert!(one.overlaps(Region::new("around", 0, 0x4000)));
        assert!(!one.overlaps(Region::new("after", 0x2000, 1)));
        assert!(!one.overlaps(Region::new("before", 0, 0x1000)));
    }

    #[test]
    #[should_panic(expected = "a part lies inside its region")]
    fn a_part_that_leaves_its_region_is_refused() {
        let _ = Region::new("one", 0x1000, 0x1000).part("beyond", 0x800, 0x801);
    }
}
