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

    #[test]
    fn a_buffer_goes_back_where_it_came_from_in_all_eight_combinations_s75() {
        for coherency in COHERENCY {
            for region in REGION {
                for sleep in SLEEP {
                    let from = BackEnd::for_request(coherency, region, sleep);
                    // The pool knows its own; what it does not know is a sleeper's.
                    if from != BackEnd::AtomicPool {
                        assert_eq!(BackEnd::for_sleeper(coherency, region), from);
                    }
                    let atomic = (coherency, sleep) == (Coherency::NonCoherent, Sleep::MayNot);
                    assert_eq!(from == BackEnd::AtomicPool, atomic);
                }
            }
        }
    }

    #[test]
    fn atomic_means_may_not_sleep_and_nothing_else_s76() {
        let (wait, high) = (AllocationFlags::WAIT, AllocationFlags::HIGH_PRIORITY);
        for flags in [wait, wait | high, AllocationFlags::KERNEL.0] {
            assert_eq!(AllocationFlags(flags).sleep(), Sleep::May, "{flags:#x}");
        }
        for flags in [0, high, AllocationFlags::ATOMIC.0, !wait] {
            assert_eq!(AllocationFlags(flags).sleep(), Sleep::MayNot, "{flags:#x}");
        }
    }

    #[test]
    fn memory_is_zeroed_for_whoever_asks_for_it_and_nobody_else_s85() {
        let zero = AllocationFlags::ZERO;
        for (flags, asked) in [(zero, true), (zero | 0x10, true), (0, false), (!zero, false)] {
            assert_eq!(AllocationFlags(flags).zero(), asked, "{flags:#x}");
        }
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
