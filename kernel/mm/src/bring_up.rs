//! From the stub's tables to a kernel that has memory.
//!
//! ```text
//!   [image]   what the stub mapped: text, rodata, data, stacks, tables
//!      │
//!      │  EarlySpace::take      the right to every kernel address, split by region
//!      │  EarlySpace::probe_ram (only if nobody can tell how much RAM there is)
//!      ▼
//!   EarlySpace::finish          1. the rest of the linear map, by small pages
//!                               2. the frame table, behind the image, and pointers to what it holds
//!                               3. every other frame is free
//!                               4. the books of the vmalloc window, in frames
//!                               5. the heap's region
//! ```

use core::fmt;
use core::slice;
use core::sync::atomic::AtomicU32;

use arch::cpu::{DeferredWork, Doer};
use arch::lock::IrqLocks;
use arch::machine::CortexA9;
use kerncore::addr::{
    PAGE_SIZE, PAGES_IN_ADDRESS_SPACE, PAGES_PER_SECTION, PageRange, Pfn, PhysAddr, VirtAddr,
    pages_for,
};
use kerncore::area::{AreaRecord, ArrayArea, IN_A_FRAME};
use kerncore::contiguous::{Borrower, Unmovable};
use kerncore::frames::{
    AddError, AllocateError, Frame, FrameBlock, FrameOwner, FrameTable, Pointers,
};
use kerncore::kernel_space::{
    AreaChunk, AreaEntry, AreaPlace, IndexChunk, Parts, RemoveError, StaticError, Support,
};
use kerncore::kmap::{self, Kmap};
use kerncore::layout::{self, linear_address, linear_physical};
use kerncore::linear_map::{FillError, LinearMap, ProtectError};
use kerncore::map_ram::{Block, MapRam};
use kerncore::owned_range::OwnedRange;
use kerncore::page_table::{AdoptError, PageTable, Removal, TableSource};
use kerncore::physical_index::{IndexEntry, Node};
use kerncore::va_space::{VaSpace, VaStorage};
use kerncore::zones::{DMA_PAGES, Division, OtherZones, Zones};
use spin::Once;

use crate::frame_plan::Frames;
pub use crate::memory_plan::MemoryPlan;
use crate::ram_probe::SecondLevel;
use crate::vm_area::memory_of;
use crate::{DESK, KERNEL, Kernel, contiguous, heap};

type Table = PageTable<CortexA9, IrqLocks>;

/// The second-level table of the temporary mappings: they are to need no memory.
static KMAP_TABLE: SecondLevel = SecondLevel::new();

/// The zones that few ask for.
static OTHER_ZONES: Once<OtherZones<'static, IrqLocks>> = Once::new();

/// Why memory could not be brought up. Each is fatal: there is no kernel without memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BringUpError {
    /// RAM does not reach the end of the image and its frame table.
    TooLittleRam {
        /// Bytes of RAM.
        bytes: u32,
    },
    /// A region of the address map does not follow the one before it.
    Region {
        /// Where it should begin.
        start: VirtAddr,
    },
    /// A part of the image does not lie in the linear map.
    Image {
        /// Where it lies.
        address: VirtAddr,
    },
    /// The linear map's tables are not what the stub left.
    Tables(AdoptError),
    /// Pages of the linear map were not made.
    Linear(FillError),
    /// The pointers to all frames were not made read-only.
    Pointers(ProtectError),
    /// The frame table cannot begin with this frame.
    FrameTable {
        /// The frame.
        first: Pfn,
    },
    /// Frames were to be shared out twice.
    Frames(AddError),
    /// Registers could not be mapped for good.
    Statics(StaticError),
    /// What was set aside for contiguous buffers cannot be kept account of.
    Contiguous {
        /// Its pages.
        pages: u32,
    },
    /// No memory for the books of the vmalloc window.
    Books(AllocateError),
    /// The books of the vmalloc window do not hold it.
    Window {
        /// Its pages.
        pages: u32,
    },
}

