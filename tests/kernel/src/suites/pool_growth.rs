//! The atomic pool when it runs low, and what it says when it has nothing (S104).

extern crate alloc;

use alloc::vec::Vec;

use dma::atomic_pool::{self, PoolError};
use dma::coherent::{AllocateError, Buffer, allocate, allocate_quietly};
use dma::pool_growth::{PATIENCE, enough, enough_for_all, grow, grown, is_low, release_idle};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::frames::FrameOwner;
use kerncore::pool;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::dma_alloc_coherent;
use mm::kernel;

use super::buffers::{DEVICE, InBackground, NO_POOL, give_pages, pool_pages};
use super::witness::{Books, NOBODY, assert_leads};

/// A page as C callers ask for it.
#[inline(never)]
fn one_page() -> Option<Buffer> {
    let mut dma = DmaAddr::new(0);
    let flags = AllocationFlags::ATOMIC;
    // SAFETY: a device, and a place for an address.
    let memory = unsafe { dma_alloc_coherent(&raw const DEVICE, PAGE_SIZE, &raw mut dma, flags) };
    #[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
    let address = VirtAddr::new(memory.addr() as u32);
    (!memory.is_null()).then_some(Buffer { address, dma })
}

/// Device, size, the largest run left, who has the rest, what to raise, and to what.
#[ktest]
fn who_finds_no_room_learns_who_has_it_and_what_would_have_been_enough_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let mut buffers: Vec<Buffer> = (1..pages).filter_map(|_| one_page()).collect();
    assert_eq!(buffers.len(), pages as usize - 1);
    let bytes = 2 * PAGE_SIZE;
    // Repetitions are printed ever more seldom; one of many is.
    let said = (0..20_000).find_map(|_| {
        let (refused, log) = capture_log(|| allocate(&DEVICE, bytes, Sleep::MayNot, NOBODY));
        assert!(refused.is_err(), "there was room: this test has no teeth");
        (!log.text().is_empty()).then_some(log)
    });
    let log = said.expect("a message");
    // First fit, behind what is held: two pages from the next even page.
    let wanted = (pages - 1).next_multiple_of(2) + 2;
    assert!(enough() >= wanted * 4, "{} KiB", enough());
    let kib = enough();
    for part in [
        alloc::format!("no {bytes} bytes for a thirsty device"),
        alloc::format!("no run of 2 pages: 1 of {pages} are free, at most 1 in a run"),
        alloc::format!("coherent_pool=<size>, {kib}K would have been enough "),
        match enough_for_all() {
            all if all > kib => alloc::format!("{all}K for all of them at once"),
            _ => "enough so far".into(),
        },
        alloc::format!("{} of its pages, in {} buffers, are of ", pages - 1, pages - 1),
        "pool_growth".into(),
    ] {
        assert!(log.text().contains(&part), "\"{part}\" is missing: {log:?}");
    }
    buffers.extend(one_page());
    assert_eq!(one_page(), None, "nobody waits, so nothing grows");
    give_pages(buffers);
    Ran
}

/// One pool that had served all who were refused is larger than one for each of them alone.
#[ktest]
fn all_who_were_refused_take_more_than_each_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let buffers: Vec<Buffer> = (0..pages).filter_map(|_| one_page()).collect();
    let memory = kernel().zones().table().len() * 4;
    let refuse = || {
        assert!(allocate_quietly(&DEVICE, PAGE_SIZE, Sleep::MayNot, NOBODY).is_err());
        (enough(), enough_for_all())
    };
    let (mut each, mut all) = refuse();
    for _ in 0..3 {
        let (each_now, all_now) = refuse();
        assert_eq!(each_now, each, "the same again");
        assert!(all_now == all + 4 || all + 4 > memory, "{all} KiB, then {all_now}");
        (each, all) = (each_now, all_now);
    }
    give_pages(buffers);
    Ran
}

