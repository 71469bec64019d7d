//! Buffers that are mapped together, by their owner (S105, S106). The device is played by the test: it reaches memory at the addresses
//! that it was told.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr;

use dma::bounce::usage;
use dma::debug;
use dma::device::Device;
use dma::mapping_list::{ListError, ListNotMapped, ListNotUnmapped, StreamingList};
use dma::streaming::{self, Call, MapError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::layout::linear_address;
use kerncore::misuse::Family;
use kerncore::streaming::{Bidirectional, Flow, FromDevice, Refusal, ToDevice};
use ktest::ktest;
use mm::page_alloc::Pages;

use super::played_device::{device_reads, device_writes};
use super::witness::{Books, NOBODY};

static DEVICE: Device = Device::new("a list test's device");

fn reads((dma, count): (DmaAddr, usize)) -> Vec<u8> {
    device_reads(dma, count.try_into().expect("a small buffer"))
}

/// Buffers of these sizes, each full of its number.
fn buffers(sizes: &[usize]) -> Vec<Box<[u8]>> {
    (1..).zip(sizes).map(|(byte, &size)| vec![byte; size].into_boxed_slice()).collect()
}

/// Odd sizes and whole lines, so that some are copied.
const SIZES: [usize; 4] = [64, 100, 4096, 1];

/// S105: what the driver has written the device reads, piece by piece in their order; the buffers come back as they were.
#[ktest]
fn each_buffer_of_a_list_reaches_the_device_in_its_order_s105() {
    let books = Books::now();
    let list = StreamingList::<ToDevice, _>::map(&DEVICE, buffers(&SIZES)).expect("a mapping");
    assert_eq!(list.len(), SIZES.len());
    let pieces: Vec<_> = list.pieces().collect();
    for ((byte, size), piece) in (1..).zip(SIZES).zip(pieces) {
        assert_eq!(reads(piece), vec![byte; size]);
    }
    // SAFETY: the device is done.
    let back = unsafe { list.unmap() }.expect("low memory");
    assert_eq!(back, buffers(&SIZES));
    drop(back);
    assert_eq!(usage().taken, 0);
    books.assert_unchanged();
}

/// S105: what the device has written is in the buffers that come back, and no buffer is another.
#[ktest]
fn each_buffer_of_a_list_comes_back_with_what_the_device_wrote_s105() {
    let list = StreamingList::<FromDevice, _>::map(&DEVICE, buffers(&SIZES)).expect("a mapping");
    for (byte, piece) in (0x81..).zip(list.pieces()) {
        device_writes(piece.0, &vec![byte; piece.1]);
    }
    // SAFETY: the device is done.
    let back = unsafe { list.unmap() }.expect("low memory");
    for ((byte, size), buffer) in (0x81..).zip(SIZES).zip(&back) {
        assert_eq!(**buffer, vec![byte; size]);
    }
    assert_eq!(usage().taken, 0);
}

/// S105: the processor has the bytes for a while, with what the device wrote; then the device has what the processor wrote.
#[ktest]
fn a_list_changes_its_owner_both_ways_and_back_s105() {
    let mapped = StreamingList::<Bidirectional, _>::map(&DEVICE, buffers(&SIZES));
    let mut list = mapped.expect("a mapping");
    let pieces: Vec<_> = list.pieces().collect();
    for round in [0x10_u8, 0x40] {
        for (byte, &piece) in (round..).zip(&pieces) {
            device_writes(piece.0, &vec![byte; piece.1]);
        }
        // SAFETY: the device waits until the bytes are its own again.
        let mut synced = unsafe { list.sync_for_cpu() }.expect("low memory");
        for ((byte, size), bytes) in (round..).zip(SIZES).zip(synced.iter()) {
            assert_eq!(bytes, vec![byte; size]);
        }
        synced.iter_mut().for_each(|bytes| bytes.iter_mut().for_each(|byte| *byte = !*byte));
        drop(synced);
        for ((byte, size), &piece) in (round..).zip(SIZES).zip(&pieces) {
            assert_eq!(reads(piece), vec![!byte; size]);
        }
    }
    // SAFETY: the device is done.
    drop(unsafe { list.unmap() }.expect("low memory"));
    assert_eq!(usage().taken, 0);
}

/// All or none: those before the one that cannot be mapped are the processor's again, and all come back in their order.
#[ktest]
fn a_list_with_a_buffer_that_cannot_be_mapped_comes_back_whole_s105() {
    let (books, mappings) = (Books::now(), debug::mappings());
    for index in 0..3 {
        let mut wrong = buffers(&[64, 100, 4096]);
        wrong[index] = Box::new([]);
        let expected = wrong.clone();
        let refused = StreamingList::<ToDevice, _>::map(&DEVICE, wrong).map(drop);
        let ListNotMapped { error, buffers: mut back } = refused.expect_err("nothing to map");
        let refusal = MapError::Refused(Refusal::Empty);
        assert_eq!(error, ListError::Entry { index, error: refusal });
        assert_eq!(back, expected);
        assert_eq!((usage().taken, debug::mappings()), (0, mappings));
        // They are the processor's.
        for buffer in &mut back {
            buffer.fill(7);
        }
    }
    let none = StreamingList::<ToDevice, Vec<u8>>::map(&DEVICE, vec![]).map(drop);
    assert_eq!(none.expect_err("no buffers").error, ListError::Empty);
    let refusal = MapError::Refused(Refusal::Empty);
    let text = alloc::format!("{}", ListError::Entry { index: 2, error: refusal });
    assert_eq!(text, "buffer 2 of the list: a size of zero");
    books.assert_unchanged();
}

/// Dropped, each of its buffers is kept, and that is said of each.
#[ktest]
fn a_list_that_is_dropped_keeps_its_buffers_s105() {
    let page = Pages::new(0).expect("memory");
    let memory = ptr::with_exposed_provenance_mut::<u8>(page.address().raw() as usize);
    let part = |index: usize| -> &'static mut [u8] {
        // SAFETY: two parts of the test's page, which outlives the mapping, and to which nobody else refers until that has ended.
        unsafe { core::slice::from_raw_parts_mut(memory.wrapping_add(index * 1024), 64) }
    };
    let list = StreamingList::<ToDevice, _>::map(&DEVICE, vec![part(0), part(1)]);
    let list = list.expect("a mapping");
    let pieces: Vec<_> = list.pieces().collect();
    let ((), log) = capture_log(|| drop(list));
    let told = log.text().matches("was dropped: the buffer stays the device's").count();
    assert_eq!(told, 2, "{log:?}");
    // So that the test leaves nothing behind.
    for (dma, _) in pieces {
        let (name, family) = ("a test", Family::Scatter);
        let call = Call { name, device: &DEVICE, flow: Flow::ToDevice, caller: NOBODY, family };
        // SAFETY: mapped above, in this direction; the device is done.
        assert_eq!(unsafe { streaming::unmap(call, dma, 64) }, Ok(()));
    }
}

