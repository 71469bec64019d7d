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

mod descriptor;
mod flags;
mod page_array;

pub use descriptor::VmStruct;
pub use flags::AreaFlags;
pub(crate) use page_array::first_null;
pub use page_array::{ArrayArea, FOR_HOLDER, IN_A_FRAME, PageArray, WITHIN};

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::addr::{PAGE_SIZE, PageRange, PhysAddr, VirtAddr};
use crate::attributes::Attributes;
use crate::frames::FrameList;
use crate::holder::{Holder, Moment, Tag};
use crate::iommu::SeenList;
use crate::linear_map::{Lent, list::LentList};
use crate::owned_range::OwnedRange;
use crate::page_table::{FEW, LargeParts, Parked};
use crate::physical_index::Name;

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
    /// A coherent DMA buffer of scattered frames, for a device behind an IOMMU (S79).
    Scattered,
    /// Reserved for its caller, who maps there what it likes, or nothing.
    Bare,
    /// Made by `vm_map_ram`, for more pages than a block's fragments have.
    MapRam,
    /// A block that short-lived mappings of `vm_map_ram` are cut from (S87).
    MapRamBlock,
    /// The page pointers of an area that has too many of them for a frame (S27).
    PageArray,
}

impl AreaKind {
    /// The flags that an area of this kind is born with.
    pub const fn flags(self) -> AreaFlags {
        match self {
            Self::Vmalloc | Self::PageArray => AreaFlags::ALLOC,
            Self::Vmap | Self::MapRam | Self::MapRamBlock => AreaFlags::MAP,
            Self::IoRemap => AreaFlags::IOREMAP,
            Self::Dma | Self::Scattered => AreaFlags::DMA.with(AreaFlags::USERMAP),
            Self::Bare => AreaFlags::NONE,
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
            Self::Scattered => "scattered dma",
            Self::Bare => "bare",
            Self::MapRam => "vm_map_ram",
            Self::MapRamBlock => "vm_map_ram block",
            Self::PageArray => "page array",
        })
    }
}

/// What may be done with memory of `vmalloc_exec` (S112): never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeStage {
    /// It is written, and never executed.
    Writable,
    /// It is executed, and never written.
    Sealed,
}

impl CodeStage {
    /// What its entries promise.
    pub const fn attributes(self) -> Attributes {
        match self {
            Self::Writable => Attributes::KERNEL_DATA,
            Self::Sealed => Attributes::KERNEL_TEXT,
        }
    }
}

/// An area's usable addresses, with the frames behind them that come back when it goes.
///
/// What it is is a whole word, so that moving one moves words.
#[derive(Debug)]
#[repr(u32)]
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
    /// `vmalloc_huge`, and vmap and ioremap of frames that lie so: sections and large pages, and small pages behind them.
    Large {
        /// The right to write the descriptors, from a border of the first entry's size on.
        usable: OwnedRange,
        /// The frames, in the order of their addresses; none for vmap and ioremap, whose frames are somebody else's.
        list: FrameList,
        /// Of how many entries of each size (S22).
        parts: LargeParts,
        /// The tables that the sections displaced (S24).
        parked: Parked,
    },
    /// DMA: one contiguous block, which has no linear mapping while it is lent.
    Lent(Lent),
    /// `vmalloc_exec`: frames taken one by one, which have no linear mapping from its first day to its last.
    Code {
        /// The frames, and the right to write the descriptors.
        lent: LentList,
        /// Who may do what there.
        stage: CodeStage,
    },
    /// DMA behind an IOMMU: frames taken one by one, which a device sees, too, and which have no linear mapping meanwhile.
    Scattered(SeenList),
    /// vmap: what is mapped belongs to somebody else. In a bare area some of it, or all, may be unmapped.
    Borrowed {
        /// The right to write the descriptors.
        usable: OwnedRange,
    },
    /// ioremap and `vmap_pfn`: what is no RAM. The physical index has it (S97).
    Devices {
        /// The right to write the descriptors.
        usable: OwnedRange,
    },
    /// A bare area in which nothing is mapped and nothing that a TLB could remember.
    Reserved {
        /// The right to write the descriptors.
        usable: OwnedRange,
    },
    /// Somebody changes what is mapped, and has the right to it meanwhile.
    Away {
        /// The usable pages.
        pages: PageRange,
    },
}

impl Mapping {
    /// The usable pages.
    pub const fn pages(&self) -> PageRange {
        match self {
            Self::Nothing => PageRange::EMPTY,
            Self::Frames { usable, .. }
            | Self::Large { usable, .. }
            | Self::Borrowed { usable }
            | Self::Devices { usable }
            | Self::Reserved { usable } => usable.pages(),
            Self::Away { pages } => *pages,
            Self::Lent(lent) => lent.pages(),
            Self::Code { lent, .. } => lent.pages(),
            Self::Scattered(seen) => seen.pages(),
        }
    }
}

