//! The pool of coherent memory for callers that may not sleep (S68 to S74, S77).
//!
//! ```text
//!   made at boot by remapping      ┌───┬───────┬───┬───────────┬ … ┐  uncached, mapped once and for good
//!   one bit a page                 └───┴───────┴───┴───────────┴ … ┘
//! ```
//!
//! Its memory is the contiguous region's, if there is one, and else is taken by remapping.
//!
//! Taking and giving back touches the pages' bits under a lock that masks interrupts, and nothing else: no page table, no
//! frame, no waiting (S77). Where the pool lies never changes, so whose an address is can be told without the lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32};

use arch::failure;
use arch::lock::IrqSpinLock;
use kerncore::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr, pages_for};
use kerncore::failure::Point;
use kerncore::frames::{FrameOwner, Freed};
use kerncore::kernel_space::CoherentError;
use kerncore::lock::Class;
use kerncore::pool::{self, Pool, Word};
use mm::report::{RateLimit, dump_stack};

/// The pool: where it lies, and which of its pages are taken. Where it lies is written once, its number of pages last; while that is
/// zero there is no pool, and no address is the pool's.
#[repr(C)] // with the lock at the start, where it is cheap to reach
struct AtomicPool {
    pages: IrqSpinLock<Pool<'static>>,
    base: AtomicU32,
    physical: AtomicU32,
    /// How many pages it has.
    count: AtomicU32,
    /// Somebody makes it, or has made it.
    claimed: AtomicBool,
}

impl AtomicPool {
    const fn new() -> Self {
        Self {
            pages: IrqSpinLock::new(Class::AtomicPool, Pool::empty()),
            base: AtomicU32::new(0),
            physical: AtomicU32::new(0),
            count: AtomicU32::new(0),
            claimed: AtomicBool::new(false),
        }
    }

    /// Whether it is there. Who was told so sees where it lies.
    #[inline(always)]
    fn is_made(&self) -> bool {
        self.count.load(Acquire) != 0
    }

    /// How far `address` lies from the pool's start, if inside.
    fn offset_of(&self, address: VirtAddr) -> Option<u32> {
        let count = self.count.load(Acquire);
        let offset = address.raw().wrapping_sub(self.base.load(Relaxed));
        (offset / PAGE_SIZE < count).then_some(offset)
    }

    /// The page that begins at `address`, if one of the pool's does.
    #[inline(always)]
    fn page_at(&self, address: VirtAddr) -> Option<u32> {
        let count = self.count.load(Acquire);
        let offset = address.raw().wrapping_sub(self.base.load(Relaxed));
        // Turned right: what lies inside a page gives a number that is too large.
        let page = offset.rotate_right(PAGE_SHIFT);
        (page < count).then_some(page)
    }

    /// What lies `offset` bytes from the start, on the bus. For an offset that is inside.
    #[inline(always)]
    fn physical_at(&self, offset: u32) -> PhysAddr {
        // Neither the pool's memory nor its addresses wrap.
        PhysAddr::new(self.physical.load(Relaxed).wrapping_add(offset))
    }

    /// What begins with `page`, which is one of the pool's.
    #[inline(always)]
    fn buffer_at(&self, page: u32) -> PoolBuffer {
        let offset = page.wrapping_mul(PAGE_SIZE);
        let address = VirtAddr::new(self.base.load(Relaxed).wrapping_add(offset));
        PoolBuffer { address, physical: self.physical_at(offset) }
    }
}

static POOL: AtomicPool = AtomicPool::new();

/// Warned once and then ever more rarely.
static EXHAUSTED: RateLimit = RateLimit::new();

/// Why there is no pool (S69). Atomic allocations fail until the next boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// There is one already.
    Again,
    /// No memory for the bitmaps.
    NoBitmap,
    /// No memory for the pool.
    NoMemory(CoherentError),
    /// The size holds no page.
    Pool(pool::NewError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again => f.write_str("there is a pool already"),
            Self::NoBitmap => f.write_str("no memory for its bitmaps"),
            Self::NoMemory(error) => error.fmt(f),
            Self::Pool(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InitError {}

/// A run of the pool's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBuffer {
    /// Its first byte, as the processor sees it.
    pub address: VirtAddr,
    /// Its first byte on the bus.
    pub physical: PhysAddr,
}

/// Why the pool gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// There is no pool (S70).
    NotInitialised,
    /// The pool refused.
    Refused(pool::AllocateError),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialised => f.write_str("there is no atomic pool"),
            Self::Refused(error) => error.fmt(f),
        }
    }
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
    let made = build(bytes, caller);
    if made.is_err() {
        POOL.claimed.store(false, Relaxed);
    }
    made
}

