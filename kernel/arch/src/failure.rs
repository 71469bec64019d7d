//! Allocations that fail on purpose, on this CPU ([`kerncore::failure`]).
//!
//! In builds with the feature `fail-nth`, which is the image of tests alone, each CPU counts its own allocations outside of
//! handlers: neither what other CPUs do meanwhile nor an interrupt changes which one is the nth. In other builds the question
//! has a constant answer, and nobody can arm anything.

use kerncore::failure::Point;

#[cfg(feature = "fail-nth")]
pub use counted::{arm, disarm, fail_nth};

/// Whether what is about to be taken at `point` is refused. Any context; takes no lock.
#[cfg(feature = "fail-nth")]
#[inline(always)]
pub fn fails(point: Point) -> bool {
    counted::fails(point)
}

/// Whether what is about to be taken is refused: never here.
#[cfg(not(feature = "fail-nth"))]
#[inline(always)]
pub const fn fails(_point: Point) -> bool {
    false
}

#[cfg(feature = "fail-nth")]
mod counted {
    use core::cell::UnsafeCell;
    use core::num::NonZeroU32;

    use kerncore::failure::{Afterwards, FailNth, Outcome, Point};

    use crate::per_cpu::PerCpu;
    use crate::{cpu, irq};

    /// What fails on one CPU.
    struct OfOneCpu(UnsafeCell<FailNth>);

    // SAFETY: `on_this_cpu` alone reaches what is inside, and only that of its own CPU, with interrupts masked; so there is
    // one at a time.
    unsafe impl Sync for OfOneCpu {}

    static FAILS: PerCpu<OfOneCpu> =
        PerCpu::new([const { OfOneCpu(UnsafeCell::new(FailNth::off())) }; cpu::MAX_CPUS]);

    fn on_this_cpu<R>(step: impl FnOnce(&mut FailNth) -> R) -> R {
        irq::masked(|| {
            let OfOneCpu(fails) = FAILS.here();
            // SAFETY: of this CPU, which does nothing else meanwhile: interrupts are masked, FIQs are not used, and no step
            // leads back here.
            step(unsafe { &mut *fails.get() })
        })
    }

    pub(super) fn fails(point: Point) -> bool {
        // A handler's allocations are not those of the operation that it interrupts.
        !cpu::in_interrupt() && on_this_cpu(|fails| fails.fails(point))
    }

    /// From now on this CPU's allocations are counted, and the `nth` fails.
    pub fn arm(nth: NonZeroU32, afterwards: Afterwards) {
        on_this_cpu(|fails| fails.arm(nth, afterwards));
    }

    /// Nothing fails on this CPU any more; says what did.
    pub fn disarm() -> Outcome {
        on_this_cpu(FailNth::disarm)
    }

    /// Runs `operation`, the `nth` allocation of which fails.
    pub fn fail_nth<R>(
        nth: NonZeroU32,
        afterwards: Afterwards,
        operation: impl FnOnce() -> R,
    ) -> (R, Outcome) {
        arm(nth, afterwards);
        let result = operation();
        (result, disarm())
    }
}
