//! TEECR: `ThumbEE` configuration (ARM ARM B4.1.143), of coprocessor 14.

use aarch32_cpu::register::{SysReg, SysRegWrite};

/// What a program may do with `ThumbEE`, whose base register (TEEHBR) is its own to read and write otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Teecr;

impl SysReg for Teecr {
    const CP: u32 = 14;
    const CRN: u32 = 0;
    const OP1: u32 = 6;
    const CRM: u32 = 0;
    const OP2: u32 = 0;
}

impl SysRegWrite for Teecr {}

impl Teecr {
    /// TEECR.XED: the base register is undefined in User mode.
    const NOT_FOR_PROGRAMS: u32 = 1;

    /// Keeps programs from TEEHBR.
    #[inline(always)]
    pub fn forbid() {
        // SAFETY: the kernel has nothing there, and programs have nothing that Rust relies on.
        unsafe { super::issue::<Self>(Self::NOT_FOR_PROGRAMS) };
    }
}
