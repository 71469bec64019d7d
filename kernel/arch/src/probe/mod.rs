//! Accesses that may fault, and say so instead.
//!
//! ```text
//!   read_u32(address) ──▶ probe_read_u32: ldr r0, [r0]   ── no fault ──▶ Ok(value)
//!                                              │ abort
//!                         resolve(frame): the instruction is in the exception table,
//!                                         go on at its fixup, the fault in registers ──▶ Err(Fault)
//! ```
//!
//! Where an access stands in the text says that it may fault, so there is nothing to arm or disarm: a probe works
//! in any context, with interrupts on or off, in a handler, on any CPU, any number of times.

use aarch32_cpu::register::Cpsr;
use kerncore::addr::VirtAddr;

use crate::exception::{Fault, Kind};

mod resolve;

pub(crate) use resolve::resolve;

core::arch::global_asm!(include_str!("probe.S"), options(raw));

/// What an access that may fault leaves in r0 to r3.
struct Outcome {
    /// The value read, or DFSR or IFSR.
    value_or_status: u32,
    /// 0, or the number of the vector that the fault came by.
    vector: u32,
    fault_address: u32,
    pc: u32,
}

impl Outcome {
    fn into_result(self) -> Result<u32, Fault> {
        if self.vector == 0 {
            return Ok(self.value_or_status);
        }
        let kind = Kind::from_vector(self.vector);
        let cpsr = Cpsr::read().raw_value();
        Fault::decode(kind, self.value_or_status, self.fault_address, self.pc, cpsr)
            .map_or(Ok(self.value_or_status), Err)
    }
}

/// Calls one of the routines in `probe.S`.
macro_rules! probe {
    ($routine:literal, $address:expr, $value:expr) => {{
        let (value_or_status, vector, fault_address, pc): (u32, u32, u32, u32);
        core::arch::asm!(
            concat!("bl ", $routine),
            inlateout("r0") $address.raw() => value_or_status,
            inlateout("r1") $value => vector,
            lateout("r2") fault_address,
            lateout("r3") pc,
            out("r12") _,
            out("lr") _,
        );
        Outcome { value_or_status, vector, fault_address, pc }
    }};
}

/// Reads one byte.
///
/// Reading has no effect on memory; that reading a device register may have one on the device is for the caller to
/// consider.
///
/// # Errors
/// The fault that a load there takes.
pub fn read_u8(address: VirtAddr) -> Result<u8, Fault> {
    // SAFETY: the routine makes one load, which cannot break what Rust relies on; a fault comes back as a value.
    let outcome = unsafe { probe!("probe_read_u8", address, 0_u32) };
    outcome.into_result().map(|value| (value & 0xff) as u8)
}

/// Reads one word; as [`read_u8`].
///
/// # Errors
/// The fault that a load there takes; an alignment fault if `address` is not a multiple of four.
pub fn read_u32(address: VirtAddr) -> Result<u32, Fault> {
    // SAFETY: as in `read_u8`.
    let outcome = unsafe { probe!("probe_read_u32", address, 0_u32) };
    outcome.into_result()
}

/// Writes one byte.
///
/// # Safety
/// If the store succeeds, nothing may be relied upon that it changes.
///
/// # Errors
/// The fault that a store there takes; then nothing was written.
pub unsafe fn write_u8(address: VirtAddr, value: u8) -> Result<(), Fault> {
    // SAFETY: the routine makes one store, which the caller answers for.
    let outcome = unsafe { probe!("probe_write_u8", address, u32::from(value)) };
    outcome.into_result().map(drop)
}

/// Writes one word; as [`write_u8`].
///
/// # Safety
/// If the store succeeds, nothing may be relied upon that it changes.
///
/// # Errors
/// The fault that a store there takes, and then nothing was written; an alignment fault if `address` is not a
/// multiple of four.
pub unsafe fn write_u32(address: VirtAddr, value: u32) -> Result<(), Fault> {
    // SAFETY: as in `write_u8`.
    let outcome = unsafe { probe!("probe_write_u32", address, value) };
    outcome.into_result().map(drop)
}

/// Calls the code at `address` (in Thumb state, if bit 0 is set), which returns by `bx lr`.
///
/// # Safety
/// If there is code, it must be harmless, keep to the procedure call standard, and return. Only its first
/// instruction is probed: a fault of a later one is a fault of the kernel.
///
/// # Errors
/// The prefetch abort or undefined instruction that is taken at `address` itself.
pub unsafe fn execute(address: VirtAddr) -> Result<(), Fault> {
    // SAFETY: the routine calls what the caller answers for.
    let outcome = unsafe { probe!("probe_execute", address, 0_u32) };
    outcome.into_result().map(drop)
}
