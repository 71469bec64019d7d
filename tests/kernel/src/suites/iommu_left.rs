//! What a device leaves that is detached from its IOMMU is counted, by kind (S108).

extern crate alloc;

use alloc::format;
use alloc::string::String;

use dma::attributes;
use dma::coherent::{Buffer, allocate};
use dma::debug;
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use dma::streaming::{self, Call, Memory};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::iommu::Grant;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use ktest::ktest;
use mm::domain::DeviceDomain;
use mm::page_alloc::Pages;

use super::buffers::give;
use super::iommu::{BASE, BYTES};
use super::iommu_witness::shown;
use super::witness::NOBODY;

static LEAVER: Device = Device::new("a device that leaves things");
static OTHER: Device = Device::new("a device that has nothing");

const HOW: DmaAttributes = DmaAttributes::FORCE_CONTIGUOUS;

fn attach(mapping: &IommuMapping, device: &Device) {
    // SAFETY: nobody makes or ends anything meanwhile, and what the device has it was given by this mapping.
    unsafe { mapping.attach(device) }.expect("attached to nothing");
}

/// What is told of `device`, which leaves.
fn told(device: &Device) -> String {
    // SAFETY: nobody makes or ends anything meanwhile; what stands is taken back by the same mapping.
    let (detached, log) = capture_log(|| unsafe { detach(device) });
    detached.expect("attached");
    String::from(log.text())
}

/// Buffers of each kind, and what is mapped for transfers: all that the device has, and nothing that another has.
#[ktest]
fn what_a_device_leaves_behind_its_iommu_is_counted_by_kind_s108() {
    let mapping = IommuMapping::new(BASE, BYTES).expect("memory");
    attach(&mapping, &LEAVER);
    assert_eq!(told(&LEAVER), "", "it has nothing");
    attach(&mapping, &LEAVER);
    let take = |how| -> Buffer {
        attributes::allocate(&LEAVER, 2 * PAGE_SIZE, Sleep::May, how, NOBODY).expect("memory")
    };
    let scattered = [take(DmaAttributes::NONE), take(DmaAttributes::NONE)];
    let adjacent = [take(HOW), take(HOW), take(HOW)];
    let pool = allocate(&LEAVER, PAGE_SIZE, Sleep::MayNot, NOBODY).ok();
    let pages = Pages::exactly(4).expect("memory");
    let (name, flow, caller, family) = ("a test", Flow::ToDevice, NOBODY, Family::Single);
    let call = Call { name, device: &LEAVER, flow, caller, family };
    let mapped = [0, 1, 2, 3].map(|page| {
        let memory = Memory::Linear(pages.address().checked_add(page * PAGE_SIZE).expect("inside"));
        // SAFETY: the test's pages, which it leaves alone meanwhile.
        let dma = unsafe { streaming::map(call, memory, PAGE_SIZE) }.expect("room");
        debug::asked(&LEAVER, dma);
        dma
    });
    let of_pool = usize::from(pool.is_some());
    let buffers = format!(
        "{} leaves its IOMMU, and {} buffers that only an attachment to the same mapping takes back \
         (2 of scattered frames, 3 of adjacent ones, {of_pool} of the atomic pool's)",
        LEAVER.name(),
        5 + of_pool
    );
    let transfers = ", and 4 mappings for transfers that stand";
    let all = told(&LEAVER);
    assert!(all.contains(&format!("{buffers}{transfers}")), "{all}");
    // Of two that are attached nobody knows whose what is mapped is, but the misuse checker.
    attach(&mapping, &LEAVER);
    attach(&mapping, &OTHER);
    assert_eq!(told(&OTHER), "", "it has nothing, and the other has what is there");
    attach(&mapping, &OTHER);
    let all = told(&LEAVER);
    assert!(all.contains(&buffers), "{all}");
    assert_eq!(all.contains(transfers), debug::is_on(), "{all}");
    attach(&mapping, &LEAVER);
    assert_eq!(told(&OTHER), "");
    for buffer in scattered {
        give(&LEAVER, 2 * PAGE_SIZE, buffer);
    }
    for buffer in adjacent {
        // SAFETY: made above, and nobody uses it.
        assert_eq!(unsafe { attributes::free(&LEAVER, 2 * PAGE_SIZE, buffer, HOW) }, Ok(()));
    }
    if let Some(buffer) = pool {
        give(&LEAVER, PAGE_SIZE, buffer);
    }
    let one_is_left = |dma| {
        // SAFETY: mapped above; there is no device.
        assert_eq!(unsafe { streaming::unmap(call, dma, PAGE_SIZE) }, Ok(()));
    };
    mapped[1..].iter().copied().for_each(one_is_left);
    let one = told(&LEAVER);
    assert!(one.contains("leaves its IOMMU, and 1 mappings for transfers that stand"), "{one}");
    attach(&mapping, &LEAVER);
    one_is_left(mapped[0]);
    assert_eq!(told(&LEAVER), "", "all is given back");
    assert_eq!(mapping.domain().usage().taken, 0);
}

/// A buffer is counted by its own view, wherever else its frames are seen: by a domain that was made before, for one.
#[ktest]
fn a_buffer_that_another_domain_shows_too_is_counted_by_its_own_view_s108() {
    let before = DeviceDomain::new(BASE, BYTES).expect("memory");
    let mapping = IommuMapping::new(DmaAddr::new(0x3000_0000), BYTES).expect("memory");
    attach(&mapping, &LEAVER);
    let buffer = attributes::allocate(&LEAVER, PAGE_SIZE, Sleep::May, HOW, NOBODY).expect("memory");
    let first = LEAVER.physical_address(buffer.dma).pfn();
    let other = shown(&before, [(first, 1)].into_iter(), Grant::Read);
    let all = told(&LEAVER);
    let one = "leaves its IOMMU, and 1 buffers that only an attachment to the same mapping takes back \
               (0 of scattered frames, 1 of adjacent ones, 0 of the atomic pool's)\n";
    assert!(all.contains(one), "{all}");
    attach(&mapping, &LEAVER);
    before.unmap(other, ()).flush();
    // SAFETY: made above, and nobody uses it.
    assert_eq!(unsafe { attributes::free(&LEAVER, PAGE_SIZE, buffer, HOW) }, Ok(()));
    assert_eq!(told(&LEAVER), "", "all is given back");
}
