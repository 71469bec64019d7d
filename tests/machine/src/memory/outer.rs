//! The outer cache: behind the data cache, in front of memory, maintained by physical address (as a PL310).

use super::{Cached, Line, Memory, Snapshot, base, word};
use std::collections::BTreeMap;

impl Memory {
    /// From now on there is one, empty.
    pub(crate) fn add_outer(&mut self) {
        self.outer = Some(BTreeMap::new());
    }

    /// What a walker reads: what the outer cache holds, else memory.
    pub(crate) fn read_walked(&self, address: u32) -> u32 {
        let held = self.outer.as_ref().and_then(|outer| outer.get(&base(address)));
        held.map_or_else(|| self.read_memory(address), |held| held.line.words[word(address)])
    }

    /// The line at `base` as the data cache reads it in; the outer cache then holds it, too.
    pub(super) fn beyond(&mut self, base: u32) -> Line {
        let line = self.line(base);
        match &mut self.outer {
            Some(outer) => outer.entry(base).or_insert(Cached { line, dirty: false }).line,
            None => line,
        }
    }

    /// The version of the line at `base` behind the data cache.
    pub(super) fn version_beyond(&self, base: u32) -> u64 {
        let held = self.outer.as_ref().and_then(|outer| outer.get(&base));
        held.map_or_else(|| self.line(base).version, |held| held.line.version)
    }

    /// The data cache writes the line at `base` back.
    pub(super) fn write_beyond(&mut self, base: u32, line: Line) {
        match &mut self.outer {
            Some(outer) => drop(outer.insert(base, Cached { line, dirty: true })),
            None => drop(self.behind.insert(base, line)),
        }
    }

    /// The outer line at `address` as a clean that begins now will write it; nothing if it is not dirty.
    pub(crate) fn begin_clean_outer(&self, address: u32) -> Option<Snapshot> {
        let base = base(address);
        let held = self.outer.as_ref()?.get(&base)?;
        held.dirty.then_some(Snapshot { base, line: held.line })
    }

    /// Completes a clean of the outer cache.
    pub(crate) fn complete_clean_outer(&mut self, snapshot: Snapshot) {
        let Snapshot { base, line } = snapshot;
        if line.version > self.line(base).version {
            self.behind.insert(base, line);
        }
        if let Some(held) = self.outer.as_mut().and_then(|outer| outer.get_mut(&base))
            && held.line.version == line.version
        {
            held.dirty = false;
        }
    }

    /// Drops the outer line at `address`, dirty or not.
    pub(crate) fn drop_outer(&mut self, address: u32) {
        self.outer.as_mut().and_then(|outer| outer.remove(&base(address)));
    }

    /// Writes the outer line at `address` back if it is dirty, and drops it. It keeps its version: the data cache may hold a newer
    /// one, which is to be written over it some time.
    pub(crate) fn evict_outer(&mut self, address: u32) {
        let held = self.outer.as_mut().and_then(|outer| outer.remove(&base(address)));
        if let Some(Cached { line, dirty: true }) = held {
            self.behind.insert(base(address), line);
        }
    }

    /// The lines in the outer cache.
    pub(crate) fn outer_lines(&self) -> Vec<u32> {
        self.outer.iter().flat_map(|outer| outer.keys().copied()).collect()
    }
}
