//! Several CPUs: who is up, work for a chosen one, and the end of all.
//!
//! ```text
//!   CPU 0                                        CPU n
//!   boot::secondaries::let_in() ──────────────▶  the stub, kernel_secondary
//!   await_all(n)                ◀── alive ─────  serve(): waits for work, for good
//!   run_on(n, work): slot n ◀── the call
//!                           ─── a bell ───────▶  takes it, runs it
//!                           ◀── done ──────────  waits again
//! ```
//!
//! A call lies on the caller's stack and the caller waits, so nothing is allocated and nothing outlives anything. Waiting
//! is polling, without a clock and without waiting for an event that may never come: as long as the other CPU makes progress there is patience, and when
//! it makes none for [`PATIENCE`] polls the kernel ends with a message that names it.

use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use spin::Once;

use crate::cpu::{self, NUMBERS};
use crate::per_cpu::{self, CpuBlock};

/// Polls without any progress of the other CPU after which it is given up. Seconds of a fast processor's time.
pub const PATIENCE: u32 = 1 << 30;

/// A CPU's state, of which nothing is heard at first: it serves.
const ALIVE: u32 = 1;
/// It has stopped for good.
const STOPPED: u32 = 2;

/// A bell: an interrupt from one CPU to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bell {
    /// For the CPU with this number, which has work.
    Of(u32),
    /// For all others, because this CPU ends the kernel. Whoever rings it may hold any lock, so it waits for none.
    AllOthersAtTheEnd,
}

/// How a bell is rung.
static RING: Once<fn(Bell)> = Once::new();

/// Nobody has ended the kernel.
const NOBODY: u32 = u32::MAX;
/// The CPU that ends the kernel. The others stop as soon as they see it.
static ENDED_BY: AtomicU32 = AtomicU32::new(NOBODY);

/// Why work could not be put on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The CPU does not exist, has not come up, or (the boot CPU) does not serve others.
    NotServing {
        /// Its number.
        cpu: u32,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NotServing { cpu } = self;
        write!(f, "CPU {cpu} serves no calls")
    }
}

impl core::error::Error for CallError {}

/// What a CPU is to do: a place for one call.
#[derive(Debug)]
pub(crate) struct Slot(AtomicPtr<Call>);

impl Slot {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }
}

/// A call, on the stack of a caller who waits for it.
struct Call {
    /// Runs what `work` points to. Called once, by the CPU whose slot this was put in.
    run: unsafe fn(*mut ()),
    work: *mut (),
    /// 1 when `run` has returned; from then on the caller may take the call away.
    done: AtomicU32,
}

// --- Who is up -------------------------------------------------------------------------------------------------------

/// Says that this CPU is up, and does what others ask of it, for good. For a secondary CPU, whose calls find
/// interrupts as they are here.
///
/// It sleeps until a bell is rung ([`set_bells`]), which is an interrupt: they are unmasked.
pub fn serve() -> ! {
    let here = per_cpu::this();
    here.state.store(ALIVE, Ordering::Release);
    loop {
        // Deferred work is left to others, but for some: who is done with a call does nothing that the caller does not know of.
        let reason =
            cpu::sleep_unless(|| match NonNull::new(here.slot.0.load(Ordering::Acquire)) {
                Some(call) => Some(Awake::Called(call)),
                None => cpu::work_of_the_idle().map(Awake::HasWork),
            });
        match reason {
            Some(Awake::Called(call)) => take(here, call),
            Some(Awake::HasWork(work)) => (work.run)(),
            None => {}
        }
    }
}

