//! The tables as a map: entries that continue each other, told as one.

use crate::addr::{PageRange, PhysAddr};
use crate::attributes::Attributes;
use crate::descriptor::{BadDescriptor, PageSize};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::{Entry, PageTable};

/// Addresses that are mapped one after the other to memory that lies one after the other, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// They are mapped.
    Mapped {
        /// The addresses.
        pages: PageRange,
        /// Where the first leads.
        physical: PhysAddr,
        /// By what kind of entry.
        size: PageSize,
        /// What they promise.
        attributes: Attributes,
    },
    /// An entry that no part of this project writes; never joined with another.
    Bad {
        /// The addresses.
        pages: PageRange,
        /// What is wrong.
        descriptor: BadDescriptor,
    },
}

impl Run {
    /// The addresses.
    pub const fn pages(&self) -> PageRange {
        match self {
            Self::Mapped { pages, .. } | Self::Bad { pages, .. } => *pages,
        }
    }

    /// This run with `next` behind it, if `next` continues it and `border` does not lie between them.
    fn joined(self, next: Self, border: impl Fn(PageRange) -> bool) -> Option<Self> {
        let Self::Mapped { pages, physical, size, attributes } = self else { return None };
        let continued = Self::Mapped {
            pages: next.pages(),
            physical: physical.checked_add(pages.bytes())?,
            size,
            attributes,
        };
        if pages.end() != next.pages().first() || continued != next || border(next.pages()) {
            return None;
        }
        let pages = PageRange::from_numbers(pages.first(), pages.count() + next.pages().count())?;
        Some(Self::Mapped { pages, physical, size, attributes })
    }
}

/// Shows what `range` is mapped to, as few runs as possible, in order. A run also ends where `border` says that the given
/// pages begin something new, such as another region or area.
pub fn for_each_run<M: Machine, L: Locks>(
    table: &PageTable<M, L>,
    range: PageRange,
    border: impl Fn(PageRange) -> bool,
    mut visit: impl FnMut(Run),
) {
    let mut last: Option<Run> = None;
    table.for_each_entry(range, |entry| {
        let next = match entry {
            Entry::Mapping { pages, physical, size, attributes } => {
                Run::Mapped { pages, physical, size, attributes }
            }
            Entry::Bad { pages, descriptor } => Run::Bad { pages, descriptor },
        };
        match last.and_then(|last| last.joined(next, &border)) {
            Some(joined) => last = Some(joined),
            None => {
                if let Some(done) = last.replace(next) {
                    visit(done);
                }
            }
        }
    });
    if let Some(done) = last {
        visit(done);
    }
}
