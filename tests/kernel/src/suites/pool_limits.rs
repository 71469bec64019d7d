//! The limits of the atomic pool's growth, to the page and to the moment (S100, S104): when it is low, who may make it grow, what goes back
//! and when, and what a device is told that reaches none of its parts.

extern crate alloc;

use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arch::failure::fail_nth;
use arch::smp;
use dma::atomic_pool::{self, InitError};
use dma::attributes;
use dma::coherent::{AllocateError, Found, allocate};
use dma::device::Device;
use dma::pool_growth::{PATIENCE, grow, grown, is_low, look_after, release_idle};
use image::capture::{CapturedLog, capture_log};
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::dma_mask::DmaMask;
use kerncore::failure::Afterwards;
use kerncore::holder::Moment;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::{clock, kernel};

use super::buffers::{
    DEVICE, InBackground, NO_POOL, comes, give, give_pages, one_page, pool_pages, take_pages,
};
use super::smp::Barrier;
use super::witness::{Books, NOBODY};

/// A quarter of the pages of boot, rounded up, is enough; one less is low. Who is not to make it grow does not, however low it is.
#[ktest]
fn it_is_low_below_a_quarter_and_grows_for_those_who_may_alone_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let mut buffers = take_pages(pages - pages.div_ceil(4));
    assert!(!is_low(), "a quarter is free");
    buffers.extend(take_pages(1));
    assert!(is_low(), "less than a quarter is free");
    look_after();
    assert_eq!(grown(), (0, 0), "nobody may");
    give_pages(buffers);
    assert!(!is_low());
    Ran
}

/// S83: each part's area has somebody who made it.
#[ktest]
fn the_areas_of_all_parts_know_who_made_them_s83_s104() -> Completion {
    if pool_pages().is_none() {
        return NO_POOL;
    }
    assert!(grow().is_ok());
    atomic_pool::for_each_part(|part| {
        let area = kernel().find(part.base).expect("the part's area");
        assert_ne!(area.caller, NOBODY, "{}", part.base);
    });
    assert_ne!(release_idle(), 0);
    Ran
}

/// What has grown counts: where a part has room, nothing is low, however full that of boot is.
#[ktest]
fn what_has_grown_is_room_like_any_other_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    let buffers = take_pages(pages);
    assert_eq!(grow().map(|bytes| bytes / PAGE_SIZE), Ok(pages));
    assert!(!is_low());
    {
        let _growing = InBackground::begin(PATIENCE);
        look_after();
        look_after();
    }
    assert_eq!(grown(), (pages, 0), "it was not low");
    give_pages(buffers);
    assert_eq!(release_idle(), pages);
    books.assert_unchanged();
    Ran
}

/// Nothing goes back before its time, nor while that of boot would be low without it; and whoever was there meanwhile is remembered.
#[ktest]
fn what_nobody_uses_goes_back_when_its_time_has_come_and_not_while_boot_s_part_is_low_s104()
-> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    if smp::up().count() > 1 {
        return Skipped("others look after the pool meanwhile");
    }
    let books = Books::now();
    assert_eq!(grow().map(|bytes| bytes / PAGE_SIZE), Ok(pages));
    {
        let _patient = InBackground::begin(PATIENCE);
        for _ in 0..3 {
            look_after();
        }
    }
    assert_eq!(grown(), (pages, 0), "long before its time");
    let patience = 8;
    let _growing = InBackground::begin(Moment::new(patience));
    let wait = || {
        let start = clock::now().ticks();
        assert!(comes(|| clock::now().ticks().wrapping_sub(start) > patience), "no clock runs");
    };
    // Less than a quarter of the part of boot is free, so that the other is kept; but both together are not low.
    let mut buffers = take_pages(pages - pages.div_ceil(4) + 1);
    for _ in 0..2 {
        look_after();
        wait();
    }
    assert_eq!(grown(), (pages, 0), "boot's part is low alone");
    // Taken and given back between two looks.
    let rest = take_pages(pages.div_ceil(4) - 1 + 3);
    assert_eq!(grown(), (pages, 3));
    give_pages(rest);
    give_pages(buffers.drain(1..));
    look_after();
    assert_eq!(grown(), (pages, 0), "it was used since anybody looked");
    // Half of boot's part is more than a quarter.
    buffers.extend(take_pages(pages / 2));
    wait();
    look_after();
    assert_eq!(grown(), (0, 0), "its time has come");
    give_pages(buffers);
    books.assert_unchanged();
    Ran
}

