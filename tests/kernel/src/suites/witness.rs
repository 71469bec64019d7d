//! What the suites of mappings ask of the live kernel: the witnesses for where an address leads, a model of where the
//! next area must lie, and the books that a refusal must not change.
//!
//! ```text
//!                 ┌── our walker         PageTable::translate: the tables, as we understand them
//!    an address ──┼── the CPU's walker   ATS1CPR: the tables, as the processor understands them
//!                 ├── an access          probe: what really happens, stale TLB entries included
//!                 └── the host, if there is one to ask (crate `witness`): the emulator's walker, and a decoder of its own
//! ```

use core::fmt;
use core::iter::once;

use ::witness::{Failure, Testimony};
use arch::exception::{Fault, FaultStatus};
use arch::machine::Authority;
use arch::probe;
use arch::translate::{Direction, translate};
use kerncore::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr};
use kerncore::area::AreaSummary;
use kerncore::descriptor::{l1, l2};
use kerncore::frames::{FrameList, FrameOwner, FrameRequest};
use kerncore::kernel_space::AreaCounts;
use kerncore::layout::linear_address;
use kerncore::ledger::{Item, Nature};
use kerncore::machine::Machine;
use mm::kernel;

/// Who asks, where it does not matter.
pub(super) const NOBODY: VirtAddr = VirtAddr::new(0);

/// The right to remove by address, which a test claims for what it has made itself and holds no reference to.
pub(super) fn authority() -> Authority {
    // SAFETY: tests remove mappings that they made a few lines before, or that the call must refuse, and keep no
    // reference into them; they run one at a time.
    unsafe { Authority::claim() }
}

/// The address `bytes` above `address`.
#[track_caller]
pub(super) fn plus(address: VirtAddr, bytes: u32) -> VirtAddr {
    address.checked_add(bytes).expect("an address below 4 GiB")
}

/// The address `bytes` below `address`.
pub(super) fn minus(address: VirtAddr, bytes: u32) -> VirtAddr {
    VirtAddr::new(address.raw().wrapping_sub(bytes))
}

/// The first address of every page.
pub(super) fn each_page(pages: PageRange) -> impl Iterator<Item = VirtAddr> {
    (pages.first()..pages.end()).map(|number| VirtAddr::new(number * PAGE_SIZE))
}

/// The guard page's first address.
#[track_caller]
pub(super) fn guard_of(pages: PageRange) -> VirtAddr {
    plus(pages.start(), pages.bytes())
}

/// The area's last usable byte.
#[track_caller]
pub(super) fn last_of(pages: PageRange) -> VirtAddr {
    plus(pages.start(), pages.bytes() - 1)
}

/// Whether this is the fault of an address that has no entry.
pub(super) fn is_absent(fault: &Fault) -> bool {
    matches!(fault.status, FaultStatus::Translation(_))
}

/// The host's witnesses agree with the kernel's own about `address`, an access included.
#[track_caller]
pub(super) fn ask_host(address: VirtAddr) {
    let checked = ::witness::check(|| Testimony::of(address), address);
    assert!(checked.is_ok(), "{}", Said(checked));
}

/// The same of the first and the last of `pages`, one between them, and the page behind.
#[track_caller]
pub(super) fn ask_host_of(pages: PageRange) {
    let checked = ::witness::check_pages(pages);
    assert!(checked.is_ok(), "{}", Said(checked));
}

/// What the host said, for an assertion.
struct Said(Result<(), Failure>);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or_else(|failure| failure.fmt(f), |()| Ok(()))
    }
}

/// Nothing is mapped at `address`, say all witnesses.
#[track_caller]
pub(super) fn assert_absent(address: VirtAddr) {
    assert_eq!(kernel().table().translate(address), None, "{address} has an entry");
    assert!(translate(address, Direction::Read).is_err(), "the CPU translates {address}");
    match probe::read_u8(address) {
        Ok(value) => panic!("{address} can be read: {value:#x}"),
        Err(fault) => {
            assert!(is_absent(&fault), "{fault}");
            assert_eq!(fault.address, Some(address));
        }
    }
    ask_host(address);
}

/// `address` leads to `physical`, say both walkers.
#[track_caller]
pub(super) fn assert_walkers_lead(address: VirtAddr, physical: PhysAddr) {
    let walked = kernel().table().translate(address).expect("an entry");
    assert_eq!(walked.physical, physical, "our walker, of {address}");
    assert_eq!(translate(address, Direction::Read), Ok(physical), "the CPU's walker, of {address}");
}

/// `address` leads to `physical`, say all who read the tables, and it is mapped as the books say.
#[track_caller]
pub(super) fn assert_leads(address: VirtAddr, physical: PhysAddr) {
    assert_walkers_lead(address, physical);
    let checked = ::witness::check(|| Testimony::of_walkers(address), address);
    assert!(checked.is_ok(), "{}", Said(checked));
}

/// The frame behind `address`.
#[track_caller]
pub(super) fn frame_at(address: VirtAddr) -> Pfn {
    kernel().table().translate(address).expect("an entry").physical.pfn()
}

