//! The books checked against themselves, for tests and the audit. O(n) in the pages of the space, or in those of them up to the
//! open space: most of a large space has never had an area, and what is checked there again and again is nothing.

use core::fmt;

use super::{Front, GUARD_PAGES, HOLE, LIVE, START, STATE, VaSpace};

/// What was found wrong. Offsets are in pages from the start of the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckError {
    /// A page is neither in an area nor in a hole: nothing begins here.
    Unowned {
        /// The page's offset.
        page: u32,
    },
    /// An area's length is impossible, or its two copies differ.
    BadLength {
        /// The offset of the area's first page.
        area: u32,
        /// The length as it stands at the first page.
        length: u32,
    },
    /// A hole reaches the open space or beyond it, or the tag at its end is wrong.
    BadHole {
        /// The offset of the hole's first page.
        hole: u32,
        /// The length that the tree holds.
        length: u32,
    },
    /// A request would be answered out of the front, though this hole lies lower.
    Passed {
        /// The offset of the hole's first page.
        hole: u32,
        /// Its length.
        length: u32,
        /// For so many pages and more no hole is looked for.
        least: u32,
    },
    /// Two holes touch: a free has merged with one neighbour only.
    Unmerged {
        /// The offset of the upper hole's first page.
        hole: u32,
    },
    /// The tree of holes holds something that is not the maximum of what is below it.
    BadMaximum {
        /// The group of slots.
        group: u32,
    },
    /// A summary of the set of starts does not say what is below it.
    BadSummary {
        /// The word.
        word: u32,
    },
    /// A record lies where no live area begins, or is missing where one does.
    StrayRecord {
        /// The page's offset.
        page: u32,
    },
    /// A count differs from what was walked.
    BadCount {
        /// Which count.
        what: Count,
        /// What the books say.
        noted: u32,
        /// What there is.
        found: u32,
    },
}

/// A number kept or implied by the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// Areas, as members of the set of starts.
    Starts,
    /// Areas, as tags that are marked as their first.
    Marks,
    /// Holes in the tree.
    Holes,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unowned { page } => write!(f, "page {page} is neither in an area nor in a hole"),
            Self::BadLength { area, length } => {
                write!(f, "the area at page {area} cannot have {length} pages")
            }
            Self::BadHole { hole, length } => {
                write!(f, "the hole at page {hole} cannot have {length} pages")
            }
            Self::Passed { hole, length, least } => write!(
                f,
                "the hole of {length} pages at page {hole} is passed over by requests for {least} and more"
            ),
            Self::Unmerged { hole } => write!(f, "the hole at page {hole} touches the one below"),
            Self::BadMaximum { group } => write!(f, "group {group} of the holes' tree is wrong"),
            Self::BadSummary { word } => write!(f, "word {word} of the starts' set is wrong"),
            Self::StrayRecord { page } => {
                write!(f, "page {page} has a record and no live area, or the other way round")
            }
            Self::BadCount { what, noted, found } => {
                write!(f, "{what:?}: {noted} noted, {found} found")
            }
        }
    }
}

