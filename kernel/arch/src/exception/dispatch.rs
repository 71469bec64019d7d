//! From the vectors to whoever is concerned.

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, Ordering};

use kerncore::addr::VirtAddr;

use super::frame::{Frame, Kind, Mode};
use super::status::FaultStatus;
use crate::cp15::{Dfar, Dfsr, Ifar, Ifsr};
use crate::{backtrace, cpu, probe, semihosting, smp, symbols, user};

/// The code that an image exits with when an exception could not even be reported.
const EXIT_UNEXPECTED_EXCEPTION: u32 = 102;
/// How much of a backtrace belongs to last words: an exhausted stack's is long and all alike.
const LAST_CALLS: usize = 16;

unsafe extern "C" {
    /// What the kernel does about an exception that no probe waits for. The image defines it, as it defines
    /// `#[panic_handler]`.
    ///
    /// Called in the exception's mode, on that mode's stack, with interrupts masked. On return the frame, with
    /// whatever was changed in it, is resumed; for a fault this repeats the access.
    safe fn kernel_exception(frame: &mut Frame);
}

/// Called by `exception_common` with the frame it has just stored.
#[unsafe(no_mangle)]
extern "C" fn exception_dispatch(frame: &mut Frame) {
    // The status registers are read before anything else can fault and overwrite them.
    match frame.kind() {
        Kind::DataAbort => {
            frame.fault_status = Dfsr::read().raw_value();
            frame.fault_address = Dfar::read().0;
        }
        Kind::PrefetchAbort => {
            frame.fault_status = Ifsr::read().raw_value();
            frame.fault_address = Ifar::read().0;
        }
        Kind::Undefined | Kind::SupervisorCall | Kind::Irq | Kind::Fiq => {}
    }
    // Nothing from here on reaches a program's memory, whoever was interrupted.
    let suspended = user::suspend();
    // A program first: whatever its registers look like, it is no probe, and no host's either.
    if user::leave(frame) {
        return;
    }
    handle(frame);
    suspended.resume();
}

/// What the kernel itself has caused, or an interrupt.
fn handle(frame: &mut Frame) {
    match frame.kind() {
        Kind::SupervisorCall | Kind::Irq | Kind::Fiq => return kernel_exception(frame),
        Kind::Undefined if semihosting::answer_without_host(frame) => return,
        Kind::Undefined | Kind::DataAbort | Kind::PrefetchAbort => {}
    }
    if probe::resolve(frame) {
        return;
    }
    if matches!(frame.mode(), Mode::Abort | Mode::Undefined) {
        let kind = frame.kind();
        last_words(format_args!("fault while a fault was handled: {kind:?}"), frame);
    }
    kernel_exception(frame);
}

/// Called when the stack of an exception's mode had no room for a frame.
#[unsafe(no_mangle)]
extern "C" fn exception_stack_exhausted(lr: u32, sp: u32, cpsr: u32, frame_pointer: u32) -> ! {
    let mut registers = [0; 13];
    registers[11] = frame_pointer;
    let frame = Frame {
        registers,
        sp,
        lr,
        fault_status: Dfsr::read().raw_value(),
        fault_address: Dfar::read().0,
        kind: Kind::DataAbort as u32,
        pc: lr,
        cpsr,
    };
    last_words(format_args!("no room for a frame on the stack of an exception's mode"), &frame)
}

/// Whether last words were begun already.
static SPEAKING: AtomicBool = AtomicBool::new(false);

/// Says what can be said without the kernel's reporter, in whose way the fault may lie, and ends.
fn last_words(what: fmt::Arguments<'_>, frame: &Frame) -> ! {
    smp::end_of_all();
    // They fault themselves: then silence, but no loop of faults.
    if SPEAKING.swap(true, Ordering::Relaxed) {
        cpu::halt();
    }
    // A failure to write changes nothing about what comes next.
    let _ = writeln!(
        semihosting::Console,
        "\n{what}\nfault registers: {} (status {:#x}) at {}\n{frame}",
        FaultStatus::from_register(frame.fault_status),
        frame.fault_status,
        VirtAddr::new(frame.fault_address),
    );
    for call in backtrace::from_frame(frame).take(LAST_CALLS) {
        let _ = match symbols::lookup(call) {
            Some(symbol) => writeln!(semihosting::Console, "  {call} {symbol}"),
            None => writeln!(semihosting::Console, "  {call}"),
        };
    }
    semihosting::exit(EXIT_UNEXPECTED_EXCEPTION);
    cpu::halt()
}
