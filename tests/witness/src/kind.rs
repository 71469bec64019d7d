//! What an address is by the books: areas, frame owners, the linker's symbols. None of them is a page table.

use boot::layout::{Use, image, parts};
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::area::{AreaKind, CodeStage, Mapping};
use kerncore::coherent::Coherency;
use kerncore::frames::FrameOwner;
use kerncore::layout::{HEAP_END, HEAP_START, KERNEL_START, LINEAR_END, STATIC_START, VMALLOC_END};
use mm::audit::page_pointers;
use mm::kernel;

/// A kind of mapping, or of a place where there must be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The image's code.
    Text,
    /// The image's constants.
    Constants,
    /// The image's variables.
    Data,
    /// A stack of the image.
    Stack,
    /// The tables in the image.
    Tables,
    /// RAM through the linear map.
    Linear,
    /// A page that vmalloc made.
    Vmalloc,
    /// A page of memory for code, not sealed yet.
    Code,
    /// The same, sealed.
    Sealed,
    /// A page that vmap made.
    Vmap,
    /// A page below a 64 KiB large page, that `vmalloc_huge` or vmap made.
    LargePage,
    /// A page below a section, made so.
    Section,
    /// A page that ioremap made.
    IoRemap,
    /// A page of a coherent buffer.
    Coherent,
    /// A page of a buffer of scattered frames, for a device behind an IOMMU that does not snoop.
    Scattered,
    /// The same, for one that does.
    Snooped,
    /// A page of the atomic pool.
    Pool,
    /// A page of the heap.
    Heap,
    /// Below a stack: nothing.
    StackGuard,
    /// Behind an area: nothing.
    Guard,
    /// An address of the window that a test has had and given back: nothing.
    Freed,
    /// Another address of the window that nobody has: nothing.
    Unused,
    /// The linear address of memory that is lent uncached, or for code: nothing.
    Lent,
    /// The linear address of RAM that the machine does not have, or may not use: nothing.
    BeyondRam,
    /// Above the heap: nothing.
    AboveHeap,
    /// Set aside for static mappings where there is none, and for temporary ones that nobody holds: nothing.
    Fixed,
    /// Registers that are mapped for good.
    Static,
    /// A page of high memory, for a moment.
    Temporary,
    /// The user's half: nothing.
    User,
    /// The same, while this CPU stands in for a device: what that sees.
    Device,
}

impl Kind {
    /// How many there are.
    pub(crate) const COUNT: usize = 30;

