//! A kernel of eight megabytes.
//!
//! ```text
//!   physical                                            virtual
//!   0x6000_0000  16 free frames                         0x8000_0000  linear map, 8 MiB
//!   0x6001_0000  text, rodata, guard, data, guards      0xC000_0000  vmalloc window, 4 MiB
//!   0x6001_8000  first level, linear tables, 2 spare    0xF000_0000  heap, 1 MiB, 4 pages mapped
//!   0x6002_0000  free frames
//! ```

mod accounts;

pub use accounts::Beside;

use crate::host_memory::HostMemory;
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    attributes::Attributes,
    audit::FixedPart,
    contiguous::{Borrower, Contiguous, Place, Places, Region, Word},
    descriptor::{l1, l2},
    frames::{Frame, FrameList, FrameOwner, FrameTable, Pointers, Spares},
    kernel_space::{AreaPlace, KernelSpace, Parts, StaticError, StaticRequest, Support},
    kmap::Kmap,
    layout,
    linear_map::LinearMap,
    machine::Machine,
    map_ram::{Block, MapRam},
    owned_range::OwnedRange,
    page_table::PageTable,
    va_space::{VaSpace, VaStorage},
    zones::{Division, OtherZones, Zones},
};
use machine::{Behaviour, HostLocks, SoftCpu, SoftMachine};
use std::iter;
use std::sync::atomic::AtomicU32;

/// The number of the first frame.
pub const RAM: u32 = 0x6_0000;
/// How many frames there are.
pub const RAM_PAGES: u32 = 8 << 8;
const IMAGE: u32 = 0x8_0010;
const IMAGE_PAGES: u32 = 16;
/// A page of the image that is executed.
pub const TEXT: VirtAddr = VirtAddr::new(0x8001_0000);
/// A page of the image that is not mapped.
pub const IMAGE_GUARD: VirtAddr = VirtAddr::new(0x8001_3000);
const ROOT: PhysAddr = PhysAddr::new(0x6001_8000);
const LINEAR_TABLES: PhysAddr = PhysAddr::new(0x6001_c000);
/// Frames of the image that turned out not to be needed.
const SPARE: u32 = RAM + 30;
const AFTER_IMAGE: u32 = RAM + 32;
/// The first page of the vmalloc window.
pub const WINDOW: u32 = 0xc_0000;
/// How many pages it has.
pub const WINDOW_PAGES: u32 = 4 << 8;
/// The first page of the heap.
pub const HEAP: u32 = 0xf_0000;
const HEAP_PAGES: u32 = 1 << 8;
/// Pages set aside for static mappings, behind the heap.
pub const STATICS: u32 = 16;
/// The first page of the temporary mappings.
const KMAP: u32 = layout::KMAP_START.page_number();
/// How many of the heap's pages are mapped.
pub const HEAP_MAPPED: u32 = 4;
/// Whoever asks, in all tests.
pub const CALLER: VirtAddr = VirtAddr::new(0x8001_0123);

/// A small kernel. `M` is what drives its tables: the machine's CPU 0, or something around it.
#[expect(missing_debug_implementations, reason = "a kernel space shows nothing")]
pub struct Bed<M: Machine = SoftCpu<'static>> {
    /// The processor and its memory.
    pub machine: &'static SoftMachine,
    /// What is tried.
    pub space: KernelSpace<'static, M, HostLocks>,
    heap: OwnedRange,
    statics: Option<OwnedRange>,
    /// Frames of tables of programs and of devices, by the test's word.
    space_tables: AtomicU32,
}

/// So many pages from that number.
///
/// # Panics
/// If they pass the end of the address space.
pub fn pages(first: u32, count: u32) -> PageRange {
    PageRange::from_numbers(first, count).expect("a range of the address space")
}

/// The frame of that number.
///
/// # Panics
/// If there is none below 4 GiB.
pub fn frame(number: u32) -> Pfn {
    Pfn::new(number).expect("below 4 GiB")
}

/// The first address of the page of that number.
pub fn page(number: u32) -> VirtAddr {
    VirtAddr::new(number * PAGE_SIZE)
}

/// Where the first-level slot for `address` lies.
pub fn l1_slot(address: VirtAddr) -> PhysAddr {
    PhysAddr::new(ROOT.raw() + l1::index(address) * 4)
}

