//! Coherent memory by remapping: contiguous frames, uncached, without a cacheable view left.
//!
//! ```text
//!            linear map                       vmalloc window
//!   before   block: Normal write-back         –
//!   lent     – (withdrawn, cleaned, flushed)  block: Normal non-cacheable
//!   after    block: Normal write-back         –
//! ```
//!
//! Two live mappings of one frame with different memory types are unpredictable on `ARMv7` (S97), so the linear
//! entries go first and come back last, each time after the flush of the other.

use core::{fmt, mem};

use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr, pages_for};
use crate::area::{AreaKind, AreaSummary, Mapping};
use crate::attributes::Attributes;
use crate::contiguous::ContiguousError;
use crate::failure::Point;
use crate::frames::{AllocateError, FrameBlock, FrameOwner, FrameRequest, order_for};
use crate::holder::Holder;
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::{FramesError, KernelSpace, RemoveError};
use crate::linear_map::{Absent, LendError, Lent, LinearError, LinearFault};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::page_table::{MapError, Released};
use crate::va_space::{Alignment, Request};

/// Virtual ranges are aligned to their order, up to a section (S65).
pub(super) const SECTION_ORDER: u32 = 8;

/// Why no coherent memory could be had. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoherentError {
    /// No contiguous frames.
    Frames(AllocateError),
    /// No run of the contiguous region.
    Contiguous(ContiguousError),
    /// No addresses, or no record for them.
    Area(NoArea),
    /// The frames cannot leave the linear map.
    Linear(LinearFault),
    /// The mapping failed (S66).
    Map(MapError),
}

