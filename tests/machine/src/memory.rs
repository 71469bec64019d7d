//! Memory, and one data cache in front of it that all CPUs share (as a snoop control unit makes theirs look).
//!
//! Every line has a version, counted up by each write into the cache, so that a clean that completes late can never put an
//! older line over a newer one. Writes past the cache have none: a dirty line covers them when it is written back.
//!
//! A machine may have an outer cache between the two (`outer.rs`): what the data cache reads in and writes back then goes
//! through that, as a walker's reads do.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes in a line of the Cortex-A9.
pub(crate) const LINE: u32 = 32;
const WORDS: usize = LINE as usize / 4;

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    words: [u32; WORDS],
    version: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    line: Line,
    dirty: bool,
}

/// A line as it was when somebody began to clean it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    base: u32,
    line: Line,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    behind: BTreeMap<u32, Line>,
    cache: BTreeMap<u32, Cached>,
    /// The outer cache, on machines that have one.
    outer: Option<BTreeMap<u32, Cached>>,
    /// Lines that anybody has touched: those that reading ahead is interested in.
    touched: BTreeSet<u32>,
    version: u64,
    /// The instruction caches of all CPUs, taken for one: lines as they were in memory when they were fetched.
    instructions: BTreeMap<u32, Line>,
}

mod outer;

const fn base(address: u32) -> u32 {
    address & !(LINE - 1)
}

const fn word(address: u32) -> usize {
    (address % LINE / 4) as usize
}

impl Memory {
    fn line(&self, base: u32) -> Line {
        self.behind.get(&base).copied().unwrap_or_default()
    }

    /// Brings the line at `base` into the cache.
    fn fill(&mut self, base: u32) -> &mut Cached {
        let line = if self.cache.contains_key(&base) { Line::default() } else { self.beyond(base) };
        self.cache.entry(base).or_insert(Cached { line, dirty: false })
    }

    /// What memory itself holds: the view of walkers and devices.
    pub(crate) fn read_memory(&self, address: u32) -> u32 {
        self.line(base(address)).words[word(address)]
    }

    /// From now on, reading ahead is interested in the line at `address`.
    pub(crate) fn touch(&mut self, address: u32) {
        self.touched.insert(base(address));
    }

    /// Writes past the cache.
    pub(crate) fn write_memory(&mut self, address: u32, value: u32) {
        self.touch(address);
        let line = self.behind.entry(base(address)).or_default();
        line.words[word(address)] = value;
    }

    /// Reads through the cache, allocating.
    pub(crate) fn read_cached(&mut self, address: u32) -> u32 {
        self.touched.insert(base(address));
        self.fill(base(address)).line.words[word(address)]
    }

    /// Writes into the cache, allocating; memory does not see it yet.
    pub(crate) fn write_cached(&mut self, address: u32, value: u32) {
        self.version += 1;
        self.touched.insert(base(address));
        let version = self.version;
        let cached = self.fill(base(address));
        cached.line.words[word(address)] = value;
        cached.line.version = version;
        cached.dirty = true;
    }

    /// What an access with a non-cacheable type finds in the cache, if it looks there: with mismatched attributes
    /// it may (A3.5.7).
    pub(crate) fn unexpected_hit(&mut self, address: u32) -> Option<u32> {
        self.touched.insert(base(address));
        self.cache.get(&base(address)).map(|cached| cached.line.words[word(address)])
    }

    /// The line at `address` as a clean that begins now will write it; nothing if it is not dirty.
    pub(crate) fn begin_clean(&self, address: u32) -> Option<Snapshot> {
        let base = base(address);
        let cached = self.cache.get(&base)?;
        cached.dirty.then_some(Snapshot { base, line: cached.line })
    }

    /// Completes a clean. A write after its beginning is not covered; a newer line in memory stays.
    pub(crate) fn complete_clean(&mut self, snapshot: Snapshot) {
        let Snapshot { base, line } = snapshot;
        if line.version > self.version_beyond(base) {
            self.write_beyond(base, line);
        }
        if let Some(cached) = self.cache.get_mut(&base)
            && cached.line.version == line.version
        {
            cached.dirty = false;
        }
    }

    /// What a fetch finds at `address`: in the instruction cache first, then in memory, never in the data cache.
    pub(crate) fn fetch(&mut self, address: u32) -> u32 {
        let (base, line) = (base(address), self.line(base(address)));
        self.touched.insert(base);
        self.instructions.entry(base).or_insert(line).words[word(address)]
    }

    /// Brings the touched lines of `bytes` from `first` into the instruction cache, as the processor may of any memory that may
    /// be executed.
    pub(crate) fn fetch_ahead(&mut self, first: u32, bytes: u32) {
        let last = first | (bytes - 1);
        for base in self.touched.range(first..=last).copied().collect::<Vec<_>>() {
            let line = self.line(base);
            self.instructions.entry(base).or_insert(line);
        }
    }

    /// Empties the instruction cache.
    pub(crate) fn forget_instructions(&mut self) {
        self.instructions.clear();
    }

    /// Writes the line at `address` back if it is dirty, and drops it.
    pub(crate) fn evict(&mut self, address: u32) {
        if let Some(cached) = self.cache.remove(&base(address))
            && cached.dirty
        {
            self.version += 1;
            let line = Line { version: self.version, ..cached.line };
            self.write_beyond(base(address), line);
        }
    }

    /// Drops the line at `address`, dirty or not.
    pub(crate) fn drop_line(&mut self, address: u32) {
        self.cache.remove(&base(address));
    }

    /// The lines in the cache.
    pub(crate) fn cached_lines(&self) -> Vec<u32> {
        self.cache.keys().copied().collect()
    }

    /// Reads the touched lines of `bytes` from `first` into the cache, as the processor may of any memory that a
    /// cacheable mapping reaches.
    pub(crate) fn read_ahead(&mut self, first: u32, bytes: u32) {
        let last = first | (bytes - 1);
        let lines: Vec<u32> = self.touched.range(first..=last).copied().collect();
        for line in lines {
            self.fill(line);
        }
    }
}
