//! BPIALLIS: invalidate all branch predictors, inner shareable (ARM ARM B4.2.1).

use aarch32_cpu::register::SysRegWrite;

/// The value written is ignored.
#[derive(Clone, Copy, Debug)]
pub struct Bpiallis;

super::location!(Bpiallis: 7, 0, 1, 6);

impl SysRegWrite for Bpiallis {}
