//! Nobody is refused for want of what only waits to be freed (S14a, S92).
//!
//! ```text
//!   attempt ──▶ short of frames, addresses, records or a table ──▶ free what lingers ──▶ was there any? once more
//! ```
//! What lingers are the areas of [`KernelSpace::vfree_atomic`], those among them that another CPU frees just now, and idle blocks
//! of `vm_map_ram`; and when nothing of that is left, what layers above keep in reserve ([`Support::give_back_idle`](crate::kernel_space::Support::give_back_idle)), such as
//! parts that the atomic pool has grown by (S104). An attempt that fails has taken nothing, or what it has is undone, so that it can begin anew.

use core::hint;
use core::sync::atomic::Ordering::Acquire;

use crate::contiguous::ContiguousError;
use crate::frames::AllocateError;
use crate::iommu::DomainMapError;
use crate::kernel_space::{
    ArrayError, BareError, CoherentError, ExecError, IoRemapError, KernelSpace, NoArea,
    ReallocError, ScatteredError, VmallocError, VmapError,
};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{MapError, ReserveError};

/// An error that may be gone when what lingers is freed.
pub(super) trait Shortage {
    /// Whether something was lacking that comes back when areas go.
    fn is_shortage(&self) -> bool;
}

impl Shortage for AllocateError {
    fn is_shortage(&self) -> bool {
        matches!(self, Self::Exhausted { .. })
    }
}

impl Shortage for ContiguousError {
    fn is_shortage(&self) -> bool {
        matches!(self, Self::Exhausted { .. })
    }
}

impl Shortage for ReserveError {
    fn is_shortage(&self) -> bool {
        matches!(self, Self::NoTable(_))
    }
}

impl Shortage for MapError {
    fn is_shortage(&self) -> bool {
        matches!(self, Self::Table { reason, .. } if reason.is_shortage())
    }
}

/// Errors that are a shortage if what they carry in one of these variants is one.
macro_rules! carried {
    ($($error:ident: $($variant:ident)+;)+) => {$(
        impl Shortage for $error {
            fn is_shortage(&self) -> bool {
                $(matches!(self, Self::$variant(error) if error.is_shortage()))||+
            }
        }
    )+};
}

// Addresses, and frames other than of these, were asked for again where they were refused.
carried! {
    NoArea: Record;
    BareError: Area Table;
    ArrayError: Area Map;
    VmallocError: Area PageArray Map;
    VmapError: Area Map;
    IoRemapError: Area Map;
    CoherentError: Frames Contiguous Area Map;
    ExecError: Area PageArray Frames Map;
    DomainMapError: Map;
    ScatteredError: Area PageArray Frames Map View;
    ReallocError: Grow;
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// What comes of `attempt`, made again for as long as it is short of something and something lingered that is free now. Not
    /// in interrupt context, nor under a lock.
    #[inline(always)]
    pub(super) fn unless_short<T, E: Shortage>(
        &self,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            let error = match attempt() {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            if !error.is_shortage() || !self.free_lingering() {
                return Err(error);
            }
        }
    }

    /// Frees what only waits to be freed, or waits until another CPU has, and says whether that was anything. Not in interrupt
    /// context, nor by whoever reads an area: it is waited for.
    #[cold]
    #[inline(never)]
    pub(super) fn free_lingering(&self) -> bool {
        self.free_lingering_of(self.waiting.load(Acquire))
    }

    /// The same, where `before` areas waited.
    pub(super) fn free_lingering_of(&self, before: u32) -> bool {
        loop {
            if self.free_deferred() + self.close_idle_blocks() > 0 {
                return true;
            }
            // Those that are in no queue any more are in the hands of another CPU.
            let now = self.waiting.load(Acquire);
            if now == 0 || now != before {
                return before != 0 || self.support.give_back_idle() != 0;
            }
            hint::spin_loop();
        }
    }
}
