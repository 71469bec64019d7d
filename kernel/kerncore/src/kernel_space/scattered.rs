//! Coherent buffers of frames that need not be adjacent, for devices behind an IOMMU (S79, S81, S109).
//!
//! ```text
//!   addresses ──▶ array ──▶ frames, zeroed ──▶ withdraw, one flush ──▶ map, clean ──▶ device addresses ──▶ publish
//!        ◀────────────────────────── each undone by whoever fails behind it ──────────────────┘
//!
//!   free:  retire ──▶ unmap, flush ──▶ the device's unmap, flush ──▶ restore ──▶ frames, array, addresses
//! ```
//! The largest blocks that there are first, down to single frames, so that such a buffer is to be had as long as there is memory,
//! however much in pieces. The frames leave the linear map as those of any coherent buffer do, also where the device snoops: so there
//! never is a second view of them.
//!
//! The record has the page array (S79), and in the last words of the room for it who has the buffer. What a free names is compared and
//! retired in one step (S60): the address, the domain, and where the device sees it.
//!
//! What is one page has a way of its own, [`super::scattered_at_hand`].

use core::fmt;

use crate::addr::{DmaAddr, PAGE_SIZE, Pfn, VirtAddr, pages_for};
use crate::area::{AreaKind, AreaSummary, FOR_HOLDER, Mapping, PageArray, WITHIN};
use crate::coherent::Coherency;
use crate::dma_mask::DmaMask;
use crate::failure::Point;
use crate::frames::{AllocateError, FrameOwner, FrameRequest, order_for};
use crate::holder::Holder;
use crate::iommu::machine::Iotlb;
use crate::iommu::{
    Domain, DomainMapError, IovaError, NotShown, SeenAt, SeenList, StillSeen, attributes_for,
};
use crate::kernel_space::areas::{AreaPlace, Areas};
use crate::kernel_space::coherent::SECTION_ORDER;
use crate::kernel_space::page_array::{address_of, flags_with};
use crate::kernel_space::reserve::{NewArea, NoArea};
use crate::kernel_space::{ArrayError, CoherentFreed, FramesError, KernelSpace, RemoveError};
use crate::linear_map::list::{AbsentList, LentList, ListError};
use crate::linear_map::{LendError, LinearFault};
use crate::lock::{Lock, Locks, SharedLock};
use crate::machine::Machine;
use crate::page_table::{MapError, Released, Removal};
use crate::va_space::{Alignment, Request};

/// The most page pointers that lie in the record: behind them it has the holder.
const FEW: usize = WITHIN - FOR_HOLDER;

/// The device that is to see a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Whether it snoops.
    pub coherency: Coherency,
    /// How high it reaches, in its own addresses.
    pub mask: DmaMask,
}

/// Why there is no such buffer. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScatteredError {
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
    /// No memory for the pointers to its pages (S79).
    PageArray(ArrayError),
    /// Not so many frames of low memory, in whatever pieces.
    Frames(AllocateError),
    /// The frames cannot leave the linear map.
    Linear(LinearFault),
    /// The processor's mapping failed.
    Map(MapError),
    /// The device's mapping failed, or it does not reach that far.
    View(DomainMapError),
}

/// Why frames did not leave the linear map. They are free.
pub(super) enum NotAbsent {
    Frames(AllocateError),
    Linear(LinearFault),
}

/// What the freeing of a buffer found, on both sides; anything odd in it is for the caller to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatteredFreed {
    /// On the processor's side.
    pub freed: CoherentFreed,
    /// On the device's.
    pub hidden: Removal,
}

impl fmt::Display for ScatteredError {
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
            Self::View(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ScatteredError {}

/// A buffer on its way to be published.
struct Made<'s> {
    seen: SeenList,
    place: AreaPlace<'s>,
}

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Takes `bytes` of zeroed memory, rounded up to pages, in frames that need not be adjacent, for `viewer`, a device of `domain`, and
    /// for `holder`. To the processor and to the device it is contiguous, each at addresses of its own (S79, S83, S85). For callers
    /// that may sleep.
    ///
    /// # Errors
    /// [`ScatteredError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context (S10).
    pub fn scattered_alloc<T: Iotlb>(
        &self,
        domain: &Domain<'_, '_, M, T, L>,
        bytes: u32,
        viewer: Viewer,
        holder: impl Into<Holder>,
    ) -> Result<(AreaSummary, SeenAt), ScatteredError> {
        let holder = holder.into();
        self.may_sleep_for("arm_iommu_alloc_attrs");
        if bytes == 0 {
            return Err(ScatteredError::ZeroSize);
        }
        let (wanted, total) = (pages_for(bytes), self.zones.total());
        if wanted > total {
            return Err(ScatteredError::MoreThanMemory { wanted, total });
        }
        // Before memory is taken, and others go without, that no device could see.
        domain.has_room(wanted).map_err(|error| ScatteredError::View(error.into()))?;
        let made = self.unless_short(|| self.take_scattered(domain, wanted, viewer, holder))?;
        let Made { seen, place } = made;
        let at = seen.at();
        let words = self.array_words(&place.array, &place.within);
        self.note_list(seen.list(), &place.array, words);
        let flags = flags_with(&place.array, AreaKind::Scattered.flags());
        let new = NewArea::new(AreaKind::Scattered, holder.caller)
            .flags(flags)
            .pointers(address_of(words), wanted);
        place.note_last(holder);
        Ok((self.publish(place, Mapping::Scattered(seen), new), at))
    }

