//! The holes by size and address: a 4-ary maximum tree over the pages of the space.
//!
//! ```text
//!  group 0   ┌──┬──┬──┬──┐   the root; the slot of a child holds the greatest of the child's four
//!            └┬─┴┬─┴┬─┴┬─┘
//!  group 1  ┌─┘  └┐ └┐ └┐    the groups below group g are 4g+1 … 4g+4
//!          ┌──┬──┬──┬──┐  …
//!          └──┴──┴──┴──┘     the lowest groups hold one slot a page: the length of the hole that begins there, or 0
//! ```
//!
//! What was found last is noted: no hole below it is as long as what was sought. Who frees an area and makes another finds that
//! place again without a search.
//!
//! One hole may be late: it stands beside the tree, of which no slot knows of it yet, because the next to go may be the area above
//! it, and the hole with that (an aligned area leaves such a hole below it). Until somebody searches, or another hole changes, all
//! holes are held to be long.
//!
//! All groups of a level stand side by side and the levels one after the other, so that parents and children are
//! found by shifts, and a group of four words is read at once.

use core::slice;

/// Slots in a group, as a power of two.
const FAN_OUT_SHIFT: u32 = 2;
/// Slots in a group.
const FAN_OUT: u32 = 1 << FAN_OUT_SHIFT;

/// No page, and longer than any hole.
const NONE: u32 = u32::MAX;

/// The slots below one parent.
type Group = [u32; FAN_OUT as usize];

/// Lengths of holes by the page they begin at.
#[derive(Debug)]
pub(super) struct HoleTree<'s> {
    /// A slot a page.
    leaves: &'s mut [Group],
    /// The groups above.
    inner: &'s mut [Group],
    /// The number of the first leaf, which follows the last inner group's.
    first_leaf: u32,
    /// The length of the longest hole; more than any has, while one is late.
    longest: u32,
    /// The greatest slot of the root.
    root: u32,
    /// The page of the hole that is late, if one is.
    late: u32,
    /// Its length.
    late_length: u32,
    /// No hole below this page has [`HoleTree::sought`] pages or more.
    found: u32,
    /// How many pages were sought when it was found.
    sought: u32,
}

impl<'s> HoleTree<'s> {
    /// Words that the tree over `pages` pages needs.
    pub(super) const fn words(pages: u32) -> usize {
        ((inner_groups(pages) + pages.div_ceil(FAN_OUT)) * FAN_OUT) as usize
    }

    /// A tree over `pages` pages without a hole, in `words`, of which there must be [`HoleTree::words`] or more.
    pub(super) fn new(words: &'s mut [u32], pages: u32) -> Self {
        let (groups, _) = words[..Self::words(pages)].as_chunks_mut();
        groups.fill([0; FAN_OUT as usize]);
        let first_leaf = inner_groups(pages);
        let (inner, leaves) = groups.split_at_mut(first_leaf as usize);
        Self {
            leaves,
            inner,
            first_leaf,
            longest: 0,
            root: 0,
            late: NONE,
            late_length: 0,
            found: 0,
            sought: u32::MAX,
        }
    }

    /// No hole is longer; while one is late, that says nothing.
    #[inline]
    pub(super) fn longest(&self) -> u32 {
        self.longest
    }

    /// As [`HoleTree::starting_at`], late or not: for audits.
    pub(super) fn starting_exactly_at(&self, page: u32) -> u32 {
        if page == self.late { self.late_length } else { self.starting_at(page) }
    }

    /// The length of the longest hole, 0 without any.
    pub(super) fn longest_exactly(&self) -> u32 {
        if self.late == NONE { self.root } else { self.root.max(self.late_length) }
    }

    /// The length of the hole that begins at `page`, 0 if none does, or if it is late.
    #[inline]
    pub(super) fn starting_at(&self, page: u32) -> u32 {
        self.leaves[(page >> FAN_OUT_SHIFT) as usize][slot(page)]
    }

    /// Says that the hole at `page` now has `length` pages; 0 takes it out. No hole is late.
    ///
    /// Climbs only as far as a maximum changes.
    #[inline]
    pub(super) fn set(&mut self, page: u32, length: u32) {
        debug_assert!(self.late == NONE, "{} is late", self.late);
        self.set_slot(page, length);
        self.climb_from(page);
    }

    /// As [`HoleTree::set`], of a hole that is new and may soon go.
    #[inline(always)]
    pub(super) fn set_late(&mut self, page: u32, length: u32) {
        self.settle();
        (self.late, self.late_length, self.longest) = (page, length, NONE);
    }

    /// As [`HoleTree::set`], of a hole that goes and may be late.
    #[inline(always)]
    pub(super) fn take_out(&mut self, page: u32) {
        if page == self.late {
            (self.late, self.longest) = (NONE, self.root);
        } else {
            self.settle();
            self.take_out_of_tree(page);
        }
    }

