//! Ordinary memory, mapped for devices that master the bus (S100, S105, S106). The device is played by the test: it reaches memory at
//! the address that it was given, past every mapping of its driver.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use dma::bounce::{is_forced, usage};
use dma::device::Device;
use dma::mapping::Streaming;
use dma::streaming::{self, MAPPING_ERROR, MapError, Memory};
use image::capture::{CapturedLog, capture_log};
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::bounce::SLOT;
use kerncore::dma_mask::DmaMask;
use kerncore::frames::FrameOwner;
use kerncore::frames::FrameRequest;
use kerncore::lines::Edge;
use kerncore::streaming::{Bidirectional, Bounced, Flow, FromDevice, Refusal, Step, ToDevice};
use ktest::Completion::{self, Ran, Skipped};
use ktest::{assert_err, ktest};
use linux::free::vfree;
use linux::page::{frame_of, pointer_to};
use linux::streaming::{
    dma_map_page, dma_map_single, dma_mapping_error, dma_sync_single_for_cpu,
    dma_sync_single_for_device, dma_unmap_page, dma_unmap_single,
};
use linux::vmalloc::vmalloc;
use mm::kernel;
use mm::page_alloc::Pages;

use super::played_device::{call, device_reads, device_writes};
use super::witness::NOBODY;

static DEVICE: Device = Device::new("a streaming test's device");
static SNOOPING: Device = Device::coherent("a streaming test's snooping device");

const FROM: u32 = Flow::FromDevice as u32;
const TO: u32 = Flow::ToDevice as u32;

fn counted(from: u8, count: u32) -> Vec<u8> {
    (0..count).scan(from, |next, _| Some(core::mem::replace(next, next.wrapping_add(1)))).collect()
}

/// How often `part` is in what was printed.
fn told(log: &CapturedLog, part: &str) -> usize {
    log.text().matches(part).count()
}

/// Where a buffer of whole lines is for a device that reaches it: in place, unless copies are forced.
#[track_caller]
fn assert_place(dma: DmaAddr, first: PhysAddr) {
    assert_eq!(dma.raw() == first.raw(), !is_forced(), "{dma} for what lies at {first}");
    assert_eq!(usage().taken != 0, is_forced());
}

/// A buffer of whole lines goes to the device, is written there, comes back; and the other way.
#[ktest]
fn data_flows_as_the_direction_says_s105() {
    for device in [&DEVICE, &SNOOPING] {
        let mut page = Pages::new(0).expect("memory");
        let first = page.physical();
        page.fill(0x11);
        page[..64].copy_from_slice(&counted(1, 64));
        let mapped = Streaming::<ToDevice, _>::map(device, page).expect("a mapping");
        assert_place(mapped.dma_address(), first);
        assert_eq!(mapped.len(), PAGE_SIZE as usize);
        assert_eq!(device_reads(mapped.dma_address(), 64), counted(1, 64));
        // SAFETY: the device, which is the test, is done.
        let page = unsafe { mapped.unmap() }.expect("low memory");
        let mapped = Streaming::<FromDevice, _>::map(device, page).expect("a mapping");
        device_writes(mapped.dma_address(), &counted(100, 64));
        // SAFETY: as above.
        let page = unsafe { mapped.unmap() }.expect("low memory");
        assert_eq!(page[..64], counted(100, 64));
        assert_eq!(page[64..], vec![0x11; 4032], "what the device left alone");
        let mapped = Streaming::<Bidirectional, _>::map(device, page).expect("a mapping");
        assert_eq!(device_reads(mapped.dma_address(), 64), counted(100, 64));
        device_writes(mapped.dma_address(), &counted(7, 64));
        // SAFETY: as above.
        let page = unsafe { mapped.unmap() }.expect("low memory");
        assert_eq!(page[..64], counted(7, 64));
        assert_eq!(usage().taken, 0);
    }
}

/// While it is mapped the bytes can be had for a moment, and what is written then is the device's afterwards.
#[ktest]
fn a_mapping_is_synchronised_in_both_directions_s105() {
    let page = Pages::new(0).expect("memory");
    let mut mapped = Streaming::<Bidirectional, _>::map(&DEVICE, page).expect("a mapping");
    let dma = mapped.dma_address();
    for round in 0..3_u8 {
        device_writes(dma, &counted(round, 100));
        // SAFETY: the device is the test, which does nothing meanwhile.
        let mut bytes = unsafe { mapped.sync_for_cpu() }.expect("low memory");
        assert_eq!(bytes[..100], counted(round, 100));
        bytes[..100].copy_from_slice(&counted(200 - round, 100));
        drop(bytes);
        assert_eq!(device_reads(dma, 100), counted(200 - round, 100));
    }
    // SAFETY: the device is done.
    drop(unsafe { mapped.unmap() });
}

