//! Second-level descriptors: each slot covers 4 KiB (ARM DDI 0406C, Figure B3-5).

use super::{
    BadDescriptor, BadReason, Fields, L2_SLOTS, Misaligned, PageSize, aligned, field, zero_bits,
};
use crate::{
    addr::{LARGE_PAGE_SIZE, PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    attributes::Attributes,
};

/// Slots that a large page fills, all alike.
pub const LARGE_PAGE_SLOTS: u32 = LARGE_PAGE_SIZE / PAGE_SIZE;

const TYPE_MASK: u32 = 0b11;
const TYPE_LARGE: u32 = 0b01;
/// Bit 1 alone says "small page"; bit 0 is XN.
const SMALL: u32 = 0b10;

/// One slot of a second-level table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// Nothing: any access faults.
    Fault,
    /// One of sixteen equal slots that map 64 KiB, aligned to that.
    LargePage(PhysAddr, Attributes),
    /// 4 KiB.
    SmallPage(Pfn, Attributes),
}

/// The index of the slot, in its table, that translates `address`.
pub const fn index(address: VirtAddr) -> u32 {
    address.page_number() % L2_SLOTS
}

/// All of a small page's word but its frame, so that a run of them costs one `or` a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallPages(u32);

impl SmallPages {
    /// For pages with these attributes.
    #[inline(always)]
    pub const fn new(attributes: Attributes) -> Self {
        let f = Fields::of(attributes);
        Self(
            SMALL | f.xn | f.cb << 2 | f.ap << 4 | f.tex << 6 | f.ap2 << 9 | f.s << 10 | f.ng << 11,
        )
    }

    /// The word that maps `frame`.
    #[inline(always)]
    pub const fn word(self, frame: Pfn) -> u32 {
        frame.base().raw() | self.0
    }
}

/// All of a large page's word but its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LargePages(u32);

impl LargePages {
    /// For large pages with these attributes.
    #[inline(always)]
    pub(crate) const fn new(attributes: Attributes) -> Self {
        Self(large_bits(attributes))
    }

    /// The word that maps the sixteen frames from `first` on, which is a multiple of as many.
    #[inline(always)]
    pub(crate) const fn word(self, first: Pfn) -> u32 {
        first.base().raw() | self.0
    }
}

/// Whether `descriptor` is of the small-page kind, well-formed or not.
#[inline(always)]
pub(crate) const fn is_small(descriptor: u32) -> bool {
    descriptor & SMALL != 0
}

/// Whether `descriptor` is of the large-page kind, well-formed or not.
pub(crate) const fn is_large(descriptor: u32) -> bool {
    descriptor & TYPE_MASK == TYPE_LARGE
}

/// What `descriptor` covers if it is of a kind that maps, well-formed or not.
#[inline(always)]
pub(crate) const fn page_size(descriptor: u32) -> Option<PageSize> {
    if is_small(descriptor) {
        Some(PageSize::Small)
    } else if is_large(descriptor) {
        Some(PageSize::Large)
    } else {
        None
    }
}

/// What `descriptor` maps, if it is one of ours and maps something.
pub(crate) const fn mapping(descriptor: u32) -> Result<(PageSize, Attributes), BadDescriptor> {
    match Descriptor::decode(descriptor) {
        Ok(Descriptor::SmallPage(_, attributes)) => Ok((PageSize::Small, attributes)),
        Ok(Descriptor::LargePage(_, attributes)) => Ok((PageSize::Large, attributes)),
        Ok(Descriptor::Fault) => Err(BadDescriptor { descriptor, reason: BadReason::NotAMapping }),
        Err(bad) => Err(bad),
    }
}

const fn large_bits(attributes: Attributes) -> u32 {
    let f = Fields::of(attributes);
    TYPE_LARGE
        | f.cb << 2
        | f.ap << 4
        | f.ap2 << 9
        | f.s << 10
        | f.ng << 11
        | f.tex << 12
        | f.xn << 15
}

/// The fields of either kind of page; TEX and XN are where they differ.
const fn attributes(descriptor: u32, tex: u32, xn: u32) -> Result<Attributes, BadReason> {
    Fields {
        tex,
        cb: field(descriptor, 2, 2),
        s: field(descriptor, 10, 1),
        ap: field(descriptor, 4, 2),
        ap2: field(descriptor, 9, 1),
        xn,
        ng: field(descriptor, 11, 1),
    }
    .attributes()
}

impl Descriptor {
    /// The word for the table.
    ///
    /// # Errors
    /// [`Misaligned`] if the base does not fit the kind.
    pub const fn encode(self) -> Result<u32, Misaligned> {
        match self {
            Self::Fault => Ok(0),
            Self::SmallPage(frame, attributes) => Ok(SmallPages::new(attributes).word(frame)),
            Self::LargePage(base, attributes) => match aligned(base, LARGE_PAGE_SIZE) {
                Ok(bits) => Ok(bits | large_bits(attributes)),
                Err(error) => Err(error),
            },
        }
    }

