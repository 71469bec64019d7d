//! Bare areas: addresses for a caller, who maps there what it likes, or nothing (S12, S38, S47, S48, S55).
//!
//! ```text
//!   reserve_area ─▶ Reserved ──map_area──▶ Borrowed ──unmap_area──▶ …  ──remove_area──▶ a descriptor, no area
//!                      │                                                 free_area ───▶ nothing
//!                      └──fill_area──▶ an area of vmalloc
//! ```

use core::fmt;

use crate::addr::{PageRange, Pfn, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaSummary, Mapping, VmStruct};
use crate::attributes::Attributes;
use crate::frames::{Belonging, FrameRequest};
use crate::kernel_space::reserve::{NewArea, NoArea, home_of};
use crate::kernel_space::shortage::Shortage;
use crate::kernel_space::vmap::{OwnerSet, refusal};
use crate::kernel_space::{ChangeError, KernelSpace, VmapError};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{MapError, Released, Removal, ReserveError};
use crate::slab::Home;
use crate::va_space::{GUARD_PAGES, Request};

/// A bare area, and where C callers read what it is.
#[derive(Clone, Copy, Debug)]
pub struct BareArea {
    /// The area.
    pub area: AreaSummary,
    /// Its descriptor, which is the area's as long as that lives.
    pub descriptor: *const VmStruct,
}

/// Why there is no bare area. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareError {
    /// No addresses, or no record for them.
    Area(NoArea),
    /// No second-level table for all of it (S47).
    Table(ReserveError),
}

impl fmt::Display for BareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Area(error) => error.fmt(f),
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BareError {}

/// Why not all frames were mapped into a bare area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAreaError {
    /// It is no area that its caller may map into. Nothing has changed.
    Change(ChangeError),
    /// A frame was refused, or the mapping failed. `mapped` pages, from the first on, are mapped and stay so (S19).
    Map {
        /// What went wrong.
        reason: VmapError,
        /// How many pages are mapped all the same.
        mapped: u32,
    },
}

impl fmt::Display for MapAreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(error) => error.fmt(f),
            // It says itself how many are mapped.
            Self::Map { reason: reason @ VmapError::Map(_), .. } => reason.fmt(f),
            Self::Map { reason, mapped } => write!(f, "{reason} ({mapped} mapped)"),
        }
    }
}

impl core::error::Error for MapAreaError {}

/// Why pages were not unmapped. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapAreaError {
    /// It is no area that its caller may unmap from.
    Change(ChangeError),
    /// The pages do not lie in one area, its guard counted.
    Outside {
        /// The pages given.
        pages: PageRange,
    },
    /// They are a part of a large mapping, which is never split (S90): all of it may be unmapped.
    Large {
        /// The pages given.
        pages: PageRange,
        /// All of the area.
        area: PageRange,
    },
}

impl fmt::Display for UnmapAreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(error) => error.fmt(f),
            Self::Outside { pages } => write!(f, "{pages} does not lie in one area"),
            Self::Large { pages, area } => {
                write!(f, "{pages} is a part of the large mapping {area}, which is never split")
            }
        }
    }
}

