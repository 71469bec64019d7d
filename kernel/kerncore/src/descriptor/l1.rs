//! First-level descriptors: each covers 1 MiB (ARM DDI 0406C, Figure B3-4).

use super::{
    BadDescriptor, BadReason, Fields, L2_TABLE_SIZE, Misaligned, PageSize, aligned, field,
    zero_bits,
};
use crate::{
    addr::{Pfn, PhysAddr, SECTION_SIZE, SUPERSECTION_SIZE, VirtAddr},
    attributes::Attributes,
};

/// Binary logarithm of what one slot covers.
pub const SLOT_SHIFT: u32 = SECTION_SIZE.trailing_zeros();
/// Slots that a supersection fills, all alike.
pub const SUPERSECTION_SLOTS: u32 = SUPERSECTION_SIZE / SECTION_SIZE;
/// The alignment that a table of the lower half needs with TTBCR.N = 1; a full table needs twice that.
pub const TABLE_ALIGNMENT: u32 = 8 << 10;

const TYPE_MASK: u32 = 0b11;
const TYPE_TABLE: u32 = 0b01;
const TYPE_SECTION: u32 = 0b10;
const SUPERSECTION: u32 = 1 << 18;
const SUPERSECTION_TYPE: u32 = SUPERSECTION | TYPE_SECTION;
/// Everything of a table descriptor that is not its base or type: zero in ours.
const TABLE_OTHER: u32 = (L2_TABLE_SIZE - 1) & !TYPE_MASK;

/// One slot of a first-level table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// Nothing: any access faults.
    Fault,
    /// A second-level table, 1 KiB-aligned.
    Table(PhysAddr),
    /// 1 MiB of consecutive memory, aligned to that.
    Section(PhysAddr, Attributes),
    /// One of sixteen equal slots that map 16 MiB, aligned to that. Below 4 GiB only.
    Supersection(PhysAddr, Attributes),
}

/// The index of the slot that translates `address`.
pub const fn index(address: VirtAddr) -> u32 {
    address.raw() >> SLOT_SHIFT
}

/// The second-level table if `descriptor` is a table descriptor as we write them, without decoding the rest.
#[inline(always)]
pub(crate) const fn table(descriptor: u32) -> Option<PhysAddr> {
    // What is left without the type is the table's address, or it is no such descriptor.
    let table = descriptor.wrapping_sub(TYPE_TABLE);
    if table.is_multiple_of(L2_TABLE_SIZE) { Some(PhysAddr::new(table)) } else { None }
}

/// Whether `descriptor`, which is that of a section or of a supersection, is the latter.
#[inline(always)]
pub(crate) const fn is_supersection(descriptor: u32) -> bool {
    descriptor & SUPERSECTION != 0
}

/// What `descriptor` covers if it is of a kind that maps, well-formed or not.
#[inline(always)]
pub(crate) const fn page_size(descriptor: u32) -> Option<PageSize> {
    match descriptor & (TYPE_MASK | SUPERSECTION) {
        TYPE_SECTION => Some(PageSize::Section),
        SUPERSECTION_TYPE => Some(PageSize::Supersection),
        _ => None,
    }
}

/// What `descriptor` maps, if it is one of ours and maps something.
pub(crate) const fn mapping(descriptor: u32) -> Result<(PageSize, Attributes), BadDescriptor> {
    match Descriptor::decode(descriptor) {
        Ok(Descriptor::Section(_, attributes)) => Ok((PageSize::Section, attributes)),
        Ok(Descriptor::Supersection(_, attributes)) => Ok((PageSize::Supersection, attributes)),
        Ok(Descriptor::Fault | Descriptor::Table(_)) => {
            Err(BadDescriptor { descriptor, reason: BadReason::NotAMapping })
        }
        Err(bad) => Err(bad),
    }
}

const fn attribute_bits(attributes: Attributes) -> u32 {
    let f = Fields::of(attributes);
    TYPE_SECTION
        | f.cb << 2
        | f.xn << 4
        | f.ap << 10
        | f.tex << 12
        | f.ap2 << 15
        | f.s << 16
        | f.ng << 17
}

