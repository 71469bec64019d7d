//! What a device behind an IOMMU sees: a space of device addresses, and the tables that translate them (S108 to S110).
//!
//! ```text
//!   device ──IOVA──▶ IOTLB ──▶ short-descriptor tables ──▶ frames, wherever they lie
//!                      ▲            ▲
//!            Iotlb (forgets)   PageTable over a DomainMachine
//! ```
//!
//! * [`iova`]: which device addresses are taken, in bitmaps as the atomic pool's.
//! * [`machine`]: what a unit must do for a domain, and the kernel's own machine with that unit's invalidations.
//! * [`Segment`]: which pieces of a scatter list are one to the device.
//! * [`Domain`]: both together, over the page table that the kernel's own addresses have, with entries of 4 KiB, 64 KiB, 1 MiB and
//!   16 MiB, whichever the alignment of both sides allows.
//! * [`SeenList`]: a buffer of frames that need not be adjacent, which the processor and a device see.
//!
//! The tables have the format that the processor's own walker reads. So a processor can stand in for a device, and see what that
//! would see (S110): [`machine::Iotlb`] is then its TLB, under a number of the domain's own.
//!
//! What was mapped is given back after the flush, and not before it: device addresses and whatever waits with them travel inside an
//! [`UnmappedIova`] (S81).

mod at_hand;
mod audit;
mod domain;
mod error;
mod follow;
pub mod iova;
mod listed;
pub mod machine;
mod pages;
mod seen;
mod seen_page;
mod segments;
mod tables;

pub use audit::{DomainSummary, DomainViolation};
pub use domain::{Domain, Iova, UnmappedIova};
pub use error::{CreateError, DomainMapError, IovaError};
pub use follow::Follow;
pub use listed::Records;
use seen::memory_for;
pub(crate) use seen::{NotShown, attributes_for};
pub use seen::{SeenAt, SeenList, StillSeen, UnmappedSeen};
pub use segments::{DeviceSegments, LimitError, Segment, SegmentLimits};

use crate::attributes::{Access, Attributes, Execute, MemoryType, Scope};
use crate::streaming::Flow;

/// What a device may do at addresses of its domain. Short descriptors know no memory that can be written and not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Nothing: the addresses are taken, and every access faults.
    Nothing,
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

impl Grant {
    /// What data that flows so takes.
    pub const fn for_flow(flow: Flow) -> Self {
        if flow.device_writes() { Self::ReadWrite } else { Self::Read }
    }

    /// What the entries promise: not global, never executed; a device is no more than a program.
    pub(crate) const fn attributes(self, memory: MemoryType) -> Attributes {
        let access = match self {
            Self::Nothing => Access::KernelReadOnly,
            Self::Read => Access::UserReadOnly,
            Self::ReadWrite => Access::UserReadWrite,
        };
        match Attributes::new(memory, access, Execute::Never, Scope::NonGlobal) {
            Ok(attributes) => attributes,
            Err(_) => panic!("what is never executed may have any rights"),
        }
    }
}
