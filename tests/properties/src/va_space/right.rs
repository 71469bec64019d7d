//! The right to a range of addresses, from the one place that makes it: a page table, whose machine is never used.

use std::sync::Mutex;

use kerncore::addr::{PageRange, Pfn, PhysAddr};
use kerncore::lock::{Class, Lock, Locks, SharedLock, Slot};
use kerncore::machine::Machine;
use kerncore::owned_range::OwnedRange;
use kerncore::page_table::PageTable;

/// The right to `range`, in an address space of its own.
pub(super) fn to(range: PageRange) -> OwnedRange {
    PageTable::<_, Mutexes>::new(NoMachine, PhysAddr::new(0), range).1
}

/// Keeping account of addresses touches no hardware.
#[derive(Debug)]
struct NoMachine;

impl Machine for NoMachine {
    type Authority = ();

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        panic!("a descriptor was read at {slot}")
    }

    fn write_descriptors(&self, first: PhysAddr, _: impl Iterator<Item = u32>) {
        panic!("descriptors were written at {first}")
    }

    fn clean_descriptors(&self, first: PhysAddr, _: u32) {
        panic!("descriptors were cleaned at {first}")
    }

    fn barrier(&self) {
        panic!("a barrier was asked for")
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        panic!("{pages} was invalidated")
    }

    fn clean_and_invalidate(&self, pages: PageRange, _: Pfn) {
        panic!("{pages} was cleaned")
    }

    fn zero_pages(&self, pages: PageRange) {
        panic!("{pages} was zeroed")
    }

    fn in_interrupt(&self) -> bool {
        false
    }

    fn cpu(&self) -> usize {
        0
    }
}

#[derive(Debug)]
struct Mutexes;

impl Locks for Mutexes {
    type Lock<T: Send> = Mutexed<T>;
    type SharedLock<T: Send + Sync> = Mutexed<T>;
    type Slot<'t, T: Sync + 't> = NoSlot;
}

/// There are no frames here, and no spare ones.
#[derive(Debug)]
struct NoSlot;

impl<'t, T: Sync> Slot<'t, T> for NoSlot {
    const EMPTY: Self = Self;

    fn take(&self) -> Option<&'t T> {
        None
    }

    fn exchange(&self, value: &'t T) -> Option<&'t T> {
        Some(value)
    }

    fn is_empty(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Mutexed<T>(Mutex<T>);

impl<T: Send> Lock<T> for Mutexed<T> {
    fn new(_class: Class, value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        critical_section(&mut self.0.lock().expect("no test panics inside"))
    }

    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_lock().ok().map(|mut value| critical_section(&mut value))
    }
}

impl<T: Send + Sync> SharedLock<T> for Mutexed<T> {
    fn look<R>(&self, section: impl FnOnce(&T) -> R) -> R {
        self.with(|value| section(value))
    }

    fn try_look<R>(&self, section: impl FnOnce(&T) -> R) -> Option<R> {
        self.try_with(|value| section(value))
    }
}