/// Why a CPU that serves does not sleep.
enum Awake {
    /// Somebody has put this into its slot.
    Called(NonNull<Call>),
    /// It can do this meanwhile.
    HasWork(&'static cpu::DeferredWork),
}

/// Wakes another CPU that has nothing to do, if there is one, so that it looks for deferred work. Any context, under no lock of the
/// interrupt controller.
pub fn wake_an_idle_one() {
    let here = cpu::id();
    let serving = NUMBERS.into_iter().filter(|&cpu| cpu != 0 && cpu != here && is_up(cpu));
    let mut idle = serving.filter(|&cpu| {
        let block = per_cpu::of(cpu);
        block.is_some_and(|block| block.slot.0.load(Ordering::Relaxed).is_null())
    });
    if let Some(cpu) = idle.next() {
        ring(Bell::Of(cpu));
    }
}

fn take(here: &CpuBlock, call: NonNull<Call>) {
    here.beats.fetch_add(1, Ordering::Relaxed);
    // SAFETY: whoever put it there waits for `done` before it takes the call away.
    let Call { run, work, done } = unsafe { call.as_ref() };
    // SAFETY: the call was put into this CPU's slot once, and the slot is emptied before anybody learns that it is done.
    unsafe { run(*work) };
    here.beats.fetch_add(1, Ordering::Relaxed);
    here.slot.0.store(ptr::null_mut(), Ordering::Relaxed);
    done.store(1, Ordering::Release);
}

/// Says how bells are rung. The interrupt's handler calls [`stop_if_ended`]. To be set before any work is given; the first
/// one counts.
pub fn set_bells(ring: fn(Bell)) {
    RING.call_once(|| ring);
}

fn ring(bell: Bell) {
    if let Some(ring) = RING.get() {
        ring(bell);
    }
}

/// Whether the CPU with this number is the boot CPU or serves.
pub fn is_up(cpu: u32) -> bool {
    cpu == 0 || per_cpu::of(cpu).is_some_and(|block| block.state.load(Ordering::Acquire) == ALIVE)
}

/// The numbers of the CPUs that are up, ascending.
pub fn up() -> impl Iterator<Item = u32> + Clone {
    NUMBERS.into_iter().filter(|&cpu| is_up(cpu))
}

/// Waits until every CPU below `count` is up. `Err` names the first that does not come.
///
/// # Errors
/// Its number, after [`PATIENCE`] polls.
pub fn await_up(count: u32) -> Result<(), u32> {
    for cpu in 1..count {
        let mut left = PATIENCE;
        while !is_up(cpu) {
            left = left.checked_sub(1).ok_or(cpu)?;
            cpu::relax();
        }
    }
    Ok(())
}

/// Says that this CPU goes on, to those who wait for it: for work that takes long.
pub fn beat() {
    per_cpu::this().beats.fetch_add(1, Ordering::Relaxed);
}

// --- Work for a chosen CPU ---------------------------------------------------------------------------------------------

/// Work and its result, on the caller's stack.
struct Job<F, R> {
    work: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<R>>,
}

impl<F: FnOnce() -> R, R> Job<F, R> {
    /// # Safety
    /// `job` points to a `Job<F, R>` that nobody else uses until this has returned.
    unsafe fn run(job: *mut ()) {
        // SAFETY: by the caller's promise.
        let job = unsafe { &*job.cast::<Self>() };
        // SAFETY: nobody else uses it.
        let work = unsafe { (*job.work.get()).take() };
        if let Some(work) = work {
            let result = work();
            // SAFETY: as above.
            unsafe { *job.result.get() = Some(result) };
        }
    }
}

/// Runs `work` on the CPU with this number and waits for its result. On this CPU it is a plain call.
///
/// Neither allocates nor sleeps: it polls. Work that waits for the caller in turn, or calls back, never ends.
///
/// # Errors
/// [`CallError`]; `work` was dropped.
///
/// # Panics
/// If the CPU makes no progress ([`PATIENCE`], [`beat`]).
pub fn run_on<R: Send>(cpu: u32, work: impl FnOnce() -> R + Send) -> Result<R, CallError> {
    if cpu == cpu::id() {
        return Ok(work());
    }
    let target = serving(cpu)?;
    let job = Job { work: UnsafeCell::new(Some(work)), result: UnsafeCell::new(None) };
    let call = call_of(&job);
    // SAFETY: `job` and `call` live until `finish` has returned.
    unsafe { begin(target, &call) };
    finish(target, &call);
    Ok(job.result.into_inner().expect("a call that is done has a result"))
}

/// Runs `work`, with its CPU's number, on every CPU that is up and on this one, at the same time, and waits for all.
///
/// # Panics
/// As [`run_on`].
pub fn run_on_each(work: impl Fn(u32) + Sync) {
    let here = cpu::id();
    let work = &work;
    let jobs = NUMBERS.map(|cpu| {
        let job = move || work(cpu);
        Job { work: UnsafeCell::new(Some(job)), result: UnsafeCell::new(None) }
    });
    let calls = jobs.each_ref().map(call_of);
    // Asked once: a CPU that comes up meanwhile has no part in this.
    let targets = NUMBERS.map(|cpu| serving(cpu).ok().filter(|_| cpu != here));
    let others =
        || targets.iter().zip(&calls).filter_map(|(target, call)| Some(((*target)?, call)));
    for (target, call) in others() {
        // SAFETY: `jobs` and `calls` live until each `finish` has returned, and a panic does not unwind.
        unsafe { begin(target, call) };
    }
    work(here);
    others().for_each(|(target, call)| finish(target, call));
}

fn call_of<F: FnOnce() -> R, R>(job: &Job<F, R>) -> Call {
    Call {
        run: Job::<F, R>::run,
        work: ptr::from_ref(job).cast_mut().cast(),
        done: AtomicU32::new(0),
    }
}

fn serving(cpu: u32) -> Result<&'static CpuBlock, CallError> {
    let block = per_cpu::of(cpu).filter(|_| cpu != 0 && is_up(cpu));
    block.ok_or(CallError::NotServing { cpu })
}

