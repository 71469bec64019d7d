//! Values that are made once, while one CPU runs alone, and asked for ever after: what asking costs is a load or two.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

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

/// A slice, which is empty until it is there.
pub(crate) struct LateSlice<T> {
    first: AtomicPtr<T>,
    len: AtomicUsize,
}

impl<T: Sync> LateSlice<T> {
    /// The empty one.
    pub(crate) const fn new() -> Self {
        Self { first: AtomicPtr::new(NonNull::dangling().as_ptr()), len: AtomicUsize::new(0) }
    }

    /// Puts the slice there.
    ///
    /// # Safety
    /// As for [`Late::set`].
    pub(crate) unsafe fn set(&self, slice: &'static [T]) {
        self.first.store(ptr::from_ref(slice).cast_mut().cast(), Relaxed);
        self.len.store(slice.len(), Relaxed);
    }

    /// The slice.
    #[inline(always)]
    pub(crate) fn get(&self) -> &'static [T] {
        let (first, len) = (self.first.load(Relaxed), self.len.load(Relaxed));
        // SAFETY: both words are those of an empty slice, or of the one that was put there: nobody looks between the two stores,
        // and as in `Late::get` whoever sees them sees what is behind them. A `T` may be shared (`T: Sync`).
        unsafe { slice::from_raw_parts(first, len) }
    }
}