    #[inline(never)]
    fn take_out_of_tree(&mut self, page: u32) {
        self.set(page, 0);
    }

    /// Puts what is late into the tree. Who searches, or changes another hole, has this done before.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        if self.late != NONE {
            self.settle_late();
        }
    }

    #[cold]
    #[inline(never)]
    fn settle_late(&mut self) {
        let page = self.late;
        self.late = NONE;
        self.longest = self.root;
        self.set(page, self.late_length);
    }

    #[inline(always)]
    fn set_slot(&mut self, page: u32, length: u32) {
        if length >= self.sought && page < self.found {
            self.found = page;
        }
        self.leaves[(page >> FAN_OUT_SHIFT) as usize][slot(page)] = length;
    }

    /// Corrects what is above the slot of `page`.
    #[inline(always)]
    fn climb_from(&mut self, page: u32) {
        let leaf = page >> FAN_OUT_SHIFT;
        let mut greatest = greatest_of(&self.leaves[leaf as usize]);
        let mut group = self.first_leaf.wrapping_add(leaf);
        while group != 0 {
            let child = group - 1;
            group = child >> FAN_OUT_SHIFT;
            let slots = &mut self.inner[group as usize];
            if slots[slot(child)] == greatest {
                return;
            }
            slots[slot(child)] = greatest;
            greatest = greatest_of(slots);
        }
        self.root = greatest;
        self.longest = greatest;
    }

    /// The lowest page at which a hole of `wanted` pages or more begins. `wanted` is not 0.
    #[inline]
    pub(super) fn first_of(&mut self, wanted: u32) -> Option<u32> {
        self.settle();
        if wanted >= self.sought && self.starting_at(self.found) >= wanted {
            return Some(self.found);
        }
        if self.longest < wanted {
            return None;
        }
        (self.found, self.sought) = (self.lowest_below(0, wanted), wanted);
        Some(self.found)
    }

    /// The lowest page from `from` on at which a hole of `wanted` pages or more begins. `wanted` is not 0, `from` lies in the
    /// space, and no hole is late.
    pub(super) fn next_of(&self, from: u32, wanted: u32) -> Option<u32> {
        let leaf = from >> FAN_OUT_SHIFT;
        if let Some(found) = first_slot_of(&self.leaves[leaf as usize], from % FAN_OUT, wanted) {
            return Some((leaf << FAN_OUT_SHIFT) | found);
        }
        let mut group = self.first_leaf + leaf;
        loop {
            let child = group.checked_sub(1)?;
            group = child >> FAN_OUT_SHIFT;
            let slots = &self.inner[group as usize];
            if let Some(found) = first_slot_of(slots, child % FAN_OUT + 1, wanted) {
                return Some(self.lowest_below(child_of(group, found), wanted));
            }
        }
    }

    /// The lowest page below `group` at which a hole of `wanted` pages or more begins; there must be one.
    #[inline]
    fn lowest_below(&self, mut group: u32, wanted: u32) -> u32 {
        while let Some(slots) = self.inner.get(group as usize) {
            group = child_of(group, lowest_slot_of(slots, wanted));
        }
        let leaf = group.wrapping_sub(self.first_leaf);
        (leaf << FAN_OUT_SHIFT) | lowest_slot_of(&self.leaves[leaf as usize], wanted)
    }

    /// How many holes begin in the first `pages` pages, in the tree or late, or the first group above those whose parent does not hold its greatest
    /// slot. If all are asked for, groups that stand above none must be empty.
    pub(super) fn audit(&self, pages: u32) -> Result<u32, u32> {
        let all = pages.div_ceil(FAN_OUT) as usize == self.leaves.len();
        let (mut first, mut span) = (0, FAN_OUT * groups_at(self.first_leaf));
        loop {
            // The slot above group g is number g - 1 of all that stand in inner groups, and the root's is `root`.
            let above = match u32::checked_sub(first, 1) {
                Some(slot) => &self.inner.as_flattened()[slot as usize..],
                None => slice::from_ref(&self.root),
            };
            let after = |group: u32| first + group;
            if first != self.first_leaf {
                let wanted = if all { groups_at(first) } else { pages.div_ceil(span) } as usize;
                level(above, &self.inner[first as usize..][..wanted]).map_err(after)?;
                (first, span) = (child_of(first, 0), span / FAN_OUT);
                continue;
            }
            let leaves = &self.leaves[..pages.div_ceil(FAN_OUT) as usize];
            let holes = level(above, leaves).map_err(after)? + u32::from(self.late < pages);
            // The tree may have fewer leaves than its last inner level has slots.
            let mut spare = (first..).zip(above).skip(self.leaves.len());
            return spare
                .find(|&(_, &noted)| noted != 0)
                .map_or(Ok(holes), |(group, _)| Err(group));
        }
    }

    #[cfg(test)]
    pub(super) fn copy_from(&mut self, other: &HoleTree<'_>) {
        self.leaves.copy_from_slice(other.leaves);
        self.inner.copy_from_slice(other.inner);
        (self.longest, self.root) = (other.longest, other.root);
        (self.late, self.late_length) = (other.late, other.late_length);
        (self.found, self.sought) = (other.found, other.sought);
    }
}

