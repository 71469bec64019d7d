//! From the IRQ exception to the driver that is concerned.
//!
//! ```text
//!   IRQ ──▶ serve() ──▶ take from this CPU's interface ──▶ the line's handler ──▶ finish ─┐
//!                         ▲                                                               │
//!                         └────────────────── until none waits ───────────────────────────┘
//! ```
//!
//! A handler runs in interrupt context on the CPU that took the interrupt, with IRQs masked (S115). It may use locks,
//! the atomic pool and `vfree_atomic`; it may not make or remove areas (S10, S35), and it may not wait. An interrupt that nobody
//! registered for is switched off at its line and said, so that it cannot come for ever.
//!
//! The lock of the controller is held for single steps, never while a handler runs.

use core::fmt;
use core::sync::atomic::{AtomicU16, Ordering};

use arch::cpu;
use arch::lock::IrqSpinLock;
use arch::per_cpu::PerCpu;
use arch::smp;
use kerncore::lock::Class;
use mm::io_mem::IoMem;

use crate::gic::{
    CpuInterface, CpuInterfaceRegisters, Distributor, DistributorRegisters, FIRST_SHARED,
    NoSuchLine, Receivers, SOFTWARE_LINES,
};

/// Lines that may have handlers: more than the board's controller has.
const MAX_LINES: usize = 128;
/// Of [`RUNNING`]: the CPU runs no handler.
const NONE: u16 = u16::MAX;

/// What runs when its line's interrupt is taken. It makes the device lower the line, or the interrupt comes again.
pub trait Handler: Sync {
    /// Called in interrupt context.
    fn handle(&self);
}

impl<F: Fn() + Sync> Handler for F {
    fn handle(&self) {
        self();
    }
}

struct Controller {
    distributor: Distributor,
    handlers: [Option<&'static dyn Handler>; MAX_LINES],
    /// Of the lines that each CPU has of its own, by bits: the CPUs that may still let one through which was unregistered on
    /// another, for each reaches its own bank alone. They switch it off when it comes.
    left_on: [u8; FIRST_SHARED as usize],
}

static CONTROLLER: IrqSpinLock<Option<Controller>> =
    IrqSpinLock::new(Class::InterruptController, None);
/// Each used by its own CPU alone, so nobody ever waits for these locks.
static INTERFACES: PerCpu<IrqSpinLock<Option<CpuInterface>>> =
    PerCpu::new([const { IrqSpinLock::new(Class::InterruptInterface, None) }; cpu::MAX_CPUS]);
/// The line whose handler each CPU runs.
static RUNNING: PerCpu<AtomicU16> = PerCpu::new([const { AtomicU16::new(NONE) }; cpu::MAX_CPUS]);

/// Why an interrupt's handler was not registered, or its line not changed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptError {
    /// Nobody has started the controller.
    NotStarted,
    /// The controller has been started already.
    Started,
    /// There is no such line.
    Line(NoSuchLine),
    /// The line has a handler.
    Taken {
        /// The line.
        line: u16,
    },
    /// The line has no handler.
    Free {
        /// The line.
        line: u16,
    },
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("the interrupt controller is not started"),
            Self::Started => f.write_str("the interrupt controller is started already"),
            Self::Line(error) => error.fmt(f),
            Self::Taken { line } => write!(f, "interrupt {line} has a handler already"),
            Self::Free { line } => write!(f, "interrupt {line} has no handler"),
        }
    }
}

impl core::error::Error for InterruptError {}

/// Takes the distributor over, with every line off. Where one may sleep; once.
///
/// # Errors
/// [`InterruptError::Started`].
pub fn start(registers: IoMem<DistributorRegisters>) -> Result<(), InterruptError> {
    // Taken out under the lock, so that of two who start the second touches nothing; given back, if so, outside of it.
    let mut registers = Some(registers);
    CONTROLLER.with(|controller| {
        if controller.is_some() {
            return Err(InterruptError::Started);
        }
        *controller = registers.take().map(|registers| Controller {
            distributor: Distributor::new(registers),
            handlers: [None; MAX_LINES],
            left_on: [0; FIRST_SHARED as usize],
        });
        Ok(())
    })
}

