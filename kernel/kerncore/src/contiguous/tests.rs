//! The bitmaps beside a list of what each page is, and the region beside a table of frames.

use super::*;
use crate::frames::{Frame, order_for};
use crate::kernel_space::tests::Mutexes;
use crate::zones::DMA_PAGES;
use PageUse::{Claimed, Free, Held, Lent};

/// Somebody who has borrowed a page.
const SOMEBODY: Borrower = Borrower::Movable { place: 7 };

/// The first page of the lowest aligned run of which every page may be had.
fn model_run(
    model: &[PageUse],
    pages: u32,
    from: u32,
    may: impl Fn(PageUse) -> bool,
) -> Option<u32> {
    let alignment = 1_u32 << order_for(pages).min(8);
    let size = u32::try_from(model.len()).expect("small");
    (from..size).find(|&first| {
        let run = first as usize..(first + pages) as usize;
        pages != 0
            && first.is_multiple_of(alignment)
            && model.get(run).is_some_and(|run| run.iter().all(|&page| may(page)))
    })
}

#[track_caller]
fn agrees(region: &Region<'_>, model: &[PageUse]) {
    for (page, &wanted) in (0..).zip(model) {
        assert_eq!(region.use_of(page), Some(wanted), "page {page}");
    }
    let size = u32::try_from(model.len()).expect("small");
    assert_eq!(region.use_of(size), None);
    let count = |wanted: &[PageUse]| {
        u32::try_from(model.iter().filter(|page| wanted.contains(page)).count()).expect("small")
    };
    let largest = (1..=size)
        .rev()
        .find(|&pages| model_run(model, pages, 0, |page| page == Free || page == Lent).is_some());
    let usage = RegionUse {
        pages: size,
        held: count(&[Held, Claimed]),
        lent: count(&[Lent]),
        largest: largest.unwrap_or(0),
    };
    assert_eq!(region.usage(), usage);
}

/// S101, for regions of several words, the last of them not full.
#[test]
fn pages_are_taken_lent_claimed_and_given_back_as_a_list_of_uses_says() {
    for size in [1, 31, 64, 77, 600] {
        let mut words = vec![Word::default(); Region::words_for(size)];
        let mut borrowers = vec![SOMEBODY; size as usize];
        let mut region = Region::new(&mut words, &mut borrowers).expect("room");
        let mut model = vec![Free; size as usize];
        let mut random = 3_u32;
        for step in 0..3_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let choice = random >> 10;
            let pages = match choice / 8 % 3 {
                0 => choice / 32 % (size + 2),
                1 => choice / 32 % 40,
                _ => choice / 32 % 4,
            };
            let page = choice / 64 % (size + 1);
            match choice % 8 {
                0 | 1 => {
                    let wanted = model_run(&model, pages, 0, |page| page == Free);
                    assert_eq!(region.take(pages), wanted, "{pages} pages");
                    if let Some(first) = wanted {
                        model[first as usize..(first + pages) as usize].fill(Held);
                    }
                }
                2 => {
                    let wanted =
                        model_run(&model, pages, page, |page| page == Free || page == Lent);
                    assert_eq!(region.claim(pages, page), wanted, "{pages} pages from {page}");
                    for place in wanted.into_iter().flat_map(|first| first..first + pages) {
                        let place = &mut model[place as usize];
                        *place = if *place == Lent { Claimed } else { Held };
                    }
                }
                3 | 4 => {
                    let run = page..page + pages;
                    let is_held = |&place: &u32| {
                        model
                            .get(place as usize)
                            .is_some_and(|&place| matches!(place, Held | Claimed))
                    };
                    let wanted = run.clone().find(|place| !is_held(place)).map_or(Ok(()), Err);
                    assert_eq!(region.give_back(page, pages), wanted, "{pages} pages at {page}");
                    for place in run.filter(|_| wanted.is_ok()) {
                        let place = &mut model[place as usize];
                        *place = if *place == Claimed { Lent } else { Free };
                    }
                }
                5 | 6 => {
                    let wanted = (0..size).rfind(|&page| model[page as usize] == Free);
                    let borrower = Borrower::Movable { place: step };
                    assert_eq!(region.lend(borrower), wanted);
                    if let Some(page) = wanted {
                        model[page as usize] = Lent;
                        assert_eq!(region.first_lent(page, 1), Some((page, borrower)));
                    }
                }
                _ => {
                    let had = model.get(page as usize).copied().unwrap_or(Free);
                    let wanted = if matches!(had, Lent | Claimed) { Ok(()) } else { Err(had) };
                    assert_eq!(region.take_back(page).map(drop), wanted);
                    if wanted.is_ok() {
                        model[page as usize] = if had == Claimed { Held } else { Free };
                    }
                }
            }
            agrees(&region, &model);
        }
    }
}

