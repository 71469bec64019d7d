//! The tree alone, against a list of holes, and its audit against slots that say something else.

use super::*;

/// S1: whatever comes and goes, in the tree and aside.
#[test]
fn the_lowest_hole_is_found_wherever_it_stands() {
    const PAGES: u32 = 70;
    let mut words = vec![0; HoleTree::words(PAGES)];
    let mut tree = HoleTree::new(&mut words, PAGES);
    let mut free = [false; PAGES as usize];
    let mut chance = 1_u32;
    let mut asides = 0;
    for step in 0..100_000 {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let holes = runs(&free);
        let (at, many) = ((chance >> 8) % PAGES, (chance >> 16) % [3, 9][step / 500 % 2] + 1);
        match chance >> 28 {
            0..8 => {
                let end = PAGES.min(at + many);
                let touches = |&(page, length): &(u32, u32)| page <= end && page + length >= at;
                if !holes.iter().any(touches) {
                    if chance & 1 == 0 {
                        tree.set(at, end - at);
                    } else {
                        tree.add(at, end - at);
                    }
                    free[at as usize..end as usize].fill(true);
                }
            }
            8 => tree.settle(),
            9..12 => {
                if let Some(&(page, length)) = holes.get(at as usize % 16) {
                    let is_aside = tree.is_aside(page);
                    assert_eq!(tree.remove(page), is_aside, "at step {step}");
                    free[page as usize..][..length as usize].fill(false);
                }
            }
            12 => {
                if let Some(&(page, length)) = holes.get(at as usize % 16) {
                    tree.set(page, length - 1);
                    free[(page + length) as usize - 1] = false;
                }
            }
            _ => {
                let lowest = holes.iter().find(|&&(_, length)| length >= many);
                let expected = lowest.map(|&(page, _)| page);
                assert_eq!(tree.lowest(many), expected, "{many} at step {step}");
            }
        }
        let holes = runs(&free);
        assert_eq!(tree.audit(PAGES).map(|holes| holes as usize), Ok(holes.len()), "step {step}");
        let longest = holes.iter().map(|&(_, length)| length).max();
        assert_eq!(tree.longest(), longest.unwrap_or(0), "at step {step}");
        for &(page, length) in &holes {
            assert_eq!(tree.starting_at(page), length, "page {page} at step {step}");
        }
        asides += u32::from(tree.aside != NONE);
    }
    assert!(asides > 10_000, "hardly one stood aside: {asides}");
}

/// The holes of these pages, by their first and how many they are.
fn runs(free: &[bool]) -> Vec<(u32, u32)> {
    let mut holes: Vec<(u32, u32)> = Vec::new();
    for (page, _) in (0..).zip(free).filter(|&(_, &is_free)| is_free) {
        match holes.last_mut() {
            Some((first, length)) if *first + *length == page => *length += 1,
            _ => holes.push((page, 1)),
        }
    }
    holes
}

/// In spaces that fill the lowest level, and in others.
#[test]
fn a_slot_that_holds_too_much_or_an_inner_one_that_holds_too_little_is_found() {
    for pages in [1, 4, 5, 16, 17, 64, 65] {
        let mut words = vec![0; HoleTree::words(pages)];
        let mut tree = HoleTree::new(&mut words, pages);
        let starts = (0..pages).step_by(3);
        starts.clone().for_each(|page| tree.set(page, page % 7 + 1));
        assert_eq!(
            tree.audit(pages).map(|holes| holes as usize),
            Ok(starts.count()),
            "{pages} pages"
        );
        let inner = tree.first_leaf * FAN_OUT;
        for index in 0..inner + pages.next_multiple_of(FAN_OUT) {
            let too_much = audit_with(&mut tree, pages, index, |_| 1000);
            assert_eq!(too_much, Err(index / FAN_OUT), "{pages} pages, slot {index}");
            let too_little = audit_with(&mut tree, pages, index, |length| length.saturating_sub(1));
            let was_empty = *place(&mut tree, index) == 0;
            assert!(
                index >= inner || was_empty || too_little.is_err(),
                "{pages} pages, slot {index}"
            );
        }
    }
}

/// What is above other pages does not matter, and all else does.
#[test]
fn of_a_part_each_slot_above_it_is_looked_at() {
    const PAGES: u32 = 65;
    let mut words = vec![0; HoleTree::words(PAGES)];
    let mut tree = HoleTree::new(&mut words, PAGES);
    tree.set(2, 5);
    tree.set(20, 3);
    for asked in 0..=PAGES {
        let holes = u32::from(asked > 0) + u32::from(asked > 20);
        assert_eq!(tree.audit(asked), Ok(holes), "of {asked} pages");
        for (first, span) in [(0, 256), (1, 64), (5, 16), (21, 4)] {
            for group in first..groups_at(first).min(PAGES.div_ceil(span)) + first {
                let is_asked_for = asked > 64 || group - first < asked.div_ceil(span);
                let found = audit_with(&mut tree, asked, group * FAN_OUT, |_| 1000);
                assert_eq!(found.is_err(), is_asked_for, "of {asked} pages, group {group}");
            }
        }
    }
}

/// All that lies above a leaf agrees with itself, and the leaf does not.
#[test]
fn a_hole_that_is_noted_above_and_is_in_no_leaf_is_found() {
    for pages in [4, 16, 65, 256] {
        let mut words = vec![0; HoleTree::words(pages)];
        let mut tree = HoleTree::new(&mut words, pages);
        for leaf in tree.first_leaf..tree.first_leaf + pages.div_ceil(FAN_OUT) {
            let mut group = leaf;
            while let Some(child) = group.checked_sub(1) {
                group = child >> FAN_OUT_SHIFT;
                tree.inner[group as usize][slot(child)] = 7;
            }
            tree.root = 7;
            assert_eq!(tree.audit(pages), Err(leaf), "{pages} pages");
            tree.inner.fill([0; FAN_OUT as usize]);
            tree.root = 0;
        }
        assert_eq!(tree.audit(pages), Ok(0), "{pages} pages");
    }
}

/// What the audit of `pages` pages finds while the slot with this number holds something else.
fn audit_with(
    tree: &mut HoleTree<'_>,
    pages: u32,
    index: u32,
    change: impl FnOnce(u32) -> u32,
) -> Result<u32, u32> {
    let before = *place(tree, index);
    *place(tree, index) = change(before);
    let found = tree.audit(pages);
    *place(tree, index) = before;
    found
}

fn place<'t>(tree: &'t mut HoleTree<'_>, index: u32) -> &'t mut u32 {
    let mut slots = tree.inner.iter_mut().chain(tree.leaves.iter_mut()).flatten();
    slots.nth(index as usize).expect("a slot of the tree")
}
