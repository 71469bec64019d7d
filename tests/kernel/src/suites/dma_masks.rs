//! Devices that do not reach all memory: what they are given lies where they reach, or they are told why not (S100).

extern crate alloc;

use alloc::string::ToString;
use alloc::vec::Vec;

use dma::atomic_pool;
use dma::coherent::{AllocateError, CoherentBox, Found, allocate};
use dma::device::Device;
use dma::pool_growth::{grow, grown, release_idle};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_mask::{DmaMask, MaskError};
use kerncore::frames::FrameRequest;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::dma_alloc_coherent;
use linux::dma_mask::{dma_set_coherent_mask, dma_set_mask, dma_set_mask_and_coherent};
use linux::errno::EIO;
use mm::kernel;

use super::buffers::give;
use super::witness::{Books, NOBODY, ask_host};

/// Both kinds of device.
fn devices() -> [Device; 2] {
    [Device::new("a device of few lines"), Device::coherent("a snooping device of few lines")]
}

/// The mask that ends right before `dma`.
fn below(dma: DmaAddr) -> DmaMask {
    DmaMask::new(u64::from(dma.raw()) - 1)
}

/// The last address of the first frame of RAM.
fn least() -> DmaAddr {
    DmaAddr::new(kernel().zones().table().first().base().raw() + PAGE_SIZE - 1)
}

/// Whatever memory would be given next, a mask right below it gets other memory, all of it below.
#[ktest]
fn a_buffer_lies_whole_below_the_mask_s100() {
    let books = Books::now();
    for device in devices() {
        for bytes in [1, PAGE_SIZE, 3 * PAGE_SIZE, 64 << 10, 5 << 18] {
            assert_eq!(device.set_coherent_mask(DmaMask::ALL), Ok(()));
            let free = allocate(&device, bytes, Sleep::May, NOBODY).expect("memory");
            give(&device, bytes, free);
            let again = allocate(&device, bytes, Sleep::May, NOBODY).expect("memory");
            give(&device, bytes, again);
            // One byte of what would be given is out of reach, then all of it.
            let lower = free.dma.min(again.dma);
            let end = DmaAddr::new(lower.raw() + (bytes - 1));
            for mask in [below(end), below(lower)] {
                assert_eq!(device.set_coherent_mask(mask), Ok(()));
                let buffer = allocate(&device, bytes, Sleep::May, NOBODY);
                let buffer = buffer.unwrap_or_else(|error| panic!("{bytes} up to {mask}: {error}"));
                assert!(mask.reaches(buffer.dma, bytes), "{} up to {mask}", buffer.dma);
                ask_host(buffer.address);
                give(&device, bytes, buffer);
            }
        }
    }
    books.assert_unchanged();
}

/// S100: where memory cannot satisfy the mask the error says so: who, how high, how much, and what there is.
#[ktest]
fn what_no_memory_below_the_mask_can_hold_is_refused_by_name_s100() {
    let books = Books::now();
    // The first frame of RAM, and no other.
    let mask = DmaMask::new(u64::from(least().raw()));
    let free = kernel().zones().free_pages_of(mask.narrow(FrameRequest::LOW));
    assert!(free <= 1);
    for device in devices() {
        assert_eq!(device.set_coherent_mask(mask), Ok(()));
        for bytes in [PAGE_SIZE + 1, 1 << 20] {
            let refused = allocate(&device, bytes, Sleep::May, NOBODY);
            let found = Found::Frames(free);
            let error = AllocateError::OutOfReach { device: device.name(), mask, bytes, found };
            assert_eq!(refused, Err(error));
            let text = alloc::format!(
                "{} reaches up to {mask}, and no {bytes} bytes are free there: {free} frames are",
                device.name()
            );
            assert_eq!(error.to_string(), text);
            let mut dma = DmaAddr::new(0);
            let (memory, log) = capture_log(|| {
                // SAFETY: a device, and a place for an address.
                unsafe {
                    dma_alloc_coherent(
                        &raw const device,
                        bytes,
                        &raw mut dma,
                        AllocationFlags::KERNEL,
                    )
                }
            });
            assert!(
                memory.is_null() && (log.text().is_empty() || log.text().contains(&text)),
                "{log:?}"
            );
        }
    }
    books.assert_unchanged();
}

/// The pool lies where it lies: of it, a device gets what it reaches.
#[ktest]
fn of_the_atomic_pool_a_device_gets_what_it_reaches_s100() -> Completion {
    let Some(pool) = atomic_pool::usage().filter(|pool| pool.pages >= 4) else {
        return Skipped("no atomic pool of 4 pages in this boot");
    };
    assert_eq!(pool.taken, 0, "a test before this one kept something");
    let books = Books::now();
    let device = Device::new("a device of few lines");
    let take = |bytes| allocate(&device, bytes, Sleep::MayNot, NOBODY);
    let first = take(PAGE_SIZE).expect("the pool is free");
    give(&device, PAGE_SIZE, first);
    let mask = DmaMask::new(u64::from(first.dma.raw() + PAGE_SIZE - 1));
    assert_eq!(device.set_coherent_mask(mask), Ok(()));
    let one = take(PAGE_SIZE).expect("the first page is in reach");
    assert_eq!(one.dma, first.dma);
    let refused = |bytes, dma| {
        let found = Found::Pool(DmaAddr::new(dma));
        let error = AllocateError::OutOfReach { device: device.name(), mask, bytes, found };
        let taken = atomic_pool::usage().map(|pool| pool.taken);
        assert_eq!(take(bytes), Err(error));
        assert_eq!(atomic_pool::usage().map(|pool| pool.taken), taken, "it went back");
    };
    refused(PAGE_SIZE, first.dma.raw() + PAGE_SIZE);
    // By C's name, too, which has a shorter way.
    let mut dma = DmaAddr::new(0);
    let flags = AllocationFlags::ATOMIC;
    // SAFETY: a device, and a place for an address.
    let memory = unsafe { dma_alloc_coherent(&raw const device, 1, &raw mut dma, flags) };
    assert!(memory.is_null());
    give(&device, PAGE_SIZE, one);
    refused(2 * PAGE_SIZE, first.dma.raw());
    assert_eq!(device.set_coherent_mask(DmaMask::ALL), Ok(()));
    let two = take(2 * PAGE_SIZE).expect("in reach again");
    give(&device, 2 * PAGE_SIZE, two);
    books.assert_unchanged();
    Ran
}

