//! vrealloc: memory of another size, without copying a byte (S86).
//!
//! ```text
//!   shorter                 longer, room behind              longer, no room behind
//!   ───────                 ───────────────────              ──────────────────────
//!   unmap the tail          take frames                      take frames
//!   flush                   take the addresses behind        reserve addresses elsewhere
//!   free its frames         map the new frames there         map the old frames and the new ones there
//!   give its addresses                                       publish
//!   back                                                     retire the old area, unmap, flush, release
//! ```
//!
//! Until something has succeeded, the area is as it was; its mapping is taken out of its record meanwhile
//! ([`super::change`]). Its page array serves as long as it has room; a larger one is taken (S27) when
//! the addresses behind are, lest it lie there.

pub(super) mod lengthen;

use core::cmp::Ordering;
use core::{fmt, mem};

use crate::addr::{PAGE_SIZE, VirtAddr, pages_for};
use crate::area::{AreaFlags, AreaKind, AreaRecord, AreaSummary, Mapping, PageArray};
use crate::attributes::Attributes;
use crate::frames::{FrameList, FrameRequest};
use crate::kernel_space::page_array::{address_of, flags_with};
use crate::kernel_space::{ChangeError, Fill, KernelSpace, VmallocError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::va_space::GUARD_PAGES;

/// Why memory did not change its size. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReallocError {
    /// It is no memory of vmalloc that nobody else uses.
    Change(ChangeError),
    /// What a larger size needs cannot be had.
    Grow(VmallocError),
}

