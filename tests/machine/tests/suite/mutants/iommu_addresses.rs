//! Wrong ways to give device addresses: out of order, beside the window, by less than was asked for, taken back in part.

use super::{Goes, Verdict, board, same};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PageRange},
    frames::Freed,
    iommu::iova::{IovaSpace, window},
    pool::Word,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    None,
    OrderIgnored,
    HighestFirst,
    OnePageBehind,
    OnePageTooFew,
    RoundedDown,
    FreesAPart,
    FreesTwice,
    AlignedInTheWindow,
}

/// The right space, or a list of who has which page, which goes wrong.
enum Space {
    Right(IovaSpace<'static>),
    Other { wrong: Wrong, window: PageRange, holders: Vec<Option<u32>>, last: u32 },
}

impl Space {
    fn new(wrong: Wrong, window: PageRange) -> Self {
        if wrong == Wrong::None {
            let words = vec![Word::FREE; IovaSpace::words_for(window)].leak();
            return Self::Right(IovaSpace::new(window, words).expect("as many words as it takes"));
        }
        let pages = match wrong {
            Wrong::OnePageBehind => window.count() + 1,
            Wrong::OnePageTooFew => window.count() - 1,
            _ => window.count(),
        };
        Self::Other { wrong, window, holders: vec![None; pages as usize], last: 0 }
    }

    /// The first page of a run for so many bytes.
    fn take(&mut self, bytes: u32) -> Option<u32> {
        let pages = bytes.div_ceil(PAGE_SIZE);
        let (wrong, window, holders, last) = match self {
            Self::Right(space) => return space.take(pages).ok().map(PageRange::first),
            Self::Other { wrong, window, holders, last } => (*wrong, *window, holders, last),
        };
        let pages = if wrong == Wrong::RoundedDown { bytes / PAGE_SIZE } else { pages };
        let step = if wrong == Wrong::OrderIgnored { 1 } else { pages.next_power_of_two() };
        let base = window.first();
        let fits = |&first: &u32| {
            let at = if wrong == Wrong::AlignedInTheWindow { first } else { base + first };
            let run = first as usize..(first + pages) as usize;
            at.is_multiple_of(step)
                && holders.get(run).is_some_and(|run| run.iter().all(Option::is_none))
        };
        let mut all = 0..u32::try_from(holders.len()).expect("a few");
        let first = if wrong == Wrong::HighestFirst { all.rfind(fits) } else { all.find(fits) }?;
        *last += 1;
        holders[first as usize..(first + pages) as usize].fill(Some(*last));
        Some(base + first)
    }

    fn give_back(&mut self, first: u32, pages: u32) -> bool {
        let (wrong, window, holders) = match self {
            Self::Right(space) => {
                let run = PageRange::from_numbers(first, pages).expect("pages");
                return space.release(run) == Freed::Yes;
            }
            Self::Other { wrong, window, holders, .. } => (*wrong, *window, holders),
        };
        let from = (first - window.first()) as usize;
        let to = from + pages as usize;
        let holder = holders[from];
        let is_whole = (from == 0 || holders[from - 1] != holder)
            && holders[from..to].iter().all(|other| *other == holder)
            && holders.get(to).is_none_or(|other| *other != holder);
        let is_free = holder.is_none() && wrong != Wrong::FreesTwice;
        if is_free || !is_whole && wrong != Wrong::FreesAPart {
            return false;
        }
        holders[from..to].fill(None);
        true
    }
}

/// S108: the lowest run that is aligned to its order as an address, of all of the window and no more, for as many pages as it
/// takes; and only whole runs come back, once.
fn addresses_are_given_in_order_and_taken_back_whole(wrong: &impl Goes<Wrong>) -> Verdict {
    const PAGES: u32 = 45;
    let window = window(DmaAddr::new(0x1003 * PAGE_SIZE), PAGES * PAGE_SIZE).expect("a window");
    let mut space = Space::new(wrong.how(), window);
    let page = |bytes| bytes * PAGE_SIZE;
    for (what, bytes, wanted) in [
        ("one page", page(1), 0x1003),
        ("three pages", page(3), 0x1004),
        ("the hole behind them", page(1), 0x1007),
        ("a page and a byte", page(1) + 1, 0x1008),
        ("a page behind that", page(1), 0x100a),
        ("eight pages", page(8), 0x1010),
    ] {
        same(what, &space.take(bytes), &Some(wanted))?;
    }
    same("the first page of three", &space.give_back(0x1004, 1), &false)?;
    same("the last two of three", &space.give_back(0x1005, 2), &false)?;
    same("all three", &space.give_back(0x1004, 3), &true)?;
    same("all three again", &space.give_back(0x1004, 3), &false)?;
    let rest: Vec<u32> = std::iter::from_fn(|| space.take(page(1))).take(100).collect();
    let taken = [0x1003, 0x1007, 0x1008, 0x1009, 0x100a].into_iter().chain(0x1010..0x1018);
    let taken: Vec<u32> = taken.collect();
    let free = (0x1003..0x1003 + PAGES).filter(|page| !taken.contains(page));
    same("all that is left, page by page", &rest, &free.collect())
}

board! {
    addresses_are_given_in_order_and_taken_back_whole(Wrong::None) {
        ignores_the_order: "S108", "a run begins at any free page", Wrong::OrderIgnored;
        gives_the_highest_addresses: "S108", "the last run that fits is taken", Wrong::HighestFirst;
        goes_one_page_past_the_window: "S108", "the window ends a page too late", Wrong::OnePageBehind;
        leaves_out_the_last_page: "S108", "the window ends a page too early", Wrong::OnePageTooFew;
        rounds_the_size_down: "S109", "a part of a page at the end has no address", Wrong::RoundedDown;
        takes_back_a_part: "S108", "a part of a run is given back", Wrong::FreesAPart;
        takes_back_twice: "S108", "what is free is given back", Wrong::FreesTwice;
        aligns_in_the_window: "S109", "runs are aligned from the window's start on, not as addresses", Wrong::AlignedInTheWindow;
    }
}