/// S101: alignment to the order, capped.
#[test]
fn runs_are_aligned_to_their_order_up_to_a_section() {
    let mut words = vec![Word::default(); Region::words_for(2048)];
    let mut borrowers = vec![SOMEBODY; 2048];
    let mut region = Region::new(&mut words, &mut borrowers).expect("room");
    let taken = [1, 3, 16, 17, 256, 257, 600].map(|pages| region.take(pages));
    assert_eq!(taken, [0, 4, 16, 32, 256, 512, 1024].map(Some));
    assert_eq!(region.take(1), Some(1), "the lowest");
    assert_eq!(region.take(0), None);
    assert_eq!(region.take(u32::MAX), None);
}

#[test]
fn a_region_needs_a_page_and_a_word_for_each_32() {
    let mut words = [Word::default(); 2];
    assert!(Region::new(&mut words, &mut []).is_none());
    assert!(Region::new(&mut words, &mut [SOMEBODY; 65]).is_none());
    let region = Region::new(&mut words, &mut [SOMEBODY; 64]).map(|region| region.usage().largest);
    assert_eq!(region, Some(64));
}

#[test]
fn the_region_lies_at_the_end_of_low_memory_and_leaves_some_to_others() {
    assert_eq!(set_aside(0x8000, 0x900, 0x1000), Ok((0x7000, 0x1000)));
    assert_eq!(set_aside(0x83ff, 0x900, 0x13ff), Ok((0x7000, 0x1000)), "whole blocks");
    assert_eq!(set_aside(0x8000, 0x900, 0), Ok((0x8000, 0)));
    let most = 0x8000 - 0x900 - DMA_PAGES;
    assert_eq!(set_aside(0x8000, 0x900, 0x8000), Err(most & !0x3ff));
    assert_eq!(
        set_aside(0x8000, 0x900, most & !0x3ff),
        Ok((0x8000 - (most & !0x3ff), most & !0x3ff))
    );
    assert_eq!(set_aside(0x800, 0x900, 0x400), Err(0));
    assert_eq!(set_aside(u32::MAX, u32::MAX, 0x400), Err(0));
}

const FIRST: u32 = 0x6_0400;

/// Runs `test` on a region of `pages`, behind as many frames of somebody else, and their table.
fn with_region(pages: u32, test: impl FnOnce(&Contiguous<'_, Mutexes>, &FrameTable<'_>)) {
    let records: Vec<Frame> = (0..0x400 + pages).map(|_| Frame::new()).collect();
    let table = FrameTable::new(&records, frame(FIRST - 0x400)).expect("aligned");
    table.reserve(frame(FIRST), pages, FrameOwner::Reserved).expect("absent");
    let mut words = vec![Word::default(); Region::words_for(pages)];
    let mut borrowers = vec![Borrower::Nobody; pages as usize];
    let mut pins = vec![7; pages as usize];
    let region = Region::new(&mut words, &mut borrowers).expect("room").with_pins(&mut pins);
    let mut places = vec![Place::default(); pages as usize];
    let places = Places::new(&mut places);
    let contiguous = Contiguous::new(table, frame(FIRST), region, places).expect("in the table");
    test(&contiguous, &table);
}

fn frame(number: u32) -> Pfn {
    Pfn::new(number).expect("below 4 GiB")
}

fn nobody_asks(borrower: Borrower, frame: Pfn) -> Result<FrameBlock, Unmovable> {
    panic!("{borrower:?} is asked for {frame}");
}

