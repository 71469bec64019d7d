//! What is refused behind an IOMMU, and what is told of it: who holds a mapping holds it still, who leaves learns what stays, and what did
//! not end stays the device's (S46, S67, S82, S105, S108).

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ptr;

use arch::failure::fail_nth;
use dma::bounce;
use dma::coherent::{self, Buffer};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use dma::mapping_list::{ListNotUnmapped, StreamingList};
use dma::streaming::MAPPING_ERROR;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::failure::Afterwards;
use kerncore::iommu::SegmentLimits;
use kerncore::streaming::{Bidirectional, Flow};
use kerncore::user::ShowError;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::streaming_sg::dma_unmap_sg;
use mm::page_alloc::Pages;

use super::buffers::show;
use super::iommu::{Attached, BASE, BYTES};
use super::iommu_lists::Scattered;
use super::iommu_scattered::{give, take};
use super::user::at;
use super::user_programs as code;
use super::user_sharing::{WINDOW, waiting};
use super::witness::{Books, plus};

static DEVICE: Device = Device::new("a device that is refused");
static SNOOPING: Device = Device::coherent("a snooping device that is refused");
/// Two of one name.
static LEAVING: [Device; 2] =
    [Device::new("a device that leaves"), Device::new("a device that leaves")];
static PAIRS: Device = Device::coherent("a device of pairs of pages");

/// S108: a buffer is a holder until it is gone. Whoever counted a refused free would end the mapping under those who have it.
#[ktest]
fn a_free_that_is_refused_lets_no_mapping_go_s46_s67_s108() {
    const SIZE: u32 = 2 * PAGE_SIZE;
    for device in [&DEVICE, &SNOOPING] {
        let attached = Attached::new(device, BYTES);
        let [buffer, twin] = [(); 2].map(|()| take(device, SIZE).expect("memory"));
        let holders = || attached.1.holders();
        assert_eq!(holders(), 4, "its maker, the device and two buffers");
        let refuse = |bytes, wrong: Buffer| {
            // SAFETY: to be refused.
            let free = || unsafe { coherent::free(device, bytes, wrong.address, wrong.dma) };
            let (freed, _log) = capture_log(free);
            assert!(freed.is_err(), "{bytes} bytes, {wrong:?}");
            assert_eq!(holders(), 4, "{bytes} bytes, {wrong:?}");
        };
        refuse(SIZE, Buffer { dma: twin.dma, ..buffer });
        refuse(SIZE, Buffer { address: plus(buffer.address, PAGE_SIZE), ..buffer });
        refuse(PAGE_SIZE, buffer);
        let space = waiting(code::exits(), 1);
        assert_eq!(show(device, &space, at(WINDOW), (buffer, SIZE), 1), Ok(()));
        for _ in 0..3 {
            refuse(SIZE, buffer);
        }
        drop(space);
        give(device, SIZE, buffer);
        assert_eq!(holders(), 3);
        give(device, SIZE, twin);
        assert_eq!(holders(), 2);
    }
}

/// Detaches `device`. Says how many buffers it was told to have left.
#[track_caller]
fn leave(device: &Device) -> Option<u32> {
    // SAFETY: buffers of scattered frames alone are left, and come back by the same mapping, which the test holds.
    let (left, log) = capture_log(|| unsafe { detach(device) });
    assert_eq!(left, Ok(()));
    let (_, told) = log.text().split_once("a device that leaves leaves its IOMMU, and ")?;
    let (count, _) = told.split_once(" buffers that only").expect("how many");
    Some(count.parse().expect("a number"))
}

/// S108: told are the buffers of this device, not of another behind the same mapping, be it called the same; and those behind this mapping,
/// not what it has left behind another.
#[ktest]
fn who_leaves_is_told_of_its_own_buffers_behind_this_mapping_s108() {
    let books = Books::now();
    let [before, own] = [(); 2].map(|()| IommuMapping::new(BASE, BYTES).expect("memory"));
    // SAFETY: the device has nothing but what came by the same mapping.
    let enter = |mapping: &IommuMapping, which: usize| unsafe { mapping.attach(&LEAVING[which]) };
    let takes = |which: usize, count: usize| -> Vec<Buffer> {
        (0..count).map(|_| take(&LEAVING[which], PAGE_SIZE).expect("memory")).collect()
    };
    assert_eq!(enter(&before, 0), Ok(()));
    let forgotten = takes(0, 1);
    assert_eq!(leave(&LEAVING[0]), Some(1));
    for which in [0, 1] {
        assert_eq!(enter(&own, which), Ok(()));
    }
    let buffers = [takes(0, 2), takes(1, 3)];
    assert_eq!(leave(&LEAVING[0]), Some(2));
    assert_eq!(leave(&LEAVING[1]), Some(3));
    // Who comes back and takes its own with it leaves nothing, whatever others have there.
    for (which, buffers) in buffers.into_iter().enumerate() {
        assert_eq!(enter(&own, which), Ok(()));
        for buffer in buffers {
            give(&LEAVING[which], PAGE_SIZE, buffer);
        }
        assert_eq!(leave(&LEAVING[which]), None);
    }
    assert_eq!(enter(&before, 0), Ok(()));
    for buffer in forgotten {
        give(&LEAVING[0], PAGE_SIZE, buffer);
    }
    assert_eq!(leave(&LEAVING[0]), None);
    assert_eq!((before.holders(), own.holders()), (1, 1));
    drop((before, own));
    books.assert_unchanged();
}

