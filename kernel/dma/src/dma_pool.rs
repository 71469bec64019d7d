//! Pools of small coherent blocks for one device (S103).
//!
//! [`kerncore::dma_pool`] cuts; here the runs of pages come from [`crate::coherent`], one whenever no block is free, and go back
//! when the pool goes.

use core::fmt;
use core::ptr::NonNull;

use arch::lock::IrqSpinLock;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::dma_pool::{BlockError, BlockLayout, Blocks, LayoutError};
use kerncore::holder::Tag;
use kerncore::lock::Class;
use mm::report::dump_stack;

use crate::book::{Book, Leaf};
use crate::coherent::{self, AllocateError, Buffer};
use crate::device::Device;
use crate::iommu::{IommuMapping, Shared};

/// Bytes of a pool's name that are kept.
const NAME: usize = 32;

/// What a pool is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolName([u8; NAME]);

impl PoolName {
    fn new(name: &str) -> Self {
        let mut kept = [0; NAME];
        for (to, &from) in kept.iter_mut().zip(name.as_bytes()) {
            *to = from;
        }
        Self(kept)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(NAME);
        match core::str::from_utf8(&self.0[..end]) {
            Ok(name) => name,
            // A character was cut in two, or never was one.
            Err(error) => core::str::from_utf8(&self.0[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

/// Which memory is cut by which pool, by its first byte, for listings: a pool itself may be moved by whoever has it.
static CUT: IrqSpinLock<Book<(VirtAddr, PoolName)>> =
    IrqSpinLock::new(Class::DmaPoolNames, Book::new());

/// The pool that cuts the memory that begins at `address`, if one does. Any context.
pub(crate) fn pool_of(address: VirtAddr) -> Option<PoolName> {
    CUT.with(|cut| cut.iter().find(|(start, _)| *start == address).map(|(_, name)| *name))
}

/// A run of pages, and which of its blocks are taken.
struct Run {
    /// The memory, which may begin before the first block.
    pages: Buffer,
    /// Its size.
    bytes: u32,
    /// Where the first block lies.
    buffer: Buffer,
    blocks: Blocks,
    /// What its device was behind when it was taken: no other is taken for that as long as it is held.
    iommu: Option<IommuMapping>,
}

impl Run {
    fn is_behind(&self, iommu: Option<NonNull<Shared>>) -> bool {
        self.iommu.as_ref().map(IommuMapping::pointer) == iommu
    }
}

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeError {
    /// No pages for more blocks.
    Pages(AllocateError),
    /// No memory for the books of more blocks.
    NoBooks,
    /// The pool has memory that its device does not see where it is now: it was attached to an IOMMU mapping, or detached from one.
    Moved {
        /// The pool.
        pool: PoolName,
        /// The device.
        device: &'static str,
    },
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pages(error) => error.fmt(f),
            Self::NoBooks => f.write_str("no memory for the books of more blocks"),
            Self::Moved { pool, device } => {
                let pool = pool.as_str();
                write!(f, "{device} does not see the memory of {pool} where it is attached now")
            }
        }
    }
}

impl core::error::Error for TakeError {}

/// Why a block was not taken back. Nothing has changed; the error was printed, with a backtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveBackError {
    /// No run of the pool has that address.
    Foreign {
        /// The address given.
        address: VirtAddr,
    },
    /// The device sees the block elsewhere.
    Handle {
        /// The block.
        address: VirtAddr,
        /// Where the device sees it.
        wanted: DmaAddr,
        /// What was given.
        given: DmaAddr,
    },
    /// The books of its run say otherwise.
    Block {
        /// The address given.
        address: VirtAddr,
        /// Why.
        error: BlockError,
    },
}

impl fmt::Display for GiveBackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { address } => write!(f, "{address} is not the pool's"),
            Self::Handle { address, wanted, given } => {
                write!(f, "the block at {address} is the device's {wanted}, not {given}")
            }
            Self::Block { address, error } => write!(f, "{address}: of its pages, {error}"),
        }
    }
}

impl core::error::Error for GiveBackError {}

/// A pool of blocks of one size for one device.
pub struct DmaPool<'d> {
    name: PoolName,
    device: &'d Device,
    layout: BlockLayout,
    runs: IrqSpinLock<Book<Run>>,
}

