//! Front lists: small blocks that came back, kept as they are for the next request.
//!
//! A loop that takes and gives back one frame would otherwise split a block of 1,024 ten times and merge it ten
//! times. Last in, first out, so that what is taken was used a moment ago and lies in the cache.
//!
//! Each is an array of records and not a chain through them: what comes out is the record itself, which need not be looked up,
//! and what goes in need not be written to.

use super::Frame;
use super::frame::State;

/// Orders 0 to 4 have a front list.
pub(super) const FRONT_ORDERS: u32 = 5;
/// Blocks that a front list holds: with their number 128 bytes.
const LIMIT: usize = 31;

/// What an empty place holds.
static NOBODY: Frame = Frame::new();

/// One stack of free blocks for each small order.
#[derive(Debug)]
pub(super) struct FrontLists<'t> {
    stacks: [Stack<'t>; FRONT_ORDERS as usize],
}

#[derive(Debug)]
#[repr(C, align(32))]
struct Stack<'t> {
    height: u32,
    blocks: [&'t Frame; LIMIT],
}

impl<'t> FrontLists<'t> {
    pub(super) const fn new() -> Self {
        Self {
            stacks: [const { Stack { height: 0, blocks: [&NOBODY; LIMIT] } };
                FRONT_ORDERS as usize],
        }
    }

    /// Takes the block that came last. Its state is the caller's to write.
    #[inline(always)]
    pub(super) fn pop(&mut self, order: u32) -> Option<&'t Frame> {
        let stack = self.stacks.get_mut(order as usize)?;
        // One comparison: below an empty stack lies no place.
        let top = stack.height.wrapping_sub(1);
        let record = *stack.blocks.get(top as usize)?;
        stack.height = top;
        Some(record)
    }

    /// Keeps the free block of `order` that begins with `record`, unless its list is full, or it has none.
    #[inline(always)]
    pub(super) fn push(&mut self, record: &'t Frame, order: u32) -> Kept {
        if let Some(stack) = self.stacks.get_mut(order as usize)
            && let Some(place) = stack.blocks.get_mut(stack.height as usize)
        {
            *place = record;
            stack.height = stack.height.wrapping_add(1);
            record.set_state(State::front(order));
            return Kept::Yes;
        }
        Kept::No
    }

    /// The blocks of `order`, the last one last.
    pub(super) fn blocks(&self, order: u32) -> &[&'t Frame] {
        match self.stacks.get(order as usize) {
            Some(stack) => &stack.blocks[..stack.height as usize],
            None => &[],
        }
    }

    /// Frames waiting here.
    pub(super) fn pages(&self) -> u32 {
        (0..).zip(&self.stacks).map(|(order, stack): (u32, _)| stack.height << order).sum()
    }
}

/// Whether a front list took a block in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was not kept is still the caller's"]
pub(super) enum Kept {
    /// It did.
    Yes,
    /// It did not; nothing has changed.
    No,
}
