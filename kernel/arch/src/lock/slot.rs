//! [`Slot`] as one atomic word.

use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, fence};

use kerncore::lock::Slot;

/// A reference or null.
#[derive(Debug)]
pub struct RefSlot<'t, T> {
    word: AtomicPtr<T>,
    /// What goes in and comes out: neither a longer nor a shorter lifetime will do.
    references: PhantomData<fn(&'t T) -> &'t T>,
}

impl<'t, T: Sync> Slot<'t, T> for RefSlot<'t, T> {
    const EMPTY: Self = Self { word: AtomicPtr::new(ptr::null_mut()), references: PhantomData };

    #[inline(always)]
    fn take(&self) -> Option<&'t T> {
        let value = self.word.swap(ptr::null_mut(), Acquire);
        // SAFETY: null, or made of a `&'t T` by `exchange`; a `T` may be shared with this CPU (`T: Sync`), and what its giver
        // wrote is seen: the swap read what the release of `exchange` wrote.
        unsafe { value.as_ref() }
    }

    #[inline(always)]
    fn exchange(&self, value: &'t T) -> Option<&'t T> {
        let before = self.word.swap(ptr::from_ref(value).cast_mut(), Release);
        if before.is_null() {
            return None;
        }
        // As an acquiring swap, for the few who find something.
        fence(Acquire);
        // SAFETY: as in `take`.
        unsafe { before.as_ref() }
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.word.load(Relaxed).is_null()
    }
}
