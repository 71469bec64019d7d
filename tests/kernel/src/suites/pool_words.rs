//! What the atomic pool says when it has nothing, where it has grown (S104): who has its pages, and what would have been enough.

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use dma::coherent::{Buffer, allocate, allocate_quietly};
use dma::pool_growth::{enough, grow, grown, release_idle};
use image::capture::capture_log;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::pool::end_behind;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::kernel;

use super::buffers::{DEVICE, NO_POOL, give_all, give_pages, pool_pages, take_pages};
use super::witness::{Books, NOBODY};

/// All parts are taken for one pool; and what was enough once is not forgotten when less is missing.
#[ktest]
fn what_would_have_been_enough_counts_what_has_grown_and_never_becomes_less_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    for _ in 0..3 {
        grow().expect("memory for another part");
    }
    let all = pages + grown().0;
    let before = enough() / 4;
    // So much that more is missing than ever before in this boot.
    let wanted = before.saturating_sub(all).max(1) + 1;
    let buffers = take_pages(all);
    let refuse = |count: u32| {
        let refused = allocate_quietly(&DEVICE, count * PAGE_SIZE, Sleep::MayNot, NOBODY);
        assert!(refused.is_err(), "there was room: this test has no teeth");
    };
    let is_memory = wanted <= kernel().zones().table().len();
    if is_memory {
        refuse(wanted);
        let most = 4 * end_behind(all, wanted);
        assert_eq!(enough(), most, "{wanted} pages behind {all}, and {before} before");
        refuse(1);
        assert_eq!(enough(), most);
    }
    give_pages(buffers);
    assert_ne!(release_idle(), 0);
    books.assert_unchanged();
    if is_memory { Ran } else { Skipped("somebody has asked for nearly all of memory") }
}

/// Two who took pages.
const CALLERS: [VirtAddr; 2] = [VirtAddr::new(0x8001_0004), VirtAddr::new(0x8001_0008)];

#[ktest]
fn who_holds_pages_of_any_part_is_named_with_his_pages_and_buffers_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    assert_eq!(grow(), Ok(pages * PAGE_SIZE));
    let take = |count: u32, caller| {
        let bytes = count * PAGE_SIZE;
        let taken = allocate_quietly(&DEVICE, bytes, Sleep::MayNot, caller);
        (taken.expect("room"), bytes)
    };
    // Two by two in the part of boot, which may have an odd page; one by one in the other.
    let mut buffers: Vec<(Buffer, u32)> = (0..pages / 2).map(|_| take(2, CALLERS[0])).collect();
    buffers.extend((0..pages % 2).map(|_| take(1, CALLERS[0])));
    assert_eq!(grown(), (pages, 0));
    buffers.extend((0..pages).map(|_| take(1, CALLERS[1])));
    // Repetitions are printed ever more seldom; one of many is.
    let said = (0..20_000).find_map(|_| {
        let (refused, log) = capture_log(|| allocate(&DEVICE, PAGE_SIZE, Sleep::MayNot, NOBODY));
        assert!(refused.is_err(), "there was room: this test has no teeth");
        (!log.text().is_empty()).then_some(log)
    });
    let said = said.expect("a message");
    for count in [pages.div_ceil(2), pages] {
        let line = format!("{pages} of its pages, in {count} buffers, are of ");
        assert!(said.text().contains(&line), "no {line:?}: {said:?}");
    }
    give_all(buffers);
    assert_eq!(release_idle(), pages);
    books.assert_unchanged();
    Ran
}