/// Where each part of the pool lies on the bus, that of boot first.
fn parts() -> Vec<DmaAddr> {
    let mut parts = Vec::new();
    atomic_pool::for_each_part(|part| {
        let area = kernel().find_containing(part.base).expect("an area");
        parts.push(DmaAddr::new(area.physical.raw()));
    });
    parts
}

/// The part of boot is out of reach, and all of it free; one that it has grown by lies lower.
#[ktest]
fn any_part_of_the_atomic_pool_serves_who_reaches_it_s100_s104() -> Completion {
    let pool = atomic_pool::usage().filter(|pool| pool.pages >= 4 && pool.taken == 0);
    if pool.is_none() || grown() != (0, 0) {
        return Skipped("no free atomic pool of 4 pages in this boot");
    }
    let books = Books::now();
    let boot = parts()[0];
    let lower = (0..4).any(|_| grow().is_ok() && parts().into_iter().any(|part| part < boot));
    let lowest = parts().into_iter().min().expect("a part");
    let device = Device::new("a device of few lines");
    let take = |mask| {
        assert_eq!(device.set_coherent_mask(mask), Ok(()));
        allocate(&device, PAGE_SIZE, Sleep::MayNot, NOBODY)
    };
    if lower {
        let buffer = take(below(boot)).expect("a lower part");
        assert!(buffer.dma < boot && parts().contains(&buffer.dma), "{}", buffer.dma);
        give(&device, PAGE_SIZE, buffer);
    }
    // Nothing is in reach of the lowest frame but one.
    let mask = DmaMask::new(u64::from(least().raw()));
    let found = Found::Pool(lowest);
    let bytes = PAGE_SIZE;
    let error = AllocateError::OutOfReach { device: device.name(), mask, bytes, found };
    assert_eq!(take(mask), Err(error));
    let _pages = release_idle();
    assert_eq!(grown(), (0, 0));
    books.assert_unchanged();
    if lower { Ran } else { Skipped("no part lies below that of boot") }
}

#[ktest]
fn a_mask_below_all_ram_is_refused_and_both_stay_as_they_were_s100() {
    let device = Device::new("a device of few lines");
    let (least, was) = (least(), DmaMask::new(0x7000_0fff));
    assert_eq!(device.set_mask_and_coherent(was), Ok(()));
    for last in [0, 0x00ff_ffff, u64::from(least.raw()) - 1] {
        let mask = DmaMask::new(last);
        let error = Err(MaskError { mask, least });
        assert_eq!(device.set_mask(mask), error);
        assert_eq!(device.set_coherent_mask(mask), error);
        assert_eq!(device.set_mask_and_coherent(mask), error);
        for set in [dma_set_mask, dma_set_coherent_mask, dma_set_mask_and_coherent] {
            // SAFETY: a device.
            let (answer, log) = capture_log(|| unsafe { set(&raw const device, last) });
            assert_eq!(answer, -EIO);
            let line = alloc::format!("{}: a mask of {mask} reaches no memory", device.name());
            assert_eq!(log.text().matches(line.as_str()).count(), 1, "{log:?}");
        }
        assert_eq!((device.mask(), device.coherent_mask()), (was, was));
    }
}

#[ktest]
fn each_setter_sets_its_own_mask_s100() {
    let device = Device::new("a device of few lines");
    assert_eq!((device.mask(), device.coherent_mask()), (DmaMask::ALL, DmaMask::ALL));
    let masks = [0x6fff_ffff, 0x7fff_ffff, u64::MAX];
    // SAFETY: a device.
    assert_eq!(unsafe { dma_set_mask(&raw const device, masks[0]) }, 0);
    assert_eq!((device.mask(), device.coherent_mask()), (DmaMask::new(masks[0]), DmaMask::ALL));
    // SAFETY: a device.
    assert_eq!(unsafe { dma_set_coherent_mask(&raw const device, masks[1]) }, 0);
    let both = (device.mask(), device.coherent_mask());
    assert_eq!(both, (DmaMask::new(masks[0]), DmaMask::new(masks[1])));
    // SAFETY: a device.
    assert_eq!(unsafe { dma_set_mask_and_coherent(&raw const device, masks[2]) }, 0);
    assert_eq!((device.mask(), device.coherent_mask()), (DmaMask::ALL, DmaMask::ALL));
}

/// An owner of Rust's asks the same question.
#[ktest]
fn a_box_lies_below_its_device_s_mask_s100() {
    static DEVICE: Device = Device::new("a device of few lines");
    let high = CoherentBox::new(&DEVICE, PAGE_SIZE).expect("memory").dma_address();
    assert_eq!(DEVICE.set_coherent_mask(below(high)), Ok(()));
    let low = CoherentBox::new(&DEVICE, PAGE_SIZE).expect("memory below it");
    assert!(low.dma_address() < high, "{} is not below {high}", low.dma_address());
    drop(low);
    assert_eq!(DEVICE.set_coherent_mask(DmaMask::ALL), Ok(()));
}
