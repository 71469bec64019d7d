//! Every state, every request: tiny spaces against the model, and every short history.

use std::collections::BTreeSet;

use super::model::Model;
use super::*;

/// Where the tiny spaces lie: an odd page, so that alignment and offset differ.
const FIRST: u32 = 0xc_0001;

/// A copy of the books in memory of its own.
fn fork<'a>(space: &VaSpace<'_, Record>, memory: &'a mut Memory) -> VaSpace<'a, Record> {
    let mut copy = super::space(memory, space.range().first(), space.range().count());
    copy.copy_from(space);
    copy
}

/// A space that holds exactly the areas of `model`, made through the front door.
fn build<'a>(model: &Model, memory: &'a mut Memory) -> VaSpace<'a, Record> {
    let mut built = space(memory, model.first, model.end - model.first);
    for (&first, &length) in &model.areas {
        let exactly = PageRange::from_numbers(first, length).expect("pages of the space");
        let window = Some(Window::of_pages(exactly));
        let _ = taken(&mut built, &Request { window, ..pages(length - 1) });
    }
    built
}

/// Compares everything that can be asked without changing anything.
fn assert_agrees(space: &VaSpace<'_, Record>, model: &Model) {
    space.check().expect("sound books");
    let seen: Vec<_> =
        space.iter().map(|area| (area.usable.first(), area.usable.count() + 1)).collect();
    let expected: Vec<_> = model.areas.iter().map(|(&first, &length)| (first, length)).collect();
    assert_eq!(seen, expected);
    assert_eq!((space.largest_hole(), space.free_pages()), model.free());
    assert_eq!(space.area_count() as usize, model.areas.len());
}

/// Asks for `count` pages at an alignment in a window, and compares base, guard and the books. Gives the area back,
/// which must restore the state; gives the state that the request led to.
fn try_request(
    space: &mut VaSpace<'_, Record>,
    model: &Model,
    count: u32,
    order: u32,
    (low, high): (u32, u32),
) -> Option<Model> {
    let range = PageRange::from_numbers(low, high - low).expect("pages of the address space");
    let request = Request {
        window: Some(Window::of_pages(range)),
        alignment: Alignment::Order(order),
        ..pages(count)
    };
    let expected = model.lowest_fit(count + 1, 1 << order, low, high);
    match space.reserve(&request) {
        Ok(area) => {
            assert_eq!(Some(area.pages().first()), expected, "{request:?} in {model:?}");
            let mut next = model.clone();
            next.areas.insert(area.pages().first(), count + 1);
            assert_agrees(space, &next);
            space.release(area).expect("the area just taken");
            assert_agrees(space, model);
            Some(next)
        }
        Err(refusal) => {
            assert_eq!(expected, None, "{request:?} in {model:?}: {refusal}");
            let largest_hole = model.free().0;
            assert_eq!(refusal, ReserveError::NoSpace { wanted: count + 1, order, largest_hole });
            None
        }
    }
}

/// From the empty space of `pages` pages, every state that any requests reach; in each, every size, alignment up to
/// four pages and window, also ones that overhang the space.
fn every_request_in_every_state(pages: u32) -> (usize, usize) {
    let mut seen = BTreeSet::from([Model::new(FIRST, pages)]);
    let mut to_do: Vec<_> = seen.iter().cloned().collect();
    let mut requests = 0;
    let mut memory = storage_for(pages);
    while let Some(model) = to_do.pop() {
        let mut space = build(&model, &mut memory);
        assert_agrees(&space, &model);
        for low in FIRST - 1..=FIRST + pages {
            for high in low..=FIRST + pages + 1 {
                for (count, order) in (1..=pages).flat_map(|n| (0..=2).map(move |o| (n, o))) {
                    requests += 1;
                    let next = try_request(&mut space, &model, count, order, (low, high));
                    if let Some(next) = next.filter(|next| !seen.contains(next)) {
                        seen.insert(next.clone());
                        to_do.push(next);
                    }
                }
            }
        }
    }
    (seen.len(), requests)
}

#[test]
fn s1_s7_every_request_in_every_state_of_a_tiny_space_goes_where_the_model_says() {
    let mut total = (0, 0);
    for pages in 1..=9 {
        let (states, requests) = every_request_in_every_state(pages);
        total = (total.0 + states, total.1 + requests);
        // An arrangement is a free page or an area of two or more, and then an arrangement of the rest.
        let arrangements = 1_usize << pages.saturating_sub(1);
        assert_eq!(states, arrangements, "every arrangement of areas is reached");
    }
    let (states, requests) = total;
    println!(
        "states: {states} of spaces of 1 to 9 pages, all that can be reached; {requests} requests"
    );
}