    /// What `descriptor` means.
    ///
    /// # Errors
    /// [`BadDescriptor`] for every word that [`Descriptor::encode`] never makes.
    pub const fn decode(descriptor: u32) -> Result<Self, BadDescriptor> {
        let decoded = match descriptor & TYPE_MASK {
            0 if descriptor == 0 => Ok(Self::Fault),
            0 => Err(BadReason::Leftover),
            TYPE_LARGE => Self::decode_large(descriptor),
            _ => Self::decode_small(descriptor),
        };
        match decoded {
            Ok(decoded) => Ok(decoded),
            Err(reason) => Err(BadDescriptor { descriptor, reason }),
        }
    }

    const fn decode_large(descriptor: u32) -> Result<Self, BadReason> {
        let attributes = attributes(descriptor, field(descriptor, 12, 3), field(descriptor, 15, 1));
        match (zero_bits(descriptor, 0b111 << 6), attributes) {
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
            (Ok(()), Ok(attributes)) => {
                let base = PhysAddr::new(descriptor & !(LARGE_PAGE_SIZE - 1));
                Ok(Self::LargePage(base, attributes))
            }
        }
    }

    const fn decode_small(descriptor: u32) -> Result<Self, BadReason> {
        match attributes(descriptor, field(descriptor, 6, 3), descriptor & 1) {
            Ok(attributes) => Ok(Self::SmallPage(PhysAddr::new(descriptor).pfn(), attributes)),
            Err(reason) => Err(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{AttributesError, MemoryType, tests::every_attribute};

    fn encode(descriptor: Descriptor) -> u32 {
        descriptor.encode().expect("an aligned base")
    }

    fn frame(number: u32) -> Pfn {
        Pfn::new(number).expect("a frame")
    }

    #[test]
    fn every_attribute_comes_back_from_a_small_and_a_large_page() {
        for attributes in every_attribute() {
            for descriptor in [
                Descriptor::SmallPage(frame(0xf_ffff), attributes),
                Descriptor::LargePage(PhysAddr::new(0xffff_0000), attributes),
            ] {
                assert_eq!(Descriptor::decode(encode(descriptor)), Ok(descriptor));
            }
            let word = encode(Descriptor::LargePage(PhysAddr::new(0xffff_0000), attributes));
            assert_eq!(LargePages::new(attributes).word(frame(0xf_fff0)), word);
        }
    }

    /// Written out by hand from Figure B3-5 and Tables B3-8 and B3-10.
    #[test]
    fn pages_are_the_words_of_the_manual() {
        let small = |attributes| encode(Descriptor::SmallPage(frame(0x6_0010), attributes));
        assert_eq!(small(Attributes::KERNEL_DATA), 0x6001_045f);
        assert_eq!(small(Attributes::KERNEL_RODATA), 0x6001_065f);
        assert_eq!(small(Attributes::KERNEL_TEXT), 0x6001_065e);
        assert_eq!(small(Attributes::DEVICE), 0x6001_0017);
        assert_eq!(small(Attributes::STRONGLY_ORDERED), 0x6001_0013);
        assert_eq!(small(Attributes::WRITE_COMBINE), 0x6001_0453);
        assert_eq!(small(Attributes::WRITE_THROUGH), 0x6001_041b);
        let large =
            |attributes| encode(Descriptor::LargePage(PhysAddr::new(0x6001_0000), attributes));
        assert_eq!(large(Attributes::KERNEL_DATA), 0x6001_941d);
        assert_eq!(large(Attributes::KERNEL_TEXT), 0x6001_161d);
    }

    #[test]
    fn what_we_never_write_is_named_and_not_guessed() {
        let reason = |word| Descriptor::decode(word).map_err(|bad| bad.reason);
        assert_eq!(reason(0), Ok(Descriptor::Fault));
        assert_eq!(reason(4), Err(BadReason::Leftover));
        assert_eq!(reason(0x6001_945d), Err(BadReason::ReservedBits(1 << 6)));
        assert_eq!(reason(0x6001_005f), Err(BadReason::Shareability(MemoryType::NormalWriteBack)));
        assert_eq!(reason(0x6001_0417), Err(BadReason::Shareability(MemoryType::Device)));
        assert_eq!(reason(0x6001_0457), Err(BadReason::MemoryType(0b00101)));
        assert_eq!(reason(0x6001_044f), Err(BadReason::Access(0b000)));
        assert_eq!(reason(0x6001_066f), Err(BadReason::Access(0b110)));
        assert!(matches!(
            reason(0x6001_045e),
            Err(BadReason::Attributes(AttributesError::WritableAndExecutable(_)))
        ));
        assert!(matches!(
            reason(0x6001_0216),
            Err(BadReason::Attributes(AttributesError::ExecutableButNotNormal(_)))
        ));
    }

    #[test]
    fn a_word_decodes_only_if_it_encodes_to_itself() {
        for low in 0..1u32 << 16 {
            let word = 0x6001_0000 | low;
            if let Ok(descriptor) = Descriptor::decode(word) {
                assert_eq!(encode(descriptor), word);
            }
        }
    }
}
