//! ICIALLUIS: invalidate all instruction caches to the point of unification, inner shareable (ARM ARM B4.2.1).

use aarch32_cpu::register::SysRegWrite;

/// The value written is ignored. Branch predictors are invalidated with the caches.
#[derive(Clone, Copy, Debug)]
pub struct Icialluis;

super::location!(Icialluis: 7, 0, 1, 0);

impl SysRegWrite for Icialluis {}
