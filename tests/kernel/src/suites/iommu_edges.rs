//! Devices behind an IOMMU at the edges of what they may: how far they reach, when nothing is left, and across the seams of what was
//! joined (S81, S99, S100, S105, S108).

extern crate alloc;

use alloc::vec::Vec;

use dma::attributes;
use dma::bounce;
use dma::coherent::{AllocateError, Buffer};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use dma::scatter::ScatterEntry;
use dma::streaming::{self, Call, MapError, Memory, UnmapError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::dma_mask::DmaMask;
use kerncore::iommu::{DomainMapError, IovaError};
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::page::pointer_to;
use linux::streaming_sg::{dma_map_sg, dma_unmap_sg};
use mm::domain::{DeviceDomain, DomainError};
use mm::page_alloc::Pages;

use super::iommu::{Attached, BASE, BYTES, pool_lacks};
use super::iommu_lists::Scattered;
use super::iommu_scattered::{give, take};
use super::played_device::call;
use super::witness::{Books, NOBODY, feed, starve};

const TO: u32 = Flow::ToDevice as u32;
const BOTH: u32 = Flow::Bidirectional as u32;

static DEVICE: Device = Device::new("a device at the edge");
static NEAR: Device = Device::new("a device that reaches little");
static NEAR_SNOOPING: Device = Device::coherent("a snooping device that reaches little");

fn is_beyond(error: &DomainMapError) -> bool {
    matches!(error, DomainMapError::Iova(IovaError::OutOfReach { .. }))
}

/// S100: each mask bounds what it is for, by the last byte, wherever the memory lies on the bus; what is beyond is not kept.
#[ktest]
fn each_mask_bounds_the_device_addresses_that_it_is_for_s100() -> Completion {
    const COHERENT: u32 = 4;
    const STREAMED: u32 = 8;
    if pool_lacks(COHERENT + 1) {
        return Skipped("the atomic pool is too small");
    }
    let base = DmaAddr::new(0x6000_0000);
    let last = |pages: u32| DmaMask::new(u64::from(base.raw() + pages * PAGE_SIZE) - 1);
    for device in [&NEAR, &NEAR_SNOOPING] {
        device.set_mask(last(STREAMED)).expect("RAM begins below");
        device.set_coherent_mask(last(COHERENT)).expect("RAM begins below");
        let mapping = IommuMapping::new(base, 64 * PAGE_SIZE).expect("memory");
        // SAFETY: the test's device has nothing.
        unsafe { mapping.attach(device) }.expect("attached to nothing");
        let books = || (bounce::usage(), arch::lines::runs(), mapping.domain().usage().taken);
        let contiguous = DmaAttributes::FORCE_CONTIGUOUS;
        for (sleep, how) in [
            (Sleep::May, DmaAttributes::NONE),
            (Sleep::May, contiguous),
            (Sleep::MayNot, DmaAttributes::NONE),
        ] {
            let take =
                |pages: u32| attributes::allocate(device, pages * PAGE_SIZE, sleep, how, NOBODY);
            for round in 0..2 {
                let made: Buffer = take(COHERENT).expect("as many as it reaches");
                assert_eq!(made.dma, base);
                let bytes = COHERENT * PAGE_SIZE;
                // SAFETY: nobody uses it.
                let freed = unsafe { attributes::free(device, bytes, made, how) };
                assert_eq!(freed, Ok(()));
                let before = (Books::now(), books());
                let refused = take(COHERENT + 1);
                let is_right = |error: &AllocateError| matches!(error, AllocateError::Iommu { error, .. } if is_beyond(error));
                assert!(refused.as_ref().is_err_and(is_right), "{round}: {refused:?}");
                assert!((Books::now(), books()) == before, "{sleep:?}, {how:?}: nothing is kept");
            }
        }
        let pages = Pages::exactly(STREAMED + 1).expect("memory");
        let call = call(device, Flow::ToDevice);
        let memory = Memory::Linear(pages.address());
        let before = books();
        for _ in 0..2 {
            let bytes = STREAMED * PAGE_SIZE;
            // SAFETY: the test's pages, which it leaves alone meanwhile.
            let dma = unsafe { streaming::map(call, memory, bytes) }.expect("within reach");
            assert_eq!(dma, base);
            // SAFETY: mapped above; there is no device.
            assert_eq!(unsafe { streaming::unmap(call, dma, bytes) }, Ok(()));
            // SAFETY: as above; and it is refused.
            let refused = unsafe { streaming::map(call, memory, bytes + 1) };
            let is_right =
                |error: &MapError| matches!(error, MapError::Iommu(error) if is_beyond(error));
            assert!(refused.as_ref().is_err_and(is_right), "{refused:?}");
            assert_eq!(books(), before, "nothing is kept");
        }
        for (count, is_there) in [(STREAMED, true), (STREAMED + 1, false)] {
            let mut list = Scattered::new(count as usize, 0, PAGE_SIZE);
            let (mapped, _log) = capture_log(|| list.map(device, TO));
            assert_eq!(mapped != 0, is_there, "{count} pieces");
            if is_there {
                list.unmap(device, TO);
            }
            assert_eq!(books(), before, "nothing is kept");
        }
        // SAFETY: the device has nothing.
        unsafe { detach(device) }.expect("attached");
    }
    Ran
}

/// S28, S108: who has no addresses left for a buffer is told that, and no memory was asked for.
#[ktest]
fn a_full_window_is_found_before_any_memory_is_taken_s108() {
    let attached = Attached::new(&DEVICE, 4 * PAGE_SIZE);
    let all = take(&DEVICE, 4 * PAGE_SIZE).expect("memory");
    let rest = starve(0);
    let refused = take(&DEVICE, PAGE_SIZE);
    feed(rest);
    let error = DomainMapError::Iova(IovaError::Exhausted { pages: 1, largest: 0, free: 0 });
    assert_eq!(refused, Err(AllocateError::Iommu { device: DEVICE.name(), error }));
    give(&DEVICE, 4 * PAGE_SIZE, all);
    assert_eq!(attached.taken(), 0);
}

/// Adjacent pages, the last first, so that to the device they are one piece, and on the bus each is one.
fn reversed(pages: &Pages) -> Vec<ScatterEntry> {
    let mut list: Vec<_> = pages.frames().map(|_| ScatterEntry::EMPTY).collect();
    ScatterEntry::initialise(&mut list);
    for (entry, frame) in list.iter_mut().rev().zip(pages.frames()) {
        let record = u32::try_from(pointer_to(frame).addr()).expect("32 bits");
        entry.set_page(record, PAGE_SIZE, 0);
    }
    list
}

/// S105: what is joined for the device becomes the processor's across its seams, and the device's again: so say the books of cache lines,
/// in which lines that adjoin and have one owner are one run.
#[ktest]
fn all_pages_of_a_joined_segment_change_their_owner_s105() {
    const COUNT: u32 = 4;
    let attached = Attached::new(&DEVICE, BYTES);
    let pages = Pages::exactly(COUNT).expect("memory");
    let mut list = reversed(&pages);
    let own = arch::lines::runs();
    // SAFETY: a device, and a list of the test's pages, which it leaves alone meanwhile.
    let count = unsafe { dma_map_sg(&raw const DEVICE, list.as_mut_ptr(), COUNT, BOTH) };
    let count = usize::try_from(count).expect("a count");
    assert_eq!(count, if bounce::is_forced() { COUNT as usize } else { 1 });
    let lent = arch::lines::runs();
    let (name, flow, caller, family) = ("a test", Flow::Bidirectional, NOBODY, Family::Scatter);
    let call = Call { name, device: &DEVICE, flow, caller, family };
    for part in [1, 2, 3, 4] {
        for entry in &list[..count] {
            let (dma, bytes) = (entry.dma_address, entry.dma_length.min(part * PAGE_SIZE));
            // SAFETY: mapped above; there is no device.
            assert_eq!(unsafe { streaming::sync_for_cpu(call, dma, bytes) }, Ok(()));
            if count == 1 {
                let runs = if part == COUNT { 1 } else { 2 };
                assert_eq!(arch::lines::runs(), own + runs, "{part} pages are the processor's");
            }
            // SAFETY: as above.
            assert_eq!(unsafe { streaming::sync_for_device(call, dma, bytes) }, Ok(()));
        }
        assert_eq!(arch::lines::runs(), lent, "all is the device's");
    }
    // SAFETY: mapped above; there is no device.
    unsafe { dma_unmap_sg(&raw const DEVICE, list.as_mut_ptr(), COUNT, BOTH) };
    assert_eq!((arch::lines::runs(), attached.taken()), (own, 0));
}

/// S105, S109: a synchronisation that goes beyond what is mapped is refused at its end, and has changed nothing before that.
#[ktest]
fn a_synchronisation_that_goes_too_far_changes_no_page_s105() {
    let _attached = Attached::new(&DEVICE, BYTES);
    let pages = Pages::exactly(3).expect("memory");
    let mut list = reversed(&pages);
    let own = arch::lines::runs();
    // SAFETY: a device, and a list of the test's pages, which it leaves alone meanwhile.
    let count = unsafe { dma_map_sg(&raw const DEVICE, list.as_mut_ptr(), 3, BOTH) };
    // Pages that adjoin are one run of lines as long as one has them all.
    let lent = arch::lines::runs();
    let (dma, bytes) = (list[0].dma_address, 3 * PAGE_SIZE);
    let (name, flow, caller, family) = ("a test", Flow::Bidirectional, NOBODY, Family::Scatter);
    let call = Call { name, device: &DEVICE, flow, caller, family };
    let too_far = |sync: unsafe fn(Call<'_>, DmaAddr, u32) -> Result<(), UnmapError>| {
        for more in [1, PAGE_SIZE, PAGE_SIZE + 1] {
            // SAFETY: mapped above, there is no device, and it is refused.
            let (refused, _log) = capture_log(|| unsafe { sync(call, dma, bytes + more) });
            assert!(refused.is_err(), "{more} bytes too many");
        }
    };
    too_far(streaming::sync_for_cpu);
    assert_eq!(arch::lines::runs(), lent, "all is the device's");
    if count == 1 {
        // SAFETY: mapped above; there is no device.
        assert_eq!(unsafe { streaming::sync_for_cpu(call, dma, bytes) }, Ok(()));
        let taken = arch::lines::runs();
        too_far(streaming::sync_for_device);
        assert_eq!(arch::lines::runs(), taken, "all is the processor's");
        // SAFETY: as above.
        assert_eq!(unsafe { streaming::sync_for_device(call, dma, bytes) }, Ok(()));
    }
    // SAFETY: mapped above; there is no device.
    unsafe { dma_unmap_sg(&raw const DEVICE, list.as_mut_ptr(), 3, BOTH) };
    assert_eq!(arch::lines::runs(), own);
}

/// S108: there is a limit to how many domains live; who meets it has taken nothing, and one that goes makes room.
#[ktest]
fn the_last_domain_of_all_is_refused_and_nothing_is_kept_s108() {
    let make = || DeviceDomain::new(BASE, PAGE_SIZE);
    let mut domains = Vec::with_capacity(64);
    let most = loop {
        assert!(domains.len() < 64, "there is a limit");
        let before = Books::now();
        match make() {
            Ok(domain) => domains.push(domain),
            Err(DomainError::TooMany { most }) => {
                before.assert_unchanged();
                break most;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((domains.len(), mm::domain::usage().0 as usize), (most, most));
    drop(domains.swap_remove(3));
    domains.push(make().expect("there is room for one"));
    assert!(matches!(make(), Err(DomainError::TooMany { .. })));
    drop(domains);
    assert_eq!(mm::domain::usage(), (0, 0));
}
