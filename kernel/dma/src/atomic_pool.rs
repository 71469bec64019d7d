//! The pool of coherent memory for callers that may not sleep (S68 to S74, S77).
//!
//! ```text
//!   made at boot by remapping      ┌───┬───────┬───┬───────────┬ … ┐  uncached, mapped once and for good
//!   one bit a page                 └───┴───────┴───┴───────────┴ … ┘
//! ```
//!
//! Its memory is the contiguous region's, if there is one, and else is taken by remapping. When it runs low it grows by further parts,
//! which are pools like it ([`crate::pool_growth`]).
//!
//! Taking and giving back touches the pages' bits under a lock that masks interrupts, and nothing else: no page table, no
//! frame, no waiting (S77). Where the pool lies never changes, so whose an address is can be told without the lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use core::{mem, ptr};

use arch::failure;
use arch::lock::IrqSpinLock;
use arch::machine::Authority;
use kerncore::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr, pages_for};
use kerncore::failure::Point;
use kerncore::frames::{FrameOwner, Freed};
use kerncore::holder::{Holder, Tag};
use kerncore::lock::Class;
use kerncore::pool::{self, Holders, Pool, Run, Size, Word, end_behind};
use mm::clock::Counter;
use mm::report::dump_stack;

use crate::device::Device;
use crate::pool_error::NoRun;
pub(crate) use crate::pool_error::PoolFreeError;
pub use crate::pool_error::{InitError, PoolError};
use crate::pool_growth;

/// The pool: where it lies, and which of its pages are taken. Where it lies is written once, its number of pages last; while that is
/// zero there is no pool, and no address is the pool's.
#[repr(C)] // with the lock at the start, where it is cheap to reach
pub(crate) struct AtomicPool {
    pub(crate) pages: IrqSpinLock<Pool<'static>>,
    base: AtomicU32,
    physical: AtomicU32,
    /// The same for [`give_back`]; what no page lies at while that is closed.
    pub(crate) short_cut: AtomicU32,
    /// How many pages it has.
    pub(crate) count: AtomicU32,
    /// For each page a note, which the lock of `pages` guards: who took the run that it is the first of.
    notes: AtomicPtr<Note>,
    /// The kernel's clock.
    clock: Counter,
    /// Since when nothing of it was taken, in ticks, as far as anybody has looked; zero if something was.
    idle_since: AtomicU32,
    /// Somebody makes it, or has made it.
    pub(crate) claimed: AtomicBool,
}

/// Who has a run, with what was left of the clock's count when it was taken; so large that its place is found by a shift.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Note {
    caller: VirtAddr,
    tag: Tag,
    left: u32,
}

impl Note {
    const NONE: Self = Self { caller: VirtAddr::new(0), tag: Tag::NONE, left: 0 };

    const fn holder(self) -> Holder {
        let Self { caller, tag, left } = self;
        Holder { caller, tag, since: Counter::moment(left) }
    }
}

impl AtomicPool {
    pub(crate) const fn new() -> Self {
        Self {
            pages: IrqSpinLock::new(Class::AtomicPool, Pool::empty()),
            notes: AtomicPtr::new(ptr::null_mut()),
            clock: Counter::stopped(),
            idle_since: AtomicU32::new(0),
            base: AtomicU32::new(0),
            physical: AtomicU32::new(0),
            short_cut: AtomicU32::new(0),
            count: AtomicU32::new(0),
            claimed: AtomicBool::new(false),
        }
    }

    /// Whether it is there. Who was told so sees where it lies.
    #[inline(always)]
    pub(crate) fn is_made(&self) -> bool {
        self.count.load(Acquire) != 0
    }

    /// How far `address` lies from the pool's start, if inside.
    #[inline]
    pub(crate) fn offset_of(&self, address: VirtAddr) -> Option<u32> {
        let count = self.count.load(Acquire);
        let offset = address.raw().wrapping_sub(self.base.load(Relaxed));
        (offset / PAGE_SIZE < count).then_some(offset)
    }

