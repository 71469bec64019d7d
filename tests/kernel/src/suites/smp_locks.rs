//! Locks while several CPUs want them: one goes in at a time, or many who look, and each keeps an account of its own.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use arch::cpu;
use arch::lock::{IrqSharedLock, IrqSpinLock};
use arch::smp;
use kerncore::addr::PAGE_SIZE;
use kerncore::lock::Class;
use ktest::{Completion, ktest};
use mm::kernel;
use mm::vm_area::VmArea;

use super::smp::{Barrier, another};

/// How often each CPU goes in.
const ROUNDS: u32 = 500;

/// What one CPU holds is no obstacle to another: against the order of one, they wait for none.
#[ktest]
fn each_cpu_has_an_account_of_its_own_of_what_it_holds() -> Completion {
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let outer = IrqSpinLock::new(Class::OuterTest(1), 0);
    let inner = IrqSpinLock::new(Class::OuterTest(2), 0);
    inner.with(|here| {
        smp::run_on(other, || outer.with(|there| *there += 1)).expect("it is up");
        *here += 1;
    });
    outer.with(|_| inner.with(|_| ()));
    assert_eq!((outer.with(|count| *count), inner.with(|count| *count)), (1, 1));
    Completion::Ran
}

/// A word that is odd while somebody is in, and that is not changed in one step.
#[ktest]
fn one_cpu_at_a_time_is_in_a_critical_section() {
    let lock = IrqSpinLock::new(Class::Test(0), 0_u32);
    let barrier = Barrier::new();
    smp::run_on_each(|_| {
        barrier.wait();
        for _ in 0..ROUNDS {
            lock.with(|word| {
                assert!(word.is_multiple_of(2), "somebody else is in");
                *core::hint::black_box(&mut *word) += 1;
                cpu::relax();
                *core::hint::black_box(&mut *word) += 1;
            });
        }
    });
    #[expect(clippy::cast_possible_truncation, reason = "four at most")]
    let cpus = smp::up().count() as u32;
    assert_eq!(lock.with(|word| *word), cpus * ROUNDS * 2);
}

/// S15: who looks sees no change half done, and every change is made.
#[ktest]
fn many_cpus_look_and_one_at_a_time_changes_s15() {
    let lock = IrqSharedLock::new(Class::Test(0), [0_u32; 2]);
    let barrier = Barrier::new();
    smp::run_on_each(|number| {
        barrier.wait();
        for round in 0..ROUNDS {
            if (round + number) % 4 == 0 {
                lock.with(|words| {
                    *core::hint::black_box(&mut words[0]) += 1;
                    cpu::relax();
                    *core::hint::black_box(&mut words[1]) += 1;
                });
            } else {
                lock.look(|words| assert_eq!(words[0], words[1], "in the middle of a change"));
            }
        }
    });
    #[expect(clippy::cast_possible_truncation, reason = "four at most")]
    let cpus = smp::up().count() as u32;
    assert_eq!(lock.look(|words| *words), [cpus * ROUNDS / 4; 2]);
}

/// S15: a lookup on another CPU does not wait for one here.
#[ktest]
fn areas_are_looked_up_on_two_cpus_at_once_s15() -> Completion {
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let area = VmArea::new(PAGE_SIZE).expect("memory");
    let looked = kernel().with_area(area.address(), |record| {
        let find = || kernel().find(area.address()).map(|found| found.pages);
        let found = smp::run_on(other, find).expect("it is up");
        (found, record.vm.addr())
    });
    assert_eq!(looked, Some((Some(area.pages()), area.address())));
    Completion::Ran
}

/// S15: a change waits until nobody looks.
#[ktest]
fn no_area_is_retired_while_another_cpu_looks_s15() -> Completion {
    static STAGE: AtomicU32 = AtomicU32::new(0);
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    STAGE.store(0, SeqCst);
    let here = cpu::id();
    let area = VmArea::new(PAGE_SIZE).expect("memory");
    let base = area.address();
    let area = IrqSpinLock::new(Class::OuterTest(0), Some(area));
    smp::run_on_each(|number| {
        if number == here {
            let looked = kernel().with_area(base, |record| {
                STAGE.store(1, SeqCst);
                for _ in 0..100_000 {
                    assert_eq!(STAGE.load(SeqCst), 1, "retired while somebody looked");
                    cpu::relax();
                }
                record.vm.addr()
            });
            assert_eq!(looked, Some(base));
        } else if number == other {
            let area = area.with(Option::take).expect("put there above");
            let mut left = smp::PATIENCE;
            while STAGE.load(SeqCst) == 0 {
                smp::stop_if_ended();
                left = left.checked_sub(1).expect("the lookup does not begin");
                cpu::relax();
            }
            drop(area);
            STAGE.store(2, SeqCst);
        }
    });
    assert_eq!(STAGE.load(SeqCst), 2);
    assert_eq!(kernel().find(base), None);
    Completion::Ran
}
