//! Devices behind an IOMMU: what it costs that they see memory, beside what the processor's own view of as much costs (S109).
//!
//! The device of what is mapped snoops: the upkeep of caches is the same with and without an IOMMU, and would hide the rest.

use alloc::vec::Vec;
use core::ffi::{c_int, c_uint, c_void};
use core::hint::black_box;
use core::ptr;

use dma::device::Device;
use dma::scatter::ScatterEntry;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::AllocationFlags;
use kerncore::frames::Frame;
use kerncore::streaming::Flow;
use linux::dma_segments::dma_set_max_seg_size;
use linux::iommu::{arm_iommu_attach_device, arm_iommu_create_mapping};
use linux::page::alloc_pages;
use linux::streaming::{dma_map_page, dma_unmap_page};
use linux::streaming_sg::{dma_map_sg, dma_unmap_sg};

use crate::meter::Meter;
use crate::rows;

static DEVICE: Device = Device::new("bench's device behind an IOMMU");
static SNOOPING: Device = Device::coherent("bench's snooping device behind an IOMMU");

const TO: c_uint = Flow::ToDevice as c_uint;
/// Of device addresses.
const WINDOW: c_uint = 64 << 20;

fn attach(device: &'static Device) {
    let mapping = arm_iommu_create_mapping(DmaAddr::new(0x2000_0000), WINDOW);
    // SAFETY: a device that has nothing yet, and a mapping that is never let go.
    let attached = unsafe { arm_iommu_attach_device(device, mapping) };
    assert_eq!(attached, 0, "attached to nothing before");
}

/// Memory in one piece.
pub(crate) fn map_page(meter: &mut Meter, order: c_uint) {
    type Map = unsafe extern "C" fn(*const Device, *const Frame, c_uint, c_uint, c_uint) -> DmaAddr;
    type Unmap = unsafe extern "C" fn(*const Device, DmaAddr, c_uint, c_uint);
    attach(&SNOOPING);
    let (map, unmap) = (black_box(dma_map_page as Map), black_box(dma_unmap_page as Unmap));
    let (page, bytes) = (alloc_pages(AllocationFlags::KERNEL, order), PAGE_SIZE << order);
    let mut last = DmaAddr::new(0);
    meter.measure(|_| {
        // SAFETY: a device, and memory that nobody uses.
        last = unsafe { map(&raw const SNOOPING, page, 0, bytes, TO) };
        // SAFETY: just mapped; the device does nothing.
        unsafe { unmap(&raw const SNOOPING, last, bytes, TO) };
    });
    assert_eq!(last.raw(), 0x2000_0000, "what was measured was a failure");
}

/// Pages of which no two are adjacent, by a list, in one piece for the device.
pub(crate) fn map_list(meter: &mut Meter, count: u32) {
    type Map = unsafe extern "C" fn(*const Device, *mut ScatterEntry, c_uint, c_uint) -> c_int;
    type Unmap = unsafe extern "C" fn(*const Device, *mut ScatterEntry, c_uint, c_uint);
    attach(&SNOOPING);
    // SAFETY: a device.
    let set = unsafe { dma_set_max_seg_size(&raw const SNOOPING, 16 << 20) };
    assert_eq!(set, 0, "a size");
    let (map, unmap) = (black_box(dma_map_sg as Map), black_box(dma_unmap_sg as Unmap));
    let mut list: Vec<ScatterEntry> = (0..count).map(|_| ScatterEntry::EMPTY).collect();
    ScatterEntry::initialise(&mut list);
    for entry in &mut list {
        let page = alloc_pages(AllocationFlags::KERNEL, 0);
        let _beside = alloc_pages(AllocationFlags::KERNEL, 0);
        entry.set_page(u32::try_from(page.addr()).expect("32 bits"), PAGE_SIZE, 0);
    }
    let (first, mut mapped) = (list.as_mut_ptr(), 0);
    meter.measure(|_| {
        // SAFETY: a device, and a list of as many pages, which nobody uses.
        mapped = unsafe { map(&raw const SNOOPING, first, count, TO) };
        // SAFETY: just mapped; the device does nothing.
        unsafe { unmap(&raw const SNOOPING, first, count, TO) };
    });
    assert_eq!(mapped, 1, "what was measured was no joined list");
}

/// A buffer of `bytes`, by those who may sleep.
pub(crate) fn allocate(meter: &mut Meter, bytes: u32) {
    attach(&DEVICE);
    let (allocate, free) = rows::coherent_pointers();
    let (mut bus, mut last) = (DmaAddr::new(0), ptr::null_mut::<c_void>());
    meter.measure(|_| {
        // SAFETY: the device is one, and `bus` a place for an address.
        last = unsafe { allocate(&raw const DEVICE, bytes, &raw mut bus, AllocationFlags::KERNEL) };
        // SAFETY: the device is the same; nobody uses the buffer.
        unsafe { free(&raw const DEVICE, bytes, last, bus) };
    });
    assert!(!last.is_null() && bus.raw() == 0x2000_0000, "what was measured was a failure");
}