/// Lets interrupts through to this CPU, whose IRQs are still masked. Where one may sleep; once a CPU.
///
/// # Errors
/// [`InterruptError::NotStarted`], or [`InterruptError::Started`] for this CPU.
pub fn start_cpu(registers: IoMem<CpuInterfaceRegisters>) -> Result<(), InterruptError> {
    let mut registers = Some(registers);
    with_controller(|controller| {
        INTERFACES.here().with(|interface| {
            if interface.is_some() {
                return Err(InterruptError::Started);
            }
            controller.distributor.start_cpu();
            *interface = registers.take().map(CpuInterface::new);
            Ok(())
        })
    })
}

/// Registers `handler` for `line` and lets the line through, a shared one to this CPU. Any context.
///
/// # Errors
/// [`InterruptError`].
pub fn register(line: u16, handler: &'static dyn Handler) -> Result<(), InterruptError> {
    with_controller(|controller| {
        let place = controller.place(line)?;
        if place.is_some() {
            return Err(InterruptError::Taken { line });
        }
        *place = Some(handler);
        controller.let_through_here(line)
    })
}

/// Switches `line` off and forgets its handler, which no CPU runs any more on return. Where one may sleep: it waits for whoever
/// runs the handler, and of two handlers that wait for each other neither ends.
///
/// A line that each CPU has of its own is switched off here at once, and on another CPU when it next comes there, in silence. The
/// line's next handler runs on a CPU that calls [`register`] or [`enable_here`] after this, and on no other.
///
/// # Errors
/// [`InterruptError`].
///
/// # Panics
/// In interrupt context, or with interrupts masked.
pub fn unregister(line: u16) -> Result<(), InterruptError> {
    assert!(
        cpu::may_sleep(),
        "an interrupt is unregistered with interrupts masked, or in a handler"
    );
    with_controller(|controller| {
        if controller.place(line)?.take().is_none() {
            return Err(InterruptError::Free { line });
        }
        if let Some(cpus) = controller.left_on_by(line) {
            *cpus = !bit_of(cpu::id());
        }
        controller.distributor.disable(line).map_err(InterruptError::Line)
    })?;
    for running in RUNNING.iter() {
        while running.load(Ordering::Acquire) == line {
            smp::stop_if_ended();
            cpu::relax();
        }
    }
    Ok(())
}

/// Lets `line`, which has a handler, through to this CPU as well if it is one that each CPU has of its own.
///
/// # Errors
/// [`InterruptError`].
pub fn enable_here(line: u16) -> Result<(), InterruptError> {
    with_controller(|controller| {
        if controller.place(line)?.is_none() {
            return Err(InterruptError::Free { line });
        }
        controller.let_through_here(line)
    })
}

/// Raises software interrupt `line` at `receivers`. What was written before is seen by its handler. Any context.
///
/// # Errors
/// [`InterruptError`].
pub fn send(line: u16, receivers: Receivers) -> Result<(), InterruptError> {
    with_controller(|controller| {
        controller.distributor.send(line, receivers).map_err(InterruptError::Line)
    })
}

/// As [`send`], but waits for no lock: for the end of the kernel, which may have come under one. False if it was not sent.
pub fn try_send(line: u16, receivers: Receivers) -> bool {
    let sent = CONTROLLER.try_with(|controller| {
        controller.as_mut().map(|controller| controller.distributor.send(line, receivers))
    });
    matches!(sent, Some(Some(Ok(()))))
}

/// Runs `use_distributor` with the controller: for what the calls above do not say. Any context.
///
/// # Errors
/// [`InterruptError::NotStarted`].
pub fn with_distributor<R>(
    use_distributor: impl FnOnce(&mut Distributor) -> R,
) -> Result<R, InterruptError> {
    with_controller(|controller| Ok(use_distributor(&mut controller.distributor)))
}

