//! Typed slabs: places for records, in memory that is lent.
//!
//! ```text
//!   Slab ──▶ [entry] ──▶ [entry] ──▶ [entry]       vacant entries, the one that came back last first
//!               │ take                  ▲ give back
//!               ▼                       │
//!            Place ─────────────────────┘          owned by whoever holds it; its record never moves
//!
//!   chunk 0  64 entries, chunk 1  128, chunk 2  256, … up to 16,384, where the growth ends: a chunk is one piece of
//!                                                    memory, and those are not to be had larger
//! ```
//! Where memory is in pieces, a chunk may be as small as it must. Vacant entries are kept apart by their chunk's [`Home`], for
//! those who want a place on a certain node of memory.
//!
//! Area records and their like must not come from the general heap: taking and giving back one is a hot path, and
//! the heap may want an area in turn. A slab is given its memory chunk by chunk. A place is an owner, as a `Box` is:
//! no name has to be looked up, and none can be stale.

use core::fmt;
use core::ops::{Deref, DerefMut};

/// Entries in the first chunk, if it can be had; each further chunk has as many as all before and one of these, up to
/// [`LARGEST_CHUNK`].
pub const FIRST_CHUNK: u32 = 64;
/// Entries in the largest chunk.
pub const LARGEST_CHUNK: u32 = 1 << 14;

/// Which node's memory an entry lies in. Whoever does not care has the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Home {
    /// The first node, or the only one.
    #[default]
    First,
    /// The second.
    Second,
}

impl Home {
    /// How many there are.
    const COUNT: usize = 2;
}

/// Room for one record, which comes first: an entry's address is its record's.
#[derive(Debug)]
#[repr(C)]
pub struct Entry<'s, T> {
    record: T,
    home: Home,
    /// The vacant entry below this one, which is vacant too; or the one before this in a [`PlaceQueue`].
    next: Option<&'s mut Self>,
}

impl<T> Entry<'_, T> {
    /// An entry that holds `record` until somebody takes it: what a chunk is to be filled with.
    pub const fn new(record: T) -> Self {
        Self { record, home: Home::First, next: None }
    }
}

/// A place for one record, and the right to it. What lies in it is what its last owner left there.
#[derive(Debug)]
#[must_use = "a place that is dropped is lost to its slab"]
pub struct Place<'s, T>(&'s mut Entry<'s, T>);

impl<T> Deref for Place<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0.record
    }
}

impl<T> DerefMut for Place<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.record
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Every entry of this home is taken: a chunk of `entries` is wanted there, by [`Slab::add_chunk`].
    NeedsChunk {
        /// How many entries the next chunk should have; it may have fewer.
        entries: u32,
        /// Where it should lie.
        home: Home,
    },
    /// Every entry is taken and there can be no further chunk.
    Full {
        /// How many entries there are.
        capacity: u32,
    },
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsChunk { entries, .. } => write!(f, "a chunk of {entries} entries is wanted"),
            Self::Full { capacity } => write!(f, "all {capacity} entries are taken, for good"),
        }
    }
}

impl core::error::Error for NoPlace {}

/// Why a chunk was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// The chunk has no entries, or more than there may be.
    WrongSize {
        /// The most that the next chunk may have.
        wanted: u32,
        /// Entries that this one has.
        had: usize,
    },
    /// There can be no further chunk.
    Full {
        /// How many entries there are.
        capacity: u32,
    },
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongSize { wanted, had } => {
                write!(f, "the next chunk has up to {wanted} entries, not {had}")
            }
            Self::Full { capacity } => write!(f, "there is no chunk beyond {capacity} entries"),
        }
    }
}

impl core::error::Error for ChunkError {}

/// Places for records of one type, as many as `N` chunks of lent memory have if each is as large as it should be.
///
/// Plain state: the caller keeps it behind its lock. No call allocates or sleeps.
#[derive(Debug)]
pub struct Slab<'s, T, const N: u32> {
    /// By their home.
    vacant: [Option<&'s mut Entry<'s, T>>; Home::COUNT],
    capacity: u32,
}

impl<'s, T, const N: u32> Slab<'s, T, N> {
    /// A slab without memory.
    pub const fn new() -> Self {
        Self { vacant: [None, None], capacity: 0 }
    }

    /// How many places are taken. O(n) in the vacant ones: whoever takes one need not count.
    pub fn taken(&self) -> u32 {
        let mut taken = self.capacity;
        for mut vacant in &self.vacant {
            while let Some(entry) = vacant {
                (taken, vacant) = (taken.saturating_sub(1), &entry.next);
            }
        }
        taken
    }

    /// How many entries there are, taken or not.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Whether an entry of this home is vacant.
    pub const fn has_place(&self, home: Home) -> bool {
        self.vacant[home as usize].is_some()
    }

    /// How many entries the next chunk should have, and has at most, or `None` if there can be none.
    pub const fn next_chunk(&self) -> Option<u32> {
        match Self::MOST.checked_sub(self.capacity) {
            None | Some(0) => None,
            Some(left) => {
                let doubled = 1 << (self.capacity + FIRST_CHUNK).ilog2();
                let most = if doubled < LARGEST_CHUNK { doubled } else { LARGEST_CHUNK };
                Some(if most < left { most } else { left })
            }
        }
    }

    /// The most entries that there can be.
    const MOST: u32 = capacity_of(N);

