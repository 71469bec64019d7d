//! The array of page pointers that an area of vmalloc has (S27, S85a).
//!
//! ```text
//!   pointers      where                                          whose
//!   ────────      ─────                                          ─────
//!   up to 16      in the area's own record                       nobody has to free it
//!   a section's   among the pointers to all frames, read-only    nobody's
//!   up to 1,024   a frame of low memory                          the record's
//!   more          an area of its own, of kind page array: the    its own; it is tagged on the area that it serves
//!                 areas' nesting ends there, for its frames      (VM_VPAGES) and lives exactly as long
//!                 have no array
//! ```
//!
//! Memory other than the record's is zero behind the pointers; in a record nothing counts that [`nr_pages`] does not.
//!
//! [`nr_pages`]: crate::area::VmStruct::nr_pages
//!
//! The pointers to all frames are [`crate::frames::Pointers`]: an area that is one block from the buddy allocator (`vmalloc_huge` of one
//! section) has a window of them. What is behind that are pointers to others' frames.
//!
//! A pointer is the address of the frame's record in the frame table. C callers read the array, and may write to it as to any
//! memory; what the kernel frees is in the record's mapping. A null that it finds when the area goes is fatal (S33): somebody
//! has written over it.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::addr::{PAGE_SIZE, PageRange, Pfn};
use crate::frames::FrameBlock;

/// How many pointers a record has room for.
pub const WITHIN: usize = 16;

/// Of these, the words for who has a coherent buffer.
pub const FOR_HOLDER: usize = 2;
/// How many pointers a frame has room for; more lie in an area (S27).
pub const IN_A_FRAME: u32 = PAGE_SIZE / (u32::BITS / u8::BITS);

/// Where the pointers of an area lie.
///
/// What it is is a whole word, so that moving one moves words.
#[derive(Debug, Default)]
#[repr(u32)]
#[must_use = "dropping an array leaks its memory"]
pub enum PageArray {
    /// In the record, or there are none.
    #[default]
    Within,
    /// In a frame of low memory.
    Frame(FrameBlock),
    /// In an area that nobody else removes.
    Area(ArrayArea),
    /// Among the pointers to all frames.
    Shared {
        /// The first frame.
        first: Pfn,
        /// How many.
        pages: u32,
    },
}

impl PageArray {
    /// How many pointers it has room for: nobody writes any among the pointers to all frames.
    pub const fn capacity(&self) -> u32 {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "it is 16")]
            Self::Within => WITHIN as u32,
            Self::Frame(block) => block.pages() * IN_A_FRAME,
            Self::Area(area) => area.pages.count() * IN_A_FRAME,
            Self::Shared { .. } => 0,
        }
    }
}

/// A live area of kind page array, and the right to it: there is one such handle for each, made when the area was mapped and
/// given up before it is unmapped.
#[derive(Debug)]
#[must_use = "dropping it leaks the area"]
pub struct ArrayArea {
    pages: PageRange,
}

impl ArrayArea {
    /// The right to the area of usable `pages`, which is mapped.
    pub(crate) const fn new(pages: PageRange) -> Self {
        Self { pages }
    }

    /// Its usable pages.
    pub const fn pages(&self) -> PageRange {
        self.pages
    }

    /// Gives the right up.
    pub(crate) const fn into_pages(self) -> PageRange {
        self.pages
    }
}

/// The first of these pointers that is null, if any is; `common` are the bits that all of them have.
#[inline(always)]
pub(crate) fn first_null(words: &[AtomicU32], common: u32) -> Option<usize> {
    // Pointers have the topmost bit, for the linear map lies in the upper half: what all of them have, none lacks.
    if common >> 31 == 1 { None } else { look_for_null(words) }
}

#[cold]
#[inline(never)]
fn look_for_null(words: &[AtomicU32]) -> Option<usize> {
    words.iter().position(|word| word.load(Relaxed) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;
    use crate::machine::common_bits;

    #[test]
    fn an_array_has_room_for_what_its_memory_holds_s27() {
        let pages = PageRange::from_numbers(0xc_0000, 2).expect("a range");
        let area = PageArray::Area(ArrayArea::new(pages));
        assert_eq!((PageArray::Within.capacity(), area.capacity()), (16, 2048));
        let shared = PageArray::Shared { first: PhysAddr::new(0).pfn(), pages: 256 };
        assert_eq!(shared.capacity(), 0, "nobody writes there");
        assert_eq!(IN_A_FRAME, 1024, "the boundary of S27");
    }

    #[test]
    fn a_null_is_found_wherever_it_is_and_whatever_else_is_there_s33() {
        for pointers in [0x8000_0010, 0x10, u32::MAX] {
            for count in 0..19 {
                let words: Vec<_> = (0..count).map(|_| AtomicU32::new(pointers)).collect();
                assert_eq!(first_null(&words, common_bits(&words)), None);
                for (index, word) in words.iter().enumerate() {
                    word.store(0, Relaxed);
                    assert_eq!(
                        first_null(&words, common_bits(&words)),
                        Some(index),
                        "{count} of {pointers:#x}"
                    );
                    word.store(pointers, Relaxed);
                }
            }
        }
    }
}
