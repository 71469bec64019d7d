//! What to raise, and to what, as who is refused memory of the atomic pool is told: by the sum of all who were, but never by more than
//! there is (S104).

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dma::coherent::{Buffer, allocate, allocate_quietly};
use dma::pool_growth::{enough, enough_for_all};
use image::capture::capture_log;
use kerncore::addr::PAGE_SIZE;
use kerncore::coherent::Sleep;
use kerncore::frames::MAX_BLOCK;
use ktest::Completion::{self, Ran};
use ktest::ktest;
use mm::kernel;

use super::buffers::{DEVICE, NO_POOL, give_pages, pool_pages, take_pages};
use super::witness::NOBODY;

fn memory() -> u32 {
    kernel().zones().table().len()
}

#[track_caller]
fn refuse(pages: u32) {
    let refused: Result<Buffer, _> =
        allocate_quietly(&DEVICE, pages * PAGE_SIZE, Sleep::MayNot, NOBODY);
    assert!(refused.is_err(), "{pages} pages: this test has no teeth");
}

/// The line that is told of a refusal of so many pages; repetitions are printed ever more seldom.
fn line_of(pages: u32) -> String {
    let bytes = pages * PAGE_SIZE;
    let told = (0..20_000).find_map(|_| {
        let (refused, log) = capture_log(|| allocate(&DEVICE, bytes, Sleep::MayNot, NOBODY));
        assert!(refused.is_err(), "{pages} pages: this test has no teeth");
        log.text().lines().next().map(String::from)
    });
    told.expect("a message")
}

/// No pool could have been so large, so that what would have been enough is told of the others alone.
#[ktest]
fn who_wants_more_than_there_is_spoils_no_advice_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    refuse(pages + 1);
    let before = (enough(), enough_for_all());
    for wanted in [memory() + 1, u32::MAX / PAGE_SIZE] {
        refuse(wanted);
        assert_eq!((enough(), enough_for_all()), before, "{wanted} pages");
    }
    let line = line_of(memory() + 1);
    assert!(line.contains("; that is more than there is memory") && !line.contains('K'), "{line}");
    Ran
}

/// Each who is refused adds to what all of them would have taken, at least what it would have taken alone, and at most what there is.
#[ktest]
fn what_all_who_were_refused_would_have_taken_is_no_more_than_there_is_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    // What is held counts, too.
    let held = take_pages(pages);
    let mut all: Vec<u32> = Vec::new();
    for _ in 0..=memory() / pages {
        refuse(pages + 1);
        all.push(enough_for_all());
        assert!(enough_for_all() >= enough().min((memory() - 3 * pages) * 4), "{}", enough());
    }
    give_pages(held);
    assert!(all.is_sorted(), "it never falls");
    let last = all.last().copied().unwrap_or(0);
    assert!(last <= memory() * 4, "{last} KiB would have been enough");
    assert!(last > (memory() - 4 * pages) * 4, "{last} KiB: this test has no teeth");
    Ran
}

/// What no block would hold takes a region; where there is one, or a block would do, the pool's own parameter is all.
#[ktest]
fn what_no_block_would_hold_takes_a_region_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let both = "raise it with cma=<size> and coherent_pool=<size>, ";
    let alone = "raise it with coherent_pool=<size>, ";
    let wanted = || {
        let is_too_large = enough() > MAX_BLOCK * (PAGE_SIZE >> 10);
        let by = if is_too_large && kernel().contiguous().is_none() { both } else { alone };
        format!("{by}{}K would have been enough ", enough())
    };
    for size in [pages + 1, MAX_BLOCK + 1] {
        let line = line_of(size.min(memory()));
        assert!(line.contains(&wanted()), "\"{}\" is missing: {line}", wanted());
    }
    Ran
}