impl fmt::Display for BringUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLittleRam { bytes } => write!(f, "{} KiB of RAM are too little", bytes >> 10),
            Self::Region { start } => write!(f, "the region at {start} is out of order"),
            Self::Image { address } => write!(f, "{address} of the image has no linear address"),
            Self::Tables(error) => write!(f, "the linear map's tables: {error}"),
            Self::Linear(error) => write!(f, "the linear map: {error}"),
            Self::Pointers(error) => write!(f, "the page pointers: {error}"),
            Self::FrameTable { first } => write!(f, "no frame table can begin with frame {first}"),
            Self::Frames(error) => error.fmt(f),
            Self::Statics(error) => write!(f, "static mappings: {error}"),
            Self::Contiguous { pages } => {
                write!(f, "no books can hold a contiguous region of {pages} pages")
            }
            Self::Books(error) => write!(f, "the books of the vmalloc window: {error}"),
            Self::Window { pages } => write!(f, "no books can hold a window of {pages} pages"),
        }
    }
}

impl core::error::Error for BringUpError {}

/// The kernel's half of the address space, of which only the image is mapped.
#[derive(Debug)]
pub struct EarlySpace {
    pub(crate) table: Table,
    linear: OwnedRange,
    window: OwnedRange,
    heap: OwnedRange,
    statics: OwnedRange,
    pub(crate) temporary: OwnedRange,
    kmap: OwnedRange,
}

/// The first page numbers of the regions, in ascending order.
const LINEAR: u32 = layout::LINEAR_START.page_number();
const WINDOW: u32 = layout::LINEAR_END.page_number();
const HEAP: u32 = layout::HEAP_START.page_number();
const STATIC: u32 = layout::STATIC_START.page_number();
const TEMPORARY: u32 = layout::TEMPORARY_START.page_number();
const KMAP: u32 = layout::KMAP_START.page_number();
const _: () = assert!(PAGES_IN_ADDRESS_SPACE - KMAP == kmap::WINDOW_PAGES);

impl EarlySpace {
    /// Takes over the tables that the stub made.
    ///
    /// # Errors
    /// None that a boot can meet: [`BringUpError`] if the address map contradicts itself.
    ///
    /// # Safety
    /// 1. Called once, on one CPU, before anything else touches a descriptor, with the MMU set up by the stub. Until
    ///    [`EarlySpace::finish`] has returned, no other CPU runs and interrupts are masked.
    /// 2. From here on, nothing above `0x8000_0000` outside the image is memory that Rust sees, except through handles
    ///    that the tables give out; table memory is reached only through them.
    pub unsafe fn take() -> Result<Self, BringUpError> {
        let root = linear_physical(boot::layout::kernel_l1())
            .ok_or(BringUpError::Image { address: boot::layout::kernel_l1() })?;
        let all = PageRange::from_numbers(LINEAR, PAGES_IN_ADDRESS_SPACE - LINEAR)
            .ok_or(BringUpError::Region { start: layout::LINEAR_START })?;
        // SAFETY: our contract is the machine's: the tables are the stub's, they are taken over once, and whatever is
        // mapped from here on is owned by who mapped it.
        let machine = unsafe { CortexA9::new() };
        let (table, rest) = Table::new(machine, root, all);
        let (linear, rest) = split(rest, WINDOW - LINEAR, layout::LINEAR_END)?;
        let (window, rest) = split(rest, HEAP - WINDOW, layout::HEAP_START)?;
        let (heap, rest) = split(rest, STATIC - HEAP, layout::STATIC_START)?;
        let (statics, rest) = split(rest, TEMPORARY - STATIC, layout::TEMPORARY_START)?;
        let (temporary, kmap) = split(rest, KMAP - TEMPORARY, layout::KMAP_START)?;
        Ok(Self { table, linear, window, heap, statics, temporary, kmap })
    }

