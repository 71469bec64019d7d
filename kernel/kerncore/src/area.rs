//! The record of an area: what it is, whom it belongs to, what must come back when it goes.
//!
//! ```text
//!   reserve            publish              retire               flush            release
//!  ─────────▶ reserved ───────▶   Live   ───────▶   Dying   ───────▶  Flushed ───────▶  Free
//!             (not found)     (found by base)   (not found, its
//!                                                addresses taken)
//! ```
//!
//! The states are kept by types rather than by a field: a Live area's addresses and frames lie in its record, which is in
//! the hands of the address space; a Dying one's are hidden in an `Unmapped`; a Flushed one's come out of that as a
//! `Released` (S14a).

use core::fmt;

use crate::addr::{PAGE_SIZE, PageRange, PhysAddr, VirtAddr};
use crate::frames::FrameList;
use crate::linear_map::Lent;
use crate::owned_range::OwnedRange;

/// The flags of an area, as C callers read them in [`VmStruct::flags`].
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
}

/// The words of a listing (S91), each followed by nothing but a space before the next.
impl fmt::Display for AreaFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (Self::IOREMAP, "ioremap"),
            (Self::ALLOC, "vmalloc"),
            (Self::MAP, "vmap"),
            (Self::USERMAP, "user"),
            (Self::VPAGES, "vpages"),
            (Self::DMA, "dma"),
        ];
        let mut separator = "";
        for (flag, word) in words {
            if self.contains(flag) {
                write!(f, "{separator}{word}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AreaFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AreaFlags({self})")
    }
}

/// The descriptor that C callers hold a pointer to, laid out as they expect (S85a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct VmStruct {
    /// Unused link; always zero.
    pub next: u32,
    /// The first usable byte.
    pub addr: VirtAddr,
    /// Bytes, the guard page included while the area lives (S2).
    pub size: u32,
    /// What it is.
    pub flags: AreaFlags,
    /// The page array's address, or zero where none is kept.
    pub pages: u32,
    /// How many frames stand behind it.
    pub nr_pages: u32,
    /// The physical base of a contiguous mapping, else zero.
    pub phys_addr: PhysAddr,
    /// The return address of whoever asked for it.
    pub caller: VirtAddr,
}

/// What an area is, which decides who may remove it (S34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaKind {
    /// Made by vmalloc.
    Vmalloc,
    /// Made by vmap.
    Vmap,
    /// Made by ioremap.
    IoRemap,
    /// A coherent DMA buffer.
    Dma,
}

impl AreaKind {
    /// The flags that an area of this kind is born with.
    pub const fn flags(self) -> AreaFlags {
        match self {
            Self::Vmalloc => AreaFlags::ALLOC,
            Self::Vmap => AreaFlags::MAP,
            Self::IoRemap => AreaFlags::IOREMAP,
            Self::Dma => AreaFlags::DMA.with(AreaFlags::USERMAP),
        }
    }
}

impl fmt::Display for AreaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmalloc => "vmalloc",
            Self::Vmap => "vmap",
            Self::IoRemap => "ioremap",
            Self::Dma => "dma",
        })
    }
}

/// An area's usable addresses, with the frames behind them that come back when it goes.
#[derive(Debug)]
#[must_use = "dropping a mapping leaks its addresses and frames"]
pub enum Mapping {
    /// Of a record that no area has.
    Nothing,
    /// vmalloc: frames taken one by one.
    Frames {
        /// The right to write the descriptors.
        usable: OwnedRange,
        /// The frames, in the order of their addresses.
        list: FrameList,
    },
    /// DMA: one contiguous block, which has no linear mapping while it is lent.
    Lent(Lent),
    /// vmap and ioremap: what is mapped belongs to somebody else.
    Borrowed {
        /// The right to write the descriptors.
        usable: OwnedRange,
    },
}

