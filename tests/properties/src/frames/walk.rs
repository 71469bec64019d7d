//! One history: every step done to the allocator and to the model, and compared.

use kerncore::addr::Pfn;
use kerncore::frames::{
    AllocateError, Census, Frame, FrameAllocator, FrameBlock, FrameList, FrameOwner, FrameRequest,
    FrameTable, Freed, MAX_BLOCK, MAX_ORDER,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::model::{Cell, Model, pfn};

const FIRST: u32 = 0x6_0000;
const OWNERS: [FrameOwner; 4] =
    [FrameOwner::Vmalloc, FrameOwner::Dma, FrameOwner::User, FrameOwner::Slab];

/// A memory: which of its frames are RAM, and which of those are set aside.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    frames: u32,
    cells: Vec<Cell>,
}

impl Scene {
    /// `frames` frames, out of which each cut takes a hole or sets a run aside.
    pub(super) fn new(frames: u32, cuts: &[(u32, u32, bool)]) -> Self {
        let mut cells = vec![Cell::Free; frames as usize];
        for &(at, length, hole) in cuts {
            let start = at % frames;
            let end = frames.min(start + length % frames);
            let cell = if hole { Cell::Absent } else { Cell::Pinned };
            cells[start as usize..end as usize].fill(cell);
        }
        Self { frames, cells }
    }

    pub(super) fn records(&self) -> Vec<Frame> {
        (0..self.frames).map(|_| Frame::new()).collect()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Block(u32),
    Pages(u32),
    List(u32),
    /// A block whose handle is given up, in the name of [`FrameOwner::Pages`].
    Raw(u32),
    Free(u32),
    /// Appends one handle to another.
    Join(u32, u32),
    /// Takes the first block out of a list.
    Pop(u32),
    ChangeHands(u32),
    /// Frees a raw block rightly.
    FreeRaw(u32),
    /// Frees whatever lies there, of whatever order, in the name of [`FrameOwner::Pages`].
    FreeAnything(u32, u32),
    Drain,
}

enum Handle {
    Block(FrameBlock),
    List(FrameList),
}

pub(super) struct Walk<'t> {
    allocator: FrameAllocator<'t>,
    model: Model,
    /// With the frames of each, in order.
    handles: Vec<(Handle, Vec<Pfn>)>,
    raw: Vec<(Pfn, u32)>,
    turn: usize,
    before: Census,
}

impl<'t> Walk<'t> {
    pub(super) fn new(scene: &Scene, records: &'t [Frame]) -> Result<Self, TestCaseError> {
        let table = FrameTable::new(records, pfn(FIRST)).expect("an aligned first frame");
        let mut allocator = FrameAllocator::new(table);
        let mut number = FIRST;
        for run in scene.cells.chunk_by(|one, next| one == next) {
            let pages = u32::try_from(run.len()).expect("fewer than 2²⁰ frames");
            let added = match run[0] {
                Cell::Free => allocator.add_range(pfn(number), pages),
                Cell::Pinned => table.reserve(pfn(number), pages, FrameOwner::KernelImage),
                _ => Ok(()),
            };
            prop_assert_eq!(added, Ok(()));
            number += pages;
        }
        let model = Model::new(pfn(FIRST), scene.cells.clone());
        let (handles, raw, before) = (Vec::new(), Vec::new(), table.census());
        Ok(Self { allocator, model, handles, raw, turn: 0, before })
    }

