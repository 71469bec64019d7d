//! The frame allocator's front lists beside a plain array of frames, which is right but for one mistake.

use super::{Verdict, board, same};
use kerncore::{
    addr::Pfn,
    frames::{Frame, FrameAllocator, FrameOwner, FrameTable, Freed},
};

const RAM: u32 = 0x6_0000;
const FRAMES: u32 = 16;
const ME: FrameOwner = FrameOwner::Pages;
const OTHER: FrameOwner = FrameOwner::Slab;

/// Frames by number, from 0.
trait AnyFrames {
    fn allocate(&mut self, order: u32, owner: FrameOwner) -> Option<u32>;
    /// Whether it was freed.
    fn free(&mut self, first: u32, order: u32, owner: FrameOwner) -> bool;
    fn free_frames(&self) -> u32;
}

/// Who makes sixteen free frames.
trait Memories {
    fn make(&self) -> Box<dyn AnyFrames>;
}

/// `kerncore`'s, by the calls that spare the way through the lists of buddies where they can.
struct Right;

impl Memories for Right {
    fn make(&self) -> Box<dyn AnyFrames> {
        let records: Vec<Frame> = (0..FRAMES).map(|_| Frame::new()).collect();
        let first = Pfn::new(RAM).expect("below 4 GiB");
        let table = FrameTable::new(Box::leak(records.into()), first).expect("an aligned frame");
        let mut allocator = FrameAllocator::new(table);
        allocator.add_range(first, FRAMES).expect("nothing was added yet");
        Box::new(allocator)
    }
}

impl AnyFrames for FrameAllocator<'_> {
    fn allocate(&mut self, order: u32, owner: FrameOwner) -> Option<u32> {
        let first = match self.take_waiting(order, owner) {
            Some(record) => {
                self.table().frame_at_record(core::ptr::from_ref(record).addr()).expect("ours")
            }
            None => FrameAllocator::allocate(self, order, owner).ok()?.leak().0,
        };
        Some(first.number() - RAM)
    }

    fn free(&mut self, first: u32, order: u32, owner: FrameOwner) -> bool {
        let frame = Pfn::new(RAM + first).expect("below 4 GiB");
        let record = self.table().frame(frame).expect("one of sixteen");
        self.give_back(record, order, owner) == Freed::Yes
            || self.free_at(frame, order, owner).is_ok()
    }

    fn free_frames(&self) -> u32 {
        self.free_pages()
    }
}

/// What is wrong with the front list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// Nothing.
    None,
    /// What comes back is kept, but not marked as free.
    KeptUnmarked,
    /// Whose it is is not asked, for it is in use.
    Anybodys,
    /// Of what order it is is not asked, for it has a record.
    AnyOrder,
    /// What waits is not merged when memory is short.
    NeverMerged,
    /// What waits is not counted as free.
    NotCounted,
}

impl Memories for Mistake {
    fn make(&self) -> Box<dyn AnyFrames> {
        let free = vec![None; FRAMES as usize];
        Box::new(Plain { used: free, waiting: Vec::new(), mistake: *self })
    }
}

/// Who uses each frame, and the order of what begins there.
struct Plain {
    used: Vec<Option<(FrameOwner, u32)>>,
    /// Free blocks: first frame and order.
    waiting: Vec<(u32, u32)>,
    mistake: Mistake,
}

impl Plain {
    fn waits(&self, frame: u32) -> bool {
        self.waiting.iter().any(|&(first, order)| (first..first + (1 << order)).contains(&frame))
    }
}

impl AnyFrames for Plain {
    fn allocate(&mut self, order: u32, owner: FrameOwner) -> Option<u32> {
        let mut found = self.waiting.iter().rposition(|block| block.1 == order).map(|place| {
            let (first, _) = self.waiting.remove(place);
            first
        });
        for merged in [false, true] {
            if merged && found.is_none() && self.mistake != Mistake::NeverMerged {
                self.waiting.clear();
            }
            found = found.or_else(|| {
                (0..FRAMES).step_by(1 << order).find(|&first| {
                    (first..first + (1 << order))
                        .all(|frame| self.used[frame as usize].is_none() && !self.waits(frame))
                })
            });
        }
        let first = found?;
        self.used[first as usize..(first + (1 << order)) as usize].fill(Some((owner, order)));
        Some(first)
    }

    fn free(&mut self, first: u32, order: u32, owner: FrameOwner) -> bool {
        let Some((user, had)) = self.used[first as usize] else { return false };
        if user != owner && self.mistake != Mistake::Anybodys
            || had != order && self.mistake != Mistake::AnyOrder
        {
            return false;
        }
        if self.mistake != Mistake::KeptUnmarked {
            self.used[first as usize..(first + (1 << order)) as usize].fill(None);
        }
        self.waiting.push((first, order));
        true
    }

    fn free_frames(&self) -> u32 {
        let free = (0..FRAMES).filter(|&frame| {
            self.waits(frame) && self.mistake != Mistake::NotCounted
                || self.used[frame as usize].is_none() && !self.waits(frame)
        });
        u32::try_from(free.count()).expect("at most sixteen")
    }
}

fn what_waits_is_free_and_is_freed_no_second_time(memories: &impl Memories) -> Verdict {
    let mut frames = memories.make();
    let first = frames.allocate(0, ME).ok_or("no memory")?;
    same("what is left", &frames.free_frames(), &(FRAMES - 1))?;
    same("the free", &frames.free(first, 0, ME), &true)?;
    same("what is free then", &frames.free_frames(), &FRAMES)?;
    same("a second free", &frames.free(first, 0, ME), &false)?;
    let two = (frames.allocate(0, ME), frames.allocate(0, ME));
    same("one frame for two", &(two.0 == two.1), &false)
}

fn a_block_goes_back_whole_and_in_its_owners_name(memories: &impl Memories) -> Verdict {
    let mut frames = memories.make();
    let first = frames.allocate(2, ME).ok_or("no memory")?;
    same("a free by another", &frames.free(first, 2, OTHER), &false)?;
    same("a free of half", &frames.free(first, 1, ME), &false)?;
    same("a free of twice as much", &frames.free(first, 3, ME), &false)?;
    same("what is left", &frames.free_frames(), &(FRAMES - 4))?;
    same("the right free", &frames.free(first, 2, ME), &true)
}

fn what_waits_is_merged_before_memory_is_short(memories: &impl Memories) -> Verdict {
    let mut frames = memories.make();
    let taken: Vec<_> = (0..FRAMES).map_while(|_| frames.allocate(0, ME)).collect();
    same("single frames", &taken.len(), &(FRAMES as usize))?;
    for frame in taken {
        same("a free", &frames.free(frame, 0, ME), &true)?;
    }
    same("all of it at once", &frames.allocate(4, ME), &Some(0))
}

board! {
    what_waits_is_free_and_is_freed_no_second_time(Right, Mistake::None) {
        front_list_keeps_unmarked: "S23", "what comes back is kept for the next, but still marked as in use", Mistake::KeptUnmarked;
        front_list_hides_frames: "S117", "what waits on a front list is not counted as free", Mistake::NotCounted;
    }
    a_block_goes_back_whole_and_in_its_owners_name(Right, Mistake::None) {
        front_list_takes_anybodys: "S33", "the quick free does not ask whose the block is", Mistake::Anybodys;
        front_list_takes_any_order: "S33", "the quick free does not ask how large the block is", Mistake::AnyOrder;
    }
    what_waits_is_merged_before_memory_is_short(Right, Mistake::None) {
        front_list_is_never_merged: "S117", "a large request fails while all of memory waits in single frames", Mistake::NeverMerged;
    }
}
