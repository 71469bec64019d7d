//! Which back end a coherent buffer comes from, and goes back to.
//!
//! ```text
//!                      may sleep                    may not sleep
//!   coherent device    simple                       simple
//!   with CMA           contiguous                   atomic pool
//!   without            remap                        atomic pool
//! ```
//!
//! The choice is pure and total, so that all eight combinations can be tested (S75). The way back does not repeat
//! the question: a free asks the atomic pool first, always, by address; what the pool does not know went through
//! [`BackEnd::for_sleeper`].

/// Whether a caller may wait: what "atomic" means (S76). A type, because a mask test of allocation flags gets it wrong
/// both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// The caller may wait for memory.
    May,
    /// The caller may not: it holds a spin lock, or runs in a handler.
    MayNot,
}

/// Allocation flags as C callers pass them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct AllocationFlags(pub u32);

impl AllocationFlags {
    /// The caller may wait.
    pub const WAIT: u32 = 0x10;
    /// The caller may use the emergency reserves. Says nothing of waiting.
    pub const HIGH_PRIORITY: u32 = 0x20;
    /// The memory is to be zeroed, also where that is not done anyway (S85).
    pub const ZERO: u32 = 0x8000;
    /// What may sleep and start input or output: the usual flags in a process.
    pub const KERNEL: Self = Self(Self::WAIT | 0xc0);
    /// What a handler passes.
    pub const ATOMIC: Self = Self(Self::HIGH_PRIORITY);

    /// Whether such a caller may wait: exactly if it says so (S76).
    pub const fn sleep(self) -> Sleep {
        if self.0 & Self::WAIT != 0 { Sleep::May } else { Sleep::MayNot }
    }

    /// Whether the caller asks for zeroed memory.
    pub const fn zero(self) -> bool {
        self.0 & Self::ZERO != 0
    }
}

/// Whether a device sees what the processor's caches hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coherency {
    /// It snoops: cached memory will do.
    Coherent,
    /// It does not: buffers must be uncached.
    NonCoherent,
}

/// Whether a contiguous region was set aside at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContiguousRegion {
    /// Yes (CMA).
    Present,
    /// No.
    Absent,
}

/// Where a coherent buffer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// Ordinary frames at their linear addresses.
    Simple,
    /// The pool of uncached memory made at boot.
    AtomicPool,
    /// Contiguous frames, withdrawn from the linear map and mapped uncached.
    Remap,
    /// The contiguous region.
    Contiguous,
}

impl BackEnd {
    /// The back end for a request (S75).
    pub const fn for_request(coherency: Coherency, region: ContiguousRegion, sleep: Sleep) -> Self {
        match (coherency, sleep) {
            (Coherency::Coherent, _) => Self::Simple,
            (Coherency::NonCoherent, Sleep::MayNot) => Self::AtomicPool,
            (Coherency::NonCoherent, Sleep::May) => Self::for_sleeper(coherency, region),
        }
    }

    /// The back end of a buffer that is not the atomic pool's: the way back of a free.
    pub const fn for_sleeper(coherency: Coherency, region: ContiguousRegion) -> Self {
        match (coherency, region) {
            (Coherency::Coherent, _) => Self::Simple,
            (Coherency::NonCoherent, ContiguousRegion::Present) => Self::Contiguous,
            (Coherency::NonCoherent, ContiguousRegion::Absent) => Self::Remap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COHERENCY: [Coherency; 2] = [Coherency::Coherent, Coherency::NonCoherent];
    const REGION: [ContiguousRegion; 2] = [ContiguousRegion::Present, ContiguousRegion::Absent];
    const SLEEP: [Sleep; 2] = [Sleep::May, Sleep::MayNot];

    /// A router: where a buffer comes from, and where a free of it goes, given whether the pool knows its address.
    struct Router {
        allocate: fn(Coherency, ContiguousRegion, AllocationFlags) -> BackEnd,
        free: fn(Coherency, ContiguousRegion, bool) -> BackEnd,
    }

    const OURS: Router = Router {
        allocate: |coherency, region, flags| BackEnd::for_request(coherency, region, flags.sleep()),
        free: |coherency, region, in_pool| {
            if in_pool { BackEnd::AtomicPool } else { BackEnd::for_sleeper(coherency, region) }
        },
    };

    /// The seed: it takes one flag's bits for "atomic", and asks the pool on free only where there is a region.
    const SEED: Router = Router {
        allocate: |coherency, region, flags| match (coherency, region) {
            (Coherency::Coherent, _) => BackEnd::Simple,
            _ if flags.0 & AllocationFlags::ATOMIC.0 != 0 => BackEnd::AtomicPool,
            (_, ContiguousRegion::Absent) => BackEnd::Remap,
            (_, ContiguousRegion::Present) => BackEnd::Contiguous,
        },
        free: |coherency, region, in_pool| match (coherency, region) {
            (Coherency::Coherent, _) => BackEnd::Simple,
            (_, ContiguousRegion::Absent) => BackEnd::Remap,
            (_, ContiguousRegion::Present) if in_pool => BackEnd::AtomicPool,
            (_, ContiguousRegion::Present) => BackEnd::Contiguous,
        },
    };

    /// Combinations in which a buffer is freed to another back end than it came from (S75).
    fn misrouted(router: &Router) -> usize {
        let mut count = 0;
        for coherency in COHERENCY {
            for region in REGION {
                for sleep in SLEEP {
                    let flags = match sleep {
                        Sleep::May => AllocationFlags::KERNEL,
                        Sleep::MayNot => AllocationFlags::ATOMIC,
                    };
                    let from = (router.allocate)(coherency, region, flags);
                    let to = (router.free)(coherency, region, from == BackEnd::AtomicPool);
                    count += usize::from(from != to);
                }
            }
        }
        count
    }

    #[test]
    fn a_buffer_goes_back_where_it_came_from_in_all_eight_combinations_s75() {
        assert_eq!(misrouted(&OURS), 0);
        // The seed leaks every atomic buffer where there is no region.
        assert_eq!(misrouted(&SEED), 1);
    }

    /// Whether a non-coherent device's caller who may not sleep gets the pool, and one who may does not (S76, S77).
    fn atomic_is_may_not_sleep(router: &Router, flags: AllocationFlags) -> bool {
        REGION.into_iter().all(|region| {
            let from_pool =
                (router.allocate)(Coherency::NonCoherent, region, flags) == BackEnd::AtomicPool;
            from_pool == (flags.0 & AllocationFlags::WAIT == 0)
        })
    }

    #[test]
    fn atomic_means_may_not_sleep_and_nothing_else_s76() {
        let no_flags = AllocationFlags(0);
        let urgent_sleeper =
            AllocationFlags(AllocationFlags::WAIT | AllocationFlags::HIGH_PRIORITY);
        for flags in [AllocationFlags::KERNEL, AllocationFlags::ATOMIC, no_flags, urgent_sleeper] {
            assert!(atomic_is_may_not_sleep(&OURS, flags), "{flags:?}");
        }
        // The seed sends a caller without flags to sleep, and one who may sleep to the pool.
        assert!(!atomic_is_may_not_sleep(&SEED, no_flags));
        assert!(!atomic_is_may_not_sleep(&SEED, urgent_sleeper));
    }

    #[test]
    fn a_coherent_device_never_gets_uncached_memory() {
        for region in REGION {
            for sleep in SLEEP {
                assert_eq!(
                    BackEnd::for_request(Coherency::Coherent, region, sleep),
                    BackEnd::Simple
                );
            }
        }
    }
}
