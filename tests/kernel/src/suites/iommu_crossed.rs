//! The wrong end of what a device behind an IOMMU has: coherent buffers unmapped, mappings freed. Nothing of them is lost (S67, S81, S109).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use dma::attributes;
use dma::coherent::{self, Buffer};
use dma::device::Device;
use dma::scatter::ScatterEntry;
use dma::streaming::{self, Call, UnmapError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, pages_for};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::layout::linear_address;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use ktest::{assert_err, ktest};
use linux::page::pointer_to;
use linux::streaming_sg::{dma_map_sg, dma_unmap_sg};
use mm::page_alloc::Pages;

use super::iommu::{Attached, BYTES, Engine};
use super::witness::{Books, NOBODY};

static DEVICE: Device = Device::new("a device whose ends are crossed");
static SNOOPING: Device = Device::coherent("a snooping device whose ends are crossed");

const BOTH: u32 = Flow::Bidirectional as u32;

/// Each kind of buffer: of scattered frames, of adjacent ones, of the atomic pool or of the linear map.
const KINDS: [(Sleep, DmaAttributes); 3] = [
    (Sleep::May, DmaAttributes::NONE),
    (Sleep::May, DmaAttributes::FORCE_CONTIGUOUS),
    (Sleep::MayNot, DmaAttributes::NONE),
];

fn call(device: &'static Device, family: Family) -> Call<'static> {
    Call { name: "a test", device, flow: Flow::Bidirectional, caller: NOBODY, family }
}

fn free(device: &Device, bytes: u32, buffer: Buffer) -> Result<(), coherent::FreeError> {
    // SAFETY: refused, or nobody uses it.
    unsafe { coherent::free(device, bytes, buffer.address, buffer.dma) }
}

/// What the device sees at each of `pages` pages from `dma` on.
#[track_caller]
fn assert_seen(device: &'static Device, dma: DmaAddr, pages: u32) {
    for page in 0..pages {
        assert_eq!(Engine(device).write(dma.raw() + page * PAGE_SIZE, &[1; 4]), Ok(()), "{page}");
    }
}

fn each_buffer(pages: u32, mut test: impl FnMut(&'static Device, &Attached, Buffer)) {
    let books = Books::now();
    for device in [&DEVICE, &SNOOPING] {
        for (sleep, kind) in KINDS {
            let attached = Attached::new(device, BYTES);
            let bytes = pages * PAGE_SIZE;
            let buffer = attributes::allocate(device, bytes, sleep, kind, NOBODY).expect("memory");
            assert_eq!(attached.taken(), pages);
            test(device, &attached, buffer);
            assert_eq!(attached.taken(), pages, "{}: {sleep:?}, {kind:?}", device.name());
            assert_seen(device, buffer.dma, pages);
            assert_eq!(free(device, bytes, buffer), Ok(()));
            assert_eq!(attached.taken(), 0);
        }
    }
    books.assert_unchanged();
}

#[ktest]
fn an_unmap_of_a_coherent_buffer_behind_an_iommu_loses_nothing_s67_s109() {
    each_buffer(1, |device, attached, buffer| {
        for (offset, bytes) in [(0, PAGE_SIZE), (0, 4), (100, 4), (4092, 4)] {
            let dma = DmaAddr::new(buffer.dma.raw() + offset);
            // SAFETY: to be refused.
            let ended = unsafe { streaming::unmap(call(device, Family::Single), dma, bytes) };
            assert_err!(ended, UnmapError::Coherent { dma: at } if at == dma);
            assert_eq!(attached.taken(), 1);
        }
    });
}

/// As a list of one piece, and of one for each page.
#[ktest]
fn an_unmap_of_a_list_that_names_a_coherent_buffer_loses_nothing_s67_s109() {
    each_buffer(2, |device, attached, buffer| {
        let frames: Vec<u32> = (0..2)
            .map(|page| {
                let frame = attached
                    .1
                    .domain()
                    .translate(DmaAddr::new(buffer.dma.raw() + page * PAGE_SIZE));
                let record = pointer_to(frame.expect("seen").physical.pfn()).addr();
                u32::try_from(record).expect("32 bits")
            })
            .collect();
        for (pieces, bytes) in [(1, 2 * PAGE_SIZE), (2, PAGE_SIZE)] {
            let mut list = vec![ScatterEntry::EMPTY; pieces];
            ScatterEntry::initialise(&mut list);
            for (entry, &record) in list.iter_mut().zip(&frames) {
                entry.set_page(record, bytes, 0);
            }
            (list[0].dma_address, list[0].dma_length) = (buffer.dma, 2 * PAGE_SIZE);
            let count = u32::try_from(pieces).expect("few");
            // SAFETY: a device, and a list that was not mapped: to be refused.
            let unmap = || unsafe { dma_unmap_sg(device, list.as_mut_ptr(), count, BOTH) };
            let ((), log) = capture_log(unmap);
            assert!(log.text().contains(device.name()), "{log:?}");
            assert_eq!(attached.taken(), 2, "{pieces} pieces");
        }
    });
}

/// Mappings of one page and of a list, freed as coherent buffers by what the processor has for them.
#[ktest]
fn a_coherent_free_of_a_mapping_behind_an_iommu_loses_nothing_s67_s109() {
    let books = Books::now();
    for device in [&DEVICE, &SNOOPING] {
        let attached = Attached::new(device, BYTES);
        let pages = Pages::new(1).expect("memory");
        let bytes = 2 * PAGE_SIZE;
        let record = u32::try_from(pointer_to(pages.first()).addr()).expect("32 bits");
        let mut list = vec![ScatterEntry::EMPTY];
        ScatterEntry::initialise(&mut list);
        list[0].set_page(record, bytes, 0);
        // SAFETY: a device, and a list of the test's pages, which it leaves alone.
        let mapped = unsafe { dma_map_sg(device, list.as_mut_ptr(), 1, BOTH) };
        assert_eq!(mapped, 1);
        let dma = list[0].dma_address;
        let seen = attached.1.domain().translate(dma).expect("seen").physical;
        let addresses = [linear_address(pages.physical()), linear_address(seen)];
        for address in addresses.into_iter().flatten() {
            for wrong in [bytes, PAGE_SIZE, 4] {
                let (freed, _log) = capture_log(|| free(device, wrong, Buffer { address, dma }));
                assert!(freed.is_err(), "{address}: {wrong} bytes");
                assert_eq!(attached.taken(), pages_for(bytes));
                assert_seen(device, dma, pages_for(bytes));
            }
        }
        // SAFETY: mapped above; there is no device.
        unsafe { dma_unmap_sg(device, list.as_mut_ptr(), 1, BOTH) };
        assert_eq!(attached.taken(), 0);
    }
    books.assert_unchanged();
}
