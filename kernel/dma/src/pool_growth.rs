//! The atomic pool grows in the background when it runs low, and says what it would have taken when it did not suffice (S104).
//!
//! ```text
//!   made at boot   ┌────────────┐   a quarter of its size free?  else, when somebody waits who may sleep:
//!   grown          ┌────────────┐┌────────────────────────┐ …    each part as large as all before it
//! ```
//! Who takes from the pool looks into the part of boot first, as if there were no other, and so pays nothing for the others. Whether
//! the pool is low is asked by who waits (`arch::cpu::wait_until`) and by CPUs that have nothing to do; who finds no room in the part of
//! boot wakes one of those, and leaves word for the next who takes coherent memory and may sleep. Each of them makes it grow: no
//! timer, no task. A part of which nothing was taken for [`PATIENCE`] goes back in the same way, while the part of boot is not low; and
//! at once, whether that is low or not, before who may sleep is refused an area, a coherent buffer or pages ([`mm::reserve`]).

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32};

use arch::cpu::{DeferredWork, Doer};
use kerncore::addr::{PAGE_SIZE, PhysAddr, VirtAddr, pages_for};
use kerncore::frames::MAX_BLOCK;
use kerncore::holder::{Moment, Tag};
use kerncore::pool::{AllocateError, Effort, Holders, end_behind};
use mm::report::{Called, RateLimit};

use crate::atomic_pool::{AtomicPool, InitError, POOL, PoolBuffer};
use crate::device::Device;
use crate::pool_error::NoRun;

/// The parts that there can be beside that of boot.
const MOST: usize = 7;

static GROWN: [AtomicPool; MOST] = [const { AtomicPool::new() }; MOST];

/// How long a part is kept of which nothing is taken: ten seconds.
pub const PATIENCE: Moment = Moment::new(10_000_000 / Moment::TICK);

/// Who makes the pool grow and shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// Whoever has time, when it is low; what nobody uses goes back after so long, or when somebody is short of memory.
    InBackground {
        /// As a moment after the start.
        patience: Moment,
    },
    /// Who calls [`grow`] and [`release_idle`], and nobody else: for tests, which compare what there is before and after.
    WhenAsked,
}

/// It grows and shrinks on its own.
static IN_BACKGROUND: AtomicBool = AtomicBool::new(true);

static PATIENCE_TICKS: AtomicU32 = AtomicU32::new(PATIENCE.ticks());

/// Somebody found no room in the part of boot, and nobody has looked after that.
static WANTED: AtomicBool = AtomicBool::new(false);

/// The CPU that makes it grow, or gives parts back: its number and one, or [`NO_CPU`].
static CHANGING: AtomicU32 = AtomicU32::new(NO_CPU);

const NO_CPU: u32 = 0;

/// Pages that have gone back since boot. It wraps.
static GIVEN_BACK: AtomicU32 = AtomicU32::new(0);

/// Says who makes it grow. Where one may sleep: with [`Growth::WhenAsked`], nobody else does any more when this returns.
pub fn set_growth(growth: Growth) {
    arch::lock::might_sleep("setting who makes the atomic pool grow");
    if let Growth::InBackground { patience } = growth {
        PATIENCE_TICKS.store(patience.ticks(), Relaxed);
        // Whoever left word while nobody listened is heard no more; the next who does is to wake somebody.
        WANTED.store(false, Relaxed);
    }
    // Either who looks after the pool sees this, which he asks when he has CHANGING, or it is seen here that he has it.
    IN_BACKGROUND.store(growth != Growth::WhenAsked, SeqCst);
    while growth == Growth::WhenAsked && CHANGING.load(SeqCst) != NO_CPU {
        arch::cpu::relax();
    }
}

/// There is, or was, a part beside that of boot.
static HAS_GROWN: AtomicBool = AtomicBool::new(false);

/// Given up where it could not grow, or somebody was short of memory. It is not tried again before it was seen not to be low.
static EFFORT: Effort = Effort::new();

/// The most pages that one pool would have needed, as far as somebody found no room.
static ENOUGH: AtomicU32 = AtomicU32::new(0);

/// The most pages that one pool would have needed if who found no room had been given some, and had kept it.
static ENOUGH_FOR_ALL: AtomicU32 = AtomicU32::new(0);

/// Warned once and then ever more rarely.
static EXHAUSTED: RateLimit = RateLimit::new();

/// All parts that there are.
pub(crate) fn parts() -> impl Iterator<Item = &'static AtomicPool> {
    [&POOL].into_iter().chain(&GROWN).filter(|part| part.is_made())
}

