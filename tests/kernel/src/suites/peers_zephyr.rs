//! What Zephyr's test of memory mapping looks at, written anew from its description: rights by real faults, mappings without
//! side effects, what is unmapped faults, addresses come again, guards before and after, exhaustion counted exactly, and all of
//! it had again (S2, S7, S8, S23, S28, S37, S112).

extern crate alloc;

use alloc::vec::Vec;

use arch::exception::{Access, Fault, FaultStatus, Level};
use arch::probe;
use kerncore::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::kernel_space::{IoRemapError, NoArea, VmallocError};
use ktest::{assert_err, ktest};
use mm::exec_area::ExecArea;
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::witness::{
    Books, NOBODY, assert_absent, assert_fenced, assert_leads, authority, each_page, feed, linear,
    lowest_fit, plus, starve, word_at,
};

/// `bx lr`.
const RETURN: u32 = 0xe12f_ff1e;
/// Behind RAM on a board that has all it can; nobody touches what is mapped there.
const BEYOND_RAM: PhysAddr = PhysAddr::new(0xa000_0000);

/// What may be done at an address, by trying: read, write, execute.
#[track_caller]
fn rights(address: VirtAddr) -> [bool; 3] {
    let is_refusal = |fault: Fault, access| {
        assert_eq!((fault.status, fault.access), (FaultStatus::Permission(Level::Second), access));
        assert_eq!(fault.address, Some(address));
        false
    };
    let word = word_at(address);
    assert_eq!(word, RETURN);
    // SAFETY: the same word once more.
    let written = unsafe { probe::write_u32(address, word) };
    // SAFETY: it returns at once.
    let executed = unsafe { probe::execute(address) };
    [
        true,
        written.map_or_else(|fault| is_refusal(fault, Access::Write), |()| true),
        executed.map_or_else(|fault| is_refusal(fault, Access::Execute), |()| true),
    ]
}

fn vmap(page: &Pages, attributes: Attributes) -> PageRange {
    let frames: Vec<Pfn> = page.frames().collect();
    kernel().vmap(&frames, attributes, NOBODY).expect("addresses").pages
}

#[track_caller]
fn vunmap(pages: PageRange) {
    assert_eq!(kernel().vunmap(authority(), pages.start()), Ok(()));
}

#[ktest]
fn rights_to_read_write_and_execute_are_enforced_by_faults_s112() {
    let mut page = Pages::new(0).expect("memory");
    page[..4].copy_from_slice(&RETURN.to_le_bytes());
    for (attributes, wanted) in [
        (Attributes::KERNEL_DATA, [true, true, false]),
        (Attributes::KERNEL_RODATA, [true, false, false]),
    ] {
        let mapped = vmap(&page, attributes);
        assert_eq!(rights(mapped.start()), wanted, "{attributes}");
        vunmap(mapped);
    }
    let mut code = ExecArea::new(PAGE_SIZE).expect("memory");
    code[..4].copy_from_slice(&RETURN.to_le_bytes());
    assert_eq!(rights(code.pages().start()), [true, true, false]);
    let text = code.seal().expect("its own");
    assert_eq!(rights(text.address()), [true, false, true]);
}

/// What the pages hold is neither changed by mapping them nor by unmapping them, and nothing beside them is mapped.
#[ktest]
fn to_map_and_to_unmap_changes_nothing_else_s37() {
    let mut own: Vec<Pages> = (0..5).map(|_| Pages::new(0).expect("memory")).collect();
    for (value, page) in (0x11..).zip(&mut own) {
        page.fill(value);
    }
    let books = Books::now();
    let frames: Vec<Pfn> = own.iter().flat_map(Pages::frames).collect();
    let mapped = kernel().vmap(&frames, Attributes::KERNEL_DATA, NOBODY).expect("addresses").pages;
    for (address, &frame) in each_page(mapped).zip(&frames) {
        assert_leads(address, frame.base());
        assert_eq!(word_at(address), word_at(linear(frame)));
    }
    assert_fenced(mapped);
    vunmap(mapped);
    books.assert_unchanged();
    for (value, page) in (0x11..).zip(&own) {
        assert!(page.iter().all(|&byte| byte == value));
    }
}

