//! Memory, and one data cache in front of it that all CPUs share (as a snoop control unit makes theirs look).
//!
//! ```text
//!   page ─┬─ touched        the lines that reading ahead is interested in
//!         ├─ instructions   what fetches find
//!         ├─ cache          what loads and stores through the cache find, and leave
//!         ├─ outer          the same for what the data cache reads in and writes back
//!         └─ behind         memory itself
//! ```
//! Every line has a version, counted up by each write into the cache, so that a clean that completes late can never put an
//! older line over a newer one. Writes past the cache have none: a dirty line covers them when it is written back.
//!
//! A machine may have an outer cache between the two (`outer.rs`): what the data cache reads in and writes back then goes
//! through that, as a walker's reads do.

use std::collections::BTreeMap;

use kerncore::addr::{PAGE_SHIFT, PAGE_SIZE};
use lines::{Lines, numbers};

/// Bytes in a line of the Cortex-A9.
pub(crate) const LINE: u32 = 32;
const WORDS: usize = LINE as usize / 4;
/// Lines in a page.
const PAGE_LINES: usize = (PAGE_SIZE / LINE) as usize;

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    words: [u32; WORDS],
    version: u64,
}

/// A line as it was when somebody began to clean it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    address: u32,
    line: Line,
}

/// All that anybody holds of a page.
#[derive(Debug)]
struct Page {
    /// A bit for each line that anybody has touched: those that reading ahead is interested in.
    touched: u128,
    /// The instruction caches of all CPUs, taken for one: lines as they were in memory when they were fetched.
    instructions: Lines,
    cache: Lines,
    /// The outer cache, on machines that have one.
    outer: Option<Lines>,
    behind: [Line; PAGE_LINES],
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Pages that somebody has written or asked for, by number.
    pages: BTreeMap<u32, Box<Page>>,
    /// Whether there is an outer cache.
    has_outer: bool,
    version: u64,
    changes: Changes,
}

/// How often something has happened that may give a machine something to do of its own accord: while both are the same, nobody
/// who has looked need look again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// To what a walker reads.
    pub(crate) walked: u64,
    /// To which lines of interest no cache has: one more was touched, or dropped.
    pub(crate) lines: u64,
}

mod lines;
mod outer;

/// The number of a page, and that of a line in it.
const fn place(address: u32) -> (u32, u32) {
    (address >> PAGE_SHIFT, address % PAGE_SIZE / LINE)
}

const fn word(address: u32) -> usize {
    (address % LINE / 4) as usize
}

impl Page {
    /// Brings a line into the cache.
    fn fill(&mut self, number: u32) -> &mut Line {
        if self.cache.get(number).is_none() {
            let line = self.beyond(number);
            self.cache.hold(number, line);
        }
        self.cache.get_mut(number).expect("it was brought in")
    }

    /// Drops a line of the data cache; writes it back, as `version`, if it is dirty.
    fn evict(&mut self, number: u32, version: &mut u64) {
        if let Some(line) = self.cache.remove(number) {
            *version += 1;
            self.write_beyond(number, Line { version: *version, ..line });
        }
    }
}

impl Memory {
    /// What may have given a machine something to do.
    pub(crate) const fn changes(&self) -> Changes {
        self.changes
    }

    fn at(&self, address: u32) -> (Option<&Page>, u32) {
        let (page, number) = place(address);
        (self.pages.get(&page).map(Box::as_ref), number)
    }

    fn at_mut(&mut self, address: u32) -> (Option<&mut Page>, u32) {
        let (page, number) = place(address);
        (self.pages.get_mut(&page).map(Box::as_mut), number)
    }

    /// The page of an address, which is touched.
    fn touched(&mut self, address: u32) -> (&mut Page, u32) {
        let (page, number) = place(address);
        let outer = self.has_outer.then(Lines::default);
        let page = self.pages.entry(page).or_insert_with(|| {
            Box::new(Page {
                touched: 0,
                instructions: Lines::default(),
                cache: Lines::default(),
                outer,
                behind: [Line::default(); PAGE_LINES],
            })
        });
        self.changes.lines += u64::from(page.touched >> number & 1 == 0);
        page.touched |= 1 << number;
        (page, number)
    }

    /// What memory itself holds: the view of walkers and devices.
    pub(crate) fn read_memory(&self, address: u32) -> u32 {
        let (page, number) = self.at(address);
        page.map_or(0, |page| page.behind[number as usize].words[word(address)])
    }

    /// From now on, reading ahead is interested in the line at `address`.
    pub(crate) fn touch(&mut self, address: u32) {
        self.touched(address);
    }