    pub(super) fn take(&mut self, step: &Step) -> TestCaseResult {
        self.turn += 1;
        let owner = OWNERS[self.turn % OWNERS.len()];
        match *step {
            Step::Block(order) => {
                let block = self.allocator.allocate(order, owner);
                self.took_block(1 << order, owner, block)
            }
            Step::Pages(pages) => {
                let block = self.allocator.allocate_pages(pages, owner);
                self.took_block(pages, owner, block)
            }
            Step::List(pages) => self.take_list(pages, owner),
            Step::Raw(order) => {
                if let Some(record) = self.allocator.take_waiting(order, FrameOwner::Pages) {
                    return self.took_record(record, order);
                }
                let block = self.allocator.allocate(order, FrameOwner::Pages);
                self.took_block(1 << order, FrameOwner::Pages, block)?;
                if let Some((Handle::Block(block), _)) = self.handles.pop_if(|(handle, frames)| {
                    matches!(handle, Handle::Block(_))
                        && matches!(
                            self.model.cell(frames[0]),
                            Cell::Owned { owner: FrameOwner::Pages, .. }
                        )
                }) {
                    self.raw.push((block.leak().0, order));
                }
                Ok(())
            }
            Step::Free(choice) => {
                let Some((handle, frames)) = pick(&mut self.handles, choice) else { return Ok(()) };
                self.free(handle, &frames)
            }
            Step::Join(one, other) => {
                let Some((one, frames)) = pick(&mut self.handles, one) else { return Ok(()) };
                let table = self.allocator.table();
                let mut list = into_list(one, &table);
                let mut joined = frames;
                if let Some((other, frames)) = pick(&mut self.handles, other) {
                    list.append(&table, into_list(other, &table));
                    joined.extend(frames);
                }
                self.handles.push((Handle::List(list), joined));
                Ok(())
            }
            Step::Pop(choice) => self.pop(choice),
            Step::ChangeHands(choice) => {
                let Some((mut handle, frames)) = pick(&mut self.handles, choice) else {
                    return Ok(());
                };
                let table = self.allocator.table();
                match &mut handle {
                    Handle::Block(block) => table.set_owner(block, owner),
                    Handle::List(list) => list.set_owner(&table, owner),
                }
                for &frame in &frames {
                    self.model.change_hands(frame, owner);
                }
                self.handles.push((handle, frames));
                Ok(())
            }
            Step::FreeRaw(choice) => match pick(&mut self.raw, choice) {
                Some((frame, order)) => self.free_at(frame, order),
                None => Ok(()),
            },
            Step::FreeAnything(choice, order) => {
                let span = self.allocator.table().len() + 8;
                self.free_at(pfn(FIRST - 4 + choice % span), order)
            }
            Step::Drain => {
                self.allocator.drain();
                prop_assert_eq!(self.allocator.waiting_pages(), 0);
                prop_assert_eq!(self.allocator.largest_free_order(), self.model.largest());
                Ok(())
            }
        }
    }

    /// A run was given, or refused: rightly?
    fn took_block(
        &mut self,
        pages: u32,
        owner: FrameOwner,
        given: Result<FrameBlock, AllocateError>,
    ) -> TestCaseResult {
        let (free, largest) = (self.model.free(), self.model.largest());
        let whole = pages.next_power_of_two();
        match given {
            Ok(block) => {
                let (first, had) = (block.first(), block.pages());
                prop_assert_eq!(had, pages);
                prop_assert!(self.model.give(first, pages, owner), "{:?} was not free", block);
                let frames = (first.number()..first.number() + pages).map(pfn).collect();
                self.handles.push((Handle::Block(block), frames));
                Ok(())
            }
            Err(error) => {
                let expected = if pages == 0 {
                    AllocateError::Zero { owner }
                } else if pages > MAX_BLOCK {
                    AllocateError::TooLarge { pages, owner }
                } else {
                    let too_small = largest.is_none_or(|order| 1 << order < whole);
                    prop_assert!(too_small, "{error}, but there is one of order {largest:?}");
                    AllocateError::Exhausted {
                        pages: whole,
                        owner,
                        free,
                        largest,
                        from: FrameRequest::ANY,
                    }
                };
                prop_assert_eq!(error, expected);
                Ok(())
            }
        }
    }

    /// A block was taken without a handle.
    fn took_record(&mut self, record: &Frame, order: u32) -> TestCaseResult {
        let table = self.allocator.table();
        let first = table.frame_at_record(core::ptr::from_ref(record).addr());
        let first = first.expect("a record of the table");
        prop_assert!(self.model.give(first, 1 << order, FrameOwner::Pages), "{first} was not free");
        self.raw.push((first, order));
        Ok(())
    }

    fn take_list(&mut self, pages: u32, owner: FrameOwner) -> TestCaseResult {
        let (free, largest) = (self.model.free(), self.model.largest());
        match self.allocator.allocate_list(pages, owner) {
            Ok(list) => {
                let frames: Vec<Pfn> = list.frames(&self.allocator.table()).collect();
                prop_assert_eq!(frames.len(), pages as usize);
                prop_assert_eq!(list.pages(), pages);
                let table = self.allocator.table();
                let mut rest = &frames[..];
                while let Some(&first) = rest.first() {
                    let block = table.block_of(first);
                    let (head, order, _) = block.expect("a frame that was given has a block");
                    prop_assert_eq!(head, first);
                    let (block, behind) = rest.split_at(1 << order);
                    prop_assert!(
                        block
                            .iter()
                            .map(|frame| frame.number())
                            .eq(first.number()..first.number() + (1 << order))
                    );
                    prop_assert!(self.model.give(first, 1 << order, owner), "{first} was not free");
                    rest = behind;
                }
                self.handles.push((Handle::List(list), frames));
            }
            Err(AllocateError::Zero { .. }) => prop_assert_eq!(pages, 0),
            Err(error) => {
                let expected = AllocateError::Exhausted {
                    pages,
                    owner,
                    free,
                    largest,
                    from: FrameRequest::ANY,
                };
                prop_assert!(pages > free);
                prop_assert_eq!(error, expected);
            }
        }
        Ok(())
    }

