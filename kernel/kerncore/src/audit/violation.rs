//! What an audit can find wrong, one line each.

use core::fmt;

use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::area::AreaKind;
use crate::attributes::{Attributes, MemoryType};
use crate::descriptor::{BadDescriptor, PageSize};
use crate::frames::{FrameOwner, Unsound};
use crate::va_space::CheckError;

/// What an address is for, which decides what its descriptor must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A mapped part of the kernel's image, by name.
    Image(&'static str),
    /// A page of the image that no part covers: the guard of a stack.
    ImageGuard,
    /// Other RAM in the linear map.
    Linear,
    /// RAM whose frame is lent uncached: its linear entry must be gone (S97).
    Lent(FrameOwner),
    /// The linear map above the end of RAM.
    BeyondRam,
    /// A usable page of a live area.
    Area {
        /// What the area is.
        kind: AreaKind,
        /// Its first address.
        base: VirtAddr,
    },
    /// The page behind an area (S2).
    Guard {
        /// The area's first address.
        base: VirtAddr,
    },
    /// The vmalloc window, where no live area is.
    NoArea,
    /// The mapped part of the heap's region.
    Heap,
    /// The part of the heap's region that is not mapped yet.
    HeapRest,
    /// A slot of temporary mappings, or the gap behind one.
    Temporary,
    /// A page of the board's static mappings, or the gap behind one (S95).
    Static,
    /// Addresses in no region that anything is mapped in.
    NoRegion,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(part) => write!(f, "the image's {part}"),
            Self::ImageGuard => f.write_str("a guard in the image"),
            Self::Linear => f.write_str("the linear map"),
            Self::Lent(owner) => write!(f, "the linear map of a frame lent to {owner}"),
            Self::BeyondRam => f.write_str("the linear map above RAM"),
            Self::Area { kind, base } => write!(f, "the {kind} area at {base}"),
            Self::Guard { base } => write!(f, "the guard of the area at {base}"),
            Self::NoArea => f.write_str("addresses of no live area"),
            Self::Heap => f.write_str("the heap"),
            Self::HeapRest => f.write_str("the heap's unused addresses"),
            Self::Temporary => f.write_str("temporary mappings"),
            Self::Static => f.write_str("static mappings"),
            Self::NoRegion => f.write_str("addresses of no region"),
        }
    }
}

