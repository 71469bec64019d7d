//! The audit of what only this module can damage: records, and the books of the window. All other damage is done from outside,
//! on SoftMachine.

mod filling;
mod gone;
mod oddities;
mod page_array;
mod shortage;
mod shown;
mod undoing;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};
use crate::area::{AreaFlags, ArrayArea, VmStruct};
use crate::attributes::Attributes;
use crate::audit::{Expected, Violation, audit};
use crate::frames::{Frame, FrameAllocator, FrameBlock, FrameTable, Spares};
use crate::lock::Slot;
use crate::map_ram::Block;
use crate::owned_range::OwnedRange;
use crate::page_table::Removal;
use crate::va_space::{Count, VaStorage};
use crate::zones::{Division, Nodes, OtherZones};

const RAM: u32 = 0x6_0000;
const LINEAR: u32 = 0x8_0000;
const WINDOW: u32 = 0xc_0000;
const HEAP: u32 = 0xf_0000;

/// Memory for tables, and nothing that could be late or stale.
#[derive(Default)]
struct PlainMachine(Mutex<BTreeMap<u32, u32>>);

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
    static GOING: RefCell<Vec<(VirtAddr, u32)>> = const { RefCell::new(Vec::new()) };
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

struct Host;

/// Memory for page arrays, the same for the same frame or area of the thread, which runs one test.
fn words_at(page: u32, pages: u32) -> &'static [AtomicU32] {
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

    fn odd_tables(&self, area: PageRange, removal: Removal) {
        panic!("{area}: {removal:?}");
    }

    fn deferred_free_failed(&self, error: &RemoveError) {
        panic!("{error}");
    }
}

type Space = KernelSpace<'static, &'static PlainMachine, Mutexes>;

fn pages(first: u32, count: u32) -> PageRange {
    PageRange::from_numbers(first, count).expect("a range of the address space")
}

/// A mebibyte of RAM without an image; its tables lie in its first frames.
fn space() -> Space {
    space_of(256, 256)
}

/// The same with as many pages of RAM and of the vmalloc window.
fn space_of(ram_pages: u32, window_pages: u32) -> Space {
    space_with((ram_pages, ram_pages), window_pages, |table, tables| {
        let mut allocator = FrameAllocator::new(table);
        let free = Pfn::new(RAM + tables).expect("below 4 GiB");
        allocator.add_range(free, ram_pages - tables).expect("absent");
        Zones::new(allocator, Box::leak(Box::new(Spares::new())))
    })
}

/// Two nodes, each half of the RAM, of which the first `low` pages are low memory.
fn two_nodes(ram_pages: u32, low: u32, window_pages: u32) -> Space {
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
    KernelSpace::new(Parts { table, space, map_ram, zones, linear, kmap, support: &Host })
}

#[track_caller]
fn finds(space: &Space, wanted: &[Violation]) {
    let expected =
        Expected { image: pages(LINEAR, 0), parts: &[], heap: pages(HEAP, 16), heap_mapped: 0 };
    let mut found = Vec::new();
    audit(space, &expected, &mut |violation| found.push(violation));
    assert_eq!(found, wanted);
}

/// Three pages from vmalloc.
fn an_area(space: &Space) -> VirtAddr {
    let area = space.vmalloc(3 * PAGE_SIZE, Fill::Uninitialised, VirtAddr::new(0)).expect("memory");
    area.pages.start()
}

#[test]
fn a_record_without_an_area_is_seen() {
    let space = space();
    an_area(&space);
    finds(&space, &[]);
    let place = space.areas.with(|areas| areas.records.take());
    let _lost = place.expect("room for 64");
    finds(&space, &[Violation::Records { records: 2, areas: 1 }]);
}

type Damage = fn(&mut AreaRecord);

/// What C callers see of the vmalloc area of `record`, if it were there.
fn descriptor(record: &AreaRecord, address: u32, physical: u32) -> VmStruct {
    let (address, physical) = (VirtAddr::new(address), PhysAddr::new(physical));
    let pointers = (address_of(&record.within), 3);
    let (size, flags) = (4 * PAGE_SIZE, AreaFlags::ALLOC);
    VmStruct::new(address, size, flags, physical, VirtAddr::new(0), pointers)
}

#[test]
fn a_record_that_says_something_else_than_the_area_is_seen_s11_s85a() {
    let space = space();
    let base = an_area(&space);
    finds(&space, &[]);
    let array = space.areas.with(|areas| areas.find(base).expect("live").vm.pages());
    let first = space.zones.table().pointer_to(space.table.small_page(base).expect("mapped"));
    let damages: [(&str, u32, u32, Damage); 8] = [
        ("flags", 2, 0, |record| record.vm.set_flags(AreaFlags::MAP)),
        ("address", base.raw(), 4, |record| record.vm = descriptor(record, 4, 0)),
        ("size", 4 * PAGE_SIZE, 3 * PAGE_SIZE, |record| record.vm.set_size(3 * PAGE_SIZE)),
        ("physical address", 0, 8, |record| {
            record.vm = descriptor(record, record.vm.addr().raw(), 8);
        }),
        ("page array", array, 4, |record| record.vm.set_pages(VirtAddr::new(4), 3)),
        ("page count", 3, 2, |record| {
            record.vm.set_pages(VirtAddr::new(record.vm.pages()), 2);
        }),
        ("vpages", 0, 1, |record| {
            record.vm.set_flags(record.vm.flags().with(AreaFlags::VPAGES));
        }),
        ("page pointer", first, 0, |record| record.within[0].store(0, Relaxed)),
    ];
    for (part, wanted, had, damage) in damages {
        let with_record = |change: &dyn Fn(&mut AreaRecord)| {
            space.areas.with(|areas| {
                change(areas.space.find_mut(base).expect("live"));
            });
        };
        with_record(&damage);
        finds(&space, &[Violation::Record { base, part, wanted, had }]);
        with_record(&|record| record.vm = descriptor(record, base.raw(), 0));
        with_record(&|record| record.within[0].store(first, Relaxed));
        finds(&space, &[]);
    }
}