/// How many slots of `groups` are not 0, or the first of them that has another greatest slot than is noted above it.
fn level(above: &[u32], groups: &[Group]) -> Result<u32, u32> {
    let mut filled = 0;
    let mut exact = |first: u32, groups: &[Group], above: &[u32]| {
        for (group, (slots, &noted)) in (first..).zip(groups.iter().zip(above)) {
            if noted != greatest_of(slots) {
                return Err(group);
            }
            filled += slots.iter().map(|&length| u32::from(length != 0)).sum::<u32>();
        }
        Ok(())
    };
    // Nearly all of a large space's slots are 0, and cost least.
    let (runs, rest) = groups.as_chunks::<{ FAN_OUT as usize }>();
    let (noted, _) = above.as_chunks::<{ FAN_OUT as usize }>();
    let mut first = 0;
    for (slots, noted) in runs.iter().zip(noted) {
        let words = slots.as_flattened().iter().chain(noted);
        if words.fold(0, |all, word| all | word) != 0 {
            exact(first, slots, noted)?;
        }
        first += FAN_OUT;
    }
    exact(first, rest, &above[groups.len() - rest.len()..])?;
    Ok(filled)
}

/// The number of the group that slot `slot` of the inner group `group` stands for.
#[inline]
fn child_of(group: u32, slot: u32) -> u32 {
    (group << FAN_OUT_SHIFT).wrapping_add(1 + slot)
}

/// The first slot with `wanted` or more; there must be one.
#[inline]
fn lowest_slot_of(slots: &Group, wanted: u32) -> u32 {
    if slots[0] >= wanted {
        0
    } else if slots[1] >= wanted {
        1
    } else if slots[2] >= wanted {
        2
    } else {
        3
    }
}

/// The first slot from `from` on with `wanted` or more.
fn first_slot_of(slots: &Group, from: u32, wanted: u32) -> Option<u32> {
    (from..FAN_OUT).find(|&slot| slots[slot as usize] >= wanted)
}

/// The place of page or group number `number` in its group.
fn slot(number: u32) -> usize {
    (number % FAN_OUT) as usize
}

#[inline]
fn greatest_of(group: &Group) -> u32 {
    group[0].max(group[1]).max(group[2].max(group[3]))
}

/// How many groups there may be in the level whose first has this number.
const fn groups_at(first: u32) -> u32 {
    (FAN_OUT - 1) * first + 1
}

/// Groups above the lowest level of a tree over `pages` pages.
const fn inner_groups(pages: u32) -> u32 {
    let leaf_groups = pages.div_ceil(FAN_OUT);
    let mut inner = 0;
    let mut level = 1;
    while level < leaf_groups {
        inner += level;
        level <<= FAN_OUT_SHIFT;
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S1: with and without what was found last, whatever came and went since.
    #[test]
    fn the_lowest_hole_is_found_again_where_it_was_and_where_a_lower_or_late_one_came() {
        const PAGES: u32 = 70;
        let mut words = vec![0; HoleTree::words(PAGES)];
        let mut tree = HoleTree::new(&mut words, PAGES);
        let mut lengths = [0; PAGES as usize];
        let mut chance = 1_u32;
        for step in 0..20_000 {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let page = (chance >> 8) % PAGES;
            let length = [0, 0, 1, 2, 3, 9][(chance >> 16) as usize % 6];
            let before = core::mem::replace(&mut lengths[page as usize], length);
            match (before, length) {
                (0, 1..) if chance.is_multiple_of(3) => tree.set_late(page, length),
                (_, 0) => tree.take_out(page),
                _ => {
                    tree.settle();
                    tree.set(page, length);
                }
            }
            let (longest, holes) = (lengths.iter().max(), lengths.iter().filter(|&&l| l != 0));
            assert_eq!(Some(&tree.longest_exactly()), longest, "at step {step}");
            assert_eq!(tree.audit(PAGES).map(|holes| holes as usize), Ok(holes.count()));
            assert!(tree.longest() >= tree.longest_exactly(), "at step {step}");
            assert!(length != 0 || tree.late != page, "gone and late, at step {step}");
            if chance >> 30 == 0 {
                // Not sought, so that what is late stays so for some steps.
                continue;
            }
            // Now one length after the other, now one again and again.
            let wanted = 1 + (chance >> 24) % [4, 1, 10][(chance >> 28) as usize % 3];
            let lowest = (0..).zip(lengths).find(|&(_, length)| length >= wanted);
            let found = tree.first_of(wanted);
            assert_eq!(found, lowest.map(|(page, _)| page), "{wanted} at step {step}");
        }
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
                let too_little =
                    audit_with(&mut tree, pages, index, |length| length.saturating_sub(1));
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
}
