//! One frame's record, and the word that says what the frame is.

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Ends a chain of links; never an index, for a table holds at most 2²⁰ frames.
pub(super) const NONE: u32 = u32::MAX;

/// Who has a frame. The order of the variants is the order of every listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameOwner {
    /// No memory, or memory that nobody gave to the allocator. A zeroed record says this.
    Absent = 0,
    /// Free: in the allocator.
    Free,
    /// Set aside at boot for something without a name of its own here.
    Reserved,
    /// The kernel's text, data and boot stacks.
    KernelImage,
    /// The frame table itself.
    FrameTable,
    /// First- and second-level translation tables: the kernel's, programs' and devices'.
    PageTable,
    /// The global heap.
    Heap,
    /// Typed slabs of records.
    Slab,
    /// The index of the address space.
    VaStorage,
    /// Behind vmalloc areas.
    Vmalloc,
    /// Coherent DMA buffers.
    Dma,
    /// The atomic DMA pool.
    AtomicPool,
    /// Programs' data.
    User,
    /// Taken page by page through the raw, Linux-named calls, which keep no handle.
    Pages,
    /// Text, of programs and of `vmalloc_exec`: executable one day, and so absent from the linear map (S112).
    Text,
    /// Held by a test.
    Test,
}

impl FrameOwner {
    /// How many owners there are.
    pub const COUNT: usize = 16;
    /// All of them, in their order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Absent,
        Self::Free,
        Self::Reserved,
        Self::KernelImage,
        Self::FrameTable,
        Self::PageTable,
        Self::Heap,
        Self::Slab,
        Self::VaStorage,
        Self::Vmalloc,
        Self::Dma,
        Self::AtomicPool,
        Self::User,
        Self::Pages,
        Self::Text,
        Self::Test,
    ];

    /// The owner that is written as `number`. What nobody writes is set aside for good.
    #[inline(always)]
    const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Absent,
            1 => Self::Free,
            3 => Self::KernelImage,
            4 => Self::FrameTable,
            5 => Self::PageTable,
            6 => Self::Heap,
            7 => Self::Slab,
            8 => Self::VaStorage,
            9 => Self::Vmalloc,
            10 => Self::Dma,
            11 => Self::AtomicPool,
            12 => Self::User,
            13 => Self::Pages,
            14 => Self::Text,
            15 => Self::Test,
            _ => Self::Reserved,
        }
    }

    /// The word used in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Free => "free",
            Self::Reserved => "reserved",
            Self::KernelImage => "kernel image",
            Self::FrameTable => "frame table",
            Self::PageTable => "page table",
            Self::Heap => "heap",
            Self::Slab => "slab",
            Self::VaStorage => "address index",
            Self::Vmalloc => "vmalloc",
            Self::Dma => "dma",
            Self::AtomicPool => "atomic pool",
            Self::User => "user",
            Self::Pages => "pages",
            Self::Text => "text",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for FrameOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A record's first word.
///
/// ```text
///    31          16 15        8    7        6       5      4    3         0
///   ┌──────────────┬───────────┬────────┬───────┬───────┬──────┬───────────┐
///   │   windows    │   order   │ pinned │ front │ buddy │ head │   owner   │
///   └──────────────┴───────────┴────────┴───────┴───────┴──────┴───────────┘
/// ```
/// `head` is set in the first frame of every block and in no other. `buddy` and `front` say where a free block
/// waits; a block with neither is owned. `pinned` marks what was set aside at boot and cannot be freed. `windows` counts
/// the windows of programs that show an owned block: while there are any, it compares with no block that can be freed. All but
/// those and the order lies in one byte, which an instruction can hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u32);

impl State {
    const ORDER_SHIFT: u32 = 8;
    const OWNER_MASK: u32 = 0xf;
    const HEAD: u32 = 1 << 4;
    const BUDDY: u32 = 1 << 5;
    const FRONT: u32 = 1 << 6;
    const PINNED: u32 = 1 << 7;
    const WINDOWS_SHIFT: u32 = 16;

    /// Inside a block, or absent.
    pub(super) const INSIDE: Self = Self(0);

    const fn head(order: u32, owner: FrameOwner) -> u32 {
        Self::HEAD | (order << Self::ORDER_SHIFT) | owner as u32
    }

    /// The head of an owned block.
    pub(super) const fn owned(order: u32, owner: FrameOwner) -> Self {
        Self(Self::head(order, owner))
    }

    /// The head of a free block on the list of its order, where its buddy may find it.
    pub(super) const fn buddy(order: u32) -> Self {
        Self(Self::head(order, FrameOwner::Free) | Self::BUDDY)
    }

    /// The head of a free block that waits unmerged.
    pub(super) const fn front(order: u32) -> Self {
        Self(Self::head(order, FrameOwner::Free) | Self::FRONT)
    }

