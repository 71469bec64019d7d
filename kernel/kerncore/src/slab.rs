//! Typed slabs: records with names that stay, in memory that is lent.
//!
//! ```text
//!   chunk 0   64 entries   index   0 ..  63      index + 64 = 1xxxxxx₂     the highest bit says the chunk,
//!   chunk 1  128 entries   index  64 .. 191                  1xxxxxxx₂     the bits below it the place in it
//!   chunk 2  256 entries   index 192 .. 447                 1xxxxxxxx₂
//!   …                                                        and so on to 32,768 entries, where the growth ends: a chunk
//!                                                            is one piece of memory, and those are not to be had larger
//!
//!   id   31          20 19                 0
//!       ┌──────────────┬────────────────────┐
//!       │  generation  │       index        │
//!       └──────────────┴────────────────────┘
//! ```
//!
//! Area records and their like must not come from the general heap: taking and giving back one is a hot path, and
//! the heap may want an area in turn. A slab is given its memory chunk by chunk, never moves an entry, and finds
//! an entry by its id in a constant number of steps.

use core::convert::Infallible;
use core::fmt;
use core::num::NonZeroU32;

/// Entries in the first chunk; each further chunk has twice as many as the one before, up to [`LARGEST_CHUNK`].
pub const FIRST_CHUNK: u32 = 64;
/// Entries in the largest chunk, and in all that come after the first of that size.
pub const LARGEST_CHUNK: u32 = 1 << 15;

const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const LAST_GENERATION: u32 = u32::MAX >> INDEX_BITS;
/// Ends the chain of vacant entries.
const NONE: u32 = u32::MAX;

/// The name of one record in a [`Slab`]. Never zero, so that a zero word can stand for "none".
///
/// It carries a generation: the name of a removed record stays wrong until its entry was used 4,095 times more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct SlabId(NonZeroU32);

impl SlabId {
    const fn new(index: u32, generation: u32) -> Option<Self> {
        match NonZeroU32::new((generation << INDEX_BITS) | index) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The name that [`SlabId::raw`] gave; `None` for zero. A made-up one finds nothing.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match NonZeroU32::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The name as one word, never zero.
    pub const fn raw(self) -> u32 {
        self.0.get()
    }

    /// The place of the record, dense from zero.
    pub const fn index(self) -> u32 {
        self.0.get() & INDEX_MASK
    }

    const fn generation(self) -> u32 {
        self.0.get() >> INDEX_BITS
    }
}

impl fmt::Debug for SlabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlabId({}.{})", self.index(), self.generation())
    }
}

/// Room for one record.
#[derive(Debug)]
pub struct Entry<T> {
    /// The generation of the record here, or of the next one.
    generation: u32,
    place: Place<T>,
}

#[derive(Debug)]
enum Place<T> {
    Vacant { next: u32 },
    Occupied(T),
}

impl<T> Entry<T> {
    /// An entry without a record: what a chunk is to be filled with.
    pub const fn vacant() -> Self {
        Self { generation: 1, place: Place::Vacant { next: NONE } }
    }
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self::vacant()
    }
}

/// Why no record can be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// Every entry is taken or promised: a chunk of `entries` is wanted, by [`Slab::add_chunk`].
    NeedsChunk {
        /// How many entries the next chunk must have.
        entries: u32,
    },
    /// Every entry is taken or promised and there can be no further chunk.
    Full {
        /// How many entries there are.
        capacity: u32,
    },
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsChunk { entries } => write!(f, "a chunk of {entries} entries is wanted"),
            Self::Full { capacity } => write!(f, "all {capacity} entries are taken, for good"),
        }
    }
}

impl core::error::Error for InsertError {}

/// Why a chunk was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// The chunk has the wrong number of entries.
    WrongSize {
        /// Entries that the next chunk must have.
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
                write!(f, "the next chunk has {wanted} entries, not {had}")
            }
            Self::Full { capacity } => write!(f, "there is no chunk beyond {capacity} entries"),
        }
    }
}

impl core::error::Error for ChunkError {}

