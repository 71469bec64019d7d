//! Every set of windows that a small space can hold, against a model of pages.

use std::collections::{HashSet, VecDeque};

use super::*;

const FIRST: u32 = 3;
const PAGES: u32 = 6;
const CAPACITY: usize = 3;

type Small = Windows<u32, CAPACITY>;
/// Windows as the model has them: first page, pages, and whether it is live.
type Model = Vec<(u32, u32, bool)>;

fn pages(first: u32, count: u32) -> PageRange {
    PageRange::from_numbers(first, count).expect("a range")
}

/// The set that `model` describes, made in an order that is not that of addresses.
fn made(model: &Model) -> Small {
    let mut windows = Small::new(OwnedRange::mint(pages(FIRST, PAGES)));
    for &(first, count, live) in model.iter().rev() {
        let range = windows.reserve(pages(first, count)).expect("free, by the model");
        assert_eq!(range.pages(), pages(first, count));
        if live {
            windows.publish(range.start(), first * 100 + count).expect("reserved just now");
        }
    }
    windows
}

fn contents(windows: &Small) -> Model {
    let used = windows.slots[..windows.len].iter();
    used.map(|slot| (slot.pages.first(), slot.pages.count(), slot.live.is_some())).collect()
}

fn reserve_says(model: &Model, first: u32, count: u32) -> Result<Model, WindowError> {
    let (wanted, whole) = (pages(first, count), pages(FIRST, PAGES));
    if count == 0 {
        return Err(WindowError::Empty);
    }
    let takes = |of: &(u32, u32, bool), page: u32| page >= of.0 && page < of.0 + of.1;
    if (first..first + count).any(|page| !(FIRST..FIRST + PAGES).contains(&page)) {
        return Err(WindowError::Outside { wanted, whole });
    }
    for window in model {
        if (first..first + count).any(|page| takes(window, page)) {
            return Err(WindowError::Taken { wanted, by: pages(window.0, window.1) });
        }
    }
    if model.len() == CAPACITY {
        return Err(WindowError::Full { capacity: CAPACITY });
    }
    let mut grown = model.clone();
    grown.push((first, count, false));
    grown.sort_unstable();
    Ok(grown)
}

/// What can come of `model` by one call, each made and compared.
fn neighbours(model: &Model) -> Vec<Model> {
    let mut found = Vec::new();
    for first in FIRST - 1..=FIRST + PAGES {
        for count in 0..=PAGES + 1 {
            let mut windows = made(model);
            let reserved = windows.reserve(pages(first, count));
            let says = reserve_says(model, first, count);
            assert_eq!(reserved.map(|range| range.pages()).err(), says.clone().err(), "{model:?}");
            found.extend(says.into_iter().inspect(|grown| assert_eq!(&contents(&windows), grown)));
        }
    }
    for page in FIRST - 1..=FIRST + PAGES {
        let start = pages(page, 1).start();
        let at = model.iter().position(|window| window.0 == page);
        let changed = |to: bool| {
            let mut next = model.clone();
            next[at?].2 = to;
            (model[at?].2 != to).then_some(next)
        };
        let mut windows = made(model);
        let published = windows.publish(start, page * 100 + at.map_or(0, |at| model[at].1));
        assert_eq!(published.is_ok(), changed(true).is_some());
        found.extend(changed(true).inspect(|next| assert_eq!(&contents(&windows), next)));
        let mut windows = made(model);
        let taken = windows.take(start);
        assert_eq!(taken.ok(), changed(false).map(|next| page * 100 + next[at.expect("it")].1));
        found.extend(changed(false).inspect(|next| assert_eq!(&contents(&windows), next)));
        finds(model, page);
    }
    for (index, &(first, count, live)) in model.iter().enumerate() {
        let mut windows = made(model);
        let released = windows.release(OwnedRange::mint(pages(first, count)));
        assert_eq!(released.is_ok(), !live);
        let mut less = model.clone();
        if !live {
            less.remove(index);
        }
        assert_eq!(contents(&windows), less);
        found.push(less);
        let part = OwnedRange::mint(pages(first, count + 1));
        assert!(windows.release(part).is_err(), "other pages than were given out");
    }
    found
}

fn finds(model: &Model, page: u32) {
    let windows = made(model);
    let lies_in =
        |&&(first, count, live): &&(u32, u32, bool)| live && page >= first && page < first + count;
    assert_eq!(windows.unfinished(), model.iter().filter(|window| !window.2).count());
    let wanted = model.iter().find(lies_in).map(|&(first, count, _)| (first, count));
    for offset in [0, 0xfff] {
        let address = VirtAddr::new((page << 12) + offset);
        let found = windows.find(address);
        assert_eq!(found.map(|(pages, _)| (pages.first(), pages.count())), wanted);
        assert_eq!(found.map(|(_, &payload)| payload), wanted.map(|(f, c)| f * 100 + c));
    }
}

/// S118: windows never overlap and never leave the space, and one that is being made or removed is not found.
#[test]
fn every_call_on_every_set_of_windows_does_what_the_model_says() {
    let mut seen = HashSet::from([Model::new()]);
    let mut left = VecDeque::from([Model::new()]);
    while let Some(model) = left.pop_front() {
        for next in neighbours(&model) {
            if seen.insert(next.clone()) {
                left.push_back(next);
            }
        }
    }
    // All ways to lay up to three windows into six pages, each in one of two states.
    assert_eq!(seen.len(), 1 + 21 * 2 + 70 * 4 + 84 * 8);
}

#[test]
fn a_window_is_taken_only_by_leave_of_who_judges_it() {
    let mut windows = made(&vec![(4, 2, true)]);
    let start = pages(4, 1).start();
    let no = NoWindow { address: VirtAddr::new(42) };
    assert_eq!(
        windows.take_if(start, |&payload| if payload == 402 { Err(no) } else { Ok(()) }),
        Err(no)
    );
    assert_eq!(windows.first(), Some(start));
    assert_eq!(windows.take_if::<NoWindow>(start, |_| Ok(())), Ok(402));
    assert_eq!((windows.first(), windows.len(), windows.is_empty()), (None, 1, false));
}
