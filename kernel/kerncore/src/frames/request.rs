//! Which frames will do: by kind of memory, by address, by node.
//!
//! ```text
//!   kind     Dma ⊂ Normal ⊂ High     the dearest that may be taken; everything below will do, too
//!   below    the last frame          what the asker can reach, as a device's mask says
//!   place    anywhere, a node if it has room, that node and no other
//! ```
//! A request is two words, so that "is it an ordinary one?" is two comparisons.

use core::fmt;

use crate::addr::{PAGES_IN_ADDRESS_SPACE, Pfn, PhysAddr};

/// A kind of memory. What is asked for is the last of them that will do; in this order they grow scarcer from the end to
/// the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ZoneKind {
    /// The first few megabytes of RAM, kept back for who reaches no others. Has linear addresses.
    Dma = 0,
    /// The rest of what has linear addresses.
    Normal,
    /// Memory without linear addresses: reached through mappings of one's own only.
    High,
}

impl ZoneKind {
    /// How many kinds there are.
    pub const COUNT: usize = 3;
    /// All of them, the scarcest first.
    pub const ALL: [Self; Self::COUNT] = [Self::Dma, Self::Normal, Self::High];
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dma => "DMA",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

/// A node of memory, by its number. There need be no such node: who is asked says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(u16);

impl NodeId {
    /// The node of that number; what passes 65,535 is taken for that, which is no node either.
    pub const fn new(number: u32) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "compared the line before")]
        Self(if number > u16::MAX as u32 { u16::MAX } else { number as u16 })
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// Where memory is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On whichever node.
    Anywhere,
    /// On this node; on another when it has none.
    Prefer(NodeId),
    /// On this node or not at all.
    Only(NodeId),
}

/// Which frames will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FrameRequest {
    /// The last frame that will do.
    last: u32,
    /// Kind, place and node, packed.
    how: u32,
}

const ANYWHERE: u32 = 0;
const PREFER: u32 = 1;
const ONLY: u32 = 2;

impl FrameRequest {
    /// Memory with linear addresses: what the kernel keeps its own books in.
    pub const LOW: Self = Self::of(ZoneKind::Normal);
    /// Any memory; high memory first.
    pub const ANY: Self = Self::of(ZoneKind::High);

    /// Memory up to that kind, wherever it lies.
    pub const fn of(kind: ZoneKind) -> Self {
        Self { last: PAGES_IN_ADDRESS_SPACE - 1, how: kind as u32 }
    }

    /// Of it, what lies whole at or below the address `last`: what a device with that mask reaches (S100).
    #[must_use]
    pub const fn reached_by(self, last: PhysAddr) -> Self {
        // A frame whose last byte is out of reach is, too.
        let frames = match last.checked_add(1) {
            Some(end) => end.pfn().number(),
            None => PAGES_IN_ADDRESS_SPACE,
        };
        // Frame 0 alone is what is left of reaching none; there is no RAM.
        Self { last: if frames == 0 { 0 } else { frames - 1 }, how: self.how }
    }

    /// Of it, what lies no higher than the frame `last`.
    #[must_use]
    pub const fn up_to(self, last: Pfn) -> Self {
        Self { last: last.number(), how: self.how }
    }

    /// Of it, what lies there.
    #[must_use]
    pub const fn at(self, place: Place) -> Self {
        let (how, node) = match place {
            Place::Anywhere => (ANYWHERE, 0),
            Place::Prefer(node) => (PREFER, node.number()),
            Place::Only(node) => (ONLY, node.number()),
        };
        Self { how: self.how & 0xff | how << 8 | node << 16, ..self }
    }

    /// The last kind of memory that will do.
    pub const fn kind(self) -> ZoneKind {
        match self.how & 0xff {
            0 => ZoneKind::Dma,
            1 => ZoneKind::Normal,
            _ => ZoneKind::High,
        }
    }

    /// Where it is wanted.
    pub const fn place(self) -> Place {
        let node = NodeId::new(self.how >> 16);
        match self.how >> 8 & 0xff {
            ANYWHERE => Place::Anywhere,
            PREFER => Place::Prefer(node),
            _ => Place::Only(node),
        }
    }

