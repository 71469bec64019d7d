//! Small blocks of one size, cut from coherent pages (S103).
//!
//! ```text
//!   a run of pages   ┌──────┬──────┬──────┬────╌╌┬──────┬──────┬──────┬────╌╌┐
//!                    │  0   │  1   │  2   │ rest │  3   │  4   │  5   │ rest │     no block crosses a boundary
//!                    └──────┴──────┴──────┴────╌╌┴──────┴──────┴──────┴────╌╌┘
//!                    ▲ a multiple of the boundary ▲
//!   one bit a block    1      0      1             0      0      0
//! ```
//! The bits lie apart from the blocks, which a device may write: so a free is checked in full, and what a device writes where it
//! should not changes no books.

use core::fmt;

use crate::addr::PAGE_SIZE;

/// The smallest block, in bytes.
pub const SMALLEST: u32 = 4;
/// Bits of a run: as many as a page has of the smallest blocks. A larger run is one block, or few.
const WORDS: usize = (PAGE_SIZE / SMALLEST / u32::BITS) as usize;

/// Why there is no pool of such blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// Blocks of no bytes.
    ZeroSize,
    /// What is no power of two.
    Alignment {
        /// The alignment given.
        alignment: u32,
    },
    /// A boundary that is no power of two, or that any block crosses.
    Boundary {
        /// The boundary given.
        boundary: u32,
        /// The size of a block, rounded up to the alignment.
        size: u32,
    },
    /// Rounded up to the alignment, or to pages, it is more than 32 bits can say.
    TooLarge {
        /// The size given.
        size: u32,
        /// The alignment given.
        alignment: u32,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("blocks of no bytes"),
            Self::Alignment { alignment } => {
                write!(f, "an alignment of {alignment}, which is no power of two")
            }
            Self::Boundary { boundary, size } => {
                write!(f, "blocks of {size} bytes cannot keep to a boundary of {boundary}")
            }
            Self::TooLarge { size, alignment } => {
                write!(f, "blocks of {size} bytes aligned to {alignment} are too large")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

/// How a run of pages is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    size: u32,
    boundary: u32,
    run: u32,
    unit: u32,
}

impl BlockLayout {
    /// Blocks of `size` bytes, a multiple of `alignment` from each other, none across a multiple of `boundary`; an alignment of zero is
    /// any, and so is a boundary.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn new(size: u32, alignment: u32, boundary: u32) -> Result<Self, LayoutError> {
        if size == 0 {
            return Err(LayoutError::ZeroSize);
        }
        let step = alignment.max(1);
        if !step.is_power_of_two() {
            return Err(LayoutError::Alignment { alignment });
        }
        let too_large = LayoutError::TooLarge { size, alignment };
        let rounded = size.max(SMALLEST).checked_next_multiple_of(step.max(SMALLEST));
        let size = rounded.ok_or(too_large)?;
        let run = size.checked_next_multiple_of(PAGE_SIZE).ok_or(too_large)?;
        // A run that is aligned to the power of two that holds it keeps to every larger boundary.
        let whole = run.checked_next_power_of_two().ok_or(too_large)?;
        let kept = boundary;
        let boundary = if boundary == 0 { whole } else { boundary };
        if boundary < size || !boundary.is_power_of_two() {
            return Err(LayoutError::Boundary { boundary, size });
        }
        let unit = step.max(kept.min(whole));
        Ok(Self { size, boundary: boundary.min(whole), run, unit })
    }

    /// Bytes of a block.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Bytes of a run of pages.
    pub const fn run(&self) -> u32 {
        self.run
    }

    /// What a run must begin at a multiple of, as the device sees it: a power of two. Most memory is given so anyway, since that is
    /// no more than the power of two that holds the run.
    pub const fn unit(&self) -> u32 {
        self.unit
    }

    /// How many blocks a run has.
    pub const fn blocks(&self) -> u32 {
        let (chunks, rest) = (self.run / self.boundary, self.run % self.boundary);
        chunks * (self.boundary / self.size) + rest / self.size
    }

    /// How far from the run's start the block of that number begins.
    const fn offset_of(&self, block: u32) -> u32 {
        let each = self.boundary / self.size;
        block / each * self.boundary + block % each * self.size
    }

    /// The block that begins at `offset`, or why none does.
    const fn block_at(&self, offset: u32) -> Result<u32, BlockError> {
        let within = offset % self.boundary;
        let each = self.boundary / self.size;
        let block = offset / self.boundary * each + within / self.size;
        if within / self.size >= each || block >= self.blocks() {
            return Err(BlockError::Rest { offset });
        }
        if within.is_multiple_of(self.size) {
            Ok(block)
        } else {
            Err(BlockError::Inside { offset, block: self.offset_of(block) })
        }
    }
}

/// Why a block was not taken back. Nothing has changed. Offsets are from the start of its run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// It lies inside a block.
    Inside {
        /// The offset given.
        offset: u32,
        /// Where the block begins.
        block: u32,
    },
    /// No block lies there: it is what is left before a boundary.
    Rest {
        /// The offset given.
        offset: u32,
    },
    /// The block is free.
    AlreadyFree {
        /// The offset given.
        offset: u32,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside { offset, block } => {
                write!(f, "{offset:#x} lies inside the block at {block:#x}")
            }
            Self::Rest { offset } => write!(f, "no block lies at {offset:#x}"),
            Self::AlreadyFree { offset } => write!(f, "the block at {offset:#x} is free already"),
        }
    }
}

impl core::error::Error for BlockError {}

/// Which blocks of one run are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    used: [u32; WORDS],
}

impl Blocks {
    /// All free.
    pub const FREE: Self = Self { used: [0; WORDS] };

