//! Which maintenance a change of owner takes, and in which order.
//!
//! ```text
//!                      to the device                       to the processor
//!   device reads       clean inner, barrier, clean outer   nothing: it changed nothing
//!   device writes      clean inner, barrier, clean outer   invalidate outer, wait, invalidate inner
//! ```
//!
//! * **Inner before outer on the way out**: what the inner cache writes back lands in the outer one. The other way round
//!   it would stay there.
//! * **Outer before inner on the way back**: an inner line that is dropped first may be read in again, from the outer cache,
//!   which still has what is old.
//! * **Also memory that the device only writes is cleaned, not invalidated, on the way out.** A dirty line that stayed could be written
//!   back over what the device wrote; either would see to that. But a device may write less than it was lent, and what it
//!   leaves is then what the processor wrote last, not what memory held before: somebody else's, perhaps.
//! * **Invalidated on the way back**, though there was nothing dirty: meanwhile the processor may have read lines in on
//!   its own, with what memory held before.
//! * **Whole lines.** What shares a line with a buffer that a device writes would be lost, or would overwrite what was written;
//!   no maintenance can be right about both. Such a buffer goes through a bounce buffer ([`super::route()`]), so that here every
//!   line that the buffer touches is the buffer's.

use crate::addr::{PhysAddr, VirtAddr};
use crate::coherent::Coherency;
use crate::lines::Edge;

use super::{Flow, StreamMachine, Upkeep};

/// Memory that is contiguous both for the processor and on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its first byte, as the processor sees it.
    pub address: VirtAddr,
    /// Its first byte on the bus.
    pub physical: PhysAddr,
    /// Its size; it passes no top.
    pub bytes: u32,
}

impl Piece {
    /// `bytes` of it from `offset` on; `None` if they do not lie in it.
    pub const fn part(self, offset: u32, bytes: u32) -> Option<Self> {
        if offset > self.bytes || bytes > self.bytes - offset {
            return None;
        }
        match (self.address.checked_add(offset), self.physical.checked_add(offset)) {
            (Some(address), Some(physical)) => Some(Self { address, physical, bytes }),
            _ => None,
        }
    }
}

/// A step of a piece of memory from one owner to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Whose call this is, for the ledger of lines.
    pub call: &'static str,
    /// Whether the device snoops.
    pub coherency: Coherency,
    /// Which way data flows.
    pub flow: Flow,
    /// Whether the buffer stays the device's.
    pub step: Step,
}

/// Which steps a buffer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All: to the device when it is mapped, back when it is unmapped.
    Whole,
    /// In between, for a moment: it stays mapped.
    Sync,
}

/// Makes `piece` the device's: it sees what the processor wrote, and nothing dirty is left that could be written back later.
/// Complete when this returns.
pub fn to_device<M: StreamMachine>(machine: &M, handover: Handover, piece: Piece) {
    let Handover { call, coherency, flow, step } = handover;
    let Piece { address, physical, bytes } = piece;
    if coherency == Coherency::NonCoherent {
        machine.note(call, Edge::Giving(flow, step), physical, bytes);
        machine.maintain_inner(Upkeep::Clean, address, bytes);
        machine.barrier();
        machine.maintain_outer(Upkeep::Clean, physical, bytes);
        machine.wait_outer();
        machine.note(call, Edge::Given(flow, step), physical, bytes);
    }
    // Also for a device that snoops: what was written comes before what tells it to begin.
    machine.barrier();
}

/// Makes `piece` the processor's: it sees what the device wrote. Complete when this returns. The device is done with it.
pub fn to_processor<M: StreamMachine>(machine: &M, handover: Handover, piece: Piece) {
    let Handover { call, coherency, flow, step } = handover;
    let Piece { address, physical, bytes } = piece;
    if coherency == Coherency::NonCoherent {
        machine.note(call, Edge::Taking(flow, step), physical, bytes);
        if flow.device_writes() {
            machine.maintain_outer(Upkeep::Invalidate, physical, bytes);
            machine.wait_outer();
            machine.maintain_inner(Upkeep::Invalidate, address, bytes);
        }
        machine.note(call, Edge::Taken(flow, step), physical, bytes);
    }
    // Also where there is nothing to drop: what says that the device is done comes before what it wrote.
    machine.barrier();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_in_its_piece_or_is_none() {
        let (address, physical) = (VirtAddr::new(0x8010_0000), PhysAddr::new(0x6010_0000));
        let piece = Piece { address, physical, bytes: 100 };
        assert_eq!(piece.part(0, 100), Some(piece));
        let tail = Piece {
            address: VirtAddr::new(0x8010_0028),
            physical: PhysAddr::new(0x6010_0028),
            bytes: 60,
        };
        assert_eq!(piece.part(40, 60), Some(tail));
        assert_eq!(piece.part(100, 0).map(|part| part.bytes), Some(0));
        for (offset, bytes) in [(0, 101), (1, 100), (101, 0), (40, u32::MAX), (u32::MAX, 1)] {
            assert_eq!(piece.part(offset, bytes), None, "{offset} {bytes}");
        }
    }
}
