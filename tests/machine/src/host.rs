//! What `kerncore` asks of its surroundings, on the host: locks, and memory for second-level tables.

use crate::SoftMachine;
use crate::schedule::{self, Inside};
use kerncore::{
    addr::PhysAddr,
    descriptor::{L2_SLOTS, L2_TABLE_SIZE, SLOT_SIZE},
    failure::{Afterwards, FailNth, Outcome, Point},
    lock::{Class, Context, Held, Interrupts, Lock, Locks, SharedLock, Slot, Taken, Violation},
    page_table::TableSource,
};
use std::{
    cell::RefCell,
    num::NonZeroU32,
    panic::Location,
    ptr,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

thread_local! {
    /// What this thread holds: a thread stands for a CPU.
    static HELD: RefCell<Held> = const { RefCell::new(Held::new()) };
    /// What fails on this thread.
    static FAILS: RefCell<FailNth> = const { RefCell::new(FailNth::off()) };
}

/// Runs `operation`, the `nth` allocation of which fails, on this thread.
pub fn fail_nth<R>(
    nth: NonZeroU32,
    afterwards: Afterwards,
    operation: impl FnOnce() -> R,
) -> (R, Outcome) {
    FAILS.with_borrow_mut(|fails| fails.arm(nth, afterwards));
    let result = operation();
    (result, FAILS.with_borrow_mut(FailNth::disarm))
}

/// Fails the test if `step` says that something is wrong.
#[track_caller]
fn judge(step: impl FnOnce(&mut Held) -> Result<(), Violation>) {
    let wrong = HELD.with_borrow_mut(|held| step(held).err().map(|violation| (violation, *held)));
    if let Some((violation, held)) = wrong {
        panic!("{violation}; held: {held}");
    }
}

/// The family of [`HostLock`]s.
#[derive(Debug)]
pub struct HostLocks;

impl Locks for HostLocks {
    type Lock<T: Send> = HostLock<T>;
    type SharedLock<T: Send + Sync> = HostSharedLock<T>;
    type Slot<'t, T: Sync + 't> = HostSlot<'t, T>;

    #[track_caller]
    fn might_sleep(operation: &'static str) {
        judge(|held| held.might_sleep(operation, Context::Task));
    }

    fn fails(point: Point) -> bool {
        FAILS.with_borrow_mut(|fails| fails.fails(point))
    }
}

/// Gives back what was taken, also if the section panics: a thread of the test harness goes on with another test.
struct GivenBack(Taken);

impl Drop for GivenBack {
    fn drop(&mut self) {
        let given = HELD.with_borrow_mut(|held| held.give_back(self.0, Interrupts::Masked));
        if !std::thread::panicking() {
            assert_eq!(given, Ok(()), "sections overlap");
        }
    }
}

/// What this thread is about to do with the lock `lock`.
#[track_caller]
fn taken<L>(lock: &L, class: Class) -> Taken {
    Taken { lock: ptr::from_ref(lock).addr(), class, at: Location::caller() }
}

/// What a schedule says of taking a lock of `class`.
const fn name(class: Class) -> &'static str {
    match class {
        Class::Areas => "lock of areas",
        Class::Frames => "lock of frames",
        Class::MakingTables => "lock of making tables",
        Class::TableMemory => "lock of table memory",
        _ => "another lock",
    }
}

/// Runs `section`, which waits for the lock, as the written order has it.
fn in_order<R>(taken: Taken, section: impl FnOnce() -> R) -> R {
    schedule::point(name(taken.class));
    judge(|held| held.take(taken));
    let _inside = Inside::enter();
    let _given_back = GivenBack(taken);
    section()
}

/// Runs `section`, under the lock already.
fn in_any_order<R>(taken: Taken, section: impl FnOnce() -> R) -> R {
    judge(|held| held.note(taken));
    let _inside = Inside::enter();
    let _given_back = GivenBack(taken);
    section()
}

/// A mutex that keeps to the written order, as the kernel's locks do in the images of tests.
#[derive(Debug)]
pub struct HostLock<T> {
    class: Class,
    value: Mutex<T>,
}

impl<T: Send> Lock<T> for HostLock<T> {
    fn new(class: Class, value: T) -> Self {
        Self { class, value: Mutex::new(value) }
    }

    #[track_caller]
    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        let value = || self.value.lock().unwrap_or_else(PoisonError::into_inner);
        in_order(taken(self, self.class), || critical_section(&mut value()))
    }

    #[track_caller]
    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.value.try_lock().ok()?;
        Some(in_any_order(taken(self, self.class), || critical_section(&mut value)))
    }
}

/// A place for a reference, which belongs to no class: nobody holds it.
#[derive(Debug)]
pub struct HostSlot<'t, T>(Mutex<Option<&'t T>>);

impl<'t, T: Sync> Slot<'t, T> for HostSlot<'t, T> {
    const EMPTY: Self = Self(Mutex::new(None));

    fn take(&self) -> Option<&'t T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn exchange(&self, value: &'t T) -> Option<&'t T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(value)
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// As [`HostLock`], for many who look.
#[derive(Debug)]
pub struct HostSharedLock<T> {
    class: Class,
    value: RwLock<T>,
}

impl<T: Send + Sync> Lock<T> for HostSharedLock<T> {
    fn new(class: Class, value: T) -> Self {
        Self { class, value: RwLock::new(value) }
    }

    #[track_caller]
    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        let value = || self.value.write().unwrap_or_else(PoisonError::into_inner);
        in_order(taken(self, self.class), || critical_section(&mut value()))
    }

    #[track_caller]
    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.value.try_write().ok()?;
        Some(in_any_order(taken(self, self.class), || critical_section(&mut value)))
    }
}

impl<T: Send + Sync> SharedLock<T> for HostSharedLock<T> {
    #[track_caller]
    fn look<R>(&self, section: impl FnOnce(&T) -> R) -> R {
        let value = || self.value.read().unwrap_or_else(PoisonError::into_inner);
        in_order(taken(self, self.class), || section(&value()))
    }

    #[track_caller]
    fn try_look<R>(&self, section: impl FnOnce(&T) -> R) -> Option<R> {
        let value = self.value.try_read().ok()?;
        Some(in_any_order(taken(self, self.class), || section(&value)))
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
