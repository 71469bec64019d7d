//! What the algorithms need of a lock.
//!
//! `kerncore` knows neither interrupts nor CPUs, so it asks for locks by trait: on the machine they are spin
//! locks that save and mask interrupts, on the host they may be a mutex, or a step in a scheduler that tries
//! every interleaving. A closure, not a guard: a critical section cannot be left open, and it shows in the text.

/// One piece of state that only one CPU at a time may touch.
pub trait Lock<T>: Sync {
    /// Guards `value`.
    fn new(value: T) -> Self
    where
        Self: Sized;

    /// Runs `critical_section` with exclusive access. It may not sleep and may not take the same lock again.
    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R;

    /// As [`Lock::with`], but `None` at once if the lock is held: for reports of faults, one of which may have happened
    /// inside the critical section.
    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R>;
}

/// A family of locks, chosen once for a whole kernel.
pub trait Locks {
    /// The lock of this family that guards a `T`.
    type Lock<T: Send>: Lock<T>;
}
