//! User mode: to run a program, and to copy from and to its memory.
//!
//! ```text
//!   run ──▶ user_enter ──▶ the program ──┬─ SVC, a fault ──▶ leave ──▶ user_return ──▶ run says which
//!                               ▲        │
//!                               └────────┴─ an interrupt: handled, and the program goes on
//! ```
//!
//! Which memory is the program's is the business of whoever opens an address space ([`machine`]). While none is open, the lower
//! half does not translate: walks are forbidden (TTBCR.PD0), and the number of the address space is the kernel's, so that what
//! the TLB still holds of programs does not serve. Every exception closes what was open until it is over ([`Suspended`]): a
//! handler of an interrupt cannot reach a program's memory, even if it came in the middle of a copy.

mod copy;
mod machine;

use aarch32_cpu::register::Cpsr;
use kerncore::addr::VirtAddr;

use crate::cp15::{self, Contextidr, SysRegRead, Teecr, Tpidruro, Tpidrurw, Ttbcr};
use crate::exception::{Fault, Frame, Kind, Mode};
use crate::{barrier, cpu, irq};

pub use copy::{CopyFault, copy_from, copy_to};

core::arch::global_asm!(include_str!("enter.S"), options(raw));

unsafe extern "C" {
    /// Runs the program whose state is in the frame, until it calls or faults, whose state then is there.
    fn user_enter(frame: *mut Frame);
    static user_return: u8;
}

/// What of CPSR is a program's own: flags, GE, both halves of the IT state, endianness, Thumb (ARM ARM B1.3.3).
const OWN: u32 = 0xfe0f_fe20;
/// CPSR.A, I and F: asynchronous aborts, interrupts and fast interrupts are masked.
const MASKS: u32 = 0x0000_01c0;
/// CPSR.T: Thumb code.
const THUMB: u32 = 1 << 5;

/// The registers of a program while it does not run.
#[derive(Clone, Debug)]
pub struct UserContext {
    frame: Frame,
    /// TPIDRURW, which programs may write.
    thread: u32,
}

/// Why a program does not run any more. It can be run on from where it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It executed an SVC, and its next instruction is the one behind it.
    SystemCall,
    /// It did what it may not, and would do so again.
    Fault(Fault),
}

impl UserContext {
    /// A program that is to begin at `entry` (in Thumb state, if bit 0 is set) with its stack at `stack`, and all other registers
    /// zero.
    pub fn new(entry: VirtAddr, stack: VirtAddr) -> Self {
        let thumb = if entry.raw() & 1 == 0 { 0 } else { THUMB };
        Self { frame: Frame::of_program(entry.raw() & !1, stack.raw(), thumb), thread: 0 }
    }

    /// r0 to r12.
    pub const fn registers(&self) -> &[u32; 13] {
        &self.frame.registers
    }

    /// r0 to r12, to be changed: a call's answer goes to r0.
    pub const fn registers_mut(&mut self) -> &mut [u32; 13] {
        &mut self.frame.registers
    }

    /// The next instruction.
    pub const fn pc(&self) -> VirtAddr {
        VirtAddr::new(self.frame.pc)
    }

    /// The SVC that it has just executed: where it lies, and how many bytes it has.
    pub const fn last_call(&self) -> (VirtAddr, u32) {
        let bytes = if self.frame.cpsr & THUMB == 0 { 4 } else { 2 };
        (VirtAddr::new(self.frame.pc.wrapping_sub(bytes)), bytes)
    }
}

/// Runs the program until it traps. Interrupts that are not masked here are not masked there, and are handled
/// meanwhile.
///
/// What it can reach is what this CPU translates for User mode: with no address space open, nothing, so that it faults at
/// once. None is open when this returns.
///
/// # Panics
/// In any mode but the kernel's own: the way back leads through its stack.
pub fn run(context: &mut UserContext) -> Trap {
    assert_eq!(cpu::mode(), Mode::Supervisor, "only the kernel itself runs programs");
    let masks = Cpsr::read().raw_value() & MASKS;
    let UserContext { frame, thread } = context;
    frame.cpsr = frame.cpsr & OWN | masks | MODE_USER;
    irq::masked(|| {
        give_thread_registers(*thread);
        // SAFETY: the frame is the caller's alone. The program runs unprivileged: what it can write is mapped for programs, and
        // nothing that Rust sees as its own is. On return every register that a callee keeps is as it was.
        unsafe { user_enter(frame) };
        *thread = Tpidrurw::read().0;
    });
    match frame.fault() {
        Some(fault) => Trap::Fault(fault),
        None => Trap::SystemCall,
    }
}

