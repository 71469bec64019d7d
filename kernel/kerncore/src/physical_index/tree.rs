//! The runs that have no place in the row: a treap whose nodes know how far the runs below them reach.
//!
//! ```text
//!                 key 7, reach 9, below: 12
//!                ╱                         ╲
//!   key 3, reach 12, below: 12      key 8, reach 8, below: 8
//! ```
//! Keys ascend from left to right; of parent and child the parent has the higher priority, which is a number made of its
//! address, so that the tree is as deep as one that was built in random order, whatever the order was.

use core::cmp::Ordering;
use core::mem;

use super::{FRAMES, Run};
use crate::attributes::Attributes;
use crate::slab::{Entry, Home, NoPlace, Place, Slab};

/// Chunks of nodes: more than the largest window has pages.
const CHUNKS: u32 = 14;

/// A run and what is below it.
#[derive(Debug)]
pub struct Node<'s> {
    run: Run,
    /// The farthest reach of this run and all below.
    farthest: u32,
    left: Link<'s>,
    right: Link<'s>,
}

type Link<'s> = Option<Place<'s, Node<'s>>>;

impl Node<'_> {
    /// The node of no run: what a chunk is filled with.
    pub const fn vacant() -> Self {
        Self { run: Run::NONE, farthest: 0, left: None, right: None }
    }

    fn order(&self) -> (u32, u32) {
        order(&self.run)
    }

    /// Notes how far the runs below reach.
    fn update(&mut self) {
        self.farthest = self.run.reach.max(farthest(&self.left)).max(farthest(&self.right));
    }
}

/// Two runs may begin at one frame; no two at one address.
const fn order(run: &Run) -> (u32, u32) {
    (run.key, run.page)
}

/// As good as random, and the same for the same page.
const fn priority(page: u32) -> u32 {
    let mixed = page.wrapping_mul(0x9e37_79b1);
    (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b)
}

fn farthest(link: &Link<'_>) -> u32 {
    link.as_ref().map_or(0, |node| node.farthest)
}

/// A tree of runs, and vacant nodes.
#[derive(Debug)]
pub(super) struct Tree<'s> {
    root: Link<'s>,
    nodes: Slab<'s, Node<'s>, CHUNKS>,
    /// Runs in the tree.
    count: u32,
}

impl<'s> Tree<'s> {
    pub(super) const fn new() -> Self {
        Self { root: None, nodes: Slab::new(), count: 0 }
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is a vacant node.
    #[cold]
    pub(super) fn has_room(&self) -> Result<(), NoPlace> {
        match (self.nodes.has_place(Home::First), self.nodes.next_chunk()) {
            (true, _) => Ok(()),
            (false, Some(entries)) => Err(NoPlace::NeedsChunk { entries, home: Home::First }),
            (false, None) => Err(NoPlace::Full { capacity: self.nodes.capacity() }),
        }
    }

    pub(super) fn add_chunk(&mut self, chunk: &'s mut [Entry<'s, Node<'s>>]) -> bool {
        self.nodes.add_chunk(chunk, Home::First).is_ok()
    }

    pub(super) fn insert(&mut self, run: Run) -> Result<(), NoPlace> {
        let mut node = self.nodes.take()?;
        *node = Node { run, farthest: run.reach, left: None, right: None };
        let root = self.root.take();
        self.root = Some(put_in(root, node));
        self.count += 1;
        Ok(())
    }

    /// Takes out the run with this key at this page.
    pub(super) fn remove(&mut self, key: u32, page: u32) -> Option<Run> {
        let node = take_out(&mut self.root, (key, page))?;
        let run = node.run;
        self.nodes.give_back(node);
        self.count -= 1;
        Some(run)
    }

    pub(super) fn find(&self, key: u32, page: u32) -> Option<Run> {
        let mut link = &self.root;
        loop {
            let node = link.as_ref()?;
            link = match (key, page).cmp(&node.order()) {
                Ordering::Less => &node.left,
                Ordering::Greater => &node.right,
                Ordering::Equal => return Some(node.run),
            };
        }
    }

    /// A run whose key is `key` or less and which reaches `reach` or farther.
    pub(super) fn reaching(&self, key: u32, reach: u32) -> Option<Run> {
        let mut link = &self.root;
        loop {
            let node = link.as_ref().filter(|node| node.farthest >= reach)?;
            link = if node.run.key > key {
                &node.left
            } else if node.run.reach >= reach {
                return Some(node.run);
            } else if farthest(&node.left) >= reach {
                // Every key there is less than this one.
                &node.left
            } else {
                &node.right
            };
        }
    }

    /// As [`Tree::reaching`], one of which `is_it` is true. Looks at all, if need be.
    pub(super) fn reaching_where(
        &self,
        key: u32,
        reach: u32,
        is_it: &dyn Fn(&Run) -> bool,
    ) -> Option<Run> {
        reaching_below(&self.root, key, reach, is_it)
    }

    /// The classes that there are runs of, each with what its runs promise.
    pub(super) fn classes(&self) -> impl Iterator<Item = (u32, Attributes)> {
        let mut after = 0;
        core::iter::from_fn(move || {
            let run = self.first_after(after)?;
            after = run.key | FRAMES;
            Some((run.key & !FRAMES, run.attributes()))
        })
    }

    /// The run with the lowest key that is greater than `key`.
    fn first_after(&self, key: u32) -> Option<Run> {
        let (mut link, mut found) = (&self.root, None);
        while let Some(node) = link {
            link = if node.run.key > key {
                found = Some(node.run);
                &node.left
            } else {
                &node.right
            };
        }
        found
    }

    /// How many of the runs are not what plain ioremap maps, if the tree is as it should be.
    pub(super) fn is_sound(&self) -> Option<u32> {
        let mut last = (0, 0);
        let (count, odd) = sound(&self.root, &mut last)?;
        (count == self.count).then_some(odd)
    }
}

/// Puts `node`, which is alone, below `link`.
fn put_in<'s>(link: Link<'s>, mut node: Place<'s, Node<'s>>) -> Place<'s, Node<'s>> {
    match link {
        Some(mut above) if priority(above.run.page) >= priority(node.run.page) => {
            let side =
                if node.order() < above.order() { &mut above.left } else { &mut above.right };
            let below = side.take();
            *side = Some(put_in(below, node));
            above.update();
            above
        }
        below => {
            (node.left, node.right) = split(below, node.order());
            node.update();
            node
        }
    }
}

