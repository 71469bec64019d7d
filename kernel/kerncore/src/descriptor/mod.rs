//! Short-descriptor translation tables, word by word (ARM DDI 0406C, B3.5.1).
//!
//! Encoding is typed and decoding is total: every one of the 2³² words is either something this project writes or
//! a [`BadDescriptor`] that says why not. Nothing is guessed, because an audit that guesses proves nothing.
//!
//! ```text
//!                      31           20 19 18 17 16 15 14  12 11 10  9  8    5  4  3  2  1  0
//!   L1 fault          │                            must be zero here                  │ 0  0│
//!   L1 table          │ table base [31:10]                        │ 0│domain│ 0  0  0│ 0  1│
//!   L1 section        │ base       │ 0│ 0│nG│ S│A2│ TEX  │ AP  │ 0│domain│XN│ C│ B│ 1  0│
//!   L1 supersection   │base│  zero │ 0│ 1│nG│ S│A2│ TEX  │ AP  │ 0│ zero │XN│ C│ B│ 1  0│
//!   L2 large page     │ base [31:16]          │XN│ TEX  │nG│ S│A2│ 0  0  0│ AP│ C│ B│ 0  1│
//!   L2 small page     │ base [31:12]                    │nG│ S│A2│  TEX   │ AP│ C│ B│ 1 XN│
//! ```
//! `A2` is AP\[2\]. SCTLR.TRE = 0 (TEX, C and B name the memory type themselves) and SCTLR.AFE = 0 (AP has three
//! bits). Everything is in domain 0.

use crate::{
    addr::{LARGE_PAGE_SIZE, PAGE_SIZE, PhysAddr, SECTION_SIZE, SUPERSECTION_SIZE},
    attributes::{Access, Attributes, AttributesError, Execute, MemoryType, Scope},
};
use core::fmt;

pub mod l1;
pub mod l2;

/// Bytes in a slot of either level.
pub const SLOT_SIZE: u32 = 4;
/// Slots in a second-level table; it fills 1 KiB and is aligned to that.
pub const L2_SLOTS: u32 = 256;
/// Bytes in a second-level table, and its alignment.
pub const L2_TABLE_SIZE: u32 = L2_SLOTS * SLOT_SIZE;

/// What one mapping covers, and its alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 64 KiB.
    Large,
    /// 1 MiB.
    Section,
    /// 16 MiB.
    Supersection,
}

impl PageSize {
    /// Bytes covered.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Small => PAGE_SIZE,
            Self::Large => LARGE_PAGE_SIZE,
            Self::Section => SECTION_SIZE,
            Self::Supersection => SUPERSECTION_SIZE,
        }
    }
}

/// A word that is no descriptor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDescriptor {
    /// The whole word.
    pub descriptor: u32,
    /// What is wrong with it.
    pub reason: BadReason,
}

/// What is wrong with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadReason {
    /// Not present, but not zero either: bits that the walker ignores were left behind (S21).
    Leftover,
    /// Well-formed, but empty or a table where a mapping was asked for.
    NotAMapping,
    /// First-level type 0b11: reserved on processors without PXN.
    ReservedType,
    /// It lies in this domain instead of domain 0.
    Domain(u32),
    /// These bits are set and should be zero.
    ReservedBits(u32),
    /// TEX, C and B (in this order, five bits) name no memory type that this project uses.
    MemoryType(u32),
    /// The S bit does not fit the memory type: Normal memory is shareable here, the others leave it clear.
    Shareability(MemoryType),
    /// AP\[2:0\] is no access, reserved, or the deprecated encoding of read-only.
    Access(u32),
    /// Well-formed and forbidden.
    Attributes(AttributesError),
}

/// A base address that its kind of descriptor cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misaligned {
    /// The address.
    pub base: PhysAddr,
    /// What it should be a multiple of, in bytes.
    pub alignment: u32,
}

/// The bits of `base` if it is a multiple of `alignment`, a power of two.
const fn aligned(base: PhysAddr, alignment: u32) -> Result<u32, Misaligned> {
    if base.raw() & (alignment - 1) == 0 {
        Ok(base.raw())
    } else {
        Err(Misaligned { base, alignment })
    }
}

