//! As [`IrqSpinLock`](super::IrqSpinLock), of state that many CPUs may look at at once (S15).

use core::cell::UnsafeCell;
use core::fmt;

use kerncore::lock::{Class, Entry, Gate, Lock, SharedLock};

use super::wait_a_little;
use super::watch::{Caller, Watch};
use crate::irq;

/// Guards a `T` on all CPUs and in all contexts but FIQ: many look at it, or one changes it. Not reentrant.
///
/// The gate begins a line of the cache, which is where whoever comes in looks first; and an address so aligned is an
/// instruction less to make.
#[repr(C, align(32))]
pub struct IrqSharedLock<T> {
    gate: Gate,
    watch: Watch,
    value: UnsafeCell<T>,
}

// SAFETY: who goes through the gate to look has a shared reference, perhaps on another CPU and beside others (`T: Sync`); who
// goes through to change something has the only one, and may move what is inside to another CPU (`T: Send`).
unsafe impl<T: Send + Sync> Sync for IrqSharedLock<T> {}

impl<T> IrqSharedLock<T> {
    /// Guards `value`, as a lock of `class`.
    pub const fn new(class: Class, value: T) -> Self {
        Self { gate: Gate::new(), watch: Watch::new(class), value: UnsafeCell::new(value) }
    }

    /// Runs `critical_section` with exclusive access and IRQs masked; otherwise as
    /// [`IrqSpinLock::with`](super::IrqSpinLock::with).
    #[inline(always)]
    #[cfg_attr(feature = "lock-order", track_caller)]
    pub fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        let saved = irq::save_and_mask();
        let caller = Caller::of_the_lock();
        self.watch.before_waiting(caller);
        if self.gate.change() == Entry::Busy {
            self.wait_to_change();
        }
        let result = self.change(critical_section);
        self.watch.given_back(caller);
        saved.restore();
        result
    }

    /// As [`IrqSharedLock::with`], but `None` at once if somebody is in. In any order.
    #[inline]
    #[cfg_attr(feature = "lock-order", track_caller)]
    pub fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        let caller = Caller::of_the_lock();
        irq::masked(|| {
            if self.gate.change() == Entry::Busy {
                return None;
            }
            self.watch.without_waiting(caller);
            let result = self.change(critical_section);
            self.watch.given_back(caller);
            Some(result)
        })
    }

    /// Runs `section` while nobody changes the value, with IRQs masked. It may not sleep, and may take only locks of later
    /// classes, this one not even to look: somebody may wait for it by then.
    #[inline(always)]
    #[cfg_attr(feature = "lock-order", track_caller)]
    pub fn look<R>(&self, section: impl FnOnce(&T) -> R) -> R {
        let saved = irq::save_and_mask();
        let caller = Caller::of_the_lock();
        self.watch.before_waiting(caller);
        if self.gate.look() == Entry::Busy {
            self.wait_to_look();
        }
        let result = self.look_at(section);
        self.watch.given_back(caller);
        saved.restore();
        result
    }

    /// As [`IrqSharedLock::look`], but `None` at once if the value is being changed, or somebody waits to change it. In any
    /// order.
    #[inline]
    #[cfg_attr(feature = "lock-order", track_caller)]
    pub fn try_look<R>(&self, section: impl FnOnce(&T) -> R) -> Option<R> {
        let caller = Caller::of_the_lock();
        irq::masked(|| {
            if self.gate.look() == Entry::Busy {
                return None;
            }
            self.watch.without_waiting(caller);
            let result = self.look_at(section);
            self.watch.given_back(caller);
            Some(result)
        })
    }

    /// Of who is in, alone: runs `section` and goes out.
    #[inline(always)]
    fn change<R>(&self, section: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the gate let the caller in to change something, so there is no other reference until he goes out, and this
        // one ends before.
        let result = section(unsafe { &mut *self.value.get() });
        self.gate.changed();
        result
    }

    /// Of who is in, to look: runs `section` and goes out.
    #[inline(always)]
    fn look_at<R>(&self, section: impl FnOnce(&T) -> R) -> R {
        // SAFETY: the gate let the caller in to look, so there is no exclusive reference until he goes out, and this one ends
        // before.
        let result = section(unsafe { &*self.value.get() });
        self.gate.looked();
        result
    }

    #[cold]
    #[inline(never)]
    fn wait_to_change(&self) {
        while self.gate.change_before_others() == Entry::Busy {
            wait_a_little();
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_to_look(&self) {
        while self.gate.look() == Entry::Busy {
            wait_a_little();
        }
    }
}

impl<T: Send + Sync> Lock<T> for IrqSharedLock<T> {
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

impl<T: Send + Sync> SharedLock<T> for IrqSharedLock<T> {
    #[inline(always)]
    #[cfg_attr(feature = "lock-order", track_caller)]
    fn look<R>(&self, section: impl FnOnce(&T) -> R) -> R {
        self.look(section)
    }

    #[inline]
    #[cfg_attr(feature = "lock-order", track_caller)]
    fn try_look<R>(&self, section: impl FnOnce(&T) -> R) -> Option<R> {
        self.try_look(section)
    }
}

/// Whether somebody is in, and not what it guards: to look would be to go in.
impl<T> fmt::Debug for IrqSharedLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqSharedLock").field("used", &self.gate.is_used()).finish_non_exhaustive()
    }
}
