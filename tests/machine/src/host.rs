//! What `kerncore` asks of its surroundings, on the host: locks, and memory for second-level tables.

use crate::SoftMachine;
use kerncore::{
    addr::PhysAddr,
    descriptor::{L2_SLOTS, L2_TABLE_SIZE, SLOT_SIZE},
    lock::{Lock, Locks},
    page_table::TableSource,
};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

/// The family of [`HostLock`]s.
#[derive(Debug)]
pub struct HostLocks;

/// A mutex.
#[derive(Debug)]
pub struct HostLock<T>(Mutex<T>);

impl Locks for HostLocks {
    type Lock<T: Send> = HostLock<T>;
}

impl<T: Send> Lock<T> for HostLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        critical_section(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_lock().ok().map(|mut value| critical_section(&mut value))
    }
}

/// Memory for a limited number of second-level tables. What it hands out is full of valid-looking descriptors, as
/// memory that was used before may be.
#[derive(Debug)]
pub struct TablePool {
    first: PhysAddr,
    limit: u32,
    taken: AtomicU32,
}

/// Kernel data, read and write, at physical zero: where nothing in a test is.
const POISON: u32 = 0x0000_045f;

impl TablePool {
    /// Room for `limit` tables from `first`, which is 1 KiB-aligned.
    pub fn new(machine: &SoftMachine, first: PhysAddr, limit: u32) -> Self {
        for slot in 0..limit * L2_SLOTS {
            machine.device_write(PhysAddr::new(first.raw() + slot * SLOT_SIZE), POISON);
        }
        Self { first, limit, taken: AtomicU32::new(0) }
    }

    /// How many were handed out.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl TableSource for TablePool {
    fn take_table(&self) -> Option<PhysAddr> {
        let more = |taken| (taken < self.limit).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.first.checked_add(taken * L2_TABLE_SIZE)
    }
}