/// What shares its lines with something else is copied, so that neither is lost: a device writes the copy, and a forgotten
/// synchronisation shows.
#[ktest]
fn a_buffer_of_odd_bytes_is_copied_if_the_device_writes_it_s105_s106() {
    let mut page = Pages::new(0).expect("memory");
    page.fill(0x33);
    let start = page.address();
    for (offset, bytes) in [(1, 63), (32, 33), (5, 1), (100, 3000)] {
        let memory = Memory::Linear(VirtAddr::new(start.raw() + offset));
        let from = call(&DEVICE, Flow::FromDevice);
        // SAFETY: the page is the test's, which leaves these bytes alone meanwhile.
        let dma = unsafe { streaming::map(from, memory, bytes) }.expect("a mapping");
        assert!(dma.raw() != page.physical().raw() + offset, "in place");
        assert_eq!(usage().taken, bytes.div_ceil(SLOT));
        device_writes(dma, &vec![0x77; bytes as usize]);
        assert_eq!(page[offset as usize], 0x33, "nobody has synchronised");
        // The neighbours are written meanwhile.
        page[offset as usize - 1] = 0x44;
        // SAFETY: the device is done.
        assert_eq!(unsafe { streaming::sync_for_cpu(from, dma, bytes) }, Ok(()));
        let end = (offset + bytes) as usize;
        assert!(page[offset as usize..end].iter().all(|&byte| byte == 0x77));
        // SAFETY: the device is done.
        assert_eq!(unsafe { streaming::unmap(from, dma, bytes) }, Ok(()));
        assert_eq!((page[offset as usize - 1], page[end]), (0x44, 0x33));
        page.fill(0x33);
        // What the device only reads goes in place.
        let to = call(&DEVICE, Flow::ToDevice);
        // SAFETY: as above.
        let dma = unsafe { streaming::map(to, memory, bytes) }.expect("a mapping");
        assert_place(dma, PhysAddr::new(page.physical().raw() + offset));
        // SAFETY: as above.
        assert_eq!(unsafe { streaming::unmap(to, dma, bytes) }, Ok(()));
    }
}

