//! The pieces of one list, given to its device and taken back: what is the same for all of them is looked up once.
//!
//! ```text
//!   give    ordinary low memory that the device can have in place ──▶ where it lies      anything else ──▶ `streaming::map_on_bus`
//!   take    the same, on its way back                                                    anything else ──▶ `streaming::end_in_place`
//! ```
//! What takes the short cut is checked as what does not: a piece that fails any check of it has changed nothing, and goes the other way,
//! which refuses it, copies it or pins it. While there is a contiguous region nothing takes it: what is lent of that must be pinned.

use arch::machine::Authority;
use kerncore::addr::PhysAddr;
use kerncore::coherent::Coherency;
use kerncore::iommu::{Segment, SegmentLimits};
use kerncore::streaming::{Handover, Question, Route, Step, route};
use mm::streamable::is_streamable;
use mm::{Kernel, kernel};

use crate::bounce;
use crate::list::{NO_SEGMENT, Piece};
use crate::streaming::{self, Call, MapError, Memory, UnmapError};

/// What of a call is the same for each piece of its list, whose device is behind an IOMMU.
#[derive(Clone, Copy)]
pub(crate) struct Lender<'c> {
    call: Call<'c>,
    kernel: &'static Kernel,
    handover: Handover,
    line: u32,
    is_pinned: bool,
    is_copied: bool,
}

impl<'c> Lender<'c> {
    pub(crate) fn new(call: Call<'c>) -> Self {
        let kernel = kernel();
        Self {
            call,
            kernel,
            handover: call.handover(Step::Whole),
            line: kernel.line_bytes(),
            is_pinned: kernel.contiguous().is_some(),
            is_copied: bounce::is_forced(),
        }
    }

    /// Gives the device `bytes` of `memory`: where they lie on the bus, and whether that is their own place.
    ///
    /// # Errors
    /// As [`streaming::map`].
    ///
    /// # Safety
    /// As for that.
    #[inline(always)]
    pub(crate) unsafe fn give(
        self,
        memory: Memory,
        bytes: u32,
    ) -> Result<(PhysAddr, bool), MapError> {
        // SAFETY: by our caller's promise.
        if let Some(first) = unsafe { self.give_at_hand(memory, bytes) } {
            return Ok((first, true));
        }
        // SAFETY: as above.
        unsafe { give_otherwise(self.call, memory, bytes) }
    }

    /// # Safety
    /// As for [`Lender::give`].
    #[inline(always)]
    unsafe fn give_at_hand(self, memory: Memory, bytes: u32) -> Option<PhysAddr> {
        if self.is_pinned | self.is_copied {
            return None;
        }
        let first = streaming::bus_of(memory)?;
        let (flow, coherency) = (self.handover.flow, self.handover.coherency);
        // Behind an IOMMU it reaches everything.
        let last = PhysAddr::new(u32::MAX);
        let question = Question { first, bytes, flow, coherency, last, line: self.line };
        if !matches!(route(&question), Ok(Route::Direct)) {
            return None;
        }
        let is_given = match coherency {
            // There is nothing to write back, and the barrier behind the entries is behind what was written, too.
            Coherency::Coherent => self.kernel.is_at_hand(first, bytes),
            Coherency::NonCoherent => {
                // SAFETY: our caller promises that the memory is the device's now.
                let authority = unsafe { Authority::claim() };
                self.kernel.give_at_hand(authority, self.handover, first, bytes)
            }
        };
        is_given.then_some(first)
    }

    /// Gives as many of the pieces of `rest` as take the short cut and are one with `segment`, which has them then: how many. Of a long
    /// list that is nearly all of it. The next piece is as it was, for [`Lender::give`].
    ///
    /// Not inlined: what goes from one piece to the next has the registers to itself.
    ///
    /// # Safety
    /// As for [`Lender::give`], of each piece.
    #[inline(never)]
    pub(crate) unsafe fn give_joined<P: Piece>(
        self,
        rest: &mut (impl Iterator<Item = P> + Clone),
        segment: &mut Segment,
        limits: SegmentLimits,
    ) -> u32 {
        let (mut here, mut whole, mut count) = (rest.clone(), *segment, 0_u32);
        loop {
            let mut behind = here.clone();
            let Some(piece) = behind.next() else { break };
            let Some((memory, bytes)) = piece.memory() else { break };
            let Some(first) = streaming::bus_of(memory) else { break };
            let Some(joined) = whole.joined(first, bytes, limits) else { break };
            // SAFETY: by our caller's promise.
            if unsafe { self.give_at_hand(memory, bytes) }.is_none() {
                break;
            }
            piece.tell(NO_SEGMENT.0, NO_SEGMENT.1);
            (here, whole, count) = (behind, joined, count.wrapping_add(1));
        }
        (*rest, *segment) = (here, whole);
        count
    }

    /// Whether the `bytes` at `first` are still somebody's, who has lent them.
    ///
    /// # Errors
    /// As [`streaming::unmap`].
    #[inline(always)]
    pub(crate) fn may_end(self, first: PhysAddr, bytes: u32) -> Result<(), UnmapError> {
        if self.kernel.is_at_hand(first, bytes) { Ok(()) } else { may_end_otherwise(first, bytes) }
    }

    /// Whether there is nothing to take back of what lies in its own place: the device snoops, and nothing is pinned. The barrier of the
    /// flush stands between what said that the device is done and what is done next.
    pub(crate) fn takes_nothing(&self) -> bool {
        !self.is_pinned && self.handover.coherency == Coherency::Coherent
    }

    /// Takes back the `bytes` at `first`, which lie in their own place, as [`Lender::may_end`] has allowed.
    ///
    /// # Errors
    /// As [`streaming::unmap`].
    ///
    /// # Safety
    /// As for that.
    #[inline(always)]
    pub(crate) unsafe fn take(self, first: PhysAddr, bytes: u32) -> Result<(), UnmapError> {
        // SAFETY: our caller promises that the device is done.
        let authority = unsafe { Authority::claim() };
        if !self.is_pinned && self.kernel.take_at_hand(authority, self.handover, first, bytes) {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { take_otherwise(self.call, first, bytes) }
    }
}

#[cold]
#[inline(never)]
fn may_end_otherwise(first: PhysAddr, bytes: u32) -> Result<(), UnmapError> {
    is_streamable(first, bytes).map_err(UnmapError::Memory)
}

/// # Safety
/// As for [`Lender::give`].
#[cold]
#[inline(never)]
unsafe fn give_otherwise(
    call: Call<'_>,
    memory: Memory,
    bytes: u32,
) -> Result<(PhysAddr, bool), MapError> {
    // SAFETY: by our caller's promise.
    let on_bus = PhysAddr::new(unsafe { streaming::map_on_bus(call, memory, bytes)? }.raw());
    Ok((on_bus, streaming::bus_of(memory) == Some(on_bus)))
}

/// # Safety
/// As for [`Lender::take`].
#[cold]
#[inline(never)]
unsafe fn take_otherwise(call: Call<'_>, first: PhysAddr, bytes: u32) -> Result<(), UnmapError> {
    // SAFETY: by our caller's promise.
    unsafe { streaming::end_in_place(call, first, bytes) }
}
