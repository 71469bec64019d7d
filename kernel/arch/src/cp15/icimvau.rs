//! ICIMVAU: invalidate an instruction-cache line by address to the point of unification (ARM ARM B4.2.1).

use aarch32_cpu::register::SysRegWrite;

/// The value written is any address in the line. Broadcast by a CPU that takes part in coherency.
#[derive(Clone, Copy, Debug)]
pub struct Icimvau;

super::location!(Icimvau: 7, 0, 5, 1);

impl SysRegWrite for Icimvau {}