/// Below and above the area nothing is mapped (S2). The window's first page has the linear map below it.
#[track_caller]
pub(super) fn assert_fenced(pages: PageRange) {
    assert_absent(guard_of(pages));
    assert_absent(plus(guard_of(pages), PAGE_SIZE - 1));
    if pages.first() != kernel().window().first() {
        assert_absent(minus(pages.start(), 1));
    }
}

/// Reads a byte that must be readable.
#[track_caller]
pub(super) fn byte_at(address: VirtAddr) -> u8 {
    probe::read_u8(address).unwrap_or_else(|fault| panic!("{fault}"))
}

/// Reads a word that must be readable.
#[track_caller]
pub(super) fn word_at(address: VirtAddr) -> u32 {
    probe::read_u32(address).unwrap_or_else(|fault| panic!("{fault}"))
}

/// Where `physical` lies in the linear map.
#[track_caller]
pub(super) fn linear(frame: Pfn) -> VirtAddr {
    linear_address(frame.base()).expect("RAM")
}

/// All live areas by ascending address.
pub(super) fn areas_by_address() -> impl Iterator<Item = AreaSummary> {
    let mut from = Some(kernel().window().start());
    core::iter::from_fn(move || {
        let area = kernel().next_area(from?)?;
        from = area.pages.start().checked_add(area.bytes_with_guard());
        Some(area)
    })
}

/// Where the lowest first fit lies (S1): the model, which looks at every area and knows no index.
pub(super) fn lowest_fit(usable: u32, order: u32) -> Option<VirtAddr> {
    let window = kernel().window();
    let alignment = 1 << order;
    let mut candidate = window.first().next_multiple_of(alignment);
    for area in areas_by_address() {
        if candidate + usable < area.pages.first() {
            break;
        }
        candidate = candidate.max(area.pages.end() + 1).next_multiple_of(alignment);
    }
    (candidate + usable < window.end()).then(|| VirtAddr::new(candidate * PAGE_SIZE))
}

/// The slot of the second-level table that translates `address`.
pub(super) fn slot_of(address: VirtAddr) -> PhysAddr {
    let at = |base: PhysAddr, index: u32| base.checked_add(index * 4).expect("inside a table");
    let table = kernel().table();
    let above = table.read_descriptor(at(table.root(), l1::index(address)));
    match l1::Descriptor::decode(above) {
        Ok(l1::Descriptor::Table(base)) => at(base, l2::index(address)),
        other => panic!("{address} has no second-level table: {other:?}"),
    }
}

/// Writes `descriptor` for `address`, so that every walker sees it, and leaves the TLB alone. Gives the old one.
pub(super) fn overwrite(address: VirtAddr, descriptor: u32) -> u32 {
    let (machine, slot) = (kernel().table().raw_machine(authority()), slot_of(address));
    let old = machine.read_descriptor(slot);
    machine.write_descriptors(slot, once(descriptor));
    machine.clean_descriptors(slot, 1);
    machine.barrier();
    old
}

/// What a refusal must leave as it was, and what must be back when everything was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Books {
    records: u32,
    areas: u32,
    pages_taken: u32,
    largest_hole: u32,
    /// Frames of every owner whose frames come back; with what is free or kept for reuse their sum is all of RAM.
    held: [u32; FrameOwner::COUNT],
}

impl Books {
    pub(super) fn now() -> Self {
        let AreaCounts { records, areas, pages_taken, largest_hole, .. } = kernel().area_counts();
        let census = kernel().zones().table().census();
        let held = FrameOwner::ALL.map(|owner| match Item::Frames(owner).nature() {
            Nature::Held => census.of(owner),
            Nature::Capacity => 0,
        });
        Self { records, areas, pages_taken, largest_hole, held }
    }

    /// Everything is as it was when these were taken, and the address index agrees with itself as far as it is in use: the
    /// rest is for the audit.
    #[track_caller]
    pub(super) fn assert_unchanged(&self) {
        assert_eq!(*self, Self::now());
        assert_eq!(kernel().check_books_in_use(), Ok(()));
    }
}

/// Takes all free frames but `left`, without needing memory for that.
#[track_caller]
pub(super) fn starve(left: u32) -> FrameList {
    let zones = kernel().zones();
    let spare = zones.free_pages().checked_sub(left).expect("that much is free");
    let list = zones.allocate_list_from(FrameRequest::ANY, spare, FrameOwner::Test);
    list.expect("what is free can be had frame by frame")
}

/// Gives back what [`starve`] took.
#[track_caller]
pub(super) fn feed(list: FrameList) {
    kernel().zones().free_list(list).expect("our own frames");
}

/// Numbers that look random and are the same each time (xorshift).
pub(super) struct Numbers(u32);

impl Numbers {
    pub(super) const fn new(seed: u32) -> Self {
        Self(seed | 1)
    }

    /// The next one below `bound`.
    pub(super) const fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % bound
    }
}