    fn take_scattered<T: Iotlb>(
        &self,
        domain: &Domain<'_, '_, M, T, L>,
        pages: u32,
        viewer: Viewer,
        holder: Holder,
    ) -> Result<Made<'s>, ScatteredError> {
        let alignment = Alignment::Order(order_for(pages).min(SECTION_ORDER));
        // RAM has as many pages, and less than 4 GiB of them.
        let bytes = pages.wrapping_mul(PAGE_SIZE);
        let request = Request { bytes, window: None, alignment };
        let (usable, mut place) = self
            .reserve("arm_iommu_alloc_attrs", |areas| areas.reserve(&request))
            .map_err(ScatteredError::Area)?;
        let array = match self.take_seen_array(pages, holder.caller) {
            Ok(array) => array,
            Err(error) => {
                self.abandon(usable, place);
                return Err(ScatteredError::PageArray(error));
            }
        };
        let absent = match self.absent_list(pages, FrameOwner::Dma) {
            Ok(absent) => absent,
            Err(error) => {
                self.abandon_array(array);
                self.abandon(usable, place);
                return Err(match error {
                    NotAbsent::Frames(error) => ScatteredError::Frames(error),
                    NotAbsent::Linear(fault) => ScatteredError::Linear(fault),
                });
            }
        };
        let (frames, tables) = (self.zones.table(), self.tables.source(&self.zones));
        let attributes = attributes_for(viewer.coherency);
        let lent = match absent.lend(frames, &self.table, usable, attributes, &tables) {
            Ok(lent) => lent,
            Err(LendError { reason, block, range }) => {
                self.abandon(range, place);
                self.abandon_array(array);
                self.take_own_list_back(block);
                return Err(ScatteredError::Map(reason));
            }
        };
        match self.shown_within(lent, domain, viewer) {
            Ok(seen) => {
                place.array = array;
                Ok(Made { seen, place })
            }
            Err(NotShown { error, lent }) => {
                if viewer.coherency == Coherency::NonCoherent {
                    lent.note_returned(frames, self.table.machine());
                }
                let Released { range, payload, removal } = lent.unmap(&self.table).flush();
                debug_assert_eq!(removal.oddities, 0, "mapped a moment ago: {removal:?}");
                self.abandon(range, place);
                self.abandon_array(array);
                self.take_own_list_back(payload);
                Err(ScatteredError::View(error))
            }
        }
    }

    /// Lets the device see it, no higher than it reaches (S100).
    fn shown_within<T: Iotlb>(
        &self,
        lent: LentList,
        domain: &Domain<'_, '_, M, T, L>,
        viewer: Viewer,
    ) -> Result<SeenList, NotShown> {
        let pages = lent.pages().count();
        let last = viewer.mask.last();
        // First fit: if the lowest run ends too high, all do.
        let seen = lent.show(self.zones.table(), domain, viewer.coherency)?;
        let start = seen.at().start;
        if viewer.mask.reaches(start, pages.saturating_mul(PAGE_SIZE)) {
            return Ok(seen);
        }
        let error = DomainMapError::Iova(IovaError::OutOfReach { start, last });
        Err(NotShown { error, lent: seen.hide(domain) })
    }

    /// A page array with room for the holder behind it.
    fn take_seen_array(&self, pages: u32, caller: VirtAddr) -> Result<PageArray, ArrayError> {
        if pages as usize <= FEW {
            return Ok(PageArray::Within);
        }
        self.take_array_elsewhere(pages, FrameRequest::LOW, caller)
    }

    /// Zeroed frames of low memory, the largest blocks first, out of the linear map; what cannot leave it is freed.
    pub(super) fn absent_list(
        &self,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<AbsentList, NotAbsent> {
        let list = self.zones.allocate_list(pages, owner).map_err(NotAbsent::Frames)?;
        let frames = self.zones.table();
        for (first, order) in list.blocks(frames) {
            self.zero_low_frames(first, 1 << order);
        }
        let withdrawn = match list.frames(frames).next() {
            Some(frame) if L::fails(Point::Linear) => {
                Err(ListError { fault: LinearFault::NoAddress { frame }, list })
            }
            _ => self.linear.withdraw_list(frames, list),
        };
        match withdrawn {
            Ok(withdrawn) => Ok(withdrawn.flush(frames)),
            Err(ListError { fault, list }) => {
                self.free_failed(list);
                Err(NotAbsent::Linear(fault))
            }
        }
    }

    /// Puts a list that was lent back into the linear map, and frees it.
    pub(super) fn take_list_back(&self, absent: AbsentList) -> Result<(), FramesError> {
        let list = self.linear.restore_list(self.zones.table(), absent);
        let list = list.map_err(|error| FramesError::Linear(error.fault))?;
        self.zones.free_list(list).map_err(FramesError::Free)
    }

    /// The same of frames that nobody but this call has seen.
    pub(super) fn take_own_list_back(&self, absent: AbsentList) {
        let freed = self.take_list_back(absent);
        debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
    }

    /// Takes the buffer at `base` back, which a device of `domain` sees from `start` on: the processor sees it no more, then the device
    /// does not, and then the frames are free, each after its flush (S81). It is named by where it is seen, and not by a size: who names
    /// that, too, has compared it with the domain's run before (S65).
    ///
    /// The authority promises that nobody uses it, the device included.
    ///
    /// # Errors
    /// [`RemoveError`] if that is no such buffer (S67); nothing has changed.
    ///
    /// # Panics
    /// In interrupt context (S35).
    pub fn scattered_free<T: Iotlb>(
        &self,
        _authority: M::Authority,
        domain: &Domain<'_, '_, M, T, L>,
        (base, start): (VirtAddr, DmaAddr),
    ) -> Result<ScatteredFreed, RemoveError> {
        if !base.is_page_aligned() {
            return Err(RemoveError::Misaligned { address: base });
        }
        self.may_sleep_for("arm_iommu_free_attrs");
        let is_it = |at: SeenAt| at.root == domain.root() && at.start == start;
        let (seen, mut dying) = self.areas.with(|areas| areas.retire_scattered(base, is_it))?;
        let (pages, count) = (seen.pages(), seen.pages().count());
        L::memory_goes(|| Some((base, pages.bytes())));
        self.readers.wait_for(base);
        self.assert_no_null(&dying, pages);
        let (still, range, removal) = seen.unmap(self.zones.table(), &self.table).flush();
        let (absent, hidden) = StillSeen::unmap(still, domain).flush();
        let freed = self.unless_odd(pages, removal, || {
            // What a foreign entry still shows the device is nobody else's.
            if hidden.left_alone == 0 {
                self.take_list_back(absent)
            } else {
                Err(FramesError::StillMapped)
            }
        });
        let array = self.free_array(core::mem::take(&mut dying.array));
        self.give_up_addresses(range, removal, dying);
        freed.map_err(|error| RemoveError::Frames { address: base, error })?;
        array?;
        let missing = count - removal.pages.min(count);
        let freed = CoherentFreed { actual: count, given: count, missing };
        Ok(ScatteredFreed { freed, hidden })
    }

    /// Runs `visit` on where the device sees the buffer at `base`, and on how many pages it has, if it is one of scattered frames.
    /// Any context; under the lock of areas.
    pub fn with_scattered<R>(
        &self,
        base: VirtAddr,
        visit: impl FnOnce(&SeenList) -> R,
    ) -> Option<R> {
        self.areas.look(|areas| match &areas.find(base)?.mapping {
            Mapping::Scattered(seen) => Some(visit(seen)),
            _ => None,
        })
    }

    /// Shows `visit` the frames of the first `pages` pages of the buffer at `base` that a device sees at `at`, in runs that are as long
    /// as can be. `None` if there is no such buffer, or it has not so many. Any context; under the lock of areas.
    pub fn scattered_runs(
        &self,
        (base, at): (VirtAddr, SeenAt),
        pages: u32,
        visit: &mut dyn FnMut(Pfn, u32),
    ) -> Option<()> {
        self.with_scattered(base, |seen| {
            let is_it = seen.at() == at && pages <= seen.pages().count();
            is_it.then(|| {
                let runs = seen.runs(self.zones.table(), pages);
                runs.for_each(|(first, count)| visit(first, count));
            })
        })?
    }
}

impl<'s> Areas<'s> {
    /// Live → Dying of a buffer of scattered frames of which `is_it` says that it is the one.
    fn retire_scattered(
        &mut self,
        base: VirtAddr,
        is_it: impl Fn(SeenAt) -> bool,
    ) -> Result<(SeenList, AreaPlace<'s>), RemoveError> {
        let judge = |place: &AreaPlace<'s>| match (&place.mapping, place.users) {
            (Mapping::Scattered(seen), _) if !is_it(seen.at()) => {
                Err(RemoveError::SeenElsewhere { address: base, found: seen.at().start })
            }
            (Mapping::Scattered(_), 0) => Ok(()),
            (Mapping::Scattered(_), users) => Err(RemoveError::in_use(base, users)),
            _ => Err(RemoveError::WrongKind { address: base, found: place.kind }),
        };
        let unknown = RemoveError::Unknown { address: base };
        let mut place = self.space.retire_if(base, judge).unwrap_or(Err(unknown))?;
        match core::mem::replace(&mut place.mapping, Mapping::Nothing) {
            Mapping::Scattered(seen) => Ok((seen, place)),
            // Judged above.
            _ => Err(unknown),
        }
    }
}