impl core::error::Error for UnmapAreaError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Reserves addresses as `request` says, in which nothing is mapped, in the name of `caller` (S12). `flags` are shown. Not
    /// in interrupt context (S10).
    ///
    /// # Errors
    /// [`NoArea`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn reserve_area(
        &self,
        request: Request,
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<BareArea, NoArea> {
        let both = |area, descriptor| BareArea { area, descriptor };
        match self.reserve_at_hand_and(request, flags, caller, both) {
            Some(area) => Ok(area),
            None => self.reserve_anyhow(FrameRequest::LOW, request, flags, caller),
        }
    }

    /// As [`KernelSpace::reserve_area`], for such memory: the descriptor lies on the node that it is wanted on, if that has low
    /// memory (S9).
    ///
    /// # Errors
    /// [`NoArea`].
    ///
    /// # Panics
    /// In interrupt context.
    pub fn reserve_area_for(
        &self,
        memory: FrameRequest,
        request: Request,
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<BareArea, NoArea> {
        match home_of(memory) {
            Home::First => self.reserve_area(request, flags, caller),
            Home::Second => self.reserve_anyhow(memory, request, flags, caller),
        }
    }

    #[inline(never)]
    fn reserve_anyhow(
        &self,
        memory: FrameRequest,
        request: Request,
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<BareArea, NoArea> {
        let (usable, place) = self.reserve("get_vm_area", |areas| areas.reserve(&request))?;
        let place = self.at_home(place, memory);
        let descriptor = &raw const place.vm;
        let new = NewArea::new(AreaKind::Bare, caller).flags(flags);
        let area = self.publish(place, Mapping::Reserved { usable }, new);
        Ok(BareArea { area, descriptor })
    }

    /// As [`KernelSpace::reserve_area`], with every second-level table that the area and its guard can need: to map something
    /// there later never asks for memory (S47).
    ///
    /// # Errors
    /// [`BareError`]; nothing was taken but tables, which stay (S24).
    ///
    /// # Panics
    /// In interrupt context.
    pub fn reserve_area_with_tables(
        &self,
        request: Request,
        flags: AreaFlags,
        caller: VirtAddr,
    ) -> Result<BareArea, BareError> {
        let (usable, place) = self.unless_short(|| {
            let (usable, place) = self
                .reserve("alloc_vm_area", |areas| areas.reserve(&request))
                .map_err(BareError::Area)?;
            let pages = usable.pages();
            let with_guard = PageRange::from_numbers(pages.first(), pages.count() + GUARD_PAGES);
            // Making a table writes no slot of the second level, so nobody's right to one is touched.
            let mut with_guard = OwnedRange::mint(with_guard.unwrap_or(pages));
            let tables = self.tables.source(&self.zones);
            match self.table.reserve_tables(&mut with_guard, &tables) {
                Ok(()) => Ok((usable, place)),
                Err(error) => {
                    self.abandon(usable, place);
                    Err(BareError::Table(error))
                }
            }
        })?;
        let descriptor = &raw const place.vm;
        let new = NewArea::new(AreaKind::Bare, caller).flags(flags);
        let area = self.publish(place, Mapping::Reserved { usable }, new);
        Ok(BareArea { area, descriptor })
    }

    /// Maps `frames` one after the other into the bare area at `base`, from its first page on, and says how many that were
    /// (S16, S38). They need not fill it. `None` is a gap (S18); what may be mapped is what vmap maps. Not in interrupt context.
    ///
    /// # Errors
    /// [`MapAreaError`].
    ///
    /// # Panics
    /// In interrupt context.
    pub fn map_area<I>(
        &self,
        base: VirtAddr,
        mut frames: I,
        attributes: Attributes,
    ) -> Result<u32, MapAreaError>
    where
        I: ExactSizeIterator<Item = Option<Belonging>> + Clone,
    {
        self.may_sleep_for("map_vm_area");
        let taken = self.take(base, |record| record.kind == AreaKind::Bare);
        let mut mapping = taken.map_err(MapAreaError::Change)?;
        let mapped = match &mut mapping {
            Mapping::Reserved { usable } | Mapping::Borrowed { usable } => {
                let allowed = OwnerSet::allowed_under(attributes);
                let checked = frames.clone().map(|item| match item {
                    Some(Belonging { frame, owner }) if allowed.contains(owner) => Some(frame),
                    _ => None,
                });
                self.map_whatever_lingers(usable, &checked, attributes)
            }
            // A bare area has no other mapping.
            _ => Ok(0),
        };
        self.put(base, borrowed(mapping), |_| ());
        mapped.map_err(|error| MapAreaError::Map {
            mapped: error.mapped(),
            reason: match error {
                MapError::MissingFrame { mapped, .. } => {
                    refusal(mapped, frames.nth(mapped as usize).flatten(), attributes)
                }
                error => VmapError::Map(error),
            },
        })
    }

    /// Maps `frames` from the first page of `usable` on. If a table is lacking that what lingers would make, it begins anew.
    fn map_whatever_lingers<I>(
        &self,
        usable: &mut OwnedRange,
        frames: &I,
        attributes: Attributes,
    ) -> Result<u32, MapError>
    where
        I: ExactSizeIterator<Item = Option<Pfn>> + Clone,
    {
        loop {
            let error = match self.map(usable, frames.clone(), attributes) {
                Ok(mapped) => return Ok(mapped),
                Err(error) => error,
            };
            if !error.is_shortage() || !self.free_lingering() {
                return Err(error);
            }
            self.unmap_failed(usable, 0, &error);
        }
    }

    /// Unmaps `pages`, which lie in one bare or vmap area, its guard counted, and flushes them; the area keeps its addresses
    /// (S55). What is not mapped stays so (S25). Not in interrupt context.
    ///
    /// # Errors
    /// [`UnmapAreaError`]; nothing has changed.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn unmap_area(
        &self,
        _authority: M::Authority,
        pages: PageRange,
    ) -> Result<Removal, UnmapAreaError> {
        self.may_sleep_for("unmap_kernel_range");
        let outside = UnmapAreaError::Outside { pages };
        let area = self.find_containing(pages.start()).ok_or(outside)?;
        let base = area.pages.start();
        let taken =
            self.take(base, |record| matches!(record.kind, AreaKind::Bare | AreaKind::Vmap));
        let mapping = taken.map_err(UnmapAreaError::Change)?;
        let whole = mapping.pages();
        let offset = pages.first().saturating_sub(whole.first());
        // Of the guard nothing is mapped.
        let count = pages.end().min(whole.end()).saturating_sub(pages.first());
        let (mapping, removed) = match mapping {
            mapping if pages.end() > whole.end() + GUARD_PAGES => (mapping, Err(outside)),
            Mapping::Borrowed { mut usable } => {
                let removed = self.table.unmap_part(&mut usable, offset, count);
                (Mapping::Borrowed { usable }, removed.map_err(|_| outside))
            }
            // Until the area goes, the physical index has what was mapped in it.
            Mapping::Devices { mut usable } => {
                let removed = self.table.unmap_part(&mut usable, offset, count);
                (Mapping::Devices { usable }, removed.map_err(|_| outside))
            }
            Mapping::Large { usable, list, parts, parked } if count == whole.count() => {
                let Released { range, removal, .. } =
                    self.vunmap_large(usable, parts, parked, list);
                (Mapping::Borrowed { usable: range }, Ok(removal))
            }
            mapping @ Mapping::Large { .. } if count != 0 => {
                (mapping, Err(UnmapAreaError::Large { pages, area: whole }))
            }
            // Nothing is mapped.
            mapping => (mapping, Ok(Removal::default())),
        };
        self.put(base, mapping, |_| ());
        if let Ok(removal) = removed
            && removal.oddities != 0
        {
            self.support.odd_tables(pages, removal);
        }
        removed
    }
}

/// What is mapped by now may be in a TLB.
fn borrowed(mapping: Mapping) -> Mapping {
    match mapping {
        Mapping::Reserved { usable } => Mapping::Borrowed { usable },
        mapping => mapping,
    }
}