/// The part that `address` lies in. Every free of whatever buffer asks (S75), so it is soon told where the pool has never grown.
#[inline]
pub(crate) fn part_of(address: VirtAddr) -> Option<&'static AtomicPool> {
    if POOL.offset_of(address).is_some() {
        return Some(&POOL);
    }
    // Relaxed: who has an address of a part was given it after that part had begun to be made.
    if HAS_GROWN.load(Relaxed) { grown_part_of(address) } else { None }
}

#[cold]
#[inline(never)]
fn grown_part_of(address: VirtAddr) -> Option<&'static AtomicPool> {
    GROWN.iter().find(|part| part.offset_of(address).is_some())
}

/// From now on it grows when it is low.
pub(crate) fn begin() {
    let noted = arch::cpu::add_deferred_work(DeferredWork {
        is_pending: has_work,
        run: look_after,
        by: Doer::Anybody,
    });
    debug_assert!(noted, "no room for the pool among the deferred work");
    let noted = mm::reserve::keep(give_back_idle);
    debug_assert!(noted, "no room for the pool among those who keep memory in reserve");
}

/// Takes a run that ends at or below `last` on the bus from the first part that has one.
///
/// # Errors
/// [`NoRun`]: the lowest that is out of reach, if there is any; else what the part of boot says.
pub(crate) fn allocate(
    bytes: u32,
    last: PhysAddr,
    who: (VirtAddr, Tag),
) -> Result<PoolBuffer, NoRun> {
    let mut why = match POOL.allocate(bytes, last, who) {
        Err(why) => why,
        taken => return taken,
    };
    if let NoRun::Refused(_) = why {
        leave_word();
    }
    for part in GROWN.iter().filter(|part| part.is_made()) {
        match (part.allocate(bytes, last, who), why) {
            (Err(NoRun::Beyond(here)), NoRun::Beyond(lowest)) => {
                why = NoRun::Beyond(lowest.min(here));
            }
            (Err(beyond @ NoRun::Beyond(_)), NoRun::Refused(_)) => why = beyond,
            (Err(NoRun::Refused(here)), NoRun::Refused(before)) => {
                why = NoRun::Refused(before.and(here));
            }
            (Err(NoRun::Refused(_)), NoRun::Beyond(_)) => {}
            (taken, _) => return taken,
        }
    }
    Err(why)
}

/// Whether no part has as many pages free as a quarter of the part of boot. Any context.
pub fn is_low() -> bool {
    let glance = EFFORT.glance();
    let target = POOL.count.load(Relaxed).div_ceil(4);
    let low = parts().all(|part| part.pages.with(|pages| pages.has_fewer_free_than(target)));
    if !low {
        // Whoever finds it low later may try again.
        EFFORT.is_well(glance);
    }
    low
}

/// Somebody has found no room: whoever has time is to look after the pool.
#[cold]
fn leave_word() {
    // First whether there is work: a word that nobody was woken for would keep the next one from waking anybody.
    if has_work() && !WANTED.swap(true, Relaxed) {
        arch::smp::wake_an_idle_one();
    }
}

/// For those who may sleep and take coherent memory: looks after the pool, if somebody has left word.
#[inline(always)]
pub(crate) fn pass_by() {
    if WANTED.load(Relaxed) {
        pass_by_with_work();
    }
}

#[cold]
#[inline(never)]
fn pass_by_with_work() {
    look_after();
}

/// Whether there is something for [`look_after`]. Any context.
fn has_work() -> bool {
    IN_BACKGROUND.load(Relaxed)
        && CHANGING.load(Relaxed) == NO_CPU
        && (wants_to_grow() || GROWN.iter().any(is_superfluous))
}

/// Makes the pool grow if it is low, and gives back what nobody has used for long, if somebody has time for that at all
/// ([`set_growth`]): for those who poll instead of waiting. Where one may sleep.
pub fn look_after() {
    WANTED.store(false, Relaxed);
    if has_work() {
        change(|| {
            // Asked again by the only one who changes it: meanwhile another may have, or `set_growth` may have been called.
            match (IN_BACKGROUND.load(SeqCst), wants_to_grow()) {
                (false, _) => {}
                (true, true) => _ = grow_here(),
                (true, false) => _ = give_up(is_superfluous),
            }
        });
    }
}

