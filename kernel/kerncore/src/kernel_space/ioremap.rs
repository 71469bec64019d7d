//! ioremap: device registers behind kernel addresses.

use core::fmt;

use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::area::{AreaKind, Mapping};
use crate::attributes::Attributes;
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::{KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{LargeParts, MapError};
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
    /// No addresses, or no record for them.
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
            Self::Area(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for IoRemapError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Maps `bytes` at `physical` with `attributes`, in the name of `caller`, and gives the address that stands for
    /// `physical`: it need not be aligned, and the last byte is covered (S94). What is large and lies on a border of large entries
    /// is mapped by those ([`LargeParts::of_run`], S96). Not in interrupt context (S10).
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
        match self.ioremap_at_hand(physical, bytes, attributes, caller) {
            Some(address) => Ok(address),
            None => self.ioremap_any(physical, bytes, attributes, caller),
        }
    }

    /// As [`KernelSpace::ioremap`], of what is not at hand, or is to be refused.
    #[cold]
    #[inline(never)]
    fn ioremap_any(
        &self,
        physical: PhysAddr,
        bytes: u32,
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<VirtAddr, IoRemapError> {
        let wraps = IoRemapError::Wraps { physical, bytes };
        let beyond = bytes.checked_sub(1).ok_or(IoRemapError::ZeroSize { physical })?;
        let last = physical.checked_add(beyond).ok_or(wraps)?;
        if let Some(ram) = self.zones.ram_within(physical, last) {
            return Err(IoRemapError::Ram { physical, bytes, ram });
        }
        let first = physical.pfn();
        let pages = last.pfn().number() - first.number() + 1;
        let request = Request {
            // What is too large for a product of 32 bits is too large for any window as well.
            bytes: pages.saturating_mul(PAGE_SIZE),
            window: None,
            alignment: Alignment::IoRemap(IoRemapPolicy::Modern),
        };
        let parts = LargeParts::of_run(first, pages);
        let (mapping, place) = self.unless_short(|| {
            let (mut usable, place) = self
                .reserve("ioremap", |areas| areas.reserve(&request))
                .map_err(IoRemapError::Area)?;
            if !parts.is_none() {
                return self.map_registers(usable, place, (first, pages), attributes);
            }
            let tables = self.tables.source(&self.zones);
            let mapped =
                self.table.map_consecutive(&mut usable, 0, (first, pages), attributes, &tables);
            match mapped {
                Ok(_) => Ok((Mapping::Borrowed { usable }, place)),
                Err(error) => {
                    self.unwind(usable, place, &error, ());
                    Err(IoRemapError::Map(error))
                }
            }
        })?;
        let new = NewArea::new(AreaKind::IoRemap, caller).at(physical.page_base());
        let area = self.publish(place, mapping, new);
        Ok(VirtAddr::new(area.pages.start().raw() | physical.page_offset()))
    }

    /// Removes the mapping of device registers that `address` lies in; any address inside will do, since ioremap
    /// gives back the base plus the offset in the page. Not in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`].
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn iounmap(&self, _authority: M::Authority, address: VirtAddr) -> Result<(), RemoveError> {
        // Most registers lie in their area's first page.
        if self.iounmap_at_hand(address.page_base()) { Ok(()) } else { self.iounmap_any(address) }
    }

    /// As [`KernelSpace::iounmap`], of what is not at hand, or is to be refused.
    #[cold]
    #[inline(never)]
    fn iounmap_any(&self, address: VirtAddr) -> Result<(), RemoveError> {
        self.may_sleep_for("iounmap");
        // To find the area and to retire it is one step: between two, another CPU could put another area there (S60).
        let dying = self.areas.with(|areas| {
            let base = areas.base_of(address).ok_or(RemoveError::Unknown { address })?;
            areas.retire(base, AreaKind::IoRemap)
        })?;
        self.tear_down(dying)
    }
}