/// What is left is told of all parts.
#[ktest]
fn who_finds_no_room_in_any_part_is_told_of_the_largest_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let buffers: Vec<Buffer> = (0..pages).filter_map(|_| one_page()).collect();
    let Ok(bytes) = grow() else {
        give_pages(buffers);
        return Skipped("no memory for another part");
    };
    let grown = bytes / PAGE_SIZE;
    let bytes = (grown + 1) * PAGE_SIZE;
    let refused = allocate_quietly(&DEVICE, bytes, Sleep::MayNot, NOBODY);
    let Err(AllocateError::Pool(PoolError::Refused(pool::AllocateError::Exhausted {
        largest,
        free,
        taken,
        ..
    }))) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((free, taken), (grown, pages), "all parts");
    assert!(largest <= grown && largest * 2 > grown, "{largest} of {grown} in a run");
    give_pages(buffers);
    assert_eq!(release_idle(), grown);
    Ran
}

/// Who waits finds the pool low and makes it larger; what was grown serves, is freed, and goes back when it is idle.
#[ktest]
fn a_pool_that_is_low_grows_while_somebody_waits_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    let mut buffers: Vec<Buffer> = (0..pages / 2).filter_map(|_| one_page()).collect();
    assert!(!is_low(), "half of it is free");
    let mut looks = 0;
    arch::cpu::wait_until(|| {
        looks += 1;
        looks > 1 || grown().0 == 0
    });
    assert_eq!(grown(), (0, 0), "there was no need");
    buffers.extend((pages / 2..pages).filter_map(|_| one_page()));
    assert!(is_low());
    {
        let _growing = InBackground::begin(PATIENCE);
        arch::cpu::wait_until(|| grown().0 != 0);
    }
    assert_eq!(grown(), (pages, 0), "as much again");
    assert!(!is_low());
    let more: Vec<Buffer> = (0..pages).filter_map(|_| one_page()).collect();
    assert_eq!((more.len(), grown()), (pages as usize, (pages, pages)));
    let part = kernel().find_containing(more[0].address).expect("an area");
    assert!(more.iter().all(|buffer| part.pages.contains(buffer.address)));
    for buffer in &more {
        let physical = PhysAddr::new(buffer.dma.raw());
        assert_leads(buffer.address, physical);
        let owner = kernel().zones().table().owner_of(physical.pfn());
        assert_eq!(owner, FrameOwner::AtomicPool);
    }
    // The first part is found again, and one that is used stays.
    give_pages(buffers);
    assert_eq!((release_idle(), grown()), (0, (pages, pages)));
    assert_eq!(atomic_pool::usage().map(|pool| pool.taken), Some(0));
    give_pages(more);
    assert_eq!((release_idle(), grown()), (pages, (0, 0)));
    books.assert_unchanged();
    Ran
}

/// Where no memory is, that is said once, and who waits is not kept busy.
#[ktest]
fn a_pool_that_cannot_grow_says_so_and_goes_on_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    if kernel().contiguous().is_some() {
        return Skipped("the region has memory for it");
    }
    let books = Books::now();
    let buffers: Vec<Buffer> = (0..pages).filter_map(|_| one_page()).collect();
    let list = super::witness::starve(0);
    let (refused, log) = capture_log(|| grow().is_err());
    let mut looks = 0;
    arch::cpu::wait_until(|| {
        looks += 1;
        looks > 1 || grown().0 == 0
    });
    super::witness::feed(list);
    assert!(refused, "there was memory: this test has no teeth");
    let said = log.text().matches("the atomic pool is low and does not grow").count();
    assert_eq!(said, 1, "{log:?}");
    assert_eq!(grown(), (0, 0));
    give_pages(buffers);
    // When it was not low for a while, it may grow again.
    let mut looks = 0;
    arch::cpu::wait_until(|| {
        looks += 1;
        looks > 1 || !is_low()
    });
    books.assert_unchanged();
    Ran
}