    /// The number of the page that begins at `address`, from the pool's first on; a number that no pool has if none does. Who has
    /// memory of the pool sees where it lies; for others it is any number.
    #[inline(always)]
    fn page_at(&self, address: VirtAddr) -> u32 {
        let offset = address.raw().wrapping_sub(self.base.load(Relaxed));
        // Turned right: what lies inside a page gives a number that is too large.
        offset.rotate_right(PAGE_SHIFT)
    }

    /// What lies `offset` bytes from the start, on the bus. For an offset that is inside.
    #[inline(always)]
    fn physical_at(&self, offset: u32) -> PhysAddr {
        // Neither the pool's memory nor its addresses wrap.
        PhysAddr::new(self.physical.load(Relaxed).wrapping_add(offset))
    }

    /// What begins with `page`, which is one of the pool's.
    #[inline(always)]
    pub(crate) fn buffer_at(&self, page: u32) -> PoolBuffer {
        let offset = page.wrapping_mul(PAGE_SIZE);
        let address = VirtAddr::new(self.base.load(Relaxed).wrapping_add(offset));
        PoolBuffer { address, physical: self.physical_at(offset) }
    }

    /// Where it is noted who took the run that begins with `page`.
    ///
    /// # Safety
    /// `page` is one of the pool's, which has some; its lock is held for as long as the place is used.
    #[inline(always)]
    unsafe fn note_of(&self, page: u32) -> *mut Note {
        let notes = self.notes.load(Relaxed);
        // SAFETY: there is a note for each page of the pool, since before any of them was given, until after the last came back.
        unsafe { notes.add(page as usize) }
    }

    /// Takes down who took the run that begins with `page`, and when.
    ///
    /// # Safety
    /// As for [`AtomicPool::note_of`].
    #[inline(always)]
    unsafe fn take_down(&self, page: u32, (caller, tag): (VirtAddr, Tag)) {
        // SAFETY: by our caller's promise.
        let note = unsafe { self.note_of(page) };
        // SAFETY: the place is the pool's, and the lock keeps others from it.
        unsafe { note.write(Note { caller, tag, left: self.clock.left() }) };
    }

    /// Takes the lowest run of at least `bytes`, if it ends at or below `last` on the bus, in the name of `caller`.
    pub(crate) fn allocate(
        &self,
        bytes: u32,
        last: PhysAddr,
        (caller, tag): (VirtAddr, Tag),
    ) -> Result<PoolBuffer, NoRun> {
        let first = self.pages.with(|pages| {
            let run = pages.allocate(bytes).map_err(NoRun::Refused)?;
            let physical = self.physical_at(run.first * PAGE_SIZE);
            // The pool does not wrap, and what was asked for is not nothing.
            if physical.raw() + (bytes - 1) > last.raw() {
                let returned = pages.free(run.start, bytes);
                debug_assert_eq!(returned, Ok(()), "taken under this very lock");
                return Err(NoRun::Beyond(physical));
            }
            self.idle_since.store(0, Relaxed);
            // SAFETY: a page that the pool just gave, under its lock.
            unsafe { self.take_down(run.first, (caller, tag)) };
            Ok(run.first)
        })?;
        Ok(self.buffer_at(first))
    }

    /// The first run that begins at `page` or behind it, where it lies on the bus, and who has it.
    pub(crate) fn next_run(&self, page: u32) -> Option<(Run, PhysAddr, Holder)> {
        self.pages.with(|pages| {
            let run = pages.runs_from(page).next()?;
            // SAFETY: one of the pool's pages, under its lock.
            let note = unsafe { self.note_of(run.first) };
            // SAFETY: it was written when the run was taken, and the lock keeps others from it.
            let note = unsafe { note.read() };
            Some((run, self.physical_at(run.first * PAGE_SIZE), note.holder()))
        })
    }

    /// Gives the run of `bytes` at `address`, which is inside, back.
    fn free(&self, address: VirtAddr, bytes: u32) -> Result<(), pool::FreeError> {
        self.pages.with(|pages| pages.free(address, bytes))
    }