const fn attributes(descriptor: u32) -> Result<Attributes, BadReason> {
    Fields {
        tex: field(descriptor, 12, 3),
        cb: field(descriptor, 2, 2),
        s: field(descriptor, 16, 1),
        ap: field(descriptor, 10, 2),
        ap2: field(descriptor, 15, 1),
        xn: field(descriptor, 4, 1),
        ng: field(descriptor, 17, 1),
    }
    .attributes()
}

/// Sections with the same attributes: what one has but for its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sections(u32);

impl Sections {
    /// With these attributes.
    pub(crate) const fn new(attributes: Attributes) -> Self {
        Self(attribute_bits(attributes))
    }

    /// Supersections with these attributes, each of whose sixteen slots has the same word.
    pub(crate) const fn supersections(attributes: Attributes) -> Self {
        Self(SUPERSECTION | attribute_bits(attributes))
    }

    /// The word for the section or supersection of frames from `first` on, which is aligned to it.
    #[inline(always)]
    pub(crate) const fn word(self, first: Pfn) -> u32 {
        first.base().raw() | self.0
    }
}

impl Descriptor {
    /// The word for the table.
    ///
    /// # Errors
    /// [`Misaligned`] if the base does not fit the kind.
    pub const fn encode(self) -> Result<u32, Misaligned> {
        let (base, alignment, rest) = match self {
            Self::Fault => return Ok(0),
            Self::Table(base) => (base, L2_TABLE_SIZE, TYPE_TABLE),
            Self::Section(base, attributes) => (base, SECTION_SIZE, attribute_bits(attributes)),
            Self::Supersection(base, attributes) => {
                (base, SUPERSECTION_SIZE, SUPERSECTION | attribute_bits(attributes))
            }
        };
        match aligned(base, alignment) {
            Ok(bits) => Ok(bits | rest),
            Err(error) => Err(error),
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
            TYPE_TABLE => Self::decode_table(descriptor),
            TYPE_SECTION => Self::decode_section(descriptor),
            _ => Err(BadReason::ReservedType),
        };
        match decoded {
            Ok(decoded) => Ok(decoded),
            Err(reason) => Err(BadDescriptor { descriptor, reason }),
        }
    }

    const fn decode_table(descriptor: u32) -> Result<Self, BadReason> {
        match (field(descriptor, 5, 4), table(descriptor)) {
            (_, Some(base)) => Ok(Self::Table(base)),
            (0, None) => Err(BadReason::ReservedBits(descriptor & TABLE_OTHER)),
            (domain, None) => Err(BadReason::Domain(domain)),
        }
    }