#[ktest]
fn what_was_never_mapped_or_is_no_more_faults_whatever_is_done_s23() {
    let area = VmArea::zeroed(3 * PAGE_SIZE).expect("memory");
    let pages = area.pages();
    each_page(pages).for_each(|page| assert_eq!(word_at(page), 0));
    drop(area);
    for page in each_page(pages) {
        assert_absent(page);
        let absent = FaultStatus::Translation(Level::Second);
        // SAFETY: it faults; otherwise the test fails, and nothing is relied upon.
        let written = unsafe { probe::write_u32(page, 1) }.expect_err("unmapped");
        // SAFETY: it faults; nothing is there to be executed.
        let executed = unsafe { probe::execute(page) }.expect_err("unmapped");
        assert_eq!((written.status, written.access), (absent, Access::Write));
        assert_eq!((executed.status, executed.access), (absent, Access::Execute));
    }
}

/// S1, S14a: after everything that waits was flushed and freed, the lowest place is the same one.
#[ktest]
fn an_address_that_was_given_back_is_given_again_s1_s14a() {
    for pages in [1, 3, 300] {
        mm::ledger::settle();
        let (first, wanted) =
            (VmArea::new(pages * PAGE_SIZE).expect("memory"), lowest_fit(pages, 0));
        let address = first.address();
        assert_ne!(wanted, Some(address), "it is taken");
        drop(first);
        mm::ledger::settle();
        for _ in 0..20 {
            let again = VmArea::new(pages * PAGE_SIZE).expect("memory");
            assert_eq!(again.address(), address);
            drop(again);
            mm::ledger::settle();
        }
    }
}

#[ktest]
fn guards_lie_before_and_after_each_mapping_s2() {
    let areas = [1, 2, 17].map(|pages| VmArea::new(pages * PAGE_SIZE).expect("memory"));
    for area in &areas {
        assert_fenced(area.pages());
    }
    let page = Pages::new(0).expect("memory");
    let mapped = vmap(&page, Attributes::KERNEL_DATA);
    assert_fenced(mapped);
    vunmap(mapped);
}

/// S28: with so many frames free, exactly as many areas of a page can be had, and again when they came back.
#[ktest]
fn memory_is_had_to_the_last_page_and_all_of_it_again_s28() {
    const LEFT: u32 = 150;
    // Records and tables for them are made before they are counted.
    drop((0..LEFT).map(|_| VmArea::new(1).expect("memory")).collect::<Vec<_>>());
    mm::ledger::settle();
    let mut areas = Vec::with_capacity(2 * LEFT as usize);
    let list = starve(LEFT);
    let books = Books::now();
    for round in 0..3 {
        let refused = loop {
            match VmArea::new(1) {
                Ok(area) => areas.push(area),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, VmallocError::Frames(_)), "{refused}");
        assert_eq!(areas.len(), LEFT as usize, "in round {round}");
        areas.clear();
        mm::ledger::settle();
        books.assert_unchanged();
    }
    feed(list);
}

/// S7, S8: the window holds exactly as many areas as a model says that looks at every address, and again afterwards.
#[ktest]
fn addresses_are_had_to_the_last_place_and_all_of_them_again_s7_s8() {
    const BYTES: u32 = 1 << 20;
    mm::ledger::settle();
    let mut counts = [0; 2];
    let mut taken = Vec::with_capacity(1024);
    for count in &mut counts {
        let books = Books::now();
        while let Some(wanted) = lowest_fit(BYTES / PAGE_SIZE, 8) {
            let mapped = kernel().ioremap(BEYOND_RAM, BYTES, Attributes::DEVICE, NOBODY);
            assert_eq!(mapped, Ok(wanted), "the model has a place");
            taken.push(wanted);
        }
        *count = taken.len();
        let refused = kernel().ioremap(BEYOND_RAM, BYTES, Attributes::DEVICE, NOBODY);
        assert_err!(refused, IoRemapError::Area(NoArea::Addresses(_)));
        for address in taken.drain(..) {
            assert_eq!(kernel().iounmap(authority(), address), Ok(()));
            assert_absent(plus(address, BYTES - 1));
        }
        mm::ledger::settle();
        books.assert_unchanged();
    }
    assert!(counts[0] > 10 && counts[0] == counts[1], "{counts:?}");
}