impl fmt::Display for CoherentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames(error) => error.fmt(f),
            Self::Contiguous(error) => error.fmt(f),
            Self::Area(error) => error.fmt(f),
            Self::Linear(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CoherentError {}

/// What the freeing of a coherent buffer found; anything odd in it is for the caller to report (S65).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoherentFreed {
    /// Pages that were freed: the buffer's own.
    pub actual: u32,
    /// Pages that the caller named.
    pub given: u32,
    /// Pages of the buffer that were found unmapped.
    pub missing: u32,
}

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Takes `bytes` of physically contiguous, zeroed, uncached memory, rounded up to pages, for `holder`, as
    /// [`KernelSpace::next_listed`] says (S66, S83, S85). For callers that may sleep.
    ///
    /// # Errors
    /// [`CoherentError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context (S10).
    pub fn coherent_alloc(
        &self,
        bytes: u32,
        owner: FrameOwner,
        holder: impl Into<Holder>,
    ) -> Result<AreaSummary, CoherentError> {
        let holder = holder.into();
        self.may_sleep_for("dma_alloc_coherent");
        self.bound_backlog();
        if let Some(area) = self.coherent_at_hand(bytes, owner, holder) {
            return Ok(area);
        }
        self.coherent_from(bytes, holder, |pages| {
            self.zones.allocate_pages(pages, owner).map_err(CoherentError::Frames)
        })
    }

    /// As [`KernelSpace::coherent_alloc`], of frames that will do for `request`, which asks for low memory: of those that a device
    /// reaches (S100).
    ///
    /// # Errors
    /// [`CoherentError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context (S10).
    #[cold]
    #[inline(never)]
    pub fn coherent_alloc_below(
        &self,
        request: FrameRequest,
        bytes: u32,
        owner: FrameOwner,
        holder: impl Into<Holder>,
    ) -> Result<AreaSummary, CoherentError> {
        self.coherent_from(bytes, holder.into(), |pages| {
            self.zones.allocate_pages_from(request, pages, owner).map_err(CoherentError::Frames)
        })
    }

    /// [`KernelSpace::coherent_alloc`] of the frames that `take` gives.
    #[inline(always)]
    pub(super) fn coherent_from(
        &self,
        bytes: u32,
        holder: Holder,
        take: impl Fn(u32) -> Result<FrameBlock, CoherentError>,
    ) -> Result<AreaSummary, CoherentError> {
        let pages = pages_for(bytes);
        let alignment = Alignment::Order(order_for(pages).min(SECTION_ORDER));
        let attributes = Attributes::WRITE_COMBINE;
        let (lent, place) = self.unless_short(|| {
            let block = take(pages)?;
            self.lend("dma_alloc_coherent", block, alignment, attributes)
        })?;
        place.note_holder(holder);
        let new = NewArea::new(AreaKind::Dma, holder.caller).at(lent.first().base());
        Ok(self.publish(place, Mapping::Lent(lent), new))
    }

    /// Maps a fresh `block`, zeroed, at addresses of its own instead of those in the linear map, with no line of it in a cache.
    #[inline]
    fn lend(
        &self,
        operation: &'static str,
        block: FrameBlock,
        alignment: Alignment,
        attributes: Attributes,
    ) -> Result<(Lent, AreaPlace<'s>), CoherentError> {
        let pages = block.pages();
        self.zero_low_frames(block.first(), pages);
        let absent = self.withdraw(block).map_err(CoherentError::Linear)?;
        // Less than 4 GiB.
        let request = Request { bytes: pages.wrapping_mul(PAGE_SIZE), window: None, alignment };
        let (usable, place) = match self.reserve(operation, |areas| areas.reserve(&request)) {
            Ok(reserved) => reserved,
            Err(error) => {
                self.take_back_own(absent);
                return Err(CoherentError::Area(error));
            }
        };
        let tables = self.tables.source(&self.zones);
        match absent.lend(&self.table, usable, attributes, &tables) {
            Ok(lent) => Ok((lent, place)),
            Err(LendError { reason, block, range }) => {
                self.abandon(range, place);
                self.take_back_own(block);
                Err(CoherentError::Map(reason))
            }
        }
    }

    /// Takes the coherent area at `base` back. If `bytes` is not its size, its own size counts (S65).
    ///
    /// # Errors
    /// [`RemoveError`] if no coherent area begins there (S67); nothing has changed.
    ///
    /// # Panics
    /// In interrupt context (S35).
    pub fn coherent_free(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
        bytes: u32,
    ) -> Result<CoherentFreed, RemoveError> {
        self.may_sleep_for("dma_free_coherent");
        let dying = self.retire(base, AreaKind::Dma)?;
        self.free_dying(dying, bytes)
    }

    /// As [`KernelSpace::coherent_free`], if the area begins at `physical` on the bus. To compare and to retire it is one
    /// step: between two, another buffer could take its place (S60).
    ///
    /// # Errors
    /// [`RemoveError`]; nothing has changed.
    ///
    /// # Panics
    /// In interrupt context (S35).
    pub fn coherent_free_at(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
        physical: PhysAddr,
        bytes: u32,
    ) -> Result<CoherentFreed, RemoveError> {
        if !base.is_page_aligned() {
            return Err(RemoveError::Misaligned { address: base });
        }
        self.may_sleep_for("dma_free_coherent");
        if let Some(freed) = self.coherent_free_at_hand(base, physical, bytes) {
            return freed;
        }
        let dying = self.areas.with(|areas| areas.retire_coherent(base, physical))?;
        L::memory_goes(|| Some((base, dying.pages().bytes())));
        self.free_dying(dying, bytes)
    }

    /// As [`KernelSpace::coherent_free_at`], of a buffer that somebody else sees, too: when the processor does not see it any more, and
    /// before its frames are anybody's, `between` makes sure that nobody does (S81), or says why they stay out of use.
    ///
    /// # Errors
    /// [`RemoveError`]; nothing has changed, and `between` was not called, but for [`RemoveError::Frames`].
    ///
    /// # Panics
    /// In interrupt context (S35).
    pub fn coherent_free_between(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
        physical: PhysAddr,
        bytes: u32,
        between: impl FnOnce() -> Result<(), FramesError>,
    ) -> Result<CoherentFreed, RemoveError> {
        if !base.is_page_aligned() {
            return Err(RemoveError::Misaligned { address: base });
        }
        self.may_sleep_for("dma_free_coherent");
        let mut dying = self.areas.with(|areas| areas.retire_coherent(base, physical))?;
        L::memory_goes(|| Some((base, dying.pages().bytes())));
        let lent = match mem::replace(&mut dying.mapping, Mapping::Nothing) {
            Mapping::Lent(lent) => lent,
            // Of no such area.
            other => {
                dying.mapping = other;
                between().map_err(|error| RemoveError::Frames { address: base, error })?;
                return self.free_dying(dying, bytes);
            }
        };
        let (pages, given, actual) = (lent.pages(), pages_for(bytes), lent.pages().count());
        let Released { range, payload, removal } = lent.unmap(&self.table).flush();
        let unseen = between();
        let freed =
            self.unless_odd(pages, removal, || unseen.and_then(|()| self.take_back(payload)));
        self.give_up_addresses(range, removal, dying);
        let missing = actual - removal.pages.min(actual);
        freed.map_err(|error| RemoveError::Frames { address: base, error })?;
        Ok(CoherentFreed { actual, given, missing })
    }

    #[inline]
    fn free_dying(&self, dying: AreaPlace<'s>, bytes: u32) -> Result<CoherentFreed, RemoveError> {
        let given = pages_for(bytes);
        let actual = dying.pages().count();
        let found = self.tear_down_other(dying)?.pages;
        Ok(CoherentFreed { actual, given, missing: actual - found.min(actual) })
    }

    /// Takes a block that nobody but the caller has seen out of the linear map; what cannot leave it is freed.
    pub(crate) fn withdraw(&self, block: FrameBlock) -> Result<Absent, LinearFault> {
        let withdrawn = if L::fails(Point::Linear) {
            Err(LinearError::Outside(block))
        } else {
            self.linear.withdraw(block)
        };
        match withdrawn {
            Ok(withdrawn) => Ok(withdrawn.flush()),
            Err(error) => {
                let (fault, block) = error.into_parts();
                self.free_own(block);
                Err(fault)
            }
        }
    }

    /// As [`KernelSpace::take_back`], of a block that nobody but this call has seen.
    pub(super) fn take_back_own(&self, absent: Absent) {
        let taken = self.take_back(absent);
        debug_assert!(taken.is_ok(), "frames changed hands behind their owner's back: {taken:?}");
    }
}