/// As many parts as there can be, each as large as all before it while memory lasts; one more is refused; all go back.
#[ktest]
fn it_grows_by_seven_parts_and_no_more_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    let (mut all, mut parts) = (pages, 0);
    for part in 1..=7 {
        match grow().map(|bytes| bytes / PAGE_SIZE) {
            Ok(by) => {
                assert!(by == all || by == pages && part > 3, "part {part}: {by} of {all} pages");
                all += by;
                parts += 1;
            }
            // The claims of that part were given up, so that it is tried again.
            Err(InitError::NoMemory(_)) => {}
            Err(error) => panic!("part {part}: {error}"),
        }
        assert_eq!(grown(), (all - pages, 0));
    }
    let had = all - pages;
    assert!(had >= pages, "this test has no teeth");
    if parts == 7 {
        assert_eq!(grow(), Err(InitError::Again));
    }
    assert_eq!((release_idle(), grown()), (had, (0, 0)));
    books.assert_unchanged();
    Ran
}

/// One CPU makes it grow at a time, so that each part is as large as all that there was: what came in vain is told so.
#[ktest]
fn two_do_not_make_it_grow_at_once_s104_s116() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    for _ in 0..8 {
        let (barrier, grew) = (Barrier::new(), AtomicU32::new(0));
        smp::run_on_each(|_| {
            barrier.wait();
            match grow() {
                Ok(_) => _ = grew.fetch_add(1, Relaxed),
                Err(error) => assert_eq!(error, InitError::Changing),
            }
        });
        let parts = grew.into_inner();
        assert!((1..=4).contains(&parts));
        assert_eq!(grown().0, pages * ((1 << parts) - 1), "of {parts} parts");
        assert_ne!(release_idle(), 0);
    }
    books.assert_unchanged();
    Ran
}

/// S100: the lowest run of all parts is named to a device that reaches none; also if the part of boot has no run at all.
#[ktest]
fn a_device_that_reaches_no_part_is_told_the_lowest_run_s100_s104() -> Completion {
    if pool_pages().is_none() {
        return NO_POOL;
    }
    let books = Books::now();
    let near = Device::new("a device that reaches no part");
    for _ in 0..2 {
        grow().expect("memory for another part");
    }
    let mut bases = Vec::new();
    atomic_pool::for_each_part(|part| {
        let area = kernel().find(part.base).expect("the part's area");
        bases.push((DmaAddr::new(area.physical.raw()), part.pages));
    });
    assert_eq!(bases.len(), 3);
    let refused = |lowest: DmaAddr| {
        let mask = DmaMask::new(u64::from(lowest.raw()) - 1);
        assert_eq!(near.set_coherent_mask(mask), Ok(()));
        let error = allocate(&near, PAGE_SIZE, Sleep::MayNot, NOBODY);
        let (device, found) = (near.name(), Found::Pool(lowest));
        let wanted = AllocateError::OutOfReach { device, mask, bytes: PAGE_SIZE, found };
        assert_eq!(error, Err(wanted));
    };
    let lowest = |parts: &[(DmaAddr, u32)]| parts.iter().map(|part| part.0).min();
    refused(lowest(&bases).expect("three parts"));
    // The part of boot full, so that only the others have runs.
    let buffers = take_pages(bases[0].1);
    refused(lowest(&bases[1..]).expect("two parts"));
    give_pages(buffers);
    assert_ne!(release_idle(), 0);
    books.assert_unchanged();
    Ran
}