    /// Its word in a request.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Constants => "constants",
            Self::Data => "data",
            Self::Stack => "stack",
            Self::Tables => "tables",
            Self::Linear => "linear",
            Self::Vmalloc => "vmalloc",
            Self::Code => "code",
            Self::Sealed => "sealed",
            Self::Vmap => "vmap",
            Self::LargePage => "large-page",
            Self::Section => "section",
            Self::IoRemap => "ioremap",
            Self::Coherent => "coherent",
            Self::Scattered => "scattered",
            Self::Snooped => "snooped",
            Self::Pool => "pool",
            Self::Heap => "heap",
            Self::StackGuard => "stack-guard",
            Self::Guard => "guard",
            Self::Freed => "freed",
            Self::Unused => "unused",
            Self::Lent => "lent",
            Self::BeyondRam => "beyond-ram",
            Self::AboveHeap => "above-heap",
            Self::Fixed => "fixed",
            Self::Static => "static",
            Self::Temporary => "temporary",
            Self::User => "user",
            Self::Device => "device",
        }
    }

    /// What `address` is. Any context; allocates nothing.
    pub fn of(address: VirtAddr) -> Self {
        match address {
            below if below < KERNEL_START => Self::User,
            linear if linear < LINEAR_END => Self::of_linear(linear),
            window if window < VMALLOC_END => Self::of_window(window),
            heap if heap < HEAP_END => {
                let top = HEAP_START.checked_add(mm::heap::usage().pages * PAGE_SIZE);
                if top.is_some_and(|top| heap < top) { Self::Heap } else { Self::AboveHeap }
            }
            held if kernel().temporary().is_held(held) => Self::Temporary,
            fixed if kernel().static_mapping_at(fixed).is_some() => Self::Static,
            _ => {
                const { assert!(HEAP_END.raw() == STATIC_START.raw()) };
                Self::Fixed
            }
        }
    }

    fn of_linear(address: VirtAddr) -> Self {
        // Beyond the linear map's end lies nothing, be there RAM at that distance or not.
        let frame = kernel().linear().frame_of(address);
        match frame.map_or(FrameOwner::Absent, |frame| kernel().zones().table().owner_of(frame)) {
            FrameOwner::Absent => return Self::BeyondRam,
            FrameOwner::Dma | FrameOwner::AtomicPool | FrameOwner::Text => return Self::Lent,
            FrameOwner::KernelImage if image().contains(address) => {}
            _ if page_pointers().contains(address) => return Self::Constants,
            _ => return Self::Linear,
        }
        match parts().into_iter().find(|part| part.pages.contains(address)).map(|part| part.usage) {
            Some(Use::Text) => Self::Text,
            Some(Use::ReadOnly) => Self::Constants,
            Some(Use::Data) => Self::Data,
            Some(Use::Stack) => Self::Stack,
            Some(Use::Tables) => Self::Tables,
            None => Self::StackGuard,
        }
    }

    /// What the area at `base` has at `address`, where it is of small pages that are `small`.
    fn of_area(base: VirtAddr, address: VirtAddr, small: Self) -> Self {
        let page = address.page_number() - base.page_number();
        let kind = kernel().with_area(base, |record| match record.mapping {
            Mapping::Code { stage: CodeStage::Writable, .. } => Self::Code,
            Mapping::Code { stage: CodeStage::Sealed, .. } => Self::Sealed,
            Mapping::Scattered(ref seen) => match seen.at().coherency {
                Coherency::Coherent => Self::Snooped,
                Coherency::NonCoherent => Self::Scattered,
            },
            // Of vmap_pfn: what is no RAM.
            Mapping::Devices { .. } => Self::IoRemap,
            Mapping::Large { parts, .. } if page < parts.pages_in_sections() => Self::Section,
            Mapping::Large { parts, .. } if page < parts.pages() => Self::LargePage,
            _ => small,
        });
        kind.unwrap_or(small)
    }

    fn of_window(address: VirtAddr) -> Self {
        let area = kernel().find_containing(address);
        if let Some(area) = area.filter(|area| area.kind != AreaKind::MapRamBlock) {
            let is_pool =
                dma::atomic_pool::usage().is_some_and(|pool| area.pages.contains(pool.base));
            return match area.kind {
                AreaKind::Vmalloc => Self::of_area(area.pages.start(), address, Self::Vmalloc),
                AreaKind::PageArray => Self::Vmalloc,
                AreaKind::Vmap => Self::of_area(area.pages.start(), address, Self::Vmap),
                AreaKind::MapRam | AreaKind::MapRamBlock => Self::Vmap,
                AreaKind::IoRemap => Self::IoRemap,
                AreaKind::Dma if is_pool => Self::Pool,
                AreaKind::Dma => Self::Coherent,
                AreaKind::Scattered => Self::of_area(area.pages.start(), address, Self::Scattered),
                // What is mapped in a bare area is as in a vmap's, and elsewhere in it nothing is.
                AreaKind::Bare if kernel().table().translate(address).is_some() => Self::Vmap,
                AreaKind::Bare => Self::Unused,
            };
        }
        let in_area = |address: &VirtAddr| {
            let area = kernel().find_containing(*address);
            area.is_some_and(|area| area.kind != AreaKind::MapRamBlock)
        };
        let fragment_of =
            |address: VirtAddr| kernel().map_ram_blocks().fragment_containing(address);
        if fragment_of(address).is_some() {
            return Self::Vmap;
        }
        let below = address.raw().checked_sub(PAGE_SIZE).map(VirtAddr::new);
        match below.filter(|below| in_area(below) || fragment_of(*below).is_some()) {
            Some(_) => Self::Guard,
            None if crate::sample::was_witnessed(address) => Self::Freed,
            None => Self::Unused,
        }
    }
}
