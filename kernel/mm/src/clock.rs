//! What time it is, for listings: a counter of the board's, which a driver has started.
//!
//! To ask is two loads, so that whoever takes memory can note when. Nothing waits by this clock, and nothing relies on it: where
//! nobody has started one it stands still.

use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::Relaxed;

use kerncore::holder::Moment;
use safe_mmio::SharedMmioPointer;
use safe_mmio::fields::ReadPure;

/// What a counter that counts down has at the start.
static STOPPED: u32 = u32::MAX;

static COUNTER: Counter = Counter::stopped();

/// Where it is read; or nowhere, and it stands still.
#[derive(Debug)]
pub struct Counter(AtomicPtr<u32>);

impl Counter {
    /// One that stands still.
    pub const fn stopped() -> Self {
        Self(AtomicPtr::new(ptr::addr_of!(STOPPED).cast_mut()))
    }

    /// From now on it is the kernel's: for those who want it near their own data, where a load leads to it.
    pub fn follow(&self) {
        self.0.store(COUNTER.0.load(Relaxed), Relaxed);
    }

    /// What is left of its count: [`Counter::moment`] knows what moment that is. Any context.
    #[inline(always)]
    pub fn left(&self) -> u32 {
        let counter = self.0.load(Relaxed);
        // SAFETY: a word that stays for good, or a register that `start` was given for good, and that reading does not change.
        // Volatile, since it counts.
        unsafe { counter.read_volatile() }
    }

    /// The moment at which so much was left.
    #[inline(always)]
    pub const fn moment(left: u32) -> Moment {
        Moment::new(!left)
    }
}

/// From now on moments are read from `counter`, which counts down from all ones, once in [`Moment::TICK`] µs.
pub fn start(counter: SharedMmioPointer<'static, ReadPure<u32>>) {
    COUNTER.0.store(counter.ptr().cast_mut().cast(), Relaxed);
}

/// The moment that this is. Any context.
#[inline(always)]
pub fn now() -> Moment {
    Counter::moment(COUNTER.left())
}