    /// One frame set aside at boot.
    pub(super) const fn pinned(owner: FrameOwner) -> Self {
        Self(Self::head(0, owner) | Self::PINNED)
    }

    /// Whether this is the head of an owned block of `order`: the one comparison of every free.
    pub(super) const fn is_owned_of(self, order: u32) -> bool {
        self.0 & !Self::OWNER_MASK == Self::HEAD | (order << Self::ORDER_SHIFT)
    }

    /// Whether this is the head of an owned block of whatever order.
    pub(super) const fn is_owned(self) -> bool {
        self.0 & !(Self::OWNER_MASK | (0xff << Self::ORDER_SHIFT)) == Self::HEAD
    }

    /// How many windows of programs show the block.
    pub(super) const fn windows(self) -> u16 {
        (self.0 >> Self::WINDOWS_SHIFT) as u16
    }

    /// The same block, shown in so many.
    pub(super) const fn with_windows(self, windows: u16) -> Self {
        let rest = self.0 & ((1 << Self::WINDOWS_SHIFT) - 1);
        Self(rest | (windows as u32) << Self::WINDOWS_SHIFT)
    }

    /// What is set in either: [`State::INSIDE`] if both are.
    #[inline(always)]
    pub(super) const fn joined(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn is_head(self) -> bool {
        self.0 & Self::HEAD != 0
    }

    /// Whether this is the head of a block whose owner's bit is set in `owners`: one look at a table of both.
    #[inline(always)]
    pub(super) const fn is_head_of(self, owners: u16) -> bool {
        let heads = (owners as u32) << Self::HEAD;
        heads >> (self.0 & (Self::HEAD | Self::OWNER_MASK)) & 1 != 0
    }

    pub(super) const fn is_free(self) -> bool {
        self.0 & (Self::BUDDY | Self::FRONT) != 0
    }

    pub(super) const fn is_pinned(self) -> bool {
        self.0 & Self::PINNED != 0
    }

    pub(super) const fn order(self) -> u32 {
        (self.0 >> Self::ORDER_SHIFT) & 0xff
    }

    pub(super) fn owner(self) -> FrameOwner {
        FrameOwner::from_number(self.0 & Self::OWNER_MASK)
    }
}

/// The record of one frame: 16 bytes, so that a pointer to it can stand for the page (S85a).
///
/// Zeroed memory is a valid record, of an absent frame. The two links are the owner's while the frame is owned and
/// the allocator's while it is free; the spare word is always the owner's. All are atomics and none orders
/// other memory: what they protect is handed over by a lock or by ownership.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Frame {
    state: AtomicU32,
    pub(super) next: AtomicU32,
    pub(super) previous: AtomicU32,
    spare: AtomicU32,
}

impl Frame {
    /// The record of an absent frame.
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(0),
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
            spare: AtomicU32::new(0),
        }
    }

    /// A word that the frame's owner may use as it likes.
    pub const fn spare(&self) -> &AtomicU32 {
        &self.spare
    }

    pub(super) fn state(&self) -> State {
        State(self.state.load(Relaxed))
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state.0, Relaxed);
    }

    /// As [`Frame::state`]: what ended the windows that it does not count any more is over.
    pub(super) fn state_after_windows(&self) -> State {
        State(self.state.load(Acquire))
    }

    /// Changes the state to what `change` makes of it, in one step, if that is something: what it was.
    pub(super) fn change(&self, change: impl Fn(State) -> Option<State>) -> Result<State, State> {
        let update = |word| change(State(word)).map(|State(word)| word);
        // Who is behind the last window to end has seen all that happened in it.
        self.state.fetch_update(AcqRel, Acquire, update).map(State).map_err(State)
    }

    /// Changes the state to `new` if it is `expected`, in one step. Says whether it was.
    #[inline(always)]
    pub(super) fn claim(&self, expected: State, new: State) -> bool {
        self.state.compare_exchange(expected.0, new.0, Relaxed, Relaxed).is_ok()
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written() {
        for owner in FrameOwner::ALL {
            assert_eq!(State::owned(0, owner).owner(), owner);
        }
        const { assert!(FrameOwner::COUNT <= 1 << State::OWNER_MASK.count_ones()) };
    }

    #[test]
    fn a_head_is_of_a_set_of_owners_if_its_own_is_and_an_inside_of_none() {
        for owner in FrameOwner::ALL {
            for bit in 0..FrameOwner::COUNT {
                for order in [0, 10] {
                    let of = State::owned(order, owner).is_head_of(1 << bit);
                    assert_eq!(of, owner as usize == bit, "{owner}, {bit}");
                }
            }
            assert!(State::pinned(owner).is_head_of(1 << owner as u32));
        }
        assert!(!State::INSIDE.is_head_of(u16::MAX));
    }
}
