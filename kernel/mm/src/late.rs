//! A value that is made once, while one CPU runs alone, and asked for ever after: what asking costs is one load.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;

/// A `T`, once it is there.
#[repr(C)]
pub(crate) struct Late<T> {
    is_there: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by `Late::set` alone, before anybody else can ask, and is shared from then on (`T: Sync`), for
// good; it was made by another CPU than those that share it (`T: Send`).
unsafe impl<T: Send + Sync> Sync for Late<T> {}

impl<T> Late<T> {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self { is_there: AtomicBool::new(false), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Puts the value there.
    ///
    /// # Safety
    /// One CPU runs, its interrupts are masked, and it has not done this before. Whatever starts the others orders what was
    /// written before it.
    pub(crate) unsafe fn set(&'static self, value: T) -> &'static T {
        // SAFETY: nothing was there, so nobody has a reference; nobody else runs who could be given one meanwhile.
        let place = unsafe { &mut *self.value.get() };
        let value = place.write(value);
        self.is_there.store(true, Relaxed);
        value
    }

    /// The value, if it is there.
    #[inline(always)]
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        // No acquire: whoever finds it there runs on the CPU that wrote it, or was started after that (the contract of `set`).
        if !self.is_there.load(Relaxed) {
            return None;
        }
        // SAFETY: it is there, and is never written again.
        let value = unsafe { &*self.value.get() };
        // SAFETY: as above.
        Some(unsafe { value.assume_init_ref() })
    }
}
