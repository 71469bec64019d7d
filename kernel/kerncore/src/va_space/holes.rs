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
//! One hole may stand *aside*: no slot of the tree knows of it. It is one that may soon go: what was the front last, or what is
//! left below an aligned area, for the next to go may be that area, and the hole with it.
//!
//! All groups of a level stand side by side and the levels one after the other, so that parents and children are
//! found by shifts, and a group of four words is read at once.

#[cfg(test)]
mod tests;

use core::slice;

/// Slots in a group, as a power of two.
const FAN_OUT_SHIFT: u32 = 2;
/// Slots in a group.
const FAN_OUT: u32 = 1 << FAN_OUT_SHIFT;

/// No page.
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
    /// The greatest slot of the root.
    root: u32,
    /// The page of the hole that stands aside; [`NONE`] if none does.
    aside: u32,
    /// Its length, if one does.
    aside_length: u32,
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
        Self { leaves, inner, first_leaf, root: 0, aside: NONE, aside_length: 0 }
    }

    /// The length of the longest hole, 0 without any.
    #[inline]
    pub(super) fn longest(&self) -> u32 {
        self.root.max(self.length_aside())
    }

    /// The length of the hole that stands aside, 0 if none does.
    #[inline]
    fn length_aside(&self) -> u32 {
        if self.aside == NONE { 0 } else { self.aside_length }
    }

    /// Whether the hole at `page` stands aside.
    pub(super) fn is_aside(&self, page: u32) -> bool {
        page == self.aside
    }

    /// The length of the hole that begins at `page`, 0 if none does.
    #[inline]
    pub(super) fn starting_at(&self, page: u32) -> u32 {
        if page == self.aside { self.aside_length } else { self.slot_of(page) }
    }

    #[inline(always)]
    fn slot_of(&self, page: u32) -> u32 {
        self.leaves[(page >> FAN_OUT_SHIFT) as usize][slot(page)]
    }

    /// Says that the hole at `page` now has `length` pages; 0 takes it out.
    ///
    /// Climbs only as far as a maximum changes.
    #[inline]
    pub(super) fn set(&mut self, page: u32, length: u32) {
        if page == self.aside {
            self.aside = NONE;
        }
        self.leaves[(page >> FAN_OUT_SHIFT) as usize][slot(page)] = length;
        self.climb_from(page);
    }

    /// Says that there is a hole that may soon go.
    #[inline(always)]
    pub(super) fn add(&mut self, page: u32, length: u32) {
        self.settle();
        (self.aside, self.aside_length) = (page, length);
    }

    /// Says that the hole at `page` is no more, and whether it stood aside.
    #[inline(always)]
    pub(super) fn remove(&mut self, page: u32) -> bool {
        let stood_aside = page == self.aside;
        if stood_aside {
            self.aside = NONE;
        } else {
            self.remove_from_tree(page);
        }
        stood_aside
    }

    #[inline(never)]
    fn remove_from_tree(&mut self, page: u32) {
        self.set(page, 0);
    }

    /// Puts what stands aside into the tree. Who goes from hole to hole has this done before.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        if self.aside != NONE {
            self.settle_aside();
        }
    }

    #[cold]
    #[inline(never)]
    fn settle_aside(&mut self) {
        self.set(self.aside, self.aside_length);
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
    }

    /// The page of the lowest hole of `wanted` pages or more, which is not 0.
    pub(super) fn lowest(&self, wanted: u32) -> Option<u32> {
        let found = if self.root < wanted { NONE } else { self.lowest_below(0, wanted) };
        let lowest = if self.length_aside() < wanted { found } else { found.min(self.aside) };
        (lowest != NONE).then_some(lowest)
    }

    /// The lowest page from `from` on at which a hole of `wanted` pages or more begins. `wanted` is not 0, `from` lies in the
    /// space, and no hole stands aside.
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

    /// How many holes begin in the first `pages` pages, in the tree or aside, or the first group above those whose parent does not
    /// hold its greatest slot. If all are asked for, groups that stand above none must be empty.
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
            let holes = level(above, leaves).map_err(after)? + u32::from(self.aside < pages);
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
        self.root = other.root;
        (self.aside, self.aside_length) = (other.aside, other.aside_length);
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
        let joined = |words: &[u32]| words.iter().fold(0, |all, word| all | word);
        if joined(slots.as_flattened()) | joined(noted) != 0 {
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
