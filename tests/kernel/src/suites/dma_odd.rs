//! DMA as nobody should use it: odd sizes, odd orders of calls, attributes and masks that do not go together. Each is refused, or
//! answered, by what the books say, and changes nothing else.

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use board::vexpress_a9::VRAM;
use dma::atomic_pool;
use dma::bounce::usage;
use dma::coherent::{AllocateError, allocate, allocate_quietly, first_frame};
use dma::device::Device;
use dma::dma_pool::DmaPool;
use dma::pool_growth::enough;
use dma::scatter::{ScatterEntry, ScatterTable};
use dma::streaming::{self, Call, Memory, UnmapError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::bounce::GiveBackError;
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use kerncore::dma_mask::DmaMask;
use kerncore::frames::FrameOwner;
use kerncore::kmap::KmapError;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::dma_alloc_coherent;
use linux::dma_attrs::dma_alloc_attrs;
use linux::dma_sgtable::{dma_get_sgtable, sg_free_table, sg_init_table};
use linux::errno::{EINVAL, ENXIO};
use linux::streaming::{dma_sync_single_for_cpu, dma_sync_single_for_device, dma_unmap_single};
use mm::kernel;

use super::buffers::give;
use super::buffers::show;
use super::user::at;
use super::user_programs as code;
use super::user_sharing::{WINDOW, waiting};
use super::witness::{Books, NOBODY, authority};

static DEVICE: Device = Device::new("an odd test's device");
static SNOOPING: Device = Device::coherent("an odd test's snooping device");

const NO_POOL: Completion = Skipped("no atomic pool of 4 pages in this boot");

/// S99: of each back end, a list has no page that the buffer has not.
#[ktest]
fn a_list_has_no_page_that_is_not_the_buffer_s_s99() -> Completion {
    if atomic_pool::usage().is_none_or(|pool| pool.pages < 4) {
        return NO_POOL;
    }
    let books = Books::now();
    for (device, sleep) in
        [(&DEVICE, Sleep::May), (&DEVICE, Sleep::MayNot), (&SNOOPING, Sleep::May)]
    {
        let bytes = 2 * PAGE_SIZE;
        let buffer = allocate(device, bytes, sleep, NOBODY).expect("memory");
        let list = |size, expected: i32| {
            let mut table = ScatterTable::NONE;
            let memory: *const c_void = ptr::with_exposed_provenance(buffer.address.raw() as usize);
            // SAFETY: a device, and a place for a table.
            let told = unsafe { dma_get_sgtable(device, &raw mut table, memory, buffer.dma, size) };
            assert_eq!(told, expected, "{size:#x} bytes of {}", device.name());
            // SAFETY: it was made above, or has none.
            unsafe { sg_free_table(&raw mut table) };
        };
        for size in [1, PAGE_SIZE, PAGE_SIZE + 1, bytes] {
            list(size, 0);
        }
        list(0, -EINVAL);
        for size in [1 << 30, 1 << 31, u32::MAX - PAGE_SIZE + 1, u32::MAX] {
            list(size, -ENXIO);
            assert_eq!(first_frame(device, buffer, size), None, "{size:#x}");
        }
        give(device, bytes, buffer);
    }
    books.assert_unchanged();
    Ran
}

/// S106: whoever frees a buffer that a device has a copy of is told when that comes back, and its slots come back all the same.
#[ktest]
fn the_copy_of_what_was_freed_meanwhile_gives_its_slots_back_s106() {
    let block = kernel().zones().allocate(0, FrameOwner::Pages).expect("a frame");
    let (first, _) = block.leak();
    let (name, flow, family) = ("a test", Flow::FromDevice, Family::Page);
    let call = Call { name, device: &DEVICE, flow, caller: NOBODY, family };
    // No whole lines, so that it is copied.
    let memory = Memory::Physical(PhysAddr::new(first.base().raw() + 7));
    // SAFETY: the test's frame, which it leaves alone.
    let dma = unsafe { streaming::map(call, memory, 100) }.expect("a mapping");
    assert_eq!(usage().taken, 1);
    let freed = kernel().free_frames_at(authority(), first, 0, FrameOwner::Pages);
    assert_eq!(freed, Ok(()));
    // SAFETY: mapped above; there is no device, and nobody has the frame.
    let ended = unsafe { streaming::unmap(call, dma, 100) };
    let lost = matches!(ended, Err(UnmapError::Memory(KmapError::NotMemory { frame, .. })) if frame == first);
    assert!(lost, "{ended:?}");
    assert_eq!(usage().taken, 0);
    // SAFETY: to be refused.
    let again = unsafe { streaming::unmap(call, dma, 100) };
    let free = GiveBackError::Free { physical: PhysAddr::new(dma.raw()) };
    assert_eq!(again, Err(UnmapError::Bounce(free)));
}

/// S106: slots that no buffer has are nobody's mapping: neither ended again, nor synchronised.
#[ktest]
fn what_was_copied_is_not_unmapped_twice_nor_synchronised_afterwards_s106() {
    let to = Flow::ToDevice as u32;
    let heap = alloc::vec![1_u8; 4096];
    let mapped = dma::mapping::Streaming::<kerncore::streaming::ToDevice, _>::map(&DEVICE, heap);
    let mapped = mapped.expect("a mapping");
    let dma = mapped.dma_address();
    assert_eq!(usage().taken, 2);
    // SAFETY: the device is done.
    drop(unsafe { mapped.unmap() });
    assert_eq!(usage().taken, 0);
    let dev = &raw const DEVICE;
    let calls: [(&str, &dyn Fn()); 3] = [
        // SAFETY: to be refused.
        ("dma_unmap_single", &|| unsafe { dma_unmap_single(dev, dma, 4096, to) }),
        // SAFETY: as above.
        ("dma_sync_single_for_cpu", &|| unsafe { dma_sync_single_for_cpu(dev, dma, 64, to) }),
        // SAFETY: as above.
        ("dma_sync_single_for_device", &|| unsafe { dma_sync_single_for_device(dev, dma, 64, to) }),
    ];
    for (name, call) in calls {
        let ((), log) = capture_log(call);
        let line = alloc::format!("{name}: {}: no buffer is bounced at {dma}", DEVICE.name());
        assert!(log.text().contains(&line), "{line}: {log:?}");
    }
}

/// S99: who wants no words about a failure hears none, whichever back end fails.
#[ktest]
fn who_wants_no_words_hears_none_s99() -> Completion {
    let Some(pool) = atomic_pool::usage() else { return NO_POOL };
    let books = Books::now();
    let dev = &raw const DEVICE;
    let bytes = (pool.pages + 1) * PAGE_SIZE;
    let mut dma = DmaAddr::new(0);
    for flags in [AllocationFlags::ATOMIC, AllocationFlags::KERNEL] {
        let bytes = if flags.sleep() == Sleep::May { 1 << 30 } else { bytes };
        let quiet = AllocationFlags(flags.0 | AllocationFlags::NO_WARNING);
        for _ in 0..8 {
            let (memory, log) = capture_log(|| {
                let attrs = DmaAttributes::NO_WARN.bits();
                // SAFETY: a device, and a place for an address.
                unsafe { dma_alloc_attrs(dev, bytes, &raw mut dma, flags, attrs) }
            });
            assert_eq!((memory.is_null(), log.text()), (true, ""), "by attribute");
            // SAFETY: as above.
            let allocated = || unsafe { dma_alloc_coherent(dev, bytes, &raw mut dma, quiet) };
            let (memory, log) = capture_log(allocated);
            assert_eq!((memory.is_null(), log.text()), (true, ""), "by flag");
        }
    }
    books.assert_unchanged();
    Ran
}

/// S104: a request that no memory could serve does not count: what it takes for all others is still to be read.
#[ktest]
fn a_request_beyond_all_memory_spoils_no_advice_s104() -> Completion {
    let Some(pool) = atomic_pool::usage() else { return NO_POOL };
    let before = enough();
    let absurd = allocate(&DEVICE, u32::MAX, Sleep::MayNot, NOBODY);
    assert!(absurd.is_err(), "{absurd:?}");
    assert_eq!(enough(), before);
    // Also who wants no words is counted, since what it asks for is asked for.
    let bytes = (pool.pages + 3) * PAGE_SIZE;
    assert!(allocate_quietly(&DEVICE, bytes, Sleep::MayNot, NOBODY).is_err());
    let wanted = bytes >> 10;
    assert_eq!(enough(), wanted.max(before));
    Ran
}

/// S100, S102: never above the mask, in memory of its own neither.
#[ktest]
fn a_device_s_own_memory_above_its_mask_is_not_given_s100_s102() {
    let books = Books::now();
    let device = Device::new("a device with memory too high");
    let high = DmaAddr::new(0xb000_0000);
    assert_eq!(device.declare_memory((VRAM.base, high), 8 * PAGE_SIZE, NOBODY), Ok(()));
    for (mask, pages) in [(0xb000_0fff, 1), (0xb000_1ffe, 1), (0xb000_1fff, 2), (0x6fff_ffff, 0)] {
        let mask = DmaMask::new(mask);
        assert_eq!(device.set_coherent_mask(mask), Ok(()));
        for sleep in [Sleep::May, Sleep::MayNot] {
            let mut taken = Vec::new();
            while let Ok(buffer) = allocate(&device, PAGE_SIZE, sleep, NOBODY) {
                assert!(mask.reaches(buffer.dma, PAGE_SIZE), "{} above {mask}", buffer.dma);
                taken.push(buffer);
            }
            assert_eq!(taken.len(), pages, "up to {mask}");
            let refused = allocate(&device, PAGE_SIZE, sleep, NOBODY);
            assert!(matches!(refused, Err(AllocateError::OutOfReach { .. })), "{refused:?}");
            for buffer in taken {
                give(&device, PAGE_SIZE, buffer);
            }
        }
    }
    // SAFETY: nobody but the test has the device.
    assert_eq!(unsafe { device.release_memory() }, Ok(()));
    books.assert_unchanged();
}

/// S78: memory of the device's own answers first, and what does not lie there is asked of the others.
#[ktest]
fn a_buffer_from_before_the_declaration_is_shown_and_listed_s78_s102() {
    let books = Books::now();
    let device = Device::new("a device that is given memory late");
    let bytes = 2 * PAGE_SIZE;
    let early = allocate(&device, bytes, Sleep::May, NOBODY).expect("memory");
    let place = (VRAM.base, DmaAddr::new(0x0010_0000));
    assert_eq!(device.declare_memory(place, 4 * PAGE_SIZE, NOBODY), Ok(()));
    let frame = PhysAddr::new(early.dma.raw()).pfn();
    assert_eq!(first_frame(&device, early, bytes), Some(frame));
    let space = waiting(code::exits(), 1);
    assert_eq!(show(&device, &space, at(WINDOW), (early, bytes), 1), Ok(()));
    drop(space);
    give(&device, bytes, early);
    // SAFETY: nobody but the test has the device.
    assert_eq!(unsafe { device.release_memory() }, Ok(()));
    books.assert_unchanged();
}

/// S103: blocks are aligned and keep to their boundary as the device sees them, wherever its memory begins.
#[ktest]
fn blocks_in_a_device_s_own_memory_are_aligned_for_the_device_s102_s103() {
    let books = Books::now();
    for start in [0x0010_1000, 0x0010_3000, 0x0010_7000] {
        let device = Device::new("a device with odd memory");
        let place = (VRAM.base, DmaAddr::new(start));
        assert_eq!(device.declare_memory(place, 64 * PAGE_SIZE, NOBODY), Ok(()));
        for (size, alignment, boundary) in
            [(8192, 8192, 0), (5000, 4, 8192), (16, 4096, 0), (12_288, 4, 16_384), (100, 16_384, 0)]
        {
            let pool = DmaPool::new("odd", &device, size, alignment, boundary).expect("a layout");
            let mut blocks = Vec::new();
            for _ in 0..3 {
                let block = pool.allocate(Sleep::May, NOBODY).expect("room");
                let (first, last) = (block.dma.raw(), block.dma.raw() + size - 1);
                assert!(first.is_multiple_of(alignment), "{alignment}: {}", block.dma);
                let between = |at: u32| at.checked_div(boundary);
                assert_eq!(between(first), between(last), "{size} at {}", block.dma);
                blocks.push(block);
            }
            for block in blocks {
                assert_eq!(pool.free(block), Ok(()));
            }
            // SAFETY: nobody uses a block.
            assert_eq!(unsafe { pool.destroy() }, 0);
        }
        // SAFETY: nobody but the test has the device.
        assert_eq!(unsafe { device.release_memory() }, Ok(()));
    }
    books.assert_unchanged();
}

/// A list of no places is no list, however many entries it should have.
#[ktest]
fn a_list_at_no_place_is_left_alone_s105() {
    // SAFETY: no places.
    unsafe { sg_init_table(ptr::null_mut(), 3) };
    let mut entry = [ScatterEntry::EMPTY];
    // SAFETY: one place, and none of it is used.
    unsafe { sg_init_table(entry.as_mut_ptr(), 0) };
    assert_eq!(entry, [ScatterEntry::EMPTY]);
}
