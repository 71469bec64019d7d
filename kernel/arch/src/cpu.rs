//! The CPU that this code runs on.

use crate::cp15::Mpidr;
use crate::exception::Mode;
use crate::irq;
use spin::Once;

/// How many CPUs a Cortex-A9 cluster can have.
pub const MAX_CPUS: usize = 4;

/// The numbers that they can have.
pub const NUMBERS: [u32; MAX_CPUS] = [0, 1, 2, 3];

/// The number of this CPU in its cluster, 0 to 3 (MPIDR, affinity level 0; A9 TRM 4.3.5).
///
/// It is the number of the CPU that asked: with interrupts on, ask again after anything that may migrate.
#[inline(always)]
pub fn id() -> u32 {
    Mpidr::read().0 & 3
}

/// The mode that this code runs in (CPSR.M).
#[inline(always)]
pub fn mode() -> Mode {
    Mode::from_cpsr(cpsr())
}

/// Whether this code belongs to an interrupt's handler (S115).
///
/// A handler runs in its exception's own mode from the vector to its return, so the processor itself knows: there is no
/// count that could be wrong. What a handler's probe faults on is resolved in abort mode, which asks nobody.
#[inline(always)]
pub fn in_interrupt() -> bool {
    // One comparison: both low bits of the number are set in every privileged mode but IRQ and FIQ.
    !cpsr() & 3 != 0
}

/// Whether this code may wait for something to happen (S115): it belongs to no handler, of an interrupt or of a fault, and
/// interrupts are not masked.
///
/// Under a spin lock interrupts are masked, so there it may not either.
#[inline(always)]
pub fn may_sleep() -> bool {
    let cpsr = cpsr();
    matches!(cpsr & MODE, SUPERVISOR | SYSTEM) && cpsr & IRQ_MASKED == 0
}

/// CPSR.M, the mode's bits, and those of the modes that are asked for here (ARM ARM table B1-1).
const MODE: u32 = 0x1f;
const SUPERVISOR: u32 = 0x13;
const SYSTEM: u32 = 0x1f;
/// CPSR.I.
const IRQ_MASKED: u32 = 1 << 7;

#[inline(always)]
fn cpsr() -> u32 {
    let cpsr;
    // SAFETY: reads a register. No `nomem`, so that it is read here and neither earlier nor later.
    unsafe {
        core::arch::asm!("mrs {cpsr}, cpsr", cpsr = out(reg) cpsr, options(nostack, preserves_flags));
    };
    cpsr
}

/// Waits until an interrupt is pending, masked or not.
#[inline(always)]
pub fn wait_for_interrupt() {
    // SAFETY: changes no register or memory of this program. The DSB before it completes what the interrupt's
    // source may be waiting for; no `nomem`, since a handler may run here and change anything.
    unsafe { core::arch::asm!("dsb", "wfi", options(nostack, preserves_flags)) };
}

/// What was put off until there is time, because where it came up it could not be done.
#[derive(Clone, Copy, Debug)]
pub struct DeferredWork {
    /// Whether there is some. Any context.
    pub is_pending: fn() -> bool,
    /// Does it. Where one may sleep.
    pub run: fn(),
    /// Who does it.
    pub by: Doer,
}

/// Who does deferred work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doer {
    /// Whoever waits for something: then the work of a CPU is done by nobody whom that one does not know of.
    WhoWaits,
    /// He, and any CPU that has nothing to do.
    Anybody,
}

/// One for each who has some: the memory of areas, and the atomic pool.
static DEFERRED_WORK: [Once<DeferredWork>; 2] = [const { Once::new() }; 2];

/// What a CPU that has nothing to do is to do before it sleeps.
pub(crate) fn work_of_the_idle() -> Option<&'static DeferredWork> {
    let works = DEFERRED_WORK.iter().filter_map(Once::get);
    works.filter(|work| work.by == Doer::Anybody).find(|work| (work.is_pending)())
}

/// Names work that is done by whoever waits, before he sleeps. Says whether there was room to note it.
pub fn add_deferred_work(work: DeferredWork) -> bool {
    DEFERRED_WORK.iter().any(|place| {
        let mut is_new = false;
        place.call_once(|| {
            is_new = true;
            work
        });
        is_new
    })
}

/// Waits until `condition` holds, asleep between the interrupts whose handlers make it hold. Where one may sleep: with
/// interrupts unmasked, and not in a handler. Deferred work is done meanwhile.
///
/// # Panics
/// Where one may not: nobody could make the condition hold.
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    assert!(may_sleep(), "waiting with interrupts masked, or in a handler");
    loop {
        let awake = sleep_unless(|| {
            if condition() {
                return Some(Awake::Holds);
            }
            let mut works = DEFERRED_WORK.iter().filter_map(Once::get);
            works.find(|work| (work.is_pending)()).map(Awake::HasWork)
        });
        match awake {
            Some(Awake::Holds) => return,
            Some(Awake::HasWork(work)) => (work.run)(),
            None => {}
        }
    }
}

/// Why somebody who waits does not sleep.
enum Awake {
    /// What he waits for has come.
    Holds,
    /// He can do this meanwhile.
    HasWork(&'static DeferredWork),
}

/// Asks `look` for a reason not to sleep, and sleeps until an interrupt comes if there is none. Interrupts are masked from the
/// look to the sleep, so that one that comes between the two ends the sleep at once; it is handled before this returns, if they
/// were unmasked.
pub(crate) fn sleep_unless<R>(look: impl FnOnce() -> Option<R>) -> Option<R> {
    let saved = irq::save_and_mask();
    let reason = look();
    if reason.is_none() {
        wait_for_interrupt();
    }
    saved.restore();
    reason
}

/// Stops this CPU for good, with interrupts masked.
pub fn halt() -> ! {
    // SAFETY: masking costs nothing but attention, and this CPU has none to give any more.
    unsafe { core::arch::asm!("cpsid aif", options(nostack, preserves_flags)) };
    loop {
        wait_for_interrupt();
    }
}

/// Wakes every CPU that waits for an event (WFE), after what this CPU has written can be seen.
#[inline(always)]
pub fn send_event() {
    // SAFETY: changes no register or memory of this program; the DSB orders it behind the stores before it.
    unsafe { core::arch::asm!("dsb", "sev", options(nostack, preserves_flags)) };
}

/// Says that this CPU polls and has nothing better to do. An emulator that has one thread for all CPUs then lets another
/// one run.
#[inline(always)]
pub fn relax() {
    // SAFETY: a hint; no `nomem`, since others write what is polled.
    unsafe { core::arch::asm!("yield", options(nostack, preserves_flags)) };
}