    /// Brings memory up by `plan`, whose sizes are rounded down to pages, largest blocks and sections, and clipped to what the
    /// address map holds.
    ///
    /// # Errors
    /// [`BringUpError`].
    pub fn finish(self, plan: MemoryPlan) -> Result<&'static Kernel, BringUpError> {
        let frames = Frames::of(&plan)?;
        let machine_table = self.table;
        let mut linear = map_linear(&machine_table, self.linear, &frames)?;
        let kmap = Kmap::new(&machine_table, self.kmap, table_at(&KMAP_TABLE)?);
        let kmap = kmap.map_err(BringUpError::Tables)?;
        let table = make_frame_table(&frames)?;
        let pointers = make_pointers(&frames, &table, &mut linear)?;
        let division = Division { dma: DMA_PAGES, low: frames.low, nodes: plan.nodes };
        let others = OTHER_ZONES.call_once(|| OtherZones::new(table, division));
        let zones = Zones::divided(others, &DESK.spares);
        for (first, pages, owner) in frames.taken() {
            table.reserve(first, pages, owner).map_err(BringUpError::Frames)?;
        }
        for (first, pages) in frames.free() {
            zones.add_range(first, pages).map_err(BringUpError::Frames)?;
        }
        let window = upper_part(self.window, plan.vmalloc)?;
        let storage = make_storage(&zones, window.count())?;
        let pages = window.count();
        let space = VaSpace::new(window, storage).map_err(|_| BringUpError::Window { pages })?;
        let blocks = make_array(&zones, MapRam::blocks_for(space.range()), Block::new)?;
        let map_ram = blocks.and_then(|blocks| MapRam::new(space.range(), blocks));
        let map_ram = map_ram.ok_or(BringUpError::Window { pages })?;
        let parts = Parts {
            table: machine_table,
            space,
            map_ram,
            zones,
            linear,
            kmap,
            pointers,
            support: &KernelSupport,
        };
        let mut kernel = Kernel::new(parts);
        contiguous::set_up(&mut kernel, &frames)?;
        kernel.map_statics(self.statics, plan.statics).map_err(BringUpError::Statics)?;
        // SAFETY: promise 1 of `take`: one CPU runs, its interrupts are masked, and there is one `EarlySpace`, which ends here.
        // The other CPUs are let in by a word that is written and cleaned to memory later.
        let kernel = unsafe { KERNEL.set(kernel) };
        // SAFETY: as above.
        unsafe { DESK.records.set(kernel.zones().records_of_spares()) };
        heap::init(self.heap);
        let _first = arch::cpu::add_deferred_work(DeferredWork {
            is_pending: || crate::kernel().deferred() > 0,
            run: || _ = crate::kernel().free_deferred(),
            by: Doer::WhoWaits,
        });
        Ok(kernel)
    }
}

/// Where a table of the image lies.
fn table_at(table: &'static SecondLevel) -> Result<PhysAddr, BringUpError> {
    table.take_table().ok_or(BringUpError::Image { address: boot::layout::image().start() })
}

/// The first `pages` of `range`, and the rest, which is to begin the region at `start`.
fn split(
    range: OwnedRange,
    pages: u32,
    start: VirtAddr,
) -> Result<(OwnedRange, OwnedRange), BringUpError> {
    range.split_at(pages).map_err(|_whole| BringUpError::Region { start })
}

/// Adopts the linear map's tables and maps every frame of RAM that the stub has not.
fn map_linear(
    table: &Table,
    linear: OwnedRange,
    frames: &Frames,
) -> Result<LinearMap<CortexA9>, BringUpError> {
    let sections = frames.low.div_ceil(PAGES_PER_SECTION) * PAGES_PER_SECTION;
    let window = if sections < linear.count() {
        split(linear, sections, layout::LINEAR_END)?.0
    } else {
        linear
    };
    let at = boot::layout::linear_tables();
    let tables = linear_physical(at).ok_or(BringUpError::Image { address: at })?;
    let mut map =
        LinearMap::new(table, window, tables, frames.first).map_err(BringUpError::Tables)?;
    let below = frames.image.number() - frames.first.number();
    map.fill(frames.first, below).map_err(BringUpError::Linear)?;
    let above = frames.table;
    let low_end = frames.first.number() + frames.low;
    map.fill(above, low_end - above.number()).map_err(BringUpError::Linear)?;
    Ok(map)
}

