//! TLBIALLIS: invalidate the entire unified TLB, inner shareable (ARM ARM B4.2.2).

use aarch32_cpu::register::SysRegWrite;

/// The value written is ignored.
#[derive(Clone, Copy, Debug)]
pub struct Tlbiallis;

super::location!(Tlbiallis: 8, 0, 3, 0);

impl SysRegWrite for Tlbiallis {}