/// Records of one type in at most `N` chunks of lent memory.
///
/// Plain state: the caller keeps it behind its lock. No call allocates or sleeps.
#[derive(Debug)]
pub struct Slab<'s, T, const N: usize> {
    chunks: [Option<&'s mut [Entry<T>]>; N],
    /// Chunks that are there.
    count: u32,
    /// The vacant entry to be used next, or `NONE`.
    vacant: u32,
    len: u32,
    /// Vacant entries that are promised to nobody.
    unpromised: u32,
}

/// A vacant entry that is kept for its holder, whose insertion then cannot fail for want of one.
///
/// Neither `Clone` nor `Copy`: an entry is promised once. One that is dropped keeps an entry vacant for good.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped promise keeps an entry vacant for good"]
pub struct Promise(());

impl<'s, T, const N: usize> Slab<'s, T, N> {
    /// A slab without memory.
    pub const fn new() -> Self {
        const {
            assert!(N <= 40, "indices have 20 bits");
            Self { chunks: [const { None }; N], count: 0, vacant: NONE, len: 0, unpromised: 0 }
        }
    }

    /// How many records it holds.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries are promised, their records still to come.
    pub const fn promised(&self) -> u32 {
        self.capacity() - self.unpromised - self.len
    }

    /// How many entries there are, taken or not.
    pub const fn capacity(&self) -> u32 {
        capacity_of(self.count)
    }

    /// How many entries the next chunk must have, or `None` if there can be none.
    pub const fn next_chunk(&self) -> Option<u32> {
        if (self.count as usize) < N { Some(entries_of(self.count)) } else { None }
    }

    /// Takes in the next chunk, of [`Slab::next_chunk`] vacant entries.
    ///
    /// # Errors
    /// [`ChunkError`]; the memory is not used.
    pub fn add_chunk(&mut self, chunk: &'s mut [Entry<T>]) -> Result<(), ChunkError> {
        let full = ChunkError::Full { capacity: self.capacity() };
        let wanted = self.next_chunk().ok_or(full)?;
        if chunk.len() != wanted as usize {
            return Err(ChunkError::WrongSize { wanted, had: chunk.len() });
        }
        // Lowest index first, whatever the memory held before.
        let first = self.capacity();
        for (next, entry) in (first + 1..).zip(chunk.iter_mut()) {
            *entry = Entry { generation: 1, place: Place::Vacant { next } };
        }
        if let Some(last) = chunk.last_mut() {
            last.place = Place::Vacant { next: self.vacant };
        }
        self.vacant = first;
        self.chunks[self.count as usize] = Some(chunk);
        self.count += 1;
        self.unpromised += wanted;
        Ok(())
    }

    /// Keeps a vacant entry for the caller, who cannot yet say what goes there.
    ///
    /// # Errors
    /// [`InsertError`].
    #[inline(always)]
    pub fn promise(&mut self) -> Result<Promise, InsertError> {
        match self.unpromised.checked_sub(1) {
            Some(left) => {
                self.unpromised = left;
                Ok(Promise(()))
            }
            None => Err(self.no_room()),
        }
    }

    /// Ends a promise of this slab's that was not needed.
    pub fn release(&mut self, _promise: Promise) {
        self.unpromised += 1;
    }

    /// Takes in the record that `value` makes, for which there is a promise of this slab's, and names it. The entry that became vacant last is
    /// used first. `None`, and no record, if the promise was another slab's.
    #[inline(always)]
    pub fn insert_promised(
        &mut self,
        _promise: Promise,
        value: impl FnOnce() -> T,
    ) -> Option<SlabId> {
        let index = self.vacant;
        let entry = self.entry_mut(index)?;
        // The chain of vacant entries holds vacant ones only.
        let Place::Vacant { next } = entry.place else { return None };
        let id = SlabId::new(index, entry.generation)?;
        entry.place = Place::Occupied(value());
        self.vacant = next;
        self.len += 1;
        Some(id)
    }

    #[cold]
    const fn no_room(&self) -> InsertError {
        match self.next_chunk() {
            Some(entries) => InsertError::NeedsChunk { entries },
            None => InsertError::Full { capacity: self.capacity() },
        }
    }

    /// Takes a record out. `None` if `id` names none: a second removal, for one.
    pub fn remove(&mut self, id: SlabId) -> Option<T> {
        match self.remove_if(id, |_| Ok::<(), Infallible>(()))? {
            Ok(value) => Some(value),
            Err(never) => match never {},
        }
    }

