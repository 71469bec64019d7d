//! Which physical pages are mapped for devices, as what, and where (S58, S97).
//!
//! ```text
//!   physical      0x1e000 ├─ run ─┤                       a run: adjacent pages, mapped one after the other,
//!                 0x40000 ├────────── run ───────────┤    with one set of attributes
//!                                  ├─ run ─┤              runs may overlap, if their attributes go together
//!
//!   few     32 places in a row, which are looked through
//!   tree    the others, by class and first page; each node knows how far the runs below it reach
//! ```
//!
//! A *class* is what a run promises, and whether it may be shared. It is the upper part of a run's key, and of its reach; so the
//! farthest reach of all runs whose key is no greater than some page's in a class tells whether a run of that class covers it,
//! and one tree serves all classes. There are as many as ways of mapping are in use: one or two.
//!
//! Few kernels have more runs than stand in the row, and for them nothing is ever balanced. A run that finds no place there
//! takes a node of a slab, whose memory is lent. Plain state: the caller keeps it behind its lock. No call allocates or sleeps;
//! each costs O(log n), but for those that say otherwise.

#[cfg(test)]
mod tests;
mod tree;

use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::attributes::{Access, Attributes, Execute, MemoryType, Scope};
use crate::slab::{Entry, NoPlace};

pub use tree::Node;
use tree::Tree;

/// Runs that stand in the row: a bit of a word for each.
const FEW: usize = u32::BITS as usize;
/// Bits of a frame's number.
const FRAME_BITS: u32 = 20;

/// A free place in the row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vacancy(u32);

/// Room for a run that has no place in the row.
pub type IndexEntry<'s> = Entry<'s, Node<'s>>;

/// Whether others may use a run's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It is one user's; or it is being made, or dying, and nobody may come to it (S61).
    Own,
    /// Whoever wants the same may use it as well.
    Shared,
}

/// Where a run stands in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name(u32);

impl Name {
    /// No run's.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// What a run promises, and whether others may use it: above the bits of a frame's number, and never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(u32);

impl Class {
    /// Of a run that is its one user's.
    #[inline(always)]
    pub(crate) const fn new(attributes: Attributes) -> Self {
        let promise = (attributes.memory() as u32) << 6
            | (attributes.access() as u32) << 3
            | (attributes.execute() as u32) << 2
            | (attributes.scope() as u32) << 1;
        Self((1 << 9 | promise) << FRAME_BITS)
    }

    const fn with_sharing(self, sharing: Sharing) -> Self {
        match sharing {
            Sharing::Own => Self(self.0 & !SHARED),
            Sharing::Shared => Self(self.0 | SHARED),
        }
    }

    /// Of the run with this key, or reach.
    #[inline(always)]
    const fn of(key: u32) -> Self {
        Self(key & !FRAMES)
    }

    /// Whether it is not what plain ioremap maps, shared or not.
    #[inline(always)]
    const fn is_odd(self) -> bool {
        self.0 & !SHARED != Self::new(Attributes::DEVICE).0
    }

    const fn has(self, bit: u32) -> bool {
        self.0 >> FRAME_BITS & bit != 0
    }

    /// What it promises.
    pub(crate) const fn attributes(self) -> Attributes {
        let promise = self.0 >> FRAME_BITS;
        let memory = match promise >> 6 & 7 {
            0 => MemoryType::StronglyOrdered,
            1 => MemoryType::Device,
            2 => MemoryType::NormalNonCacheable,
            3 => MemoryType::NormalWriteThrough,
            _ => MemoryType::NormalWriteBack,
        };
        let access = match promise >> 3 & 7 {
            0 => Access::KernelReadOnly,
            1 => Access::KernelReadWrite,
            2 => Access::UserReadOnly,
            3 => Access::UserReadOnlyKernelReadWrite,
            _ => Access::UserReadWrite,
        };
        let execute = if self.has(1 << 2) { Execute::Allowed } else { Execute::Never };
        let scope = if self.has(1 << 1) { Scope::NonGlobal } else { Scope::Global };
        match Attributes::new(memory, access, execute, scope) {
            Ok(attributes) => attributes,
            // No class is made of promises that do not go together.
            Err(_) => Attributes::DEVICE,
        }
    }
}

/// Physical pages that are mapped one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Class and first page: the order of the tree.
    key: u32,
    /// Class and last page.
    reach: u32,
    /// The number of the virtual page that leads to the first.
    page: u32,
    /// The next run of its area.
    next: Name,
}

