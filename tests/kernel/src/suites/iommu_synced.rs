//! What is synchronised for a device behind an IOMMU is part of one mapping: what lies at the next address is somebody else's (S67, S105, S109).

extern crate alloc;

use dma::device::Device;
use dma::streaming::{self, Call, Memory, UnmapError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use ktest::ktest;
use linux::streaming::{dma_sync_single_for_cpu, dma_sync_single_for_device};
use mm::page_alloc::Pages;

use super::iommu::{Attached, BYTES};
use super::witness::NOBODY;

static SNOOPING: Device = Device::coherent("a snooping device with neighbours");
static OTHER: Device = Device::new("a device with neighbours");

const BOTH: u32 = Flow::Bidirectional as u32;

/// Two mappings of two pages each, which the device sees one behind the other.
#[ktest]
fn a_synchronisation_across_the_end_of_a_mapping_is_refused_s67_s109() {
    for device in [&SNOOPING, &OTHER] {
        let _attached = Attached::new(device, BYTES);
        let (name, family) = ("a test", Family::Page);
        let call = Call { name, device, flow: Flow::Bidirectional, caller: NOBODY, family };
        let block = Pages::new(2).expect("memory");
        let map = |page: u32, pages: u32| {
            let first = block.first().checked_add(page).expect("RAM").base();
            // SAFETY: the test's pages, which it leaves alone.
            let mapped =
                unsafe { streaming::map(call, Memory::Physical(first), pages * PAGE_SIZE) };
            mapped.expect("room")
        };
        let (low, high) = (map(0, 2), map(2, 2));
        assert_eq!(high.raw(), low.raw() + 2 * PAGE_SIZE, "this test has no teeth");
        let at = |offset: u32| DmaAddr::new(low.raw() + offset);
        for (offset, bytes) in [
            (0, 4 * PAGE_SIZE),
            (0, 2 * PAGE_SIZE + 1),
            (2 * PAGE_SIZE - 1, 2),
            (PAGE_SIZE + 32, PAGE_SIZE),
            (3 * PAGE_SIZE, PAGE_SIZE + 1),
            (4 * PAGE_SIZE - 4, 8),
        ] {
            let end = if offset < 2 * PAGE_SIZE { 2 * PAGE_SIZE } else { 4 * PAGE_SIZE };
            let (dma, left) = (at(offset), end - offset);
            let refused = Err(UnmapError::Outside { dma, bytes, left });
            let (results, _log) = capture_log(|| {
                // SAFETY: refused.
                let taken = unsafe { streaming::sync_for_cpu(call, dma, bytes) };
                // SAFETY: as above.
                let given = unsafe { streaming::sync_for_device(call, dma, bytes) };
                [taken, given]
            });
            assert_eq!(results, [refused; 2], "{bytes} bytes from {offset} on");
            let ((), log) = capture_log(|| {
                // SAFETY: as above.
                unsafe { dma_sync_single_for_cpu(device, dma, bytes, BOTH) };
                // SAFETY: as above.
                unsafe { dma_sync_single_for_device(device, dma, bytes, BOTH) };
            });
            let line = alloc::format!("{bytes} bytes from {dma}: the mapping has {left}");
            assert_eq!(log.text().matches(line.as_str()).count(), 2, "{log:?}");
        }
        for (offset, bytes) in [
            (0, 2 * PAGE_SIZE),
            (2 * PAGE_SIZE, 2 * PAGE_SIZE),
            (PAGE_SIZE - 64, 128),
            (3 * PAGE_SIZE + 64, PAGE_SIZE - 64),
        ] {
            // SAFETY: there is no device, and the test leaves its pages alone.
            let taken = unsafe { streaming::sync_for_cpu(call, at(offset), bytes) };
            // SAFETY: as above.
            let given = unsafe { streaming::sync_for_device(call, at(offset), bytes) };
            assert_eq!((taken, given), (Ok(()), Ok(())), "{bytes} bytes from {offset} on");
        }
        for dma in [low, high] {
            let ((), _log) = capture_log(|| {
                // SAFETY: as above.
                let ended = unsafe { streaming::unmap(call, dma, 2 * PAGE_SIZE) };
                assert_eq!(ended, Ok(()));
            });
        }
    }
}