/// The attribute fields, before each format puts them in its own places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    /// TEX\[2:0\].
    tex: u32,
    /// C and B, C the higher.
    cb: u32,
    /// Shareable.
    s: u32,
    /// AP\[1:0\].
    ap: u32,
    /// AP\[2\].
    ap2: u32,
    /// Execute-never.
    xn: u32,
    /// Not global.
    ng: u32,
}

impl Fields {
    #[inline(always)]
    const fn of(attributes: Attributes) -> Self {
        // ARM DDI 0406C, Table B3-10 (TRE = 0).
        let (tex, cb, s) = match attributes.memory() {
            MemoryType::StronglyOrdered => (0b000, 0b00, 0),
            MemoryType::Device => (0b000, 0b01, 0),
            MemoryType::NormalWriteThrough => (0b000, 0b10, 1),
            MemoryType::NormalNonCacheable => (0b001, 0b00, 1),
            MemoryType::NormalWriteBack => (0b001, 0b11, 1),
        };
        // ARM DDI 0406C, Table B3-8 (AFE = 0).
        let (ap2, ap) = match attributes.access() {
            Access::KernelReadWrite => (0, 0b01),
            Access::UserReadOnlyKernelReadWrite => (0, 0b10),
            Access::UserReadWrite => (0, 0b11),
            Access::KernelReadOnly => (1, 0b01),
            Access::UserReadOnly => (1, 0b11),
        };
        let xn = match attributes.execute() {
            Execute::Never => 1,
            Execute::Allowed => 0,
        };
        let ng = match attributes.scope() {
            Scope::Global => 0,
            Scope::NonGlobal => 1,
        };
        Self { tex, cb, s, ap, ap2, xn, ng }
    }

    const fn attributes(self) -> Result<Attributes, BadReason> {
        let memory = match (self.tex, self.cb) {
            (0b000, 0b00) => MemoryType::StronglyOrdered,
            (0b000, 0b01) => MemoryType::Device,
            (0b000, 0b10) => MemoryType::NormalWriteThrough,
            (0b001, 0b00) => MemoryType::NormalNonCacheable,
            (0b001, 0b11) => MemoryType::NormalWriteBack,
            (tex, cb) => return Err(BadReason::MemoryType(tex << 2 | cb)),
        };
        if (self.s == 1) != memory.is_normal() {
            return Err(BadReason::Shareability(memory));
        }
        let access = match (self.ap2, self.ap) {
            (0, 0b01) => Access::KernelReadWrite,
            (0, 0b10) => Access::UserReadOnlyKernelReadWrite,
            (0, 0b11) => Access::UserReadWrite,
            (1, 0b01) => Access::KernelReadOnly,
            (1, 0b11) => Access::UserReadOnly,
            (ap2, ap) => return Err(BadReason::Access(ap2 << 2 | ap)),
        };
        let execute = if self.xn == 1 { Execute::Never } else { Execute::Allowed };
        let scope = if self.ng == 1 { Scope::NonGlobal } else { Scope::Global };
        match Attributes::new(memory, access, execute, scope) {
            Ok(attributes) => Ok(attributes),
            Err(error) => Err(BadReason::Attributes(error)),
        }
    }
}

/// The field of `width` bits of `word` whose lowest bit is `low`.
const fn field(word: u32, low: u32, width: u32) -> u32 {
    word >> low & ((1 << width) - 1)
}

/// `Ok` if none of the bits of `mask` is set.
const fn zero_bits(descriptor: u32, mask: u32) -> Result<(), BadReason> {
    match descriptor & mask {
        0 => Ok(()),
        bits => Err(BadReason::ReservedBits(bits)),
    }
}

impl fmt::Display for BadDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {:#010x}: ", self.descriptor)?;
        match self.reason {
            BadReason::Leftover => f.write_str("not present, yet not zero"),
            BadReason::NotAMapping => f.write_str("not a mapping"),
            BadReason::ReservedType => f.write_str("reserved type"),
            BadReason::Domain(domain) => write!(f, "in domain {domain}"),
            BadReason::ReservedBits(bits) => write!(f, "bits {bits:#x} should be zero"),
            BadReason::MemoryType(bits) => write!(f, "TEX, C, B = {bits:#07b} is not in use"),
            BadReason::Shareability(memory) => write!(f, "wrong shareability for {memory}"),
            BadReason::Access(bits) => write!(f, "AP = {bits:#05b} is not in use"),
            BadReason::Attributes(error) => write!(f, "{error}"),
        }
    }
}