    /// Takes a record out, unless `check` refuses. `None` if `id` names none.
    ///
    /// # Errors
    /// What `check` said; nothing has changed.
    #[inline(always)]
    pub fn remove_if<E>(
        &mut self,
        id: SlabId,
        check: impl FnOnce(&T) -> Result<(), E>,
    ) -> Option<Result<T, E>> {
        let next = self.vacant;
        let entry = self.entry_mut(id.index())?;
        let Place::Occupied(value) = &entry.place else { return None };
        if entry.generation != id.generation() {
            return None;
        }
        if let Err(refusal) = check(value) {
            return Some(Err(refusal));
        }
        let place = core::mem::replace(&mut entry.place, Place::Vacant { next });
        entry.generation =
            if entry.generation == LAST_GENERATION { 1 } else { entry.generation + 1 };
        self.vacant = id.index();
        self.len = self.len.wrapping_sub(1);
        self.unpromised = self.unpromised.wrapping_add(1);
        match place {
            Place::Occupied(value) => Some(Ok(value)),
            Place::Vacant { .. } => None,
        }
    }

    /// The record that `id` names.
    #[inline]
    pub fn get(&self, id: SlabId) -> Option<&T> {
        let (chunk, place) = locate(id.index())?;
        let entry = self.chunks.get(chunk)?.as_ref()?.get(place)?;
        match &entry.place {
            Place::Occupied(value) if entry.generation == id.generation() => Some(value),
            _ => None,
        }
    }

    /// The record that `id` names, to be changed.
    pub fn get_mut(&mut self, id: SlabId) -> Option<&mut T> {
        let entry = self.entry_mut(id.index())?;
        match &mut entry.place {
            Place::Occupied(value) if entry.generation == id.generation() => Some(value),
            _ => None,
        }
    }

    /// All records with their names, by index.
    pub fn iter(&self) -> impl Iterator<Item = (SlabId, &T)> {
        let entries = self.chunks.iter().flatten().flat_map(|chunk| chunk.iter());
        (0..).zip(entries).filter_map(|(index, entry)| match &entry.place {
            Place::Occupied(value) => Some((SlabId::new(index, entry.generation)?, value)),
            Place::Vacant { .. } => None,
        })
    }

    #[inline(always)]
    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let (chunk, place) = locate(index)?;
        self.chunks.get_mut(chunk)?.as_mut()?.get_mut(place)
    }
}

impl<T, const N: usize> Default for Slab<'_, T, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Binary logarithms of the smallest and the largest chunk.
const FIRST_SHIFT: u32 = FIRST_CHUNK.trailing_zeros();
const LARGEST_SHIFT: u32 = LARGEST_CHUNK.trailing_zeros();
/// The number of the first chunk of the largest size.
const FIRST_OF_LARGEST: u32 = LARGEST_SHIFT - FIRST_SHIFT;

/// Entries in chunk number `chunk`.
const fn entries_of(chunk: u32) -> u32 {
    if chunk < FIRST_OF_LARGEST { FIRST_CHUNK << chunk } else { LARGEST_CHUNK }
}

/// Entries in the first `chunks` chunks.
const fn capacity_of(chunks: u32) -> u32 {
    if chunks <= FIRST_OF_LARGEST {
        (FIRST_CHUNK << chunks) - FIRST_CHUNK
    } else {
        (chunks - FIRST_OF_LARGEST + 1) * LARGEST_CHUNK - FIRST_CHUNK
    }
}

/// The chunk of an index, and the place in it; `None` for `NONE`.
#[inline(always)]
fn locate(index: u32) -> Option<(usize, usize)> {
    let shifted = index.checked_add(FIRST_CHUNK)?;
    let bit = u32::BITS - 1 - shifted.leading_zeros();
    if bit > LARGEST_SHIFT {
        let chunk = (shifted >> LARGEST_SHIFT) + FIRST_OF_LARGEST - 1;
        return Some((chunk as usize, (shifted & (LARGEST_CHUNK - 1)) as usize));
    }
    Some(((bit - FIRST_SHIFT) as usize, (shifted ^ (1 << bit)) as usize))
}

#[cfg(test)]
mod tests;
