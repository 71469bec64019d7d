//! Drivers side by side behind one IOMMU: each makes and ends what is its own, and the addresses of one are the next one's a moment later
//! (S105, S109, S116).

use arch::smp::run_on_each;
use dma::attributes;
use dma::coherent::free;
use dma::device::Device;
use dma::scatter::ScatterEntry;
use kerncore::addr::{PAGE_SIZE, Pfn};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::streaming::Flow;
use ktest::ktest;
use linux::page::pointer_to;
use linux::streaming::{dma_map_page, dma_mapping_error, dma_unmap_page};
use linux::streaming_sg::{dma_map_sg, dma_unmap_sg};
use mm::page_alloc::Pages;

use super::iommu::Attached;
use super::smp::Barrier;
use super::witness::NOBODY;

static OWNER: Device = Device::new("who makes and frees buffers beside others");
static SNOOPING: Device = Device::coherent("who makes and frees buffers beside others, and snoops");

/// Every way to a buffer that is not of scattered frames.
const KINDS: [(&Device, Sleep, DmaAttributes); 4] = [
    (&OWNER, Sleep::MayNot, DmaAttributes::NONE),
    (&OWNER, Sleep::May, DmaAttributes::FORCE_CONTIGUOUS),
    (&SNOOPING, Sleep::MayNot, DmaAttributes::NONE),
    (&SNOOPING, Sleep::May, DmaAttributes::FORCE_CONTIGUOUS),
];

const FLOW: u32 = Flow::Bidirectional as u32;

/// Maps and unmaps `pages` adjacent frames from `first` on.
fn transfer(device: &Device, first: Pfn, pages: u32) {
    let bytes = pages * PAGE_SIZE;
    // SAFETY: a device, and pages that nobody uses.
    let dma = unsafe { dma_map_page(device, pointer_to(first), 0, bytes, FLOW) };
    // SAFETY: a device.
    assert_eq!(unsafe { dma_mapping_error(device, dma) }, 0);
    // SAFETY: mapped just so, and the device does nothing.
    unsafe { dma_unmap_page(device, dma, bytes, FLOW) };
}

/// The same of two frames that are not adjacent.
fn list_of_two(device: &Device, first: Pfn) {
    let mut list = [ScatterEntry::EMPTY; 2];
    ScatterEntry::initialise(&mut list);
    for (entry, distance) in list.iter_mut().zip([0, 2]) {
        let page = pointer_to(first.checked_add(distance).expect("inside")).addr();
        entry.set_page(u32::try_from(page).expect("32 bits"), PAGE_SIZE, 0);
    }
    // SAFETY: as above, and the list is one.
    let count = unsafe { dma_map_sg(device, list.as_mut_ptr(), 2, FLOW) };
    assert_eq!(count, 1);
    // SAFETY: as above.
    unsafe { dma_unmap_sg(device, list.as_mut_ptr(), 2, FLOW) };
}

/// While one CPU makes and frees coherent buffers of a device, the others map and unmap pages of their own for it: who is given the
/// addresses of a buffer that is just gone ends his mapping as any other.
#[ktest]
fn a_transfer_where_a_buffer_was_a_moment_ago_ends_s105_s109_s116_smp() {
    for (device, sleep, attributes) in KINDS {
        for way in 0..3 {
            let at = Attached::new(device, 64 * PAGE_SIZE);
            let pages = Pages::new(4).expect("memory");
            let first = pages.first();
            let begin = Barrier::new();
            run_on_each(|cpu| {
                begin.wait();
                for _ in 0..200 {
                    let own = first.checked_add(cpu * 4).expect("inside");
                    match (cpu, way) {
                        (0, _) => {
                            let bytes = 2 * PAGE_SIZE;
                            let made =
                                attributes::allocate(device, bytes, sleep, attributes, NOBODY);
                            let buffer = made.expect("memory");
                            // SAFETY: made just so, and nobody uses it.
                            let freed = unsafe { free(device, bytes, buffer.address, buffer.dma) };
                            assert_eq!(freed, Ok(()));
                        }
                        (_, 0) => transfer(device, own, 1),
                        (_, 1) => transfer(device, own, 2),
                        _ => list_of_two(device, own),
                    }
                }
            });
            assert_eq!(at.taken(), 0, "{}: way {way}", device.name());
        }
    }
}
