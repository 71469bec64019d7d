//! The guard against mismatched aliases: no physical page has two live mappings that do not go together (S97, S112).
//!
//! Of RAM, the owner of each frame tells what mappings it may have: one that is lent uncached or for code has left the linear
//! map, and what vmap maps must agree with that. Of devices, of which nobody has a record, [`PhysicalIndex`] knows every run of
//! pages that is mapped, by ioremap and its kin or by `vmap_pfn`: from before the first descriptor is written, since two who map at once must see each
//! other, until after the flush, since a TLB remembers until then. It is asked and written under the lock of areas, in the very
//! critical section that takes the addresses, or that gives them back.
//!
//! [`PhysicalIndex`]: crate::physical_index

use core::fmt;

use crate::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr};
use crate::area::{AreaKind, Devices, Mapping};
use crate::attributes::Attributes;
use crate::frames::FrameRequest;
use crate::kernel_space::areas::{AreaPlace, Areas, NoRoom};
use crate::kernel_space::reserve::unless_it_fails;
use crate::kernel_space::{KernelSpace, NoArea};
use crate::lock::{Lock, Locks, SharedLock};
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::physical_index::{Class, IndexEntry, Name, Run, Vacancy};
use crate::va_space::Request;

/// A run of room for the physical index that a [`super::Support`] makes from frames.
pub type IndexChunk<'s> = &'s mut [IndexEntry<'s>];

#[expect(clippy::cast_possible_truncation, reason = "an entry has some dozen bytes")]
const ENTRY_BYTES: u32 = size_of::<IndexEntry<'static>>() as u32;

/// Two mappings of one physical page that do not go together (S97, S112).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The first of the physical pages asked for.
    pub physical: PhysAddr,
    /// How many were asked for.
    pub pages: u32,
    /// How they were to be mapped.
    pub wanted: Attributes,
    /// Who has mapped some of them otherwise.
    pub live: LiveMapping,
}

