//! From addresses to a live area, and back when it does not come to that.

use core::fmt;
use core::sync::atomic::AtomicU32;

use crate::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr, pages_for};
use crate::area::{AreaFlags, AreaKind, AreaSummary, ArrayArea, Mapping, VmStruct};
use crate::attributes::Attributes;
use crate::contiguous::{Borrower, Unmovable};
use crate::failure::Point;
use crate::frames::{AllocateError, FrameBlock, FrameOwner, FrameRequest, NodeId, Place};
use crate::kernel_space::alias::{Alias, IndexChunk};
use crate::kernel_space::areas::{AreaChunk, AreaEntry, AreaPlace, Areas, NoRoom};
use crate::kernel_space::shortage::Shortage;
use crate::kernel_space::{KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{MapError, Removal};
use crate::slab::{Home, NoPlace};
use crate::va_space::{GUARD_PAGES, ReserveError};

#[expect(clippy::cast_possible_truncation, reason = "a record has some hundred bytes")]
const ENTRY_BYTES: u32 = size_of::<AreaEntry<'static>>() as u32;

const SECOND_NODE: NodeId = NodeId::new(1);

/// Where the record of an area lies that is for such memory (S9). Its low memory serves, if the node has any.
#[inline(always)]
pub(super) const fn home_of(memory: FrameRequest) -> Home {
    match memory.place() {
        Place::Prefer(SECOND_NODE) | Place::Only(SECOND_NODE) => Home::Second,
        _ => Home::First,
    }
}

/// What a [`KernelSpace`] needs of whoever runs it.
pub trait Support<'s>: Sync {
    /// Makes `entries` empty places for records in `block`, which is large enough and never comes back.
    fn chunk(&self, block: FrameBlock, entries: u32) -> AreaChunk<'s>;

    /// The same of places for runs of the physical index, each with [`crate::physical_index::Node::vacant`].
    fn index_chunk(&self, block: FrameBlock, entries: u32) -> IndexChunk<'s>;

    /// The memory of `frame`, which is low and whose owner lends it, as words.
    fn frame_words<'a>(&self, frame: &'a FrameBlock) -> &'a [AtomicU32];

    /// The memory of `area`, which is mapped as long as this handle of it is there, as words.
    fn area_words<'a>(&self, area: &'a ArrayArea) -> &'a [AtomicU32];

    /// Hears of an area in whose tables something was found that nobody should have put there (S21, S22). Called
    /// outside all locks.
    fn odd_tables(&self, area: PageRange, removal: Removal);

    /// Hears of an area that [`KernelSpace::vfree_atomic`] queued and whose frames did not come back. Called outside all
    /// locks, where [`KernelSpace::free_deferred`] is.
    fn deferred_free_failed(&self, error: &RemoveError);

    /// Moves what the borrower has in the lent frame elsewhere, and gives the frame's handle (S101). Called outside all locks, where
    /// one may sleep. Nobody who has lent no frame need know how.
    ///
    /// # Errors
    /// [`Unmovable`]; the borrower has it still.
    fn move_out(&self, _borrower: Borrower, _frame: Pfn) -> Result<FrameBlock, Unmovable> {
        Err(Unmovable::Busy)
    }

    /// Gives memory back that is kept in reserve and that nobody uses, and says how many pages: somebody is short of memory. Called
    /// outside all locks, where one may sleep.
    fn give_back_idle(&self) -> u32 {
        0
    }
}

/// Why no area could be reserved. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoArea {
    /// The size is refused, or the window has no room (S8).
    Addresses(ReserveError),
    /// No memory for the record (S9).
    Record(AllocateError),
    /// More records than there can ever be.
    TooManyAreas {
        /// How many there are.
        capacity: u32,
    },
    /// Somebody has mapped some of the physical pages in a way that does not go together with this one (S97, S112).
    Alias(Alias),
}

/// A window without room names the parameter that makes it larger (S8), whoever asked.
impl fmt::Display for NoArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(error @ ReserveError::NoSpace { .. }) => {
                write!(f, "{error}; vmalloc=<size> on the command line sets the size of the window")
            }
            Self::Addresses(error) => error.fmt(f),
            Self::Record(error) => write!(f, "no memory for the record: {error}"),
            Self::TooManyAreas { capacity } => write!(f, "all {capacity} records are in use"),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// What a new area is, beyond its addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewArea {
    kind: AreaKind,
    /// What the descriptor shows; the kind's own flags, as a rule.
    flags: AreaFlags,
    caller: VirtAddr,
    /// The physical base of a contiguous area, else zero.
    physical: PhysAddr,
    /// Where its page pointers begin, and how many there are.
    pointers: (VirtAddr, u32),
}