impl<R> VaSpace<'_, R> {
    /// Walks the whole space and proves that areas and holes tile it up to the open space, that no two holes touch,
    /// and that every index and count agrees with that.
    ///
    /// # Errors
    /// The first [`CheckError`] found.
    pub fn check(&self) -> Result<(), CheckError> {
        self.check_below(self.pages)
    }

    /// As [`VaSpace::check`], but for what the indices say of the open space, which no area has changed: for those who check
    /// after each step.
    ///
    /// # Errors
    /// The first [`CheckError`] found.
    pub fn check_in_use(&self) -> Result<(), CheckError> {
        self.check_below(self.top())
    }

    /// Checks what is said of the first `end` pages, of which the open space has the last.
    fn check_below(&self, end: u32) -> Result<(), CheckError> {
        let (areas, holes) = self.tiles()?;
        let marked = self.marks(end)?;
        let in_tree = self.holes.audit(end).map_err(|group| CheckError::BadMaximum { group })?;
        let in_set = self.starts.audit().map_err(|word| CheckError::BadSummary { word })?;
        for (what, noted, found) in [
            (Count::Starts, in_set, areas),
            (Count::Marks, marked, areas),
            (Count::Holes, in_tree + self.front.holes(self.pages), holes),
        ] {
            if noted != found {
                return Err(CheckError::BadCount { what, noted, found });
            }
        }
        Ok(())
    }

    /// Walks from area to hole to area: how many there are of both.
    fn tiles(&self) -> Result<(u32, u32), CheckError> {
        let (mut areas, mut holes) = (0, 0);
        let mut page = 0;
        let mut after_hole = false;
        while page < self.top() {
            if self.starts.contains(page) {
                page += self.checked_area(page)?;
                areas += 1;
                after_hole = false;
            } else {
                let length = self.checked_hole(page)?;
                if after_hole {
                    return Err(CheckError::Unmerged { hole: page });
                }
                page += length;
                holes += 1;
                after_hole = true;
            }
        }
        Ok((areas, holes))
    }

    /// How many of the first `end` tags say that an area begins there; records lie where a live one does, and nowhere else.
    fn marks(&self, end: u32) -> Result<u32, CheckError> {
        const STRIDE: u32 = 16;
        let (records, tags) = (&self.records[..end as usize], &self.tags[..end as usize]);
        let mut marked = 0;
        let mut exact = |first: u32, end: u32| {
            let run = first as usize..end as usize;
            for (page, (record, tag)) in (first..).zip(records[run.clone()].iter().zip(&tags[run]))
            {
                let state = tag & STATE;
                if record.is_some() != (state == START | LIVE) {
                    return Err(CheckError::StrayRecord { page });
                }
                marked += u32::from(state != 0);
            }
            Ok(())
        };
        // Most runs of pages have no mark at all, and cost least: no branch a page.
        let runs = tags.as_chunks::<{ STRIDE as usize }>().0.iter();
        let runs = runs.zip(records.as_chunks::<{ STRIDE as usize }>().0);
        for (run, (tags, records)) in (0..).zip(runs) {
            let states = tags.iter().fold(0, |all, tag| all | tag) & STATE;
            let filled: u32 = records.iter().map(|record| u32::from(record.is_some())).sum();
            if states | filled != 0 {
                exact(run * STRIDE, (run + 1) * STRIDE)?;
            }
        }
        exact(end - end % STRIDE, end)?;
        Ok(marked)
    }

    fn checked_area(&self, area: u32) -> Result<u32, CheckError> {
        let length = self.taken_at(area);
        let fits = length > GUARD_PAGES && length <= self.top() - area;
        let begins = self.tags[area as usize] & START != 0;
        if begins && fits && self.tags[(area + length) as usize - 1] == length {
            Ok(length)
        } else {
            Err(CheckError::BadLength { area, length })
        }
    }

    fn checked_hole(&self, hole: u32) -> Result<u32, CheckError> {
        let is_front = hole == self.front.start;
        let length = if is_front { self.front.end - hole } else { self.holes.starting_at(hole) };
        if length == 0 {
            return Err(CheckError::Unowned { page: hole });
        }
        // Above every hole there is an area, or it would be part of the open space.
        let fits = length < self.top() - hole;
        // Nothing is marked where the front ends.
        let marked = |tag| if is_front { tag & HOLE == 0 } else { tag == HOLE | length };
        if !fits || !marked(self.tags[(hole + length) as usize - 1]) {
            return Err(CheckError::BadHole { hole, length });
        }
        let Front { start, least, least_without_aside, .. } = self.front;
        let least = if self.holes.is_aside(hole) { least } else { least.min(least_without_aside) };
        if hole < start && length >= least {
            return Err(CheckError::Passed { hole, length, least });
        }
        Ok(length)
    }
}

#[cfg(test)]
impl<R> VaSpace<'_, R> {
    /// Makes the books contradict themselves, for a test of who must notice.
    pub(crate) fn miscount(&mut self) {
        if let Some(tag) = self.tags.last_mut() {
            *tag |= START;
        }
    }
}