/// Who has physical pages mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveMapping {
    /// Where the first of his pages lies that was asked for.
    pub address: VirtAddr,
    /// How it is mapped.
    pub attributes: Attributes,
    /// By whom; `None` while the area is being made or removed.
    pub area: Option<(AreaKind, VirtAddr)>,
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { physical, pages, wanted, live } = self;
        let LiveMapping { address, attributes, area } = live;
        let bytes = u64::from(*pages) * u64::from(PAGE_SIZE);
        write!(
            f,
            "{bytes:#x} bytes at {physical} cannot be {wanted}: at {address} they are {attributes}, "
        )?;
        match area {
            Some((kind, caller)) => write!(f, "by {kind} for {caller}"),
            None => f.write_str("in an area that comes or goes"),
        }
    }
}

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Notes that the physical pages of `range` are to be mapped from the virtual page `page` on, before the other runs of that
    /// area.
    pub(super) fn note_run(
        &self,
        place: &mut AreaPlace<'s>,
        range: (Pfn, Pfn),
        page: u32,
        attributes: Attributes,
    ) -> Result<(), NoArea> {
        loop {
            self.unless_records_fail()?;
            let noted = self.areas.with(|areas| {
                areas.may_map(range, attributes)?;
                areas.note_run(place, range, page, attributes).map_err(Missing::Room)
            });
            match noted {
                Ok(()) => return Ok(()),
                Err(missing) => self.make_way(missing)?,
            }
        }
    }

    /// As [`KernelSpace::reserve`], for an area whose first page is to lead to the first of the physical pages of `range`, and so
    /// on, with `attributes`; the index has them from now on.
    ///
    /// # Panics
    /// In interrupt context (S10).
    pub(super) fn reserve_devices(
        &self,
        request: &Request,
        range: (Pfn, Pfn),
        attributes: Attributes,
    ) -> Result<(OwnedRange, AreaPlace<'s>), NoArea> {
        self.may_sleep_for("ioremap");
        self.bound_backlog();
        loop {
            self.unless_records_fail()?;
            let reserved = self.areas.with(|areas| {
                areas.may_map(range, attributes)?;
                let reserved = areas.reserve_devices(request, range, attributes);
                unless_it_fails::<L>(areas, reserved).map_err(Missing::Room)
            });
            match reserved {
                Ok(reserved) => return Ok(reserved),
                Err(missing) => self.make_way(missing)?,
            }
        }
    }

    #[cold]
    fn make_way(&self, missing: Missing) -> Result<(), NoArea> {
        match missing {
            Missing::Room(missing) => self.make_room(missing),
            Missing::Leave(alias) => Err(NoArea::Alias(alias)),
        }
    }

    /// Has the index forget all that the area of `place` mapped of devices, none of which is mapped any more: a run at a time, so
    /// that nobody waits for the lock of areas for longer.
    #[inline(always)]
    pub(super) fn forget_devices(&self, place: &mut AreaPlace<'s>) {
        if !place.devices.runs.is_none() {
            self.forget_runs(place);
        }
    }

    #[cold]
    #[inline(never)]
    fn forget_runs(&self, place: &mut AreaPlace<'s>) {
        while self.areas.with(|areas| areas.forget_run(place)) {}
    }

    /// Makes a chunk of `entries` places for runs, or of as many as a block of frames that can be had holds, outside the lock of
    /// areas. If another CPU was faster, the frames go back.
    #[cold]
    pub(super) fn add_index_chunk(&self, entries: u32) -> Result<(), NoArea> {
        let (block, entries) = self.chunk_frames(FrameRequest::LOW, entries, ENTRY_BYTES)?;
        let spare = self.areas.with(|areas| {
            if areas.index.wanted_chunk().is_none_or(|most| entries > most) {
                return Some(block);
            }
            let added = areas.index.add_chunk(self.support.index_chunk(block, entries));
            debug_assert!(added, "the chunk has the size that was asked for");
            None
        });
        if let Some(block) = spare {
            self.free_own(block);
        }
        Ok(())
    }
}

/// What an audit is told of an area's runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NextRun {
    /// The next one.
    Next(Run),
    /// There is none, or no other.
    NoMore,
    /// It maps nothing that should have one.
    NoDevices,
}

/// For audits, each under the lock of areas, shared.
impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Of the live area at `base`, the run that follows `after`, or the first.
    pub(crate) fn run_after(&self, base: VirtAddr, after: Option<Run>) -> NextRun {
        self.areas.look(|areas| {
            let Some(record) = areas.find(base) else { return NextRun::NoDevices };
            let (runs, page) = match after {
                Some(run) => (run.next(), run.page().wrapping_add(run.pages())),
                None => (record.devices.runs, record.devices.page),
            };
            match areas.index.run(runs, page) {
                Some(run) => NextRun::Next(run),
                None if record.kind == AreaKind::IoRemap => NextRun::NoMore,
                None if matches!(record.mapping, Mapping::Devices { .. }) => NextRun::NoMore,
                None => NextRun::NoDevices,
            }
        })
    }

    /// As [`PhysicalIndex::conflict_but`](crate::physical_index), of one page.
    pub(crate) fn conflict_but(&self, page: Pfn, attributes: Attributes, but: u32) -> Option<Run> {
        let range = (page.number(), page.number());
        self.areas.look(|areas| areas.index.conflict_but(range, attributes, but))
    }

    /// How many runs the index has; `None` if it contradicts itself.
    pub(crate) fn count_runs(&self) -> Option<u32> {
        self.areas.look(|areas| areas.index.is_sound().then(|| areas.index.count()))
    }
}

/// What stands in the way of who would map devices. Apart from [`NoRoom`], which all others have in their registers.
#[derive(Clone, Copy, Debug)]
enum Missing {
    Room(NoRoom),
    /// Nobody can help.
    Leave(Alias),
}

