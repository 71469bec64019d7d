//! Tests that die on one of several CPUs, or on all, while the others work.
//!
//! The host boots each with four CPUs. With one they die all the same.

use core::sync::atomic::{AtomicU32, Ordering};

use arch::lock::{IrqSharedLock, IrqSpinLock};
use arch::smp;
use drivers::gic::Receivers;
use drivers::interrupts;
use kerncore::lock::Class;
use ktest::ktest;

/// Runs `die` on the last CPU as soon as all others have done `work` once, which they do over and over.
fn die_last(work: impl Fn(u32) + Sync, die: impl Fn() + Sync) {
    let busy = AtomicU32::new(0);
    let last = smp::up().last().unwrap_or(0);
    smp::run_on_each(|cpu| {
        if cpu == last {
            while busy.load(Ordering::Acquire) < last {
                arch::cpu::relax();
            }
            die();
            return;
        }
        work(cpu);
        busy.fetch_add(1, Ordering::Release);
        loop {
            work(cpu);
        }
    });
}

#[ktest]
fn one_panics_and_the_others_print() {
    die_last(|cpu| log::info!("CPU {cpu} is at work"), || panic!("seventeen of a kind"));
}

#[ktest]
fn one_panics_under_a_lock_that_the_others_want() {
    let lock = IrqSpinLock::new(Class::Test(0), 0_u32);
    let take = |_| lock.with(|count| *count = count.wrapping_add(1));
    die_last(take, || lock.with(|_| panic!("seventeen of a kind")));
}

/// The end is heard by who counts, although the first bell cannot be rung: another CPU has the controller just then.
#[ktest]
fn one_panics_while_another_has_the_interrupt_controller() {
    let (count, here) = (AtomicU32::new(0), AtomicU32::new(0));
    let last = smp::up().last().unwrap_or(0);
    let arrive = || here.fetch_add(1, Ordering::AcqRel);
    let await_arrivals = |number| {
        while here.load(Ordering::Acquire) < number {
            arch::cpu::relax();
        }
    };
    smp::run_on_each(|cpu| {
        if cpu == 0 {
            // The others have taken the interrupts that brought them here, for which they need the controller.
            await_arrivals(last);
            let held = interrupts::with_distributor(|_| {
                arrive();
                // Longer than the last takes to begin the end, and shorter than it then waits.
                (0..1 << 18).for_each(|_| arch::cpu::relax());
            });
            held.expect("it was started");
        } else {
            arrive();
        }
        if cpu == last {
            await_arrivals(last + 1);
            panic!("seventeen of a kind");
        }
        loop {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
}

#[ktest]
fn one_panics_under_a_shared_lock_that_the_others_want() {
    let lock = IrqSharedLock::new(Class::Test(0), 0_u32);
    // Of those who wait, some only look.
    let take = |cpu| {
        if cpu == 1 {
            core::hint::black_box(lock.look(|count| *count));
        } else {
            lock.with(|count| *count = count.wrapping_add(1));
        }
    };
    die_last(take, || lock.with(|_| panic!("seventeen of a kind")));
}

#[ktest]
fn one_faults_and_the_others_count() {
    let count = AtomicU32::new(0);
    let work = |_| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    // SAFETY: none: this is the mistake that must not go unnoticed.
    die_last(work, || unsafe { core::arch::asm!("udf #1", options(nostack)) });
}

/// Has `handler` called on the last CPU while the others count.
fn die_in(handler: &'static dyn interrupts::Handler) {
    const SOFTWARE: u16 = 7;
    let count = AtomicU32::new(0);
    let work = |_| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    die_last(work, || {
        interrupts::register(SOFTWARE, handler).expect("a line without a handler");
        interrupts::send(SOFTWARE, Receivers::Own).expect("a software interrupt");
        loop {
            arch::cpu::relax();
        }
    });
}

#[ktest]
fn one_panics_in_a_handler_and_the_others_count() {
    die_in(&|| panic!("seventeen of a kind"));
}

#[ktest]
fn one_faults_in_a_handler_and_the_others_count() {
    // SAFETY: none: this is the mistake that must not go unnoticed.
    die_in(&|| unsafe { core::arch::asm!("udf #1", options(nostack)) });
}

#[ktest]
fn all_panic_at_once() {
    let (here, all) = (AtomicU32::new(0), smp::up().count());
    smp::run_on_each(|_| {
        here.fetch_add(1, Ordering::AcqRel);
        while (here.load(Ordering::Acquire) as usize) < all {
            arch::cpu::relax();
        }
        panic!("seventeen of a kind");
    });
}