/// What a mask does not reach is copied to where it does (S100).
#[ktest]
fn what_a_mask_does_not_reach_is_copied_s100_s106() -> Completion {
    let device = Device::new("a device of few lines");
    let mut page = Pages::new(0).expect("memory");
    page[..128].copy_from_slice(&counted(9, 128));
    let mask = DmaMask::new(u64::from(page.physical().raw()) + 127);
    if device.set_mask(mask).is_err() {
        return Skipped("the lowest frame of RAM was free");
    }
    // The first 128 bytes are within reach, and one more line is not.
    for (bytes, reached) in [(128, true), (160, false)] {
        let both = call(&device, Flow::Bidirectional);
        let memory = Memory::Linear(page.address());
        // SAFETY: the page is the test's, which leaves it alone meanwhile.
        let mapped = unsafe { streaming::map(both, memory, bytes) };
        let dma = match mapped {
            Ok(dma) => dma,
            // The bounce buffers lie higher.
            Err(MapError::Exhausted { why, .. }) => {
                assert!(why == Bounced::OutOfReach || is_forced(), "{why}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(dma.raw() == page.physical().raw(), reached && !is_forced());
        assert!(mask.reaches(dma, bytes), "{dma}");
        assert_eq!(device_reads(dma, 128), counted(9, 128));
        device_writes(dma, &counted(50, 128));
        // SAFETY: the device is done.
        assert_eq!(unsafe { streaming::unmap(both, dma, bytes) }, Ok(()));
        assert_eq!(page[..128], counted(50, 128));
        page[..128].copy_from_slice(&counted(9, 128));
    }
    Ran
}

/// Memory without linear addresses: a page of high memory is mapped by its number, memory of the heap and of areas by a copy.
#[ktest]
fn memory_that_is_nowhere_in_one_piece_is_copied_and_pages_are_mapped_by_number_s105_s117() {
    let heap: Box<[u8]> = vec![0x5a; 5000].into_boxed_slice();
    let mapped = Streaming::<Bidirectional, _>::map(&DEVICE, heap).expect("a mapping");
    assert_eq!(usage().taken, 3);
    assert_eq!(device_reads(mapped.dma_address(), 5000), vec![0x5a; 5000]);
    device_writes(mapped.dma_address(), &vec![0xa5; 5000]);
    // SAFETY: the device is done.
    let heap = unsafe { mapped.unmap() }.expect("nothing to map");
    assert!(heap.iter().all(|&byte| byte == 0xa5));
    // Of whatever kind comes first: high memory where there is some.
    let zones = kernel().zones();
    let block = zones.allocate_from(FrameRequest::ANY, 1, FrameOwner::Pages).expect("two frames");
    let (first, _) = block.leak();
    let page = pointer_to(first);
    assert_eq!(frame_of(page), Some(first));
    for dir in [0, TO, FROM] {
        // Across the boundary of the two.
        // SAFETY: the frames are the test's, and nobody has them mapped.
        let dma = unsafe { dma_map_page(&raw const DEVICE, page, 4064, 64, dir) };
        // SAFETY: a device.
        assert_eq!(unsafe { dma_mapping_error(&raw const DEVICE, dma) }, 0);
        assert_eq!(dma.raw() == first.base().raw() + 4064, !is_forced());
        // SAFETY: mapped a moment ago.
        unsafe { dma_sync_single_for_cpu(&raw const DEVICE, dma, 64, dir) };
        // SAFETY: as above.
        unsafe { dma_sync_single_for_device(&raw const DEVICE, dma, 64, dir) };
        // SAFETY: as above.
        unsafe { dma_unmap_page(&raw const DEVICE, dma, 64, dir) };
    }
    let freed = kernel().free_frames_at(super::witness::authority(), first, 1, FrameOwner::Pages);
    assert_eq!(freed, Ok(()));
}

/// What cannot be mapped is refused, and says why; nothing is kept.
#[ktest]
fn what_is_no_memory_for_a_device_is_refused_by_name_s105() {
    let page = Pages::new(0).expect("memory");
    let linear = page.address();
    let map = |memory, bytes| {
        // SAFETY: refused, or the test's.
        unsafe { streaming::map(call(&DEVICE, Flow::FromDevice), memory, bytes) }
    };
    assert_eq!(map(Memory::Linear(linear), 0), Err(MapError::Refused(Refusal::Empty)));
    assert_eq!(map(Memory::Anywhere(NOBODY), 0), Err(MapError::Refused(Refusal::Empty)));
    let area: *mut c_void = vmalloc(PAGE_SIZE);
    let address = VirtAddr::new(u32::try_from(area.addr()).expect("32 bits"));
    let refused = map(Memory::Linear(address), 64);
    assert_err!(refused, MapError::NotLinear { area: Some(_), .. });
    // Repetitions are printed ever more seldom; one of many is.
    let said = (0..20_000).find_map(|_| {
        // SAFETY: refused.
        let map = || unsafe { dma_map_single(&raw const DEVICE, area, 64, FROM) };
        let (dma, log) = capture_log(map);
        assert_eq!(dma, MAPPING_ERROR);
        (!log.text().is_empty()).then_some(log)
    });
    let said = said.expect("a message");
    let words =
        alloc::format!("{address} is no linear address, but in the area Vmalloc at {address}");
    assert_eq!(
        (told(&said, "dma_map_single: 64 bytes for "), told(&said, &words)),
        (1, 1),
        "{said:?}"
    );
    // SAFETY: made above.
    unsafe { vfree(area) };
    assert_err!(map(Memory::Linear(NOBODY), 64), MapError::NotLinear { area: None, .. });
    let wraps = Memory::Physical(PhysAddr::new(0xffff_ffe0));
    assert_err!(map(wraps, 64), MapError::Refused(Refusal::Wraps { .. }));
    assert_err!(map(Memory::Physical(PhysAddr::new(0x1c09_0000)), 64), MapError::Memory(_));
    // The cacheable alias of what is used uncached.
    let coherent = dma::coherent::CoherentBox::new(&DEVICE, PAGE_SIZE).expect("memory");
    let alias = Memory::Physical(PhysAddr::new(coherent.dma_address().raw()));
    assert_err!(map(alias, 64), MapError::Memory(_));
    drop(coherent);
    let wanted = (usage().slots + 1) * SLOT;
    let heap = vec![0_u8; wanted as usize];
    let refused = Streaming::<ToDevice, _>::map(&DEVICE, heap).map(drop);
    let error = refused.expect_err("more than there is").error;
    assert_err!(Err::<(), _>(error), MapError::Exhausted { why: Bounced::Scattered, .. });
    let line = alloc::format!("{error}");
    assert!(
        line.contains("a streaming test's device wants") && line.contains("swiotlb="),
        "{line}"
    );
    for (device, dir) in [(&raw const DEVICE, 3), (&raw const DEVICE, 77), (ptr::null(), TO)] {
        let memory = ptr::with_exposed_provenance_mut(linear.raw() as usize);
        // SAFETY: refused.
        assert_eq!(unsafe { dma_map_single(device, memory, 64, dir) }, MAPPING_ERROR);
    }
    // SAFETY: a device, and none.
    assert_ne!(unsafe { dma_mapping_error(&raw const DEVICE, MAPPING_ERROR) }, 0);
    // SAFETY: as above.
    assert_ne!(unsafe { dma_mapping_error(ptr::null(), MAPPING_ERROR) }, 0);
    assert_eq!(usage().taken, 0);
}

/// Ends that fit nothing are reported, and change nothing.
#[ktest]
fn an_end_that_fits_no_mapping_is_reported_s105_s106() {
    let heap = vec![1_u8; 4096];
    let mapped = Streaming::<ToDevice, _>::map(&DEVICE, heap).expect("a mapping");
    let (dma, taken) = (mapped.dma_address(), usage().taken);
    let end = |dma, bytes| {
        // SAFETY: to be refused.
        capture_log(|| unsafe { dma_unmap_single(&raw const DEVICE, dma, bytes, TO) }).1
    };
    let inside = end(DmaAddr::new(dma.raw() + 32), 64);
    assert_eq!(told(&inside, "the buffer that is bounced at"), 1, "{inside:?}");
    assert_eq!(told(&end(MAPPING_ERROR, 64), "the mapping failed, so that there is none"), 1);
    assert_eq!(told(&end(dma, 0), "a size of zero"), 1);
    assert_ne!(told(&end(DmaAddr::new(0x1c09_0000), 64), "Backtrace:"), 0);
    // SAFETY: to be refused.
    let sync =
        capture_log(|| unsafe { dma_sync_single_for_cpu(&raw const DEVICE, dma, 4097, TO) }).1;
    assert_eq!(told(&sync, "4097 bytes from"), 1, "{sync:?}");
    assert_eq!(usage().taken, taken);
    // SAFETY: the device is done.
    drop(unsafe { mapped.unmap() });
    assert_eq!(usage().taken, 0);
}

/// An owner that is dropped says so and keeps the buffer: somebody might still write there.
#[ktest]
fn a_mapping_that_is_dropped_keeps_its_buffer_s105() {
    let page = Pages::new(0).expect("memory");
    let memory = ptr::with_exposed_provenance_mut::<u8>(page.address().raw() as usize);
    // SAFETY: the test's page, which outlives the mapping, and to which nobody else refers until that has ended.
    let bytes: &'static mut [u8] = unsafe { core::slice::from_raw_parts_mut(memory, 64) };
    let mapped = Streaming::<ToDevice, _>::map(&DEVICE, bytes).expect("a mapping");
    let dma = mapped.dma_address();
    let ((), log) = capture_log(|| drop(mapped));
    assert_eq!(told(&log, "was dropped: the buffer stays the device's"), 1, "{log:?}");
    // So that the test leaves nothing behind.
    // SAFETY: mapped above, in this direction; the device is done.
    assert_eq!(unsafe { streaming::unmap(call(&DEVICE, Flow::ToDevice), dma, 64) }, Ok(()));
}

/// The ledger of lines ends the kernel where a device would read what is not in memory.
#[ktest(
    fatal = "a hasty driver: the cache line at 0x60000000 is given away while the data cache may hold it dirty"
)]
fn a_buffer_that_was_not_cleaned_is_given_away_s105() {
    let first = PhysAddr::new(0x6000_0000);
    arch::lines::edge("a hasty driver", Edge::Giving(Flow::ToDevice, Step::Whole), first, 64);
    arch::lines::edge("a hasty driver", Edge::Given(Flow::ToDevice, Step::Whole), first, 64);
}

/// And where the processor would go on with what it had read in before.
#[ktest(fatal = "given from the device, taken back to the device")]
fn a_buffer_that_was_written_is_taken_back_as_if_read_s105() {
    let page = Pages::new(0).expect("memory");
    let from = call(&DEVICE, Flow::FromDevice);
    // SAFETY: the test's page, which it leaves alone.
    let dma = unsafe { streaming::map(from, Memory::Linear(page.address()), 64) };
    let dma = dma.expect("a mapping");
    // SAFETY: the kernel ends before anything is done.
    let _ended = unsafe { streaming::unmap(call(&DEVICE, Flow::ToDevice), dma, 64) };
}

/// And where memory is used uncached that a cache may hold.
#[ktest(fatal = "used uncached while the data cache may hold it")]
fn memory_with_a_dirty_alias_is_used_uncached_s85_s105() {
    let first = PhysAddr::new(0x6000_0000);
    arch::lines::edge("a hasty allocator", Edge::Lending, first, PAGE_SIZE);
    arch::lines::edge("a hasty allocator", Edge::Lent, first, PAGE_SIZE);
}

/// Both data caches are maintained: the outer one is on.
#[ktest]
fn the_outer_cache_is_on_s105() {
    assert!(arch::outer::is_there());
}