impl Mapping {
    /// The usable pages.
    pub const fn pages(&self) -> PageRange {
        match self {
            Self::Nothing => PageRange::EMPTY,
            Self::Frames { usable, .. } | Self::Borrowed { usable } => usable.pages(),
            Self::Lent(lent) => lent.pages(),
        }
    }
}

/// What is known of an area, and what must come back when it goes.
#[derive(Debug)]
#[must_use = "dropping a record leaks the area"]
pub struct AreaRecord {
    /// What C callers see.
    pub vm: VmStruct,
    /// What it is.
    pub kind: AreaKind,
    /// Windows of programs that show it: while there are any, it cannot be removed (S46).
    pub users: u16,
    /// The usable addresses, and what stands behind them.
    pub mapping: Mapping,
}

impl AreaRecord {
    /// The record of no area: what a vacant place holds.
    pub const VACANT: Self = Self {
        vm: VmStruct {
            next: 0,
            addr: VirtAddr::new(0),
            size: 0,
            flags: AreaFlags::NONE,
            pages: 0,
            nr_pages: 0,
            phys_addr: PhysAddr::new(0),
            caller: VirtAddr::new(0),
        },
        kind: AreaKind::Vmalloc,
        users: 0,
        mapping: Mapping::Nothing,
    };

    /// The usable pages.
    pub const fn pages(&self) -> PageRange {
        self.mapping.pages()
    }

    /// A copy of what a listing or a lookup needs.
    pub const fn summary(&self) -> AreaSummary {
        AreaSummary {
            pages: self.mapping.pages(),
            kind: self.kind,
            flags: self.vm.flags,
            physical: self.vm.phys_addr,
            caller: self.vm.caller,
            users: self.users,
        }
    }
}

/// What a listing says of an area; a copy, which the area may outlive or not (S13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaSummary {
    /// The usable pages, without the guard.
    pub pages: PageRange,
    /// What it is.
    pub kind: AreaKind,
    /// Its flags.
    pub flags: AreaFlags,
    /// The physical base of a contiguous mapping, else zero.
    pub physical: PhysAddr,
    /// Who asked for it.
    pub caller: VirtAddr,
    /// Windows of programs that show it.
    pub users: u16,
}

impl AreaSummary {
    /// Bytes as a descriptor counts them: usable pages and guard (S2).
    pub const fn bytes_with_guard(&self) -> u32 {
        self.pages.bytes() + PAGE_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_has_the_layout_that_c_callers_read_s85a() {
        assert_eq!(size_of::<VmStruct>(), 32);
        assert_eq!(core::mem::offset_of!(VmStruct, addr), 4);
        assert_eq!(core::mem::offset_of!(VmStruct, size), 8);
        assert_eq!(core::mem::offset_of!(VmStruct, flags), 12);
        assert_eq!(core::mem::offset_of!(VmStruct, pages), 16);
        assert_eq!(core::mem::offset_of!(VmStruct, nr_pages), 20);
        assert_eq!(core::mem::offset_of!(VmStruct, phys_addr), 24);
        assert_eq!(core::mem::offset_of!(VmStruct, caller), 28);
    }

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

    /// S91: a kind is called what its flag is called.
    #[test]
    fn each_kind_reads_as_the_word_of_its_flag() {
        for kind in [AreaKind::Vmalloc, AreaKind::Vmap, AreaKind::IoRemap] {
            assert_eq!(kind.to_string(), kind.flags().to_string());
        }
        assert_eq!(AreaKind::Dma.to_string(), AreaFlags::DMA.to_string());
    }

    /// S2.
    #[test]
    fn a_living_area_counts_its_guard() {
        let summary = AreaSummary {
            pages: PageRange::from_numbers(0xc_0000, 3).expect("a range"),
            kind: AreaKind::Vmalloc,
            flags: AreaFlags::ALLOC,
            physical: PhysAddr::new(0),
            caller: VirtAddr::new(0),
            users: 0,
        };
        assert_eq!(summary.bytes_with_guard(), 0x4000);
    }
}
