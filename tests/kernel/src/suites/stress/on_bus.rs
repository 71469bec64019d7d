//! What is mapped of the bus and is no RAM: places in the board's video RAM and static RAM, each of which one holder has at a
//! time, and mapped in one way.
//!
//! ```text
//!   video RAM    8 MiB  │ 256 KiB │ 256 KiB │ …                 32 places   ioremap_wc
//!   static RAM  32 MiB  │  -  │ MiB │ MiB │ … │                 15 places   memremap: each MiB of one type, always the same
//!                       │            16 MiB            │          1 place   ioremap_shared: registers, as far as we say so
//! ```
//! Of the first MiB of static RAM nothing is taken: CPUs may wait there. A place has one type for good, since lines that a cache
//! still has of it must not be written over what the next holder writes past the cache.

use core::ffi::c_void;
use core::slice;
use core::sync::atomic::{AtomicU32, Ordering};

use arch::probe;
use board::vexpress_a9::{SRAM, VRAM};
use kerncore::addr::{PAGE_SIZE, PhysAddr, SECTION_SIZE, SUPERSECTION_SIZE, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::kernel_space::{IoRemapError, NoArea};
use ktest::assert_err;
use linux::ioremap::{
    MEMREMAP_WB, MEMREMAP_WC, MEMREMAP_WT, ioremap_shared, ioremap_wc, iounmap, memremap, memunmap,
};
use mm::kernel;

use super::Draw;
use super::named::{address, pointer};
use crate::suites::witness::NOBODY;

/// By which name it is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    IoRemapWc,
    MemRemap,
    IoRemapShared,
}

impl By {
    /// Where the places begin, how large each is, and how many there are.
    const fn places(self) -> (u32, u32, u32) {
        match self {
            Self::IoRemapWc => (VRAM.base.raw(), 256 << 10, 32),
            Self::MemRemap => (SRAM.base.raw() + SECTION_SIZE, SECTION_SIZE, 15),
            Self::IoRemapShared => (SRAM.base.raw() + SUPERSECTION_SIZE, SUPERSECTION_SIZE, 1),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::IoRemapWc => "ioremap_wc",
            Self::MemRemap => "memremap",
            Self::IoRemapShared => "ioremap_shared",
        }
    }

    /// Which places somebody has: a bit each.
    fn taken(self) -> &'static AtomicU32 {
        static TAKEN: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
        &TAKEN[self as usize]
    }

    /// Takes the first place that nobody has.
    fn take(self) -> Option<u32> {
        let (_, _, count) = self.places();
        let free = |taken: u32| {
            let place = taken.trailing_ones();
            (place < count).then_some(place)
        };
        let with_one = |taken: u32| Some(taken | 1 << free(taken)?);
        self.taken().fetch_update(Ordering::AcqRel, Ordering::Relaxed, with_one).ok().and_then(free)
    }
}

/// A range of bytes on the bus, mapped.
pub(super) struct OnBus {
    start: VirtAddr,
    physical: PhysAddr,
    bytes: u32,
    by: By,
    place: u32,
}

impl OnBus {
    /// Some of a place, or all of it; `None` if all places are somebody's.
    pub(super) fn new(by: By, draw: &mut Draw) -> Option<Self> {
        let place = by.take()?;
        let (base, size, _) = by.places();
        // Of whole entries of each size; or any words.
        let (offset, bytes) = match draw.below(5) {
            0 => (0, size),
            1 => (0, size - PAGE_SIZE * draw.below(40)),
            2 => (0, 64 << 10),
            _ => {
                let offset = draw.below(4 * PAGE_SIZE) & !3;
                (offset, 4 + draw.below(16 * PAGE_SIZE))
            }
        };
        let physical = base + place * size + offset;
        let start = match by {
            By::IoRemapWc => ioremap_wc(physical, bytes),
            By::MemRemap => {
                let types = [MEMREMAP_WB, MEMREMAP_WT, MEMREMAP_WC];
                memremap(physical, bytes, types[place as usize % types.len()])
            }
            By::IoRemapShared => ioremap_shared(physical, bytes),
        };
        assert!(!start.is_null(), "{}: {bytes:#x} bytes at {physical:#x}", by.name());
        Some(Self { start: address(start), physical: PhysAddr::new(physical), bytes, by, place })
    }

    pub(super) const fn name(&self) -> &'static str {
        self.by.name()
    }

    /// What may be read and written as memory is.
    pub(super) fn bytes(&self) -> &[u8] {
        match self.by {
            By::IoRemapShared => &[],
            // SAFETY: Normal memory, mapped from the first byte to the last until this is dropped; the place is this one's alone.
            _ => unsafe { slice::from_raw_parts(pointer(self.start), self.bytes as usize) },
        }
    }

    /// The same, to be written.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self.by {
            By::IoRemapShared => &mut [],
            // SAFETY: as in `bytes`; `&mut self` makes the slice the only one.
            _ => unsafe { slice::from_raw_parts_mut(pointer(self.start), self.bytes as usize) },
        }
    }

    /// Words of registers that are marked: the first, one between, the last.
    fn words(&self) -> [(VirtAddr, u32); 3] {
        let last = (self.bytes - 4) & !3;
        [0, (last / 2) & !3, last].map(|offset| (VirtAddr::new(self.start.raw() + offset), offset))
    }

    /// Marks registers with `pattern`.
    pub(super) fn mark(&mut self, pattern: u32) {
        if self.by == By::IoRemapShared {
            for (word, offset) in self.words() {
                // SAFETY: static RAM of a place that is this one's alone; nothing borrows it.
                let written = unsafe { probe::write_u32(word, pattern ^ offset) };
                written.unwrap_or_else(|fault| panic!("{fault}"));
            }
        }
    }

    /// It is marked with `pattern` still, if it is registers; who wants some of it in the same way shares it, if it is to be
    /// shared, and who wants some in another way is refused (S58, S97).
    pub(super) fn check(&self, pattern: u32) {
        let last = (self.bytes - 4) & !3;
        let end = self.physical.raw() + last;
        if self.by == By::IoRemapShared {
            for (word, offset) in self.words() {
                let found = probe::read_u32(word).unwrap_or_else(|fault| panic!("{fault}"));
                assert_eq!(found, pattern ^ offset, "{word} of {}", self.name());
            }
            let again = ioremap_shared(end, 4);
            assert_eq!(address(again).raw(), self.start.raw() + last, "the same mapping");
            // SAFETY: used no more.
            unsafe { iounmap(again) };
        }
        let otherwise = Attributes::STRONGLY_ORDERED;
        let refused = kernel().ioremap(PhysAddr::new(end), 4, otherwise, NOBODY);
        assert_err!(refused, IoRemapError::Area(NoArea::Alias(_)));
    }
}

impl Drop for OnBus {
    fn drop(&mut self) {
        let inside: *mut c_void = pointer(VirtAddr::new(self.start.raw() + self.bytes - 1));
        match self.by {
            // SAFETY: the owner is going, so nobody uses it. Any pointer inside will do.
            By::MemRemap => unsafe { memunmap(inside) },
            // SAFETY: as above.
            By::IoRemapWc | By::IoRemapShared => unsafe { iounmap(inside) },
        }
        self.by.taken().fetch_and(!(1 << self.place), Ordering::AcqRel);
    }
}