/// Every history of `depth` more steps: reserve one to three pages, on any page or an even one, or free any area.
fn every_history(space: &VaSpace<'_, Record>, model: &Model, depth: u32) -> usize {
    assert_agrees(space, model);
    if depth == 0 {
        return 1;
    }
    let mut memory = storage_for(space.range().count());
    let mut histories = 1;
    for (count, order) in [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1)] {
        let mut space = fork(space, &mut memory);
        let request = Request { alignment: Alignment::Order(order), ..pages(count) };
        let request = if order == 0 { pages(count) } else { request };
        let expected = model.lowest_fit(count + 1, 1 << order, 0, u32::MAX);
        let got = space.reserve(&request).ok().map(|area| area.pages().first());
        assert_eq!(got, expected, "{request:?} in {model:?}");
        if let Some(base) = expected {
            let mut model = model.clone();
            model.areas.insert(base, count + 1);
            histories += every_history(&space, &model, depth - 1);
        }
    }
    for (&first, &length) in &model.areas {
        let mut space = fork(space, &mut memory);
        let mut model = model.clone();
        model.areas.remove(&first);
        space.release(minted(first, length - 1)).expect("an area of the model");
        histories += every_history(&space, &model, depth - 1);
    }
    histories
}

#[test]
fn s1_every_short_history_in_a_tiny_space_goes_as_in_the_model() {
    const DEPTH: u32 = 6;
    for pages in [7, 9] {
        let mut memory = storage_for(pages);
        let space = space(&mut memory, FIRST, pages);
        let histories = every_history(&space, &Model::new(FIRST, pages), DEPTH);
        println!(
            "states: {histories} histories of up to {DEPTH} steps in a space of {pages} pages"
        );
        assert!(histories > 5_000);
    }
}

/// The right to pages that are out.
fn minted(first: u32, count: u32) -> OwnedRange {
    OwnedRange::mint(PageRange::from_numbers(first, count).expect("pages"))
}

/// A walk that is the same on every run, over spaces whose indices have one to several levels.
#[test]
fn s1_long_walks_agree_with_the_model_at_sizes_around_the_indices_limits() {
    for pages in [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 64, 65, 255, 257, 1023, 1025, 1057] {
        let mut memory = storage_for(pages);
        let mut space = space(&mut memory, FIRST, pages);
        let mut model = Model::new(FIRST, pages);
        let mut areas: Vec<OwnedRange> = Vec::new();
        let mut state = 0x2545_f491_u32 ^ pages;
        let mut random = |below: u32| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % below
        };
        for step in 0..1000 {
            let any = random(u32::try_from(areas.len()).expect("few areas").max(1)) as usize;
            match random(10) {
                0..4 if !areas.is_empty() => {
                    let area = areas.swap_remove(any);
                    model.areas.remove(&area.pages().first());
                    space.release(area).expect("an area of the space");
                }
                4 if !areas.is_empty() => {
                    let (area, more) = (&mut areas[any], 1 + random(4));
                    let fits = model.free_behind(area.pages().first()) >= more;
                    let added = space.extend(area, more);
                    assert_eq!(added.is_some(), fits, "{area:?} and {more} more at step {step}");
                    if let Some(added) = added {
                        *model.areas.get_mut(&area.pages().first()).expect("an area") += more;
                        *area = minted(area.pages().first(), area.count() + more);
                        assert_eq!(added.count(), more);
                    }
                }
                5 if !areas.is_empty() && areas[any].count() > 1 => {
                    let (first, count) = (areas[any].pages().first(), areas[any].count());
                    let kept = 1 + random(count - 1);
                    let gone = minted(first + kept, count - kept);
                    areas[any] = minted(first, kept);
                    space.shrink(&areas[any], gone).expect("the end of an area");
                    model.areas.insert(first, kept + 1);
                }
                kind => {
                    let (count, order) = (1 + random(pages.div_ceil(8)), random(4));
                    let (low, high) = match kind {
                        6 => (FIRST + random(pages), FIRST + pages - random(3)),
                        _ => (0, u32::MAX),
                    };
                    let window = PageRange::from_numbers(low, high.saturating_sub(low));
                    let request = Request {
                        window: window.filter(|_| kind == 6).map(Window::of_pages),
                        alignment: Alignment::Order(if kind > 7 { 0 } else { order }),
                        ..super::pages(count)
                    };
                    let align = if kind > 7 { 1 } else { 1 << order };
                    let expected = model.lowest_fit(count + 1, align, low, high);
                    let area = space.reserve(&request);
                    let base = area.as_ref().ok().map(|area| area.pages().first());
                    assert_eq!(base, expected, "{request:?} at step {step} of {pages} pages");
                    if let Ok(area) = area {
                        model.areas.insert(area.pages().first(), count + 1);
                        areas.push(area);
                    }
                }
            }
            if pages < 64 || step % 16 == 0 {
                assert_agrees(&space, &model);
            }
        }
        assert_agrees(&space, &model);
    }
}
