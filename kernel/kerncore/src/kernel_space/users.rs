//! Areas that programs see: memory that is shown in a window cannot be removed until the window ends.
//!
//! The count of windows and the removal are judged under one lock, so that no free pulls pages out from under a window that is
//! being filled (S46): whoever comes first wins, and the other is refused.

use core::fmt;

use crate::addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaRecord, Mapping};
use crate::attributes::MemoryType;
use crate::frames::{FrameOwner, NotShown, ShownBlock};
use crate::iommu::SeenAt;
use crate::kernel_space::KernelSpace;
use crate::lock::{Lock, Locks};
use crate::machine::Machine;

/// Why an area is not shown to a program. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareError {
    /// Not the address of a page (S43).
    Misaligned {
        /// The address given.
        address: VirtAddr,
    },
    /// No live area begins there (S43).
    Unknown {
        /// The address given.
        address: VirtAddr,
    },
    /// The area is not one that programs may see by this call: it is of another kind, or not tagged for them (S43).
    NotForUsers {
        /// The address given.
        address: VirtAddr,
        /// What lies there.
        found: AreaKind,
    },
    /// It is the atomic pool, whose buffers were never zeroed and are many users' (S78).
    Pool {
        /// The address given.
        address: VirtAddr,
    },
    /// The coherent buffer at this address lies elsewhere on the bus than was said.
    Elsewhere {
        /// The address given.
        address: VirtAddr,
        /// Where it lies.
        found: PhysAddr,
    },
    /// The coherent buffer at this address is seen elsewhere by a device than was said, by a device of another domain, or by another
    /// type of memory.
    SeenElsewhere {
        /// The address given.
        address: VirtAddr,
        /// Where its device sees it.
        found: DmaAddr,
    },
    /// The window, at its offset, does not lie in the area, guard not counted (S44, S78).
    Outside {
        /// Pages of the area.
        area: u32,
        /// The page of it at which the window was to begin.
        offset: u32,
        /// Pages of the window.
        window: u32,
    },
    /// More windows show it than can be counted.
    TooMany {
        /// The address given.
        address: VirtAddr,
    },
    /// The frames are no block that can be shown.
    Block(NotShown),
    /// The block that begins with this frame has no cacheable linear mapping, by whose type programs would see it (S97).
    NotLinear {
        /// The frame.
        frame: Pfn,
    },
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { address } => write!(f, "{address} is not the address of a page"),
            Self::Unknown { address } => write!(f, "no area begins at {address}"),
            Self::NotForUsers { address, found } => {
                write!(f, "the area at {address}, of kind {found}, is not for programs to see")
            }
            Self::Pool { address } => write!(f, "{address} belongs to the atomic pool"),
            Self::Elsewhere { address, found } => {
                write!(f, "the area at {address} lies at physical {found}")
            }
            Self::SeenElsewhere { address, found } => {
                write!(f, "the buffer at {address} is seen at {found} by the device that it is for")
            }
            Self::Outside { area, offset, window } => {
                write!(f, "a window of {window} pages from page {offset} leaves the {area} pages")
            }
            Self::TooMany { address } => write!(f, "too many windows show the area at {address}"),
            Self::Block(error) => error.fmt(f),
            Self::NotLinear { frame } => {
                write!(f, "frame {frame} has no cacheable mapping in the linear map")
            }
        }
    }
}

impl core::error::Error for ShareError {}

/// What a program is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// Memory of vmalloc that is tagged for programs.
    Vmalloc,
    /// A coherent buffer that lies there on the bus.
    Coherent(PhysAddr),
    /// Memory of a device's own, whose mapping begins there on the bus.
    Device(PhysAddr),
    /// A coherent buffer of scattered frames, which a device sees there (S82).
    Seen(SeenAt),
}

impl Shared {
    /// The type that every mapping of it must have (S43, S97).
    pub(crate) const fn memory(self) -> MemoryType {
        match self {
            Self::Vmalloc => MemoryType::NormalWriteBack,
            Self::Coherent(_) | Self::Device(_) => MemoryType::NormalNonCacheable,
            Self::Seen(at) => at.memory(),
        }
    }
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Counts one window more of `pages` pages from page `offset` of the area at `base`, which is not removed from now on.
    pub(crate) fn pin(
        &self,
        base: VirtAddr,
        what: Shared,
        (offset, pages): (u32, u32),
    ) -> Result<(), ShareError> {
        if !base.is_page_aligned() {
            return Err(ShareError::Misaligned { address: base });
        }
        self.areas.with(|areas| {
            let record = areas.find_mut(base).ok_or(ShareError::Unknown { address: base })?;
            self.may_be_shown(record, base, what)?;
            let area = record.pages().count();
            // Subtracted, never added: nothing can wrap.
            if pages == 0 || offset >= area || pages > area - offset {
                return Err(ShareError::Outside { area, offset, window: pages });
            }
            // The last number means that the mapping is away.
            let users = record.users.checked_add(1).filter(|&users| users != AreaRecord::BUSY);
            record.users = users.ok_or(ShareError::TooMany { address: base })?;
            Ok(())
        })
    }

