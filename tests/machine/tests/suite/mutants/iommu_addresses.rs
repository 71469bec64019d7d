//! Wrong ways to give device addresses: out of order, beside the window, by less than was asked for, taken back in part, or twice at once.

use super::{Goes, Verdict, board, same};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PageRange},
    frames::Freed,
    iommu::{
        IovaError,
        iova::{IovaSpace, window},
    },
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

/// What goes wrong between two who end the same mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twice {
    Right,
    FindsOnly,
    ShortCutDoesNotAsk,
    KeptWhenItStays,
    KeptWhenItIsFree,
    ClosesToAll,
}

/// Claims of runs, which go wrong.
struct Claims {
    space: IovaSpace<'static>,
    wrong: Twice,
    kept: Vec<PageRange>,
}

impl Claims {
    fn claim(&mut self, run: PageRange) -> Result<PageRange, IovaError> {
        let start = DmaAddr::new(run.start().raw());
        if self.kept.contains(&run) {
            return Err(IovaError::Claimed { start });
        }
        let claimed = if self.wrong == Twice::FindsOnly {
            self.space.find(start, run.count())
        } else {
            self.space.claim(start, run.count())
        };
        if claimed.is_ok()
            && [Twice::KeptWhenItStays, Twice::KeptWhenItIsFree].contains(&self.wrong)
        {
            self.kept.push(run);
        }
        claimed
    }

    fn stays(&mut self, run: PageRange) {
        self.space.disclaim(run);
        if self.wrong != Twice::KeptWhenItStays {
            self.kept.clear();
        }
    }

    fn ends(&mut self, run: PageRange) -> bool {
        if self.wrong != Twice::KeptWhenItIsFree {
            self.kept.clear();
        }
        self.space.release(run) == Freed::Yes
    }

    fn ends_in_one_go(&mut self, run: PageRange, is_another_claimed: bool) -> bool {
        match self.wrong {
            Twice::ShortCutDoesNotAsk => self.space.release(run) == Freed::Yes,
            Twice::ClosesToAll if is_another_claimed => false,
            _ => self.space.release_unclaimed(run) == Freed::Yes,
        }
    }
}

fn take_of(claims: &mut Claims, pages: u32) -> Result<PageRange, String> {
    claims.space.take(pages).map_err(|error| error.to_string())
}

/// S81, S109: who claims a mapping ends it, and nobody else does meanwhile, by whatever way; its neighbours end as ever.
fn one_alone_ends_a_mapping(wrong: &impl Goes<Twice>) -> Verdict {
    let window = window(DmaAddr::new(0x1003 * PAGE_SIZE), 0x1000 * PAGE_SIZE).expect("a window");
    let words = vec![Word::FREE; IovaSpace::words_for(window)].leak();
    let space = IovaSpace::new(window, words).expect("as many words as it takes");
    let mut claims = Claims { space, wrong: wrong.how(), kept: Vec::new() };
    for pages in [1, 2, 16, 40, 100] {
        let mut take = || take_of(&mut claims, pages);
        let (before, run, behind) = (take()?, take()?, take()?);
        let start = DmaAddr::new(run.start().raw());
        let twice = Err(IovaError::Claimed { start });
        same("the first claim", &claims.claim(run), &Ok(run))?;
        same("the second claim", &claims.claim(run), &twice)?;
        same("the short way", &claims.ends_in_one_go(run, false), &false)?;
        same("it is taken still", &claims.space.find(start, pages), &Ok(run))?;
        same("the run before it", &claims.ends_in_one_go(before, true), &true)?;
        same("the run behind it", &claims.ends_in_one_go(behind, true), &true)?;
        claims.stays(run);
        // Two at once, of which the first ends first.
        let other = take_of(&mut claims, pages)?;
        same("another's claim", &claims.claim(other), &Ok(other))?;
        same("a claim of what stayed", &claims.claim(run), &Ok(run))?;
        same("the other's end", &claims.ends(other), &true)?;
        same("the third claim", &claims.claim(run), &twice)?;
        same("the short way of the claimed", &claims.ends_in_one_go(run, false), &false)?;
        same("the claimed run's end", &claims.ends(run), &true)?;
        same("its end once more", &claims.ends(run), &false)?;
        same("a claim of what is free", &claims.claim(run), &Err(IovaError::Free { start }))?;
        let again = [(); 3].map(|()| claims.space.take(pages));
        same("whose the addresses are", &again, &[Ok(before), Ok(run), Ok(behind)])?;
        same("the next owner's claim", &claims.claim(run), &Ok(run))?;
        same("the next owner's end", &claims.ends(run), &true)?;
        for run in [before, behind] {
            same("the neighbour's short way", &claims.ends_in_one_go(run, false), &true)?;
        }
    }
    Ok(())
}

board! {
    one_alone_ends_a_mapping(Twice::Right) {
        finds_and_does_not_claim: "S81", "two who end a mapping both find it", Twice::FindsOnly;
        ends_what_another_has_claimed: "S81", "the short way does not ask whether somebody else is ending it", Twice::ShortCutDoesNotAsk;
        keeps_the_claim_of_what_stays: "S22", "what stayed out of use is never to be claimed again", Twice::KeptWhenItStays;
        keeps_the_claim_of_what_is_free: "S109", "the claim outlives the mapping, and meets the next owner", Twice::KeptWhenItIsFree;
        ends_no_neighbour: "S109", "while one mapping is claimed no other ends by the short way", Twice::ClosesToAll;
    }
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
