//! TTBCR: translation table base control, short-descriptor format (ARM ARM B4.1.153).

use aarch32_cpu::register::{SysRegRead, SysRegWrite};

/// Which of the two table base registers translates what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttbcr(u32);

super::location!(Ttbcr: 2, 0, 0, 2);

impl SysRegRead for Ttbcr {}
impl SysRegWrite for Ttbcr {}

impl Ttbcr {
    const PD0: u32 = 1 << 4;
    const PD1: u32 = 1 << 5;
    const EAE: u32 = 1 << 31;

    /// Reads the register.
    pub fn read() -> Self {
        Self(Self::read_raw())
    }

    /// The register's value.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// N: TTBR0 translates addresses whose upper N bits are zero, TTBR1 the others.
    pub const fn n(self) -> u32 {
        self.0 & 7
    }

    /// PD0: a TLB miss for TTBR0 faults without a walk.
    pub const fn pd0(self) -> bool {
        self.0 & Self::PD0 != 0
    }

    /// PD1: a TLB miss for TTBR1 faults without a walk.
    pub const fn pd1(self) -> bool {
        self.0 & Self::PD1 != 0
    }

    /// EAE: the long-descriptor format is in use.
    pub const fn eae(self) -> bool {
        self.0 & Self::EAE != 0
    }

    /// This value with walks through TTBR0 forbidden.
    pub const fn without_ttbr0_walks(self) -> Self {
        Self(self.0 | Self::PD0)
    }

    /// This value with walks through TTBR0 allowed.
    pub const fn with_ttbr0_walks(self) -> Self {
        Self(self.0 & !Self::PD0)
    }

    /// Writes the register and waits until it has taken effect. Does not touch the TLB.
    ///
    /// # Safety
    /// Whatever code, stack and data are in use must translate alike under the new value.
    pub unsafe fn write(self) {
        // SAFETY: by the caller's promise.
        unsafe { super::issue::<Self>(self.0) };
        crate::barrier::isb();
    }
}
