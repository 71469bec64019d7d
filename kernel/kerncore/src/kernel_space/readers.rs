//! Who copies from or to which area just now: what a removal waits for (S14a).
//!
//! A reader notes the area's base while it holds the lock of areas, so that the area lives; then it copies without the lock. A
//! removal makes the area Dying under the same lock, so that no reader comes after it, and waits until none that came before
//! it is left. Whoever removes nothing that is read pays for one look at a count.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::addr::VirtAddr;

/// How many may copy at once; who comes then waits for one to end. A reader runs on a CPU of its own.
const PLACES: usize = 8;
/// In a place that nobody has: no area begins at address zero.
const VACANT: u32 = 0;

/// The bases of the areas that are read, one for each reader.
#[derive(Debug)]
pub(super) struct Readers {
    active: AtomicU32,
    bases: [AtomicU32; PLACES],
}

/// One reader's place.
#[derive(Debug)]
#[must_use = "an area whose reader does not leave is never removed"]
pub(super) struct Reading(usize);

impl Reading {
    const fn into_index(self) -> usize {
        self.0
    }
}

impl Readers {
    pub(super) const fn new() -> Self {
        Self { active: AtomicU32::new(0), bases: [const { AtomicU32::new(VACANT) }; PLACES] }
    }

    /// Notes a reader of the live area at `base`; `None` if all places are taken. Called under the lock of areas, which orders
    /// this before any removal of that area.
    pub(super) fn enter(&self, base: VirtAddr) -> Option<Reading> {
        self.active.fetch_add(1, Relaxed);
        let take = |place: &AtomicU32| {
            place.compare_exchange(VACANT, base.raw(), Relaxed, Relaxed).is_ok()
        };
        let taken = self.bases.iter().position(take);
        if taken.is_none() {
            self.active.fetch_sub(1, Relaxed);
        }
        taken.map(Reading)
    }

    /// The reader has made its last access.
    pub(super) fn leave(&self, reading: Reading) {
        if let Some(place) = self.bases.get(reading.into_index()) {
            place.store(VACANT, Release);
        }
        self.active.fetch_sub(1, Release);
    }

    /// Whether nobody reads any area. Under the lock of areas, nobody begins to.
    #[inline(always)]
    pub(super) fn are_none(&self) -> bool {
        self.active.load(Acquire) == 0
    }

    /// Waits until nobody reads the area at `base`, which nobody can begin to read any more. Not under a lock.
    #[inline(always)]
    pub(super) fn wait_for(&self, base: VirtAddr) {
        if !self.are_none() {
            self.wait(base);
        }
    }

    #[cold]
    fn wait(&self, base: VirtAddr) {
        for place in &self.bases {
            while place.load(Acquire) == base.raw() {
                core::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_read_at_once_as_there_are_places_and_no_more() {
        let readers = Readers::new();
        let base = VirtAddr::new(0xc000_0000);
        let mut reading: Vec<_> =
            (0..PLACES).map(|_| readers.enter(base).expect("a place")).collect();
        assert!(readers.enter(base).is_none());
        readers.leave(reading.remove(3));
        let again = readers.enter(VirtAddr::new(0xc000_2000)).expect("the place that came back");
        assert_eq!(again.0, 3);
        assert!(readers.enter(base).is_none());
        reading.push(again);
        for reading in reading {
            readers.leave(reading);
        }
        assert_eq!(readers.active.load(Relaxed), 0);
        readers.wait_for(base);
    }

    #[test]
    fn a_removal_waits_for_the_readers_of_its_own_area_alone_s14a() {
        let readers = Readers::new();
        let (base, other) = (VirtAddr::new(0xc000_0000), VirtAddr::new(0xc000_2000));
        let elsewhere = readers.enter(other).expect("a place");
        readers.wait_for(base);
        let here = readers.enter(base).expect("a place");
        let left = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                readers.wait_for(base);
                assert_eq!(left.load(Acquire), 1, "did not wait");
            });
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            left.store(1, Release);
            readers.leave(here);
        });
        readers.leave(elsewhere);
    }
}
