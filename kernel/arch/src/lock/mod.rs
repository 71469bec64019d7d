//! The kernel's lock: a spin lock that masks interrupts while it is held.
//!
//! A handler that waits for a lock which the interrupted code holds would wait for ever. So the CPU's IRQs are masked
//! before the lock is taken and restored after it was given back. FIQs are not used and may not take locks.
//!
//! In builds with the feature `lock-order`, which are those of tests, every step is compared with the written order
//! ([`kerncore::lock::Class`]), and a wrong one ends the kernel with the names of all concerned. In other builds a lock
//! does not even know its class.

use core::fmt;

use kerncore::addr::VirtAddr;
use kerncore::failure::Point;
use kerncore::lock::{Class, Lock, Locks};
use spin::mutex::SpinMutexGuard;

use crate::{cpu, failure, irq, smp};

mod shared;
mod slot;
#[cfg(feature = "lock-order")]
#[path = "watched.rs"]
mod watch;
#[cfg(not(feature = "lock-order"))]
#[path = "unwatched.rs"]
mod watch;

pub use shared::IrqSharedLock;
pub use slot::RefSlot;
use watch::{Caller, Watch};
pub use watch::{memory_goes, might_sleep};

#[expect(clippy::disallowed_types, reason = "this is what it is wrapped for")]
type Inner<T> = spin::mutex::SpinMutex<T>;

/// Guards a `T` on all CPUs and in all contexts but FIQ. Not reentrant.
pub struct IrqSpinLock<T> {
    value: Inner<T>,
    watch: Watch,
}

impl<T> IrqSpinLock<T> {
    /// Guards `value`, as a lock of `class`.
    pub const fn new(class: Class, value: T) -> Self {
        Self { value: Inner::new(value), watch: Watch::new(class) }
    }

    /// Runs `critical_section` with exclusive access and IRQs masked. It may not sleep, and may take only locks of later
    /// classes, on pain of spinning for ever.
    #[inline(always)]
    #[cfg_attr(feature = "lock-order", track_caller)]
    pub fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        let saved = irq::save_and_mask();
        let caller = Caller::of_the_lock();
        self.watch.before_waiting(caller);
        let mut guard = match self.value.try_lock() {
            Some(guard) => guard,
            None => self.wait(),
        };
        let result = critical_section(&mut guard);
        // The lock is given back before the mask is.
        drop(guard);
        self.watch.given_back(caller);
        saved.restore();
        result
    }

    /// Waits until nobody has it. Not inlined: whoever finds it free should not carry the loop about.
    #[cold]
    #[inline(never)]
    fn wait(&self) -> SpinMutexGuard<'_, T> {
        loop {
            // Only looked at meanwhile: to try would take its cache line away from whoever holds it.
            while self.value.is_locked() {
                wait_a_little();
            }
            if let Some(guard) = self.value.try_lock() {
                return guard;
            }
        }
    }

    /// As [`IrqSpinLock::with`], but `None` at once if it is held, be it by this CPU. In any order.
    #[inline]
    #[cfg_attr(feature = "lock-order", track_caller)]
    pub fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        let caller = Caller::of_the_lock();
        irq::masked(|| {
            self.value.try_lock().map(|mut value| {
                self.watch.without_waiting(caller);
                let result = critical_section(&mut value);
                drop(value);
                self.watch.given_back(caller);
                result
            })
        })
    }

    /// Exclusive access without locking, by right of `&mut`.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// One turn of waiting for a lock. Interrupts are masked, so the end of the kernel is not heard otherwise.
fn wait_a_little() {
    smp::stop_if_ended();
    cpu::relax();
}

impl<T: Send> Lock<T> for IrqSpinLock<T> {
    fn new(class: Class, value: T) -> Self {
        Self::new(class, value)
    }

    #[inline(always)]
    #[cfg_attr(feature = "lock-order", track_caller)]
    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        self.with(critical_section)
    }

    #[inline]
    #[cfg_attr(feature = "lock-order", track_caller)]
    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.try_with(critical_section)
    }
}

/// Whether it is held, and not what it guards: to look would be to take it.
impl<T> fmt::Debug for IrqSpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqSpinLock").field("held", &self.value.is_locked()).finish_non_exhaustive()
    }
}

/// The family of [`IrqSpinLock`] and [`IrqSharedLock`].
#[derive(Clone, Copy, Debug)]
pub struct IrqLocks;

impl Locks for IrqLocks {
    type Lock<T: Send> = IrqSpinLock<T>;
    type SharedLock<T: Send + Sync> = IrqSharedLock<T>;
    type Slot<'t, T: Sync + 't> = RefSlot<'t, T>;

    #[inline(always)]
    fn might_sleep(operation: &'static str) {
        might_sleep(operation);
    }

    #[inline(always)]
    fn memory_goes(memory: impl FnOnce() -> Option<(VirtAddr, u32)>) {
        memory_goes(memory);
    }

    #[inline(always)]
    fn fails(point: Point) -> bool {
        failure::fails(point)
    }
}
