//! Executable memory: written first, sealed, and only then executed (S30, S112).
//!
//! ```text
//!            linear map                        vmalloc window
//!   made     – (withdrawn, flushed)            block: writable, never executed
//!   sealed   –                                 block: executable, never written, at the same addresses
//!   freed    block: writable, never executed   – (flushed at once, S14a)
//! ```
//!
//! The block leaves the linear map when it is made and comes back when it is freed, as a lent one does: so there never is a
//! second view of it, and to seal it changes one run of entries, for which nothing has to be taken and nothing can run short.
//!
//! Sealing is break before make: the writable entries go, every CPU's TLB forgets them, and only then are the executable ones
//! written. The data lines are cleaned *after* that, through the new mapping: by then nobody can write any more. What the
//! processor fetched ahead meanwhile goes with the instruction caches and branch predictors of all CPUs, which come last.
//! A CPU other than the one that sealed synchronises its own context before it executes what is new to it (ARM DDI 0406C,
//! A3.8.3): taking the interrupt by which it is asked to does that; who learns of the code by polling executes an ISB. Nothing of
//! it can be in its pipeline from before: until now the pages were not executable, and executable pages that were at these
//! addresses earlier were flushed when they were freed.

use core::fmt;

use crate::addr::{VirtAddr, pages_for};
use crate::area::{AreaFlags, AreaKind, AreaSummary, CodeStage, Mapping};
use crate::frames::{FrameOwner, FrameRequest};
use crate::kernel_space::page_array::{address_of, flags_with};
use crate::kernel_space::reserve::NewArea;
use crate::kernel_space::{ArrayError, ChangeError, CoherentError, KernelSpace};
use crate::linear_map::Disturbed;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::consecutive;
use crate::user::machine::UserMachine;
use crate::va_space::Alignment;

/// Why there is no memory for code. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecError {
    /// A size of zero.
    ZeroSize,
    /// No adjacent frames, no addresses, or no mapping.
    Memory(CoherentError),
    /// No memory for the pointers to its pages (S27).
    PageArray(ArrayError),
}

/// Why an area was not sealed. Nothing has changed, but for [`SealError::Disturbed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// There is no such area, or it is being changed.
    Area(ChangeError),
    /// Memory that `vmalloc_exec` did not make.
    NotExec {
        /// The address given.
        address: VirtAddr,
        /// What lies there.
        found: AreaKind,
    },
    /// It is sealed already.
    Sealed {
        /// The address given.
        address: VirtAddr,
    },
    /// Only a part of the area, or more: a live mapping is never split (S90).
    Partial {
        /// The address given.
        address: VirtAddr,
        /// Pages of the area.
        area: u32,
        /// Pages that were named.
        given: u32,
    },
    /// The area's entries were not what they should be; it is not executable, and is to be freed.
    Disturbed {
        /// The address given.
        address: VirtAddr,
    },
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("a size of zero"),
            Self::Memory(error) => error.fmt(f),
            Self::PageArray(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Area(error) => error.fmt(f),
            Self::NotExec { address, found } => {
                write!(f, "the area at {address}, of kind {found}, is not vmalloc_exec's")
            }
            Self::Sealed { address } => write!(f, "the area at {address} is sealed already"),
            Self::Partial { address, area, given } => {
                write!(f, "{given} pages of the {area} at {address}: areas are sealed whole")
            }
            Self::Disturbed { address } => {
                write!(f, "the entries of the area at {address} are not its own")
            }
        }
    }
}

impl core::error::Error for ExecError {}
impl core::error::Error for SealError {}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Takes `bytes` of zeroed memory for code, rounded up to pages, at most 4 MiB, in the name of `caller`: it can be written
    /// and never executed until [`KernelSpace::seal`]. Freed by [`KernelSpace::vfree`]. Not in interrupt context (S10).
    ///
    /// # Errors
    /// [`ExecError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmalloc_exec(&self, bytes: u32, caller: VirtAddr) -> Result<AreaSummary, ExecError> {
        self.may_sleep_for("vmalloc_exec");
        let pages = pages_for(bytes);
        if bytes == 0 {
            return Err(ExecError::ZeroSize);
        }
        self.unless_short(|| self.take_for_code(pages, caller))
    }

    fn take_for_code(&self, pages: u32, caller: VirtAddr) -> Result<AreaSummary, ExecError> {
        let block = self.zones.allocate_pages(pages, FrameOwner::Text);
        let block = block.map_err(|error| ExecError::Memory(CoherentError::Frames(error)))?;
        let array = match self.take_array(pages, FrameRequest::LOW, caller) {
            Ok(array) => array,
            Err(error) => {
                self.free_own(block);
                return Err(ExecError::PageArray(error));
            }
        };
        let stage = CodeStage::Writable;
        let lent = self.lend("vmalloc_exec", block, Alignment::Page, stage.attributes());
        let (lent, mut place) = match lent {
            Ok(lent) => lent,
            Err(error) => {
                self.abandon_array(array);
                return Err(ExecError::Memory(error));
            }
        };
        let words = self.array_words(&array, &place.within);
        self.note_all(consecutive(lent.first(), pages).into_iter().flatten(), words);
        let new = NewArea::new(AreaKind::Vmalloc, caller)
            .flags(flags_with(&array, AreaFlags::ALLOC))
            .pointers(address_of(words), pages);
        place.array = array;
        Ok(self.publish(place, Mapping::Code { lent, stage }, new))
    }
}

impl<M: UserMachine, L: Locks> KernelSpace<'_, M, L> {
    /// Makes the memory of [`KernelSpace::vmalloc_exec`] at `base`, all of its `pages`, executable, and no address writable
    /// that leads there, for as long as it lives. What was written to it is executed, on every CPU. Not in interrupt context.
    ///
    /// The authority promises that nobody writes there meanwhile, or later: a write faults.
    ///
    /// # Errors
    /// [`SealError`].
    ///
    /// # Panics
    /// In interrupt context.
    pub fn seal(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
        pages: u32,
    ) -> Result<(), SealError> {
        self.may_sleep_for("set_memory_rox");
        let mut refusal = None;
        let taken = self.take(base, |record| {
            let area = record.pages().count();
            refusal = match &record.mapping {
                Mapping::Code { stage: CodeStage::Sealed, .. } => {
                    Some(SealError::Sealed { address: base })
                }
                Mapping::Code { .. } if pages != area => {
                    Some(SealError::Partial { address: base, area, given: pages })
                }
                Mapping::Code { .. } => None,
                _ => Some(SealError::NotExec { address: base, found: record.kind }),
            };
            refusal.is_none()
        });
        match taken.map_err(|error| refusal.unwrap_or(SealError::Area(error)))? {
            Mapping::Code { mut lent, .. } => {
                let stage = CodeStage::Sealed;
                let remapped = lent.remap(&self.table, stage.attributes());
                // New instructions at these addresses: what was fetched or guessed there before is void (B2.2.9).
                self.table.machine().invalidate_instructions();
                self.table.machine().barrier();
                self.put(base, Mapping::Code { lent, stage }, |_| ());
                remapped.map_err(|Disturbed| SealError::Disturbed { address: base })
            }
            // Judged above, under the lock.
            mapping => {
                let found = AreaKind::Vmalloc;
                self.put(base, mapping, |_| ());
                Err(SealError::NotExec { address: base, found })
            }
        }
    }
}
