//! An entry of a scatter list, as C callers lay it out.
//!
//! ```text
//!   link     31                    2   1     0        a page pointer is a multiple of 16, so two bits are free
//!           ┌───────────────────────┬─────┬───────┐
//!           │ page pointer, or list │ end │ chain │    chain: it points to entries that follow, and is no piece itself
//!           └───────────────────────┴─────┴───────┘    end:   no entry follows
//! ```

use crate::addr::{DmaAddr, PAGE_SIZE};

/// One piece of memory: for the processor a page and bytes in it and behind it, for a device an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ScatterEntry {
    link: u32,
    /// How far it begins into its page.
    pub offset: u32,
    /// How many bytes it has.
    pub length: u32,
    /// Where a device sees it, once it is mapped.
    pub dma_address: DmaAddr,
    /// How many bytes a device sees there.
    pub dma_length: u32,
}

/// Where an entry points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// To a page, by the address of its frame's record; to none if that is zero.
    Page(u32),
    /// To the entry that follows.
    Chain(u32),
}

impl ScatterEntry {
    const CHAIN: u32 = 1;
    const END: u32 = 2;

    /// An entry of no memory.
    pub const EMPTY: Self =
        Self { link: 0, offset: 0, length: 0, dma_address: DmaAddr::new(0), dma_length: 0 };

    /// Makes `entries` a list of no memory that ends with the last.
    pub fn initialise(entries: &mut [Self]) {
        entries.fill(Self::EMPTY);
        if let Some(last) = entries.last_mut() {
            last.link = Self::END;
        }
    }

    /// Where it points.
    pub const fn link(&self) -> Link {
        let pointer = self.link & !(Self::CHAIN | Self::END);
        if self.link & Self::CHAIN == 0 { Link::Page(pointer) } else { Link::Chain(pointer) }
    }

    /// The address of the record of its page, if it is all of one, and none that leads to others.
    #[inline(always)]
    pub const fn whole_page(&self) -> Option<u32> {
        let differs = self.offset | self.length ^ PAGE_SIZE | self.link & Self::CHAIN;
        if differs == 0 { Some(self.link & !Self::END) } else { None }
    }

    /// The same, of one that is not the last.
    #[inline(always)]
    pub const fn whole_page_within(&self) -> Option<u32> {
        const { assert!(Self::CHAIN | Self::END == 3, "the two lowest bits") };
        let differs = self.offset | self.length ^ PAGE_SIZE | self.link << 30;
        if differs == 0 { Some(self.link) } else { None }
    }

    /// Whether it is the last.
    pub const fn is_last(&self) -> bool {
        self.link & Self::END != 0
    }

    /// Makes it `length` bytes from `offset` into the page whose record is at the address `page`. Whether it is the last stays.
    pub const fn set_page(&mut self, page: u32, length: u32, offset: u32) {
        self.link = self.link & Self::END | page & !(Self::CHAIN | Self::END);
        (self.length, self.offset) = (length, offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_with_its_last_entry_whatever_is_put_in() {
        let mut entries = [ScatterEntry { link: 0x1233, ..ScatterEntry::EMPTY }; 3];
        ScatterEntry::initialise(&mut entries);
        assert_eq!(entries.map(|entry| entry.is_last()), [false, false, true]);
        for entry in &mut entries {
            entry.set_page(0x8123_4560, 100, 8);
            assert_eq!(entry.link(), Link::Page(0x8123_4560));
            assert_eq!((entry.length, entry.offset), (100, 8));
        }
        assert_eq!(entries.map(|entry| entry.is_last()), [false, false, true]);
        ScatterEntry::initialise(&mut []);
    }

    #[test]
    fn an_entry_that_leads_to_others_is_told_from_a_page() {
        let chain = ScatterEntry { link: 0x8000_0000 | ScatterEntry::CHAIN, ..ScatterEntry::EMPTY };
        assert_eq!(chain.link(), Link::Chain(0x8000_0000));
        assert_eq!(ScatterEntry::EMPTY.link(), Link::Page(0));
    }

    #[test]
    fn all_of_a_page_is_told_from_a_part_of_one() {
        let mut entries = [ScatterEntry::EMPTY; 2];
        ScatterEntry::initialise(&mut entries);
        for entry in &mut entries {
            for (length, offset) in
                [(1, 0), (0, 0), (0xfff, 1), (0x1000, 1), (0x2000, 0), (1, 0xfff)]
            {
                entry.set_page(0x8123_4560, length, offset);
                assert_eq!(entry.whole_page_within(), None, "{length:#x} from {offset:#x}");
                assert_eq!(entry.whole_page(), None, "{length:#x} from {offset:#x}");
            }
            entry.set_page(0x8123_4560, 0x1000, 0);
            assert_eq!(entry.whole_page(), Some(0x8123_4560));
            let within = (!entry.is_last()).then_some(0x8123_4560);
            assert_eq!(entry.whole_page_within(), within);
            entry.link |= ScatterEntry::CHAIN;
            assert_eq!(entry.whole_page_within(), None, "it leads to others");
            assert_eq!(entry.whole_page(), None, "it leads to others");
        }
    }

    /// As in the header for C.
    #[test]
    fn an_entry_is_five_words() {
        assert_eq!(size_of::<ScatterEntry>(), 20);
        assert_eq!(core::mem::offset_of!(ScatterEntry, dma_address), 12);
    }
}
