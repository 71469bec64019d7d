//! What the algorithms need of a lock, and the order in which locks may be taken.
//!
//! `kerncore` knows neither interrupts nor CPUs, so it asks for locks by trait: on the machine they are spin
//! locks that save and mask interrupts, on the host they may be a mutex, or a step in a scheduler that tries
//! every interleaving. A closure, not a guard: a critical section cannot be left open, and it shows in the text.
//!
//! Every lock of the kernel belongs to a [`Class`]; the classes, in their order, are the written lock order. [`Held`]
//! keeps account of what one CPU holds and says what breaks the order. Locks of test builds ask it each time.

mod class;
mod gate;
mod held;
mod slot;

pub use class::Class;
pub use gate::{Entry, Gate};
pub use held::{Context, Held, Interrupts, Taken, Violation};
pub use slot::Slot;

use crate::addr::VirtAddr;
use crate::failure::Point;

/// One piece of state that only one CPU at a time may touch.
pub trait Lock<T>: Sync {
    /// Guards `value`, as a lock of `class`.
    fn new(class: Class, value: T) -> Self
    where
        Self: Sized;

    /// Runs `critical_section` with exclusive access. It may not sleep, and may take only locks of later classes.
    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R;

    /// As [`Lock::with`], but `None` at once if the lock is held: for reports of faults, one of which may have happened
    /// inside the critical section. Who does not wait may ask in any order.
    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R>;
}

/// As [`Lock`], of state that many CPUs may look at at once (S15).
pub trait SharedLock<T>: Lock<T> {
    /// Runs `section` while nobody changes the state. As in a critical section, it may not sleep, and may take only locks
    /// of later classes, not even this one again: somebody may wait for it by then.
    fn look<R>(&self, section: impl FnOnce(&T) -> R) -> R;

    /// As [`SharedLock::look`], but `None` at once if the state is being changed, or somebody waits to change it: for
    /// reports of faults.
    fn try_look<R>(&self, section: impl FnOnce(&T) -> R) -> Option<R>;
}

/// A family of locks, chosen once for a whole kernel, and with it what builds of tests ask and are told.
pub trait Locks {
    /// The lock of this family that guards a `T`.
    type Lock<T: Send>: Lock<T>;
    /// The lock of this family that guards a `T` which many may look at at once.
    type SharedLock<T: Send + Sync>: SharedLock<T>;
    /// The slot of this family for a reference to a `T`.
    type Slot<'t, T: Sync + 't>: Slot<'t, T>;

    /// Said at the beginning of each operation that may sleep, whether it will or not. A family that knows what its CPU
    /// holds ends the kernel if this is no place to sleep; others do nothing.
    #[inline(always)]
    fn might_sleep(_operation: &'static str) {}

    /// Said before memory is freed (S36), which `memory` names, by its first byte and how many. A family that knows what its CPU
    /// holds ends the kernel if one of these locks lies there; others do not even ask.
    #[inline(always)]
    fn memory_goes(_memory: impl FnOnce() -> Option<(VirtAddr, u32)>) {}

    /// Asked before anything is taken that may run out: whether it is to be refused, as if it had. Families of tests fail the
    /// nth who asks ([`crate::failure`]); for others this is a constant, and nothing is left of the question.
    #[inline(always)]
    fn fails(_point: Point) -> bool {
        false
    }
}