#[test]
fn frames_have_the_owner_who_has_them_and_none_when_they_are_back() {
    with_region(64, |region, table| {
        let owners = || (0..64).map(|page| table.owner_of(frame(FIRST + page))).collect::<Vec<_>>();
        let idle = vec![FrameOwner::Reserved; 64];
        assert_eq!(owners(), idle);
        let block = region.take(3, FrameOwner::Dma, nobody_asks).expect("free");
        assert_eq!((block.first(), block.pages()), (frame(FIRST), 3));
        let lent = region.lend(SOMEBODY, FrameOwner::User).expect("free");
        assert_eq!(lent.first(), frame(FIRST + 63));
        let mut wanted = idle.clone();
        wanted[..3].fill(FrameOwner::Dma);
        wanted[63] = FrameOwner::User;
        assert_eq!(owners(), wanted);
        assert_eq!(region.use_of(frame(FIRST + 63)), Some(Lent));
        assert_eq!(region.give_back(block), Ok(()));
        assert_eq!(region.take_back(lent), Ok(()));
        assert_eq!(owners(), idle);
        assert_eq!(region.usage(), RegionUse { pages: 64, held: 0, lent: 0, largest: 64 });
    });
}

#[test]
fn what_is_not_the_regions_or_not_held_is_refused_by_name() {
    with_region(64, |region, table| {
        let below = table.hand_out(frame(FIRST), 1, FrameOwner::Dma);
        let error = GiveBackError::NotHeld { frame: frame(FIRST) };
        let (refused, block) = region.give_back(below).expect_err("nobody has it");
        assert_eq!(refused, error);
        let block = region.take_back(block).expect_err("nobody has borrowed it");
        let lent = region.lend(SOMEBODY, FrameOwner::User).expect("free");
        let (refused, lent) = region.give_back(lent).expect_err("a borrower's");
        assert_eq!(refused, GiveBackError::NotHeld { frame: frame(FIRST + 63) });
        assert_eq!(region.take_back(lent), Ok(()));
        let _ = block.leak();
        assert!(!region.contains(frame(FIRST - 1)) && region.contains(frame(FIRST)));
        assert!(region.contains(frame(FIRST + 63)) && !region.contains(frame(FIRST + 64)));
        assert_eq!(region.use_of(frame(FIRST - 1)), None);
    });
}

#[test]
fn lent_pages_in_the_way_are_moved_out_and_no_others() {
    with_region(8, |region, _| {
        let mut lent: Vec<FrameBlock> = (0..4)
            .map(|place| region.lend(Borrower::Movable { place }, FrameOwner::User).expect("free"))
            .collect();
        // Pages 4 to 7 are lent, the last to 0.
        let mut asked = Vec::new();
        let block = region.take(6, FrameOwner::Dma, |borrower, frame| {
            asked.push(borrower);
            let place = lent.iter().position(|block| block.first() == frame).expect("lent");
            Ok(lent.swap_remove(place))
        });
        let block = block.expect("all can be moved");
        assert_eq!((block.first(), block.pages()), (frame(FIRST), 6));
        assert_eq!(asked, [3, 2].map(|place| Borrower::Movable { place }));
        assert_eq!(region.usage(), RegionUse { pages: 8, held: 6, lent: 2, largest: 2 });
        assert_eq!(region.give_back(block), Ok(()));
        for block in lent {
            assert_eq!(region.take_back(block), Ok(()));
        }
        assert_eq!(region.usage(), RegionUse { pages: 8, held: 0, lent: 0, largest: 8 });
    });
}

#[test]
fn a_page_that_stays_makes_the_next_run_be_tried_and_at_last_is_named() {
    with_region(8, |region, _| {
        let lent: Vec<FrameBlock> =
            (0..8).map(|_| region.lend(SOMEBODY, FrameOwner::User).expect("free")).collect();
        assert_eq!(region.lend(SOMEBODY, FrameOwner::User), None);
        let pinned = Unmovable::Pinned { guards: 2 };
        let mut asked = Vec::new();
        let refused = region.take(2, FrameOwner::Dma, |_, frame| {
            asked.push(frame.number() - FIRST);
            Err(pinned)
        });
        let error = ContiguousError::Unmovable { pages: 2, frame: frame(FIRST), why: pinned };
        assert_eq!(refused, Err(error));
        assert_eq!(asked, [0, 2, 4, 6], "one of each run");
        // All that was claimed is lent again.
        assert_eq!(region.usage(), RegionUse { pages: 8, held: 0, lent: 8, largest: 8 });
        // Without memory to move to, no other run will do either.
        let none =
            Unmovable::NoMemory(crate::frames::AllocateError::Zero { owner: FrameOwner::User });
        asked.clear();
        let refused = region.take(2, FrameOwner::Dma, |_, frame| {
            asked.push(frame.number() - FIRST);
            Err(none)
        });
        let error = ContiguousError::Unmovable { pages: 2, frame: frame(FIRST), why: none };
        assert_eq!((refused, asked), (Err(error), vec![0]));
        // What its borrower gives back while he is asked is no refusal.
        let mut lent = lent.into_iter().rev();
        let block = region.take(2, FrameOwner::Dma, |_, frame| {
            let mine = lent.next().expect("lent");
            assert_eq!(mine.first(), frame);
            assert_eq!(region.take_back(mine), Ok(()));
            Err(Unmovable::Busy)
        });
        assert_eq!(block.map(|block| block.first()), Ok(frame(FIRST)));
    });
}

