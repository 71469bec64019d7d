//! What can go wrong with frames, one enum an operation.

use core::fmt;

use super::{FrameOwner, FrameRequest, NodeId};
use crate::addr::Pfn;

/// Why frames were not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateError {
    /// There is no such run of free frames.
    Exhausted {
        /// Frames asked for: adjacent ones, unless a list was asked for.
        pages: u32,
        /// For whom.
        owner: FrameOwner,
        /// Frames that are free.
        free: u32,
        /// The order of the largest free block, if any is free.
        largest: Option<u32>,
        /// Which frames would have done: only those are counted.
        from: FrameRequest,
    },
    /// There is no such node.
    UnknownNode {
        /// The node named.
        node: NodeId,
        /// How many there are.
        nodes: u32,
        /// For whom memory was asked.
        owner: FrameOwner,
    },
    /// No block is that large, however much is free.
    TooLarge {
        /// Frames asked for, saturating.
        pages: u32,
        /// For whom.
        owner: FrameOwner,
    },
    /// Zero frames were asked for.
    Zero {
        /// By whom.
        owner: FrameOwner,
    },
    /// The owner stands for frames that the allocator does not lend.
    NotAnOwner {
        /// The owner named.
        owner: FrameOwner,
    },
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exhausted { pages, owner, free, largest, from } => {
                write!(f, "no {pages} frames for {owner}: of {from}, {free} are free")?;
                match largest {
                    Some(order) => write!(f, ", at most {} adjacent", 1_u32 << order),
                    None => Ok(()),
                }
            }
            Self::UnknownNode { node, nodes, owner } => {
                write!(f, "no memory for {owner}: there is no {node}, of {nodes} in all")
            }
            Self::TooLarge { pages, owner } => {
                write!(f, "{pages} adjacent frames for {owner} are more than any block holds")
            }
            Self::Zero { owner } => write!(f, "{owner} asked for no frames"),
            Self::NotAnOwner { owner } => write!(f, "frames cannot be lent to \"{owner}\""),
        }
    }
}

/// Why frames were not taken back. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The allocator never had this frame.
    NotManaged {
        /// The frame.
        frame: Pfn,
    },
    /// The frame was set aside at boot.
    Reserved {
        /// The frame.
        frame: Pfn,
        /// For whom.
        owner: FrameOwner,
    },
    /// The frame is free already.
    AlreadyFree {
        /// The frame.
        frame: Pfn,
    },
    /// A block of this order cannot begin at this frame.
    Misaligned {
        /// The frame.
        frame: Pfn,
        /// The order given.
        order: u32,
    },
    /// The block that begins here is of another order.
    WrongOrder {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
        /// The order given.
        order: u32,
        /// The order it has.
        actual: u32,
    },
    /// The frame lies inside a block and does not begin it.
    InsideBlock {
        /// The frame.
        frame: Pfn,
        /// Where its block begins.
        head: Pfn,
        /// The order of that block.
        order: u32,
        /// Whose it is.
        owner: FrameOwner,
    },
    /// The frame belongs to somebody else.
    OtherOwner {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
        /// In whose name it was to be freed.
        claimed: FrameOwner,
    },
    /// Programs see the block that begins here.
    Shown {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
        /// In so many windows.
        windows: u16,
    },
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotManaged { frame } => write!(f, "frame {frame} is not managed"),
            Self::Reserved { frame, owner } => write!(f, "frame {frame} is reserved ({owner})"),
            Self::AlreadyFree { frame } => write!(f, "frame {frame} is free already"),
            Self::Misaligned { frame, order } => {
                write!(f, "frame {frame} cannot begin a block of order {order}")
            }
            Self::WrongOrder { frame, owner, order, actual } => {
                write!(
                    f,
                    "frame {frame} ({owner}) has order {actual}, was freed with order {order}"
                )
            }
            Self::InsideBlock { frame, head, order, owner } => {
                write!(f, "frame {frame} lies inside the order-{order} block at {head} ({owner})")
            }
            Self::OtherOwner { frame, owner, claimed } => {
                write!(f, "frame {frame} belongs to {owner}, not to {claimed}")
            }
            Self::Shown { frame, owner, windows } => {
                write!(f, "frame {frame} ({owner}) is seen by programs, in {windows} windows")
            }
        }
    }
}

/// Why a range of frames was not set aside or given to the allocator. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The range does not lie wholly inside the frame table.
    OutsideTable {
        /// The first frame of the range.
        first: Pfn,
        /// How many frames it has.
        pages: u32,
    },
    /// The allocator has this frame already.
    AlreadyManaged {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
    },
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutsideTable { first, pages } => {
                write!(f, "{pages} frames from {first} pass the frame table")
            }
            Self::AlreadyManaged { frame, owner } => {
                write!(f, "frame {frame} is managed already ({owner})")
            }
        }
    }
}

impl core::error::Error for AllocateError {}
impl core::error::Error for FreeError {}
impl core::error::Error for AddError {}