    const fn decode_section(descriptor: u32) -> Result<Self, BadReason> {
        let is_super = descriptor & SUPERSECTION != 0;
        let domain = field(descriptor, 5, 4);
        // NS and the implementation-defined bit 9; for a supersection also the address bits above 4 GiB.
        let reserved =
            if is_super { 1 << 19 | 1 << 9 | 0xf << 20 | 0xf << 5 } else { 1 << 19 | 1 << 9 };
        if !is_super && domain != 0 {
            return Err(BadReason::Domain(domain));
        }
        match (zero_bits(descriptor, reserved), attributes(descriptor)) {
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
            (Ok(()), Ok(attributes)) if is_super => {
                let base = PhysAddr::new(descriptor & !(SUPERSECTION_SIZE - 1));
                Ok(Self::Supersection(base, attributes))
            }
            (Ok(()), Ok(attributes)) => {
                let base = PhysAddr::new(descriptor & !(SECTION_SIZE - 1));
                Ok(Self::Section(base, attributes))
            }
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

    #[test]
    fn every_attribute_comes_back_from_a_section_and_a_supersection() {
        for attributes in every_attribute() {
            for descriptor in [
                Descriptor::Section(PhysAddr::new(0xfff0_0000), attributes),
                Descriptor::Supersection(PhysAddr::new(0xff00_0000), attributes),
            ] {
                assert_eq!(Descriptor::decode(encode(descriptor)), Ok(descriptor));
            }
        }
    }

    #[test]
    fn the_word_of_sections_is_that_of_each() {
        let first = Pfn::new(0x6_0300).expect("a frame");
        for attributes in every_attribute() {
            let word = encode(Descriptor::Section(first.base(), attributes));
            assert_eq!(Sections::new(attributes).word(first), word);
            let first = Pfn::new(0x6_1000).expect("a frame");
            let word = encode(Descriptor::Supersection(first.base(), attributes));
            assert_eq!(Sections::supersections(attributes).word(first), word);
        }
    }

    /// Written out by hand from Figure B3-4 and Tables B3-8 and B3-10, so that a field in the wrong place in both
    /// directions does not pass.
    #[test]
    fn sections_are_the_words_of_the_manual() {
        let at = |attributes| encode(Descriptor::Section(PhysAddr::new(0x6010_0000), attributes));
        assert_eq!(at(Attributes::KERNEL_DATA), 0x6011_141e);
        assert_eq!(at(Attributes::KERNEL_RODATA), 0x6011_941e);
        assert_eq!(at(Attributes::KERNEL_TEXT), 0x6011_940e);
        assert_eq!(at(Attributes::DEVICE), 0x6010_0416);
        assert_eq!(at(Attributes::STRONGLY_ORDERED), 0x6010_0412);
        assert_eq!(at(Attributes::WRITE_COMBINE), 0x6011_1412);
        let large = Descriptor::Supersection(PhysAddr::new(0x6100_0000), Attributes::KERNEL_DATA);
        assert_eq!(encode(large), 0x6105_141e);
        assert_eq!(encode(Descriptor::Table(PhysAddr::new(0x6000_0400))), 0x6000_0401);
    }

    #[test]
    fn a_base_that_does_not_fit_is_refused() {
        let base = PhysAddr::new(0x6018_0200);
        let refused = |alignment| Err(Misaligned { base, alignment });
        assert_eq!(Descriptor::Table(base).encode(), refused(0x400));
        assert_eq!(Descriptor::Section(base, Attributes::DEVICE).encode(), refused(0x10_0000));
        assert_eq!(
            Descriptor::Supersection(base, Attributes::DEVICE).encode(),
            refused(0x100_0000)
        );
    }

    #[test]
    fn what_we_never_write_is_named_and_not_guessed() {
        let reason = |word| Descriptor::decode(word).map_err(|bad| bad.reason);
        assert_eq!(reason(0), Ok(Descriptor::Fault));
        assert_eq!(reason(0x6000_0000), Err(BadReason::Leftover));
        assert_eq!(reason(0x6000_0403), Err(BadReason::ReservedType));
        assert_eq!(reason(0x6000_0421), Err(BadReason::Domain(1)));
        assert_eq!(reason(0x6000_0409), Err(BadReason::ReservedBits(8)));
        assert_eq!(reason(0x6011_143e), Err(BadReason::Domain(1)));
        assert_eq!(reason(0x6019_141e), Err(BadReason::ReservedBits(1 << 19)));
        assert_eq!(reason(0x6115_141e), Err(BadReason::ReservedBits(1 << 20)));
        assert_eq!(reason(0x6105_143e), Err(BadReason::ReservedBits(1 << 5)));
        assert_eq!(reason(0x6010_141e), Err(BadReason::Shareability(MemoryType::NormalWriteBack)));
        assert_eq!(reason(0x6011_041e), Err(BadReason::MemoryType(0b00011)));
        assert_eq!(reason(0x6011_101e), Err(BadReason::Access(0b000)));
        assert_eq!(reason(0x6011_901e), Err(BadReason::Access(0b100)));
        assert_eq!(reason(0x6011_981e), Err(BadReason::Access(0b110)));
    }

    #[test]
    fn a_word_decodes_only_if_it_encodes_to_itself() {
        // Every word whose middle bits run through all values, at two bases.
        for base in [0u32, 0x6100_0000] {
            for low in 0..1u32 << 20 {
                let word = base | low;
                if let Ok(descriptor) = Descriptor::decode(word) {
                    assert_eq!(encode(descriptor), word);
                }
            }
        }
    }

    #[test]
    fn forbidden_combinations_are_refused_as_such() {
        // KERNEL_DATA with XN cleared.
        let error = Descriptor::decode(0x6011_140e).expect_err("writable and executable");
        assert!(matches!(
            error.reason,
            BadReason::Attributes(AttributesError::WritableAndExecutable(_))
        ));
    }
}
