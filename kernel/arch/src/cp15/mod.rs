//! System control registers (coprocessor 15, and one of 14), one a file.
//!
//! Registers that the `aarch32-cpu` crate knows are taken from it, the rest are defined here through its `SysReg`
//! traits. Its way of writing, `write_raw`, tells the compiler that memory is not concerned, which is wrong wherever
//! a write acts on memory: maintenance and table registers are written with [`issue`] instead.

use aarch32_cpu::register::SysRegWrite;

pub use aarch32_cpu::register::{
    Actlr, Contextidr, Ctr, Dacr, Dccimvac, Dccmvac, Dccmvau, Dcimvac, Dfar, Dfsr, IdMmfr3, Ifar,
    Ifsr, Midr, Mpidr, Par, Sctlr, SysReg, SysRegRead, Tpidruro, Tpidrurw, Ttbr0, Vbar,
};

mod ats1cpr;
mod ats1cpw;
mod bpiallis;
mod cbar;
mod icialluis;
mod icimvau;
mod teecr;
mod tlbiallis;
mod tlbimvaais;
mod tpidrprw;
mod ttbcr;
mod ttbr1;

pub use ats1cpr::Ats1cpr;
pub use ats1cpw::Ats1cpw;
pub use bpiallis::Bpiallis;
pub use cbar::Cbar;
pub use icialluis::Icialluis;
pub use icimvau::Icimvau;
pub use teecr::Teecr;
pub use tlbiallis::Tlbiallis;
pub use tlbimvaais::Tlbimvaais;
pub use tpidrprw::Tpidrprw;
pub use ttbcr::Ttbcr;
pub use ttbr1::Ttbr1;

/// Where a CP15 register lives, as in `MRC p15, opc1, Rt, CRn, CRm, opc2`.
macro_rules! location {
    ($register:ty: $crn:literal, $opc1:literal, $crm:literal, $opc2:literal) => {
        impl aarch32_cpu::register::SysReg for $register {
            const CP: u32 = 15;
            const CRN: u32 = $crn;
            const OP1: u32 = $opc1;
            const CRM: u32 = $crm;
            const OP2: u32 = $opc2;
        }
    };
}
use location;

/// Writes `argument` to a register whose effect is on memory, translation or caches.
///
/// To the compiler this may read and write any memory, so no access moves across it. What the processor does
/// with accesses around it is the business of the barriers ([`crate::barrier`]).
///
/// # Safety
/// What the register does with the value must not take memory away from, or change it under, code that relies on it.
#[inline(always)]
pub unsafe fn issue<R: SysRegWrite>(argument: u32) {
    // SAFETY: by the caller's promise. The instruction touches no general register, flag or stack.
    unsafe {
        core::arch::asm!(
            "mcr p{cp}, {op1}, {argument}, c{crn}, c{crm}, {op2}",
            cp = const R::CP,
            op1 = const R::OP1,
            argument = in(reg) argument,
            crn = const R::CRN,
            crm = const R::CRM,
            op2 = const R::OP2,
            options(nostack, preserves_flags)
        );
    }
}