/// S2: an area takes its pages and its guard.
#[test]
fn the_books_count_what_is_taken() {
    let space = space();
    let before = space.area_counts();
    assert_eq!((before.areas, before.pages_taken, before.largest_hole), (0, 0, 256));
    an_area(&space);
    let counts = space.area_counts();
    assert_eq!((counts.areas, counts.pages_taken, counts.largest_hole), (1, 4, 252));
    assert_eq!((counts.records, counts.record_capacity), (1, 64));
}

/// A vmap's frames need not be contiguous, so its descriptor names none, not even one at the start of a page.
#[test]
fn a_vmaps_record_that_names_a_physical_address_is_seen_s85a() {
    let space = space();
    let frame = space.zones.allocate(0, FrameOwner::Test).expect("free memory");
    let mapped = space.vmap(&[frame.first()], Attributes::KERNEL_DATA, VirtAddr::new(0));
    let base = mapped.expect("addresses").pages.start();
    finds(&space, &[]);
    let had = frame.first().base();
    space.areas.with(|areas| {
        let record = areas.space.find_mut(base).expect("live");
        let (address, none) = (record.vm.addr(), VirtAddr::new(0));
        let (size, flags) = (record.vm.size(), record.vm.flags());
        record.vm = VmStruct::new(address, size, flags, had, none, (none, 0));
    });
    let part = "physical address";
    finds(&space, &[Violation::Record { base, part, wanted: 0, had: had.raw() }]);
}

#[test]
fn books_that_contradict_themselves_are_seen() {
    let space = space();
    an_area(&space);
    space.areas.with(|areas| areas.space.miscount());
    let (what, noted, found) = (Count::FreePages, 253, 252);
    finds(&space, &[Violation::Books(CheckError::BadCount { what, noted, found })]);
}

/// The largest window can be filled to its last two pages: addresses run out before records do (S8).
#[test]
fn the_smallest_areas_fill_the_largest_window() {
    let window_pages = 0x3_0000;
    let space = space_of(32 << 8, window_pages);
    let frame = space.zones.allocate(0, FrameOwner::Test).expect("free memory");
    let map = || space.vmap(&[frame.first()], Attributes::KERNEL_DATA, VirtAddr::new(0));
    for area in 0..window_pages / 2 {
        let mapped = map().map(|area| area.pages.first());
        assert_eq!(mapped, Ok(WINDOW + 2 * area));
    }
    assert!(matches!(map(), Err(VmapError::Area(NoArea::Addresses(_)))));
    assert_eq!(space.area_counts().records, window_pages / 2);
}

/// Areas of one page at the window's pages 0, 2 (dying), 4 (dying) and 10, each with its guard.
#[test]
fn a_report_names_the_live_area_next_to_an_address_s113() {
    let space = space();
    let at = |page: u32, offset| VirtAddr::new((WINDOW + page) * PAGE_SIZE + offset);
    let nearest = |address| {
        let area = space.nearest_area(address).expect("nobody holds the lock");
        area.map(|area| area.pages.first() - WINDOW)
    };
    assert_eq!(nearest(at(0, 0)), None);
    let vmalloc = |pages: u32| {
        let made = space.vmalloc(pages * PAGE_SIZE, Fill::Uninitialised, VirtAddr::new(0));
        made.expect("memory").pages.start()
    };
    let [first, dying, also_dying, spacer, last] = [1, 1, 1, 3, 1].map(vmalloc);
    assert_eq!((first, last), (at(0, 0), at(10, 0)));
    space.vfree((), spacer).expect("live");
    space.areas.with(|areas| {
        for base in [dying, also_dying] {
            let _place = areas.space.retire(base).expect("live");
        }
    });
    for (address, wanted) in [
        (at(0, 0), 0),
        (at(0, 4095), 0),
        (at(1, 0), 0),
        (at(1, 4095), 0),
        (at(2, 0), 0),
        (at(5, 4095), 0),
        (at(6, 0), 10),
        (at(9, 4095), 10),
        (at(10, 5), 10),
        (at(11, 4095), 10),
        (at(255, 4095), 10),
        (VirtAddr::new(u32::MAX), 10),
        (VirtAddr::new(WINDOW * PAGE_SIZE - 1), 0),
        (VirtAddr::new(0), 0),
    ] {
        assert_eq!(nearest(address), Some(wanted), "{address}");
    }
    space.areas.with(|_| assert_eq!(space.nearest_area(first), Err(AreasBusy)));
}
