//! Locks of test builds: what each CPU holds, and the end of the kernel where that is wrong.
//!
//! A wrong order ends the kernel before the lock is waited for, so that it is reported and does not hang.

use core::cell::UnsafeCell;
use core::panic::Location;
use core::ptr;

use kerncore::addr::VirtAddr;
use kerncore::lock::{Class, Context, Held, Interrupts, Taken, Violation};

use crate::per_cpu::PerCpu;
use crate::{cpu, irq};

/// What one CPU holds.
struct OfOneCpu(UnsafeCell<Held>);

// SAFETY: `on_this_cpu` alone reaches what is inside, and only that of its own CPU, with interrupts masked; so there is
// one at a time.
unsafe impl Sync for OfOneCpu {}

static HELD: PerCpu<OfOneCpu> =
    PerCpu::new([const { OfOneCpu(UnsafeCell::new(Held::new())) }; cpu::MAX_CPUS]);

/// What `step` makes of the account of this CPU. It may take no lock, and cannot fault.
fn on_this_cpu<R>(step: impl FnOnce(&mut Held) -> R) -> R {
    irq::masked(|| {
        let OfOneCpu(held) = HELD.here();
        // SAFETY: of this CPU, which does nothing else meanwhile: interrupts are masked, FIQs are not used, and no step
        // leads back here.
        step(unsafe { &mut *held.get() })
    })
}

/// Ends the kernel if `step` says that something is wrong, with the names of all concerned.
fn judge(step: impl FnOnce(&mut Held) -> Result<(), Violation>) {
    let wrong = on_this_cpu(|held| step(held).err().map(|violation| (violation, *held)));
    if let Some((violation, held)) = wrong {
        panic!("{violation}; CPU {} holds: {held}", cpu::id());
    }
}

/// Who takes a lock.
#[derive(Clone, Copy)]
pub(super) struct Caller(&'static Location<'static>);

impl Caller {
    /// Of the function of the lock that this stands in.
    #[track_caller]
    pub(super) fn of_the_lock() -> Self {
        Self(Location::caller())
    }
}

/// A lock's class. Where it lies tells the lock from all others.
pub(super) struct Watch(Class);

impl Watch {
    pub(super) const fn new(class: Class) -> Self {
        Self(class)
    }

    fn taken(&self, Caller(at): Caller) -> Taken {
        Taken { lock: ptr::from_ref(self).addr(), class: self.0, at }
    }

    /// To be called before the lock is waited for.
    pub(super) fn before_waiting(&self, caller: Caller) {
        judge(|held| held.take(self.taken(caller)));
    }

    /// To be called when the lock was had without waiting.
    pub(super) fn without_waiting(&self, caller: Caller) {
        judge(|held| held.note(self.taken(caller)));
    }

    /// To be called when the lock was given back, before the caller's mask is.
    pub(super) fn given_back(&self, caller: Caller) {
        let interrupts = if irq::are_masked() { Interrupts::Masked } else { Interrupts::Unmasked };
        judge(|held| held.give_back(self.taken(caller), interrupts));
    }
}

/// Said at the beginning of each operation that may sleep, whether it will or not. In builds with the feature `lock-order`
/// it ends the kernel if this CPU holds a lock or runs a handler; in others nothing happens.
///
/// # Panics
/// As said.
pub fn might_sleep(operation: &'static str) {
    let context = if cpu::in_interrupt() { Context::Interrupt } else { Context::Task };
    judge(|held| held.might_sleep(operation, context));
}

/// Said before memory is freed, which `memory` names. In builds with the feature `lock-order` it ends the kernel if a lock lies
/// there that this CPU holds (S36); in others nobody asks.
///
/// # Panics
/// As said.
pub fn memory_goes(memory: impl FnOnce() -> Option<(VirtAddr, u32)>) {
    if let Some((start, bytes)) = memory() {
        judge(|held| held.may_free(start.raw() as usize, bytes as usize));
    }
}
