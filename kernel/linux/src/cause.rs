//! Whose fault a refusal is, which decides what is said of it, and with what it shares a limit (S3, S8, S26, S37).

use core::fmt;

use kerncore::contiguous::ContiguousError;
use kerncore::frames::AllocateError;
use kerncore::kernel_space::{
    ArrayError, BareError, CoherentError, ExecError, FillAreaError, IoRemapError, MapAreaError,
    MemRemapError, NoArea, VmallocError, VmapError,
};
use kerncore::page_table::MapError;
use kerncore::va_space::ReserveError;

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing was asked for, or more than there can be: null without a word (S3, S26, S37).
    Nothing,
    /// The vmalloc window has no room, which a parameter makes larger (S8).
    Addresses,
    /// The window that the caller named has no room.
    Window,
    /// Memory is short: for the area's own pages, or for what the kernel notes of it.
    Memory,
    /// The caller asks for what cannot be done, however much there is.
    Mistake,
}

/// A refusal that says whose fault it is.
pub(crate) trait Refusal: fmt::Display {
    /// Whose fault it is.
    fn cause(&self) -> Cause;
}

impl Refusal for AllocateError {
    fn cause(&self) -> Cause {
        match self {
            Self::UnknownNode { .. } => Cause::Mistake,
            _ => Cause::Memory,
        }
    }
}

impl Refusal for NoArea {
    fn cause(&self) -> Cause {
        match self {
            Self::Addresses(ReserveError::NoSpace { .. }) => Cause::Addresses,
            Self::Addresses(_) => Cause::Nothing,
            Self::Record(_) | Self::TooManyAreas { .. } => Cause::Memory,
            Self::Alias(_) => Cause::Mistake,
        }
    }
}

impl Refusal for MapError {
    fn cause(&self) -> Cause {
        match self {
            Self::Table { .. } => Cause::Memory,
            _ => Cause::Mistake,
        }
    }
}

impl Refusal for ArrayError {
    fn cause(&self) -> Cause {
        match self {
            Self::Area(error) => error.cause(),
            Self::Frames(error) => error.cause(),
            Self::Map(error) => error.cause(),
            Self::Zero(_) => Cause::Memory,
        }
    }
}

impl Refusal for VmallocError {
    fn cause(&self) -> Cause {
        match self {
            Self::ZeroSize | Self::MoreThanMemory { .. } => Cause::Nothing,
            Self::Area(error) => error.cause(),
            Self::PageArray(error) => error.cause(),
            Self::Frames(error) => error.cause(),
            Self::Map(error) => error.cause(),
            Self::Zero(_) => Cause::Memory,
        }
    }
}

impl Refusal for CoherentError {
    fn cause(&self) -> Cause {
        match self {
            Self::Frames(error) => error.cause(),
            Self::Contiguous(ContiguousError::Absent | ContiguousError::Zero) => Cause::Nothing,
            Self::Area(error) => error.cause(),
            Self::Map(error) => error.cause(),
            Self::Contiguous(_) | Self::Linear(_) => Cause::Memory,
        }
    }
}

impl Refusal for ExecError {
    fn cause(&self) -> Cause {
        match self {
            Self::ZeroSize | Self::MoreThanMemory { .. } => Cause::Nothing,
            Self::Area(error) => error.cause(),
            Self::PageArray(error) => error.cause(),
            Self::Frames(error) => error.cause(),
            Self::Linear(_) => Cause::Memory,
            Self::Map(error) => error.cause(),
        }
    }
}

impl Refusal for VmapError {
    fn cause(&self) -> Cause {
        match self {
            Self::NoPages | Self::MoreThanMemory { .. } => Cause::Nothing,
            Self::Area(error) => error.cause(),
            Self::Map(error) => error.cause(),
            Self::MissingFrame { .. }
            | Self::NotMemory { .. }
            | Self::MemoryType { .. }
            | Self::Protection { .. }
            | Self::Static { .. }
            | Self::Ram { .. } => Cause::Mistake,
        }
    }
}

impl Refusal for BareError {
    fn cause(&self) -> Cause {
        match self {
            Self::Area(error) => error.cause(),
            Self::Table(_) => Cause::Memory,
        }
    }
}

impl Refusal for MapAreaError {
    fn cause(&self) -> Cause {
        match self {
            Self::Change(_) => Cause::Mistake,
            Self::Map { reason, .. } => reason.cause(),
        }
    }
}

impl Refusal for FillAreaError {
    fn cause(&self) -> Cause {
        match self {
            // The area is gone, which is worth a word, too.
            Self::Consumed(VmallocError::MoreThanMemory { .. }) => Cause::Memory,
            Self::Consumed(error) => error.cause(),
            Self::Change(_) | Self::Mapped { .. } => Cause::Mistake,
        }
    }
}

impl Refusal for IoRemapError {
    fn cause(&self) -> Cause {
        match self {
            Self::Area(NoArea::Addresses(
                ReserveError::ZeroSize | ReserveError::TooLarge { .. },
            ))
            | Self::ZeroSize { .. }
            | Self::Wraps { .. }
            | Self::Ram { .. }
            | Self::Static { .. } => Cause::Mistake,
            Self::Area(error) => error.cause(),
            Self::Map(error) => error.cause(),
        }
    }
}

impl Refusal for MemRemapError {
    fn cause(&self) -> Cause {
        match self {
            Self::NotMemory { .. }
            | Self::PartlyRam { .. }
            | Self::RamOtherwise { .. }
            | Self::NoLinearAddress { .. }
            | Self::NotOnChip { .. } => Cause::Mistake,
            Self::Map(error) => error.cause(),
        }
    }
}
