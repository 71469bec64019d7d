//! ATS1CPR: address translation stage 1, current state, privileged read (ARM ARM B4.2.4).

use aarch32_cpu::register::SysRegWrite;

/// Translates the address written to it as a privileged load would; the answer is in PAR after an ISB.
#[derive(Clone, Copy, Debug)]
pub struct Ats1cpr;

super::location!(Ats1cpr: 7, 0, 8, 0);

impl SysRegWrite for Ats1cpr {}
