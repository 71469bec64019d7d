//! The atomic pool grows and shrinks without anybody who waits for that (S104): by CPUs that have nothing to do, and by whoever passes
//! by and may sleep; while handlers on all CPUs take from it.

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arch::lock::IrqSpinLock;
use arch::{cpu, smp};
use dma::coherent::{Buffer, allocate};
use dma::pool_growth::{
    Growth, PATIENCE, grow, grown, is_low, look_after, release_idle, set_growth,
};
use drivers::gic::Receivers;
use drivers::interrupts;
use kerncore::addr::{PAGE_SIZE, PhysAddr};
use kerncore::coherent::Sleep;
use kerncore::frames::{FrameBlock, FrameOwner};
use kerncore::holder::Moment;
use kerncore::lock::Class;
use ktest::Completion::{self, Ran};
use ktest::ktest;
use mm::page_alloc::Pages;
use mm::{clock, kernel};

use super::buffers::{
    DEVICE, InBackground, NO_POOL, comes, give, give_all, give_pages, one_page, pool_pages,
    take_pages,
};
use super::smp::{another, on_each};
use super::witness::{Books, NOBODY, assert_leads};

/// Who finds the part of boot empty, in whatever context, wakes a CPU that has nothing to do; that one makes the pool grow.
#[ktest]
fn an_idle_cpu_makes_the_pool_grow_for_one_that_never_waits_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    if let Err(skipped) = another() {
        return skipped;
    }
    let books = Books::now();
    let mut buffers = take_pages(pages);
    assert_eq!((buffers.len(), grown()), (pages as usize, (0, 0)));
    {
        let _growing = InBackground::begin(PATIENCE);
        let saved = arch::irq::save_and_mask();
        let none = one_page();
        let has_grown = comes(|| grown().0 != 0);
        buffers.extend(one_page());
        saved.restore();
        assert_eq!(none, None, "there was room: this test has no teeth");
        assert!(has_grown, "no other CPU has made it grow");
    }
    assert_eq!((grown(), buffers.len()), ((pages, 1), pages as usize + 1));
    give_pages(buffers);
    assert!(comes(|| release_idle() == pages));
    books.assert_unchanged();
    Ran
}

/// Where there is one CPU, or the others are busy, the next one who may sleep does it.
#[ktest]
fn whoever_takes_coherent_memory_and_may_sleep_makes_the_pool_grow_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    let buffers = take_pages(pages);
    {
        let _growing = InBackground::begin(PATIENCE);
        assert_eq!(one_page(), None);
        let passing = allocate(&DEVICE, 1, Sleep::May, NOBODY).expect("memory");
        assert!(comes(|| grown() == (pages, 0)), "{:?}", grown());
        give(&DEVICE, 1, passing);
    }
    give_pages(buffers);
    // Whoever has made it grow may still be saying so.
    assert!(comes(|| release_idle() == pages));
    books.assert_unchanged();
    Ran
}

/// What the pool has grown by goes back when nobody has used it for long, and not before.
#[ktest]
fn a_part_that_nobody_uses_goes_back_after_a_while_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    grow().expect("memory for a larger pool");
    // The part of boot full, so that one buffer lies in the other.
    let buffers = take_pages(pages);
    let last = one_page().expect("room in what was grown");
    give_pages(buffers);
    let _growing = InBackground::begin(Moment::new(2));
    let wait = |ticks| {
        let start = clock::now().ticks();
        assert!(comes(|| clock::now().ticks().wrapping_sub(start) > ticks), "no clock runs");
    };
    for _ in 0..3 {
        look_after();
        wait(4);
    }
    assert_eq!(grown(), (pages, 1), "somebody uses it");
    give_pages([last]);
    look_after();
    assert_eq!(grown(), (pages, 0), "it was used a moment ago");
    wait(4);
    look_after();
    assert_eq!(grown(), (0, 0));
    books.assert_unchanged();
    Ran
}

/// All memory that there is, taken by those who ask nobody for it.
struct Rest {
    /// The contiguous region has memory, too.
    region: bool,
    held: Vec<(Buffer, u32)>,
    blocks: Vec<FrameBlock>,
}

impl Rest {
    /// Nothing, with room for all.
    fn new() -> Self {
        let region = kernel().contiguous().is_some();
        Self { region, held: Vec::with_capacity(8192), blocks: Vec::with_capacity(8192) }
    }