#[test]
fn what_cannot_be_had_says_who_has_it() {
    with_region(64, |region, _| {
        let take = |pages| region.take(pages, FrameOwner::Dma, nobody_asks);
        assert_eq!(take(0), Err(ContiguousError::Zero));
        assert_eq!(take(65), Err(ContiguousError::TooLarge { pages: 65, region: 64 }));
        let block = take(40).expect("free");
        let usage = RegionUse { pages: 64, held: 40, lent: 0, largest: 16 };
        assert_eq!(take(32), Err(ContiguousError::Exhausted { pages: 32, usage }));
        let said = ContiguousError::Exhausted { pages: 32, usage }.to_string();
        assert_eq!(
            said,
            "no run of 32 contiguous pages: buffers have 40 of 64, 0 are lent, at most 16 in a run; raise it with cma=<size>"
        );
        assert_eq!(region.give_back(block), Ok(()));
        assert!(
            Contiguous::<Mutexes>::new(
                FrameTable::new(&[], frame(FIRST)).expect("of nothing"),
                frame(FIRST),
                Region::new(&mut [Word::default()], &mut [SOMEBODY; 1]).expect("room"),
                Places::new(&mut []),
            )
            .is_none(),
            "not in the table"
        );
    });
}

/// S101: who holds a guard keeps the page where it is, and who does not finds it wherever it is.
#[test]
fn a_pinned_page_stays_and_others_move() {
    let (old, new) = (frame(FIRST), frame(FIRST + 9));
    let mut places = [Place::default(); 2];
    let mut places = Places::new(&mut places);
    assert_eq!(places.vacant(), Some(0));
    assert_eq!(places.occupy(0, old), Ok(()));
    assert_eq!(places.occupy(0, new), Err(NoPlace));
    assert_eq!((places.vacant(), places.counts()), (Some(1), (1, 1)));
    assert_eq!(places.pin(0), Ok(old));
    let relocate = |places: &mut Places<'_>, place, from| {
        let mut copied = false;
        let moved = places.relocate(place, from, new, || copied = true);
        assert_eq!(moved.is_ok(), copied, "copied if it moves, and not else");
        moved
    };
    for guards in [2, 1] {
        let pinned = Err(Unmovable::Pinned { guards });
        assert_eq!(relocate(&mut places, 0, old), pinned);
        assert_eq!(places.vacate(0), Err(Unmovable::Pinned { guards }));
        assert_eq!(places.unpin(0), Ok(()));
    }
    assert_eq!(places.unpin(0), Err(NoPlace));
    assert_eq!(relocate(&mut places, 0, new), Err(Unmovable::Busy), "it is elsewhere");
    assert_eq!(relocate(&mut places, 0, old), Ok(()));
    assert_eq!(places.pin(0), Ok(new));
    assert_eq!(places.unpin(0), Ok(()));
    assert_eq!(places.vacate(0), Ok(new));
    for place in [0, 1, 2, u32::MAX] {
        assert_eq!(places.pin(place), Err(NoPlace));
        assert_eq!(places.unpin(place), Err(NoPlace));
        assert_eq!(places.vacate(place), Err(Unmovable::Busy));
        assert_eq!(relocate(&mut places, place, old), Err(Unmovable::Busy));
    }
}

