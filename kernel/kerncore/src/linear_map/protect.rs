//! Frames that nobody writes any more: their entries become read-only, for good.
//!
//! ```text
//!   writable ──clear──▶ empty ──flush──▶ empty ──write──▶ read-only
//! ```
//! Break before make (ARM DDI 0406C, B3.10.1), although only rights change: no TLB remembers that it may write when this
//! returns. What was written before is in the cache or in memory, whichever, and is read from there.

use super::{ATTRIBUTES, LinearMap};
use crate::addr::{Pfn, VirtAddr};
use crate::attributes::Attributes;
use crate::descriptor::l2::SmallPages;
use crate::machine::Machine;
use core::fmt;

/// Why frames did not become read-only. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtectError {
    /// These frames do not all lie in the window.
    Outside {
        /// The first frame.
        first: Pfn,
        /// How many.
        count: u32,
    },
    /// One of them is not mapped as the linear map has it.
    Unexpected {
        /// The address that the slot translates.
        address: VirtAddr,
        /// What it should hold.
        wanted: u32,
        /// What it holds.
        found: u32,
    },
}

impl<M: Machine> LinearMap<M> {
    /// Makes `count` frames from `first` read-only, for good: they are no block's and never leave the linear map. When it
    /// returns, whoever writes there faults. At boot: nobody reads them meanwhile.
    ///
    /// # Errors
    /// [`ProtectError`].
    pub fn protect(&mut self, first: Pfn, count: u32) -> Result<(), ProtectError> {
        let outside = ProtectError::Outside { first, count };
        let pages = self.pages_of(first, count).ok_or(outside)?;
        let (writable, read_only) =
            (SmallPages::new(ATTRIBUTES), SmallPages::new(Attributes::KERNEL_RODATA));
        self.with_slots(pages, |slots| {
            for (index, frame) in (0..count).zip(first.number()..) {
                let Some(frame) = Pfn::new(frame) else { return Err(outside) };
                let (wanted, found) = (writable.word(frame), slots.read(&self.machine, index));
                if found != wanted {
                    let address = slots.address(index);
                    return Err(ProtectError::Unexpected { address, wanted, found });
                }
            }
            slots.write_steps::<0>(&self.machine, 0);
            self.machine.barrier();
            self.machine.invalidate_tlb(pages);
            self.machine.barrier();
            slots.write_steps::<{ crate::addr::PAGE_SIZE }>(&self.machine, read_only.word(first));
            Ok(())
        })
        .ok_or(outside)??;
        self.machine.barrier();
        Ok(())
    }
}

impl fmt::Display for ProtectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { first, count } => {
                write!(f, "{count} frames from {first} are not in the linear map")
            }
            Self::Unexpected { address, wanted, found } => {
                write!(f, "linear entry of {address} is {found:#010x} and not {wanted:#010x}")
            }
        }
    }
}

impl core::error::Error for ProtectError {}