fn parts() -> [FixedPart; 4] {
    let part = |name, first, count, attributes| FixedPart {
        name,
        pages: pages(IMAGE + first, count),
        attributes,
    };
    [
        part("text", 0, 2, Attributes::KERNEL_TEXT),
        part("rodata", 2, 1, Attributes::KERNEL_RODATA),
        part("data", 4, 2, Attributes::KERNEL_DATA),
        part("tables", 8, 8, Attributes::KERNEL_DATA),
    ]
}

/// What the boot stub does: the image's pages, and the first-level slot above them.
fn stub(machine: &SoftMachine) {
    let table = l1::Descriptor::Table(LINEAR_TABLES).encode().expect("aligned");
    machine.device_write(PhysAddr::new(ROOT.raw() + 0x800 * 4), table);
    for part in parts() {
        for page in part.pages.first()..part.pages.end() {
            let descriptor = l2::Descriptor::SmallPage(frame(page - 0x2_0000), part.attributes);
            let slot = PhysAddr::new(LINEAR_TABLES.raw() + page % 256 * 4);
            machine.device_write(slot, descriptor.encode().expect("a small page"));
        }
    }
}

/// How much of the bed's RAM has linear addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowMemory {
    /// All of it.
    All,
    /// The lower half: the rest is high memory.
    Half,
}

impl LowMemory {
    /// How many frames that is.
    const fn pages(self) -> u32 {
        match self {
            Self::All => RAM_PAGES,
            Self::Half => RAM_PAGES / 2,
        }
    }

    /// The first frame of the image that nobody needs: the first spare one has the table of temporary mappings, if there are any.
    const fn spare(self) -> u32 {
        match self {
            Self::All => SPARE,
            Self::Half => SPARE + 1,
        }
    }
}

fn zones(low: LowMemory, contiguous: u32) -> Zones<'static, HostLocks> {
    let records: Vec<Frame> = (0..RAM_PAGES).map(|_| Frame::new()).collect();
    let table = FrameTable::new(records.leak(), frame(RAM)).expect("aligned to a block");
    let spare = low.spare();
    let image = spare - (RAM + 16);
    table.reserve(frame(RAM + 16), image, FrameOwner::KernelImage).expect("absent frames");
    // At the end of low memory; with high memory behind it there is none.
    let end = RAM + RAM_PAGES - contiguous;
    if contiguous != 0 {
        table.reserve(frame(end), contiguous, FrameOwner::Reserved).expect("absent frames");
    }
    let division = Division { low: low.pages(), ..Division::NONE };
    let others = Box::leak(Box::new(OtherZones::new(table, division)));
    let zones = Zones::divided(others, Box::leak(Box::new(Spares::new())));
    for (first, end) in [(RAM, RAM + 16), (spare, AFTER_IMAGE), (AFTER_IMAGE, end)] {
        zones.add_range(frame(first), end - first).expect("absent frames");
    }
    zones
}

/// The books of the contiguous region of so many pages.
fn region(table: &FrameTable<'static>, pages: u32) -> &'static Contiguous<'static, HostLocks> {
    let words = vec![Word::default(); Region::words_for(pages)].leak();
    let borrowers = vec![Borrower::Nobody; pages as usize].leak();
    let pins = vec![0_u16; pages as usize].leak();
    let region = Region::new(words, borrowers).expect("as many words as it wants").with_pins(pins);
    let first = frame(RAM + RAM_PAGES - pages);
    let places = Places::new(vec![Place::default(); pages as usize].leak());
    let contiguous = Contiguous::new(*table, first, region, places);
    Box::leak(Box::new(contiguous.expect("at the end of the table")))
}

impl Bed {
    /// The machine that forgives everything: for what is not about the order of steps.
    pub fn new() -> Self {
        Self::on(Behaviour::Forgetful)
    }

    /// A kernel on a machine that behaves so.
    pub fn on(behaviour: Behaviour) -> Self {
        Self::driven_by(behaviour, |machine| machine.cpu(0))
    }

    /// A bed in which the first record and the window's first table were made, so that a ledger need not change.
    pub fn warm() -> Self {
        Self::warm_on(Behaviour::Forgetful)
    }

