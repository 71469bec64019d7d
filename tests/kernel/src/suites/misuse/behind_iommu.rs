//! The same of devices behind IOMMUs: addresses are one mapping's, and memory is everybody's (S107, S109).

use core::ptr;

use dma::bounce;
use dma::debug::{found, is_on, mappings};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use dma::scatter::ScatterEntry;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::page::pointer_to;
use linux::streaming::{dma_map_single, dma_mapping_error};
use linux::streaming_sg::{dma_map_sg, dma_unmap_sg};
use mm::page_alloc::Pages;

use super::{BYTES, CARD, DISK, FROM, Scene, TO, assert_names, end, provoke};
use crate::suites::iommu::{Attached, BASE};

const WINDOW: u32 = 1 << 20;

/// Maps bytes from `offset` in a page on, for a device that asks whether that has failed.
#[track_caller]
fn map(device: &'static Device, page: &Pages, offset: u32, dir: u32) -> DmaAddr {
    let start = ptr::with_exposed_provenance_mut((page.address().raw() + offset) as usize);
    // SAFETY: a device, and the test's page, which it leaves alone.
    let dma = unsafe { dma_map_single(device, start, BYTES, dir) };
    // SAFETY: a device.
    assert_eq!(unsafe { dma_mapping_error(device, dma) }, 0);
    dma
}

/// Each domain gives its first addresses first. Two devices that are told the same one have no line in common, and each ends its own.
#[ktest]
fn one_address_behind_two_iommus_is_two_mappings_s107_s109() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    let _mappings = [Attached::new(&DISK, WINDOW), Attached::new(&CARD, WINDOW)];
    let pages = [(); 2].map(|()| Pages::new(0).expect("memory"));
    let before = found();
    let mapped = [map(&DISK, &pages[0], 0, FROM), map(&CARD, &pages[1], 0, FROM)];
    assert_eq!(mapped, [BASE; 2], "this test has no teeth");
    assert_eq!(mappings(), 2);
    end(&CARD, BASE, BYTES, FROM);
    end(&DISK, BASE, BYTES, FROM);
    assert_eq!((mappings(), found()), (0, before), "nothing is wrong with that");
    Ran
}

/// What another device has at the same address of another domain is not named.
#[ktest]
fn an_address_of_another_domain_is_nobody_s_s107_s109() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    let _mappings = [Attached::new(&DISK, WINDOW), Attached::new(&CARD, WINDOW)];
    let page = Pages::new(0).expect("memory");
    let dma = map(&DISK, &page, 0, TO);
    assert_eq!(dma, BASE);
    let before = found();
    // The end itself is refused as well.
    let ((), log) = capture_log(|| end(&CARD, dma, BYTES, TO));
    assert_eq!((mappings(), found()), (1, before + 1), "{log:?}");
    let line = log.text().lines().find(|line| line.contains("DMA misuse: ")).expect("told");
    assert_names(line, &["a careless card: 256 bytes at 0x20000000", "which was never mapped"]);
    end(&DISK, dma, BYTES, TO);
    assert_eq!((mappings(), found()), (0, before + 1));
    Ran
}

/// A line that two devices have is told, wherever they see it; what only seems to adjoin is not.
#[ktest]
fn memory_is_compared_where_it_lies_and_not_where_devices_see_it_s107_s109() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    if bounce::is_forced() {
        return Skipped("copies have lines of their own");
    }
    let _card = Attached::new(&CARD, WINDOW);
    // Behind an IOMMU the second sees it elsewhere than the first, on the bus.
    let line = provoke(|scene: &Scene| {
        let shared = map(&CARD, &scene.page, BYTES - 16, TO);
        assert_ne!(shared.raw(), scene.dma.raw() + BYTES - 16);
        end(&CARD, shared, BYTES, TO);
    });
    assert_names(
        &line,
        &["a careless card", "in a cache line of another: a careless disk: 256 bytes"],
    );
    // A segment of two pages that do not adjoin in memory, and the page that lies behind the first of them.
    let _disk = Attached::new(&DISK, WINDOW);
    let (pair, other) = (Pages::exactly(2).expect("memory"), Pages::new(0).expect("memory"));
    let mut list = [ScatterEntry::EMPTY; 2];
    ScatterEntry::initialise(&mut list);
    for (entry, page) in list.iter_mut().zip([&pair, &other]) {
        let record = u32::try_from(pointer_to(page.first()).addr()).expect("32 bits");
        entry.set_page(record, PAGE_SIZE, 0);
    }
    let before = found();
    // SAFETY: a device, and a list of the test's pages, which it leaves alone.
    assert_eq!(unsafe { dma_map_sg(&raw const DISK, list.as_mut_ptr(), 2, FROM) }, 1);
    let dma = map(&CARD, &pair, PAGE_SIZE, FROM);
    end(&CARD, dma, BYTES, FROM);
    // SAFETY: mapped above; there is no device.
    let ((), log) =
        capture_log(|| unsafe { dma_unmap_sg(&raw const DISK, list.as_mut_ptr(), 2, FROM) });
    assert_eq!((mappings(), found()), (0, before), "{log:?}");
    Ran
}

