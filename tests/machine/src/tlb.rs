//! One CPU's memory of translations, and the permission check that every access passes.

use kerncore::addr::{PAGE_SHIFT, PageRange, PhysAddr, VirtAddr};

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
}

impl Translation {
    pub(crate) const fn covers(&self, page: u32) -> bool {
        page >= self.first && page - self.first < self.count
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

/// One CPU's translations.
#[derive(Debug, Default)]
pub(crate) struct Tlb(Vec<Translation>);

impl Tlb {
    pub(crate) fn find(&self, page: u32) -> Option<Translation> {
        self.0.iter().find(|entry| entry.covers(page)).copied()
    }

    pub(crate) fn insert(&mut self, entry: Translation) {
        self.0.push(entry);
    }

    /// Drops every entry that translates a page of `pages`, and nothing else.
    pub(crate) fn invalidate(&mut self, pages: PageRange) {
        self.0.retain(|entry| {
            entry.first >= pages.end() || entry.first + entry.count <= pages.first()
        });
    }

    /// Keeps the entries for which `keep` says so.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Translation) -> bool) {
        self.0.retain(keep);
    }

    pub(crate) fn entries(&self) -> &[Translation] {
        &self.0
    }
}