/// S82: it is told in these words, once, and why.
#[ktest]
fn a_window_that_cannot_be_filled_is_told_s82() {
    for device in [&DEVICE, &SNOOPING] {
        let _attached = Attached::new(device, BYTES);
        let buffer = take(device, 2 * PAGE_SIZE).expect("memory");
        let mut refused = 0;
        for nth in (1..).filter_map(NonZeroU32::new) {
            let space = waiting(code::exits(), 2);
            let show = || show(device, &space, at(WINDOW), (buffer, 2 * PAGE_SIZE), 0);
            let ((shown, outcome), log) = capture_log(|| fail_nth(nth, Afterwards::Plenty, show));
            let said = |words: &str| log.text().matches(words).count();
            match shown {
                Ok(()) => assert_eq!(said("Remapping memory failed"), 0, "{log:?}"),
                Err(ShowError::Map(error)) => {
                    let line = format!("Remapping memory failed: {error}");
                    assert_eq!((said("Remapping"), said(&line)), (1, 1), "{log:?}");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
            if outcome.failed.is_none() {
                break;
            }
        }
        assert_ne!(refused, 0, "no teeth");
        give(device, 2 * PAGE_SIZE, buffer);
    }
}

/// S105, S109: of two segments of two pages each the second was ended before: the first two buffers come back, the others are named by the
/// first of them, and stay whose they are.
#[ktest]
fn buffers_of_a_segment_that_is_not_ended_do_not_come_back_s105_s109() -> Completion {
    if bounce::is_forced() {
        return Skipped("copies are not joined");
    }
    PAIRS.set_segment_limits(SegmentLimits::new(2 * PAGE_SIZE, u32::MAX).expect("limits"));
    let attached = Attached::new(&PAIRS, BYTES);
    let mut own = Scattered::new(4, 0, PAGE_SIZE);
    let part = |page: &Pages| -> &'static mut [u8] {
        let start = ptr::with_exposed_provenance_mut(page.address().raw() as usize);
        // SAFETY: the test's page, which outlives the mapping, and to which nobody else refers until that has ended.
        unsafe { core::slice::from_raw_parts_mut(start, PAGE_SIZE as usize) }
    };
    let parts = own.pages.iter().map(part).collect();
    let list = StreamingList::<Bidirectional, _>::map(&PAIRS, parts).expect("a mapping");
    let segments: Vec<(DmaAddr, usize)> = list.pieces().collect();
    assert_eq!(segments.len(), 2, "{segments:?}");
    // As somebody else's list, of the last two pages.
    let rest = &mut own.list[2..];
    (rest[0].dma_address, rest[0].dma_length) = (segments[1].0, 2 * PAGE_SIZE);
    (rest[1].dma_address, rest[1].dma_length) = (MAPPING_ERROR, 0);
    let flow = Flow::Bidirectional as u32;
    // SAFETY: mapped above; there is no device.
    unsafe { dma_unmap_sg(&raw const PAIRS, rest.as_mut_ptr(), 2, flow) };
    assert_eq!(attached.taken(), 2);
    // SAFETY: as above.
    let (ended, _log) = capture_log(|| unsafe { list.unmap() });
    let ListNotUnmapped { index, buffers, .. } = ended.expect_err("half of it is gone");
    let places = |buffer: &&mut [u8]| buffer.as_ptr().addr();
    let back: Vec<usize> = buffers.iter().map(places).collect();
    let wanted: Vec<usize> =
        own.pages[..2].iter().map(|page| page.address().raw() as usize).collect();
    assert_eq!((index, back), (2, wanted));
    assert_eq!(attached.taken(), 0);
    Ran
}
