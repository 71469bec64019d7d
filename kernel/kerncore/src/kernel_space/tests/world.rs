//! A small kernel space on the host, whose machine forgets nothing and is never late.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};
use crate::area::ArrayArea;
use crate::frames::{Frame, FrameAllocator, FrameTable, Pointers, Spares};
use crate::kernel_space::*;
use crate::lock::Slot;
use crate::map_ram::Block;
use crate::owned_range::OwnedRange;
use crate::page_table::Removal;
use crate::physical_index::{IndexEntry, Node};
use crate::va_space::VaStorage;
use crate::zones::{Division, Nodes, OtherZones};

pub(super) const RAM: u32 = 0x6_0000;
pub(super) const LINEAR: u32 = 0x8_0000;
pub(super) const WINDOW: u32 = 0xc_0000;
pub(super) const HEAP: u32 = 0xf_0000;

/// Memory for tables, and nothing that could be late or stale.
#[derive(Default)]
pub(super) struct PlainMachine(Mutex<BTreeMap<u32, u32>>);

impl Machine for PlainMachine {
    type Authority = ();

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        self.0.lock().expect("no test panics inside").get(&slot.raw()).copied().unwrap_or(0)
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        for (slot, descriptor) in (first.raw()..).step_by(4).zip(descriptors) {
            self.0.lock().expect("no test panics inside").insert(slot, descriptor);
        }
    }

    fn clean_descriptors(&self, _first: PhysAddr, _count: u32) {}

    fn barrier(&self) {}

    fn invalidate_tlb(&self, _pages: PageRange) {}

    fn clean_and_invalidate(&self, _pages: PageRange, _first: Pfn) {}

    /// Of page arrays' frames, reached by their linear addresses; nobody looks at other memory.
    fn zero_pages(&self, pages: PageRange) {
        for page in pages.first()..pages.end() {
            let words = words_at(page.wrapping_sub(LINEAR).wrapping_add(RAM), 1);
            for word in words {
                word.store(0, Relaxed);
            }
        }
    }

    fn in_interrupt(&self) -> bool {
        false
    }

    fn cpu(&self) -> usize {
        0
    }
}

pub(crate) struct Mutexes;

pub(crate) struct MutexLock<T>(Mutex<T>);

impl Locks for Mutexes {
    type Lock<T: Send> = MutexLock<T>;
    type SharedLock<T: Send + Sync> = MutexLock<T>;
    type Slot<'t, T: Sync + 't> = MutexSlot<'t, T>;

    fn memory_goes(memory: impl FnOnce() -> Option<(VirtAddr, u32)>) {
        GOING.with_borrow_mut(|going| going.extend(memory()));
    }
}

thread_local! {
    /// What was said to go, where and how many bytes: by this thread, which runs one test.
    pub(super) static GOING: RefCell<Vec<(VirtAddr, u32)>> = const { RefCell::new(Vec::new()) };
}

/// A place for a reference.
pub(crate) struct MutexSlot<'t, T>(Mutex<Option<&'t T>>);

impl<'t, T: Sync> Slot<'t, T> for MutexSlot<'t, T> {
    const EMPTY: Self = Self(Mutex::new(None));

    fn take(&self) -> Option<&'t T> {
        self.0.lock().expect("no test panics inside").take()
    }

    fn exchange(&self, value: &'t T) -> Option<&'t T> {
        self.0.lock().expect("no test panics inside").replace(value)
    }

    fn is_empty(&self) -> bool {
        self.0.lock().expect("no test panics inside").is_none()
    }
}

impl<T: Send> Lock<T> for MutexLock<T> {
    fn new(_class: Class, value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> R {
        critical_section(&mut self.0.lock().expect("no test panics inside"))
    }

    fn try_with<R>(&self, critical_section: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_lock().ok().map(|mut value| critical_section(&mut value))
    }
}

impl<T: Send + Sync> SharedLock<T> for MutexLock<T> {
    fn look<R>(&self, section: impl FnOnce(&T) -> R) -> R {
        self.with(|value| section(value))
    }

    fn try_look<R>(&self, section: impl FnOnce(&T) -> R) -> Option<R> {
        self.try_with(|value| section(value))
    }
}

pub(super) struct Host;

/// Memory for page arrays, the same for the same frame or area of the thread, which runs one test.
pub(super) fn words_at(page: u32, pages: u32) -> &'static [AtomicU32] {
    thread_local! {
        static WORDS: RefCell<BTreeMap<u32, &'static [AtomicU32]>> = const { RefCell::new(BTreeMap::new()) };
    }
    let words = || (0..pages << 10).map(|_| AtomicU32::new(0)).collect::<Vec<_>>().leak();
    WORDS.with_borrow_mut(|map| {
        let found = map.entry(page).or_insert_with(|| words());
        if found.len() != (pages << 10) as usize {
            *found = words();
        }
        *found
    })
}

