//! TLBIMVAAIS: invalidate unified TLB entries by address, all ASIDs, inner shareable (ARM ARM B4.2.2).

use aarch32_cpu::register::SysRegWrite;

/// The value written is the page's address. Of the by-address operations it is the one that Cortex-A9 erratum 720789
/// (a broadcast with a wrong ASID) leaves alone.
#[derive(Clone, Copy, Debug)]
pub struct Tlbimvaais;

super::location!(Tlbimvaais: 8, 0, 3, 3);

impl SysRegWrite for Tlbimvaais {}
