//! What a caller asks of a DMA buffer beyond its size (S99).
//!
//! ```text
//!   bit     name                 what it does to a coherent buffer here
//!   0x004   WRITE_COMBINE        nothing more: uncached Normal memory combines writes anyway
//!   0x010   NO_KERNEL_MAPPING    the caller gets a cookie instead of an address
//!   0x020   SKIP_CPU_SYNC        nothing: what both see all the time is never synchronised
//!   0x040   FORCE_CONTIGUOUS     behind an IOMMU adjacent frames; elsewhere every buffer is
//!   0x100   NO_WARN              no words about a failure
//!   0x282   others               known elsewhere, and no matter here
//! ```

use core::fmt;

use crate::coherent::BackEnd;

/// Attributes as C callers pass them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct DmaAttributes(u32);

/// Bits that mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAttributes {
    /// Those.
    pub bits: u32,
}

impl fmt::Display for UnknownAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DMA attributes {:#x} mean nothing", self.bits)
    }
}

impl core::error::Error for UnknownAttributes {}

impl DmaAttributes {
    /// None.
    pub const NONE: Self = Self(0);
    /// Writes may be combined.
    pub const WRITE_COMBINE: Self = Self(0x004);
    /// The processor will not use the buffer: no address is needed.
    pub const NO_KERNEL_MAPPING: Self = Self(0x010);
    /// Caches are left as they are when the buffer changes hands.
    pub const SKIP_CPU_SYNC: Self = Self(0x020);
    /// In one piece of physical memory.
    pub const FORCE_CONTIGUOUS: Self = Self(0x040);
    /// A failure is told to the caller alone.
    pub const NO_WARN: Self = Self(0x100);

    const KNOWN: u32 = 0x3f6;

    /// The attributes that these bits are.
    ///
    /// # Errors
    /// [`UnknownAttributes`], with the bits that are none.
    pub const fn from_bits(bits: u32) -> Result<Self, UnknownAttributes> {
        match bits & !Self::KNOWN {
            0 => Ok(Self(bits)),
            bits => Err(UnknownAttributes { bits }),
        }
    }

    /// The bits as a C caller sees them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are asked for.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a buffer of that back end is given out by a cookie. What lies in the atomic pool or in the linear map is mapped
    /// whoever has it, so its address is as good as any cookie.
    pub const fn hides(self, back_end: BackEnd) -> bool {
        let own_mapping = matches!(back_end, BackEnd::Remap | BackEnd::Contiguous);
        own_mapping && self.contains(Self::NO_KERNEL_MAPPING)
    }
}

impl fmt::Debug for DmaAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaAttributes({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_mean_nothing_are_refused_and_named_s99() {
        assert_eq!(DmaAttributes::from_bits(0), Ok(DmaAttributes::NONE));
        for bits in [0x002, 0x004, 0x010, 0x020, 0x040, 0x080, 0x100, 0x200, 0x3f6] {
            let attributes = DmaAttributes::from_bits(bits).expect("known");
            assert_eq!(attributes.bits(), bits);
        }
        for (bits, unknown) in [(1, 1), (8, 8), (0x405, 0x401), (u32::MAX, !0x3f6)] {
            assert_eq!(DmaAttributes::from_bits(bits), Err(UnknownAttributes { bits: unknown }));
        }
        let text = UnknownAttributes { bits: 0x401 }.to_string();
        assert_eq!(text, "DMA attributes 0x401 mean nothing");
    }

    #[test]
    fn only_a_buffer_with_a_mapping_of_its_own_hides_behind_a_cookie_s99() {
        let hidden = DmaAttributes::NO_KERNEL_MAPPING.with(DmaAttributes::WRITE_COMBINE);
        for (back_end, hides) in [
            (BackEnd::Remap, true),
            (BackEnd::Contiguous, true),
            (BackEnd::AtomicPool, false),
            (BackEnd::Simple, false),
        ] {
            assert_eq!(hidden.hides(back_end), hides, "{back_end:?}");
            assert!(!DmaAttributes::WRITE_COMBINE.hides(back_end), "{back_end:?}");
        }
    }
}
