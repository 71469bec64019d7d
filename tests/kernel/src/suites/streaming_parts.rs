//! Parts of mappings, and what of a copy goes which way (S105, S106): the device, which is the test, has a copy of each buffer here.

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::DerefMut;

use dma::bounce::{InitError, is_forced, usage};
use dma::device::Device;
use dma::mapping::Synced;
use dma::streaming::{self, Call, Memory, UnmapError};
use image::capture::capture_log;
use image::start::started;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::bounce::SLOT;
use kerncore::config::Copies;
use kerncore::dma_mask::DmaMask;
use kerncore::lines::Level;
use kerncore::streaming::{Bidirectional, Flow, FromDevice, ToDevice, Upkeep};
use ktest::ktest;
use mm::kernel;
use mm::page_alloc::Pages;

use super::played_device::{call, device_reads, device_writes};

static DEVICE: Device = Device::new("a device with copies");

/// Bytes that are unlike at each place.
fn pattern(from: u32, count: u32) -> Vec<u8> {
    (from..from + count).map(|at| (at.wrapping_mul(167) >> 3).to_le_bytes()[0]).collect()
}

/// Over two pages and some of a third, all out of the device's reach.
const START: u32 = 4001;
const BYTES: u32 = 2 * PAGE_SIZE;
/// A part over the boundary of two pages.
const PART: (u32, u32) = (90, 5000);