    /// Takes in the next chunk, of up to [`Slab::next_chunk`] entries, which lies in `home`. Its first entry is the first to be
    /// taken there.
    ///
    /// # Errors
    /// [`ChunkError`]; the memory is not used.
    pub fn add_chunk(
        &mut self,
        chunk: &'s mut [Entry<'s, T>],
        home: Home,
    ) -> Result<(), ChunkError> {
        let full = ChunkError::Full { capacity: self.capacity() };
        let wanted = self.next_chunk().ok_or(full)?;
        let had = chunk.len();
        let entries = u32::try_from(had).ok().filter(|entries| (1..=wanted).contains(entries));
        let entries = entries.ok_or(ChunkError::WrongSize { wanted, had })?;
        for entry in chunk.iter_mut().rev() {
            entry.home = home;
            self.push(entry);
        }
        self.capacity += entries;
        Ok(())
    }

    /// Takes the vacant place that came back last, of the first home as long as that has any.
    ///
    /// # Errors
    /// [`NoPlace`], where a chunk is wanted in the first home.
    #[inline(always)]
    pub fn take(&mut self) -> Result<Place<'s, T>, NoPlace> {
        match self.pop(Home::First) {
            Some(place) => Ok(place),
            None => self.take_anywhere(),
        }
    }

    /// Takes the vacant place of `home` that came back last; when there can be no further chunk, of the other one.
    ///
    /// # Errors
    /// [`NoPlace`], where a chunk is wanted in that home.
    pub fn take_in(&mut self, home: Home) -> Result<Place<'s, T>, NoPlace> {
        match (self.pop(home), self.next_chunk()) {
            (Some(place), _) => Ok(place),
            (None, Some(entries)) => Err(NoPlace::NeedsChunk { entries, home }),
            (None, None) => self.take(),
        }
    }

    #[inline(always)]
    fn pop(&mut self, home: Home) -> Option<Place<'s, T>> {
        let vacant = &mut self.vacant[home as usize];
        let entry = vacant.take()?;
        *vacant = entry.next.take();
        Some(Place(entry))
    }

    /// Takes back a place of this slab.
    #[inline(always)]
    pub fn give_back(&mut self, place: Place<'s, T>) {
        let Place(entry) = place;
        self.push(entry);
    }

    #[inline(always)]
    fn push(&mut self, entry: &'s mut Entry<'s, T>) {
        let vacant = &mut self.vacant[entry.home as usize];
        entry.next = vacant.take();
        *vacant = Some(entry);
    }

    #[cold]
    fn take_anywhere(&mut self) -> Result<Place<'s, T>, NoPlace> {
        let home = Home::First;
        self.pop(Home::Second).ok_or_else(|| match self.next_chunk() {
            Some(entries) => NoPlace::NeedsChunk { entries, home },
            None => NoPlace::Full { capacity: self.capacity() },
        })
    }
}

/// Places in the order in which they were put in, linked through their own entries: a queue that needs no memory.
#[derive(Debug)]
#[must_use = "places that are dropped are lost to their slab"]
pub struct PlaceQueue<'s, T> {
    /// The one put in last, whose `next` is the one before it.
    newest: Option<&'s mut Entry<'s, T>>,
    count: u32,
}

impl<'s, T> PlaceQueue<'s, T> {
    /// A queue of none.
    pub const fn new() -> Self {
        Self { newest: None, count: 0 }
    }

    /// How many places wait in it.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Puts `place` behind all others.
    pub fn push(&mut self, place: Place<'s, T>) {
        let Place(entry) = place;
        entry.next = self.newest.take();
        self.newest = Some(entry);
        self.count = self.count.wrapping_add(1);
    }

    /// Takes all places out, the one that was put in first coming first. Walks the whole queue once.
    pub fn take_all(&mut self) -> impl Iterator<Item = Place<'s, T>> + use<'s, T> {
        let mut rest = self.newest.take();
        self.count = 0;
        let mut oldest: Option<&'s mut Entry<'s, T>> = None;
        while let Some(entry) = rest {
            rest = entry.next.take();
            entry.next = oldest;
            oldest = Some(entry);
        }
        core::iter::from_fn(move || {
            let entry = oldest.take()?;
            oldest = entry.next.take();
            Some(Place(entry))
        })
    }
}

impl<'s, T> PlaceQueue<'s, T> {
    /// Takes out the place put in last of those whose record is the one that `is_it` knows. Walks the queue.
    pub fn take_where(&mut self, is_it: impl Fn(&T) -> bool) -> Option<Place<'s, T>> {
        let mut found = None;
        for place in self.take_all() {
            if is_it(&place) {
                // The one found before was put in earlier.
                if let Some(earlier) = found.replace(place) {
                    self.push(earlier);
                }
            } else {
                self.push(place);
            }
        }
        found
    }
}

impl<T> Default for PlaceQueue<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: u32> Default for Slab<'_, T, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The number of the first chunk of the largest size.
const FIRST_OF_LARGEST: u32 = LARGEST_CHUNK.trailing_zeros() - FIRST_CHUNK.trailing_zeros();

/// Entries in the first `chunks` chunks, if each is as large as it should be.
const fn capacity_of(chunks: u32) -> u32 {
    if chunks <= FIRST_OF_LARGEST {
        (FIRST_CHUNK << chunks) - FIRST_CHUNK
    } else {
        (chunks - FIRST_OF_LARGEST + 1) * LARGEST_CHUNK - FIRST_CHUNK
    }
}

#[cfg(test)]
mod tests;