    /// Notes who holds it in `holders`; what `end` says, its runs put behind that.
    pub(crate) fn note_holders(&self, holders: &mut Holders, end: u32) -> u32 {
        self.pages.with(|pages| {
            pages.runs().fold(end, |end, run| {
                // SAFETY: one of the pool's pages, under its lock.
                let note = unsafe { self.note_of(run.first) };
                // SAFETY: it was written when the run was taken, and the lock keeps others from it.
                let note = unsafe { note.read() };
                holders.note(note.caller, run.pages);
                end_behind(end, run.pages)
            })
        })
    }

    /// Whether nothing of it is taken, nor was for `ticks` by the clock, as far as anybody has looked. Where no clock runs, never.
    pub(crate) fn has_been_idle_for(&self, ticks: u32) -> bool {
        self.pages.with(|pages| {
            // Under the lock, so that it is no earlier than what another CPU has stored.
            let now = Counter::moment(self.clock.left()).ticks();
            let since = self.idle_since.load(Relaxed);
            if pages.taken_pages() != 0 {
                self.idle_since.store(0, Relaxed);
                return false;
            }
            if since == 0 {
                self.idle_since.store(now, Relaxed);
                return false;
            }
            now.wrapping_sub(since) >= ticks
        })
    }

    fn usage(&self) -> PoolUse {
        self.pages.with(|pages| PoolUse {
            pages: pages.pages(),
            taken: pages.taken_pages(),
            largest: pages.largest_run(),
            base: pages.base(),
        })
    }

    /// Makes it, of `bytes`, for whoever has claimed it.
    pub(crate) fn build(&self, bytes: u32, caller: VirtAddr) -> Result<(), InitError> {
        let words = filled(Pool::words_for(bytes), || Word::FREE).ok_or(InitError::NoBitmap)?;
        // What the pool cannot use is not taken either: a tail that is no whole page (S69).
        let usable = bytes / PAGE_SIZE * PAGE_SIZE;
        let none = InitError::Pool(pool::NewError::NoPages { bytes });
        if usable == 0 {
            return Err(none);
        }
        let notes = filled((usable / PAGE_SIZE) as usize, || Note::NONE);
        let notes = notes.ok_or(InitError::NoBitmap)?;
        let kernel = mm::kernel();
        // From the contiguous region, if there is one: it was set aside when memory came up, before this (S68).
        let area = match kernel.contiguous() {
            Some(_) => kernel.contiguous_alloc(usable, FrameOwner::AtomicPool, caller),
            None => kernel.coherent_alloc(usable, FrameOwner::AtomicPool, caller),
        };
        let area = area.map_err(InitError::NoMemory)?;
        let base = area.pages.start();
        // Nothing below can fail: the base is a page's, the size is whole pages, the words are as many as were asked for.
        let pages = Pool::new(base, usable, Box::leak(words)).map_err(InitError::Pool)?;
        self.base.store(base.raw(), Relaxed);
        self.physical.store(area.physical.raw(), Relaxed);
        self.short_cut.store(area.physical.raw(), Relaxed);
        self.clock.follow();
        self.idle_since.store(0, Relaxed);
        self.notes.store(Box::leak(notes).as_mut_ptr(), Relaxed);
        self.count.store(usable / PAGE_SIZE, Release);
        self.pages.with(|slot| *slot = pages);
        Ok(())
    }

    /// Gives all of its memory back, if none of it is taken: how many pages that were. Where one may sleep, by one at a time.
    pub(crate) fn give_up(&self) -> u32 {
        let idle = self.pages.with(|pages| {
            let is_idle = pages.pages() != 0 && pages.taken_pages() == 0;
            is_idle.then(|| mem::replace(pages, Pool::empty()))
        });
        let Some(pages) = idle else { return 0 };
        let (base, count) = (pages.base(), pages.pages());
        let physical = PhysAddr::new(self.physical.load(Relaxed));
        self.count.store(0, Release);
        let notes = self.notes.swap(ptr::null_mut(), Relaxed);
        let notes = ptr::slice_from_raw_parts_mut(notes, count as usize);
        // SAFETY: `build` made it of a box of so many notes, and nobody asks for notes of a pool that has no pages.
        drop(unsafe { Box::from_raw(notes) });
        // SAFETY: as above: a box of the bits' words, which the pool alone had.
        drop(unsafe { Box::from_raw(ptr::from_mut(pages.into_words())) });
        // SAFETY: none of its pages was taken, and none can be any more.
        let authority = unsafe { Authority::claim() };
        let freed = mm::kernel().coherent_free_at(authority, base, physical, count * PAGE_SIZE);
        if let Err(error) = freed {
            log::error!("DMA: memory of the atomic pool did not come back: {error}");
        }
        self.claimed.store(false, Relaxed);
        count
    }
}

