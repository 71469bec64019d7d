//! Addresses are types.
//!
//! A physical address, a virtual address, an address as a device sees it and a page-frame number are four
//! different things that happen to share 32 bits. Mixing two of them up is the classic bug of memory code, so
//! nothing here converts from or to a bare integer without saying so, and all arithmetic is checked: an address
//! that would wrap past 2³² is `None`, never a small number.
//!
//! ```text
//!      31              20 19      12 11        0
//!     ┌──────────────────┬──────────┬───────────┐
//!     │  section (1 MiB) │   page   │  offset   │
//!     └──────────────────┴──────────┴───────────┘
//!      └───── page number / Pfn ────┘
//! ```

use core::fmt;

/// Binary logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a small page, the unit of every mapping (ARM DDI 0406C, B3.5.1).
pub const PAGE_SIZE: u32 = 1 << PAGE_SHIFT;
/// Bytes in a large page.
pub const LARGE_PAGE_SIZE: u32 = 64 << 10;
/// Bytes in a section: what one first-level descriptor covers.
pub const SECTION_SIZE: u32 = 1 << 20;
/// Bytes in a supersection.
pub const SUPERSECTION_SIZE: u32 = 16 << 20;
/// Pages that one second-level table covers.
pub const PAGES_PER_SECTION: u32 = SECTION_SIZE / PAGE_SIZE;
/// Pages that a supersection covers.
pub const PAGES_PER_SUPERSECTION: u32 = SUPERSECTION_SIZE / PAGE_SIZE;
/// Pages in the 32-bit address space.
pub const PAGES_IN_ADDRESS_SPACE: u32 = 1 << (32 - PAGE_SHIFT);

/// The number of pages that `bytes` fill, rounded up; never overflows.
pub const fn pages_for(bytes: u32) -> u32 {
    bytes.div_ceil(PAGE_SIZE)
}

macro_rules! address {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u32);

        impl $name {
            /// Wraps a raw 32-bit value.
            pub const fn new(raw: u32) -> Self {
                Self(raw)
            }

            /// The raw 32-bit value.
            pub const fn raw(self) -> u32 {
                self.0
            }

            /// This address plus `bytes`, or `None` if that passes the top of the address space.
            pub const fn checked_add(self, bytes: u32) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// The distance in bytes from `base` up to this address, or `None` if it lies below `base`.
            pub const fn checked_sub(self, base: Self) -> Option<u32> {
                self.0.checked_sub(base.0)
            }

            /// The offset inside its small page, in bytes.
            pub const fn page_offset(self) -> u32 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// Whether it lies on a page boundary.
            pub const fn is_page_aligned(self) -> bool {
                self.page_offset() == 0
            }

            /// The base of the page that holds this address.
            pub const fn page_base(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// The number of the page that holds this address.
            pub const fn page_number(self) -> u32 {
                self.0 >> PAGE_SHIFT
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#010x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#010x}", self.0)
            }
        }
    };
}

address! {
    /// An address on the processor's memory bus.
    PhysAddr
}
address! {
    /// An address that the processor translates.
    VirtAddr
}
address! {
    /// An address as a bus master other than the processor sees it.
    DmaAddr
}

impl PhysAddr {
    /// The frame that holds this address.
    pub const fn pfn(self) -> Pfn {
        Pfn(self.page_number())
    }
}

/// A page-frame number: a physical address divided by [`PAGE_SIZE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pfn(u32);

impl Pfn {
    /// The frame with this number, or `None` if it lies above 4 GiB.
    pub const fn new(number: u32) -> Option<Self> {
        if number < PAGES_IN_ADDRESS_SPACE { Some(Self(number)) } else { None }
    }

    /// The frame's number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The address of the frame's first byte.
    pub const fn base(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }

