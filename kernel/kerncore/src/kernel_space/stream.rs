//! Memory on its way to a device that masters the bus, and back (S105): low memory through its linear addresses, high memory
//! through temporary ones.

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr, pages_for};
use crate::frames::FrameOwner;
use crate::kernel_space::KernelSpace;
use crate::kernel_space::vmap::{OwnerSet, is_kernels_own, is_lent};
use crate::kmap::KmapError;
use crate::lock::Locks;
use crate::streaming::{Handover, Piece, StreamMachine, to_device, to_processor};

/// How many frames `bytes` from `first` touch.
pub(super) const fn frames_of(first: PhysAddr, bytes: u32) -> u32 {
    pages_for(bytes.saturating_add(first.page_offset()))
}

/// Why a device may not have `frame`: what the boot loader left reserved is no device's, either.
#[cold]
fn no_devices(frame: Pfn, owner: FrameOwner) -> KmapError {
    if is_lent(owner) {
        KmapError::Lent { frame, owner }
    } else if is_kernels_own(owner) {
        KmapError::KernelsOwn { frame, owner }
    } else {
        KmapError::NotMemory { frame, owner }
    }
}

impl<M: StreamMachine, L: Locks> KernelSpace<'_, M, L> {
    /// Bytes in the longest line of any data cache.
    pub fn line_bytes(&self) -> u32 {
        self.table.machine().line_bytes()
    }

    /// Whether all of `bytes` from `first`, which do not wrap, is ordinary memory that is in use: a device may have it for a while. Of the
    /// kernel's image that is what `is_data` says so of; what the kernel's safety hangs on no device has, not to read it either (S112).
    ///
    /// # Errors
    /// The first frame that is not.
    #[inline(always)]
    pub fn is_streamable(
        &self,
        first: PhysAddr,
        bytes: u32,
        is_data: fn(Pfn) -> bool,
    ) -> Result<(), KmapError> {
        let (mut next, mut left) = (Some(first.pfn()), frames_of(first, bytes));
        while let Some(frame) = next
            && left != 0
        {
            let (owner, mut run) = self.zones.table().owned_run(frame);
            if !OwnerSet::STREAMABLE.contains(owner) {
                if owner != FrameOwner::KernelImage || !is_data(frame) {
                    return Err(no_devices(frame, owner));
                }
                // Its parts do not end where its blocks do.
                run = 1;
            }
            (next, left) = (frame.checked_add(run), left.saturating_sub(run));
        }
        Ok(())
    }

    /// Gives `bytes` from `first`, which are in use and do not wrap, to a device. Any context.
    ///
    /// # Errors
    /// [`KmapError`], of high memory that is not in use: the processor has all of it. For want of a temporary address it does not fail.
    pub fn give_to_device(
        &self,
        authority: M::Authority,
        handover: Handover,
        first: PhysAddr,
        bytes: u32,
    ) -> Result<(), KmapError> {
        let mut given = 0;
        let result = self.each_piece(first, bytes, |machine, piece| {
            to_device(machine, handover, piece);
            given += piece.bytes;
        });
        if result.is_err() {
            // What could be reached once can be reached again.
            let _undone = self.take_from_device(authority, handover, first, given);
        }
        result
    }

    /// Takes `bytes` from `first` back from a device that is done with them. Any context.
    ///
    /// # Errors
    /// [`KmapError`], of high memory that is not in use any more.
    pub fn take_from_device(
        &self,
        _authority: M::Authority,
        handover: Handover,
        first: PhysAddr,
        bytes: u32,
    ) -> Result<(), KmapError> {
        self.each_piece(first, bytes, |machine, piece| to_processor(machine, handover, piece))
    }

    /// Calls `step` with the pieces that the memory is in for the processor: one of low memory, one a page of high memory.
    fn each_piece(
        &self,
        first: PhysAddr,
        bytes: u32,
        mut step: impl FnMut(&M, Piece),
    ) -> Result<(), KmapError> {
        let machine = self.table.machine();
        let offset = first.page_offset();
        if let Some(pages) = self.linear.pages_of(first.pfn(), frames_of(first, bytes))
            && let Some(address) = pages.start().checked_add(offset)
        {
            step(machine, Piece { address, physical: first, bytes });
            return Ok(());
        }
        self.each_page(first, bytes, &mut step)
    }

    /// The same, page by page.
    #[cold]
    #[inline(never)]
    fn each_page(
        &self,
        first: PhysAddr,
        bytes: u32,
        step: &mut dyn FnMut(&M, Piece),
    ) -> Result<(), KmapError> {
        let (mut physical, mut left) = (first, bytes);
        while left > 0 {
            let offset = physical.page_offset();
            let here = left.min(PAGE_SIZE - offset);
            self.reach(physical.pfn(), |page| {
                let address = VirtAddr::new(page.start().raw() | offset);
                step(self.table.machine(), Piece { address, physical, bytes: here });
            })?;
            left -= here;
            physical = PhysAddr::new(physical.raw().wrapping_add(here));
        }
        Ok(())
    }
}