/// Pages of 64, with pins.
fn with_pins(test: impl FnOnce(&mut Region<'_>)) {
    let mut words = vec![Word::default(); 2];
    let (mut borrowers, mut pins) = (vec![SOMEBODY; 64], vec![7; 64]);
    let region = Region::new(&mut words, &mut borrowers).expect("room");
    test(&mut region.with_pins(&mut pins));
}

#[test]
fn only_a_lent_page_that_nobody_has_claimed_can_be_pinned_s101() {
    with_pins(|region| {
        assert_eq!(region.pin(63), Err(Free));
        assert_eq!(region.pin(64), Err(Free));
        assert_eq!(region.take(2), Some(0));
        assert_eq!(region.pin(1), Err(Held));
        assert_eq!(region.lend(SOMEBODY), Some(63));
        assert_eq!((region.pin(63), region.pin(63), region.pins(63)), (Ok(()), Ok(()), 2));
        assert_eq!(region.claim(1, 63), Some(63));
        assert_eq!(region.pin(63), Err(Claimed));
        assert_eq!((region.unpin(63), region.unpin(63)), (Ok(false), Ok(false)));
        assert_eq!(region.unpin(63), Err(Claimed), "no pin is left");
    });
}

/// The borrower may go before the device is done.
#[test]
fn a_pinned_page_that_was_given_back_is_nobody_s_until_it_is_unpinned_s101() {
    with_pins(|region| {
        assert_eq!(region.lend(SOMEBODY), Some(63));
        assert_eq!((region.pin(63), region.pin(63)), (Ok(()), Ok(())));
        assert_eq!(region.take_back(63), Ok(false));
        assert_eq!(region.use_of(63), Some(Lent));
        assert_eq!((region.take(64), region.lend(SOMEBODY)), (None, Some(62)));
        assert_eq!(region.unpin(63), Ok(false));
        assert_eq!(region.unpin(63), Ok(true));
        assert_eq!(region.use_of(63), Some(Free));
        assert_eq!(region.take_back(62), Ok(true));
        assert_eq!(region.take(64), Some(0));
    });
}

/// Of memory whose last page is just being asked for, none stays pinned; and what was unpinned last is the region's again.
#[test]
fn of_pages_that_cannot_all_be_pinned_none_is_s101() {
    with_region(8, |region, table| {
        let take = |pages| region.take(pages, FrameOwner::Dma, nobody_asks).expect("free");
        let _held = [take(4), take(2)];
        let mut lent = [7, 6].map(|_| Some(region.lend(SOMEBODY, FrameOwner::User).expect("free")));
        let mut asked = Vec::new();
        let refused = region.take(1, FrameOwner::Dma, |_, at| {
            asked.push(at);
            if at == frame(FIRST + 7) {
                assert_eq!(region.pin(frame(FIRST + 6), 2), Err(at), "a buffer is to lie there");
            }
            Err(Unmovable::Busy)
        });
        assert_eq!(asked, [frame(FIRST + 6), frame(FIRST + 7)]);
        let why = Unmovable::Busy;
        let error = ContiguousError::Unmovable { pages: 1, frame: frame(FIRST + 6), why };
        assert_eq!(refused, Err(error));
        let out = |lent: &mut [Option<FrameBlock>]| {
            region.take(1, FrameOwner::Dma, |_, at| {
                let place = lent
                    .iter_mut()
                    .find(|block| block.as_ref().is_some_and(|block| block.first() == at));
                Ok(place.and_then(Option::take).expect("lent"))
            })
        };
        let block = out(&mut lent).expect("nobody has pinned it");
        assert_eq!(block.first(), frame(FIRST + 6));
        assert_eq!(region.pin(frame(FIRST + 7), 1), Ok(()));
        let mapped = Unmovable::Mapped { devices: 1 };
        let error = ContiguousError::Unmovable { pages: 1, frame: frame(FIRST + 7), why: mapped };
        assert_eq!(out(&mut lent), Err(error));
        let [Some(last), None] = lent else { panic!("{lent:?}") };
        assert_eq!(region.take_back(last), Ok(()));
        assert_eq!(table.owner_of(frame(FIRST + 7)), FrameOwner::User, "a device works on it");
        region.unpin(frame(FIRST + 7), 1);
        assert_eq!(table.owner_of(frame(FIRST + 7)), FrameOwner::Reserved);
        assert_eq!(region.use_of(frame(FIRST + 7)), Some(Free));
    });
}