/// The pool that is made at boot, where most are served.
// In a section of its own, so that no offset inside other variables has to be added to its address; the linker puts all of `.data.*`
// where variables with a value lie.
#[unsafe(link_section = ".data.atomic_pool")]
pub(crate) static POOL: AtomicPool = AtomicPool::new();

/// A run of the pool's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBuffer {
    /// Its first byte, as the processor sees it.
    pub address: VirtAddr,
    /// Its first byte on the bus.
    pub physical: PhysAddr,
}

/// How full the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Pages there are.
    pub pages: u32,
    /// Pages that are taken.
    pub taken: u32,
    /// Pages of the largest run that could be given.
    pub largest: u32,
    /// Where it begins.
    pub base: VirtAddr,
}

/// Makes the pool, of `bytes` (S68, S69). Once, at boot, where one may sleep; says in one line how it went.
///
/// # Errors
/// [`InitError`]; nothing was kept.
#[inline(never)] // so that the caller recorded is the one who asked
pub fn init(bytes: u32) -> Result<(), InitError> {
    let kibibytes = bytes / 1024;
    let made = make(bytes, arch::backtrace::return_address());
    match made {
        Ok(()) => {
            log::info!("DMA: preallocated {kibibytes} KiB pool for atomic coherent allocations");
            pool_growth::begin();
        }
        Err(error) => {
            log::error!(
                "DMA: failed to allocate {kibibytes} KiB pool for atomic coherent allocation"
            );
            log::error!("DMA: {error}");
        }
    }
    made
}

fn make(bytes: u32, caller: VirtAddr) -> Result<(), InitError> {
    if POOL.claimed.swap(true, Relaxed) {
        return Err(InitError::Again);
    }
    let made = POOL.build(bytes, caller);
    if made.is_err() {
        POOL.claimed.store(false, Relaxed);
    }
    made
}

/// `count` of what `make` makes, if the heap has room.
fn filled<T>(count: usize, make: impl FnMut() -> T) -> Option<Box<[T]>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(count).ok()?;
    memory.resize_with(count, make);
    Some(memory.into_boxed_slice())
}

/// Takes an aligned run that holds `bytes` and that `device` reaches, in the name of `caller`: from the part of boot, or from the
/// first that has grown and has one. Any context. The memory is as its last
/// user left it (S85). Who has the rest, and what would have been enough, is for [`pool_growth::complain`] to say.
///
/// # Errors
/// [`PoolError`]; nothing was taken.
pub(crate) fn allocate(
    device: &Device,
    bytes: u32,
    (caller, tag): (VirtAddr, Tag),
) -> Result<PoolBuffer, PoolError> {
    if !POOL.is_made() {
        log::error!("coherent pool not initialised!");
        dump_stack();
        return Err(PoolError::NotInitialised);
    }
    let taken = if failure::fails(Point::Pool) {
        Err(NoRun::Refused(POOL.pages.with(|pages| pages.exhausted(pages_for(bytes)))))
    } else {
        pool_growth::allocate(bytes, device.coherent_reach(), (caller, tag))
    };
    taken.map_err(|none| match none {
        NoRun::Refused(refusal) => {
            pool_growth::note(bytes);
            PoolError::Refused(refusal)
        }
        NoRun::Beyond(lowest) => PoolError::Beyond { lowest },
    })
}

