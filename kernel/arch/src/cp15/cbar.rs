//! CBAR: configuration base address (A9 TRM 4.3.24).

use aarch32_cpu::register::SysRegRead;
use kerncore::addr::PhysAddr;

/// Where the processor's private peripherals lie: the snoop control unit, the interrupt controller, the timers.
#[derive(Clone, Copy, Debug)]
pub struct Cbar(u32);

super::location!(Cbar: 15, 4, 0, 0);

impl SysRegRead for Cbar {}

impl Cbar {
    /// Reads the register.
    pub fn read() -> Self {
        Self(Self::read_raw())
    }

    /// The peripherals' base.
    pub const fn base(self) -> PhysAddr {
        PhysAddr::new(self.0)
    }
}
