//! One cell a frame, and every question answered by looking at all of them.

use kerncore::addr::Pfn;
use kerncore::frames::{FrameOwner, FreeError, MAX_ORDER, order_for};

/// What the model knows of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Absent,
    Pinned,
    Free,
    Owned { head: u32, order: u32, owner: FrameOwner },
}

#[derive(Debug)]
pub(super) struct Model {
    first: u32,
    cells: Vec<Cell>,
}

impl Model {
    pub(super) fn new(first: Pfn, cells: Vec<Cell>) -> Self {
        Self { first: first.number(), cells }
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = (Pfn, Cell)> {
        (self.first..).zip(&self.cells).map(|(number, &cell)| (pfn(number), cell))
    }

    pub(super) fn cell(&self, frame: Pfn) -> Cell {
        let index = frame.number().checked_sub(self.first).map(|index| index as usize);
        index.and_then(|index| self.cells.get(index)).copied().unwrap_or(Cell::Absent)
    }

    pub(super) fn free(&self) -> u32 {
        count(self.cells.iter().filter(|&&cell| cell == Cell::Free))
    }

    /// The largest order of which an aligned free run exists.
    pub(super) fn largest(&self) -> Option<u32> {
        (0..=MAX_ORDER).rev().find(|&order| {
            // The table begins at a multiple of the largest block.
            let blocks = self.cells.chunks_exact(1 << order);
            blocks.into_iter().any(|block| block.iter().all(|&cell| cell == Cell::Free))
        })
    }

    /// Notes that `pages` frames from `first` were given as one run; false if they were not free.
    pub(super) fn give(&mut self, first: Pfn, pages: u32, owner: FrameOwner) -> bool {
        let (mut head, mut left) = (first.number(), pages);
        let mut sound = head.is_multiple_of(1 << order_for(pages));
        // An exact count is cut into powers of two, largest first.
        while left != 0 {
            let order = left.ilog2();
            for number in head..head + (1 << order) {
                sound &= self.cell(pfn(number)) == Cell::Free;
                self.set(number, Cell::Owned { head, order, owner });
            }
            (head, left) = (head + (1 << order), left - (1 << order));
        }
        sound
    }

    pub(super) fn take_back(&mut self, frame: Pfn) {
        self.set(frame.number(), Cell::Free);
    }

    pub(super) fn change_hands(&mut self, frame: Pfn, owner: FrameOwner) {
        if let Cell::Owned { head, order, .. } = self.cell(frame) {
            self.set(frame.number(), Cell::Owned { head, order, owner });
        }
    }

    /// What a raw free must answer.
    pub(super) fn judge(
        &self,
        frame: Pfn,
        order: u32,
        claimed: FrameOwner,
    ) -> Result<(), FreeError> {
        match self.cell(frame) {
            Cell::Absent => Err(FreeError::NotManaged { frame }),
            Cell::Pinned => Err(FreeError::Reserved { frame, owner: FrameOwner::KernelImage }),
            Cell::Free => Err(FreeError::AlreadyFree { frame }),
            Cell::Owned { head, order: actual, owner } if head != frame.number() => {
                Err(FreeError::InsideBlock { frame, head: pfn(head), order: actual, owner })
            }
            Cell::Owned { order: actual, owner, .. } if actual != order => {
                if order > MAX_ORDER || !frame.number().is_multiple_of(1 << order) {
                    Err(FreeError::Misaligned { frame, order })
                } else {
                    Err(FreeError::WrongOrder { frame, owner, order, actual })
                }
            }
            Cell::Owned { owner, .. } if owner != claimed => {
                Err(FreeError::OtherOwner { frame, owner, claimed })
            }
            Cell::Owned { .. } => Ok(()),
        }
    }

    fn set(&mut self, number: u32, cell: Cell) {
        let index = number.checked_sub(self.first).map(|index| index as usize);
        if let Some(place) = index.and_then(|index| self.cells.get_mut(index)) {
            *place = cell;
        }
    }
}

pub(super) fn pfn(number: u32) -> Pfn {
    Pfn::new(number).expect("all frames of the scenes lie below 4 GiB")
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).expect("a table has fewer than 2²⁰ frames")
}
