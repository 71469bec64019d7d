//! The wider ioremap family: memory that is no register block, cached or not, and code in on-chip memory (S93).
//!
//! ```text
//!   memremap       all of it RAM, and asked for as the linear map has it ─▶ the linear address, which is nobody's to end
//!                  no byte of it RAM                                     ─▶ a mapping as ioremap makes it, of that type
//!   ioremap_exec   in on-chip memory, read-only                          ─▶ a mapping that may be executed
//! ```
//! A second mapping of RAM in another type is never made: mismatched aliases are unpredictable (S97). What may be executed is
//! written by another name first (`ioremap_wc`, or `memremap` of any type), whose mapping ends before this one begins (S112); what
//! the data caches still have of it then comes to memory first.

use core::fmt;

use crate::addr::{PageRange, Pfn, PhysAddr, VirtAddr};
use crate::attributes::{Access, Attributes, Execute, MemoryType, Scope};
use crate::bus::BusRange;
use crate::kernel_space::{IoRemapError, KernelSpace, RemoveError};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::user::machine::UserMachine;

/// What code in on-chip memory is mapped as: no cache need be kept in step with it.
const ON_CHIP_CODE: Attributes = match Attributes::new(
    MemoryType::NormalNonCacheable,
    Access::KernelReadOnly,
    Execute::Allowed,
    Scope::Global,
) {
    Ok(attributes) => attributes,
    Err(_) => panic!("read-only Normal memory may be executed"),
};

/// Why memory was not mapped. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemRemapError {
    /// A type that is none of memory's.
    NotMemory {
        /// Where it was asked for.
        physical: PhysAddr,
        /// The type.
        wanted: MemoryType,
    },
    /// RAM, and something that is not: no one mapping serves both.
    PartlyRam {
        /// Where the range begins.
        physical: PhysAddr,
        /// Its size.
        bytes: u32,
        /// The first byte of RAM in it.
        ram: PhysAddr,
    },
    /// RAM that the linear map has in another way (S97).
    RamOtherwise {
        /// The page.
        physical: PhysAddr,
        /// Where the linear map has it.
        linear: VirtAddr,
        /// How.
        had: Attributes,
        /// How it was asked for.
        wanted: Attributes,
    },
    /// RAM without a linear address: high memory, or lent out of the linear map.
    NoLinearAddress {
        /// The page.
        physical: PhysAddr,
    },
    /// Code outside the on-chip memory.
    NotOnChip {
        /// Where the range begins.
        physical: PhysAddr,
        /// Its size.
        bytes: u32,
        /// Where on-chip memory lies, if there is any.
        on_chip: Option<BusRange>,
    },
    /// The range is refused as ioremap refuses it, or the mapping failed.
    Map(IoRemapError),
}

impl fmt::Display for MemRemapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMemory { physical, wanted } => {
                write!(f, "memory at {physical} cannot be {wanted}, which is for registers")
            }
            Self::PartlyRam { physical, bytes, ram } => {
                write!(
                    f,
                    "of {bytes:#x} bytes at {physical} a part is RAM, from {ram} on, and a part is not"
                )
            }
            Self::RamOtherwise { physical, linear, had, wanted } => {
                write!(f, "RAM at {physical} cannot be {wanted}: at {linear} it is {had}")
            }
            Self::NoLinearAddress { physical } => {
                write!(f, "RAM at {physical} has no linear address")
            }
            Self::NotOnChip { physical, bytes, on_chip: Some(on_chip) } => {
                write!(
                    f,
                    "{bytes:#x} bytes at {physical} do not lie in on-chip memory, which is {on_chip}"
                )
            }
            Self::NotOnChip { physical, bytes, on_chip: None } => {
                write!(f, "{bytes:#x} bytes at {physical}: there is no on-chip memory")
            }
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for MemRemapError {}

