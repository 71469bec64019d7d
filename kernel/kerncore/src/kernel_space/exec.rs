//! Executable memory: written first, sealed, and only then executed (S30, S112).
//!
//! ```text
//!            linear map                        vmalloc window
//!   made     – (withdrawn, flushed)             frames: writable, never executed
//!   sealed   –                                  frames: executable, never written, at the same addresses
//!   freed    frames: writable, never executed   – (flushed at once, S14a)
//! ```
//!
//! The frames are vmalloc's, of low memory: they need not be adjacent, and may be as many as the window has pages for. They leave
//! the linear map when the area is made and come back when it is freed ([`crate::linear_map::list`]): so there never is a second
//! view of them, and to seal them changes one run of entries, for which nothing has to be taken and nothing can run short.
//!
//! ```text
//!   addresses ──▶ array ──▶ frames, zeroed ──▶ withdraw ──▶ one flush ──▶ map, clean ──▶ publish
//!        ◀────────── each undone by whoever fails behind it: entries restored, frames freed ──┘
//! ```
//!
//! Sealing is break before make: the writable entries go, every CPU's TLB forgets them, and only then are the executable ones
//! written. The data lines are cleaned *after* that, through the new mapping: by then nobody can write any more. What the
//! processor fetched ahead meanwhile goes with the instruction caches and branch predictors of all CPUs, which come last.
//! A CPU other than the one that sealed synchronises its own context before it executes what is new to it (ARM DDI 0406C,
//! A3.8.3): taking the interrupt by which it is asked to does that; who learns of the code by polling executes an ISB. Nothing of
//! it can be in its pipeline from before: until now the pages were not executable, and executable pages that were at these
//! addresses earlier were flushed when they were freed.

use core::{fmt, mem};

use crate::addr::{PAGE_SIZE, VirtAddr, pages_for};
use crate::area::{AreaFlags, AreaKind, AreaSummary, CodeStage, Mapping};
use crate::frames::{AllocateError, FrameOwner, FrameRequest};
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::page_array::{address_of, flags_with};
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::scattered::NotAbsent;
use crate::kernel_space::{ArrayError, ChangeError, KernelSpace, RemoveError};
use crate::linear_map::list::{Disturbed, LentList};
use crate::linear_map::{LendError, LinearFault};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{MapError, Released, Removal};
use crate::user::machine::UserMachine;
use crate::va_space::Request;

/// Why there is no memory for code. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecError {
    /// A size of zero.
    ZeroSize,
    /// More pages than there is RAM: refused before anything is reserved, as by vmalloc (S26).
    MoreThanMemory {
        /// Pages asked for.
        wanted: u32,
        /// Pages of RAM.
        total: u32,
    },
    /// No addresses, or no record for them.
    Area(NoArea),
    /// No memory for the pointers to its pages (S27).
    PageArray(ArrayError),
    /// No frames of low memory (S28).
    Frames(AllocateError),
    /// The frames cannot leave the linear map (S112).
    Linear(LinearFault),
    /// The mapping failed (S29).
    Map(MapError),
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
            Self::MoreThanMemory { wanted, total } => {
                write!(f, "{wanted} pages wanted, RAM has {total}")
            }
            Self::Area(error) => error.fmt(f),
            Self::PageArray(error) => error.fmt(f),
            Self::Frames(error) => error.fmt(f),
            Self::Linear(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
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

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Takes `bytes` of zeroed memory for code, rounded up to pages, in the name of `caller`: it can be written and never executed
    /// until [`KernelSpace::seal`]. Its frames are of low memory and need not be adjacent. Freed by [`KernelSpace::vfree`]. Not in
    /// interrupt context (S10).
    ///
    /// # Errors
    /// [`ExecError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vmalloc_exec(&self, bytes: u32, caller: VirtAddr) -> Result<AreaSummary, ExecError> {
        self.may_sleep_for("vmalloc_exec");
        if bytes == 0 {
            return Err(ExecError::ZeroSize);
        }
        let (wanted, total) = (pages_for(bytes), self.zones.total());
        if wanted > total {
            return Err(ExecError::MoreThanMemory { wanted, total });
        }
        self.unless_short(|| self.take_for_code(wanted, caller))
    }

    fn take_for_code(&self, pages: u32, caller: VirtAddr) -> Result<AreaSummary, ExecError> {
        // RAM has as many pages, and less than 4 GiB of them.
        let request = Request::of_bytes(pages.wrapping_mul(PAGE_SIZE));
        let (usable, mut place) = self
            .reserve("vmalloc_exec", |areas| areas.reserve(&request))
            .map_err(ExecError::Area)?;
        let array = match self.take_array(pages, FrameRequest::LOW, caller) {
            Ok(array) => array,
            Err(error) => {
                self.abandon(usable, place);
                return Err(ExecError::PageArray(error));
            }
        };
        let absent = match self.absent_list(pages, FrameOwner::Text) {
            Ok(absent) => absent,
            Err(error) => {
                self.abandon_array(array);
                self.abandon(usable, place);
                return Err(match error {
                    NotAbsent::Frames(error) => ExecError::Frames(error),
                    NotAbsent::Linear(fault) => ExecError::Linear(fault),
                });
            }
        };
        let (frames, tables) = (self.zones.table(), self.tables.source(&self.zones));
        let stage = CodeStage::Writable;
        let lent = match absent.lend(frames, &self.table, usable, stage.attributes(), &tables) {
            Ok(lent) => lent,
            Err(LendError { reason, block, range }) => {
                self.abandon(range, place);
                self.abandon_array(array);
                let freed = self.take_list_back(block);
                debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
                return Err(ExecError::Map(reason));
            }
        };
        let words = self.array_words(&array, &place.within);
        self.note_all(lent.list().frames(frames), words);
        let new = NewArea::new(AreaKind::Vmalloc, caller)
            .flags(flags_with(&array, AreaFlags::ALLOC))
            .pointers(address_of(words), pages);
        place.array = array;
        Ok(self.publish(place, Mapping::Code { lent, stage }, new))
    }

    /// Dying → Flushed → Free, of memory for code. Not inlined: other areas pay nothing for it.
    #[cold]
    #[inline(never)]
    pub(super) fn end_code(
        &self,
        lent: LentList,
        mut dying: AreaPlace<'s>,
    ) -> Result<Removal, RemoveError> {
        let pages = lent.pages();
        self.assert_no_null(&dying, pages);
        let Released { range, payload, removal } = lent.unmap(&self.table).flush();
        let freed = self.unless_odd(pages, removal, || self.take_list_back(payload));
        let array = self.free_array(mem::take(&mut dying.array));
        self.give_up_addresses(range, removal, dying);
        let address = pages.start();
        freed.map_err(|error| RemoveError::Frames { address, error })?;
        array.map(|()| removal)
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
                let remapped = lent.remap(self.zones.table(), &self.table, stage.attributes());
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