    fn pop(&mut self, choice: u32) -> TestCaseResult {
        let Some((handle, mut frames)) = pick(&mut self.handles, choice) else { return Ok(()) };
        let table = self.allocator.table();
        let mut list = into_list(handle, &table);
        let block = list.pop(&table);
        prop_assert!(block.is_some(), "no handle is empty");
        if let Some(block) = block {
            let rest = frames.split_off(block.pages() as usize);
            prop_assert_eq!(block.first(), frames[0]);
            self.free(Handle::Block(block), &frames)?;
            frames = rest;
        }
        if frames.is_empty() {
            prop_assert!(list.is_empty());
        } else {
            self.handles.push((Handle::List(list), frames));
        }
        Ok(())
    }

    fn free(&mut self, handle: Handle, frames: &[Pfn]) -> TestCaseResult {
        let freed = match handle {
            Handle::Block(block) => self.allocator.free(block),
            Handle::List(list) => self.allocator.free_list(list),
        };
        prop_assert_eq!(freed, Ok(()));
        for &frame in frames {
            self.model.take_back(frame);
        }
        Ok(())
    }

    fn free_at(&mut self, frame: Pfn, order: u32) -> TestCaseResult {
        let expected = self.model.judge(frame, order, FrameOwner::Pages);
        let owner = FrameOwner::Pages;
        let at_once = match self.allocator.table().frame(frame) {
            Some(record) if self.turn.is_multiple_of(2) => {
                self.allocator.give_back(record, order, owner)
            }
            _ => Freed::No,
        };
        let freed = match at_once {
            Freed::Yes => Ok(()),
            Freed::No => self.allocator.free_at(frame, order, owner),
        };
        prop_assert_eq!(freed, expected);
        if expected.is_ok() {
            self.raw.retain(|&raw| raw != (frame, order));
            for number in frame.number()..frame.number() + (1 << order) {
                self.model.take_back(pfn(number));
            }
        }
        Ok(())
    }

    /// Everything that can be asked, of every frame.
    pub(super) fn compare(&self) -> TestCaseResult {
        prop_assert_eq!(self.allocator.check(), Ok(()));
        prop_assert_eq!(self.allocator.free_pages(), self.model.free());
        let table = self.allocator.table();
        for (frame, cell) in self.model.cells() {
            let (owner, managed) = match cell {
                Cell::Absent => (FrameOwner::Absent, false),
                Cell::Pinned => (FrameOwner::KernelImage, false),
                Cell::Free => (FrameOwner::Free, true),
                Cell::Owned { owner, .. } => (owner, true),
            };
            prop_assert_eq!((table.owner_of(frame), table.is_managed(frame)), (owner, managed));
            if let Cell::Owned { head, order, owner } = cell {
                prop_assert_eq!(table.block_of(frame), Some((pfn(head), order, owner)));
            }
        }
        for (handle, frames) in &self.handles {
            if let Handle::List(list) = handle {
                prop_assert!(list.frames(&table).eq(frames.iter().copied()));
                prop_assert_eq!(list.pages() as usize, frames.len());
            }
        }
        Ok(())
    }

    /// Gives all back: the memory is as it was, merged as far as it can be.
    pub(super) fn finish(mut self) -> TestCaseResult {
        while let Some((handle, frames)) = self.handles.pop() {
            self.free(handle, &frames)?;
        }
        while let Some((frame, order)) = self.raw.pop() {
            self.free_at(frame, order)?;
        }
        self.allocator.drain();
        prop_assert_eq!(self.allocator.table().census(), self.before);
        let largest = self.model.largest();
        prop_assert!(largest.is_none_or(|order| order <= MAX_ORDER));
        prop_assert_eq!(self.allocator.largest_free_order(), largest);
        self.compare()
    }
}

fn into_list(handle: Handle, table: &FrameTable<'_>) -> FrameList {
    match handle {
        Handle::List(list) => list,
        Handle::Block(block) => {
            let mut list = FrameList::new();
            list.push(table, block);
            list
        }
    }
}

/// Takes one of `things` out.
fn pick<T>(things: &mut Vec<T>, choice: u32) -> Option<T> {
    let index = (choice as usize).checked_rem(things.len())?;
    Some(things.swap_remove(index))
}
