//! ioremap: device registers behind kernel addresses.

use core::fmt;

use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::area::{AreaKind, Mapping};
use crate::attributes::Attributes;
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::statics::Answer;
use crate::kernel_space::{KernelSpace, StaticMapping};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{LargeParts, MapError};
use crate::physical_index::Sharing;
use crate::va_space::{Alignment, IoRemapPolicy, Request};

/// Why ioremap failed. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoRemapError {
    /// A size of zero (S94).
    ZeroSize {
        /// Where.
        physical: PhysAddr,
    },
    /// The range passes the top of the physical address space (S94).
    Wraps {
        /// Where it begins.
        physical: PhysAddr,
        /// Its size.
        bytes: u32,
    },
    /// The range touches RAM, which has a mapping of another type already (S94).
    Ram {
        /// Where the range begins.
        physical: PhysAddr,
        /// Its size.
        bytes: u32,
        /// The first byte of RAM in it.
        ram: PhysAddr,
    },
    /// The board has some of it mapped for good, otherwise (S95).
    Static {
        /// Where the range begins.
        physical: PhysAddr,
        /// Its size.
        bytes: u32,
        /// How it was to be mapped.
        wanted: Attributes,
        /// What is mapped, and how.
        had: StaticMapping,
    },
    /// No addresses, no record for them, or pages that somebody has mapped otherwise (S97).
    Area(NoArea),
    /// The mapping failed.
    Map(MapError),
}

impl fmt::Display for IoRemapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize { physical } => write!(f, "a size of zero at {physical}"),
            Self::Wraps { physical, bytes } => {
                write!(f, "{bytes:#x} bytes at {physical} pass the top of memory")
            }
            Self::Ram { physical, bytes, ram } => {
                write!(f, "{bytes:#x} bytes at {physical} touch RAM at {ram}")
            }
            Self::Static { physical, bytes, wanted, had } => {
                write!(f, "{bytes:#x} bytes at {physical} cannot be {wanted}: {had}")
            }
            Self::Area(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for IoRemapError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Maps `bytes` at `physical`, which is no RAM, with `attributes`, in the name of `caller`, and gives the address that stands for
    /// `physical`: it need not be aligned, and the last byte is covered (S94). What is large and lies on a border of large entries
    /// is mapped by those ([`LargeParts::of_run`], S96). Nobody may have mapped any of it in a way that does not go together with
    /// this one (S97, S112). The mapping is this caller's own, as by [`KernelSpace::ioremap_own`], or, since
    /// [`KernelSpace::share_by_default`], as by [`KernelSpace::ioremap_shared`]. Not in interrupt context (S10).
    ///
    /// # Errors
    /// [`IoRemapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn ioremap(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<VirtAddr, IoRemapError> {
        if self.shares_by_default() {
            return self.share_or_map(physical, bytes, attributes, caller);
        }
        self.ioremap_own(physical, bytes, attributes, caller)
    }

    /// [`KernelSpace::ioremap_shared`], apart from the common way.
    #[cold]
    #[inline(never)]
    fn share_or_map(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<VirtAddr, IoRemapError> {
        self.ioremap_shared(physical, bytes, attributes, caller)
    }

    /// Maps as [`KernelSpace::ioremap`] says, for this caller alone, whatever others have mapped of the same
    /// (S57). Not in interrupt context (S10).
    ///
    /// # Errors
    /// [`IoRemapError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn ioremap_own(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<VirtAddr, IoRemapError> {
        match self.ioremap_at_hand(physical, bytes, attributes, caller) {
            Some(address) => Ok(address),
            None => self.map_own(physical, bytes, attributes, caller),
        }
    }

    /// As [`KernelSpace::ioremap_own`], of what is not at hand, or is to be refused.
    #[cold]
    #[inline(never)]
    fn map_own(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<VirtAddr, IoRemapError> {
        self.map_devices(physical, bytes, attributes, (Sharing::Own, caller))
    }

    /// Maps, or, if it may be shared, finds mapped.
    #[inline(always)]
    pub(super) fn map_devices(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        (sharing, caller): (Sharing, VirtAddr),
    ) -> Result<VirtAddr, IoRemapError> {
        // Also of what is refused, or was mapped at boot: a handler that gets an answer today dies of another tomorrow.
        self.may_sleep_for(match sharing {
            Sharing::Own => "ioremap",
            Sharing::Shared => "ioremap_shared",
        });
        let wraps = IoRemapError::Wraps { physical, bytes };
        let beyond = bytes.checked_sub(1).ok_or(IoRemapError::ZeroSize { physical })?;
        let last = physical.checked_add(beyond).ok_or(wraps)?;
        if let Some(ram) = self.zones.ram_within(physical, last) {
            return Err(IoRemapError::Ram { physical, bytes, ram });
        }
        match self.static_answer((physical, last), attributes) {
            Answer::Nothing => {}
            Answer::At(address) => return Ok(address),
            Answer::Otherwise(had) => {
                return Err(IoRemapError::Static { physical, bytes, wanted: attributes, had });
            }
        }
        let first = physical.pfn();
        let pages = last.pfn().number() - first.number() + 1;
        // Whoever is far from what the board has mapped has looked already.
        if sharing == Sharing::Shared
            && self.statics.may_have(physical, last)
            && let Some(address) = self.use_again((first, last.pfn()), attributes)
        {
            return Ok(VirtAddr::new(address.raw() | physical.page_offset()));
        }
        let request = Request {
            // What is too large for a product of 32 bits is too large for any window as well.
            bytes: pages.saturating_mul(PAGE_SIZE),
            window: None,
            alignment: Alignment::IoRemap(IoRemapPolicy::Modern),
        };
        let parts = LargeParts::of_run(first, pages);
        let (mapping, place) = self.unless_short(|| {
            let (mut usable, place) = self
                .reserve_devices(&request, (first, last.pfn()), attributes)
                .map_err(IoRemapError::Area)?;
            if !parts.is_none() {
                return self.map_registers(usable, place, (first, pages), attributes);
            }
            let tables = self.tables.source(&self.zones);
            let mapped =
                self.table.map_consecutive(&mut usable, 0, (first, pages), attributes, &tables);
            match mapped {
                Ok(_) => Ok((Mapping::Devices { usable }, place)),
                Err(error) => {
                    self.unwind(usable, place, &error, ());
                    Err(IoRemapError::Map(error))
                }
            }
        })?;
        let new = NewArea::new(AreaKind::IoRemap, caller).at(physical.page_base());
        let area = match sharing {
            Sharing::Own => self.publish(place, mapping, new),
            Sharing::Shared => self.publish_shared(place, mapping, new),
        };
        Ok(VirtAddr::new(area.pages.start().raw() | physical.page_offset()))
    }
}
