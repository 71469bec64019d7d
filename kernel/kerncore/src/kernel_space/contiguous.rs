//! Buffers from the contiguous region, and the way back of frames that may be its (S75, S101).

use crate::area::AreaSummary;
use crate::contiguous::{Contiguous, ContiguousError};
use crate::frames::{FrameBlock, FrameOwner};
use crate::holder::Holder;
use crate::kernel_space::{CoherentError, FramesError, KernelSpace};
use crate::lock::Locks;
use crate::machine::Machine;

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// From now on there is a contiguous region. For the time when nobody else has the kernel's address space yet.
    pub const fn set_contiguous(&mut self, contiguous: &'s Contiguous<'s, L>) {
        self.contiguous = Some(contiguous);
    }

    /// The contiguous region, if one was set aside.
    #[inline]
    pub const fn contiguous(&self) -> Option<&'s Contiguous<'s, L>> {
        self.contiguous
    }

    /// As [`KernelSpace::coherent_alloc`], from the contiguous region (S101). What is lent of it is moved out, if need be.
    ///
    /// # Errors
    /// [`CoherentError`]; nothing was taken.
    ///
    /// # Panics
    /// In interrupt context (S10).
    pub fn contiguous_alloc(
        &self,
        bytes: u32,
        owner: FrameOwner,
        holder: impl Into<Holder>,
    ) -> Result<AreaSummary, CoherentError> {
        let holder = holder.into();
        self.may_sleep_for("dma_alloc_coherent");
        self.bound_backlog();
        if let Some(area) = self.contiguous_at_hand(bytes, owner, holder) {
            return Ok(area);
        }
        self.coherent_from(bytes, holder, |pages| {
            let contiguous = self.contiguous.ok_or(ContiguousError::Absent);
            let taken = contiguous.and_then(|contiguous| {
                contiguous
                    .take(pages, owner, |borrower, frame| self.support.move_out(borrower, frame))
            });
            taken.map_err(CoherentError::Contiguous)
        })
    }

    /// Frees a block where it came from: by where it lies, so that nobody has to remember.
    #[inline]
    pub(crate) fn free_block(&self, block: FrameBlock) -> Result<(), FramesError> {
        match self.contiguous {
            Some(contiguous) if contiguous.contains(block.first()) => {
                contiguous.give_back(block).map_err(|(error, _lost)| FramesError::Contiguous(error))
            }
            _ => self.zones.free(block).map_err(FramesError::Free),
        }
    }
}