/// What it grows by and gives back is told; where there is not as much again, as much as at boot will do.
#[ktest]
fn it_says_how_much_it_grew_by_and_takes_less_if_it_must_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    let told = |log: &CapturedLog, line: &str| log.text().matches(line).count();
    let (grew, log) = capture_log(grow);
    assert_eq!(grew, Ok(pages * PAGE_SIZE));
    let line = alloc::format!("pool was low and grew by {} KiB to {} KiB", pages * 4, pages * 8);
    assert_eq!(told(&log, &line), 1, "{log:?}");
    // The first try, of twice as much, fails.
    let (grew, outcome) = fail_nth(NonZeroU32::MIN, Afterwards::Plenty, grow);
    assert!(outcome.failed.is_some(), "this test has no teeth");
    assert_eq!(grew, Ok(pages * PAGE_SIZE), "as much as at boot");
    let (back, log) = capture_log(release_idle);
    assert_eq!(back, 2 * pages);
    assert_eq!(told(&log, &alloc::format!("pool gave back {} KiB", pages * 8)), 1, "{log:?}");
    books.assert_unchanged();
    Ran
}

/// Once is enough where there is no memory, until it was not low for a while.
#[ktest]
fn what_could_not_grow_is_not_tried_again_and_again_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    if kernel().contiguous().is_some() {
        return Skipped("the region has memory for it");
    }
    let books = Books::now();
    let buffers = take_pages(pages);
    let list = super::witness::starve(0);
    let ((), log) = {
        let _growing = InBackground::begin(PATIENCE);
        capture_log(|| (0..4).for_each(|_| look_after()))
    };
    super::witness::feed(list);
    assert_eq!(grown(), (0, 0), "there was memory: this test has no teeth");
    let said = log.text().matches("the atomic pool is low and does not grow").count();
    assert_eq!(said, 1, "{log:?}");
    give_pages(buffers);
    assert!(!is_low(), "so that it may grow again");
    books.assert_unchanged();
    Ran
}

/// Also who takes coherent memory for a device that does not reach all of it passes the pool by.
#[ktest]
fn whoever_may_sleep_makes_it_grow_whatever_his_device_reaches_s100_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    let far = Device::new("a device with a wide mask");
    assert_eq!(far.set_coherent_mask(DmaMask::new(0xf000_0000)), Ok(()));
    let buffers = take_pages(pages);
    {
        let _growing = InBackground::begin(PATIENCE);
        assert_eq!(one_page(), None);
        let passing = allocate(&far, 1, Sleep::May, NOBODY).expect("memory");
        assert!(comes(|| grown() == (pages, 0)), "{:?}", grown());
        give(&far, 1, passing);
    }
    give_pages(buffers);
    // Whoever has made it grow may still be saying so.
    assert!(comes(|| release_idle() == pages));
    books.assert_unchanged();
    Ran
}

/// S99: who wants no words hears none, and is not counted among those who were told.
#[ktest]
fn who_wants_no_words_of_an_empty_pool_hears_none_s99_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let buffers = take_pages(pages);
    let ask = |attributes| {
        let (none, log) = capture_log(|| {
            attributes::allocate(&DEVICE, PAGE_SIZE, Sleep::MayNot, attributes, NOBODY)
        });
        assert!(none.is_err(), "there was room: this test has no teeth");
        !log.text().is_empty()
    };
    // Repetitions are printed when there were twice as many: after the second, twice as many as lay between.
    let until_told = || (1..20_000).find(|_| ask(DmaAttributes::NONE)).expect("a message");
    let _first = until_told();
    let between = until_told();
    let words = (0..=2 * between).filter(|_| ask(DmaAttributes::NO_WARN)).count();
    assert_eq!(words, 0);
    give_pages(buffers);
    Ran
}
