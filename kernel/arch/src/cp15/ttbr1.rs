//! TTBR1: translation table base 1, short-descriptor format (ARM ARM B4.1.155).

use aarch32_cpu::register::{SysRegRead, SysRegWrite};
use kerncore::addr::PhysAddr;

/// The kernel's first-level table, and how the walker reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttbr1(u32);

super::location!(Ttbr1: 2, 0, 0, 1);

impl SysRegRead for Ttbr1 {}
impl SysRegWrite for Ttbr1 {}

impl Ttbr1 {
    /// Reads the register.
    pub fn read() -> Self {
        Self(Self::read_raw())
    }

    /// The table's address. It is 16 KiB long and aligned to that, whatever TTBCR.N is.
    pub const fn base(self) -> PhysAddr {
        PhysAddr::new(self.0 & 0xffff_c000)
    }

    /// The walk attributes: IRGN in bits 0 and 6, S in bit 1, RGN in bits 4 and 3, NOS in bit 5.
    pub const fn walk_attributes(self) -> u32 {
        self.0 & 0x7f
    }
}