fn build(bytes: u32, caller: VirtAddr) -> Result<(), InitError> {
    let words = free_words(Pool::words_for(bytes)).ok_or(InitError::NoBitmap)?;
    // What the pool cannot use is not taken either: a tail that is no whole page (S69).
    let usable = bytes / PAGE_SIZE * PAGE_SIZE;
    let none = InitError::Pool(pool::NewError::NoPages { bytes });
    if usable == 0 {
        return Err(none);
    }
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
    POOL.base.store(base.raw(), Relaxed);
    POOL.physical.store(area.physical.raw(), Relaxed);
    POOL.count.store(usable / PAGE_SIZE, Release);
    POOL.pages.with(|slot| *slot = pages);
    Ok(())
}

fn free_words(words: usize) -> Option<Box<[Word]>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(words).ok()?;
    memory.resize(words, Word::FREE);
    Some(memory.into_boxed_slice())
}

/// Takes the lowest aligned run that holds `bytes`. Any context. The memory is as its last user left it (S85).
///
/// # Errors
/// [`PoolError`]; nothing was taken.
pub(crate) fn allocate(bytes: u32) -> Result<PoolBuffer, PoolError> {
    let taken = if POOL.is_made() {
        let run = POOL.pages.with(|pages| {
            if failure::fails(Point::Pool) {
                return Err(pages.exhausted(pages_for(bytes)));
            }
            pages.allocate(bytes)
        });
        run.map(|run| POOL.buffer_at(run.first)).map_err(PoolError::Refused)
    } else {
        Err(PoolError::NotInitialised)
    };
    if let Err(error) = taken {
        complain(error);
    }
    taken
}

/// As [`allocate`], without a word when there is nothing: [`allocate`] says why.
#[inline(always)]
pub(crate) fn take(bytes: u32) -> Option<PoolBuffer> {
    if failure::fails(Point::ShortCut) {
        return None;
    }
    // Where there is no pool, it has no pages either.
    let first = POOL.pages.with(|pages| pages.take(bytes))?;
    Some(POOL.buffer_at(first))
}

#[cold]
fn complain(error: PoolError) {
    match error {
        PoolError::NotInitialised => {
            log::error!("coherent pool not initialised!");
            dump_stack();
        }
        PoolError::Refused(refusal) => EXHAUSTED.warn(format_args!(
            "DMA: the atomic pool has {refusal}; raise it with coherent_pool=<size>"
        )),
    }
}

/// Whether the byte at `address` is the pool's.
pub(crate) fn contains(address: VirtAddr) -> bool {
    POOL.offset_of(address).is_some()
}

/// Why the pool did not take a run back. No bit was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolFreeError {
    /// Some other memory, to be freed elsewhere: an answer, not a complaint.
    NotMine,
    /// The address lies inside, but elsewhere on the bus than the caller says.
    Elsewhere {
        /// Where it lies.
        wanted: PhysAddr,
    },
    /// The bitmaps say otherwise (S74). It was printed, with a backtrace.
    Refused(pool::FreeError),
}

/// Gives the run of `bytes` at `address` back, which lies at `physical` on the bus. Any context.
///
/// # Errors
/// [`PoolFreeError`].
pub(crate) fn free(address: VirtAddr, bytes: u32, physical: PhysAddr) -> Result<(), PoolFreeError> {
    let offset = POOL.offset_of(address).ok_or(PoolFreeError::NotMine)?;
    let wanted = POOL.physical_at(offset);
    if wanted != physical {
        return Err(PoolFreeError::Elsewhere { wanted });
    }
    POOL.pages.with(|pages| pages.free(address, bytes)).map_err(|error| {
        refuse(error);
        PoolFreeError::Refused(error)
    })
}

/// As [`free`], if all is well. If not, nothing has changed, and [`free`] says why.
#[inline(always)]
pub(crate) fn give_back(address: VirtAddr, bytes: u32, physical: PhysAddr) -> Freed {
    match POOL.page_at(address) {
        Some(page) if POOL.physical_at(page.wrapping_mul(PAGE_SIZE)) == physical => {
            POOL.pages.with(|pages| pages.give_back(page, bytes))
        }
        _ => Freed::No,
    }
}

#[cold]
fn refuse(error: pool::FreeError) {
    if matches!(error, pool::FreeError::Overruns { .. }) {
        log::error!("freeing wrong coherent size from pool");
    }
    log::error!("DMA: a free from the atomic pool was refused: {error}");
    dump_stack();
}

/// How full the pool is, or `None` if there is none. Looks at every page; for listings and the ledger.
pub fn usage() -> Option<PoolUse> {
    POOL.is_made().then(|| {
        POOL.pages.with(|pages| PoolUse {
            pages: pages.pages(),
            taken: pages.taken_pages(),
            largest: pages.largest_run(),
            base: pages.base(),
        })
    })
}
