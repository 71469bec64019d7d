//! What a CPU translates by: TTBR0, TTBR1, TTBCR and CONTEXTIDR (ARM DDI 0406C, B3.5.4, B3.9.1, B4.1).
//!
//! ```text
//!   TTBCR.N = 2    0                  2³⁰                                              2³²
//!                  ├───── TTBR0 ───────┼────────────────────── TTBR1 ────────────────────┤
//!                   1,024 slots, 4 KiB   4,096 slots, of which the first 1,024 are not used
//! ```
//!
//! A write to one of them is in effect at the latest after the next barrier of that CPU, and perhaps before: two writes
//! without one between may come true in either order.

use kerncore::addr::PhysAddr;

/// The number of an address space: what CONTEXTIDR holds, and what an entry that is not global is tagged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asid(pub u8);

/// Which addresses TTBR0's table translates, and whether a miss may walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ttbcr {
    /// N: addresses whose top N bits are zero are TTBR0's; with 0, all of them are. At most 7.
    pub split: u32,
    /// PD0: what misses the TLB faults, where TTBR0 would be walked.
    pub no_walk_by_ttbr0: bool,
    /// PD1: as PD0, for TTBR1.
    pub no_walk_by_ttbr1: bool,
}

/// A write to one of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// The table for the lower addresses, aligned to its size: 16 KiB >> N.
    Ttbr0(PhysAddr),
    /// The table for the higher addresses, always of 16 KiB.
    Ttbr1(PhysAddr),
    /// How the two share.
    Ttbcr(Ttbcr),
    /// The current address space.
    ContextId(Asid),
}

impl Register {
    /// Whether both write the same register: such writes come true in their order.
    pub(crate) fn is_that_of(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// The registers of one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    ttbr0: PhysAddr,
    ttbr1: PhysAddr,
    ttbcr: Ttbcr,
    asid: Asid,
}

impl Context {
    /// As after reset: everything by one table.
    pub(crate) const fn new(root: PhysAddr) -> Self {
        let ttbcr = Ttbcr { split: 0, no_walk_by_ttbr0: false, no_walk_by_ttbr1: false };
        Self { ttbr0: root, ttbr1: root, ttbcr, asid: Asid(0) }
    }

    pub(crate) const fn asid(&self) -> Asid {
        self.asid
    }

    pub(crate) fn write(&mut self, register: Register) {
        match register {
            Register::Ttbr0(table) => self.ttbr0 = table,
            Register::Ttbr1(table) => self.ttbr1 = table,
            Register::Ttbcr(ttbcr) => {
                assert!(ttbcr.split <= 7, "TTBCR.N has three bits");
                self.ttbcr = ttbcr;
            }
            Register::ContextId(asid) => self.asid = asid,
        }
    }

    /// Where the first-level table for page number `page` lies; `None` if it may not be walked.
    pub(crate) fn table_for(&self, page: u32) -> Option<PhysAddr> {
        let Ttbcr { split, no_walk_by_ttbr0, no_walk_by_ttbr1 } = self.ttbcr;
        // Page numbers have 20 bits; with no split, all are below.
        if page >> (20 - split) == 0 {
            // The bits below the table's alignment are others' (B4.1.154), so they do not count.
            let aligned = PhysAddr::new(self.ttbr0.raw() & !((0x4000 >> split) - 1));
            (!no_walk_by_ttbr0).then_some(aligned)
        } else {
            (!no_walk_by_ttbr1).then_some(PhysAddr::new(self.ttbr1.raw() & !0x3fff))
        }
    }
}
