//! Where the memory of a device lies, for the device and for others: what would be two things at once is refused (S99, S102, S103).

extern crate alloc;

use alloc::string::ToString;

use board::vexpress_a9::VRAM;
use dma::attributes;
use dma::coherent::{self, Buffer, allocate};
use dma::declared::DeclareError;
use dma::device::Device;
use dma::dma_pool::{DmaPool, TakeError};
use dma::iommu::{IommuMapping, detach};
use dma::scatter::ScatterTable;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::kernel_space::IoRemapError;
use ktest::ktest;
use linux::dma_declare::dma_declare_coherent_memory;
use linux::dma_sgtable::{dma_get_sgtable_attrs, sg_free_table};
use linux::errno::{EBUSY, EINVAL, ENXIO};
use mm::kernel;

use super::dma_declared::{DMA, PAGES, device, release};
use super::iommu::BASE;
use super::witness::{Books, NOBODY, plus};

static DEVICE: Device = Device::new("a device that moves");

/// What the C name says to a declaration, and why.
fn declare(device: &Device, physical: u32, dma: u32, bytes: u32) -> (i32, alloc::string::String) {
    let place = (PhysAddr::new(physical), DmaAddr::new(dma));
    // SAFETY: a device, and memory that nobody uses.
    let declare = || unsafe { dma_declare_coherent_memory(device, place.0, place.1, bytes) };
    let (told, log) = capture_log(declare);
    (told, log.text().into())
}

/// S102: two devices' buffers would be the same bytes.
#[ktest]
fn memory_is_declared_for_one_device_at_a_time_s102() {
    let books = Books::now();
    let first = device();
    let other = Device::new("a second device");
    let base = VRAM.base.raw();
    let end = base + PAGES * PAGE_SIZE;
    let last = PhysAddr::new(end - 1);
    let refused = DeclareError::Another { device: first.name(), first: VRAM.base, last };
    for (physical, pages) in [(base, PAGES), (base, 1), (end - PAGE_SIZE, 1), (base, 2 * PAGES)] {
        let place = (PhysAddr::new(physical), DMA);
        for _ in 0..2 {
            let declared = other.declare_memory(place, pages * PAGE_SIZE, NOBODY);
            assert_eq!(declared, Err(refused));
        }
    }
    let (told, log) = declare(&other, base, DMA.raw(), PAGE_SIZE);
    assert_eq!(told, -EBUSY);
    assert!(log.contains(other.name()) && log.contains(first.name()), "{log}");
    // Beside it there is room, for the same addresses of another device, and when it is free that is there for anybody.
    assert_eq!(other.declare_memory((PhysAddr::new(end), DMA), PAGE_SIZE, NOBODY), Ok(()));
    release(&first);
    release(&other);
    assert_eq!(other.declare_memory((VRAM.base, DMA), 2 * PAGES * PAGE_SIZE, NOBODY), Ok(()));
    release(&other);
    books.assert_unchanged();
}

/// S102: what is mapped for a transfer would have the handle of a buffer.
#[ktest]
fn declared_memory_is_not_where_its_device_sees_ram_s102() {
    let books = Books::now();
    let device = Device::new("a device that would see two things");
    let frames = kernel().zones().table();
    let ram = frames.first().base().raw();
    let dma_of = |physical: u32| device.dma_address(PhysAddr::new(physical));
    for (dma, pages, found) in
        [(ram, 1, ram), (ram + 5 * PAGE_SIZE, 2, ram + 5 * PAGE_SIZE), (ram - PAGE_SIZE, 2, ram)]
    {
        let (bytes, dma) = (pages * PAGE_SIZE, dma_of(dma));
        let ram = PhysAddr::new(found);
        let error = DeclareError::Ram { device: device.name(), dma, bytes, ram };
        assert_eq!(device.declare_memory((VRAM.base, dma), bytes, NOBODY), Err(error));
        assert!(error.to_string().contains(device.name()), "{error}");
        assert_eq!(declare(&device, VRAM.base.raw(), dma.raw(), bytes).0, -EINVAL);
    }
    // Up to RAM it may lie.
    let below = dma_of(ram - 2 * PAGE_SIZE);
    assert_eq!(device.declare_memory((VRAM.base, below), 2 * PAGE_SIZE, NOBODY), Ok(()));
    release(&device);
    books.assert_unchanged();
}