impl NewArea {
    pub(super) const fn new(kind: AreaKind, caller: VirtAddr) -> Self {
        let (physical, pointers) = (PhysAddr::new(0), (VirtAddr::new(0), 0));
        Self { kind, flags: kind.flags(), caller, physical, pointers }
    }

    /// Writes the record of the area that maps so.
    #[inline(always)]
    pub(super) fn describe(self, place: &mut AreaPlace<'_>, mapping: Mapping) -> AreaSummary {
        let pages = mapping.pages();
        let Self { kind, flags, caller, physical, pointers } = self;
        let record = &mut **place;
        record.vm = VmStruct::new(
            pages.start(),
            pages.count().wrapping_add(GUARD_PAGES).wrapping_mul(PAGE_SIZE),
            flags,
            physical,
            caller,
            pointers,
        );
        record.kind = kind;
        record.users = 0;
        record.mapping = mapping;
        AreaSummary { pages, kind, flags, physical, caller, users: 0 }
    }

    /// Shows the caller's flags instead of the kind's own.
    pub(super) const fn flags(self, flags: AreaFlags) -> Self {
        Self { flags, ..self }
    }

    /// Records the physical base of a contiguous area.
    pub(super) const fn at(self, physical: PhysAddr) -> Self {
        Self { physical, ..self }
    }