    fn may_be_shown(
        &self,
        record: &AreaRecord,
        base: VirtAddr,
        what: Shared,
    ) -> Result<(), ShareError> {
        match (&record.mapping, what) {
            (Mapping::Frames { .. }, Shared::Vmalloc)
                if record.kind == AreaKind::Vmalloc
                    && record.vm.flags().contains(AreaFlags::USERMAP) =>
            {
                Ok(())
            }
            (Mapping::Lent(lent), Shared::Coherent(physical)) => {
                let found = lent.first().base();
                if self.zones.table().owner_of(lent.first()) != FrameOwner::Dma {
                    Err(ShareError::Pool { address: base })
                } else if found != physical {
                    Err(ShareError::Elsewhere { address: base, found })
                } else {
                    Ok(())
                }
            }
            (Mapping::Scattered(seen), Shared::Seen(at)) if seen.at() == at => Ok(()),
            (Mapping::Scattered(seen), Shared::Seen(_)) => {
                Err(ShareError::SeenElsewhere { address: base, found: seen.at().start })
            }
            (Mapping::Devices { .. } | Mapping::Large { .. }, Shared::Device(physical))
                if self.is_device_memory(record, base, what) =>
            {
                let found = record.vm.phys_addr();
                if found == physical {
                    Ok(())
                } else {
                    Err(ShareError::Elsewhere { address: base, found })
                }
            }
            // Frames that were only borrowed may go although the area stays.
            _ => Err(ShareError::NotForUsers { address: base, found: record.kind }),
        }
    }

    /// Whether it is a mapping of what is no RAM, by the type that programs are to see it by (S97).
    #[cold]
    fn is_device_memory(&self, record: &AreaRecord, base: VirtAddr, what: Shared) -> bool {
        let attributes = self.table.translate(base).and_then(|found| found.attributes().ok());
        record.kind == AreaKind::IoRemap
            && attributes.is_some_and(|attributes| attributes.memory() == what.memory())
    }

    /// A window that [`KernelSpace::pin`] counted has ended, and no TLB remembers it.
    pub(crate) fn unpin(&self, base: VirtAddr) {
        self.areas.with(|areas| {
            let users = areas.find_mut(base).map(|record| &mut record.users);
            debug_assert!(users.as_ref().is_some_and(|users| **users != 0), "removed while shown");
            if let Some(users) = users {
                *users = users.saturating_sub(1);
            }
        });
    }

    /// The frames of `pages` pages from page `offset` of the area at `base`, which is pinned.
    pub(crate) fn shown_frames(
        &self,
        base: VirtAddr,
        (offset, pages): (u32, u32),
    ) -> impl ExactSizeIterator<Item = Option<Pfn>> + Clone {
        (0..pages).map(move |index| {
            let bytes = offset.checked_add(index)?.checked_mul(PAGE_SIZE)?;
            let address = base.checked_add(bytes)?;
            // What is large is a device's own memory alone.
            let large = || Some(self.table.translate(address)?.physical.pfn());
            self.table.small_page(address).or_else(large)
        })
    }

    /// Counts one window more that shows the block of frames which `owner` has at `first`, as the linear map has it: from now on it
    /// cannot be freed. What comes of it goes to [`crate::user::UserSpace::show_block`]. Any context.
    ///
    /// The authority says that programs may read and write all of it: nobody has a reference to it.
    ///
    /// # Errors
    /// [`ShareError::Block`], [`ShareError::NotLinear`]; nothing has changed.
    pub fn show_block(
        &self,
        _authority: M::Authority,
        first: Pfn,
        owner: FrameOwner,
    ) -> Result<ShownBlock, ShareError> {
        let block = self.zones.table().show_block(first, owner).map_err(ShareError::Block)?;
        let last = block.first().checked_add(block.pages() - 1);
        let is_cached = |frame| self.linear_type(frame) == Some(MemoryType::NormalWriteBack);
        // The linear map ends somewhere, and has no holes in what is in use but of other owners.
        if is_cached(first) && last.is_some_and(is_cached) {
            return Ok(block);
        }
        self.hide_block(block);
        Err(ShareError::NotLinear { frame: first })
    }

    /// A window that [`KernelSpace::show_block`] counted was not made, or has ended, and no TLB remembers it.
    pub(crate) fn hide_block(&self, block: ShownBlock) {
        self.zones.table().hide_block(block);
    }

    /// The type by which the linear map has `frame`, if it has.
    pub(crate) fn linear_type(&self, frame: Pfn) -> Option<MemoryType> {
        let address = self.linear.pages_of(frame, 1)?.start();
        Some(self.table.translate(address)?.attributes().ok()?.memory())
    }

    /// How many windows of programs show areas.
    pub fn windows_shown(&self) -> u32 {
        let mut shown = 0;
        let mut from = self.window.start();
        while let Some(area) = self.next_area(from) {
            if area.users != AreaRecord::BUSY {
                shown += u32::from(area.users);
            }
            match area.pages.start().checked_add(area.bytes_with_guard()) {
                Some(next) => from = next,
                None => break,
            }
        }
        shown
    }
}
