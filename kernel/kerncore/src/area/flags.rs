//! The flags of an area, as C callers pass and read them.

use core::fmt;

/// The flags of an area, as C callers read them in [`super::VmStruct::flags`].
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct AreaFlags(u32);

impl AreaFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Made by ioremap: device registers.
    pub const IOREMAP: Self = Self(0x01);
    /// Made by vmalloc: the area owns its frames.
    pub const ALLOC: Self = Self(0x02);
    /// Made by vmap: the frames belong to somebody else.
    pub const MAP: Self = Self(0x04);
    /// May be mapped into user programs.
    pub const USERMAP: Self = Self(0x08);
    /// The page array is itself virtually allocated.
    pub const VPAGES: Self = Self(0x10);
    /// A coherent DMA buffer.
    pub const DMA: Self = Self(0x40);

    /// Flags as a C caller passes them; unknown bits are kept.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits as a C caller sees them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both sets together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The words of a listing (S91), in their order.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let words = [
            (Self::IOREMAP, "ioremap"),
            (Self::ALLOC, "vmalloc"),
            (Self::MAP, "vmap"),
            (Self::USERMAP, "user"),
            (Self::VPAGES, "vpages"),
            (Self::DMA, "dma"),
        ];
        words.into_iter().filter_map(move |(flag, word)| self.contains(flag).then_some(word))
    }
}

/// Its words, with a space between them.
impl fmt::Display for AreaFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for word in self.words() {
            write!(f, "{separator}{word}")?;
            separator = " ";
        }
        Ok(())
    }
}

impl fmt::Debug for AreaFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AreaFlags({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::super::AreaKind;
    use super::*;

    #[test]
    fn flags_read_as_the_words_of_a_listing() {
        assert_eq!(AreaKind::Dma.flags().to_string(), "user dma");
        assert_eq!(AreaFlags::NONE.to_string(), "");
        assert!(AreaKind::Dma.flags().contains(AreaFlags::USERMAP));
        assert!(!AreaKind::Vmalloc.flags().contains(AreaFlags::USERMAP));
        assert_eq!(format!("{:?}", AreaKind::Dma.flags()), "AreaFlags(user dma)");
        let all = AreaFlags::from_bits(u32::MAX).to_string();
        assert_eq!(all, "ioremap vmalloc vmap user vpages dma");
    }

    #[test]
    fn flags_are_sets_and_unknown_ones_are_kept() {
        let user = AreaFlags::USERMAP;
        assert_eq!(user.with(user), user);
        assert_eq!(user.with(AreaFlags::DMA).bits(), 0x48);
        assert_eq!(AreaFlags::from_bits(0x8000_0008).with(user).bits(), 0x8000_0008);
        assert!(!user.contains(user.with(AreaFlags::DMA)), "both are asked for");
    }
}
