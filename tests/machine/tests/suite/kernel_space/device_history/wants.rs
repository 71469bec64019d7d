//! What is asked for in a history of registers, and by which name.

use super::{Chance, ON_CHIP, STATIC};
use crate::kernel_space::bed::{Bed, CALLER, RAM, RAM_PAGES, frame};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    attributes::{Access, Attributes, Execute, MemoryType, Scope},
    kernel_space::{IoRemapError, MemRemapError, NoArea, VmapError},
};

const MIB: u32 = 1 << 20;

/// By which name somebody maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Own,
    Default,
    Shared,
    Memory,
    Exec,
    List,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) name: Name,
    pub(super) physical: u32,
    pub(super) bytes: u32,
    pub(super) attributes: Attributes,
}

/// Why somebody gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum No {
    Zero,
    Wraps,
    Ram,
    NotOnChip,
    Static,
    Alias,
    /// Addresses, or memory.
    Short,
}

impl No {
    /// How many reasons there are.
    pub(super) const COUNT: usize = Self::Short as usize + 1;
}

fn code() -> Attributes {
    let code = Attributes::new(
        MemoryType::NormalNonCacheable,
        Access::KernelReadOnly,
        Execute::Allowed,
        Scope::Global,
    );
    code.expect("may be executed")
}

fn no_area(error: &NoArea) -> No {
    if matches!(error, NoArea::Alias(_)) { No::Alias } else { No::Short }
}

fn no(error: &IoRemapError) -> No {
    match error {
        IoRemapError::ZeroSize { .. } => No::Zero,
        IoRemapError::Wraps { .. } => No::Wraps,
        IoRemapError::Ram { .. } => No::Ram,
        IoRemapError::Static { .. } => No::Static,
        IoRemapError::Area(error) => no_area(error),
        IoRemapError::Map(_) => No::Short,
    }
}

/// Names, the common ones more often.
const NAMES: [Name; 9] = [
    Name::Own,
    Name::Own,
    Name::Default,
    Name::Shared,
    Name::Shared,
    Name::Shared,
    Name::Memory,
    Name::Exec,
    Name::List,
];
/// The first byte of RAM, and the first behind it.
const RAM_BYTES: (u32, u32) = (RAM * PAGE_SIZE, (RAM + RAM_PAGES) * PAGE_SIZE);
/// Where something begins or ends: the bus, on-chip memory, RAM, what is mapped for good.
const PLACES: [u32; 21] = [
    0,
    0x4000_0000,
    0x4800_0000,
    0x4800_0000,
    0x4800_0000,
    0x4810_0000,
    0x4900_0000,
    0x49ff_f000,
    0x47ff_f000,
    RAM_BYTES.0 - 0x1_0000,
    RAM_BYTES.0,
    RAM_BYTES.1 - PAGE_SIZE,
    RAM_BYTES.1,
    STATIC - PAGE_SIZE,
    STATIC,
    STATIC + PAGE_SIZE,
    0xff00_0000,
    0xfff0_0000,
    0xfffe_0000,
    0xffff_0000,
    0xffff_f000,
];
/// How far behind such a place.
const OFFSETS: [u32; 14] =
    [0, 0, 0, 1, 4, 0x400, 0xffc, 0xfff, 0x1000, 0x1001, 0xf000, 0x1_0000, 0xf_f000, MIB];
/// How much.
const SIZES: [u32; 29] = [
    0,
    1,
    4,
    0x400,
    0xfff,
    0x1000,
    0x1001,
    0x2000,
    0x3001,
    0xf000,
    0xffff,
    0x1_0000,
    0x1_0001,
    0x1_1000,
    0x3_0000,
    MIB - 1,
    MIB,
    MIB + 1,
    MIB + 0x1000,
    3 * MIB,
    16 * MIB - 1,
    16 * MIB,
    16 * MIB + 0x1000,
    17 * MIB,
    17 * MIB + 0x1_1001,
    32 * MIB,
    0x8000_0000,
    0xffff_f000,
    u32::MAX,
];

impl Want {
    /// Anything, the odd as likely as the even.
    pub(super) fn any(chance: &mut Chance) -> Self {
        let name = chance.of(&NAMES);
        let base = chance.of(&PLACES);
        let delta = chance.of(&OFFSETS);
        let bytes = match (name, chance.of(&SIZES)) {
            // Not much code: line by line the caches are told of it.
            (Name::Exec, bytes @ 0x1_1000..=0x200_0000) => 0x1_1000 + bytes % 2,
            (_, bytes) => bytes,
        };
        let attributes = match name {
            Name::Exec => code(),
            Name::Memory => chance.of(&[
                Attributes::KERNEL_DATA,
                Attributes::WRITE_THROUGH,
                Attributes::WRITE_COMBINE,
            ]),
            Name::List => chance.of(&[Attributes::DEVICE, Attributes::WRITE_COMBINE]),
            _ => chance.of(&[
                Attributes::DEVICE,
                Attributes::DEVICE,
                Attributes::WRITE_COMBINE,
                Attributes::STRONGLY_ORDERED,
            ]),
        };
        let physical = base.wrapping_add(delta);
        if name != Name::List {
            return Self { name, physical, bytes, attributes };
        }
        // Whole pages, not too many, and none behind the last.
        let physical = physical & !0xfff;
        let most = (0x10_0000 - physical / PAGE_SIZE).min(0xff);
        let bytes = (bytes & 0xf_f000).min(most * PAGE_SIZE);
        Self { name, physical, bytes, attributes }
    }

    /// What the kernel says.
    pub(super) fn ask(self, bed: &Bed) -> Result<VirtAddr, No> {
        let Want { name, physical, bytes, attributes } = self;
        let (space, physical) = (&bed.space, PhysAddr::new(physical));
        match name {
            Name::Own => {
                space.ioremap_own(physical, bytes, attributes, CALLER).map_err(|error| no(&error))
            }
            Name::Default => {
                space.ioremap(physical, bytes, attributes, CALLER).map_err(|error| no(&error))
            }
            Name::Shared => space
                .ioremap_shared(physical, bytes, attributes, CALLER)
                .map_err(|error| no(&error)),
            Name::Memory => {
                let mapped = space.memremap(physical, bytes, attributes.memory(), CALLER);
                mapped.map_err(|error| match error {
                    MemRemapError::Map(error) => no(&error),
                    _ => No::Ram,
                })
            }
            Name::Exec => {
                let mapped = space.ioremap_exec((physical, bytes), &[ON_CHIP], CALLER);
                mapped.map_err(|error| match error {
                    MemRemapError::Map(error) => no(&error),
                    MemRemapError::NotOnChip { .. } => No::NotOnChip,
                    error => panic!("{error}"),
                })
            }
            Name::List => {
                let first = physical.pfn().number();
                let frames = (0..bytes / PAGE_SIZE).map(|page| frame(first + page));
                let mapped = space.vmap_devices(frames, attributes, CALLER);
                mapped.map(|area| area.pages.start()).map_err(|error| match error {
                    VmapError::Ram { .. } => No::Ram,
                    VmapError::NoPages => No::Zero,
                    VmapError::Static { .. } => No::Static,
                    VmapError::Area(error) => no_area(&error),
                    VmapError::Map(_) => No::Short,
                    error => panic!("{error}"),
                })
            }
        }
    }

    /// Whether it is made to be shared, where that is the default or not.
    pub(super) fn is_shared(self, by_default: bool) -> bool {
        match self.name {
            Name::Shared => true,
            Name::Default | Name::Memory | Name::Exec => by_default,
            Name::Own | Name::List => false,
        }
    }
}