#[ktest]
fn memory_that_passes_the_top_is_an_invalid_argument_on_either_side_s94_s102() {
    let books = Books::now();
    let device = Device::new("a device with memory at the top");
    let (top, bytes) = (0xffff_f000, 2 * PAGE_SIZE);
    assert_eq!(declare(&device, VRAM.base.raw(), top, bytes).0, -EINVAL);
    assert_eq!(declare(&device, top, DMA.raw(), bytes).0, -EINVAL);
    let physical = PhysAddr::new(top);
    let wraps = Err(DeclareError::Map(IoRemapError::Wraps { physical, bytes }));
    assert_eq!(device.declare_memory((physical, DMA), bytes, NOBODY), wraps);
    books.assert_unchanged();
}

/// S99: who has a page of a buffer has no buffer.
#[ktest]
fn the_inside_of_a_buffer_has_no_list_s99() {
    let books = Books::now();
    let mapping = IommuMapping::new(BASE, 1 << 20).expect("memory");
    for is_behind in [false, true] {
        if is_behind {
            // SAFETY: the device has nothing.
            unsafe { mapping.attach(&DEVICE) }.expect("attached to nothing");
        }
        for (sleep, bits) in [
            (Sleep::May, DmaAttributes::NONE),
            (Sleep::May, DmaAttributes::WRITE_COMBINE),
            (Sleep::May, DmaAttributes::FORCE_CONTIGUOUS),
            (Sleep::MayNot, DmaAttributes::NONE),
        ] {
            let bytes = 3 * PAGE_SIZE;
            let Ok(buffer) = attributes::allocate(&DEVICE, bytes, sleep, bits, NOBODY) else {
                assert_eq!(sleep, Sleep::MayNot, "memory");
                continue;
            };
            let list = |offset: u32, size| {
                let mut table = ScatterTable::NONE;
                let memory = plus(buffer.address, offset).raw() as usize;
                let memory = core::ptr::with_exposed_provenance(memory);
                let dma = DmaAddr::new(buffer.dma.raw() + offset);
                let (dev, to) = (&raw const DEVICE, &raw mut table);
                // SAFETY: a device, and a place for a table.
                let told =
                    unsafe { dma_get_sgtable_attrs(dev, to, memory, dma, size, bits.bits()) };
                if told == 0 {
                    // SAFETY: made above.
                    unsafe { sg_free_table(&raw mut table) };
                }
                told
            };
            for (offset, size) in
                [(PAGE_SIZE, PAGE_SIZE), (PAGE_SIZE, 2 * PAGE_SIZE), (2 * PAGE_SIZE, 1)]
            {
                let told = list(offset, size);
                assert_eq!(told, -ENXIO, "{is_behind} {sleep:?} {bits:?} {offset:#x} {size:#x}");
            }
            assert_eq!([list(0, bytes), list(0, 1)], [0; 2]);
            // SAFETY: nobody uses it.
            let freed = unsafe { attributes::free(&DEVICE, bytes, buffer, bits) };
            assert_eq!(freed, Ok(()));
        }
    }
    // SAFETY: the device has nothing.
    assert_eq!(unsafe { detach(&DEVICE) }, Ok(()));
    drop(mapping);
    books.assert_unchanged();
}

/// Where a device is, of two mappings and the bus.
fn put(mapping: Option<&IommuMapping>) {
    if DEVICE.iommu().is_some() {
        // SAFETY: nobody uses what the device has.
        let (left, _log) = capture_log(|| unsafe { detach(&DEVICE) });
        assert_eq!(left, Ok(()));
    }
    if let Some(mapping) = mapping {
        // SAFETY: as above.
        assert_eq!(unsafe { mapping.attach(&DEVICE) }, Ok(()));
    }
}

