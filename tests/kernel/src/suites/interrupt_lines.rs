//! Lines that come often, on several CPUs, and while their handlers change (S115, S116).

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use arch::lock::IrqSpinLock;
use arch::{cpu, irq, smp};
use board::vexpress_a9::{PRIVATE_TIMER, PRIVATE_TIMER_INTERRUPT, TIMER_23, TIMER_23_INTERRUPT};
use drivers::gic::Receivers;
use drivers::interrupts::{self, Handler};
use drivers::private_timer::{PrivateTimer, Repeat};
use drivers::sp804::{DualTimer, Which};
use image::capture::capture_log;
use kerncore::lock::Class;
use ktest::{Completion, ktest};
use mm::io_mem::IoMem;

use super::interrupts::in_handler;
use super::smp::another;

/// A software interrupt, and a shared line that no device is wired to, of these tests.
const SOFTWARE: u16 = 6;
const UNUSED: u16 = 94;

fn register(line: u16, handler: &'static dyn Handler) {
    interrupts::register(line, handler).expect("a line without a handler");
}

fn unregister(line: u16) {
    interrupts::unregister(line).expect("registered before");
}

/// Waits in any context but a handler's, on any CPU.
#[track_caller]
fn await_that(holds: impl Fn() -> bool) {
    let mut left = smp::PATIENCE;
    while !holds() {
        smp::stop_if_ended();
        smp::beat();
        left = left.checked_sub(1).expect("it does not come");
        cpu::relax();
    }
}

fn is_enabled(line: u16) -> bool {
    let enabled = interrupts::with_distributor(|gic| gic.is_enabled(line));
    enabled.expect("started").expect("there is such a line")
}

/// A handler that raises its own line again is called again, and not within itself.
#[ktest]
fn what_is_raised_in_its_own_handler_comes_again_s115() {
    static LINE: AtomicU32 = AtomicU32::new(0);
    static CALLS: AtomicU32 = AtomicU32::new(0);
    static INSIDE: AtomicBool = AtomicBool::new(false);
    fn raise() {
        let raised = match LINE.load(SeqCst) {
            0 => interrupts::send(SOFTWARE, Receivers::Own),
            _ => interrupts::with_distributor(|gic| gic.raise(UNUSED)).map(drop),
        };
        raised.expect("it is there");
    }
    fn handler() {
        assert!(!INSIDE.swap(true, SeqCst), "called within itself");
        if CALLS.fetch_add(1, SeqCst) < 99 {
            raise();
        }
        INSIDE.store(false, SeqCst);
    }
    for (index, line) in (0..).zip([SOFTWARE, UNUSED]) {
        LINE.store(index, SeqCst);
        CALLS.store(0, SeqCst);
        register(line, &handler);
        raise();
        cpu::wait_until(|| CALLS.load(SeqCst) == 100);
        unregister(line);
        assert_eq!(CALLS.load(SeqCst), 100);
    }
}

/// Whoever raises it, and however many at once: what each wrote before is seen.
#[ktest]
fn a_software_interrupt_of_several_senders_is_lost_for_none_s116() {
    const ROUNDS: u32 = 100;
    static SENT: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
    static SEEN: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
    fn look() {
        for (sent, seen) in SENT.iter().zip(&SEEN) {
            seen.store(sent.load(SeqCst), SeqCst);
        }
    }
    SENT.iter().chain(&SEEN).for_each(|count| count.store(0, SeqCst));
    register(SOFTWARE, &look);
    smp::run_on_each(|cpu| {
        let (sent, seen) = (&SENT[cpu as usize], &SEEN[cpu as usize]);
        for round in 1..=ROUNDS {
            sent.store(round, SeqCst);
            interrupts::send(SOFTWARE, Receivers::Mask(1)).expect("it is there");
            await_that(|| seen.load(SeqCst) == round);
        }
    });
    unregister(SOFTWARE);
}

/// Nothing waits: nothing is served.
#[ktest]
fn an_interrupt_that_is_none_is_served_as_none() {
    let ((), log) = capture_log(|| irq::masked(interrupts::serve));
    assert_eq!(log.text(), "");
    in_handler(|| {});
}

/// A line that another CPU has just taken is registered again: it is not switched off in the belief that it has no handler.
#[ktest]
fn a_line_that_is_registered_again_stays_on_s116() -> Completion {
    fn nothing() {}
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let ((), log) = capture_log(|| {
        for round in 0..300 {
            register(UNUSED, &nothing);
            let raised = interrupts::with_distributor(|gic| {
                gic.enable(UNUSED, other).and_then(|()| gic.raise(UNUSED))
            });
            assert_eq!(raised, Ok(Ok(())));
            (0..round % 50).for_each(|_| cpu::relax());
            unregister(UNUSED);
            register(UNUSED, &nothing);
            // What the other has taken, it has finished.
            smp::run_on(other, || ()).expect("it is up");
            assert!(is_enabled(UNUSED), "round {round}");
            unregister(UNUSED);
        }
    });
    assert_eq!(log.text(), "");
    Completion::Ran
}