/// Maps `bytes` from `offset` in `block` on, which the device is to write.
fn map_some(device: &'static Device, block: &Pages, (offset, bytes): (u32, u32)) -> DmaAddr {
    let start = ptr::with_exposed_provenance_mut((block.address().raw() + offset) as usize);
    // SAFETY: a device, and the test's block, which it leaves alone.
    let dma = unsafe { dma_map_single(device, start, bytes, FROM) };
    // SAFETY: a device.
    assert_eq!(unsafe { dma_mapping_error(device, dma) }, 0);
    dma
}

/// Of one piece of memory each line is watched, on whichever page it lies: behind an IOMMU as on the bus.
#[ktest]
fn lines_beyond_the_first_page_of_a_mapping_are_watched_s107_s109() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    if bounce::is_forced() {
        return Skipped("copies have lines of their own");
    }
    let block = Pages::exactly(4).expect("memory");
    let all = |shared: bool, pairs: &[[(u32, u32); 2]]| {
        for &[first, second] in pairs {
            let (one, before) = (map_some(&DISK, &block, first), found());
            let (other, log) = capture_log(|| map_some(&DISK, &block, second));
            let words = alloc::format!("in a cache line of another: {} bytes at {one}", first.1);
            let is_told = log.text().contains(&words);
            let wanted = (shared, before + u32::from(shared));
            assert_eq!((is_told, found()), wanted, "{first:?}, {second:?}: {log:?}");
            end(&DISK, other, second.1, FROM);
            end(&DISK, one, first.1, FROM);
            assert_eq!((mappings(), found()), (0, wanted.1));
        }
    };
    let both = || {
        all(
            true,
            &[
                [(0, 2 * PAGE_SIZE), (PAGE_SIZE, PAGE_SIZE)],
                [(PAGE_SIZE, PAGE_SIZE), (0, 2 * PAGE_SIZE)],
                [(0, 4 * PAGE_SIZE), (3 * PAGE_SIZE, 100)],
                [(100, 2 * PAGE_SIZE), (2 * PAGE_SIZE + 96, 4)],
            ],
        );
        all(
            false,
            &[
                [(0, 2 * PAGE_SIZE), (2 * PAGE_SIZE, PAGE_SIZE)],
                [(PAGE_SIZE, PAGE_SIZE + 32), (2 * PAGE_SIZE + 32, 32)],
            ],
        );
    };
    both();
    let _disk = Attached::new(&DISK, WINDOW);
    both();
    Ran
}

/// Puts the disk behind an IOMMU for which it does not matter what is left.
fn attach() -> IommuMapping {
    let mapping = IommuMapping::new(BASE, WINDOW).expect("memory");
    // SAFETY: the device has nothing yet.
    unsafe { mapping.attach(&DISK) }.expect("attached to nothing");
    mapping
}

/// Takes it away, and ends `mapping`.
fn leave(mapping: IommuMapping) {
    // SAFETY: what the device has is lost, and it does nothing.
    unsafe { detach(&DISK) }.expect("attached");
    drop(mapping);
}

/// What is left in a domain that ends is told then, and is neither counted in the next, which may lie where that lay, nor in its way.
#[ktest]
fn what_is_left_in_a_domain_that_ends_is_told_and_forgotten_s107_s109() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    if bounce::is_forced() {
        return Skipped("copies would be lost");
    }
    let (page, before) = (Pages::new(0).expect("memory"), found());
    let domain = attach();
    let left = map(&DISK, &page, 0, FROM);
    let ((), log) = capture_log(|| leave(domain));
    assert_eq!((mappings(), found()), (0, before + 1), "{log:?}");
    assert!(log.text().contains("1 mappings for transfers that stand"), "{log:?}");
    let line = log.text().lines().find(|line| line.contains("DMA misuse: ")).expect("told");
    let named =
        alloc::format!("1 mappings in it end with it: a careless disk: 256 bytes at {left}");
    assert_names(line, &["an IOMMU mapping ends: ", &named, "mapped by "]);

    let domain = attach();
    let (again, log) = capture_log(|| map(&DISK, &page, 0, FROM));
    assert_eq!((again, found()), (left, before + 1), "{log:?}");
    let ((), log) = capture_log(|| leave(domain));
    assert!(log.text().contains("1 mappings for transfers that stand"), "{log:?}");
    // Whoever ends none of them is told of none.
    let ((), log) = capture_log(|| leave(attach()));
    assert_eq!((found(), log.text()), (before + 2, ""));
    Ran
}