    /// Takes the lowest free block: how far from the run's start it begins.
    pub fn take(&mut self, layout: &BlockLayout) -> Option<u32> {
        let open = self.used.iter().position(|&word| word != u32::MAX)?;
        let word = self.used.get_mut(open)?;
        let bit = word.trailing_ones();
        let block = u32::try_from(open).ok()? * u32::BITS + bit;
        if block >= layout.blocks() {
            return None;
        }
        *word |= 1 << bit;
        Some(layout.offset_of(block))
    }

    /// Gives the block back that begins at `offset`.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn give_back(&mut self, layout: &BlockLayout, offset: u32) -> Result<(), BlockError> {
        let block = layout.block_at(offset)?;
        let bit = 1 << (block % u32::BITS);
        let free = BlockError::AlreadyFree { offset };
        let word = self.used.get_mut((block / u32::BITS) as usize).ok_or(free)?;
        if *word & bit == 0 {
            return Err(free);
        }
        *word &= !bit;
        Ok(())
    }

    /// The blocks that are taken, lowest first: how far from the run's start each begins.
    pub fn taken(&self, layout: &BlockLayout) -> impl Iterator<Item = u32> {
        (0..layout.blocks()).filter_map(|block| {
            let word = self.used.get((block / u32::BITS) as usize)?;
            (word >> (block % u32::BITS) & 1 != 0).then(|| layout.offset_of(block))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: u32, alignment: u32, boundary: u32) -> BlockLayout {
        BlockLayout::new(size, alignment, boundary).expect("such blocks can be")
    }

    fn all(layout: &BlockLayout) -> Vec<u32> {
        let mut blocks = Blocks::FREE;
        core::iter::from_fn(|| blocks.take(layout)).collect()
    }

    /// Against the plainest way to cut a run.
    #[test]
    fn blocks_are_aligned_apart_and_cross_no_boundary_s103() {
        for size in [1, 3, 4, 5, 12, 24, 100, 1000, 1365, 2048, 2049, 4096, 4097, 9000, 20_000] {
            for alignment in [0, 1, 4, 16, 64, 4096] {
                for boundary in [0, 64, 128, 4096, 8192, 1 << 20] {
                    let Ok(layout) = BlockLayout::new(size, alignment, boundary) else {
                        let rounded = size.max(4).next_multiple_of(alignment.max(4));
                        assert!(
                            boundary != 0 && boundary < rounded,
                            "{size} {alignment} {boundary}"
                        );
                        continue;
                    };
                    let mut wanted = Vec::new();
                    let mut at = 0;
                    while at + layout.size() <= layout.run() {
                        let last = at + layout.size() - 1;
                        if boundary != 0 && at / boundary != last / boundary {
                            at = last / boundary * boundary;
                            continue;
                        }
                        wanted.push(at);
                        at += layout.size();
                    }
                    assert_eq!(all(&layout), wanted, "{size} {alignment} {boundary}");
                    assert!(layout.size() >= size && layout.run() >= PAGE_SIZE);
                    let step = alignment.max(1);
                    assert!(wanted.iter().all(|at| at.is_multiple_of(step)));
                    assert_eq!(layout.blocks() as usize, wanted.len());
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused_s103() {
        assert_eq!(BlockLayout::new(0, 4, 0), Err(LayoutError::ZeroSize));
        assert_eq!(BlockLayout::new(4, 12, 0), Err(LayoutError::Alignment { alignment: 12 }));
        let crossed = |boundary, size| Err(LayoutError::Boundary { boundary, size });
        assert_eq!(BlockLayout::new(65, 1, 64), crossed(64, 68));
        assert_eq!(BlockLayout::new(4, 1, 96), crossed(96, 4));
        let too_large = LayoutError::TooLarge { size: u32::MAX, alignment: 8 };
        assert_eq!(BlockLayout::new(u32::MAX, 8, 0), Err(too_large));
        let too_large = LayoutError::TooLarge { size: 0x8000_0001, alignment: 1 };
        assert_eq!(BlockLayout::new(0x8000_0001, 1, 0), Err(too_large));
    }

    #[test]
    fn a_block_is_given_back_once_and_only_where_it_begins_s103() {
        let layout = layout(24, 8, 64);
        let mut blocks = Blocks::FREE;
        let taken: Vec<u32> = (0..5).filter_map(|_| blocks.take(&layout)).collect();
        assert_eq!(taken, [0, 24, 64, 88, 128]);
        let before = blocks.clone();
        let inside = Err(BlockError::Inside { offset: 25, block: 24 });
        assert_eq!(blocks.give_back(&layout, 25), inside);
        assert_eq!(blocks.give_back(&layout, 48), Err(BlockError::Rest { offset: 48 }));
        assert_eq!(blocks.give_back(&layout, 152), Err(BlockError::AlreadyFree { offset: 152 }));
        assert_eq!(blocks.give_back(&layout, 4096), Err(BlockError::Rest { offset: 4096 }));
        assert_eq!(blocks, before, "a refusal changes nothing");
        assert_eq!(blocks.give_back(&layout, 24), Ok(()));
        assert_eq!(blocks.give_back(&layout, 24), Err(BlockError::AlreadyFree { offset: 24 }));
        assert_eq!(blocks.taken(&layout).collect::<Vec<_>>(), [0, 64, 88, 128]);
        assert_eq!(blocks.take(&layout), Some(24), "the lowest that is free");
    }

    #[test]
    fn a_run_gives_each_block_once_and_then_none_s103() {
        let layout = layout(4, 4, 0);
        assert_eq!(layout.blocks(), 1024);
        let mut blocks = Blocks::FREE;
        for block in 0..1024 {
            assert_eq!(blocks.take(&layout), Some(block * 4));
        }
        assert_eq!(blocks.take(&layout), None);
        assert_eq!(blocks.taken(&layout).count(), 1024);
    }
}
