//! What the allocation flags of C callers say of memory (S9, S30, S50, S54).
//!
//! ```text
//!   bit       name               what it asks here
//!   0x01      DMA                memory that devices of few address lines reach
//!   0x02      HIGHMEM            high memory will do
//!   0x04      DMA32              memory that 32 bits address: all there is
//!   0x10      WAIT               the caller may sleep
//!   0x200     NOWARN             no words about a failure
//!   0x8000    ZERO               zeros
//!   0x40000   THISNODE           the node that is named and no other
//!   others    up to 0x100000     known, and no matter here
//! ```

use core::fmt;

use crate::coherent::AllocationFlags;
use crate::frames::{FrameRequest, NodeId, Place, ZoneKind};

const DMA: u32 = 0x01;
const HIGH_MEMORY: u32 = 0x02;
const DMA32: u32 = 0x04;
const NO_WARNING: u32 = 0x200;
const THIS_NODE: u32 = 0x4_0000;
/// Every bit that means something somewhere.
const KNOWN: u32 = 0x1f_ffff & !0x0008;

/// Flags that ask for nothing that could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFlags {
    /// Bits that mean nothing.
    Unknown {
        /// Those.
        bits: u32,
    },
    /// More than one zone.
    Zones {
        /// The bits that name one each.
        bits: u32,
    },
}

impl fmt::Display for BadFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { bits } => write!(f, "allocation flags {bits:#x} mean nothing"),
            Self::Zones { bits } => write!(f, "allocation flags {bits:#x} name several zones"),
        }
    }
}

impl core::error::Error for BadFlags {}

/// Whether a failure is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// On the console, at a limited rate.
    Told,
    /// To the caller alone.
    Untold,
}

impl AllocationFlags {
    /// The usual flags of a process, for memory that needs no linear address.
    pub const HIGH_USER: Self = Self(Self::KERNEL.0 | HIGH_MEMORY);
    /// High memory will do.
    pub const HIGH_MEMORY: u32 = HIGH_MEMORY;
    /// Memory that devices of few address lines reach.
    pub const DMA: u32 = DMA;
    /// No words about a failure.
    pub const NO_WARNING: u32 = NO_WARNING;
    /// The node that is named and no other.
    pub const THIS_NODE: u32 = THIS_NODE;

    /// Whether a failure is to be told.
    pub const fn warning(self) -> Warning {
        if self.0 & NO_WARNING == 0 { Warning::Told } else { Warning::Untold }
    }

    /// Whether such memory is the ordinary kind, zeroed or not, of no node: the question of the shortest way.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        self.0 & !(Self::KERNEL.0 | Self::HIGH_PRIORITY | Self::ZERO | NO_WARNING) == 0
    }

    /// The same with high memory too, where no zone is named.
    pub const fn or_high(self) -> Self {
        let zones = self.0 & (DMA | HIGH_MEMORY | DMA32);
        if zones == 0 { Self(self.0 | HIGH_MEMORY) } else { self }
    }

    /// Which frames will do, of a `node` (a negative one is anywhere).
    ///
    /// # Errors
    /// [`BadFlags`].
    pub const fn request(self, node: i32) -> Result<FrameRequest, BadFlags> {
        let unknown = self.0 & !KNOWN;
        if unknown != 0 {
            return Err(BadFlags::Unknown { bits: unknown });
        }
        let kind = match self.0 & (DMA | HIGH_MEMORY | DMA32) {
            0 | DMA32 => ZoneKind::Normal,
            DMA => ZoneKind::Dma,
            HIGH_MEMORY => ZoneKind::High,
            bits => return Err(BadFlags::Zones { bits }),
        };
        let place = if node < 0 {
            Place::Anywhere
        } else if self.0 & THIS_NODE == 0 {
            Place::Prefer(NodeId::new(node.unsigned_abs()))
        } else {
            Place::Only(NodeId::new(node.unsigned_abs()))
        };
        Ok(FrameRequest::of(kind).at(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S54: one zone by its bit, and none by two.
    #[test]
    fn each_zone_has_its_bit_and_two_are_refused() {
        let kind = |flags: u32| AllocationFlags(flags).request(-1).map(FrameRequest::kind);
        for others in [0, AllocationFlags::KERNEL.0, 0x10_0000, 0xfff0] {
            assert_eq!(kind(others), Ok(ZoneKind::Normal));
            assert_eq!(kind(others | DMA32), Ok(ZoneKind::Normal));
            assert_eq!(kind(others | DMA), Ok(ZoneKind::Dma));
            assert_eq!(kind(others | HIGH_MEMORY), Ok(ZoneKind::High));
            for bits in [3, 5, 6, 7] {
                assert_eq!(kind(others | bits), Err(BadFlags::Zones { bits }));
            }
        }
    }

    #[test]
    fn bits_that_mean_nothing_are_refused_one_by_one() {
        for bit in (0..32).map(|bit| 1_u32 << bit) {
            let refused = AllocationFlags(AllocationFlags::KERNEL.0 | bit).request(-1).is_err();
            assert_eq!(refused, bit == 8 || bit > 0x10_0000, "{bit:#x}");
        }
    }

    /// S28.
    #[test]
    fn a_negative_node_is_anywhere_and_another_is_meant() {
        let place =
            |flags: u32, node| AllocationFlags(flags).request(node).map(FrameRequest::place);
        assert_eq!(place(THIS_NODE, -1), Ok(Place::Anywhere));
        assert_eq!(place(0, i32::MIN), Ok(Place::Anywhere));
        assert_eq!(place(0, 0), Ok(Place::Prefer(NodeId::new(0))));
        assert_eq!(place(0, 1), Ok(Place::Prefer(NodeId::new(1))));
        assert_eq!(place(THIS_NODE, 1), Ok(Place::Only(NodeId::new(1))));
        assert_eq!(place(THIS_NODE, i32::MAX), Ok(Place::Only(NodeId::new(65_535))));
    }

    #[test]
    fn the_shortest_way_is_for_ordinary_memory_alone() {
        for flags in [AllocationFlags::KERNEL.0, AllocationFlags::ATOMIC.0, 0, NO_WARNING, 0x8000] {
            assert!(AllocationFlags(flags).is_plain(), "{flags:#x}");
            for odd in [DMA, HIGH_MEMORY, THIS_NODE, 1 << 31, 8] {
                assert!(!AllocationFlags(flags | odd).is_plain(), "{odd:#x}");
            }
        }
        assert_eq!(AllocationFlags(NO_WARNING).warning(), Warning::Untold);
        assert_eq!(AllocationFlags::KERNEL.warning(), Warning::Told);
    }
}
