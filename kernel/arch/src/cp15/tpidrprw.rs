//! TPIDRPRW: software thread ID, privileged only (ARM ARM B4.1.150).

use super::SysReg;

/// A word that privileged code may use as it likes. Here it says where this CPU's block is (`crate::per_cpu`).
#[derive(Clone, Copy, Debug)]
pub struct Tpidrprw;

super::location!(Tpidrprw: 13, 0, 0, 4);

impl Tpidrprw {
    /// Reads the register. It never changes after the boot stub has written it, so the compiler may read it once.
    #[inline(always)]
    pub fn read() -> usize {
        let value;
        // SAFETY: reads a register that keeps its value; touches no memory, flag or stack.
        unsafe {
            core::arch::asm!(
                "mrc p{cp}, {op1}, {value}, c{crn}, c{crm}, {op2}",
                cp = const Self::CP,
                op1 = const Self::OP1,
                value = lateout(reg) value,
                crn = const Self::CRN,
                crm = const Self::CRM,
                op2 = const Self::OP2,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        value
    }
}
