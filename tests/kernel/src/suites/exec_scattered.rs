//! Memory for code where memory is in pieces: no two free frames are adjacent, and it is made, sealed, run and freed as ever
//! (S28, S30, S112).

extern crate alloc;

use alloc::vec::Vec;

use arch::smp;
use kerncore::addr::PAGE_SIZE;
use kerncore::frames::{FrameBlock, FrameList, FrameOwner, FrameRequest};
use ktest::{Completion, ktest};
use mm::exec_area::{ExecArea, ExecText};
use mm::kernel;

use super::exec::{MOVE, RETURN, assert_not_executed, assert_text_only, run, write_code};
use super::failures::{no_code, survives, vfree};
use super::witness::{
    Books, NOBODY, ask_host, assert_absent, assert_leads, each_page, feed, frame_at, linear, starve,
};

/// More than any block of adjacent frames has.
const LARGE: u32 = 5 << 20;
/// Frames that are free while nothing else is: enough for [`LARGE`], the pointers to its pages, and some to spare.
const FREE: u32 = LARGE / PAGE_SIZE + 64;

/// What is taken so that no two free frames are adjacent.
pub(super) struct Pieces {
    rest: FrameList,
    between: Vec<FrameBlock>,
}

impl Pieces {
    /// Leaves [`FREE`] frames of low memory of which no two are adjacent, and no others; `None` where there are not so many. Tables and
    /// records for `LARGE` are made before.
    pub(super) fn new() -> Option<Self> {
        let zones = kernel().zones();
        drop(ExecArea::new(LARGE).ok()?);
        if zones.free_pages_of(FrameRequest::LOW) < 3 * FREE {
            return None;
        }
        // Every other frame; where earlier tests have left single ones, more of those may be odd than even.
        let mut between = Vec::with_capacity(4 * FREE as usize);
        let mut even = 0;
        while even < FREE {
            let Ok(block) = zones.allocate(0, FrameOwner::Test) else {
                for block in between {
                    zones.free(block).expect("our own");
                }
                return None;
            };
            even += u32::from(block.first().number() % 2 == 0);
            between.push(block);
        }
        let rest = starve(0);
        between.extract_if(.., |block| block.first().number() % 2 == 0).for_each(|block| {
            zones.free(block).expect("our own");
        });
        Some(Self { rest, between })
    }

    pub(super) fn end(self) {
        feed(self.rest);
        for block in self.between {
            kernel().zones().free(block).expect("our own");
        }
    }
}

/// Two neighbours of `area` are never of adjacent frames.
#[track_caller]
fn assert_apart(area: &ExecArea) {
    let mut before = None;
    for frame in each_page(area.pages()).map(frame_at) {
        let number = frame.number();
        assert!(before.is_none_or(|before: u32| before.abs_diff(number) > 1), "{frame}");
        before = Some(number);
        assert_absent(linear(frame));
    }
}

/// Code at the end of each page that goes on in the next one, which gives the page's number and `first`.
fn across_borders(bytes: u32, first: u32) -> ExecArea {
    let mut area = ExecArea::new(bytes).expect("scattered frames");
    assert_apart(&area);
    for page in 1..bytes / PAGE_SIZE {
        let border = (page * PAGE_SIZE) as usize;
        let answer = MOVE | (first + page) & 0xff;
        area[border - 4..border].copy_from_slice(&answer.to_le_bytes());
        area[border..border + 4].copy_from_slice(&RETURN.to_le_bytes());
    }
    area
}

#[track_caller]
fn assert_runs(text: &ExecText, first: u32, step: usize) {
    for page in (1..text.pages().count()).step_by(step) {
        assert_eq!(run(text, page * PAGE_SIZE - 4), (first + page) & 0xff, "page {page}");
    }
}

#[ktest]
fn code_runs_over_borders_of_frames_that_are_not_adjacent_s28_s30() -> Completion {
    let Some(pieces) = Pieces::new() else {
        return Completion::Skipped("too little low memory");
    };
    let books = Books::now();
    for (bytes, step) in [(2 * PAGE_SIZE, 1), (64 << 10, 1), (LARGE, 7)] {
        // What ran there before is other code.
        for first in [3, 5] {
            let area = across_borders(bytes, first);
            let start = area.pages().start();
            assert_not_executed(start);
            ask_host(start);
            let text = area.seal().expect("its own");
            assert_runs(&text, first, step);
            smp::run_on_each(|_| assert_runs(&text, first, step));
            if bytes < LARGE {
                assert_text_only(&text);
            }
            let frames = [text.pages().start(), text.pages().sub_range(1, 1).expect("two").start()];
            let frames = frames.map(frame_at);
            drop(text);
            assert_absent(start);
            for frame in frames {
                assert_leads(linear(frame), frame.base());
                ask_host(linear(frame));
            }
            books.assert_unchanged();
        }
    }
    pieces.end();
    Completion::Ran
}

/// Whatever fails half way: each frame is back, and each linear entry (S97), as books and audit say.
#[ktest]
fn code_of_scattered_frames_survives_each_failure_s28_s112() -> Completion {
    let Some(pieces) = Pieces::new() else {
        return Completion::Skipped("too little low memory");
    };
    for pages in [3, 19] {
        let make = || kernel().vmalloc_exec(pages * PAGE_SIZE, NOBODY);
        survives(&alloc::format!("vmalloc_exec, {pages} scattered pages"), make, no_code, vfree);
    }
    let mut area = ExecArea::new(19 * PAGE_SIZE).expect("scattered frames");
    assert_apart(&area);
    write_code(&mut area, 0, 7);
    assert_eq!(run(&area.seal().expect("its own"), 0), 7);
    pieces.end();
    Completion::Ran
}