/// How many lines have a handler. Any context.
pub fn registered() -> usize {
    CONTROLLER.with(|controller| {
        let handlers = controller.as_ref().map(|controller| &controller.handlers);
        handlers.map_or(0, |handlers| handlers.iter().flatten().count())
    })
}

/// Serves what waits on this CPU. Called by the image when an IRQ is taken, in its mode, with IRQs masked.
pub fn serve() {
    let (interface, running) = (INTERFACES.here(), RUNNING.here());
    while let Some(taken) = interface.with(|interface| interface.as_mut()?.take()) {
        let line = taken.line();
        // Noted and looked up in one critical section, so that `unregister`, which waits for who is noted, misses nobody; and
        // switched off in the same, or one that was registered since would be.
        let called = CONTROLLER.with(|controller| {
            running.store(line, Ordering::Relaxed);
            controller.as_mut().map(|controller| controller.answer(line))
        });
        match called {
            Some(Called::Handler(handler)) => handler.handle(),
            Some(Called::Nobody(off)) => nobody_waits_for(line, off),
            Some(Called::NobodyAnyMore) | None => {}
        }
        running.store(NONE, Ordering::Release);
        interface.with(|interface| {
            if let Some(interface) = interface {
                interface.finish(taken);
            }
        });
    }
}

#[cold]
fn nobody_waits_for(line: u16, off: Result<(), NoSuchLine>) {
    log::error!("interrupt {line} has no handler; switched off: {off:?}");
}

/// Whose an interrupt is that this CPU has taken.
enum Called {
    Handler(&'static dyn Handler),
    /// Nobody's, and never was: it is switched off, if it can be.
    Nobody(Result<(), NoSuchLine>),
    /// It was on its way when it was unregistered, and is off.
    NobodyAnyMore,
}

/// The bit of a CPU in [`Controller::left_on`].
const fn bit_of(cpu: u32) -> u8 {
    1_u8.wrapping_shl(cpu)
}

impl Controller {
    /// What to do about `line`, which this CPU has taken.
    fn answer(&mut self, line: u16) -> Called {
        let here = bit_of(cpu::id());
        if let Some(cpus) = self.left_on_by(line)
            && *cpus & here != 0
        {
            *cpus &= !here;
            // There is such a line, for it had a handler.
            let _off = self.distributor.disable(line);
            return Called::NobodyAnyMore;
        }
        match self.handlers.get(usize::from(line)).copied().flatten() {
            Some(handler) => Called::Handler(handler),
            None if self.distributor.is_enabled(line) == Ok(false) => Called::NobodyAnyMore,
            None => Called::Nobody(self.distributor.disable(line)),
        }
    }

    /// The CPUs that may still let `line` through, if each has one of its own that it can switch off: of those that CPUs raise,
    /// whoever raises one says where it goes.
    fn left_on_by(&mut self, line: u16) -> Option<&mut u8> {
        let lines = SOFTWARE_LINES..FIRST_SHARED;
        lines.contains(&line).then(|| self.left_on.get_mut(usize::from(line))).flatten()
    }

    fn let_through_here(&mut self, line: u16) -> Result<(), InterruptError> {
        if let Some(cpus) = self.left_on_by(line) {
            *cpus &= !bit_of(cpu::id());
        }
        self.distributor.enable(line, cpu::id()).map_err(InterruptError::Line)
    }

    fn place(&mut self, line: u16) -> Result<&mut Option<&'static dyn Handler>, InterruptError> {
        let lines = self.distributor.lines();
        let there = self.handlers.get_mut(usize::from(line)).filter(|_| line < lines);
        there.ok_or(InterruptError::Line(NoSuchLine { line, lines }))
    }
}

fn with_controller<R>(
    section: impl FnOnce(&mut Controller) -> Result<R, InterruptError>,
) -> Result<R, InterruptError> {
    CONTROLLER.with(|controller| match controller {
        Some(controller) => section(controller),
        None => Err(InterruptError::NotStarted),
    })
}