/// This CPU becomes the one that changes the pool.
///
/// # Errors
/// The one that does.
fn claim() -> Result<(), u32> {
    let own = arch::cpu::id() + 1;
    CHANGING.compare_exchange(NO_CPU, own, SeqCst, Relaxed).map(drop)
}

/// Runs `act`, for whoever has claimed.
fn claimed<R>(act: impl FnOnce() -> R) -> R {
    let done = act();
    CHANGING.store(NO_CPU, Release);
    done
}

/// Runs `act` as the only one who changes the pool; `None` if somebody else does.
fn change<R>(act: impl FnOnce() -> R) -> Option<R> {
    claim().ok().map(|()| claimed(act))
}

/// The same when another CPU has done with it. `None` if this one does itself, in whose midst the caller is. Where one may sleep, under
/// no lock: that CPU may be waiting for the lock.
fn change_in_turn<R>(act: impl FnOnce() -> R) -> Option<R> {
    while let Err(cpu) = claim() {
        if cpu == arch::cpu::id() + 1 {
            return None;
        }
        arch::cpu::relax();
    }
    Some(claimed(act))
}

#[inline(never)] // so that the caller recorded is the one below
fn grow_here() -> Result<u32, InitError> {
    grow_by_one(arch::backtrace::return_address())
}

/// Whether nothing of this part was taken for as long as it is kept so, and the part of boot is not low without it.
fn is_superfluous(part: &AtomicPool) -> bool {
    let patience = PATIENCE_TICKS.load(Relaxed);
    part.is_made() && part.has_been_idle_for(patience) && !is_low_alone()
}

/// Whether the part of boot has no quarter of its pages free.
fn is_low_alone() -> bool {
    let target = POOL.count.load(Relaxed).div_ceil(4);
    POOL.pages.with(|pages| pages.has_fewer_free_than(target))
}

fn wants_to_grow() -> bool {
    if !is_low() {
        return false;
    }
    let has_room = GROWN.iter().any(|part| !part.claimed.load(Relaxed));
    has_room && !EFFORT.has_given_up()
}

/// Doubles the pool; if there is no memory for that, adds as much as it had at boot. Where one may sleep. Says how it went.
///
/// # Errors
/// [`InitError`]: there is no memory, or the pool has as many parts as it can.
#[inline(never)] // so that the caller recorded is the one who asked
pub fn grow() -> Result<u32, InitError> {
    let caller = arch::backtrace::return_address();
    change(|| grow_by_one(caller)).unwrap_or(Err(InitError::Changing))
}

fn grow_by_one(caller: VirtAddr) -> Result<u32, InitError> {
    let free = GROWN.iter().find(|part| !part.claimed.swap(true, Relaxed));
    let part = free.ok_or(InitError::Again)?;
    HAS_GROWN.store(true, Relaxed);
    let all: u32 = parts().map(|part| part.count.load(Relaxed)).sum();
    let sizes = [all, POOL.count.load(Relaxed)].map(|pages| pages.saturating_mul(PAGE_SIZE));
    let grown = part.build(sizes[0], caller).map(|()| sizes[0]);
    let grown = grown.or_else(|_| part.build(sizes[1], caller).map(|()| sizes[1]));
    match grown {
        Ok(bytes) => {
            let (by, to) = (bytes >> 10, (all << 2).saturating_add(bytes >> 10));
            log::info!("DMA: the atomic pool was low and grew by {by} KiB to {to} KiB");
        }
        Err(error) => {
            part.claimed.store(false, Relaxed);
            EFFORT.give_up();
            log::warn!("DMA: the atomic pool is low and does not grow: {error}");
        }
    }
    grown
}

/// Gives back the parts that have grown and of which nothing is taken, and says how many pages those had. Where one may sleep.
pub fn release_idle() -> u32 {
    change(|| give_up(|_| true)).unwrap_or(0)
}

/// As [`release_idle`], for whoever is short of memory, unless the pool shrinks when asked alone; another CPU that changes the pool is
/// waited for. It does not grow again before it was seen not to be low.
fn give_back_idle() -> u32 {
    if !IN_BACKGROUND.load(SeqCst) {
        return 0;
    }
    let before = GIVEN_BACK.load(Acquire);
    let give_back = || {
        // Asked again: meanwhile `set_growth` may have been called.
        if !IN_BACKGROUND.load(SeqCst) {
            return 0;
        }
        let pages = give_up(|_| true);
        if pages != 0 {
            EFFORT.give_up();
        }
        pages
    };
    // Who makes it grow is short of memory himself, and has it. What he gave back while he was waited for is there for anybody.
    match change_in_turn(give_back) {
        None | Some(0) => GIVEN_BACK.load(Acquire).wrapping_sub(before),
        Some(pages) => pages,
    }
}

