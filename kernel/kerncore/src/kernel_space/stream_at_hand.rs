//! Low memory of one block on its way to a device and back, with one look at its frame's record (S105).
//!
//! A list has many pieces, and nearly all of them are such memory: a page, or a buffer of the allocator's. [`KernelSpace::is_streamable`] and
//! [`KernelSpace::give_to_device`] each find out anew what they are given, frame by frame and wherever it lies, and have words for what
//! cannot be. Here the same is asked once, and answered with yes, or by nothing at all: then it is theirs to say what is the matter.

use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::kernel_space::KernelSpace;
use crate::kernel_space::stream::frames_of;
use crate::kernel_space::vmap::OwnerSet;
use crate::lock::Locks;
use crate::streaming::{Handover, Piece, StreamMachine, to_device, to_processor};

impl<M: StreamMachine, L: Locks> KernelSpace<'_, M, L> {
    /// Whether [`KernelSpace::is_streamable`] says yes of `bytes` from `first`, which do not wrap, because one block of memory holds them,
    /// from its first frame on. A no says nothing. Any context.
    #[inline(always)]
    pub fn is_at_hand(&self, first: PhysAddr, bytes: u32) -> bool {
        let found = self.zones.table().owned_from_head(first.pfn());
        found.is_some_and(|(owner, run)| {
            frames_of(first, bytes) <= run && OwnerSet::STREAMABLE.contains(owner)
        })
    }

    /// [`KernelSpace::is_streamable`] and [`KernelSpace::give_to_device`] of `bytes` from `first`, which do not wrap, if they are at hand,
    /// and low memory. Says whether; otherwise nothing has changed, and those two say why. Any context.
    #[inline(always)]
    pub fn give_at_hand(
        &self,
        _authority: M::Authority,
        handover: Handover,
        first: PhysAddr,
        bytes: u32,
    ) -> bool {
        let piece = self.low_piece(first, bytes).filter(|_| self.is_at_hand(first, bytes));
        if let Some(piece) = piece {
            to_device(self.table.machine(), handover, piece);
        }
        piece.is_some()
    }

    /// [`KernelSpace::is_at_hand`] of what lies in one frame.
    #[inline(always)]
    pub fn is_frame_at_hand(&self, frame: Pfn) -> bool {
        let owner = self.zones.table().owner_from_head(frame);
        owner.is_some_and(|owner| OwnerSet::STREAMABLE.contains(owner))
    }

    /// The frame whose record begins at `address`, if [`KernelSpace::is_frame_at_hand`] says yes of it.
    #[inline(always)]
    pub fn frame_at_hand(&self, address: usize) -> Option<Pfn> {
        self.zones.table().frame_if_owned(address, OwnerSet::STREAMABLE.bits())
    }

    /// [`KernelSpace::give_to_device`] of `piece`, of which [`KernelSpace::is_at_hand`] says yes. Any context.
    #[inline(always)]
    pub fn give_piece(&self, _authority: M::Authority, handover: Handover, piece: Piece) {
        to_device(self.table.machine(), handover, piece);
    }

    /// [`KernelSpace::take_from_device`] of `piece`, as above.
    #[inline(always)]
    pub fn take_piece(&self, _authority: M::Authority, handover: Handover, piece: Piece) {
        to_processor(self.table.machine(), handover, piece);
    }

    /// [`KernelSpace::take_from_device`], of low memory. Says whether it was that; otherwise nothing has changed. Any context.
    #[inline(always)]
    pub fn take_at_hand(
        &self,
        _authority: M::Authority,
        handover: Handover,
        first: PhysAddr,
        bytes: u32,
    ) -> bool {
        let piece = self.low_piece(first, bytes);
        if let Some(piece) = piece {
            to_processor(self.table.machine(), handover, piece);
        }
        piece.is_some()
    }

    /// The linear addresses of low memory. Any context.
    #[inline(always)]
    pub fn low_piece(&self, first: PhysAddr, bytes: u32) -> Option<Piece> {
        let page = self.linear.address_of(first.pfn(), frames_of(first, bytes))?;
        let address = VirtAddr::new(page.raw() | first.page_offset());
        Some(Piece { address, physical: first, bytes })
    }
}
