//! What may be asked of the address space.
//!
//! A size is in bytes, because the rule that aligns I/O mappings looks at the size before it is rounded (S4). All
//! else is in pages: a page number times the page size cannot pass 2³², so nothing here can wrap (S6).

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PAGES_IN_ADDRESS_SPACE, PageRange, VirtAddr, pages_for};

use super::ReserveError;

/// Pages kept unmapped behind every area, so that a run over its end faults (S2).
pub const GUARD_PAGES: u32 = 1;

/// The least size that is refused as too large: rounded up to pages and with the guard added, it and all above it
/// would wrap to zero (S3).
pub const FIRST_REFUSED_SIZE: u32 = 0xffff_f000;

/// Alignments of so many pages, as a power of two, and all greater ones admit page 0 of the address space only.
const ORDER_OF_ADDRESS_SPACE: u32 = PAGES_IN_ADDRESS_SPACE.trailing_zeros();

/// The greatest alignment, as a power of two of bytes, that an I/O mapping gets: a supersection (S4).
pub const IOREMAP_MAX_ORDER: u32 = 24;

/// A request for a run of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Usable bytes wanted; rounded up to whole pages. The guard page comes on top.
    pub bytes: u32,
    /// Where the area and its guard must lie; `None` is the whole managed space.
    pub window: Option<Window>,
    /// What the area's base must be a multiple of.
    pub alignment: Alignment,
}

impl Request {
    /// `bytes` anywhere in the managed space, on any page.
    pub const fn of_bytes(bytes: u32) -> Self {
        Self { bytes, window: None, alignment: Alignment::Page }
    }

    /// The usable pages, if it is one for whatever page of whatever place, and its size is none that is refused as such (S3).
    #[inline(always)]
    pub(crate) const fn plain_pages(&self) -> Option<u32> {
        let plain = self.window.is_none()
            && matches!(self.alignment, Alignment::Page)
            && self.bytes.wrapping_sub(1) < FIRST_REFUSED_SIZE - 1;
        if plain { Some(pages_for(self.bytes)) } else { None }
    }

    /// The alignment of its base in pages, minus one.
    #[inline(always)]
    pub(super) const fn align_mask(&self) -> u32 {
        let order = self.alignment.order_in_pages(self.bytes);
        // From there on no page but the first of the address space is aligned.
        let order = if order < ORDER_OF_ADDRESS_SPACE { order } else { ORDER_OF_ADDRESS_SPACE };
        (1 << order) - 1
    }

    /// Pages that this takes from the space: the usable ones and the guard.
    ///
    /// # Errors
    /// [`ReserveError::ZeroSize`] and [`ReserveError::TooLarge`] (S3).
    pub(crate) const fn pages_with_guard(&self) -> Result<u32, ReserveError> {
        match self.bytes {
            0 => Err(ReserveError::ZeroSize),
            bytes if bytes >= FIRST_REFUSED_SIZE => Err(ReserveError::TooLarge { bytes }),
            bytes => Ok(pages_for(bytes) + GUARD_PAGES),
        }
    }
}

/// Bounds for an area and its guard, in whole pages: they lie in `[first page, end page)`.
///
/// Addresses outside the managed space may be named; they count as taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    first: u32,
    end: u32,
}

impl Window {
    /// From `start` up to and without `end`. A `start` inside a page is rounded up (S5), an `end` inside a page down.
    /// With `end` at or below `start` nothing fits.
    pub const fn new(start: VirtAddr, end: VirtAddr) -> Self {
        Self { first: pages_for(start.raw()), end: end.page_number() }
    }

    /// From `start`, rounded up to a page (S5), to the top of the address space.
    pub const fn to_top(start: VirtAddr) -> Self {
        Self { first: pages_for(start.raw()), end: PAGES_IN_ADDRESS_SPACE }
    }

    /// Exactly `pages`.
    pub const fn of_pages(pages: PageRange) -> Self {
        Self { first: pages.first(), end: pages.end() }
    }

    /// The number of the first page; 2²⁰ if the start was rounded up past the last one.
    pub const fn first(self) -> u32 {
        self.first
    }

    /// The number of the page after the last one; 2²⁰ at the top.
    pub const fn end(self) -> u32 {
        self.end
    }
}

/// What an area's base must be a multiple of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// A page.
    Page,
    /// Two to this power, in pages. From 20 on only address zero is aligned.
    Order(u32),
    /// A power of two chosen from the unrounded size, as for `VM_IOREMAP` areas (S4).
    IoRemap(IoRemapPolicy),
}

impl Alignment {
    /// The alignment of a request for `bytes`, as a power of two of pages.
    #[inline(always)]
    pub const fn order_in_pages(self, bytes: u32) -> u32 {
        match self {
            Self::Page => 0,
            Self::Order(order) => order,
            Self::IoRemap(policy) => policy.order(bytes) - PAGE_SHIFT,
        }
    }
}

/// How the alignment of an I/O mapping follows from its size (S4).
///
/// | bytes | 1 | 0xfff | 0x1000 | 0x1001 | 0x2000 | 1 MiB | 16 MiB | 32 MiB |
/// |---|---|---|---|---|---|---|---|---|
/// | `Seed` | 4 KiB | 4 KiB | 8 KiB | 8 KiB | 16 KiB | 2 MiB | 16 MiB | 16 MiB |
/// | `Modern` | 4 KiB | 4 KiB | 4 KiB | 8 KiB | 8 KiB | 1 MiB | 16 MiB | 16 MiB |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoRemapPolicy {
    /// The position of the size's highest set bit, plus one: an exact power of two is doubled.
    Seed,
    /// The least power of two that is no smaller than the size.
    Modern,
}

impl IoRemapPolicy {
    /// The alignment for `bytes`, as a power of two of bytes, from a page up to a supersection.
    #[inline(always)]
    pub const fn order(self, bytes: u32) -> u32 {
        let order = match self {
            Self::Seed => u32::BITS - bytes.leading_zeros(),
            Self::Modern => u32::BITS - bytes.saturating_sub(1).leading_zeros(),
        };
        if order < PAGE_SHIFT {
            PAGE_SHIFT
        } else if order > IOREMAP_MAX_ORDER {
            IOREMAP_MAX_ORDER
        } else {
            order
        }
    }
}

const _: () = assert!(FIRST_REFUSED_SIZE == 0u32.wrapping_sub(PAGE_SIZE));
