//! The audit of the live tables, and of the registers that make the processor walk them.
//!
//! [`kerncore::audit`] compares every descriptor with records and frame owners. What it takes for granted is checked here:
//! that the processor translates by these tables at all, checks their permissions, reads their words as they are meant,
//! and that nothing is mapped below them.

use core::fmt;

use arch::cp15::{Contextidr, Dacr, Sctlr, SysRegRead, Ttbcr, Ttbr0, Ttbr1};
use boot::layout::{Part, Use};
use kerncore::addr::{PageRange, PhysAddr, VirtAddr, pages_for};
use kerncore::attributes::Attributes;
use kerncore::audit::{Expected, FixedPart, Summary, Violation};
use kerncore::descriptor::{SLOT_SIZE, l1};
use kerncore::frames::FrameOwner;
use kerncore::iommu::DomainViolation;
use kerncore::layout::{HEAP_END, HEAP_START, KERNEL_START, linear_physical};
use kerncore::user::{UserSummary, UserViolation};

use crate::{domain, heap, kernel, user};

/// A rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// In the tables or the books.
    Table(Violation),
    /// A field of a register is not what the tables were made for.
    Register {
        /// Which, in the manual's words.
        field: &'static str,
        /// What it should hold.
        wanted: u32,
        /// What it holds.
        had: u32,
    },
    /// In the tables of a program.
    User(UserViolation),
    /// In the tables of a device's domain.
    Domain(DomainViolation),
    /// Frames of programs' data, or of text, that nobody has: they leaked.
    UserFrames {
        /// Whose they are.
        owner: FrameOwner,
        /// How many he owns.
        owned: u32,
        /// How many were found.
        found: u32,
    },
    /// Areas and blocks of frames count other windows that show them than there are.
    Shown {
        /// How many they count.
        counted: u32,
        /// How many there are.
        found: u32,
    },
    /// A first-level slot for user addresses is not empty, and there is no user: the identity mapping was to be gone before
    /// Rust's main (S111), and page zero is never mapped (S112).
    LowMapping {
        /// The first address that it translates.
        address: VirtAddr,
        /// What it holds.
        descriptor: u32,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(violation) => violation.fmt(f),
            Self::User(violation) => violation.fmt(f),
            Self::Domain(violation) => violation.fmt(f),
            Self::Shown { counted, found } => {
                write!(
                    f,
                    "areas and blocks count {counted} windows of programs, and there are {found}"
                )
            }
            Self::UserFrames { owner, owned, found } => {
                write!(f, "{owner} has {owned} frames, and {found} were found")
            }
            Self::Register { field, wanted, had } => {
                write!(f, "{field} is {had:#x}, not {wanted:#x}")
            }
            Self::LowMapping { address, descriptor } => {
                write!(f, "{address}: first-level {descriptor:#010x} below the kernel's half")
            }
        }
    }
}

/// Audits the kernel's half of the address space and the processor's registers; each rule that is broken goes to `report`,
/// which may print and must not ask for memory or areas.
///
/// Nothing else may map, unmap or allocate meanwhile. Costs a few dozen instructions for each page of RAM.
pub fn audit(report: &mut dyn FnMut(Finding)) -> Summary {
    let mut others = 0;
    let mut count = |finding| {
        others += 1;
        report(finding);
    };
    // First, for their tables are among those that the kernel's are counted with.
    let programs = user::audit(&mut |violation| count(Finding::User(violation)));
    let domains = domain::audit(&mut |violation| count(Finding::Domain(violation))).summary;
    let mut summary = tables(programs.table_frames + domains.table_frames, report);
    summary.violations += others;
    let code_pages = summary.code_pages;
    let mut count = |finding| {
        summary.violations += 1;
        report(finding);
    };
    registers(&mut count);
    low_half(&mut count);
    memory_of(&programs, code_pages, &mut count);
    summary
}

/// The kernel's tables and books, beside which programs and devices have tables in so many frames.
fn tables(space_tables: u32, report: &mut dyn FnMut(Finding)) -> Summary {
    let parts = boot::layout::parts().map(fixed);
    let expected = Expected {
        image: boot::layout::image(),
        parts: &parts,
        constants: page_pointers(),
        heap: heap_region(),
        heap_mapped: heap::usage().pages,
        space_tables,
    };
    kerncore::audit::audit(kernel(), &expected, &mut |violation| report(Finding::Table(violation)))
}