fn give_up(which: impl Fn(&AtomicPool) -> bool) -> u32 {
    let pages = GROWN.iter().filter(|part| which(part)).map(AtomicPool::give_up).sum();
    if pages != 0 {
        GIVEN_BACK.fetch_add(pages, Release);
        log::info!("DMA: the atomic pool gave back {} KiB", pages << 2);
    }
    pages
}

/// What the parts that have grown have: pages, and how many of them are taken. Looks at every page.
pub fn grown() -> (u32, u32) {
    GROWN.iter().fold((0, 0), |(pages, taken), part| {
        let (more, of_them) = part.pages.with(|pool| (pool.pages(), pool.taken_pages()));
        (pages + more, taken + of_them)
    })
}

/// The smallest `coherent_pool=`, in KiB, that would have been enough for each request of this boot that was refused, by itself: what
/// was held when somebody found no room, and that request, in one piece. Zero while nobody was refused.
pub fn enough() -> u32 {
    ENOUGH.load(Relaxed) * (PAGE_SIZE >> 10)
}

/// As [`enough`], if nobody had been refused and all who were had kept what they asked for, as long as that is no more than there is
/// memory. Who asks again and again is counted each time.
pub fn enough_for_all() -> u32 {
    ENOUGH_FOR_ALL.load(Relaxed) * (PAGE_SIZE >> 10)
}

/// Whether no pool could ever have so many pages.
fn is_more_than_memory(pages: u32) -> bool {
    pages > mm::kernel().zones().table().len()
}

/// Notes that there was no room for `bytes`, whether or not anybody wants to hear of it.
#[cold]
pub(crate) fn note(bytes: u32) {
    let pages = pages_for(bytes);
    if is_more_than_memory(pages) {
        // Nothing would have been enough; what the others need is not to be lost in that.
        return;
    }
    let end = POOL.pages.with(|pages| pages.enough_for([].into_iter()));
    let mut nobody_asks = Holders::new();
    let grown = GROWN.iter().filter(|part| part.is_made());
    let end = grown.fold(end, |end, part| part.note_holders(&mut nobody_asks, end));
    ENOUGH.fetch_max(end_behind(end, pages), Relaxed);
    let _before = ENOUGH_FOR_ALL.fetch_update(Relaxed, Relaxed, |all| {
        let all = end_behind(all.max(end), pages);
        (!is_more_than_memory(all)).then_some(all)
    });
}

/// What to raise, and to what.
struct Advice;

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (each, all) = (enough(), enough_for_all());
        // Without a region it is one block.
        let block = MAX_BLOCK * (PAGE_SIZE >> 10);
        let by = if each > block && mm::kernel().contiguous().is_none() {
            "cma=<size> and coherent_pool=<size>"
        } else {
            "coherent_pool=<size>"
        };
        write!(f, "raise it with {by}, {each}K would have been enough ")?;
        if all > each {
            write!(f, "for each of those refused so far, {all}K for all of them at once")
        } else {
            f.write_str("so far")
        }
    }
}

/// Says what was wanted and for whom, what there is, who has the rest, and what to raise.
#[cold]
pub(crate) fn complain(device: &Device, bytes: u32, refusal: AllocateError) {
    let mut holders = Holders::new();
    for part in parts() {
        let _behind = part.note_holders(&mut holders, 0);
    }
    let (before, name) = (EXHAUSTED.count(), device.name());
    if is_more_than_memory(pages_for(bytes)) {
        EXHAUSTED.warn(format_args!(
            "DMA: the atomic pool has no {bytes} bytes for {name}: {refusal}; that is more than there is memory"
        ));
    } else {
        EXHAUSTED.warn(format_args!(
            "DMA: the atomic pool has no {bytes} bytes for {name}: {refusal}; {Advice}"
        ));
    }
    // Who has it is said as often as that.
    let due = before < 4 || (before + 1).is_power_of_two();
    for holder in holders.sorted().filter(|_| due) {
        let (pages, runs) = (holder.pages, holder.runs);
        if holder.caller == VirtAddr::new(0) {
            log::warn!("DMA:   {pages} of its pages, in {runs} buffers, are others'");
        } else {
            log::warn!(
                "DMA:   {pages} of its pages, in {runs} buffers, are of {}",
                Called(holder.caller)
            );
        }
    }
}