/// As [`allocate`], without a word when there is nothing: [`allocate`] says why.
#[inline(always)]
pub(crate) fn take(bytes: u32, tag: Tag, caller: VirtAddr) -> Option<PoolBuffer> {
    if failure::fails(Point::ShortCut) {
        return None;
    }
    // Where there is no pool, it has no pages either.
    // Each size by itself: together they would take registers from each other.
    let first = match Size::of(bytes) {
        Size::Page => taken(tag, caller, Pool::take_page),
        Size::Few(few) => taken(tag, caller, |pages| pages.take_few(few)),
        Size::Many(many) => taken(tag, caller, |pages| pages.take_many(many)),
        Size::Pair(pair) => taken(tag, caller, |pages| pages.take_pair(pair)),
        Size::Other => None,
    };
    Some(POOL.buffer_at(first?))
}

/// What `take` takes of the part of boot, taken down.
#[inline(always)]
fn taken(
    tag: Tag,
    caller: VirtAddr,
    take: impl FnOnce(&mut Pool<'static>) -> Option<u32>,
) -> Option<u32> {
    // Where there is no pool, it has no pages either.
    POOL.pages.with(|pages| {
        let first = take(pages)?;
        // SAFETY: a page that the pool just gave, under its lock.
        unsafe { POOL.take_down(first, (caller, tag)) };
        Some(first)
    })
}

/// As [`take`], of however many pages, wherever they are.
#[inline(always)]
pub(crate) fn take_otherwise(bytes: u32, tag: Tag, caller: VirtAddr) -> Option<PoolBuffer> {
    let first = taken(tag, caller, |pages| pages.take(bytes))?;
    Some(POOL.buffer_at(first))
}

/// Whether the byte at `address` is the pool's.
pub(crate) fn contains(address: VirtAddr) -> bool {
    pool_growth::part_of(address).is_some()
}

/// How many pages the run has that is taken and begins at `address`; `None` if there is none of the pool's. Looks at every page.
pub(crate) fn pages_at(address: VirtAddr) -> Option<u32> {
    let part = pool_growth::part_of(address)?;
    let found = part.pages.with(|pool| pool.runs().find(|run| run.start == address));
    found.map(|run| run.pages)
}

/// Gives the run of `bytes` at `address` back, which lies at `physical` on the bus. Any context.
///
/// # Errors
/// [`PoolFreeError`].
pub(crate) fn free(address: VirtAddr, bytes: u32, physical: PhysAddr) -> Result<(), PoolFreeError> {
    let part = pool_growth::part_of(address).ok_or(PoolFreeError::NotMine)?;
    let offset = part.offset_of(address).ok_or(PoolFreeError::NotMine)?;
    let wanted = part.physical_at(offset);
    if wanted != physical {
        return Err(PoolFreeError::Elsewhere { wanted });
    }
    part.free(address, bytes).map_err(|error| {
        refuse(error);
        PoolFreeError::Refused(error)
    })
}

/// As [`free`], if all is well. If not, nothing has changed, and [`free`] says why.
#[inline(always)]
pub(crate) fn give_back(address: VirtAddr, bytes: u32, physical: PhysAddr) -> Freed {
    let page = POOL.page_at(address);
    if POOL.short_cut.load(Relaxed).wrapping_add(page.wrapping_mul(PAGE_SIZE)) != physical.raw() {
        return Freed::No;
    }
    // Whether it is one of the pool's pages at all is asked there.
    POOL.pages.with(|pages| pages.give_back(page, bytes))
}

#[cold]
fn refuse(error: pool::FreeError) {
    if matches!(error, pool::FreeError::Overruns { .. }) {
        log::error!("freeing wrong coherent size from pool");
    }
    log::error!("DMA: a free from the atomic pool was refused: {error}");
    dump_stack();
}

/// How full the pool is that was made at boot, or `None` if there is none. Looks at every page; for listings and the ledger.
pub fn usage() -> Option<PoolUse> {
    POOL.is_made().then(|| POOL.usage())
}

/// Shows how full each part is, that of boot first. Looks at every page.
pub fn for_each_part(mut visit: impl FnMut(PoolUse)) {
    pool_growth::parts().for_each(|part| visit(part.usage()));
}