/// Puts `call` into the slot of `target`, as soon as that is empty.
///
/// # Safety
/// The call, and what it points to, live until [`finish`] of it has returned.
unsafe fn begin(target: &CpuBlock, call: &Call) {
    let call = ptr::from_ref(call).cast_mut();
    wait_until(target, "to take a call", || {
        let put = target.slot.0.compare_exchange(
            ptr::null_mut(),
            call,
            Ordering::Release,
            Ordering::Relaxed,
        );
        put.is_ok()
    });
    ring(Bell::Of(target.number));
}

/// Waits until `call` is done.
fn finish(target: &CpuBlock, call: &Call) {
    wait_until(target, "to finish a call", || call.done.load(Ordering::Acquire) == 1);
}

/// Polls `condition` as long as `target` makes progress.
fn wait_until(target: &CpuBlock, what: &str, mut condition: impl FnMut() -> bool) {
    let (mut beats, mut left) = (target.beats.load(Ordering::Relaxed), PATIENCE);
    while !condition() {
        stop_if_ended();
        let now = target.beats.load(Ordering::Relaxed);
        if now != beats {
            (beats, left) = (now, PATIENCE);
        }
        assert!(left > 0, "CPU {} waited in vain for CPU {} {what}", cpu::id(), target.number);
        left -= 1;
        cpu::relax();
    }
}

// --- The end -----------------------------------------------------------------------------------------------------------

/// Begins the end of the kernel. The first CPU to call this has the say, and may call it again; it does not return to
/// any other, which stops.
///
/// For panic handlers and reports of exceptions, before they print. The others stop at once, or when they next unmask
/// their interrupts or wait for another CPU; that is waited for, so that none is in the middle of a line, but not for ever.
pub fn end_of_all() {
    let here = cpu::id();
    let first = ENDED_BY.compare_exchange(NOBODY, here, Ordering::AcqRel, Ordering::Acquire);
    match first {
        Ok(_) => {}
        Err(by) if by == here => return,
        Err(_) => stop(),
    }
    let mut left = PATIENCE_AT_THE_END;
    while left > 0 && still_running().next().is_some() {
        // Again and again: it is not rung while another CPU has what it is rung by.
        if left.is_multiple_of(POLLS_FOR_A_BELL) {
            ring(Bell::AllOthersAtTheEnd);
        }
        left -= 1;
        cpu::relax();
    }
}

/// Polls after which the end goes on although a CPU has not stopped.
const PATIENCE_AT_THE_END: u32 = 1 << 26;
/// Polls after which the bell is rung once more.
const POLLS_FOR_A_BELL: u32 = 1 << 12;

/// The CPUs, other than this one, that were up and have not stopped for good, ascending.
pub fn still_running() -> impl Iterator<Item = u32> {
    let here = cpu::id();
    up().filter(move |&cpu| cpu != here && !has_stopped(cpu))
}

fn has_stopped(cpu: u32) -> bool {
    per_cpu::of(cpu).is_some_and(|block| block.state.load(Ordering::Acquire) == STOPPED)
}

/// Whether any CPU but the boot CPU has ever been up.
pub fn are_several() -> bool {
    NUMBERS.into_iter().any(|cpu| cpu != 0 && (is_up(cpu) || has_stopped(cpu)))
}

/// Stops this CPU for good if another one has ended the kernel. For loops that wait.
#[inline]
pub fn stop_if_ended() {
    let by = ENDED_BY.load(Ordering::Relaxed);
    if by != NOBODY && by != cpu::id() {
        stop();
    }
}

/// Stops this CPU for good.
fn stop() -> ! {
    per_cpu::this().state.store(STOPPED, Ordering::Release);
    cpu::halt()
}
