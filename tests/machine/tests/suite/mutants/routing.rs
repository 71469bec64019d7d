//! Where a coherent buffer comes from and where its free goes: ours, and the seed's.

use super::{Verdict, board, same};
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    coherent::{AllocationFlags, BackEnd, Coherency, ContiguousRegion},
    pool::{FreeError, Pool, Word},
};

/// Where the atomic pool lies; the other back ends' memory begins where it ends.
const POOL: u32 = 0xc800_0000;
const POOL_BYTES: u32 = 16 * PAGE_SIZE;

/// What is known of a device and its kernel.
type Place = (Coherency, ContiguousRegion);

const PLACES: [Place; 4] = [
    (Coherency::Coherent, ContiguousRegion::Present),
    (Coherency::Coherent, ContiguousRegion::Absent),
    (Coherency::NonCoherent, ContiguousRegion::Present),
    (Coherency::NonCoherent, ContiguousRegion::Absent),
];

trait Router {
    /// The back end of a request.
    fn request(&self, place: Place, flags: AllocationFlags) -> BackEnd;

    /// The back end of a free, which may ask the pool whether the buffer was its own.
    fn free(&self, place: Place, pool_frees: &mut dyn FnMut() -> bool) -> BackEnd;
}

/// Ours: the choice is `kerncore`'s, and the pool is asked first, always.
struct Right;

impl Router for Right {
    fn request(&self, (coherency, region): Place, flags: AllocationFlags) -> BackEnd {
        BackEnd::for_request(coherency, region, flags.sleep())
    }

    fn free(&self, (coherency, region): Place, pool_frees: &mut dyn FnMut() -> bool) -> BackEnd {
        if pool_frees() { BackEnd::AtomicPool } else { BackEnd::for_sleeper(coherency, region) }
    }
}

/// One way of the seed's; the rest is ours.
enum Seed {
    /// S75: the pool is asked in the branch of the contiguous region only.
    AsksPoolWithRegionOnly,
    /// S76: "atomic" is a test for the bits of one flag.
    AtomicIsAFlag,
}

impl Router for Seed {
    fn request(&self, place: Place, flags: AllocationFlags) -> BackEnd {
        match (self, place) {
            (Self::AsksPoolWithRegionOnly, _) | (_, (Coherency::Coherent, _)) => {
                Right.request(place, flags)
            }
            (Self::AtomicIsAFlag, (Coherency::NonCoherent, region)) => {
                if flags.0 & AllocationFlags::ATOMIC.0 != 0 {
                    BackEnd::AtomicPool
                } else {
                    BackEnd::for_sleeper(Coherency::NonCoherent, region)
                }
            }
        }
    }

    fn free(&self, place: Place, pool_frees: &mut dyn FnMut() -> bool) -> BackEnd {
        match (self, place) {
            (Self::AsksPoolWithRegionOnly, (Coherency::NonCoherent, ContiguousRegion::Absent)) => {
                BackEnd::Remap
            }
            _ => Right.free(place, pool_frees),
        }
    }
}

/// S75: in all eight combinations a buffer goes back where it came from, and no page of the pool stays taken.
fn every_buffer_goes_back_where_it_came_from(router: &impl Router) -> Verdict {
    for place in PLACES {
        for flags in [AllocationFlags::KERNEL, AllocationFlags::ATOMIC] {
            let mut words = [Word::FREE; 1];
            let mut pool =
                Pool::new(VirtAddr::new(POOL), POOL_BYTES, &mut words).expect("sixteen pages");
            let from = router.request(place, flags);
            let start = match from {
                BackEnd::AtomicPool => pool.allocate(PAGE_SIZE).expect("all is free").start,
                _ => VirtAddr::new(POOL + POOL_BYTES),
            };
            let mut refused = None;
            let to = router.free(place, &mut || match pool.free(start, PAGE_SIZE) {
                Ok(()) => true,
                Err(FreeError::NotMine { .. }) => false,
                Err(error) => {
                    refused = Some(error);
                    false
                }
            });
            same(&format!("{place:?} with {flags:?} goes to"), &to, &from)?;
            same("what the pool refused", &refused, &None)?;
            same("pages of the pool still taken", &pool.taken_pages(), &0)?;
        }
    }
    Ok(())
}

/// S76, S77: who may not sleep gets the pool, whatever else it says, and who may sleep does not.
fn atomic_means_may_not_sleep_and_nothing_else(router: &impl Router) -> Verdict {
    let (wait, high) = (AllocationFlags::WAIT, AllocationFlags::HIGH_PRIORITY);
    for flags in [0, high, wait, wait | high, AllocationFlags::KERNEL.0, AllocationFlags::ZERO] {
        for place in PLACES {
            let pool = router.request(place, AllocationFlags(flags)) == BackEnd::AtomicPool;
            let wanted = place.0 == Coherency::NonCoherent && flags & wait == 0;
            same(&format!("flags {flags:#x} for {place:?} go to the pool"), &pool, &wanted)?;
        }
    }
    Ok(())
}

board! {
    every_buffer_goes_back_where_it_came_from(Right) {
        free_asks_the_pool_with_a_region_only: "S75", "without CMA a free never asks the pool", Seed::AsksPoolWithRegionOnly;
    }
    atomic_means_may_not_sleep_and_nothing_else(Right) {
        atomic_by_the_bits_of_one_flag: "S76", "high priority is taken for \"may not sleep\"", Seed::AtomicIsAFlag;
    }
}