impl Run {
    /// The pages from `first` to `last`, of `class`, from the virtual page `page` on.
    #[inline(always)]
    pub(crate) const fn new(
        (first, last): (Pfn, Pfn),
        page: u32,
        class: Class,
        next: Name,
    ) -> Self {
        Self { key: class.0 | first.number(), reach: class.0 | last.number(), page, next }
    }

    /// The only run of its area: `pages` from `first` on, of which there are so many.
    #[inline(always)]
    pub(crate) const fn alone((first, pages): (Pfn, u32), page: u32, class: Class) -> Self {
        let key = class.0 | first.number();
        Self { key, reach: key.wrapping_add(pages).wrapping_sub(1), page, next: Name::NONE }
    }

    /// The run of no page.
    const NONE: Self = Self { key: 0, reach: 0, page: 0, next: Name::NONE };

    /// The number of its first physical page.
    pub const fn first(&self) -> u32 {
        self.key & FRAMES
    }

    /// The number of its last physical page.
    pub const fn last(&self) -> u32 {
        self.reach & FRAMES
    }

    /// Where its first page lies.
    pub const fn physical(&self) -> PhysAddr {
        PhysAddr::new(self.first() << 12)
    }

    /// The number of the virtual page that leads to its first.
    pub(crate) const fn page(&self) -> u32 {
        self.page
    }

    /// Where it is mapped.
    pub const fn address(&self) -> VirtAddr {
        VirtAddr::new(self.page << 12)
    }

    /// How many pages it has.
    pub(crate) const fn pages(&self) -> u32 {
        self.last().wrapping_sub(self.first()).wrapping_add(1)
    }

    /// How it is mapped.
    pub const fn attributes(&self) -> Attributes {
        self.class().attributes()
    }

    #[inline(always)]
    const fn class(&self) -> Class {
        Class::of(self.key)
    }

    /// Whether others may use it.
    pub const fn sharing(&self) -> Sharing {
        if self.key & SHARED == 0 { Sharing::Own } else { Sharing::Shared }
    }

    /// The next run of its area.
    pub(crate) const fn next(&self) -> Name {
        self.next
    }

    /// The page at which frame number `frame` is mapped, which is one of the run's.
    pub(crate) const fn page_of(&self, frame: u32) -> u32 {
        self.page.wrapping_add(frame.wrapping_sub(self.first()))
    }

    /// Whether it is of one class with `key` and `reach` and has all pages from the one to the other.
    #[inline(always)]
    const fn covers(&self, key: u32, reach: u32) -> bool {
        Class::of(self.key).0 == Class::of(key).0 && self.key <= key && reach <= self.reach
    }

    const fn overlaps(&self, first: u32, last: u32) -> bool {
        self.first() <= last && first <= self.last()
    }

    fn with_sharing(self, sharing: Sharing) -> Self {
        let class = self.class().with_sharing(sharing).0;
        Self { key: class | self.first(), reach: class | self.last(), ..self }
    }
}

const FRAMES: u32 = (1 << FRAME_BITS) - 1;
/// The lowest bit of a class.
const SHARED: u32 = 1 << FRAME_BITS;

/// Whether one physical page may not be mapped in both ways: with two memory types (S97), or executed through one and written
/// through the other (S112).
pub(crate) fn clash(one: Attributes, other: Attributes) -> bool {
    let undoes = |one: Attributes, other: Attributes| one.is_executable() && other.is_writable();
    one.memory() != other.memory() || undoes(one, other) || undoes(other, one)
}

/// The index.
#[derive(Debug)]
pub(crate) struct PhysicalIndex<'s> {
    /// Places of the row that are free.
    free: u32,
    /// Runs, in the row and in the tree, that are not what plain ioremap maps.
    odd: u32,
    /// The place in the row of the run that was shared last.
    shared: u32,
    few: [Run; FEW],
    tree: Tree<'s>,
}