impl Support<'static> for Host {
    fn frame_words<'a>(&self, frame: &'a FrameBlock) -> &'a [AtomicU32] {
        words_at(frame.first().number(), frame.pages())
    }

    fn area_words<'a>(&self, area: &'a ArrayArea) -> &'a [AtomicU32] {
        words_at(area.pages().first(), area.pages().count())
    }

    fn chunk(&self, block: FrameBlock, entries: u32) -> AreaChunk<'static> {
        let bytes = entries as usize * size_of::<AreaEntry<'_>>();
        let (_, pages) = block.leak();
        assert_eq!(pages as usize, bytes.div_ceil(PAGE_SIZE as usize), "room for just so many");
        let vacant = (0..entries).map(|_| AreaEntry::new(AreaRecord::vacant()));
        vacant.collect::<Vec<_>>().leak()
    }

    fn index_chunk(&self, block: FrameBlock, entries: u32) -> IndexChunk<'static> {
        let bytes = entries as usize * size_of::<IndexEntry<'_>>();
        let (_, pages) = block.leak();
        assert_eq!(pages as usize, bytes.div_ceil(PAGE_SIZE as usize), "room for just so many");
        (0..entries).map(|_| IndexEntry::new(Node::vacant())).collect::<Vec<_>>().leak()
    }

    fn odd_tables(&self, area: PageRange, removal: Removal) {
        panic!("{area}: {removal:?}");
    }

    fn deferred_free_failed(&self, error: &RemoveError) {
        panic!("{error}");
    }
}

pub(super) type Space = KernelSpace<'static, &'static PlainMachine, Mutexes>;

pub(super) fn pages(first: u32, count: u32) -> PageRange {
    PageRange::from_numbers(first, count).expect("a range of the address space")
}

/// A mebibyte of RAM without an image; its tables lie in its first frames.
pub(super) fn space() -> Space {
    space_of(256, 256)
}

/// The same with as many pages of RAM and of the vmalloc window.
pub(super) fn space_of(ram_pages: u32, window_pages: u32) -> Space {
    space_with((ram_pages, ram_pages), window_pages, |table, tables| {
        let mut allocator = FrameAllocator::new(table);
        let free = Pfn::new(RAM + tables).expect("below 4 GiB");
        allocator.add_range(free, ram_pages - tables).expect("absent");
        Zones::new(allocator, Box::leak(Box::new(Spares::new())))
    })
}

/// Two nodes, each half of the RAM, of which the first `low` pages are low memory.
pub(super) fn two_nodes(ram_pages: u32, low: u32, window_pages: u32) -> Space {
    space_with((ram_pages, low), window_pages, |table, tables| {
        let division = Division { dma: 0, low, nodes: Nodes::Two };
        let others = Box::leak(Box::new(OtherZones::new(table, division)));
        let zones = Zones::divided(others, Box::leak(Box::new(Spares::new())));
        let free = Pfn::new(RAM + tables).expect("below 4 GiB");
        zones.add_range(free, ram_pages - tables).expect("absent");
        zones
    })
}

/// A space of as many pages of RAM, the low part of which is mapped; `zones` makes its frames free, but for the first ones,
/// which are tables.
fn space_with(
    (ram_pages, low): (u32, u32),
    window_pages: u32,
    zones: impl FnOnce(FrameTable<'static>, u32) -> Zones<'static, Mutexes>,
) -> Space {
    let machine: &'static PlainMachine = Box::leak(Box::default());
    let tables = 4 + low.div_ceil(1024);
    let ram = Pfn::new(RAM).expect("below 4 GiB");
    let (table, rest) = PageTable::new(machine, ram.base(), pages(LINEAR, 0x8_0000));
    drop(rest);
    let linear_tables = PhysAddr::new((RAM + 4) * PAGE_SIZE);
    let window = OwnedRange::mint(pages(LINEAR, low));
    let mut linear = LinearMap::new(&table, window, linear_tables, ram).expect("adopted");
    linear.fill(ram, low).expect("empty");
    let records: Vec<Frame> = (0..ram_pages).map(|_| Frame::new()).collect();
    let frames = FrameTable::new(records.leak(), ram).expect("aligned to a block");
    let zones = zones(frames, tables);
    zones.table().reserve(ram, tables, FrameOwner::Reserved).expect("absent");
    let books = vec![0; VaStorage::<AreaPlace<'_>>::words(window_pages)].leak();
    let records = (0..window_pages).map(|_| None).collect::<Vec<_>>().leak();
    let storage = VaStorage::carve(books, records, window_pages).expect("enough words");
    let space = VaSpace::new(OwnedRange::mint(pages(WINDOW, window_pages)), storage)
        .expect("enough storage");
    let blocks = (0..window_pages / 256).map(|_| Block::new()).collect::<Vec<_>>().leak();
    let map_ram = MapRam::new(pages(WINDOW, window_pages), blocks).expect("a block a section");
    let kmap = Kmap::none(&table);
    let words: Vec<_> = (0..ram_pages).map(|_| AtomicU32::new(0)).collect();
    let pointers = Pointers::new(&frames, words.leak()).expect("a word a frame");
    let support = &Host;
    KernelSpace::new(Parts { table, space, map_ram, zones, linear, kmap, pointers, support })
}