/// What is less than `at`, and what is greater.
fn split(link: Link<'_>, at: (u32, u32)) -> (Link<'_>, Link<'_>) {
    let Some(mut node) = link else { return (None, None) };
    if node.order() < at {
        let (less, greater) = split(node.right.take(), at);
        node.right = less;
        node.update();
        (Some(node), greater)
    } else {
        let (less, greater) = split(node.left.take(), at);
        node.left = greater;
        node.update();
        (less, Some(node))
    }
}

/// One tree of two, the first of which is less than the second.
fn join<'s>(less: Link<'s>, greater: Link<'s>) -> Link<'s> {
    match (less, greater) {
        (Some(mut one), Some(mut other)) => {
            if priority(one.run.page) >= priority(other.run.page) {
                one.right = join(one.right.take(), Some(other));
                one.update();
                Some(one)
            } else {
                other.left = join(Some(one), other.left.take());
                other.update();
                Some(other)
            }
        }
        (one, other) => one.or(other),
    }
}

fn take_out<'s>(link: &mut Link<'s>, at: (u32, u32)) -> Option<Place<'s, Node<'s>>> {
    let mut node = link.take()?;
    let taken = match at.cmp(&node.order()) {
        Ordering::Less => take_out(&mut node.left, at),
        Ordering::Greater => take_out(&mut node.right, at),
        Ordering::Equal => {
            let (left, right) = (mem::take(&mut node.left), mem::take(&mut node.right));
            *link = join(left, right);
            return Some(node);
        }
    };
    node.update();
    *link = Some(node);
    taken
}

fn reaching_below(
    link: &Link<'_>,
    key: u32,
    reach: u32,
    is_it: &dyn Fn(&Run) -> bool,
) -> Option<Run> {
    let node = link.as_ref().filter(|node| node.farthest >= reach)?;
    if let Some(found) = reaching_below(&node.left, key, reach, is_it) {
        return Some(found);
    }
    if node.run.key > key {
        return None;
    }
    if node.run.reach >= reach && is_it(&node.run) {
        return Some(node.run);
    }
    reaching_below(&node.right, key, reach, is_it)
}

/// How many runs are below `link`, and how many of them are odd, if they are in order, all behind `last`.
fn sound(link: &Link<'_>, last: &mut (u32, u32)) -> Option<(u32, u32)> {
    let Some(node) = link else { return Some((0, 0)) };
    let (left, left_odd) = sound(&node.left, last)?;
    let ascends = node.order() > *last && node.run.first() <= node.run.last();
    *last = node.order();
    let (right, right_odd) = sound(&node.right, last)?;
    let below = [&node.left, &node.right];
    let is_above = below
        .into_iter()
        .flatten()
        .all(|child| priority(child.run.page) <= priority(node.run.page));
    let wanted = below.map(farthest).into_iter().fold(node.run.reach, u32::max);
    let odd = left_odd + right_odd + u32::from(node.run.class().is_odd());
    (ascends && is_above && node.farthest == wanted).then_some((left + right + 1, odd))
}

#[cfg(test)]
impl Tree<'_> {
    /// Levels of the tree.
    pub(super) fn depth(&self) -> usize {
        fn below(link: &Link<'_>) -> usize {
            link.as_ref().map_or(0, |node| 1 + below(&node.left).max(below(&node.right)))
        }
        below(&self.root)
    }
}