    fn take(&mut self) {
        for order in (0..=10).rev() {
            let zones = kernel().zones();
            let blocks = core::iter::from_fn(|| zones.allocate(order, FrameOwner::Test).ok());
            self.blocks.extend(blocks);
            let bytes = PAGE_SIZE << order;
            while self.region
                && let Ok(buffer) = allocate(&DEVICE, bytes, Sleep::May, NOBODY)
            {
                self.held.push((buffer, bytes));
            }
        }
    }

    fn give_back(&mut self) {
        let zones = kernel().zones();
        self.blocks.drain(..).for_each(|block| zones.free(block).expect("a live block"));
        give_all(self.held.drain(..));
    }
}

/// Before anybody is refused memory: frames for an area, pages, and a run of the contiguous region, where that has the pool's parts. Whoever
/// may not sleep is refused, since he cannot wait for it. What somebody uses stays, and so does everything that is only given back when
/// asked.
#[ktest]
fn what_the_pool_has_grown_by_goes_back_before_anybody_is_refused_memory_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    let mut rest = Rest::new();
    for round in 0..3 {
        grow().expect("memory for a larger pool");
        rest.take();
        assert_eq!(grown(), (pages, 0), "asked without anybody's leave");
        let saved = arch::irq::save_and_mask();
        let refused = Pages::new(0).map(drop);
        saved.restore();
        assert!(refused.is_err(), "there was memory: this test has no teeth");
        {
            let _shrinking = InBackground::begin(PATIENCE);
            let got = match round {
                0 if !rest.region => Pages::new(0).map(drop).map_err(|error| format!("{error}")),
                _ => allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY)
                    .map(|buffer| rest.held.push((buffer, PAGE_SIZE)))
                    .map_err(|error| format!("{error}")),
            };
            assert_eq!(got, Ok(()), "round {round}");
        }
        assert_eq!(grown(), (0, 0));
        rest.give_back();
    }
    assert!(!is_low(), "so that it may grow again");
    drop(rest);
    books.assert_unchanged();
    Ran
}

/// Another CPU that tries to make the pool grow is waited for, though it finds no memory either: what nobody uses goes back all the same.
#[ktest]
fn whoever_is_short_waits_for_another_cpu_that_changes_the_pool_s104() -> Completion {
    if pool_pages().is_none() {
        return NO_POOL;
    }
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let books = Books::now();
    let mut rest = Rest::new();
    let here = cpu::id();
    for round in 0..10_u32 {
        grow().expect("memory for a larger pool");
        rest.take();
        COUNT.store(0, Ordering::Relaxed);
        OVER.store(false, Ordering::Relaxed);
        let got = IrqSpinLock::new(Class::OuterTest(7), None);
        {
            let _shrinking = InBackground::begin(PATIENCE);
            smp::run_on_each(|number| {
                if number == here {
                    while COUNT.load(Ordering::Relaxed) == 0 {
                        smp::beat();
                        smp::stop_if_ended();
                        cpu::relax();
                    }
                    (0..round * 50).for_each(|_| cpu::relax());
                    let taken = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY);
                    OVER.store(true, Ordering::Release);
                    got.with(|got| *got = taken.ok());
                }
                while number == other && !OVER.load(Ordering::Acquire) {
                    // Most of the time it says why there is none.
                    let _refused = grow();
                    COUNT.fetch_add(1, Ordering::Relaxed);
                    (0..20).for_each(|_| cpu::relax());
                    smp::beat();
                    smp::stop_if_ended();
                }
            });
        }
        rest.give_back();
        let got = got.with(Option::take).expect("what the pool had");
        give_all([(got, PAGE_SIZE)]);
        // The other may have been the first to take it.
        let _idle = release_idle();
        assert_eq!(grown(), (0, 0));
    }
    assert!(!is_low(), "so that it may grow again");
    drop(rest);
    books.assert_unchanged();
    Ran
}