/// Gives the program the registers that are not in its frame: nothing of another's is left in any. (No program has a
/// floating-point unit: CPACR forbids it.)
fn give_thread_registers(thread: u32) {
    // SAFETY: it is the program's alone.
    unsafe { Tpidrurw::write(Tpidrurw(thread)) };
    // SAFETY: it is programs' to read, and the kernel has no use for it.
    unsafe { Tpidruro::write(Tpidruro(0)) };
    Teecr::forbid();
}

/// CPSR.M of User mode, and of the kernel's own.
const MODE_USER: u32 = 0x10;
const MODE_SUPERVISOR: u32 = 0x13;

/// If `frame` is an exception that ends a program's run, stores it for [`run`] and makes the dispatcher go there. Called
/// with interrupts masked, in the exception's mode.
pub(crate) fn leave(frame: &mut Frame) -> bool {
    if frame.mode() != Mode::User || matches!(frame.kind(), Kind::Irq | Kind::Fiq) {
        return false;
    }
    let base: *const *mut Frame = match frame.kind() {
        // The frame lies on that very stack.
        Kind::SupervisorCall => (&raw const *frame).wrapping_add(1).cast(),
        _ => core::ptr::with_exposed_provenance(supervisor_stack() as usize),
    };
    // SAFETY: there is no way to User mode but `user_enter`, which has left the program's frame where SP points, and this CPU's
    // supervisor stack has not moved since.
    let context = unsafe { base.read() };
    // SAFETY: it is the frame that `run` has lent to `user_enter`, and still lends.
    unsafe { context.write(frame.clone()) };
    frame.pc = (&raw const user_return) as u32;
    frame.sp = base as u32;
    frame.cpsr = MODE_SUPERVISOR | Cpsr::read().raw_value() & MASKS;
    true
}

/// Supervisor mode's SP, read in another mode. Interrupts are masked.
fn supervisor_stack() -> u32 {
    let sp;
    // SAFETY: goes to supervisor mode for one instruction and comes back; nothing uses a stack meanwhile. No `nomem`, so that it
    // stays where it is.
    unsafe {
        core::arch::asm!(
            "mrs {cpsr}, cpsr",
            "cps #0x13",
            "mov {sp}, sp",
            "msr cpsr_c, {cpsr}",
            cpsr = out(reg) _,
            sp = out(reg) sp,
            // Neither of the two may be LR, of which each mode has another.
            out("lr") _,
            options(nostack, preserves_flags)
        );
    }
    sp
}

/// What was open when an exception came: nothing, or the address space with this number.
#[derive(Debug)]
#[must_use = "what was open stays closed"]
pub(crate) struct Suspended(Option<u32>);

/// Closes a program's memory, if it is open.
#[inline(always)]
pub(crate) fn suspend() -> Suspended {
    let ttbcr = Ttbcr::read();
    if ttbcr.pd0() { Suspended(None) } else { Suspended(Some(close(ttbcr))) }
}

impl Suspended {
    /// Opens it again.
    #[inline(always)]
    pub(crate) fn resume(self) {
        if let Some(context) = self.0 {
            reopen(context);
        }
    }
}

#[cold]
fn close(ttbcr: Ttbcr) -> u32 {
    let context = Contextidr::read_raw();
    // SAFETY: the kernel lies in the upper half, whose walks stay allowed.
    unsafe { ttbcr.without_ttbr0_walks().write() };
    change_number(0);
    context
}

#[cold]
fn reopen(context: u32) {
    change_number(context);
    // SAFETY: TTBR0 is as it was when walks were allowed before.
    unsafe { Ttbcr::read().with_ttbr0_walks().write() };
}

/// Walks of the lower half are forbidden: no entry is read under the wrong number. The barrier before it is for erratum 754322
/// of the A9, a walk that is under way when the number changes.
fn change_number(context: u32) {
    barrier::dsb();
    // SAFETY: entries of the kernel are global, and serve whatever the number is.
    unsafe { cp15::issue::<Contextidr>(context) };
    barrier::isb();
}