/// A buffer of [`BYTES`] in `pages` and where it is mapped both ways, by its address and by its place on the bus; for each `test`.
fn with_each(flow: Flow, test: impl Fn(Call<'_>, &mut [u8], DmaAddr)) {
    let mut pages = Pages::new(2).expect("memory");
    let device = Device::new("a device of few lines");
    let mask = DmaMask::new(u64::from(pages.physical().raw()) - 1);
    assert_eq!(device.set_mask(mask), Ok(()));
    let call = call(&device, flow);
    let address = VirtAddr::new(pages.address().raw() + START);
    let physical = PhysAddr::new(pages.physical().raw() + START);
    for memory in [Memory::Linear(address), Memory::Anywhere(address), Memory::Physical(physical)] {
        pages.fill(0x33);
        let range = START as usize..(START + BYTES) as usize;
        pages[range.clone()].copy_from_slice(&pattern(0, BYTES));
        // SAFETY: the test's pages, which uses them only while they are its own.
        let dma = unsafe { streaming::map(call, memory, BYTES) }.expect("a mapping");
        assert!(dma.raw() != physical.raw(), "{memory:?}: in place");
        assert_eq!(device_reads(dma, BYTES), pattern(0, BYTES), "{memory:?}");
        test(call, &mut pages[range.clone()], dma);
        // SAFETY: mapped above; the device is done.
        assert_eq!(unsafe { streaming::unmap(call, dma, BYTES) }, Ok(()));
        assert_eq!((usage().taken, pages[START as usize - 1], pages[range.end]), (0, 0x33, 0x33));
    }
}

/// What the device has written in a part comes to that part, and to no other place, whatever page it lies in; then all of it.
#[ktest]
fn a_part_of_a_copy_comes_back_to_its_own_place_s105_s106() {
    let (offset, bytes) = PART;
    let part = offset as usize..(offset + bytes) as usize;
    with_each(Flow::FromDevice, |call, buffer, dma| {
        let before = buffer.to_vec();
        device_writes(dma, &pattern(777, BYTES));
        let of_part = DmaAddr::new(dma.raw() + offset);
        // SAFETY: mapped by the caller; the device is done for now.
        assert_eq!(unsafe { streaming::sync_for_cpu(call, of_part, bytes) }, Ok(()));
        assert_eq!(buffer[part.clone()], pattern(777, BYTES)[part.clone()]);
        assert_eq!(buffer[..part.start], before[..part.start]);
        assert_eq!(buffer[part.end..], before[part.end..]);
        let (left, bytes) = (BYTES - offset, BYTES - offset + 1);
        let outside = Err(UnmapError::Outside { dma: of_part, bytes, left });
        // SAFETY: refused.
        assert_eq!(unsafe { streaming::sync_for_cpu(call, of_part, bytes) }, outside);
        // SAFETY: refused.
        assert_eq!(unsafe { streaming::sync_for_device(call, of_part, bytes) }, outside);
    });
}

/// The same out to the device.
#[ktest]
fn a_part_of_a_buffer_goes_to_its_own_place_of_the_copy_s105_s106() {
    let (offset, bytes) = PART;
    let part = offset as usize..(offset + bytes) as usize;
    with_each(Flow::ToDevice, |call, buffer, dma| {
        let before = buffer.to_vec();
        buffer.copy_from_slice(&pattern(999, BYTES));
        let of_part = DmaAddr::new(dma.raw() + offset);
        // SAFETY: mapped by the caller; the processor is done.
        assert_eq!(unsafe { streaming::sync_for_device(call, of_part, bytes) }, Ok(()));
        let there = device_reads(dma, BYTES);
        assert_eq!(there[part.clone()], pattern(999, BYTES)[part.clone()]);
        assert_eq!(there[..part.start], before[..part.start]);
        assert_eq!(there[part.end..], before[part.end..]);
    });
}

/// What a device only reads it cannot have changed, and what it only writes is not written over.
#[ktest]
fn bytes_go_no_way_that_the_direction_does_not_say_s105_s106() {
    // Of the heap, so that there is a copy.
    let mut heap = vec![0x5a_u8; 300];
    let address = u32::try_from(heap.as_ptr().addr()).expect("32 bits");
    let memory = Memory::Anywhere(VirtAddr::new(address));
    for flow in [Flow::ToDevice, Flow::FromDevice] {
        heap.fill(0x5a);
        let call = call(&DEVICE, flow);
        // SAFETY: the test's bytes, and it plays the device.
        let dma = unsafe { streaming::map(call, memory, 300) }.expect("a mapping");
        assert_eq!(device_reads(dma, 300), vec![0x5a; 300], "what is left alone is as it was");
        device_writes(dma, &[0xa5; 300]);
        if flow == Flow::ToDevice {
            // SAFETY: mapped above.
            assert_eq!(unsafe { streaming::sync_for_cpu(call, dma, 300) }, Ok(()));
            assert!(heap.iter().all(|&byte| byte == 0x5a));
        } else {
            // SAFETY: mapped above.
            assert_eq!(unsafe { streaming::sync_for_device(call, dma, 300) }, Ok(()));
            assert_eq!(device_reads(dma, 300), vec![0xa5; 300]);
        }
        // SAFETY: mapped above.
        assert_eq!(unsafe { streaming::unmap(call, dma, 300) }, Ok(()));
        let wanted = if flow == Flow::ToDevice { 0x5a } else { 0xa5 };
        assert!(heap.iter().all(|&byte| byte == wanted), "{flow}");
    }
}

/// Whether the bytes of a `T` can be written: known to whoever compiles this, since an inherent constant comes before a trait's.
struct Written<T>(PhantomData<T>);

trait Not {
    const WRITTEN: bool = false;
}

impl<T> Not for Written<T> {}

impl<T: DerefMut> Written<T> {
    const WRITTEN: bool = true;
}

/// What is written in a buffer that a device only writes reaches nobody, so Rust code cannot write it.
#[ktest]
fn between_two_synchronisations_only_what_a_device_reads_can_be_written_s105() {
    type Bytes<D> = Written<Synced<'static, D, Pages>>;
    let written =
        [Bytes::<ToDevice>::WRITTEN, Bytes::<Bidirectional>::WRITTEN, Bytes::<FromDevice>::WRITTEN];
    assert_eq!(written, [true, true, false]);
}

/// C code can, against its promise: the copy stays as the device left it, between the two and afterwards, and so the buffer becomes.
#[ktest]
fn what_a_driver_writes_where_only_its_device_does_is_not_in_the_copy_s105_s106() {
    with_each(Flow::FromDevice, |call, buffer, dma| {
        device_writes(dma, &pattern(111, BYTES));
        // SAFETY: mapped by the caller; the device is done for now.
        assert_eq!(unsafe { streaming::sync_for_cpu(call, dma, BYTES) }, Ok(()));
        assert_eq!(buffer, pattern(111, BYTES));
        buffer.fill(0x99);
        // It went on meanwhile, as a device does whose driver only looks whether it is done.
        device_writes(dma, &pattern(222, 1000));
        // SAFETY: mapped by the caller.
        assert_eq!(unsafe { streaming::sync_for_device(call, dma, BYTES) }, Ok(()));
        let mut wanted = pattern(222, 1000);
        wanted.extend_from_slice(&pattern(111, BYTES)[1000..]);
        assert_eq!(device_reads(dma, BYTES), wanted);
        // SAFETY: as above.
        assert_eq!(unsafe { streaming::sync_for_cpu(call, dma, BYTES) }, Ok(()));
        assert_eq!(buffer, wanted);
    });
}

/// Made once, where the devices of fewest lines reach; and who finds no room is told of in the log, too.
#[ktest]
fn there_is_one_set_of_copies_within_everybody_s_reach_s100_s106() {
    let before = usage();
    let (again, log) = capture_log(|| dma::bounce::init(1 << 16, Copies::Always));
    assert_eq!(again, Err(InitError::Again));
    assert!(log.text().contains("there are bounce buffers already"), "{log:?}");
    let device = Device::new("a device of 24 lines");
    let first = kernel().zones().table().first().base().raw();
    assert_eq!(device.set_mask(DmaMask::new(u64::from(first) + (16 << 20) - 1)), Ok(()));
    let call = call(&device, Flow::FromDevice);
    let heap = vec![0_u8; (before.slots * SLOT) as usize + 1];
    let address = u32::try_from(heap.as_ptr().addr()).expect("32 bits");
    let map = |bytes| {
        let memory = Memory::Anywhere(VirtAddr::new(address));
        // SAFETY: the test's bytes, which it leaves alone.
        unsafe { streaming::map(call, memory, bytes) }
    };
    let dma = map(64).expect("copies within reach");
    // SAFETY: mapped above.
    assert_eq!(unsafe { streaming::unmap(call, dma, 64) }, Ok(()));
    // Repetitions are printed ever more seldom; one of many is.
    let said = (0..20_000).find_map(|_| {
        let (refused, log) = capture_log(|| map(before.slots * SLOT + 1));
        assert!(refused.is_err(), "there was room: this test has no teeth");
        (!log.text().is_empty()).then_some(log)
    });
    let said = said.expect("a message");
    assert!(said.text().contains("a device of 24 lines wants"), "{said:?}");
    assert_eq!(usage(), before);
}

#[ktest]
fn copies_are_forced_if_the_command_line_says_so_s106() {
    let config = &started().expect("the image has started").config;
    assert_eq!(is_forced(), config.copies == Copies::Always);
}

/// Maps a page both ways, in place or by a copy, and synchronises it; then what the ledger of lines thinks.
fn synchronised(test: impl Fn(Call<'_>, DmaAddr)) {
    let page = Pages::new(0).expect("memory");
    for offset in [0, 7] {
        let call = call(&DEVICE, Flow::Bidirectional);
        let memory = Memory::Linear(VirtAddr::new(page.address().raw() + offset));
        // SAFETY: the test's page, which it leaves alone.
        let dma = unsafe { streaming::map(call, memory, 1024) }.expect("a mapping");
        // SAFETY: mapped above; there is no device.
        assert_eq!(unsafe { streaming::sync_for_cpu(call, dma, 1024) }, Ok(()));
        test(call, dma);
        // SAFETY: as above.
        assert_eq!(unsafe { streaming::unmap(call, dma, 1024) }, Ok(()));
    }
}

fn clean(dma: DmaAddr) {
    arch::lines::maintained(Level::Inner, Upkeep::Clean, PhysAddr::new(dma.raw()), 1024);
}

/// No line of it is the device's: whoever cleans one, as the processor may on its own, is not told that it lies over a device's bytes.
#[ktest]
fn what_was_synchronised_is_the_processor_s_for_the_ledger_of_lines_s105() {
    synchronised(|_, dma| clean(dma));
}

/// And the device's again afterwards.
#[ktest(fatal = "is cleaned while a device may write it")]
fn what_was_synchronised_for_the_device_is_its_own_for_the_ledger_of_lines_s105() {
    synchronised(|call, dma| {
        // SAFETY: mapped by the caller; there is no device.
        assert_eq!(unsafe { streaming::sync_for_device(call, dma, 1024) }, Ok(()));
        clean(dma);
    });
}