impl Mapping {
    /// Takes out what is behind an area of vmalloc's small pages.
    #[inline(always)]
    pub(crate) fn take_frames(&mut self) -> Option<(OwnedRange, FrameList)> {
        let Self::Frames { usable, list } = self else { return None };
        let taken = (usable.moved(), list.moved());
        *self = Self::Nothing;
        Some(taken)
    }

    /// Takes out the addresses of an area whose pages belong to somebody else.
    #[inline(always)]
    pub(crate) fn take_borrowed(&mut self) -> Option<OwnedRange> {
        let Self::Borrowed { usable } = self else { return None };
        let taken = usable.moved();
        *self = Self::Nothing;
        Some(taken)
    }

    /// Takes out the addresses of an area that devices are mapped in.
    #[inline(always)]
    pub(crate) fn take_devices(&mut self) -> Option<OwnedRange> {
        let Self::Devices { usable } = self else { return None };
        let taken = usable.moved();
        *self = Self::Nothing;
        Some(taken)
    }
}

/// What the physical index has of an area. A place that is free, and an area that maps no devices, has nothing there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Devices {
    /// The first of the runs; each names the next, whose addresses follow.
    pub(crate) runs: Name,
    /// The number of the virtual page at which it begins.
    pub(crate) page: u32,
    /// Users of the mapping, if it is shared; else zero.
    pub(crate) users: u32,
}

impl Devices {
    pub(crate) const NONE: Self = Self { runs: Name::NONE, page: 0, users: 0 };
}

/// What is known of an area, and what must come back when it goes.
///
/// What C callers see comes first, so that a lookup's answer is the record's own address.
#[derive(Debug)]
#[repr(C)]
#[must_use = "dropping a record leaks the area"]
pub struct AreaRecord {
    /// What C callers see.
    pub vm: VmStruct,
    /// What it is.
    pub kind: AreaKind,
    /// Windows of programs that show it: while there are any, it cannot be removed (S46). Or [`AreaRecord::BUSY`].
    pub users: u16,
    /// The usable addresses, and what stands behind them.
    pub mapping: Mapping,
    /// What it maps of devices, as the physical index has it.
    pub(crate) devices: Devices,
    /// Where its page pointers lie.
    pub array: PageArray,
    /// Room for the page pointers of a small area; or for who has a coherent buffer.
    pub within: [AtomicU32; WITHIN],
}

impl AreaRecord {
    /// What [`AreaRecord::users`] is while somebody changes what the area maps: it is not removed, and not shown either.
    pub const BUSY: u16 = u16::MAX;

    /// The record of no area: what a vacant place holds.
    pub const fn vacant() -> Self {
        Self {
            vm: VmStruct::vacant(),
            kind: AreaKind::Vmalloc,
            users: 0,
            mapping: Mapping::Nothing,
            devices: Devices::NONE,
            array: PageArray::Within,
            within: [const { AtomicU32::new(0) }; WITHIN],
        }
    }

    /// The usable pages.
    pub const fn pages(&self) -> PageRange {
        self.mapping.pages()
    }

    /// Notes who has a coherent buffer, in the room for page pointers, of which it has none. The caller stands in the descriptor.
    #[inline(always)]
    pub(crate) fn note_holder(&self, holder: Holder) {
        let [tag, since, ..] = &self.within;
        tag.store(holder.tag.word(), Relaxed);
        since.store(holder.since.ticks(), Relaxed);
    }

    /// As [`AreaRecord::note_holder`], behind the page pointers: of a buffer that has some there, but leaves the last words free
    /// ([`FOR_HOLDER`]).
    pub(crate) fn note_last(&self, holder: Holder) {
        let [.., tag, since] = &self.within;
        tag.store(holder.tag.word(), Relaxed);
        since.store(holder.since.ticks(), Relaxed);
    }

    /// Who has it, if it is a coherent buffer.
    pub fn holder(&self) -> Option<Holder> {
        let ((AreaKind::Dma, [tag, since, ..]) | (AreaKind::Scattered, [.., tag, since])) =
            (self.kind, &self.within)
        else {
            return None;
        };
        let (tag, since) = (Tag::from_word(tag.load(Relaxed)), Moment::new(since.load(Relaxed)));
        Some(Holder { caller: self.vm.caller(), tag, since })
    }

    /// Takes out what is behind an area of vmalloc's small pages, if they are few, and their pointers lie here.
    #[inline(always)]
    pub(crate) fn take_few(&mut self) -> Option<(OwnedRange, FrameList)> {
        match (&self.mapping, &self.array) {
            (Mapping::Frames { usable, .. }, PageArray::Within) if usable.count() < FEW => {
                self.mapping.take_frames()
            }
            _ => None,
        }
    }

    /// A copy of what a listing or a lookup needs.
    pub fn summary(&self) -> AreaSummary {
        AreaSummary {
            pages: self.mapping.pages(),
            kind: self.kind,
            flags: self.vm.flags(),
            physical: self.vm.phys_addr(),
            caller: self.vm.caller(),
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
