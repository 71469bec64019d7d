//! The kernel's lock: a spin lock that masks interrupts while it is held.
//!
//! A handler that waits for a lock which the interrupted code holds would wait for ever. So the CPU's IRQs are masked
//! before the lock is taken and restored after it was given back. FIQs are not used and may not take locks.

use core::fmt;

use kerncore::lock::{Lock, Locks};
use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::irq;

/// Guards a `T` on all CPUs and in all contexts but FIQ. Not reentrant.
pub struct IrqSpinLock<T>(SpinMutex<T>);

impl<T> IrqSpinLock<T> {
    /// Guards `value`.
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Runs `critical_section` with exclusive access and IRQs masked. It may not sleep and may not take the same lock
    /// again, on pain of spinning for ever.
    #[inline(always)]
    pub fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        let saved = irq::save_and_mask();
        let mut guard = match self.0.try_lock() {
            Some(guard) => guard,
            None => self.wait(),
        };
        let result = critical_section(&mut guard);
        // The lock is given back before the mask is.
        drop(guard);
        saved.restore();
        result
    }

    /// Waits until nobody has it. Not inlined: whoever finds it free should not carry the loop about.
    #[cold]
    #[inline(never)]
    fn wait(&self) -> SpinMutexGuard<'_, T> {
        self.0.lock()
    }

    /// As [`IrqSpinLock::with`], but `None` at once if it is held, be it by this CPU.
    #[inline]
    pub fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        irq::masked(|| self.0.try_lock().map(|mut value| critical_section(&mut value)))
    }

    /// Exclusive access without locking, by right of `&mut`.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

impl<T: Send> Lock<T> for IrqSpinLock<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    #[inline(always)]
    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        self.with(critical_section)
    }

    #[inline]
    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.try_with(critical_section)
    }
}

/// Whether it is held, and not what it guards: to look would be to take it.
impl<T> fmt::Debug for IrqSpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqSpinLock").field("held", &self.0.is_locked()).finish_non_exhaustive()
    }
}

/// The family of [`IrqSpinLock`].
#[derive(Clone, Copy, Debug)]
pub struct IrqLocks;

impl Locks for IrqLocks {
    type Lock<T: Send> = IrqSpinLock<T>;
}