/// Makes a record for every frame, in the frames behind the image.
fn make_frame_table(frames: &Frames) -> Result<FrameTable<'static>, BringUpError> {
    let failed = BringUpError::FrameTable { first: frames.first };
    let start: *mut Frame = linear_pointer(frames.table.base()).ok_or(failed)?;
    for index in 0..frames.total as usize {
        // SAFETY: `table_pages` frames from here on were mapped just now, hold `total` records, and nothing uses them.
        let record = unsafe { start.add(index) };
        // SAFETY: as above; a page boundary is aligned enough for every record after it.
        unsafe { record.write(Frame::new()) };
    }
    // SAFETY: `total` records were written from `start` on; the frames are set aside for good, so that nobody else will
    // ever write there, and the records change through atomics only.
    let records = unsafe { slice::from_raw_parts(start, frames.total as usize) };
    FrameTable::new(records, frames.first).ok_or(failed)
}

/// Writes a pointer to every record, in the frames behind the table, which nobody can write to afterwards.
fn make_pointers(
    frames: &Frames,
    table: &FrameTable<'static>,
    linear: &mut LinearMap<CortexA9>,
) -> Result<Pointers<'static>, BringUpError> {
    let failed = BringUpError::FrameTable { first: frames.first };
    let first = frames.pointers().ok_or(failed)?;
    let start: *mut AtomicU32 = linear_pointer(first.base()).ok_or(failed)?;
    for index in 0..frames.total as usize {
        // SAFETY: `pointer_pages` frames from here on were mapped just now, hold `total` words, and nothing uses them.
        let word = unsafe { start.add(index) };
        // SAFETY: as above; a page boundary is aligned enough for every word after it.
        unsafe { word.write(AtomicU32::new(0)) };
    }
    // SAFETY: `total` words were written from `start` on; the frames are set aside for good. `Pointers::new` writes to the words,
    // and nobody does after that.
    let words = unsafe { slice::from_raw_parts(start, frames.total as usize) };
    let pointers = Pointers::new(table, words).ok_or(failed)?;
    linear.protect(first, frames.pointer_pages).map_err(BringUpError::Pointers)?;
    Ok(pointers)
}

/// The last `bytes` of the vmalloc window, whole sections, at least the smallest window.
fn upper_part(window: OwnedRange, bytes: u32) -> Result<OwnedRange, BringUpError> {
    let wanted =
        bytes.max(layout::VMALLOC_MINIMUM) / kerncore::addr::SECTION_SIZE * PAGES_PER_SECTION;
    match window.count().checked_sub(wanted) {
        None | Some(0) => Ok(window),
        Some(unused) => match window.split_at(unused) {
            Ok((_below, upper)) => Ok(upper),
            Err(_) => Err(BringUpError::Region { start: layout::LINEAR_END }),
        },
    }
}

/// Takes frames for the books of a window of `pages`.
fn make_storage(
    zones: &Zones<'static, IrqLocks>,
    pages: u32,
) -> Result<VaStorage<'static, AreaPlace<'static>>, BringUpError> {
    let failed = BringUpError::Window { pages };
    let words = make_array(zones, VaStorage::<AreaPlace<'_>>::words(pages), || 0)?;
    let records = make_array(zones, pages as usize, || None)?;
    VaStorage::carve(words.ok_or(failed)?, records.ok_or(failed)?, pages).ok_or(failed)
}

/// Takes frames for `count` elements, each as `make` makes it. `None` if no block of frames is so large.
pub(crate) fn make_array<T>(
    zones: &Zones<'static, IrqLocks>,
    count: usize,
    make: impl Fn() -> T,
) -> Result<Option<&'static mut [T]>, BringUpError> {
    let Ok(bytes) = u32::try_from(count * size_of::<T>()) else { return Ok(None) };
    let block = zones
        .allocate_pages(pages_for(bytes), FrameOwner::VaStorage)
        .map_err(BringUpError::Books)?;
    Ok(array_in(block, count, make))
}