impl fmt::Debug for DmaPool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaPool({} of {}, {:?})", self.name(), self.device.name(), self.layout)
    }
}

impl<'d> DmaPool<'d> {
    /// A pool without pages yet. Of `name` 32 bytes are kept. Any context.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn new(
        name: &str,
        device: &'d Device,
        size: u32,
        alignment: u32,
        boundary: u32,
    ) -> Result<Self, LayoutError> {
        let layout = BlockLayout::new(size, alignment, boundary)?;
        let runs = IrqSpinLock::new(Class::DmaBlocks, Book::new());
        Ok(Self { name: PoolName::new(name), device, layout, runs })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Bytes of a block, the alignment's share included.
    pub const fn block_bytes(&self) -> u32 {
        self.layout.size()
    }

    fn take(&self) -> Option<Result<Buffer, TakeError>> {
        let iommu = self.device.iommu_pointer();
        self.runs.with(|runs| {
            runs.find(|run| {
                if !run.is_behind(iommu) {
                    return Some(Err(self.moved()));
                }
                let offset = run.blocks.take(&self.layout)?;
                Some(Ok(at(run.buffer, offset)))
            })
        })
    }

    #[cold]
    fn moved(&self) -> TakeError {
        TakeError::Moved { pool: self.name, device: self.device.name() }
    }

    /// Takes a block, which holds whatever it held. With [`Sleep::MayNot`] any context will do.
    ///
    /// # Errors
    /// [`TakeError`]; nothing was taken.
    pub fn allocate(&self, sleep: Sleep, caller: VirtAddr) -> Result<Buffer, TakeError> {
        self.allocate_quietly(sleep, caller).inspect_err(|error| self.complain(error))
    }

    /// Says what the atomic pool had, if that is why there was no block.
    #[cold]
    fn complain(&self, error: &TakeError) {
        if let TakeError::Pages(error) = error {
            error.complain(self.device, self.layout.run());
        }
    }

    /// As [`DmaPool::allocate`], without a word about an atomic pool that has nothing.
    ///
    /// # Errors
    /// [`TakeError`]; nothing was taken.
    pub fn allocate_quietly(&self, sleep: Sleep, caller: VirtAddr) -> Result<Buffer, TakeError> {
        if let Some(taken) = self.take() {
            return taken;
        }
        // Under no lock: who may sleep may do so here. Meanwhile others may come first, or bring pages, too.
        let nothing = Buffer { address: VirtAddr::new(0), dma: DmaAddr::new(0) };
        let run =
            Run { pages: nothing, bytes: 0, buffer: nothing, blocks: Blocks::FREE, iommu: None };
        let mut leaf = Leaf::new(run).ok_or(TakeError::NoBooks)?;
        let mut cut = Leaf::new((nothing.address, self.name)).ok_or(TakeError::NoBooks)?;
        let (pages, bytes) = self.pages(sleep, caller).map_err(TakeError::Pages)?;
        cut.value_mut().0 = pages.address;
        CUT.with(|all| all.add(cut));
        let buffer = at(pages, before_multiple(pages.dma, self.layout.unit()));
        let run = leaf.value_mut();
        (run.pages, run.bytes, run.buffer) = (pages, bytes, buffer);
        run.iommu = IommuMapping::of(self.device);
        // A run has one block at least.
        let first = run.blocks.take(&self.layout).unwrap_or(0);
        self.runs.with(|runs| runs.add(leaf));
        Ok(at(buffer, first))
    }

    /// Memory for a run that begins as its layout demands, and its size.
    fn pages(&self, sleep: Sleep, caller: VirtAddr) -> Result<(Buffer, u32), AllocateError> {
        let (run, unit) = (self.layout.run(), self.layout.unit());
        let pages = coherent::allocate_marked(self.device, run, sleep, caller, Tag::BLOCKS)?;
        if before_multiple(pages.dma, unit) == 0 {
            return Ok((pages, run));
        }
        // Memory of a device's own, or a large run of the contiguous region: so much more that a multiple lies in it. What goes
        // wrong with the free is printed.
        // SAFETY: nobody was told of these pages.
        let _printed = unsafe { coherent::free(self.device, run, pages.address, pages.dma) };
        // Neither passes 2 GiB, and a unit that a page is no multiple of is more than a page.
        let more = run + (unit - PAGE_SIZE);
        let pages = coherent::allocate_marked(self.device, more, sleep, caller, Tag::BLOCKS);
        pages.map(|pages| (pages, more))
    }

    /// Gives a block back. Any context.
    ///
    /// # Errors
    /// [`GiveBackError`]: a double free, a foreign one, or one of another handle.
    pub fn free(&self, block: Buffer) -> Result<(), GiveBackError> {
        let freed = self.runs.with(|runs| {
            runs.find(|run| {
                let offset = block.address.checked_sub(run.buffer.address)?;
                (offset < self.layout.run()).then(|| self.give_back(run, block, offset))
            })
        });
        let address = block.address;
        freed.unwrap_or(Err(GiveBackError::Foreign { address })).map_err(|error| self.refuse(error))
    }

    fn give_back(&self, run: &mut Run, block: Buffer, offset: u32) -> Result<(), GiveBackError> {
        let Buffer { address, dma: given } = block;
        let wanted = at(run.buffer, offset).dma;
        if wanted != given {
            return Err(GiveBackError::Handle { address, wanted, given });
        }
        let freed = run.blocks.give_back(&self.layout, offset);
        freed.map_err(|error| GiveBackError::Block { address, error })
    }

    #[cold]
    fn refuse(&self, error: GiveBackError) -> GiveBackError {
        log::error!(
            "dma_pool_free: a free to {} of {} was refused: {error}",
            self.name(),
            self.device.name()
        );
        dump_stack();
        error
    }

    /// Ends the pool where one may sleep, and says how many blocks were still taken: each is named, and its pages stay out of use,
    /// since somebody may write there yet. What its device saw by another IOMMU mapping than now comes back, too.
    ///
    /// # Safety
    /// Nobody uses a block that was given back: neither the processor nor the device.
    #[must_use = "blocks that are still taken are lost"]
    pub unsafe fn destroy(self) -> u32 {
        let mut live = 0;
        while let Some(leaf) = self.runs.with(|runs| runs.take(|_| true)) {
            let run = leaf.value();
            // Dropped under no lock. Memory that stays out of use is no pool's any more.
            let _entry = CUT.with(|all| all.take(|(start, _)| *start == run.pages.address));
            let mut here = 0;
            for offset in run.blocks.taken(&self.layout) {
                here += 1;
                log::error!(
                    "dma_pool_destroy: {} of {}: the block at {} is busy",
                    self.name(),
                    self.device.name(),
                    at(run.buffer, offset).address
                );
            }
            live += here;
            if here == 0 {
                self.return_pages(run);
            }
        }
        live
    }

    /// Gives the memory of a run back of which no block is taken, and that nobody uses. What goes wrong is printed.
    fn return_pages(&self, run: &Run) {
        let Buffer { address, dma } = run.pages;
        // SAFETY: our caller has seen to it that nobody uses it.
        let free = |device: &Device| unsafe { coherent::free(device, run.bytes, address, dma) };
        let freed = if run.is_behind(self.device.iommu_pointer()) {
            free(self.device)
        } else {
            self.device.elsewhere(run.iommu.as_ref(), free)
        };
        if freed.is_err() {
            log::error!(
                "dma_pool_destroy: {} of {}: {:#x} bytes at {address} stay out of use",
                self.name(),
                self.device.name(),
                run.bytes
            );
        }
    }
}

/// How far the next multiple of `unit`, a power of two, lies behind `dma`.
const fn before_multiple(dma: DmaAddr, unit: u32) -> u32 {
    dma.raw().wrapping_neg() & (unit - 1)
}

/// What lies `offset` bytes into a buffer, which it does not leave.
const fn at(buffer: Buffer, offset: u32) -> Buffer {
    Buffer {
        address: VirtAddr::new(buffer.address.raw().wrapping_add(offset)),
        dma: DmaAddr::new(buffer.dma.raw().wrapping_add(offset)),
    }
}