/// Whoever was asked to look after the pool by somebody else than the caller of [`set_growth`] does nothing any more when that returns.
#[ktest]
fn nobody_makes_the_pool_grow_once_that_is_over_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    if let Err(skipped) = another() {
        return skipped;
    }
    let books = Books::now();
    OVER.store(false, Ordering::Relaxed);
    let here = cpu::id();
    assert!(!is_low(), "so that it may grow, whatever came before");
    // So that it is low whenever it has no other part.
    let buffers = take_pages(pages);
    smp::run_on_each(|number| {
        if number != here {
            while !OVER.load(Ordering::Acquire) {
                COUNT.fetch_add(1, Ordering::Relaxed);
                look_after();
                smp::beat();
                smp::stop_if_ended();
                cpu::relax();
            }
            return;
        }
        let mut times = 0;
        for round in 0..60_u32 {
            smp::beat();
            set_growth(Growth::InBackground { patience: PATIENCE });
            // Somebody begins to look after it, and has come so far.
            let begun = COUNT.load(Ordering::Relaxed);
            assert!(comes(|| COUNT.load(Ordering::Relaxed) != begun), "the others stand still");
            (0..round * 8).for_each(|_| cpu::relax());
            set_growth(Growth::WhenAsked);
            let before = grown();
            let changed = (0..2000).any(|_| {
                cpu::relax();
                grown() != before
            });
            assert!(!changed, "round {round}: {before:?}, and then {:?}", grown());
            times += u32::from(release_idle() != 0);
        }
        OVER.store(true, Ordering::Release);
        assert!(times > 0, "it never grew: this test has no teeth");
    });
    give_pages(buffers);
    assert!(!is_low(), "so that it may grow again");
    books.assert_unchanged();
    Ran
}

/// A software interrupt of this test's own.
const LINE: u16 = 6;

/// What the handlers have taken, by CPU.
static TAKEN: [IrqSpinLock<Vec<Buffer>>; 4] =
    [const { IrqSpinLock::new(Class::OuterTest(7), Vec::new()) }; 4];
static COUNT: AtomicU32 = AtomicU32::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// Takes a page, if this CPU has room to note it.
fn take_one() {
    let slot = &TAKEN[cpu::id() as usize];
    slot.with(|taken| {
        if taken.len() < taken.capacity()
            && let Some(buffer) = one_page()
        {
            taken.push(buffer);
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Handlers on every CPU but one take pages, more than there are; that one makes the pool grow meanwhile. No page is given twice, and
/// none is lost.
#[ktest]
fn handlers_on_all_cpus_take_from_the_pool_while_it_grows_s77_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    if let Err(skipped) = another() {
        return skipped;
    }
    let takers = smp::up().filter(|&number| number != cpu::id()).count();
    let takers = u32::try_from(takers).expect("three at most");
    let each = (3 * pages).div_ceil(takers);
    for slot in &TAKEN {
        slot.with(|taken| *taken = Vec::with_capacity(each as usize));
    }
    let books = Books::now();
    COUNT.store(0, Ordering::Relaxed);
    OVER.store(false, Ordering::Relaxed);
    interrupts::register(LINE, &take_one).expect("a line of this test's own");
    on_each(|| interrupts::enable_here(LINE).expect("it has a handler"));
    let here = cpu::id();
    {
        let _growing = InBackground::begin(PATIENCE);
        smp::run_on_each(|number| {
            if number == here {
                let enough = comes(|| {
                    interrupts::send(LINE, Receivers::Others).expect("it has a handler");
                    look_after();
                    COUNT.load(Ordering::Relaxed) >= takers * each
                });
                OVER.store(true, Ordering::Release);
                assert!(enough, "{} pages were taken", COUNT.load(Ordering::Relaxed));
            } else {
                while !OVER.load(Ordering::Acquire) {
                    smp::beat();
                    smp::stop_if_ended();
                    cpu::relax();
                }
            }
        });
    }
    interrupts::unregister(LINE).expect("it was registered");
    let taken = TAKEN.each_ref().map(|slot| slot.with(core::mem::take));
    let mut all: Vec<Buffer> = taken.into_iter().flatten().collect();
    assert_eq!(all.len(), (takers * each) as usize);
    all.sort_by_key(|buffer| buffer.address);
    assert!(all.windows(2).all(|pair| pair[0].address != pair[1].address), "given twice");
    for buffer in &all {
        let physical = PhysAddr::new(buffer.dma.raw());
        assert_leads(buffer.address, physical);
        assert_eq!(kernel().zones().table().owner_of(physical.pfn()), FrameOwner::AtomicPool);
    }
    assert!(grown().1 + pages >= takers * each, "{:?}", grown());
    give_pages(all);
    let is_gone = comes(|| {
        let _pages = release_idle();
        grown() == (0, 0)
    });
    assert!(is_gone && !is_low(), "{:?}", grown());
    books.assert_unchanged();
    Ran
}