    /// Records the page pointers, which are in the record's array.
    pub(super) const fn pointers(self, first: VirtAddr, count: u32) -> Self {
        Self { pointers: (first, count), ..self }
    }
}

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Takes addresses and a place for the record by `reserve`, which is [`Areas::reserve`] with a request; a further
    /// chunk of records is made when the last is full.
    ///
    /// It is a closure of each caller's own, so that what he knows of his request is known where it is judged. `operation`
    /// is what may sleep.
    ///
    /// # Panics
    /// In interrupt context (S10).
    #[inline(always)]
    pub(super) fn reserve(
        &self,
        operation: &'static str,
        reserve: impl Fn(&mut Areas<'s>) -> Result<(OwnedRange, AreaPlace<'s>), NoRoom>,
    ) -> Result<(OwnedRange, AreaPlace<'s>), NoArea> {
        self.may_sleep_for(operation);
        self.bound_backlog();
        loop {
            self.unless_records_fail()?;
            let reserved = self.areas.with(|areas| {
                let reserved = reserve(areas);
                unless_it_fails::<L>(areas, reserved)
            });
            match reserved {
                Ok(reserved) => return Ok(reserved),
                Err(error) => self.make_room(error)?,
            }
        }
    }

    /// That there is no memory for a record, if a test wants that.
    pub(super) fn unless_records_fail(&self) -> Result<(), NoArea> {
        if L::fails(Point::Record) {
            let none = self.zones.none_left(FrameRequest::LOW, 1, FrameOwner::Slab);
            return Err(NoArea::Record(none));
        }
        Ok(())
    }

    /// Makes a chunk of records if that was what was missing; if addresses were, frees what waits to be freed.
    #[cold]
    pub(super) fn make_room(&self, missing: NoRoom) -> Result<(), NoArea> {
        match missing {
            NoRoom::Addresses(ReserveError::NoSpace { .. }) if self.free_lingering() => Ok(()),
            NoRoom::Addresses(error) => Err(NoArea::Addresses(error)),
            NoRoom::Records(NoPlace::Full { capacity })
            | NoRoom::Runs(NoPlace::Full { capacity }) => Err(NoArea::TooManyAreas { capacity }),
            NoRoom::Runs(NoPlace::NeedsChunk { entries, .. }) => {
                self.unless_short(|| self.add_index_chunk(entries))
            }
            NoRoom::Records(NoPlace::NeedsChunk { entries, home }) => {
                self.unless_short(|| self.add_records(entries, home))
            }
        }
    }

    /// A place for the record of an area that is for such memory (S9): another than this, if that is elsewhere, and the node has
    /// low memory for one.
    #[inline(always)]
    pub(super) fn at_home(&self, place: AreaPlace<'s>, memory: FrameRequest) -> AreaPlace<'s> {
        match home_of(memory) {
            Home::First => place,
            Home::Second => self.move_to_second(place),
        }
    }

    #[cold]
    #[inline(never)]
    fn move_to_second(&self, place: AreaPlace<'s>) -> AreaPlace<'s> {
        loop {
            match self.areas.with(|areas| areas.records.take_in(Home::Second)) {
                Ok(other) => {
                    self.areas.with(|areas| areas.records.give_back(place));
                    return other;
                }
                Err(NoPlace::NeedsChunk { entries, home }) => {
                    if self.add_records(entries, home).is_err() {
                        return place;
                    }
                }
                Err(NoPlace::Full { .. }) => return place,
            }
        }
    }

    /// Makes a chunk of `entries` records, or of as many as a block of frames that can be had holds (S9), outside the lock of
    /// areas, in low memory of that home: of any for the first. If another CPU was faster, the frames go back.
    pub(super) fn add_records(&self, entries: u32, home: Home) -> Result<(), NoArea> {
        let memory = match home {
            Home::First => FrameRequest::LOW,
            // Of no other: whoever cares has a place already, and what lies elsewhere would be taken for the node's for good.
            Home::Second => FrameRequest::LOW.at(Place::Only(SECOND_NODE)),
        };
        let (block, entries) = self.chunk_frames(memory, entries, ENTRY_BYTES)?;
        let spare = self.areas.with(|areas| {
            let records = &areas.records;
            if records.has_place(home) || records.next_chunk().is_none_or(|most| entries > most) {
                return Some(block);
            }
            let added = areas.records.add_chunk(self.support.chunk(block, entries), home);
            debug_assert!(added.is_ok(), "the chunk has the size that was asked for: {added:?}");
            None
        });
        if let Some(block) = spare {
            self.free_own(block);
        }
        Ok(())
    }

    /// Frames for `entries` of so many bytes, or for as many as a block that can be had holds: how many that are.
    pub(super) fn chunk_frames(
        &self,
        memory: FrameRequest,
        entries: u32,
        entry_bytes: u32,
    ) -> Result<(FrameBlock, u32), NoArea> {
        let mut pages = pages_for(entries * entry_bytes);
        let block = loop {
            match self.zones.allocate_pages_from(memory, pages, FrameOwner::Slab) {
                Err(error) if pages > 1 && error.is_shortage() => pages /= 2,
                taken => break taken.map_err(NoArea::Record)?,
            }
        };
        let held = block.pages() * PAGE_SIZE / entry_bytes;
        Ok((block, entries.min(held)))
    }

    /// Maps `frames` from the area's first page on. Not under a lock: the addresses are owned.
    #[inline]
    pub(super) fn map<I>(
        &self,
        usable: &mut OwnedRange,
        frames: I,
        attributes: Attributes,
    ) -> Result<u32, MapError>
    where
        I: IntoIterator<Item: Into<Option<Pfn>>, IntoIter: ExactSizeIterator>,
    {
        let tables = self.tables.source(&self.zones);
        self.table.map(usable, 0, frames, attributes, &tables)
    }

    /// Makes the area live: from here on lookups find it. The page array, if it has one, is in the record already.
    #[inline(always)]
    pub(super) fn publish(
        &self,
        mut place: AreaPlace<'s>,
        mapping: Mapping,
        new: NewArea,
    ) -> AreaSummary {
        let area = new.describe(&mut place, mapping);
        self.areas.with(|areas| areas.publish(area.pages.start(), place));
        area
    }

    /// Gives back addresses at which nothing is mapped.
    pub(super) fn abandon(&self, usable: OwnedRange, mut place: AreaPlace<'s>) {
        self.forget_devices(&mut place);
        self.areas.with(|areas| areas.release(usable, place));
    }

    /// Undoes a mapping that failed half way: unmap what was mapped, flush, and only then give back the addresses and
    /// `frames`, which come in so that they are out of reach until then. A slot that was in use stays as it is (S17).
    pub(super) fn unwind<F>(
        &self,
        mut usable: OwnedRange,
        place: AreaPlace<'s>,
        error: &MapError,
        frames: F,
    ) -> F {
        let mapped = error.mapped();
        let undone = self.table.unmap_part(&mut usable, 0, mapped);
        debug_assert!(undone.is_ok() || mapped == 0, "mapped, so inside: {undone:?}");
        self.abandon(usable, place);
        frames
    }

    /// Gives back a block that nobody but this call has seen, so that the frame table cannot disagree.
    pub(super) fn free_own(&self, block: FrameBlock) {
        let freed = self.free_block(block);
        debug_assert!(freed.is_ok(), "frames changed hands behind their owner's back: {freed:?}");
    }
}

/// What was reserved, given back if a test wants no addresses to be left.
#[inline(always)]
pub(super) fn unless_it_fails<'s, L: Locks>(
    areas: &mut Areas<'s>,
    reserved: Result<(OwnedRange, AreaPlace<'s>), NoRoom>,
) -> Result<(OwnedRange, AreaPlace<'s>), NoRoom> {
    match reserved {
        Ok((usable, mut place)) if L::fails(Point::Addresses) => {
            while areas.forget_run(&mut place) {}
            let wanted = usable.count().wrapping_add(GUARD_PAGES);
            areas.release(usable, place);
            let largest_hole = areas.space.largest_hole();
            Err(NoRoom::Addresses(ReserveError::NoSpace { wanted, order: 0, largest_hole }))
        }
        reserved => reserved,
    }
}