/// The first and the last byte of a range that is not empty and does not wrap (S94).
fn ends(physical: PhysAddr, bytes: u32) -> Result<(PhysAddr, PhysAddr), MemRemapError> {
    let refused = |error| MemRemapError::Map(error);
    let beyond = bytes.checked_sub(1).ok_or(refused(IoRemapError::ZeroSize { physical }))?;
    let wraps = refused(IoRemapError::Wraps { physical, bytes });
    Ok((physical, physical.checked_add(beyond).ok_or(wraps)?))
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Maps `bytes` of memory at `physical` as `memory`, which is write-back, write-through or non-cacheable, in the name of
    /// `caller`; of RAM gives the linear address, if that is such memory. It ends by [`KernelSpace::memunmap`] (S93). Not in
    /// interrupt context (S10).
    ///
    /// # Errors
    /// [`MemRemapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn memremap(
        &self,
        physical: PhysAddr,
        bytes: u32,
        memory: MemoryType,
        caller: VirtAddr,
    ) -> Result<VirtAddr, MemRemapError> {
        self.may_sleep_for("memremap");
        let wanted = match memory {
            MemoryType::NormalWriteBack => Attributes::KERNEL_DATA,
            MemoryType::NormalWriteThrough => Attributes::WRITE_THROUGH,
            MemoryType::NormalNonCacheable => Attributes::WRITE_COMBINE,
            MemoryType::StronglyOrdered | MemoryType::Device => {
                return Err(MemRemapError::NotMemory { physical, wanted: memory });
            }
        };
        let (first, last) = ends(physical, bytes)?;
        match self.zones.ram_within(first, last) {
            None => self.ioremap(physical, bytes, wanted, caller).map_err(MemRemapError::Map),
            Some(ram) => {
                let partly = MemRemapError::PartlyRam { physical, bytes, ram };
                self.linear_of((first, last), wanted, partly)
            }
        }
    }

    /// Where the linear map has all of a range that touches RAM, with the attributes that are wanted.
    fn linear_of(
        &self,
        (first, last): (PhysAddr, PhysAddr),
        wanted: Attributes,
        partly: MemRemapError,
    ) -> Result<VirtAddr, MemRemapError> {
        let table = self.zones.table();
        if table.frame(first.pfn()).is_none() || table.frame(last.pfn()).is_none() {
            return Err(partly);
        }
        let numbers = first.pfn().number()..=last.pfn().number();
        for frame in numbers.filter_map(Pfn::new) {
            let absent = MemRemapError::NoLinearAddress { physical: frame.base() };
            let linear = self.linear.pages_of(frame, 1).ok_or(absent)?.start();
            let had = self.table.translate(linear).ok_or(absent)?.attributes();
            let had = had.map_err(|_bad| absent)?;
            if had != wanted {
                let physical = frame.base();
                return Err(MemRemapError::RamOtherwise { physical, linear, had, wanted });
            }
        }
        let absent = MemRemapError::NoLinearAddress { physical: first.page_base() };
        let start = self.linear.pages_of(first.pfn(), 1).ok_or(absent)?.start();
        Ok(VirtAddr::new(start.raw() | first.page_offset()))
    }

    /// Ends what [`KernelSpace::memremap`] gave, by any address inside; of a linear address there is nothing to end. Not in
    /// interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`].
    ///
    /// # Panics
    /// In interrupt context.
    pub fn memunmap(&self, authority: M::Authority, address: VirtAddr) -> Result<(), RemoveError> {
        self.may_sleep_for("memunmap");
        if self.linear.window().contains(address) {
            return Ok(());
        }
        self.iounmap(authority, address)
    }
}

impl<M: UserMachine, L: Locks> KernelSpace<'_, M, L> {
    /// Maps `bytes` of on-chip memory at `physical` so that it may be executed, and not written, in the name of `caller`. Any of
    /// `on_chip` will do. What code lies there is seen by every CPU. It ends by [`KernelSpace::iounmap`] (S93, S112). Not in
    /// interrupt context (S10).
    ///
    /// # Errors
    /// [`MemRemapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn ioremap_exec(
        &self,
        (physical, bytes): (PhysAddr, u32),
        on_chip: &[BusRange],
        caller: VirtAddr,
    ) -> Result<VirtAddr, MemRemapError> {
        self.may_sleep_for("ioremap_exec");
        let (first, last) = ends(physical, bytes)?;
        if !on_chip.iter().any(|range| range.has_all(first, last)) {
            let on_chip = on_chip.first().copied();
            return Err(MemRemapError::NotOnChip { physical, bytes, on_chip });
        }
        let mapped = self.ioremap(physical, bytes, ON_CHIP_CODE, caller);
        let address = mapped.map_err(MemRemapError::Map)?;
        let (machine, frame) = (self.table.machine(), first.pfn());
        let count = last.pfn().number() - frame.number() + 1;
        // What was written through a cacheable mapping is still to come to memory, from which instructions are fetched.
        if let Some(pages) = PageRange::new(address.page_base(), count) {
            machine.clean_and_invalidate(pages, frame);
            machine.barrier();
        }
        // New instructions at these addresses: what was fetched or guessed there before is void (B2.2.9).
        machine.invalidate_instructions();
        machine.barrier();
        Ok(address)
    }
}
