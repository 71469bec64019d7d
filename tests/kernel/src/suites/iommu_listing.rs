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
use mm::domain::view_of;
use mm::{clock, kernel};

use super::iommu::{Attached, BYTES};
use super::iommu_witness::shown;
use super::witness::NOBODY;

static DEVICE: Device = Device::new("a device with many mappings");

const BUFFERS: u32 = 80;
const MAPPINGS: u32 = 3000;
const HOW: DmaAttributes = DmaAttributes::FORCE_CONTIGUOUS;

/// How many ticks of the clock `act` takes.
fn ticks(act: impl FnOnce()) -> u32 {
    let start = clock::now().ticks();
    act();
    clock::now().ticks().wrapping_sub(start)
}

/// Each is listed where its device sees it, and all are found together: a listing takes no longer than a few searches for one, however many
/// buffers and mappings there are.
#[ktest]
fn many_buffers_behind_an_iommu_are_found_together_s64_s109() {
    let attached = Attached::new(&DEVICE, BYTES);
    let domain = attached.1.domain();
    let frame = kernel().zones().allocate(0, FrameOwner::Test).expect("memory");
    let run = || [(frame.first(), 1)].into_iter();
    let iovas: Vec<_> = (0..MAPPINGS).map(|_| shown(domain, run(), Grant::Read)).collect();
    // Of one page and of three in turn: there is one for each line of several gatherings.
    let bytes = |index: u32| (1 + index % 2 * 2) * PAGE_SIZE;
    let take = |index| {
        let made = attributes::allocate(&DEVICE, bytes(index), Sleep::May, HOW, NOBODY);
        made.expect("memory")
    };
    let buffers: Vec<Buffer> = (0..BUFFERS).map(take).collect();
    let mut found: Vec<Option<(DmaAddr, PhysAddr)>> = buffers.iter().map(|_| None).collect();
    listing::for_each_line(|line| {
        if let Some(index) = buffers.iter().position(|buffer| buffer.address == line.address) {
            assert_eq!(found[index].replace((line.dma, line.physical)), None, "one line each");
        }
    });
    for (buffer, found) in buffers.iter().zip(found) {
        let physical = domain.translate(buffer.dma).expect("the device sees it").physical;
        assert_eq!(found, Some((buffer.dma, physical)));
    }
    // The least of several, as somebody else may have had the host's processor meanwhile.
    let least = |act: &dyn Fn()| (0..4).map(|_| ticks(act)).min().unwrap_or_default();
    let searches = least(&|| {
        for _ in 0..24 {
            assert_eq!(view_of(PhysAddr::new(0), 1), None, "it is no RAM");
        }
    });
    let listed = least(&|| {
        listing::for_each_line(|_| ());
    });
    assert!(listed <= searches, "{listed} ticks for a listing, {searches} for 24 searches");
    for (index, buffer) in (0..).zip(buffers) {
        // SAFETY: made above, and nobody uses it.
        let freed = unsafe { attributes::free(&DEVICE, bytes(index), buffer, HOW) };
        assert_eq!(freed, Ok(()));
    }
    for iova in iovas {
        domain.unmap(iova, ()).flush();
    }
    kernel().zones().free(frame).expect("the test's own");
}
