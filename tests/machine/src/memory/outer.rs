//! The outer cache: behind the data cache, in front of memory, maintained by physical address (as a PL310).

use super::lines::Lines;
use super::{Line, Memory, Page, Snapshot, word};

impl Page {
    /// A line as the data cache reads it in; the outer cache then holds it, too.
    pub(super) fn beyond(&mut self, number: u32) -> Line {
        let line = self.behind[number as usize];
        match &mut self.outer {
            Some(outer) => outer.get(number).copied().unwrap_or_else(|| *outer.hold(number, line)),
            None => line,
        }
    }

    /// The version of a line behind the data cache.
    pub(super) fn version_beyond(&self, number: u32) -> u64 {
        let held = self.outer.as_ref().and_then(|outer| outer.get(number));
        held.unwrap_or(&self.behind[number as usize]).version
    }

    /// The data cache writes a line back.
    pub(super) fn write_beyond(&mut self, number: u32, line: Line) {
        match &mut self.outer {
            Some(outer) => {
                outer.hold(number, line);
                outer.soil(number);
            }
            None => self.behind[number as usize] = line,
        }
    }
}

impl Memory {
    /// From now on there is one, empty.
    pub(crate) fn add_outer(&mut self) {
        self.has_outer = true;
        self.changes.walked += 1;
        self.pages.values_mut().for_each(|page| page.outer = Some(Lines::default()));
    }

    /// What a walker reads: what the outer cache holds, else memory.
    pub(crate) fn read_walked(&self, address: u32) -> u32 {
        let (page, number) = self.at(address);
        let held = page.and_then(|page| page.outer.as_ref()).and_then(|outer| outer.get(number));
        held.map_or_else(|| self.read_memory(address), |held| held.words[word(address)])
    }

    /// The outer line at `address` as a clean that begins now will write it; nothing if it is not dirty.
    pub(crate) fn begin_clean_outer(&self, address: u32) -> Option<Snapshot> {
        let (page, number) = self.at(address);
        let line = page?.outer.as_ref()?.get_dirty(number)?;
        Some(Snapshot { address, line: *line })
    }

    /// Completes a clean of the outer cache.
    pub(crate) fn complete_clean_outer(&mut self, snapshot: Snapshot) {
        self.changes.walked += 1;
        let Snapshot { address, line } = snapshot;
        let (Some(page), number) = self.at_mut(address) else { return };
        if line.version > page.behind[number as usize].version {
            page.behind[number as usize] = line;
        }
        if let Some(outer) = &mut page.outer {
            outer.clean(number, line.version);
        }
    }

    /// Drops the outer line at `address`, dirty or not.
    pub(crate) fn drop_outer(&mut self, address: u32) {
        self.changes.walked += 1;
        if let (Some(Page { outer: Some(outer), .. }), number) = self.at_mut(address) {
            outer.remove(number);
        }
    }

    /// Writes the outer line at `address` back if it is dirty, and drops it. It keeps its version: the data cache may hold a newer
    /// one, which is to be written over it some time.
    pub(crate) fn evict_outer(&mut self, address: u32) {
        self.changes.walked += 1;
        if let (Some(Page { outer: Some(outer), behind, .. }), number) = self.at_mut(address)
            && let Some(line) = outer.remove(number)
        {
            behind[number as usize] = line;
        }
    }

    /// The lines in the outer cache.
    pub(crate) fn outer_lines(&self) -> Vec<u32> {
        self.lines(|page| page.outer.as_ref().map_or(0, Lines::held))
    }
}