/// `count` elements, each as `make` makes it, in a block that never comes back. `None` if it has no room for them or no
/// linear address.
fn array_in<T>(block: FrameBlock, count: usize, make: impl Fn() -> T) -> Option<&'static mut [T]> {
    let (first, pages) = block.leak();
    let start: *mut T = linear_pointer(first.base())?;
    if count * size_of::<T>() > (pages * PAGE_SIZE) as usize {
        return None;
    }
    for index in 0..count {
        // SAFETY: the block has room for `count` elements, as was checked.
        let element = unsafe { start.add(index) };
        // SAFETY: the block is mapped and was leaked just now, so that nobody else uses it; it begins on a page boundary,
        // which is aligned enough.
        unsafe { element.write(make()) };
    }
    // SAFETY: every element was written, and nobody else will ever have the block.
    Some(unsafe { slice::from_raw_parts_mut(start, count) })
}

/// Area records in the linear map, oddities on the console.
struct KernelSupport;

impl Support<'static> for KernelSupport {
    fn chunk(&self, block: FrameBlock, entries: u32) -> AreaChunk<'static> {
        array_in(block, entries as usize, || AreaEntry::new(AreaRecord::vacant()))
            .expect("the block has the size that was asked for, in low memory")
    }

    fn index_chunk(&self, block: FrameBlock, entries: u32) -> IndexChunk<'static> {
        array_in(block, entries as usize, || IndexEntry::new(Node::vacant()))
            .expect("the block has the size that was asked for, in low memory")
    }

    fn frame_words<'a>(&self, frame: &'a FrameBlock) -> &'a [AtomicU32] {
        let Some(start) = linear_pointer(frame.first().base()) else { return &[] };
        // SAFETY: 1. The frames are low, so the linear map has them, writable, for as long as their handle is borrowed, and
        // whoever lends them keeps none of their bytes as a value of Rust's but these words. 2. They begin on a page boundary.
        // 3. Words may be any bits, and may be written by others meanwhile, for they are atomics.
        unsafe { slice::from_raw_parts(start, (frame.pages() * IN_A_FRAME) as usize) }
    }

    fn area_words<'a>(&self, area: &'a ArrayArea) -> &'a [AtomicU32] {
        let (start, bytes) = memory_of(area.pages());
        // SAFETY: 1. The area is mapped, writable, until its one handle is given up, which is borrowed here; nobody else has a
        // slice of it, for no owner was ever made of it. 2. It begins on a page boundary. 3. As for a frame.
        unsafe { slice::from_raw_parts(start.cast(), bytes / size_of::<AtomicU32>()) }
    }

    fn odd_tables(&self, area: PageRange, removal: Removal) {
        if let Some(oddity) = removal.first_oddity {
            log::warn!("{} odd entries in the area {area}, the first: {oddity}", removal.oddities);
        }
    }

    fn deferred_free_failed(&self, error: &RemoveError) {
        log::error!("vfree_atomic: {error}");
    }

    fn move_out(&self, borrower: Borrower, frame: Pfn) -> Result<FrameBlock, Unmovable> {
        contiguous::move_out(borrower, frame)
    }

    fn give_back_idle(&self) -> u32 {
        crate::reserve::give_back()
    }
}

/// The linear address of `physical`, as a pointer.
fn linear_pointer<T>(physical: PhysAddr) -> Option<*mut T> {
    let address: VirtAddr = linear_address(physical)?;
    Some(core::ptr::with_exposed_provenance_mut(address.raw() as usize))
}
