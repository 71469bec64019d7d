//! The allocator's own audit: do records, lists and counts tell the same story?

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use super::frame::{NONE, State};
use super::{Frame, FrameAllocator, MAX_ORDER};
use crate::addr::Pfn;

/// Something that must never be seen in a frame table; each names the first offender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsound {
    /// A block is not aligned to its size, too large, or passes the table's end.
    Shape {
        /// Its first frame.
        frame: Pfn,
        /// Its order.
        order: u32,
    },
    /// A frame inside a block carries a state of its own.
    HeadInside {
        /// The frame.
        frame: Pfn,
        /// The block's first frame.
        head: Pfn,
    },
    /// Two free buddies of one order lie on its list unmerged.
    Unmerged {
        /// The first frame of the lower one.
        frame: Pfn,
        /// Their order.
        order: u32,
    },
    /// A list of free blocks holds one that is not free, of another order, or wrongly linked.
    Link {
        /// The block's first frame.
        frame: Pfn,
        /// The order of the list.
        order: u32,
    },
    /// The count of free frames differs from what the records say.
    Count {
        /// As counted by the allocator.
        counted: u32,
        /// As the records say.
        recorded: u32,
    },
    /// Fewer blocks lie on the lists than the records call free: some are lost.
    Lost {
        /// The order of those.
        order: u32,
        /// How many lie on its list.
        listed: u32,
        /// How many the records say.
        recorded: u32,
    },
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Shape { frame, order } => {
                write!(f, "the block of order {order} at frame {frame} has no place there")
            }
            Self::HeadInside { frame, head } => {
                write!(f, "frame {frame} has a state of its own inside the block at {head}")
            }
            Self::Unmerged { frame, order } => {
                write!(f, "the free block of order {order} at frame {frame} was not merged")
            }
            Self::Link { frame, order } => {
                write!(f, "the list of order {order} is wrong at frame {frame}")
            }
            Self::Count { counted, recorded } => {
                write!(f, "{counted} frames counted as free, {recorded} recorded")
            }
            Self::Lost { order, listed, recorded } => {
                write!(f, "order {order}: {listed} free blocks listed, {recorded} recorded")
            }
        }
    }
}

impl core::error::Error for Unsound {}

/// Whether all records are of frames inside a block: most of RAM is, so there is no branch a record.
fn are_inside(records: &[Frame]) -> bool {
    const STRIDE: usize = 16;
    let join = |joined: State, record: &Frame| joined.joined(record.state());
    let (runs, rest) = records.as_chunks::<STRIDE>();
    runs.iter().all(|run| run.iter().fold(State::INSIDE, join) == State::INSIDE)
        && rest.iter().fold(State::INSIDE, join) == State::INSIDE
}

impl FrameAllocator<'_> {
    /// Walks every record of its frames and every list. To be called under the allocator's lock; the cost grows with the table.
    ///
    /// # Errors
    /// The first [`Unsound`] thing found.
    pub fn check(&self) -> Result<(), Unsound> {
        let recorded = self.check_records()?;
        let mut total = 0;
        for (order, &recorded) in (0..=MAX_ORDER).zip(&recorded) {
            let listed = self.check_list(order)? + self.check_front(order)?;
            if listed != recorded {
                return Err(Unsound::Lost { order, listed, recorded });
            }
            total += recorded << order;
        }
        let counted = self.free_pages();
        if counted == total { Ok(()) } else { Err(Unsound::Count { counted, recorded: total }) }
    }

    /// Every record; gives the number of free blocks of each order.
    fn check_records(&self) -> Result<[u32; super::ORDERS], Unsound> {
        let table = self.table;
        let mut free = [0; super::ORDERS];
        let mut index = self.start;
        while index < self.end {
            let state = table.record(index).state();
            if !state.is_head() {
                index += 1;
                continue;
            }
            let (order, head) = (state.order(), table.pfn_at(index));
            let shaped = order <= MAX_ORDER
                && index.is_multiple_of(1 << order)
                && self.end - index >= 1 << order;
            if !shaped {
                return Err(Unsound::Shape { frame: head, order });
            }
            let inside = &table.records(index, 1 << order)[1..];
            if !are_inside(inside)
                && let Some(record) = inside.iter().find(|record| record.state() != State::INSIDE)
            {
                let frame = table.pfn_at(table.index_of_record(record));
                return Err(Unsound::HeadInside { frame, head });
            }
            if state.is_free() {
                free[order as usize] += 1;
            }
            let buddy = index ^ (1 << order);
            let merged = order == MAX_ORDER
                || buddy >= table.len()
                || state != State::buddy(order)
                || table.record(buddy).state() != state;
            if !merged {
                return Err(Unsound::Unmerged { frame: table.pfn_at(index.min(buddy)), order });
            }
            index += 1 << order;
        }
        Ok(free)
    }

    /// The list of `order`, which is not the front list; gives its length.
    fn check_list(&self, order: u32) -> Result<u32, Unsound> {
        let (mut index, mut previous, mut length) = (self.buddies.first(order), NONE, 0);
        while index != NONE {
            let record = self.table.record(index);
            let sound = record.state() == State::buddy(order)
                && record.previous.load(Relaxed) == previous
                && length <= self.table.len();
            if !sound {
                return Err(Unsound::Link { frame: self.table.pfn_at(index), order });
            }
            (previous, index) = (index, record.next.load(Relaxed));
            length += 1;
        }
        let marked = self.buddies.is_filled(order);
        if marked == (length != 0) {
            Ok(length)
        } else {
            Err(Unsound::Link { frame: self.table.first(), order })
        }
    }

    /// The front list of `order`; gives its length.
    fn check_front(&self, order: u32) -> Result<u32, Unsound> {
        let mut blocks = self.front.blocks(order);
        let mut length = 0;
        while let [block, rest @ ..] = blocks {
            // What lies here twice would be given out twice.
            let twice = rest.iter().any(|other| core::ptr::eq(*other, *block));
            if twice || block.state() != State::front(order) {
                let index = self.table.index_of_record(block);
                return Err(Unsound::Link { frame: self.table.pfn_at(index), order });
            }
            blocks = rest;
            length += 1;
        }
        Ok(length)
    }
}