    /// Writes past the cache.
    pub(crate) fn write_memory(&mut self, address: u32, value: u32) {
        self.changes.walked += 1;
        let (page, number) = self.touched(address);
        page.behind[number as usize].words[word(address)] = value;
    }

    /// Reads through the cache, allocating.
    pub(crate) fn read_cached(&mut self, address: u32) -> u32 {
        let (page, number) = self.touched(address);
        page.fill(number).words[word(address)]
    }

    /// Writes into the cache, allocating; memory does not see it yet.
    pub(crate) fn write_cached(&mut self, address: u32, value: u32) {
        self.version += 1;
        let version = self.version;
        let (page, number) = self.touched(address);
        let line = page.fill(number);
        line.words[word(address)] = value;
        line.version = version;
        page.cache.soil(number);
    }

    /// What an access with a non-cacheable type finds in the cache, if it looks there: with mismatched attributes
    /// it may (A3.5.7).
    pub(crate) fn unexpected_hit(&mut self, address: u32) -> Option<u32> {
        let (page, number) = self.touched(address);
        page.cache.get(number).map(|line| line.words[word(address)])
    }

    /// The line at `address` as a clean that begins now will write it; nothing if it is not dirty.
    pub(crate) fn begin_clean(&self, address: u32) -> Option<Snapshot> {
        let (page, number) = self.at(address);
        let line = page?.cache.get_dirty(number)?;
        Some(Snapshot { address, line: *line })
    }

    /// Completes a clean. A write after its beginning is not covered; a newer line in memory stays.
    pub(crate) fn complete_clean(&mut self, snapshot: Snapshot) {
        self.changes.walked += 1;
        let Snapshot { address, line } = snapshot;
        let (Some(page), number) = self.at_mut(address) else { return };
        if line.version > page.version_beyond(number) {
            page.write_beyond(number, line);
        }
        page.cache.clean(number, line.version);
    }

    /// What a fetch finds at `address`: in the instruction cache first, then in memory, never in the data cache.
    pub(crate) fn fetch(&mut self, address: u32) -> u32 {
        let (page, number) = self.touched(address);
        let line = page.instructions.get(number).copied();
        let line =
            line.unwrap_or_else(|| *page.instructions.hold(number, page.behind[number as usize]));
        line.words[word(address)]
    }

    /// Brings the touched lines of `bytes` from `first`, whole pages, into the instruction cache, as the processor may of any
    /// memory that may be executed.
    pub(crate) fn fetch_ahead(&mut self, first: u32, bytes: u32) {
        let last = first | (bytes - 1);
        for page in self.pages.range_mut(place(first).0..=place(last).0).map(|(_, page)| page) {
            for number in numbers(page.touched & !page.instructions.held()) {
                page.instructions.hold(number, page.behind[number as usize]);
            }
        }
    }

    /// Empties the instruction cache.
    pub(crate) fn forget_instructions(&mut self) {
        self.changes.lines += 1;
        self.pages.values_mut().for_each(|page| page.instructions.clear());
    }

    /// Writes the line at `address` back if it is dirty, and drops it.
    pub(crate) fn evict(&mut self, address: u32) {
        let (page, number) = place(address);
        if let Some(page) = self.pages.get_mut(&page) {
            let before = self.version;
            self.changes.lines += u64::from(page.cache.get(number).is_some());
            page.evict(number, &mut self.version);
            self.changes.walked += u64::from(self.version != before);
        }
    }

    /// Drops the line at `address`, dirty or not.
    pub(crate) fn drop_line(&mut self, address: u32) {
        self.changes.lines += 1;
        if let (Some(page), number) = self.at_mut(address) {
            page.cache.remove(number);
        }
    }

    /// The lines in the cache.
    pub(crate) fn cached_lines(&self) -> Vec<u32> {
        self.lines(|page| page.cache.held())
    }

    /// Addresses of the lines for which `of` a page has a bit, in order.
    fn lines(&self, of: impl Fn(&Page) -> u128) -> Vec<u32> {
        let lines = self.pages.iter().flat_map(|(&page, held)| {
            numbers(of(held)).map(move |number| (page << PAGE_SHIFT) + number * LINE)
        });
        lines.collect()
    }

    /// Reads the touched lines of `bytes` from `first`, whole pages, into the cache, as the processor may of any memory that a
    /// cacheable mapping reaches.
    pub(crate) fn read_ahead(&mut self, first: u32, bytes: u32) {
        let last = first | (bytes - 1);
        for page in self.pages.range_mut(place(first).0..=place(last).0).map(|(_, page)| page) {
            for number in numbers(page.touched & !page.cache.held()) {
                page.fill(number);
            }
        }
    }
}
