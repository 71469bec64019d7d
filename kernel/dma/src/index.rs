//! What was given out, to be found by a number: an address, a page. Each step looks at a few entries, however many there are.
//!
//! As with a [`Book`](crate::book::Book), an entry is made and dropped under no lock, since both ask the heap; it is put into an [`Index`] and
//! taken out of it under the index's, by moving pointers.

use alloc::boxed::Box;
use alloc::vec::Vec;

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, intrusive_adapter};

struct Entry<T> {
    link: RBTreeLink,
    key: u32,
    value: T,
}

intrusive_adapter!(ByKey<T> = Box<Entry<T>>: Entry<T> { link => RBTreeLink });

impl<'a, T> KeyAdapter<'a> for ByKey<T> {
    type Key = u32;

    fn get_key(&self, entry: &'a Entry<T>) -> u32 {
        entry.key
    }
}

/// An entry that is in no index.
pub(crate) struct Slip<T>(Box<Entry<T>>);

impl<T> Slip<T> {
    /// Memory for `value`, or `None` if the heap has none.
    pub(crate) fn new(value: T) -> Option<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(1).ok()?;
        memory.push(Entry { link: RBTreeLink::new(), key: 0, value });
        let first = Box::into_raw(memory.into_boxed_slice()).cast::<Entry<T>>();
        // SAFETY: a boxed slice of one entry lies in memory as a box of that entry does.
        Some(Self(unsafe { Box::from_raw(first) }))
    }

    pub(crate) fn value(&self) -> &T {
        &self.0.value
    }

    pub(crate) fn value_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}

/// Entries, each under a number of its own.
pub(crate) struct Index<T>(RBTree<ByKey<T>>);

impl<T> Index<T> {
    pub(crate) const fn new() -> Self {
        Self(RBTree::new(ByKey::NEW))
    }

    /// Puts `slip` under `key`, under which there is nothing.
    pub(crate) fn add(&mut self, key: u32, mut slip: Slip<T>) {
        slip.0.key = key;
        self.0.insert(slip.0);
    }

    /// What is under `key`.
    pub(crate) fn at(&self, key: u32) -> Option<&T> {
        self.0.find(&key).get().map(|entry| &entry.value)
    }

    /// Lets `change` have what is under `key`.
    pub(crate) fn change<R>(&mut self, key: u32, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut entry = self.0.find_mut(&key).remove()?;
        let result = change(&mut entry.value);
        self.0.insert(entry);
        Some(result)
    }

    /// Takes out what is under `key`, if it is the one.
    pub(crate) fn take(&mut self, key: u32, is_it: impl FnOnce(&T) -> bool) -> Option<Slip<T>> {
        let mut found = self.0.find_mut(&key);
        if !is_it(&found.get()?.value) {
            return None;
        }
        found.remove().map(Slip)
    }

    /// All entries from `key` on, each with its number.
    pub(crate) fn iter_from(&self, key: u32) -> impl Iterator<Item = (u32, &T)> {
        self.0.range(Bound::Included(&key), Bound::Unbounded).map(|entry| (entry.key, &entry.value))
    }
}
