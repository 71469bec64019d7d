//! One window of a space: what may be done there, and what stands behind it.

use core::fmt;

use crate::addr::VirtAddr;
use crate::attributes::{Access, Attributes, Execute, MemoryType, Scope};
use crate::frames::{AllocateError, FrameList, FrameOwner, ShownBlock};
use crate::kernel_space::{FramesError, ShareError, Shared};
use crate::linear_map::{Absent, LinearFault};
use crate::owned_range::OwnedRange;
use crate::page_table::MapError;
use crate::user::windows::{NoWindow, WindowError};

/// What a program may do with its data. What it may execute is made by [`super::UserSpace::map_text`] alone, so that
/// nothing is both writable and executable (S112).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// Of a program, not global, of the ordinary type or another that agrees with the memory's other mappings.
const fn user(memory: MemoryType, access: Access, execute: Execute) -> Attributes {
    match Attributes::new(memory, access, execute, Scope::NonGlobal) {
        Ok(attributes) => attributes,
        // Data is never executed, and text is of a Normal type and never written.
        Err(_) => panic!("a program's memory is either written or executed"),
    }
}

/// What the entries of a program's text promise.
pub(super) const TEXT: Attributes =
    user(MemoryType::NormalWriteBack, Access::UserReadOnly, Execute::Allowed);

impl Protection {
    /// What the entries of data with this protection promise, in memory of the type `memory`.
    pub(super) const fn attributes(self, memory: MemoryType) -> Attributes {
        match self {
            Self::ReadOnly => user(memory, Access::UserReadOnly, Execute::Never),
            Self::ReadWrite => user(memory, Access::UserReadWrite, Execute::Never),
        }
    }
}

/// What stands behind a live window.
#[derive(Debug)]
pub(super) struct Window {
    /// The right to its descriptors.
    pub(super) usable: OwnedRange,
    /// What its entries promise.
    pub(super) attributes: Attributes,
    pub(super) backing: Backing,
}

/// The memory of a window, which goes with it.
#[derive(Debug)]
pub(super) enum Backing {
    /// None yet: it waits for an area, to be seen with this protection.
    Nothing(Protection),
    /// Pages from `offset` on of memory of the kernel's, which is pinned. The first `mapped` pages of the window show
    /// them; if that is not all, the mapping failed there, and the window waits for its end (S45).
    Shown { source: Source, offset: u32, mapped: u32 },
    /// Frames of its own, one a page.
    Frames(FrameList),
    /// A program's text: adjacent frames, which have no linear mapping while they can be executed (S112).
    Text(Absent),
}

/// The memory of the kernel's that a window shows. Until the window has ended it is not freed.
#[derive(Debug)]
pub(super) enum Source {
    /// The area at `base`.
    Area { base: VirtAddr, what: Shared },
    /// Frames that the linear map has.
    Block(ShownBlock),
}

impl Source {
    /// The type that every mapping of it must have (S97).
    pub(super) const fn memory(&self) -> MemoryType {
        match self {
            Self::Area { what, .. } => what.memory(),
            Self::Block(_) => MemoryType::NormalWriteBack,
        }
    }

    /// Whose its frames are.
    pub(super) const fn owner(&self) -> FrameOwner {
        match self {
            Self::Area { what: Shared::Vmalloc, .. } => FrameOwner::Vmalloc,
            Self::Area { what: Shared::Coherent(_) | Shared::Seen(_), .. } => FrameOwner::Dma,
            // It is no RAM.
            Self::Area { what: Shared::Device(_), .. } => FrameOwner::Absent,
            Self::Block(block) => block.owner(),
        }
    }
}

/// Why a window was not made. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceError {
    /// Its addresses are not to be had.
    Window(WindowError),
    /// The program has more bytes than the window.
    TooLong {
        /// How many it has.
        bytes: usize,
        /// How many pages the window has.
        pages: u32,
    },
    /// No frames.
    Frames(AllocateError),
    /// The frames cannot leave the linear map.
    Linear(LinearFault),
    /// The mapping failed.
    Map(MapError),
}

/// Why a window does not show an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShowError {
    /// There is no such window; nothing has changed.
    NoWindow(NoWindow),
    /// The window has memory already; nothing has changed.
    InUse {
        /// Where it begins.
        address: VirtAddr,
    },
    /// The memory is not to be shown; nothing has changed.
    Share(ShareError),
    /// The mapping failed. What was mapped before stays until the window ends (S45).
    Map(MapError),
}

impl From<NoWindow> for ShowError {
    fn from(none: NoWindow) -> Self {
        Self::NoWindow(none)
    }
}

impl fmt::Display for ShowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWindow(error) => error.fmt(f),
            Self::InUse { address } => write!(f, "the window at {address} has memory already"),
            Self::Share(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ShowError {}

/// Why a window is still there, or its frames did not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseError {
    /// There is none; nothing has changed.
    NoWindow(NoWindow),
    /// It is gone, but its frames stay out of use: they are not its own.
    Frames {
        /// Where it began.
        address: VirtAddr,
        /// What disagreed.
        error: FramesError,
    },
}

impl From<NoWindow> for CloseError {
    fn from(none: NoWindow) -> Self {
        Self::NoWindow(none)
    }
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(error) => error.fmt(f),
            Self::TooLong { bytes, pages } => {
                write!(f, "{bytes} bytes do not fit into {pages} pages")
            }
            Self::Frames(error) => error.fmt(f),
            Self::Linear(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWindow(error) => error.fmt(f),
            Self::Frames { address, error } => {
                write!(f, "the frames of the window at {address} are not its own: {error}")
            }
        }
    }
}

impl core::error::Error for PlaceError {}
impl core::error::Error for CloseError {}
