//! The only way of the kernel to a program's memory.

use core::fmt;

use aarch32_cpu::register::Cpsr;
use kerncore::addr::VirtAddr;

use crate::exception::{Fault, Kind};

core::arch::global_asm!(include_str!("copy.S"), options(raw));

/// A copy ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFault {
    /// What was refused.
    pub fault: Fault,
    /// How many bytes were copied before.
    pub copied: usize,
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} bytes: {}", self.copied, self.fault)
    }
}

impl core::error::Error for CopyFault {}

/// Calls one of the routines in `copy.S`.
macro_rules! copy {
    ($routine:literal, $kernel:expr, $user:expr, $bytes:expr) => {{
        let (status, vector, address, pc, left): (u32, u32, u32, u32, u32);
        core::arch::asm!(
            concat!("bl ", $routine),
            inlateout("r0") $kernel => status,
            inlateout("r1") $user.raw() => vector,
            inlateout("r2") $bytes => address,
            lateout("r3") pc,
            lateout("r12") left,
            out("lr") _,
        );
        Outcome { status, vector, address, pc, left }
    }};
}

struct Outcome {
    status: u32,
    /// 0, or the number of the vector that the fault came by.
    vector: u32,
    address: u32,
    pc: u32,
    /// Bytes that were not copied.
    left: u32,
}

impl Outcome {
    fn of(self, bytes: usize) -> Result<(), CopyFault> {
        if self.vector == 0 {
            return Ok(());
        }
        let (kind, cpsr) = (Kind::from_vector(self.vector), Cpsr::read().raw_value());
        match Fault::decode(kind, self.status, self.address, self.pc, cpsr) {
            Some(fault) => Err(CopyFault { fault, copied: bytes - self.left as usize }),
            None => Ok(()),
        }
    }
}

/// Fills `to` from the program's memory at `from`, which must be open on this CPU and readable to the program.
///
/// # Errors
/// [`CopyFault`]; what was copied before is in `to`.
pub fn copy_from(to: &mut [u8], from: VirtAddr) -> Result<(), CopyFault> {
    // SAFETY: writes to `to` only. It reads with a program's rights, so nothing that the kernel alone may read; a fault comes back
    // as a value.
    let outcome = unsafe { copy!("user_copy_from", to.as_mut_ptr(), from, to.len()) };
    outcome.of(to.len())
}

/// Writes `from` to the program's memory at `to`, which must be open on this CPU and writable to the program.
///
/// # Errors
/// [`CopyFault`]; what was copied before is there.
pub fn copy_to(to: VirtAddr, from: &[u8]) -> Result<(), CopyFault> {
    // SAFETY: reads `from` only. It writes with a program's rights, so nothing that Rust sees as its own; a fault comes back as a
    // value.
    let outcome = unsafe { copy!("user_copy_to", from.as_ptr(), to, from.len()) };
    outcome.of(from.len())
}