/// The memory that programs have, and windows onto the kernel's. Of text, areas have `code_pages` beside theirs.
fn memory_of(programs: &UserSummary, code_pages: u32, report: &mut dyn FnMut(Finding)) {
    let census = kernel().zones().census();
    let counted = kernel().windows_shown() + census.shown;
    if counted != programs.shown {
        report(Finding::Shown { counted, found: programs.shown });
    }
    for (owner, found) in
        [(FrameOwner::User, programs.frames), (FrameOwner::Text, programs.text_frames + code_pages)]
    {
        let owned = census.of(owner);
        if owned != found {
            report(Finding::UserFrames { owner, owned, found });
        }
    }
}

/// What the entries of a part of the image promise.
fn fixed(part: Part) -> FixedPart {
    let attributes = match part.usage {
        Use::Text => Attributes::KERNEL_TEXT,
        Use::ReadOnly => Attributes::KERNEL_RODATA,
        Use::Data | Use::Stack | Use::Tables => Attributes::KERNEL_DATA,
    };
    FixedPart { name: part.name, pages: part.pages, attributes }
}

/// Where the pointers to all frames lie: whole pages, read-only.
pub fn page_pointers() -> PageRange {
    let words = kernel().pointers().words();
    let bytes = size_of_val(words);
    #[expect(clippy::cast_possible_truncation, reason = "a pointer of the target is one word")]
    let (start, bytes) = (VirtAddr::new(words.as_ptr().addr() as u32), bytes as u32);
    PageRange::new(start, pages_for(bytes)).unwrap_or(PageRange::EMPTY)
}

/// The addresses of the heap.
pub(crate) fn heap_region() -> PageRange {
    const PAGES: u32 = HEAP_END.page_number() - HEAP_START.page_number();
    const REGION: PageRange = match PageRange::new(HEAP_START, PAGES) {
        Some(region) => region,
        None => panic!("the heap's region begins on a page boundary"),
    };
    REGION
}

fn registers(report: &mut dyn FnMut(Finding)) {
    let (sctlr, ttbcr) = (Sctlr::read_raw(), Ttbcr::read());
    let bit = |bit: u32| sctlr >> bit & 1;
    let walks = |base: VirtAddr| linear_physical(base).map_or(u32::MAX, PhysAddr::raw);
    for (field, wanted, had) in [
        ("SCTLR.M", 1, bit(0)),
        ("SCTLR.C", 1, bit(2)),
        ("SCTLR.Z", 1, bit(11)),
        ("SCTLR.I", 1, bit(12)),
        // Descriptors are made for TEX, C and B that name the memory type, and for AP of three bits.
        ("SCTLR.TRE", 0, bit(28)),
        ("SCTLR.AFE", 0, bit(29)),
        ("TTBCR.N", 1, ttbcr.n()),
        ("TTBCR.PD0", 1, u32::from(ttbcr.pd0())),
        ("TTBCR.PD1", 0, u32::from(ttbcr.pd1())),
        ("TTBCR.EAE", 0, u32::from(ttbcr.eae())),
        // While no program runs, the number is the kernel's, under which the TLB has nothing of any.
        ("CONTEXTIDR", 0, Contextidr::read_raw()),
        // Client of domain 0, no access to any other: no permission goes unchecked.
        ("DACR", 1, Dacr::read_raw()),
        ("the base in TTBR1", walks(boot::layout::kernel_l1()), Ttbr1::read().base().raw()),
        // With TTBCR.N = 1 the base has the upper 19 bits.
        ("the base in TTBR0", walks(boot::layout::user_l1()), Ttbr0::read_raw() & 0xffff_e000),
    ] {
        if wanted != had {
            report(Finding::Register { field, wanted, had });
        }
    }
}

/// Nothing is mapped for the user, neither in the table that is there for it nor in the half of the kernel's that the
/// processor does not look at.
fn low_half(report: &mut dyn FnMut(Finding)) {
    for table in [boot::layout::user_l1(), boot::layout::kernel_l1()] {
        let Some(table) = linear_physical(table) else { continue };
        for index in 0..l1::index(KERNEL_START) {
            let descriptor = match table.checked_add(index * SLOT_SIZE) {
                Some(slot) => kernel().table().read_descriptor(slot),
                None => 0,
            };
            if descriptor != 0 {
                let address = VirtAddr::new(index << l1::SLOT_SHIFT);
                report(Finding::LowMapping { address, descriptor });
            }
        }
    }
}
