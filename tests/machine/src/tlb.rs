//! One CPU's memory of translations, and the permission check that every access passes.

use std::collections::BTreeMap;

use crate::context::Asid;
use kerncore::addr::{PAGE_SHIFT, PageRange, PhysAddr, VirtAddr};

/// Pages of what sixteen descriptors describe: a large page, and a supersection.
const BY_SIXTEEN: [u32; 2] = [16, 4096];

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads data.
    Read,
    /// Writes data.
    Write,
    /// Fetches an instruction.
    Execute,
}

/// On whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The kernel's.
    Kernel,
    /// A user program's.
    User,
}

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No mapping.
    Translation(VirtAddr),
    /// A mapping that does not allow it.
    Permission(VirtAddr),
    /// More than one translation, and not the same: what follows is unpredictable (ARM DDI 0406C, B3.10.1).
    Conflict(VirtAddr),
}

/// A translation as the walker found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    /// Number of its first page.
    pub(crate) first: u32,
    /// How many pages, a power of two.
    pub(crate) count: u32,
    /// Where the first page leads.
    pub(crate) physical: u32,
    /// AP\[2:0\].
    pub(crate) permissions: u32,
    /// XN.
    pub(crate) execute_never: bool,
    /// Whether the memory type allows lines of it in the cache.
    pub(crate) cacheable: bool,
    /// The address space that it belongs to; `None` if it is global.
    pub(crate) asid: Option<Asid>,
}

impl Translation {
    fn covers_any_of(&self, pages: PageRange) -> bool {
        self.first < pages.end() && pages.first() < self.first + self.count
    }

    /// Whether the two, which serve the same page, are not of one size, or not the same large page or supersection.
    pub(crate) fn clashes_with(&self, other: &Self) -> bool {
        self.count != other.count || BY_SIXTEEN.contains(&self.count) && self != other
    }

    pub(crate) const fn bytes(&self) -> u32 {
        self.count << PAGE_SHIFT
    }

    /// Where `address` leads.
    pub(crate) const fn leads(&self, address: VirtAddr) -> PhysAddr {
        PhysAddr::new(self.physical + (address.raw() & (self.bytes() - 1)))
    }

    /// ARM DDI 0406C, Table B3-8, and the XN bit.
    pub(crate) const fn allows(&self, kind: Kind, privilege: Privilege) -> bool {
        let (kernel_reads, kernel_writes, user_reads, user_writes) = match self.permissions {
            0b001 => (true, true, false, false),
            0b010 => (true, true, true, false),
            0b011 => (true, true, true, true),
            0b101 => (true, false, false, false),
            0b110 | 0b111 => (true, false, true, false),
            _ => (false, false, false, false),
        };
        let (reads, writes) = match privilege {
            Privilege::Kernel => (kernel_reads, kernel_writes),
            Privilege::User => (user_reads, user_writes),
        };
        match kind {
            Kind::Read => reads,
            Kind::Write => writes,
            Kind::Execute => reads && !self.execute_never,
        }
    }
}

/// What an invalidation is about (B3.10.1, B4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: TLBIALL.
    All,
    /// What translates these pages, in every address space: TLBIMVAA for each.
    Pages(PageRange),
    /// What translates these pages in that address space, global entries among it: TLBIMVA for each.
    PagesOf(PageRange, Asid),
    /// What belongs to that address space alone, so nothing that is global: TLBIASID.
    Space(Asid),
}

impl Scope {
    fn names(self, entry: &Translation) -> bool {
        match self {
            Self::All => true,
            Self::Pages(pages) => entry.covers_any_of(pages),
            Self::PagesOf(pages, asid) => {
                entry.covers_any_of(pages) && entry.asid.is_none_or(|owner| owner == asid)
            }
            Self::Space(asid) => entry.asid == Some(asid),
        }
    }
}

/// How far an invalidation reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The CPU that asked.
    Local,
    /// All of them: the IS forms.
    InnerShareable,
}

/// What a TLB says of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It holds nothing for it.
    Nothing,
    /// One entry, of whatever size, serves it.
    Entry(Translation),
    /// Entries overlap there that say different things, or are of different sizes.
    Conflict,
}

/// Pages of what the walker may find: a small page, a large page, a section, a supersection.
const SIZES: [u32; 4] = [1, 16, 256, 4096];

/// One CPU's translations, by size and by first page.
///
/// An entry is one of the table's: a supersection, a section or a large page is held as a whole, and goes as a whole with any
/// address in it.
#[derive(Debug, Default)]
pub(crate) struct Tlb {
    held: [BTreeMap<u32, Vec<Translation>>; SIZES.len()],
    changes: u64,
}

impl Tlb {
    /// What translates `page` in the address space `asid`.
    pub(crate) fn find(&self, page: u32, asid: Asid) -> Found {
        let by_size = self.held.iter().zip(SIZES);
        let covering = by_size.filter_map(|(held, count)| held.get(&(page & !(count - 1))));
        let mut serving =
            covering.flatten().filter(|entry| entry.asid.is_none_or(|owner| owner == asid));
        match serving.next() {
            None => Found::Nothing,
            Some(entry) if serving.all(|other| other == entry) => Found::Entry(*entry),
            Some(_) => Found::Conflict,
        }
    }

    /// Those of `pages`, which ascend, of which it cannot be said at once that they are served by one small page and nothing else.
    pub(crate) fn not_by_small_pages(
        &self,
        pages: impl Iterator<Item = u32>,
        asid: Asid,
    ) -> impl Iterator<Item = u32> {
        let [small, larger @ ..] = &self.held;
        let none_is_larger = larger.iter().all(BTreeMap::is_empty);
        // Both ascend: nobody is searched for.
        let mut small = small.iter().peekable();
        pages.filter(move |&page| {
            while small.next_if(|&(&held, _)| held < page).is_some() {}
            let held = small.peek().filter(|&&(&held, _)| held == page);
            let one = held.and_then(|(_, entries)| match entries.as_slice() {
                [entry] => Some(entry),
                _ => None,
            });
            let is_served = one.is_some_and(|entry| entry.asid.is_none_or(|owner| owner == asid));
            !(is_served && none_is_larger)
        })
    }

    pub(crate) fn insert(&mut self, entry: Translation) {
        let size = SIZES.iter().position(|&count| count == entry.count);
        let size = size.expect("the walker finds entries of four sizes");
        self.held[size].entry(entry.first).or_default().push(entry);
        self.changes += 1;
    }

    /// Drops every entry that `scope` names, and nothing else.
    pub(crate) fn invalidate(&mut self, scope: Scope) {
        self.retain(|entry| !scope.names(entry));
    }

    /// Keeps the entries for which `keep` says so.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Translation) -> bool) {
        let changes = &mut self.changes;
        for held in &mut self.held {
            held.retain(|_, entries| {
                let before = entries.len();
                entries.retain(&mut keep);
                *changes += u64::from(entries.len() != before);
                !entries.is_empty()
            });
        }
    }

    /// How often what it holds has changed: while this is the same, so is all that it says.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Translation> {
        self.held.iter().flat_map(BTreeMap::values).flatten()
    }
}