/// Whole pages, as drivers of disks have them.
#[ktest]
fn pages_of_a_list_lie_where_they_lie_s105() {
    let pages: Vec<Pages> = (0..5).map(|_| Pages::new(0).expect("memory")).collect();
    let places: Vec<_> = pages.iter().map(Pages::address).collect();
    let list = StreamingList::<FromDevice, _>::map(&DEVICE, pages).expect("a mapping");
    for ((dma, bytes), place) in list.pieces().zip(&places) {
        let direct = linear_address(PhysAddr::new(dma.raw())) == Some(*place);
        assert_eq!((direct, bytes), (!dma::bounce::is_forced(), PAGE_SIZE as usize));
    }
    // SAFETY: the device is done.
    let back = unsafe { list.unmap() }.expect("low memory");
    assert_eq!(back.iter().map(Pages::address).collect::<Vec<_>>(), places);
}

/// The first that does not come back is named; the others come, in their order.
#[ktest]
fn a_list_of_which_some_were_ended_before_gives_the_others_back_s105() {
    let page = Pages::new(0).expect("memory");
    let memory = ptr::with_exposed_provenance_mut::<u8>(page.address().raw() as usize);
    // Of odd bytes, so that each is copied.
    let part = |index: usize| -> &'static mut [u8] {
        let start = memory.wrapping_add(index * 1024 + 1);
        // SAFETY: parts of the test's page, which outlives the mapping, and to which nobody else refers until that has ended.
        unsafe { core::slice::from_raw_parts_mut(start, 100) }
    };
    let list = StreamingList::<FromDevice, _>::map(&DEVICE, (0..4).map(part).collect());
    let list = list.expect("a mapping");
    for (dma, _) in list.pieces().skip(1).step_by(2) {
        let (name, family) = ("a hasty test", Family::Scatter);
        let call = Call { name, device: &DEVICE, flow: Flow::FromDevice, caller: NOBODY, family };
        // SAFETY: mapped above; there is no device.
        assert_eq!(unsafe { streaming::unmap(call, dma, 100) }, Ok(()));
    }
    // SAFETY: as above.
    let (result, _log) = capture_log(|| unsafe { list.unmap() });
    let ListNotUnmapped { index, buffers: back, .. } = result.expect_err("two are gone");
    assert_eq!(index, 1);
    let places: Vec<_> = back.iter().map(|buffer| buffer.as_ptr()).collect();
    assert_eq!(places, [0, 2].map(|index| memory.wrapping_add(index * 1024 + 1).cast_const()));
    assert_eq!(usage().taken, 0);
}