/// One rule broken. Each names the offender, what should be there and what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A word that no part of this project writes: writable and executable (S112), reserved bits, leftovers (S21).
    BadDescriptor {
        /// The first address that it translates.
        address: VirtAddr,
        /// What the address is for.
        place: Place,
        /// The word, and what is wrong with it.
        descriptor: BadDescriptor,
    },
    /// A section or a large page where only small pages may be (S22).
    PageSize {
        /// The first address that it translates.
        address: VirtAddr,
        /// What the address is for.
        place: Place,
        /// The size found.
        had: PageSize,
    },
    /// Two first-level slots name one second-level table.
    SharedTable {
        /// The first address below the one.
        first: VirtAddr,
        /// The first address below the other.
        second: VirtAddr,
        /// The table.
        table: PhysAddr,
    },
    /// A first-level slot names a table in a frame that is not the page tables'.
    ForeignTable {
        /// The first address below it.
        address: VirtAddr,
        /// The table.
        table: PhysAddr,
        /// Whose the frame is.
        had: FrameOwner,
    },
    /// A first-level slot of the linear map does not name the table that was made for it.
    LinearTable {
        /// The first address below it.
        address: VirtAddr,
        /// The table that it should name.
        wanted: PhysAddr,
        /// What the slot holds.
        had: u32,
    },
    /// The tables in use are not those that were made: one was lost, or one is named that was never made.
    Tables {
        /// Tables made since boot.
        made: u32,
        /// Tables found outside the linear map.
        found: u32,
    },
    /// Nothing is mapped where something must be.
    Missing {
        /// The address.
        address: VirtAddr,
        /// What it is for.
        place: Place,
        /// Where it should lead, if only one frame is right.
        wanted: Option<PhysAddr>,
    },
    /// Something is mapped where nothing may be.
    Present {
        /// The address.
        address: VirtAddr,
        /// What it is for.
        place: Place,
        /// Where it leads.
        had: PhysAddr,
    },
    /// An entry leads elsewhere.
    WrongFrame {
        /// The address.
        address: VirtAddr,
        /// What it is for.
        place: Place,
        /// Where it should lead.
        wanted: PhysAddr,
        /// Where it leads.
        had: PhysAddr,
    },
    /// An entry promises something else.
    WrongAttributes {
        /// The address.
        address: VirtAddr,
        /// What it is for.
        place: Place,
        /// What it should promise.
        wanted: Attributes,
        /// What it promises.
        had: Attributes,
    },
    /// A frame belongs to somebody else than the addresses that lead to it.
    WrongOwner {
        /// The address.
        address: VirtAddr,
        /// What it is for.
        place: Place,
        /// The frame.
        frame: Pfn,
        /// Whose it should be.
        wanted: FrameOwner,
        /// Whose it is.
        had: FrameOwner,
    },
    /// One frame lies behind two places of areas that each own it.
    MappedTwice {
        /// The frame.
        frame: Pfn,
        /// The one address.
        first: VirtAddr,
        /// The other.
        second: VirtAddr,
    },
    /// Memory that is mapped, but is free, or not RAM at all.
    NotInUse {
        /// The address.
        address: VirtAddr,
        /// What it is for.
        place: Place,
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        had: FrameOwner,
    },
    /// RAM behind a mapping that is for devices (S94).
    DeviceOverRam {
        /// The address.
        address: VirtAddr,
        /// Where it leads.
        physical: PhysAddr,
        /// Whose the frame is.
        had: FrameOwner,
    },
    /// One physical page is mapped with two memory types (S97).
    MemoryTypes {
        /// The page.
        physical: PhysAddr,
        /// The one address.
        first: VirtAddr,
        /// Its type.
        first_type: MemoryType,
        /// The other address.
        second: VirtAddr,
        /// Its type.
        second_type: MemoryType,
    },
    /// A page that is no RAM is mapped, and the physical index does not have it so: what does not go together with that would
    /// not be refused (S97).
    Unindexed {
        /// The address.
        address: VirtAddr,
        /// Where it leads.
        physical: PhysAddr,
        /// What it promises.
        attributes: Attributes,
    },
    /// The physical index has more or fewer runs than areas have.
    IndexRuns {
        /// Those in the index.
        runs: u32,
        /// Those of areas.
        found: u32,
    },
    /// The physical index contradicts itself.
    IndexUnsound,
    /// Memory that may not be written through one address may be through another, or what is executable through one
    /// is writable through the other (S112).
    ProtectionAlias {
        /// The frame.
        frame: Pfn,
        /// The address outside the linear map.
        address: VirtAddr,
        /// What that allows.
        attributes: Attributes,
        /// The linear address.
        linear: VirtAddr,
        /// What that allows.
        linear_attributes: Attributes,
    },
    /// Frames that somebody owns were not found where all of his must be: they leaked.
    FrameCount {
        /// Who.
        owner: FrameOwner,
        /// Frames that the frame table says are his.
        owned: u32,
        /// Frames found.
        found: u32,
    },
    /// There are more or fewer records than live areas.
    Records {
        /// Records in use.
        records: u32,
        /// Live areas found.
        areas: u32,
    },
    /// A record does not say what the area is.
    Record {
        /// The area's first address.
        base: VirtAddr,
        /// Which part of it.
        part: &'static str,
        /// What it should say.
        wanted: u32,
        /// What it says.
        had: u32,
    },
    /// The books of the vmalloc window contradict themselves.
    Books(CheckError),
    /// The frame table and the allocator's lists contradict each other.
    Frames(Unsound),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadDescriptor { address, place, descriptor } => {
                write!(f, "{address} ({place}): {descriptor}")
            }
            Self::PageSize { address, place, had } => {
                write!(f, "{address} ({place}): a mapping of {} KiB", had.bytes() >> 10)
            }
            Self::SharedTable { first, second, table } => {
                write!(f, "{first} and {second} share the second-level table {table}")
            }
            Self::ForeignTable { address, table, had } => {
                write!(f, "{address}: the second-level table {table} lies in a frame of {had}")
            }
            Self::LinearTable { address, wanted, had } => {
                write!(f, "{address}: first-level {had:#010x} does not name the table {wanted}")
            }
            Self::Tables { made, found } => {
                write!(f, "{made} second-level tables were made, {found} are in use")
            }
            Self::Missing { address, place, wanted: Some(wanted) } => {
                write!(f, "{address} ({place}): not mapped, should lead to {wanted}")
            }
            Self::Missing { address, place, wanted: None } => {
                write!(f, "{address} ({place}): not mapped")
            }
            Self::Present { address, place, had } => {
                write!(f, "{address} ({place}): mapped, to {had}")
            }
            Self::WrongFrame { address, place, wanted, had } => {
                write!(f, "{address} ({place}): leads to {had}, not to {wanted}")
            }
            Self::WrongAttributes { address, place, wanted, had } => {
                write!(f, "{address} ({place}): is {had}, not {wanted}")
            }
            Self::WrongOwner { address, place, frame, wanted, had } => {
                write!(f, "{address} ({place}): frame {frame} belongs to {had}, not to {wanted}")
            }
            Self::MappedTwice { frame, first, second } => {
                write!(f, "frame {frame} lies behind {first} and behind {second}")
            }
            Self::NotInUse { address, place, frame, had } => {
                write!(f, "{address} ({place}): frame {frame} is not memory in use ({had})")
            }
            Self::DeviceOverRam { address, physical, had } => {
                write!(f, "{address}: a device mapping of RAM at {physical} ({had})")
            }
            Self::MemoryTypes { physical, first, first_type, second, second_type } => {
                write!(f, "{physical} is {first_type} at {first} and {second_type} at {second}")
            }
            Self::Unindexed { address, physical, attributes } => {
                write!(
                    f,
                    "{address}: the index does not have {physical}, mapped there {attributes}"
                )
            }
            Self::IndexRuns { runs, found } => {
                write!(f, "the physical index has {runs} runs, areas have {found}")
            }
            Self::IndexUnsound => f.write_str("the physical index contradicts itself"),
            Self::ProtectionAlias { frame, address, attributes, linear, linear_attributes } => {
                write!(
                    f,
                    "frame {frame} is {attributes} at {address} and {linear_attributes} at {linear}"
                )
            }
            Self::FrameCount { owner, owned, found } => {
                write!(f, "{owner} owns {owned} frames, of which {found} were found")
            }
            Self::Records { records, areas } => {
                write!(f, "{records} area records are in use for {areas} live areas")
            }
            Self::Record { base, part, wanted, had } => {
                write!(f, "the record of the area at {base} has {part} {had:#x}, not {wanted:#x}")
            }
            Self::Books(error) => write!(f, "the books of the vmalloc window: {error}"),
            Self::Frames(error) => write!(f, "the frame table: {error}"),
        }
    }
}
