//! ATS1CPW: address translation stage 1, current state, privileged write (ARM ARM B4.2.4).

use aarch32_cpu::register::SysRegWrite;

/// Translates the address written to it as a privileged store would; the answer is in PAR after an ISB.
#[derive(Clone, Copy, Debug)]
pub struct Ats1cpw;

super::location!(Ats1cpw: 7, 0, 8, 1);

impl SysRegWrite for Ats1cpw {}