impl<'s> Areas<'s> {
    /// As [`Areas::reserve`], of what [`Areas::may_map`] has judged.
    #[inline(always)]
    fn reserve_devices(
        &mut self,
        request: &Request,
        range: (Pfn, Pfn),
        attributes: Attributes,
    ) -> Result<(OwnedRange, AreaPlace<'s>), NoRoom> {
        let (usable, mut place) = self.reserve_any(request)?;
        let noted = self.note_run(&mut place, range, usable.pages().first(), attributes);
        debug_assert!(noted.is_ok(), "there was room: {noted:?}");
        Ok((usable, place))
    }

    /// Whether nobody has mapped pages of `range` in a way that does not go together with `attributes`, and there is room to note
    /// them.
    #[inline(always)]
    fn may_map(&self, range: (Pfn, Pfn), attributes: Attributes) -> Result<(), Missing> {
        if let Some(run) = self.index.conflict(range, Class::new(attributes)) {
            return Err(Missing::Leave(self.alias(range, attributes, run)));
        }
        self.index.has_room().map_err(NoRoom::Runs).map_err(Missing::Room)
    }

    #[cold]
    #[inline(never)]
    fn alias(&self, (first, last): (Pfn, Pfn), wanted: Attributes, run: Run) -> Alias {
        let page = run.page_of(run.first().max(first.number()));
        let address = VirtAddr::new(page * PAGE_SIZE);
        let area = self.space.find_containing(address);
        let area = area.map(|(_, place)| (place.kind, place.vm.caller()));
        let live = LiveMapping { address, attributes: run.attributes(), area };
        let pages = last.number() - first.number() + 1;
        Alias { physical: first.base(), pages, wanted, live }
    }

    #[inline(always)]
    fn note_run(
        &mut self,
        place: &mut AreaPlace<'s>,
        range: (Pfn, Pfn),
        page: u32,
        attributes: Attributes,
    ) -> Result<(), NoRoom> {
        let run = Run::new(range, page, Class::new(attributes), place.devices.runs);
        let runs = self.index.insert(run).map_err(NoRoom::Runs)?;
        place.devices.runs = runs;
        place.devices.page = page;
        Ok(())
    }

    /// Where [`Areas::note_at_hand`] can note that `pages` from `first` on are mapped as `class` says, if they may be.
    #[inline(always)]
    pub(super) fn may_map_at_hand(&self, first: Pfn, pages: u32, class: Class) -> Option<Vacancy> {
        let vacancy = self.index.vacancy()?;
        self.index.conflict_at(first, pages, class).is_none().then_some(vacancy)
    }

    /// Notes that the area of `place`, of `range`, maps devices from `first` on, as [may be](Areas::may_map_at_hand).
    #[inline(always)]
    pub(super) fn note_at_hand(
        &mut self,
        place: &mut AreaPlace<'s>,
        first: Pfn,
        range: PageRange,
        (class, vacancy): (Class, Vacancy),
    ) {
        let run = Run::alone((first, range.count()), range.first(), class);
        place.devices.runs = self.index.fill(vacancy, run);
        place.devices.page = range.first();
    }

    /// Has the index forget the one run of an area that ended.
    #[inline(always)]
    pub(super) fn forget(&mut self, runs: Name, page: u32) {
        let forgotten = self.index.remove(runs, page);
        debug_assert!(forgotten.is_some(), "ioremap notes one run");
    }

    /// Has the index forget the first run of the area of `place`, if there is one, and says whether there is another.
    #[inline(always)]
    pub(super) fn forget_run(&mut self, place: &mut AreaPlace<'s>) -> bool {
        let Devices { runs, page, .. } = place.devices;
        place.devices = Devices::NONE;
        let Some(run) = self.index.remove(runs, page) else { return false };
        place.devices.runs = run.next();
        place.devices.page = page.wrapping_add(run.pages());
        run.next() != Name::NONE
    }
}