    /// The frame `count` frames further, or `None` if it lies above 4 GiB.
    pub const fn checked_add(self, count: u32) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(number) => Self::new(number),
            None => None,
        }
    }

    /// How many frames this one lies above `base`, or `None` if it lies below.
    pub const fn checked_sub(self, base: Self) -> Option<u32> {
        self.0.checked_sub(base.0)
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pfn({:#x})", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A run of whole pages of virtual addresses; it may end at the very top of the address space.
///
/// A range says *where*; it gives no right to touch anything there (that is [`crate::owned_range::OwnedRange`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRange {
    first: u32,
    count: u32,
}

impl PageRange {
    /// No page.
    pub const EMPTY: Self = Self { first: 0, count: 0 };

    /// `count` pages from `start`, which must be page-aligned; `None` if it is not or if the range passes 2³².
    pub const fn new(start: VirtAddr, count: u32) -> Option<Self> {
        if start.is_page_aligned() { Self::from_numbers(start.page_number(), count) } else { None }
    }

    /// `count` pages from page number `first`; `None` if the range passes 2³².
    pub const fn from_numbers(first: u32, count: u32) -> Option<Self> {
        match first.checked_add(count) {
            Some(end) if end <= PAGES_IN_ADDRESS_SPACE && first < PAGES_IN_ADDRESS_SPACE => {
                Some(Self { first, count })
            }
            _ => None,
        }
    }

    /// As [`PageRange::from_numbers`], for who knows that the range passes nothing: it is part of another.
    #[inline(always)]
    pub(crate) const fn within(first: u32, count: u32) -> Self {
        debug_assert!(Self::from_numbers(first, count).is_some(), "part of a range");
        Self { first, count }
    }

    /// The address of the first byte.
    pub const fn start(self) -> VirtAddr {
        VirtAddr(self.first << PAGE_SHIFT)
    }

    /// The number of the first page.
    pub const fn first(self) -> u32 {
        self.first
    }

    /// The number of the page after the last one; 2²⁰ for a range that ends at the top.
    pub const fn end(self) -> u32 {
        self.first + self.count
    }

    /// How many pages it covers.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Whether it covers nothing.
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Bytes covered. A range of the whole address space cannot be expressed and counts as `u32::MAX`.
    pub const fn bytes(self) -> u32 {
        self.count.saturating_mul(PAGE_SIZE)
    }

    /// Whether the byte at `address` lies inside.
    pub const fn contains(self, address: VirtAddr) -> bool {
        // What lies below the first page wraps to a number that is too large.
        address.page_number().wrapping_sub(self.first) < self.count
    }

    /// Whether all of `other` lies inside; an empty range lies inside wherever its start does.
    pub const fn contains_range(self, other: Self) -> bool {
        other.first >= self.first && other.end() <= self.end()
    }

    /// Whether the two have a page in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first < other.end() && other.first < self.end() && self.count != 0 && other.count != 0
    }

    /// The pages in common, or `None` if there are none.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let end = self.end().min(other.end());
        (first < end).then(|| Self { first, count: end - first })
    }

    /// `count` pages from page number `first`, of which the caller has seen that they are part of a range.
    #[inline(always)]
    pub(crate) const fn trusted(first: u32, count: u32) -> Self {
        debug_assert!(Self::from_numbers(first, count).is_some(), "no range");
        Self { first, count }
    }

    /// The `count` pages from the page at `offset`, or `None` if they do not all lie inside.
    pub const fn sub_range(self, offset: u32, count: u32) -> Option<Self> {
        match offset.checked_add(count) {
            Some(end) if end <= self.count => Self::from_numbers(self.first + offset, count),
            _ => None,
        }
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageRange({self})")
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = u64::from(self.end()) << PAGE_SHIFT;
        write!(f, "{:#010x}-{end:#010x}", self.start().raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_would_wrap_is_none() {
        assert_eq!(VirtAddr::new(0xffff_f000).checked_add(0x1000), None);
        assert_eq!(VirtAddr::new(0xffff_f000).checked_add(0xfff), Some(VirtAddr::new(0xffff_ffff)));
        assert_eq!(PhysAddr::new(0x1000).checked_sub(PhysAddr::new(0x1001)), None);
        assert_eq!(Pfn::new(0xf_ffff).and_then(|frame| frame.checked_add(1)), None);
        assert_eq!(Pfn::new(0x10_0000), None);
    }

    #[test]
    fn a_range_may_end_at_the_top_and_not_beyond() {
        let top = PageRange::from_numbers(0xf_ffff, 1).expect("the last page");
        assert_eq!(top.end(), PAGES_IN_ADDRESS_SPACE);
        assert!(top.contains(VirtAddr::new(0xffff_ffff)));
        assert_eq!(PageRange::from_numbers(0xf_ffff, 2), None);
        assert_eq!(PageRange::from_numbers(1, u32::MAX), None);
        assert_eq!(PageRange::new(VirtAddr::new(0x1001), 1), None);
    }

    #[test]
    fn empty_ranges_overlap_nothing() {
        let empty = PageRange::from_numbers(5, 0).expect("a range");
        let wide = PageRange::from_numbers(0, 10).expect("a range");
        assert!(!empty.overlaps(wide) && !wide.overlaps(empty));
        assert_eq!(wide.intersection(empty), None);
    }

    #[test]
    fn a_sub_range_never_leaves_its_range() {
        let range = PageRange::from_numbers(16, 4).expect("a range");
        assert_eq!(range.sub_range(1, 3), PageRange::from_numbers(17, 3));
        assert_eq!(range.sub_range(1, 4), None);
        assert_eq!(range.sub_range(u32::MAX, 2), None);
    }

    /// Every two ranges of a tiny space, against the sets of their pages.
    #[test]
    fn ranges_relate_as_the_sets_of_their_pages_do() {
        let all: Vec<PageRange> = (0..6)
            .flat_map(|first| (0..5).map(move |count| (first, count)))
            .map(|(first, count)| PageRange::from_numbers(7 + first, count).expect("a range"))
            .collect();
        let pages = |range: PageRange| (range.first()..range.end()).collect::<Vec<_>>();
        for a in all.iter().copied() {
            assert_eq!((a.is_empty(), a.bytes()), (pages(a).is_empty(), a.count() << 12), "{a}");
            for page in 5..20 {
                let last = VirtAddr::new((page << PAGE_SHIFT) + 0xfff);
                assert_eq!(a.contains(last), pages(a).contains(&page), "{page} in {a}");
            }
            for b in all.iter().copied() {
                let common: Vec<u32> =
                    pages(a).into_iter().filter(|page| pages(b).contains(page)).collect();
                assert_eq!(a.overlaps(b), !common.is_empty(), "{a} and {b}");
                let both = a.intersection(b).map(pages).unwrap_or_default();
                assert_eq!(both, common, "{a} and {b}");
                let inside = !b.is_empty() && common == pages(b)
                    || b.is_empty() && a.first() <= b.first() && b.first() <= a.end();
                assert_eq!(a.contains_range(b), inside, "{b} in {a}");
            }
        }
    }

    #[test]
    fn the_empty_range_at_the_very_top_has_no_first_page() {
        assert!(PageRange::from_numbers(0xf_ffff, 0).is_some());
        assert_eq!(PageRange::from_numbers(0x10_0000, 0), None);
        let all = PageRange::from_numbers(0, 0x10_0000).expect("the whole address space");
        assert_eq!((all.bytes(), all.sub_range(0x10_0000, 0)), (u32::MAX, None));
    }

    #[test]
    fn an_address_is_a_page_and_an_offset() {
        let address = PhysAddr::new(0x6012_3456);
        assert_eq!((address.page_number(), address.page_offset()), (0x6_0123, 0x456));
        assert_eq!(address.page_base(), PhysAddr::new(0x6012_3000));
        assert!(!address.is_page_aligned() && address.page_base().is_page_aligned());
        assert_eq!(address.pfn(), Pfn(0x6_0123));
        assert_eq!(address.pfn().base(), address.page_base());
        assert_eq!(address.pfn().checked_sub(Pfn(0x6_0100)), Some(0x23));
        assert_eq!(Pfn(0x6_0100).checked_sub(address.pfn()), None);
    }

    #[test]
    fn addresses_are_printed_as_the_manuals_print_them() {
        assert_eq!(PhysAddr::new(0x1000).to_string(), "0x00001000");
        assert_eq!(format!("{:?}", DmaAddr::new(0x1000)), "DmaAddr(0x00001000)");
        assert_eq!(
            (Pfn(0x6_0000).to_string(), format!("{:?}", Pfn(1))),
            ("0x60000".into(), "Pfn(0x1)".into())
        );
        let top = PageRange::from_numbers(0xf_fffe, 2).expect("the last two pages");
        assert_eq!(top.to_string(), "0xffffe000-0x100000000");
        assert_eq!(format!("{top:?}"), "PageRange(0xffffe000-0x100000000)");
    }

    #[test]
    fn bytes_round_up_to_pages_without_wrapping() {
        assert_eq!(pages_for(0), 0);
        assert_eq!(pages_for(1), 1);
        assert_eq!(pages_for(PAGE_SIZE), 1);
        assert_eq!(pages_for(u32::MAX), 0x10_0000);
    }
}
