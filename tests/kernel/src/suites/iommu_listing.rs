//! Listings of buffers behind an IOMMU that has many mappings besides (S64, S109).

extern crate alloc;

use alloc::vec::Vec;

use dma::attributes;
use dma::coherent::Buffer;
use dma::device::Device;
use dma::listing;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::frames::FrameOwner;
use kerncore::iommu::Grant;
use ktest::ktest;
use mm::domain::DeviceDomain;
use mm::kernel;

use super::iommu::{Attached, BASE, BYTES};
use super::iommu_witness::shown;
use super::witness::NOBODY;

static DEVICE: Device = Device::new("a device with many mappings");

const BUFFERS: u32 = 80;
const MAPPINGS: u32 = 3000;
const HOW: DmaAttributes = DmaAttributes::FORCE_CONTIGUOUS;

/// Each is listed where its device sees it as a buffer, however many buffers and mappings there are, and wherever else somebody sees its
/// frames: the device itself, lower, and that of a domain which was made before.
#[ktest]
fn each_of_many_buffers_is_listed_by_its_own_view_s64_s109() {
    let before = DeviceDomain::new(BASE, BYTES).expect("memory");
    let attached = Attached::new(&DEVICE, BYTES);
    let domain = attached.1.domain();
    let frame = kernel().zones().allocate(0, FrameOwner::Test).expect("memory");
    let run = || [(frame.first(), 1)].into_iter();
    let mut iovas: Vec<_> = (0..MAPPINGS).map(|_| shown(domain, run(), Grant::Read)).collect();
    // Of one page and of three in turn.
    let bytes = |index: u32| (1 + index % 2 * 2) * PAGE_SIZE;
    let take = |index| {
        let made = attributes::allocate(&DEVICE, bytes(index), Sleep::May, HOW, NOBODY);
        made.expect("memory")
    };
    let buffers: Vec<Buffer> = (0..BUFFERS).map(take).collect();
    let own = |buffer: &Buffer| domain.translate(buffer.dma).expect("the device sees it").physical;
    let mut others = Vec::new();
    for (buffer, lower) in buffers.iter().zip(&mut iovas) {
        let first = || [(own(buffer).pfn(), 1)].into_iter();
        let other = shown(domain, first(), Grant::Read);
        domain.unmap(core::mem::replace(lower, other), ()).flush();
        others.push(shown(&before, first(), Grant::Read));
    }
    let mut found: Vec<Option<(DmaAddr, PhysAddr)>> = buffers.iter().map(|_| None).collect();
    listing::for_each_line(|line| {
        if let Some(index) = buffers.iter().position(|buffer| buffer.address == line.address) {
            assert_eq!(found[index].replace((line.dma, line.physical)), None, "one line each");
        }
    });
    for (buffer, found) in buffers.iter().zip(found) {
        assert_eq!(found, Some((buffer.dma, own(buffer))));
    }
    for (index, buffer) in (0..).zip(buffers) {
        // SAFETY: made above, and nobody uses it.
        let freed = unsafe { attributes::free(&DEVICE, bytes(index), buffer, HOW) };
        assert_eq!(freed, Ok(()));
    }
    for iova in iovas {
        domain.unmap(iova, ()).flush();
    }
    for iova in others {
        before.unmap(iova, ()).flush();
    }
    kernel().zones().free(frame).expect("the test's own");
}