/// S103, S109: a block of what its device saw elsewhere is not given, and the memory is not lost.
#[ktest]
fn a_pool_whose_device_moved_gives_nothing_and_all_back_s103_s109() {
    let books = Books::now();
    let places = [(None, Some(0)), (Some(0), Some(1)), (Some(0), None)];
    for (from, to) in places {
        for sleep in [Sleep::May, Sleep::MayNot] {
            let mappings = [(); 2].map(|()| IommuMapping::new(BASE, 1 << 20).expect("memory"));
            let at = |place: Option<usize>| place.map(|index| &mappings[index]);
            put(at(from));
            let pool = DmaPool::new("a pool that stays", &DEVICE, 2048, 0, 0).expect("a layout");
            let Ok(block) = pool.allocate_quietly(sleep, NOBODY) else {
                assert_eq!(sleep, Sleep::MayNot, "memory");
                put(None);
                continue;
            };
            put(at(to));
            // The block beside it is free, and so is memory for more.
            let refused = pool.allocate(Sleep::May, NOBODY).expect_err("a block that is not seen");
            assert!(matches!(refused, TakeError::Moved { .. }), "{refused:?}");
            let text = refused.to_string();
            assert!(text.contains(pool.name()) && text.contains(DEVICE.name()), "{text}");
            // Back where it was it goes on.
            put(at(from));
            let more = pool.allocate(Sleep::May, NOBODY).expect("the block beside it");
            assert_eq!(block.dma.raw().abs_diff(more.dma.raw()), 2048);
            put(at(to));
            assert_eq!([pool.free(block), pool.free(more)], [Ok(()); 2]);
            // A buffer of where it is now has the address that a block had elsewhere.
            let buffer = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
            let taken = DEVICE.iommu().map(|iommu| iommu.domain().usage().taken);
            // SAFETY: nobody uses a block.
            let (live, log) = capture_log(|| unsafe { pool.destroy() });
            assert_eq!((live, log.text()), (0, ""), "{from:?} {to:?} {sleep:?}");
            assert_eq!(DEVICE.iommu().map(|iommu| iommu.domain().usage().taken), taken);
            let Buffer { address, dma } = buffer;
            // SAFETY: nobody uses it.
            let freed = unsafe { coherent::free(&DEVICE, PAGE_SIZE, address, dma) };
            assert_eq!(freed, Ok(()));
            put(None);
            for mapping in mappings {
                assert_eq!((mapping.holders(), mapping.domain().usage().taken), (1, 0));
            }
            books.assert_unchanged();
        }
    }
}

/// S103, S109: who made the mapping may have let it go; the pool's memory is seen by no other in its place.
#[ktest]
fn a_pool_holds_what_its_device_was_behind_s103_s109() {
    let books = Books::now();
    for sleep in [Sleep::May, Sleep::MayNot] {
        let mapping = IommuMapping::new(BASE, 1 << 20).expect("memory");
        put(Some(&mapping));
        let pool = DmaPool::new("a pool that holds", &DEVICE, 2048, 0, 0).expect("a layout");
        let block = pool.allocate_quietly(sleep, NOBODY);
        put(None);
        drop(mapping);
        let next = IommuMapping::new(BASE, 1 << 20).expect("memory");
        put(Some(&next));
        if let Ok(block) = block {
            let refused = pool.allocate(Sleep::May, NOBODY);
            assert!(matches!(refused, Err(TakeError::Moved { .. })), "{refused:?}");
            assert_eq!(pool.free(block), Ok(()));
        }
        put(None);
        drop(next);
        // SAFETY: nobody uses a block.
        let (live, log) = capture_log(|| unsafe { pool.destroy() });
        assert_eq!((live, log.text()), (0, ""), "{sleep:?}");
        books.assert_unchanged();
    }
}