    /// As [`Bed::warm`], on a machine that behaves so.
    pub fn warm_on(behaviour: Behaviour) -> Self {
        let bed = Self::on(behaviour);
        bed.warm_up();
        bed
    }
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

/// What a kernel has beside its machine.
#[expect(missing_debug_implementations, reason = "a trait object shows nothing")]
pub struct Furniture {
    /// How much of its RAM has linear addresses.
    pub low: LowMemory,
    /// Pages of the vmalloc window.
    pub window_pages: u32,
    /// Pages of the contiguous region; with high memory there is none.
    pub contiguous: u32,
    /// Memory for records and page arrays.
    pub support: &'static dyn Support<'static>,
}

impl Furniture {
    /// What there is by itself, with so much low memory.
    pub fn with(low: LowMemory) -> Self {
        let support = Box::leak(Box::<HostMemory>::default());
        Self { low, window_pages: WINDOW_PAGES, contiguous: 0, support }
    }
}

impl<M: Machine<Authority = ()> + Clone> Bed<M> {
    /// A kernel whose tables are driven by what `drive` makes of the machine.
    ///
    /// # Panics
    /// If the kernel cannot be made.
    pub fn driven_by(behaviour: Behaviour, drive: impl FnOnce(&'static SoftMachine) -> M) -> Self {
        Self::divided(behaviour, LowMemory::All, drive)
    }

    /// As [`Bed::driven_by`], with so much low memory.
    ///
    /// # Panics
    /// If the kernel cannot be made.
    pub fn divided(
        behaviour: Behaviour,
        low: LowMemory,
        drive: impl FnOnce(&'static SoftMachine) -> M,
    ) -> Self {
        Self::furnished(behaviour, Furniture::with(low), drive)
    }

    /// As [`Bed::driven_by`], with all this.
    ///
    /// # Panics
    /// If the kernel cannot be made.
    pub fn furnished(
        behaviour: Behaviour,
        Furniture { low, window_pages, contiguous, support }: Furniture,
        drive: impl FnOnce(&'static SoftMachine) -> M,
    ) -> Self {
        let machine: &'static SoftMachine =
            Box::leak(Box::new(SoftMachine::new(behaviour, 2, ROOT)));
        stub(machine);
        let all = pages(0x8_0000, 0x8_0000);
        let (table, rest) = PageTable::new(drive(machine), ROOT, all);
        let split = |range: OwnedRange, count| range.split_at(count).expect("within the window");
        let (linear, rest) = split(rest, low.pages());
        let (_, rest) = split(rest, WINDOW - 0x8_0000 - low.pages());
        let (window, rest) = split(rest, window_pages);
        let (_, rest) = split(rest, HEAP - WINDOW - window_pages);
        let (heap, rest) = split(rest, HEAP_PAGES);
        let (statics, rest) = split(rest, STATICS);
        let kmap = match low {
            LowMemory::All => Kmap::none(&table),
            LowMemory::Half => {
                let (_, kmap) = split(rest, KMAP - HEAP - HEAP_PAGES - STATICS);
                Kmap::new(&table, kmap, frame(SPARE).base()).expect("an empty table")
            }
        };
        let mut linear =
            LinearMap::new(&table, linear, LINEAR_TABLES, frame(RAM)).expect("adopted");
        linear.fill(frame(RAM), 16).expect("below the image");
        let above = RAM + low.pages() - AFTER_IMAGE;
        linear.fill(frame(AFTER_IMAGE), above).expect("above the image");
        let books = vec![0; VaStorage::<AreaPlace<'_>>::words(window_pages)].leak();
        let records = iter::repeat_with(|| None).take(window_pages as usize).collect::<Vec<_>>();
        let storage = VaStorage::carve(books, records.leak(), window_pages).expect("enough words");
        let space = VaSpace::new(window, storage).expect("enough storage");
        let blocks = iter::repeat_with(Block::new).take(MapRam::blocks_for(space.range()));
        let blocks = blocks.collect::<Vec<_>>().leak();
        let map_ram = MapRam::new(space.range(), blocks).expect("a block a section");
        let zones = zones(low, contiguous);
        let words = iter::repeat_with(|| AtomicU32::new(0)).take(zones.table().len() as usize);
        let words = words.collect::<Vec<_>>().leak();
        let pointers = Pointers::new(zones.table(), words).expect("a word a frame");
        let parts = Parts { table, space, map_ram, zones, linear, kmap, pointers, support };
        let mut space = KernelSpace::new(parts);
        if contiguous != 0 {
            space.set_contiguous(region(space.zones().table(), contiguous));
        }
        let (statics, space_tables) = (Some(statics), AtomicU32::new(0));
        let mut bed = Self { machine, space, heap, statics, space_tables };
        bed.space.extend(&mut bed.heap, 0, HEAP_MAPPED, FrameOwner::Heap).expect("empty memory");
        bed.clean();
        bed
    }

    /// Maps registers for good, once.
    ///
    /// # Errors
    /// [`StaticError`].
    ///
    /// # Panics
    /// The second time.
    pub fn map_statics(&mut self, wanted: &[StaticRequest]) -> Result<(), StaticError> {
        let region = self.statics.take().expect("once");
        self.space.map_statics(region, wanted)
    }

    /// Makes the first record and the window's first table.
    pub fn warm_up(&self) {
        let area = self.vmalloc(1);
        self.space.vfree((), area).expect("a live area");
    }

    /// So many pages by vmalloc.
    ///
    /// # Panics
    /// If there are none.
    pub fn vmalloc(&self, count: u32) -> VirtAddr {
        let fill = kerncore::kernel_space::Fill::Uninitialised;
        let area = self.space.vmalloc(count * PAGE_SIZE, fill, CALLER).expect("empty memory");
        area.pages.start()
    }

    /// Takes all free frames but `left`, so that the next may be the one too many.
    pub fn starve(&self, left: u32) -> FrameList {
        let zones = self.space.zones();
        let list = zones.allocate_list(zones.free_pages() - left, FrameOwner::Test);
        list.expect("as many as are free")
    }

    /// Takes every other free frame, so that no two of those that are left are adjacent: all taken, and for each run of free
    /// ones the even ones given back.
    ///
    /// # Panics
    /// If frames change hands meanwhile.
    pub fn scatter(&self) -> FrameList {
        let (zones, mut kept) = (self.space.zones(), FrameList::new());
        let single = || zones.allocate(0, FrameOwner::Test).ok();
        for block in iter::from_fn(single).collect::<Vec<_>>() {
            if block.first().number() % 2 == 0 {
                zones.free(block).expect("the test's own frame");
            } else {
                kept.push(zones.table(), block);
            }
        }
        kept
    }

    /// Gives back what [`Bed::starve`], [`Bed::scatter`] or [`Bed::frames`] took.
    ///
    /// # Panics
    /// If they are not the test's own.
    pub fn feed(&self, list: FrameList) {
        self.space.zones().free_list(list).expect("the test's own frames");
    }

    /// Frames for vmap, in the name of the test.
    pub fn frames(&self, count: u32) -> (FrameList, Vec<Pfn>) {
        let list = self.space.zones().allocate_list(count, FrameOwner::Test).expect("free frames");
        let frames = list.frames(self.space.zones().table()).collect();
        (list, frames)
    }

    /// The page pointers of `frames`.
    ///
    /// # Panics
    /// If one is no RAM.
    pub fn records(&self, frames: &[Pfn]) -> Vec<*const Frame> {
        let table = self.space.zones().table();
        frames.iter().map(|&frame| std::ptr::from_ref(table.frame(frame).expect("RAM"))).collect()
    }

    /// The frame behind `address`, by the tables.
    #[track_caller]
    pub fn frame_at(&self, address: VirtAddr) -> Pfn {
        self.space.table().translate(address).expect("mapped").physical.pfn()
    }

    /// Where the second-level slot for `address` lies.
    pub fn l2_slot(&self, address: VirtAddr) -> PhysAddr {
        let above = self.machine.cpu(0).read_descriptor(l1_slot(address));
        assert_eq!(above & 3, 1, "no table above {address}");
        PhysAddr::new((above & !0x3ff) + l2::index(address) * 4)
    }

    /// Writes `descriptor` behind the kernel's back, and gives what was there.
    pub fn poke(&self, slot: PhysAddr, descriptor: u32) -> u32 {
        let cpu = self.machine.cpu(0);
        let before = cpu.read_descriptor(slot);
        cpu.write_descriptors(slot, iter::once(descriptor));
        cpu.clean_descriptors(slot, 1);
        cpu.barrier();
        before
    }

    /// Writes the descriptor of a small page at `address` behind the kernel's back, and gives what was there.
    pub fn poke_page(&self, address: VirtAddr, frame: Pfn, attributes: Attributes) -> u32 {
        let page = l2::Descriptor::SmallPage(frame, attributes).encode().expect("a small page");
        self.poke(self.l2_slot(address), page)
    }
}