impl fmt::Display for ReallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(error) => error.fmt(f),
            Self::Grow(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ReallocError {}

/// Memory whose record knows nothing of it just now.
struct Taken {
    base: VirtAddr,
    usable: OwnedRange,
    list: FrameList,
    /// What its pages promise.
    attributes: Attributes,
    flags: AreaFlags,
    caller: VirtAddr,
    /// Where its page pointers lie.
    array: PageArray,
    /// Where they will lie, if that has not room enough; afterwards, where they lay.
    other: PageArray,
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Makes the memory at `base` one of at least `bytes`, rounded up to pages: where it is, or at addresses of its own, which
    /// the result tells. What it holds stays, as far as it goes; what comes on top is of the `memory` that is asked for and
    /// filled as said, and always with zeros where programs may see it. Not in interrupt context.
    ///
    /// # Errors
    /// [`ReallocError`]; the memory is as it was.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn vrealloc(
        &self,
        _authority: M::Authority,
        base: VirtAddr,
        bytes: u32,
        fill: Fill,
        memory: FrameRequest,
        caller: VirtAddr,
    ) -> Result<AreaSummary, ReallocError> {
        self.may_sleep_for("vrealloc");
        let pages = pages_for(bytes);
        let total = self.zones.total();
        if pages == 0 {
            return Err(ReallocError::Grow(VmallocError::ZeroSize));
        }
        if pages > total {
            let error = VmallocError::MoreThanMemory { wanted: pages, total };
            return Err(ReallocError::Grow(error));
        }
        self.unless_short(|| self.resize(base, pages, (fill, memory), caller))
    }

    fn resize(
        &self,
        base: VirtAddr,
        pages: u32,
        (fill, memory): (Fill, FrameRequest),
        caller: VirtAddr,
    ) -> Result<AreaSummary, ReallocError> {
        let taken = match self.take_memory(base, caller) {
            Ok(taken) => taken,
            Err(error) => return self.keep_large(base, pages, error),
        };
        let had = taken.usable.count();
        match pages.cmp(&had) {
            Ordering::Less => Ok(self.shorten(taken, pages)),
            Ordering::Equal => Ok(self.give_back_memory(taken)),
            Ordering::Greater => {
                self.lengthen(taken, pages, (fill, memory)).map_err(ReallocError::Grow)
            }
        }
    }

    /// What was refused by `error`, unless it is a large mapping that has so many pages already: no part of one changes (S90).
    #[cold]
    fn keep_large(
        &self,
        base: VirtAddr,
        pages: u32,
        error: ChangeError,
    ) -> Result<AreaSummary, ReallocError> {
        let found = |record: &AreaRecord| {
            let is_large = matches!(record.mapping, Mapping::Large { .. });
            (is_large && record.kind == AreaKind::Vmalloc).then(|| record.summary())
        };
        match (error, self.with_area(base, found).flatten()) {
            (ChangeError::WrongKind { .. }, Some(area)) if area.pages.count() == pages => Ok(area),
            (ChangeError::WrongKind { address, .. }, Some(_)) => {
                Err(ReallocError::Change(ChangeError::Large { address }))
            }
            (error, _) => Err(ReallocError::Change(error)),
        }
    }

    fn take_memory(&self, base: VirtAddr, caller: VirtAddr) -> Result<Taken, ChangeError> {
        let (mut flags, wrong) =
            (AreaFlags::NONE, |found| ChangeError::WrongKind { address: base, found });
        let mapping = self.take(base, |record| {
            flags = record.vm.flags();
            record.kind == AreaKind::Vmalloc && matches!(record.mapping, Mapping::Frames { .. })
        })?;
        match mapping {
            Mapping::Frames { usable, list } => {
                let found = self.table.translate(base).and_then(|found| found.attributes().ok());
                let attributes = found.unwrap_or(Attributes::KERNEL_DATA);
                let array = self
                    .areas
                    .with(|areas| areas.find_mut(base).map(|record| mem::take(&mut record.array)));
                let (array, other) = (array.unwrap_or_default(), PageArray::Within);
                Ok(Taken { base, usable, list, attributes, flags, caller, array, other })
            }
            mapping => {
                let kind = self.put(base, mapping, |record| record.kind);
                Err(wrong(kind.unwrap_or(AreaKind::Vmalloc)))
            }
        }
    }

    /// The area has what it has now.
    fn give_back_memory(&self, taken: Taken) -> AreaSummary {
        let Taken { base, usable, list, flags, caller, array, other, .. } = taken;
        let pages = usable.pages();
        // Outside the lock, unless they are few.
        let words = self.words_elsewhere(&array);
        // Those to all frames are there, and nobody writes them: it has grown no page, or it has another array by now.
        if !matches!(array, PageArray::Shared { .. }) {
            self.note_all(list.frames(self.zones.table()), words);
        }
        let elsewhere = address_of(words);
        let found = self.put(base, Mapping::Frames { usable, list }, |record| {
            let first = match (&array, &record.mapping) {
                (PageArray::Within, Mapping::Frames { list, .. }) => {
                    self.note_all(list.frames(self.zones.table()), &record.within);
                    address_of(&record.within)
                }
                _ => elsewhere,
            };
            record.vm.set_size((pages.count() + GUARD_PAGES) * PAGE_SIZE);
            record.vm.set_pages(first, pages.count());
            record.vm.set_flags(flags_with(&array, record.vm.flags()));
            record.array = array;
            record.summary()
        });
        self.abandon_array(other);
        // It cannot have gone: nobody removes what is being changed.
        found.unwrap_or(AreaSummary {
            pages,
            kind: AreaKind::Vmalloc,
            flags,
            physical: crate::addr::PhysAddr::new(0),
            caller,
            users: 0,
        })
    }

    /// Keeps the first `pages` pages.
    fn shorten(&self, taken: Taken, pages: u32) -> AreaSummary {
        let Taken { mut usable, mut list, .. } = taken;
        let tail = usable.count() - pages;
        L::memory_goes(|| {
            let gone = usable.pages().sub_range(pages, tail)?;
            Some((gone.start(), gone.bytes()))
        });
        let removal = self.table.unmap_part(&mut usable, pages, tail);
        debug_assert!(removal.is_ok(), "inside: {removal:?}");
        if let Ok(removal) = removal
            && removal.oddities != 0
        {
            self.support.odd_tables(usable.pages(), removal);
        }
        let is_clear = removal.is_ok_and(|removal| removal.left_alone == 0);
        let split = if is_clear { usable.split_at(pages) } else { Err(usable) };
        let usable = match split {
            Ok((keep, gone)) => {
                let rest = list.split_off(self.zones.table(), pages);
                let freed = self.zones.free_list(rest);
                debug_assert!(freed.is_ok(), "frames changed hands: {freed:?}");
                let shrunk = self.areas.with(|areas| areas.shrink(&keep, gone));
                debug_assert!(shrunk.is_ok(), "an area's range was exchanged: {shrunk:?}");
                keep
            }
            Err(usable) => usable,
        };
        self.give_back_memory(Taken { usable, list, ..taken })
    }
}
