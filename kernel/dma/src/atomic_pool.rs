//! The pool of coherent memory for callers that may not sleep (S68 to S74, S77).
//!
//! ```text
//!   made at boot by remapping      ┌───┬───────┬───┬───────────┬ … ┐  uncached, mapped once and for good
//!   one bit a page                 └───┴───────┴───┴───────────┴ … ┘
//! ```
//!
//! Taking and giving back touches two bitmaps under a lock that masks interrupts, and nothing else: no page table, no
//! frame, no waiting (S77).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use arch::lock::IrqSpinLock;
use kerncore::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::CoherentError;
use kerncore::pool::{self, Pool};
use mm::report::{RateLimit, dump_stack};

/// The pool: its bitmaps, and where its memory lies on the bus.
struct AtomicPool {
    pool: Pool<'static>,
    physical: PhysAddr,
}

static POOL: IrqSpinLock<Option<AtomicPool>> = IrqSpinLock::new(None);

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
    if POOL.with(|pool| pool.is_some()) {
        return Err(InitError::Again);
    }
    let words = Pool::words_for(bytes);
    let used = zeroed_words(words).ok_or(InitError::NoBitmap)?;
    let last = zeroed_words(words).ok_or(InitError::NoBitmap)?;
    // What the pool cannot use is not taken either: a tail that is no whole page (S69).
    let usable = bytes / PAGE_SIZE * PAGE_SIZE;
    let none = InitError::Pool(pool::NewError::NoPages { bytes });
    if usable == 0 {
        return Err(none);
    }
    let area = mm::kernel()
        .coherent_alloc(usable, FrameOwner::AtomicPool, caller)
        .map_err(InitError::NoMemory)?;
    // Nothing below can fail: the base is a page's, the size is whole pages, the bitmaps have the words asked for.
    let pool = Pool::new(area.pages.start(), usable, Box::leak(used), Box::leak(last))
        .map_err(InitError::Pool)?;
    POOL.with(|slot| *slot = Some(AtomicPool { pool, physical: area.physical }));
    Ok(())
}

fn zeroed_words(words: usize) -> Option<Box<[u32]>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(words).ok()?;
    memory.resize(words, 0);
    Some(memory.into_boxed_slice())
}

/// Takes the lowest aligned run that holds `bytes`. Any context. The memory is as its last user left it (S85).
///
/// # Errors
/// [`PoolError`]; nothing was taken.
#[inline]
pub(crate) fn allocate(bytes: u32) -> Result<PoolBuffer, PoolError> {
    let taken = POOL.with(|pool| {
        let pool = pool.as_mut().ok_or(PoolError::NotInitialised)?;
        let run = pool.pool.allocate(bytes).map_err(PoolError::Refused)?;
        let offset = run.first * PAGE_SIZE;
        let physical = PhysAddr::new(pool.physical.raw() + offset);
        Ok(PoolBuffer { address: run.start, physical })
    });
    if let Err(error) = taken {
        complain(error);
    }
    taken
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
#[inline]
pub(crate) fn free(address: VirtAddr, bytes: u32, physical: PhysAddr) -> Result<(), PoolFreeError> {
    let freed = POOL.with(|slot| {
        let pool = slot.as_mut().ok_or(PoolFreeError::NotMine)?;
        if !pool.pool.contains(address) {
            return Err(PoolFreeError::NotMine);
        }
        let offset = address.raw() - pool.pool.base().raw();
        let wanted = PhysAddr::new(pool.physical.raw() + offset);
        if wanted != physical {
            return Err(PoolFreeError::Elsewhere { wanted });
        }
        pool.pool.free(address, bytes).map_err(PoolFreeError::Refused)
    });
    if let Err(PoolFreeError::Refused(error)) = freed {
        refuse(error);
    }
    freed
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
    POOL.with(|pool| {
        pool.as_ref().map(|AtomicPool { pool, .. }| PoolUse {
            pages: pool.pages(),
            taken: pool.taken_pages(),
            largest: pool.largest_run(),
            base: pool.base(),
        })
    })
}