impl<'s> PhysicalIndex<'s> {
    pub(crate) const fn new() -> Self {
        Self { free: u32::MAX, odd: 0, shared: 0, few: [Run::NONE; FEW], tree: Tree::new() }
    }

    /// How many runs there are.
    pub(crate) const fn count(&self) -> u32 {
        (!self.free).count_ones() + self.tree.count()
    }

    /// Whether a run could be put in.
    ///
    /// # Errors
    /// [`NoPlace`]: a chunk of nodes is wanted, by [`PhysicalIndex::add_chunk`].
    #[inline(always)]
    pub(crate) fn has_room(&self) -> Result<(), NoPlace> {
        if self.free != 0 { Ok(()) } else { self.tree.has_room() }
    }

    /// Takes in memory for further runs, if it is wanted still, and says whether it was.
    pub(crate) fn add_chunk(&mut self, chunk: &'s mut [IndexEntry<'s>]) -> bool {
        self.tree.add_chunk(chunk)
    }

    /// How many entries the next chunk may have, if one is wanted.
    pub(crate) fn wanted_chunk(&self) -> Option<u32> {
        match self.has_room() {
            Err(NoPlace::NeedsChunk { entries, .. }) => Some(entries),
            _ => None,
        }
    }

    /// A run that has a page from `first` to `last` and may not have it if somebody maps that as `class` says.
    pub(crate) fn conflict(&self, (first, last): (Pfn, Pfn), class: Class) -> Option<Run> {
        let pages = last.number().wrapping_sub(first.number()).wrapping_add(1);
        self.conflict_at(first, pages, class)
    }

    /// As [`PhysicalIndex::conflict`], of `pages` from `first` on, of which there are so many.
    #[inline(always)]
    pub(crate) fn conflict_at(&self, first: Pfn, pages: u32, class: Class) -> Option<Run> {
        // All that there is, and all that is asked for, as a rule.
        if self.odd == 0 && !class.is_odd() {
            return None;
        }
        let first = first.number();
        self.find_conflict(first, first.wrapping_add(pages).wrapping_sub(1), class.attributes())
    }

    #[cold]
    #[inline(never)]
    fn find_conflict(&self, first: u32, last: u32, attributes: Attributes) -> Option<Run> {
        let clashes = |run: &Run| run.overlaps(first, last) && clash(run.attributes(), attributes);
        match self.row().find(clashes) {
            Some(run) => Some(run),
            None => self.tree.classes().find_map(|(class, of_class)| {
                clash(of_class, attributes)
                    .then(|| self.tree.reaching(class | last, class | first))?
            }),
        }
    }

    /// As [`PhysicalIndex::conflict`], of runs that are not mapped at virtual page `but`: for audits. O(log n) and a step for
    /// each run with one of the pages.
    pub(crate) fn conflict_but(
        &self,
        (first, last): (u32, u32),
        attributes: Attributes,
        but: u32,
    ) -> Option<Run> {
        if self.odd == 0 && !Class::new(attributes).is_odd() {
            return None;
        }
        let is_it = |run: &Run| {
            run.overlaps(first, last) && run.page != but && clash(run.attributes(), attributes)
        };
        match self.row().find(is_it) {
            Some(run) => Some(run),
            None => self.tree.classes().find_map(|(class, _)| {
                self.tree.reaching_where(class | last, class | first, &is_it)
            }),
        }
    }

    /// A run that others may use, of `class` otherwise, with all pages from `first` to `last` (S58).
    #[inline(always)]
    pub(crate) fn covering(&mut self, (first, last): (Pfn, Pfn), class: Class) -> Option<Run> {
        let class = class.with_sharing(Sharing::Shared).0;
        let (key, reach) = (class | first.number(), class | last.number());
        match self.few.get(self.shared as usize) {
            Some(run) if self.is_taken(self.shared) && run.covers(key, reach) => Some(*run),
            _ => self.find_covering(key, reach),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_covering(&mut self, key: u32, reach: u32) -> Option<Run> {
        let covers = |(place, run): &(u32, &Run)| self.is_taken(*place) && run.covers(key, reach);
        match (0..).zip(&self.few).find(covers) {
            Some((place, run)) => {
                self.shared = place;
                Some(*run)
            }
            None => self.tree.reaching(key, reach),
        }
    }

    /// Whether a run stands in that place of the row.
    #[inline(always)]
    const fn is_taken(&self, place: u32) -> bool {
        self.free >> (place & (u32::BITS - 1)) & 1 == 0
    }

    /// A free place in the row, if there is one. It stays free until something is put in.
    #[inline(always)]
    pub(crate) fn vacancy(&self) -> Option<Vacancy> {
        let place = self.free.trailing_zeros();
        ((place as usize) < FEW).then_some(Vacancy(place))
    }

    /// Puts `run` in that place.
    #[inline(always)]
    pub(crate) fn fill(&mut self, Vacancy(place): Vacancy, run: Run) -> Name {
        if let Some(vacant) = self.few.get_mut(place as usize) {
            *vacant = run;
        }
        self.free &= self.free.wrapping_sub(1);
        if run.class().is_odd() {
            self.odd = self.odd.wrapping_add(1);
        }
        Name(place.wrapping_add(1))
    }

    /// Puts `run` in.
    ///
    /// # Errors
    /// [`NoPlace`]; nothing has changed.
    #[inline(always)]
    pub(crate) fn insert(&mut self, run: Run) -> Result<Name, NoPlace> {
        match self.vacancy() {
            Some(vacancy) => Ok(self.fill(vacancy, run)),
            None => self.insert_in_tree(run),
        }
    }

    #[cold]
    #[inline(never)]
    fn insert_in_tree(&mut self, run: Run) -> Result<Name, NoPlace> {
        self.tree.insert(run)?;
        self.odd = self.odd.wrapping_add(run.class().is_odd().into());
        Ok(Name(run.key))
    }

    /// Takes out the run of that name, which is mapped at virtual page `page`.
    #[inline(always)]
    pub(crate) fn remove(&mut self, name: Name, page: u32) -> Option<Run> {
        let place = name.0.wrapping_sub(1);
        let run = match self.few.get(place as usize) {
            Some(run) => {
                self.free |= 1 << (place & (u32::BITS - 1));
                *run
            }
            None => self.remove_from_tree(name, page)?,
        };
        if run.class().is_odd() {
            self.odd = self.odd.wrapping_sub(1);
        }
        Some(run)
    }

    #[cold]
    #[inline(never)]
    fn remove_from_tree(&mut self, name: Name, page: u32) -> Option<Run> {
        self.tree.remove(name.0, page)
    }

    /// Lets others use the run of that name, or no more; its new name.
    pub(crate) fn set_sharing(&mut self, name: Name, page: u32, sharing: Sharing) -> Name {
        if let Some(run) = self.few.get_mut(name.0.wrapping_sub(1) as usize) {
            *run = run.with_sharing(sharing);
            return name;
        }
        let Some(run) = self.tree.remove(name.0, page) else { return name };
        let run = run.with_sharing(sharing);
        let inserted = self.tree.insert(run);
        debug_assert!(inserted.is_ok(), "its node is free: {inserted:?}");
        Name(run.key)
    }

    /// The run of that name, which is mapped at virtual page `page`.
    pub(crate) fn run(&self, name: Name, page: u32) -> Option<Run> {
        let place = name.0.wrapping_sub(1);
        match self.few.get(place as usize) {
            Some(run) => (self.is_taken(place) && run.page == page).then_some(*run),
            None => self.tree.find(name.0, page),
        }
    }

    /// Checks the index against itself. O(n).
    pub(crate) fn is_sound(&self) -> bool {
        let odd = self.row().map(|run| u32::from(run.class().is_odd())).sum::<u32>();
        self.tree.is_sound().is_some_and(|in_tree| odd + in_tree == self.odd)
    }

    /// The runs in the row.
    fn row(&self) -> impl Iterator<Item = Run> {
        let mut taken = !self.free;
        core::iter::from_fn(move || {
            let run = self.few.get(taken.trailing_zeros() as usize)?;
            taken &= taken.wrapping_sub(1);
            Some(*run)
        })
    }
}

#[cfg(test)]
impl PhysicalIndex<'_> {
    /// Makes it contradict itself.
    pub(crate) fn damage(&mut self) {
        self.odd += 1;
    }
}