    /// The number of the last frame that will do.
    pub(crate) const fn last(self) -> u32 {
        self.last
    }

    /// Whether `frame`, which is of `kind` and of node `node`, will do.
    pub fn allows(self, frame: Pfn, kind: ZoneKind, node: NodeId) -> bool {
        let here = match self.place() {
            Place::Anywhere | Place::Prefer(_) => true,
            Place::Only(only) => only == node,
        };
        here && kind <= self.kind() && frame.number() <= self.last
    }
}

impl fmt::Debug for FrameRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameRequest({self})")
    }
}

/// In words that follow "memory": nothing if any will do.
impl fmt::Display for FrameRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind() {
            ZoneKind::High => "any memory",
            ZoneKind::Normal => "low memory",
            ZoneKind::Dma => "DMA memory",
        })?;
        if let Place::Only(node) = self.place() {
            write!(f, " of {node}")?;
        }
        if self.last != PAGES_IN_ADDRESS_SPACE - 1 {
            write!(f, " up to frame {:#x}", self.last)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_as_it_was_written() {
        let places = [
            Place::Anywhere,
            Place::Prefer(NodeId::new(0)),
            Place::Prefer(NodeId::new(1)),
            Place::Only(NodeId::new(0)),
            Place::Only(NodeId::new(65_535)),
        ];
        for kind in ZoneKind::ALL {
            for place in places {
                let limit = PhysAddr::new(0x6fff_ffff);
                let request = FrameRequest::of(kind).at(place).reached_by(limit);
                assert_eq!((request.kind(), request.place()), (kind, place));
                assert_eq!(request.last(), 0x6_ffff);
                assert_eq!(request.at(Place::Anywhere), FrameRequest::of(kind).reached_by(limit));
            }
        }
        assert_eq!(NodeId::new(70_000).number(), 65_535, "never another node");
    }

    /// S100: a frame of which the mask reaches a part is out of reach.
    #[test]
    fn a_mask_reaches_whole_frames() {
        let last = |mask| FrameRequest::ANY.reached_by(PhysAddr::new(mask)).last();
        assert_eq!(last(0x6fff_ffff), 0x6_ffff);
        assert_eq!(last(0x6fff_fffe), 0x6_fffe);
        assert_eq!(last(0x7000_0000), 0x6_ffff);
        assert_eq!(last(0xfff), 0);
        assert_eq!(last(0), 0);
        assert_eq!(FrameRequest::ANY.reached_by(PhysAddr::new(u32::MAX)), FrameRequest::ANY);
    }

    #[test]
    fn a_frame_will_do_by_kind_address_and_node() {
        let frame = Pfn::new(0x6_1000).expect("below 4 GiB");
        let [zero, one] = [0, 1].map(NodeId::new);
        let low = FrameRequest::LOW;
        assert!(low.allows(frame, ZoneKind::Dma, zero));
        assert!(!low.allows(frame, ZoneKind::High, zero));
        assert!(low.at(Place::Prefer(one)).allows(frame, ZoneKind::Normal, zero));
        assert!(!low.at(Place::Only(one)).allows(frame, ZoneKind::Normal, zero));
        assert!(low.reached_by(PhysAddr::new(0x6100_0fff)).allows(frame, ZoneKind::Normal, zero));
        assert!(!low.reached_by(PhysAddr::new(0x6100_0ffe)).allows(frame, ZoneKind::Normal, zero));
    }

    #[test]
    fn a_request_says_in_words_what_will_do() {
        assert_eq!(FrameRequest::ANY.to_string(), "any memory");
        assert_eq!(FrameRequest::LOW.at(Place::Prefer(NodeId::new(1))).to_string(), "low memory");
        let narrow = FrameRequest::of(ZoneKind::Dma)
            .at(Place::Only(NodeId::new(1)))
            .reached_by(PhysAddr::new(0x60ff_ffff));
        assert_eq!(narrow.to_string(), "DMA memory of node 1 up to frame 0x60fff");
        assert_eq!(format!("{narrow:?}"), format!("FrameRequest({narrow})"));
    }
}
