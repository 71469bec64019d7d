//! The interrupt mask, and the lock that saves and restores it.

extern crate alloc;

use arch::irq;
use arch::lock::{IrqSharedLock, IrqSpinLock};
use kerncore::lock::Class;
use ktest::ktest;

/// CPSR without the flags, which every comparison changes.
fn control() -> u32 {
    let cpsr: u32;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mrs {}, cpsr", out(reg) cpsr, options(nostack, preserves_flags)) };
    cpsr & 0x1ff
}

/// A lock of these tests.
fn guarding<T>(value: T) -> IrqSpinLock<T> {
    IrqSpinLock::new(Class::OuterTest(0), value)
}

/// Runs `section` with IRQs unmasked, and puts the mask back.
fn unmasked(section: impl FnOnce()) {
    let saved = irq::save_and_mask();
    // SAFETY: no source of interrupts is enabled, and no lock is held.
    unsafe { irq::unmask() };
    assert!(!irq::are_masked());
    section();
    saved.restore();
}

#[ktest]
fn a_masked_section_ends_unmasked_if_it_began_so() {
    unmasked(|| {
        let before = control();
        let value = irq::masked(|| {
            assert!(irq::are_masked());
            assert_eq!(control(), before | 0x80, "I alone changes");
            17
        });
        assert_eq!(value, 17);
        assert_eq!(control(), before);
    });
}

#[ktest]
fn a_masked_section_ends_masked_if_it_began_so() {
    irq::masked(|| {
        let before = control();
        irq::masked(|| assert!(irq::are_masked()));
        assert!(irq::are_masked(), "the inner section unmasked the outer one's interrupts");
        assert_eq!(control(), before);
    });
}

#[ktest]
fn sections_nest_and_only_the_outermost_unmasks() {
    fn nest(depth: u32) {
        irq::masked(|| {
            assert!(irq::are_masked());
            if depth > 0 {
                nest(depth - 1);
            }
            assert!(irq::are_masked(), "at depth {depth}");
        });
    }
    unmasked(|| {
        nest(8);
        assert!(!irq::are_masked());
    });
}

#[ktest]
fn mask_and_unmask_do_what_they_say_twice_over() {
    let saved = irq::save_and_mask();
    for _ in 0..2 {
        irq::mask();
        assert!(irq::are_masked());
    }
    for _ in 0..2 {
        // SAFETY: no source of interrupts is enabled, and no lock is held.
        unsafe { irq::unmask() };
        assert!(!irq::are_masked());
    }
    let inner = irq::save_and_mask();
    assert!(irq::are_masked());
    inner.restore();
    assert!(!irq::are_masked());
    saved.restore();
}

#[ktest]
fn a_lock_masks_while_it_is_held_and_restores_what_was() {
    let lock = guarding(1);
    unmasked(|| {
        lock.with(|value| {
            assert!(irq::are_masked());
            *value += 1;
        });
        assert!(!irq::are_masked(), "the lock left interrupts masked");
    });
    irq::masked(|| {
        lock.with(|value| *value += 1);
        assert!(irq::are_masked(), "the lock unmasked its caller's interrupts");
    });
    assert_eq!(lock.with(|value| *value), 3);
}

#[ktest]
fn two_locks_nest_and_the_inner_one_unmasks_nothing() {
    let (outer, inner) = (guarding(0), IrqSpinLock::new(Class::OuterTest(1), 0));
    unmasked(|| {
        outer.with(|count| {
            inner.with(|other| *other += 1);
            assert!(irq::are_masked(), "the inner lock unmasked under the outer one");
            *count += 1;
        });
        assert!(!irq::are_masked());
    });
    assert_eq!((outer.with(|count| *count), inner.with(|count| *count)), (1, 1));
}

#[ktest]
fn a_lock_is_free_again_after_every_section() {
    let mut lock = guarding(0_u32);
    for round in 0..1000 {
        lock.with(|value| *value += round);
    }
    let shown = |lock: &IrqSpinLock<u32>, word: &str| alloc::format!("{lock:?}").contains(word);
    assert!(shown(&lock, "held: false"));
    lock.with(|_| ());
    *lock.get_mut() += 1;
    assert_eq!(*lock.get_mut(), 499_501);
    let held = guarding(0_u32);
    held.with(|_| assert!(shown(&held, "held: true"), "what is held does not show"));
}

#[ktest]
fn a_lock_hands_on_what_its_section_returns() {
    let lock = guarding([1, 2, 3]);
    let sum: u32 = lock.with(|values| values.iter().sum());
    let failed: Result<(), u32> = lock.with(|_| Err(sum));
    assert_eq!(failed, Err(6));
}

#[ktest]
fn a_held_lock_turns_away_whoever_cannot_wait() {
    let lock = guarding(7_u32);
    unmasked(|| {
        lock.with(|_| {
            assert_eq!(lock.try_with(|value| *value), None);
            assert!(irq::are_masked(), "to be turned away unmasked under the lock");
        });
        assert_eq!(lock.try_with(|value| (irq::are_masked(), *value)), Some((true, 7)));
        assert!(!irq::are_masked());
        assert_eq!(lock.with(|value| *value), 7, "it was given back");
    });
}

#[ktest]
fn many_look_through_a_shared_lock_and_one_changes_s15() {
    let lock = IrqSharedLock::new(Class::OuterTest(0), [1, 2]);
    unmasked(|| {
        let sum = lock.look(|values: &[u32; 2]| {
            assert!(irq::are_masked());
            assert_eq!(lock.try_look(|others| *others), Some(*values), "many look");
            assert_eq!(lock.try_with(|_| ()), None, "nobody changes meanwhile");
            assert!(irq::are_masked(), "to look once more unmasked under the lock");
            values.iter().sum::<u32>()
        });
        assert!(!irq::are_masked(), "the lock left interrupts masked");
        lock.with(|values| {
            assert!(irq::are_masked());
            assert_eq!(lock.try_look(|_| ()), None, "nobody looks meanwhile");
            assert_eq!(lock.try_with(|_| ()), None, "nobody else changes meanwhile");
            assert!(irq::are_masked(), "to be turned away unmasked under the lock");
            values[1] = sum;
        });
        assert!(!irq::are_masked(), "the lock left interrupts masked");
        assert_eq!(lock.try_with(|values| core::mem::replace(&mut values[0], 7)), Some(1));
        assert_eq!(lock.try_look(|values| (irq::are_masked(), *values)), Some((true, [7, 3])));
        assert!(!irq::are_masked());
        assert_eq!(lock.look(|values| *values), [7, 3]);
    });
    let shown =
        |lock: &IrqSharedLock<[u32; 2]>, word: &str| alloc::format!("{lock:?}").contains(word);
    assert!(shown(&lock, "used: false"));
    lock.look(|_| assert!(shown(&lock, "used: true"), "who looks does not show"));
    lock.with(|_| assert!(shown(&lock, "used: true"), "who changes does not show"));
}
