//! Lists of what was given out, in memory that may be lacking.
//!
//! A [`Leaf`] is made and dropped under no lock, since both ask the heap; it is put into a [`Book`] and taken out of it under the
//! book's, by moving a pointer.

use alloc::boxed::Box;
use alloc::vec::Vec;

struct Entry<T> {
    value: T,
    next: Option<Leaf<T>>,
}

/// An entry that is in no book.
pub(crate) struct Leaf<T>(Box<[Entry<T>; 1]>);

impl<T> Leaf<T> {
    /// Memory for `value`, or `None` if the heap has none.
    pub(crate) fn new(value: T) -> Option<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(1).ok()?;
        memory.push(Entry { value, next: None });
        memory.into_boxed_slice().try_into().ok().map(Self)
    }

    fn entry(&self) -> &Entry<T> {
        let [entry] = &*self.0;
        entry
    }

    fn entry_mut(&mut self) -> &mut Entry<T> {
        let [entry] = &mut *self.0;
        entry
    }

    pub(crate) fn value(&self) -> &T {
        &self.entry().value
    }

    pub(crate) fn value_mut(&mut self) -> &mut T {
        &mut self.entry_mut().value
    }
}

/// A list, the last entry first.
pub(crate) struct Book<T>(Option<Leaf<T>>);

impl<T> Book<T> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Puts `leaf` in front.
    pub(crate) fn add(&mut self, mut leaf: Leaf<T>) {
        leaf.entry_mut().next = self.0.take();
        self.0 = Some(leaf);
    }

    /// Takes the first entry out that is the one.
    pub(crate) fn take(&mut self, is_it: impl Fn(&T) -> bool) -> Option<Leaf<T>> {
        let mut at = &mut self.0;
        while !is_it(at.as_ref()?.value()) {
            at = &mut at.as_mut()?.entry_mut().next;
        }
        let mut found = at.take()?;
        *at = found.entry_mut().next.take();
        Some(found)
    }

    /// All entries, the last first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut at = self.0.as_ref();
        core::iter::from_fn(move || {
            let entry = at?.entry();
            at = entry.next.as_ref();
            Some(&entry.value)
        })
    }

    /// The first that `find` finds something in.
    pub(crate) fn find<R>(&mut self, mut find: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        let mut at = self.0.as_mut();
        while let Some(leaf) = at {
            let entry = leaf.entry_mut();
            if let Some(found) = find(&mut entry.value) {
                return Some(found);
            }
            at = entry.next.as_mut();
        }
        None
    }
}