/// A line that each CPU has of its own, unregistered on one, calls nobody on another: not the next handler either.
#[ktest]
fn an_own_line_left_on_by_another_cpu_is_switched_off_there_s116() -> Completion {
    const LINE: u16 = PRIVATE_TIMER_INTERRUPT.id();
    static CALLS: AtomicU32 = AtomicU32::new(0);
    static TIMER: IrqSpinLock<Option<PrivateTimer>> = IrqSpinLock::new(Class::OuterTest(0), None);
    fn count() {
        with_timer(PrivateTimer::acknowledge);
        CALLS.fetch_add(1, SeqCst);
    }
    // Each CPU's own, through one mapping.
    fn with_timer<R>(act: impl FnOnce(&mut PrivateTimer) -> R) -> R {
        TIMER.with(|timer| act(timer.as_mut().expect("put there below")))
    }
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let timer = PrivateTimer::new(IoMem::map(PRIVATE_TIMER.base).expect("addresses"));
    TIMER.with(|slot| *slot = Some(timer));
    let fire = || {
        with_timer(|timer| timer.start(100, Repeat::Once));
        await_that(|| CALLS.load(SeqCst) == 1 || !is_enabled(LINE));
        with_timer(PrivateTimer::stop);
        is_enabled(LINE)
    };
    let enable_there = || {
        smp::run_on(other, || interrupts::enable_here(LINE))
            .expect("it is up")
            .expect("registered");
    };
    let fired = || {
        CALLS.store(0, SeqCst);
        let is_on = smp::run_on(other, fire).expect("it is up");
        (is_on, CALLS.load(SeqCst))
    };
    let ((), log) = capture_log(|| {
        register(LINE, &count);
        enable_there();
        assert_eq!(fired(), (true, 1));
        unregister(LINE);
        assert_eq!(fired(), (false, 0));
        register(LINE, &count);
        enable_there();
        unregister(LINE);
        register(LINE, &count);
        assert_eq!(fired(), (false, 0), "the next handler is called where nobody let it through");
        enable_there();
        assert_eq!(fired(), (true, 1));
        unregister(LINE);
        assert_eq!(fired(), (false, 0));
    });
    drop(TIMER.with(Option::take));
    assert_eq!(log.text(), "");
    Completion::Ran
}

/// Two timers that come as often as they can, be it every nought ticks: they come until they are stopped, and what they interrupt
/// goes on then. (Before that it need not: to serve them takes longer than a tick.)
#[ktest]
fn timers_that_come_all_the_time_can_be_stopped_s115() {
    static TIMERS: IrqSpinLock<Option<DualTimer>> = IrqSpinLock::new(Class::OuterTest(0), None);
    static TAKEN: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    const ENOUGH: u32 = 10;
    fn with_timers<R>(act: impl FnOnce(&mut DualTimer) -> R) -> R {
        TIMERS.with(|timers| act(timers.as_mut().expect("put there below")))
    }
    fn tick() {
        with_timers(|timers| {
            for (which, taken) in [Which::First, Which::Second].into_iter().zip(&TAKEN) {
                let count = taken.fetch_add(u32::from(timers.acknowledge(which)), SeqCst);
                if count >= ENOUGH {
                    timers.stop(which);
                }
            }
        });
    }
    let timers = DualTimer::new(IoMem::map(TIMER_23.base).expect("addresses")).expect("an SP804");
    TIMERS.with(|slot| *slot = Some(timers));
    register(TIMER_23_INTERRUPT.id(), &tick);
    for ticks in [0, 1] {
        for taken in &TAKEN {
            taken.store(0, SeqCst);
        }
        with_timers(|timers| {
            timers.start(Which::First, ticks, Repeat::Periodic);
            timers.start(Which::Second, ticks, Repeat::Periodic);
        });
        await_that(|| TAKEN.iter().all(|taken| taken.load(SeqCst) >= ENOUGH));
        with_timers(|timers| {
            timers.stop(Which::First);
            timers.stop(Which::Second);
        });
    }
    unregister(TIMER_23_INTERRUPT.id());
    drop(TIMERS.with(Option::take));
}

#[ktest(fatal = "an interrupt is unregistered with interrupts masked, or in a handler")]
fn to_unregister_in_a_handler_is_fatal_s115() {
    in_handler(|| unregister(SOFTWARE));
}
