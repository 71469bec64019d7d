//! The board's static mappings on the live tables: ioremap answers from them (S95).

extern crate alloc;

use alloc::string::ToString;

use board::vexpress_a9::{L2_CACHE_CONTROLLER, STATIC_MAPPINGS};
use kerncore::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::kernel_space::{IoRemapError, StaticMapping, VmapError};
use kerncore::layout::{STATIC_START, TEMPORARY_START};
use ktest::ktest;
use linux::ioremap::{ioremap_np, ioremap_wc};
use linux::protection::PageProtection;
use linux::vmap::vmap_pfn;
use mm::io_mem::IoMem;
use mm::kernel;

use super::witness::{
    Books, NOBODY, assert_absent, assert_leads, authority, guard_of, minus, plus, word_at,
};

const L2: PhysAddr = L2_CACHE_CONTROLLER.base;

fn minus_page(physical: PhysAddr) -> Pfn {
    Pfn::new(physical.pfn().number() - 1).expect("a frame below")
}

#[track_caller]
fn the_mapping() -> StaticMapping {
    assert_eq!(STATIC_MAPPINGS.len(), 1);
    let mut all = kernel().static_mappings();
    let mapping = *all.next().expect("the board has one");
    assert_eq!(all.next(), None);
    mapping
}

fn map(physical: u32, bytes: u32, attributes: Attributes) -> Result<VirtAddr, IoRemapError> {
    kernel().ioremap(PhysAddr::new(physical), bytes, attributes, NOBODY)
}

/// S95: to the first and to the last byte, as often as one likes, and nobody's unmapping ends it.
#[ktest]
fn registers_that_are_mapped_for_good_are_found_there_and_stay_s95() {
    let books = Books::now();
    let StaticMapping { range, attributes, pages } = the_mapping();
    assert_eq!((range.first, range.last), (L2, L2_CACHE_CONTROLLER.last()));
    assert_eq!(attributes, Attributes::DEVICE);
    assert!(pages.start() > STATIC_START && pages.start() < TEMPORARY_START);
    assert_leads(pages.start(), L2);
    assert_absent(minus(pages.start(), 1));
    assert_absent(guard_of(pages));
    let identity = word_at(pages.start());
    for (offset, bytes) in [(0, 4), (0, PAGE_SIZE), (0x404, 4), (PAGE_SIZE - 1, 1)] {
        for _ in 0..2 {
            let address = map(L2.raw() + offset, bytes, Attributes::DEVICE).expect("mapped");
            assert_eq!(address, plus(pages.start(), offset));
            kernel().iounmap(authority(), address).expect("nothing to end");
            assert_eq!(word_at(pages.start()), identity, "it stays");
        }
    }
    let owner = IoMem::<u32>::map(L2).expect("mapped");
    assert_eq!(owner.address(), pages.start());
    drop(owner);
    assert_leads(pages.start(), L2);
    assert_eq!(word_at(pages.start()), identity);
    books.assert_unchanged();
}

/// S95, S97: in another way, be it by a byte, it is refused, and both are named.
#[ktest]
fn registers_that_are_mapped_for_good_are_not_mapped_otherwise_s95_s97() {
    let books = Books::now();
    let had = the_mapping();
    let around = [(0, 4), (0, PAGE_SIZE), (PAGE_SIZE - 1, 2), (0u32.wrapping_sub(1), 2)];
    for wanted in [Attributes::WRITE_COMBINE, Attributes::STRONGLY_ORDERED, Attributes::KERNEL_DATA]
    {
        for (offset, bytes) in around {
            let physical = PhysAddr::new(L2.raw().wrapping_add(offset));
            let refused = IoRemapError::Static { physical, bytes, wanted, had };
            assert_eq!(map(physical.raw(), bytes, wanted), Err(refused));
        }
    }
    // A page is what is mapped, whichever bytes of it are wanted.
    let beside = map(L2.raw() - 1, 1, Attributes::WRITE_COMBINE).expect("another page");
    kernel().iounmap(authority(), beside).expect("ours");
    assert!(ioremap_wc(L2.raw(), 4).is_null() && ioremap_np(L2.raw(), 4).is_null());
    books.assert_unchanged();
}

/// S95, S97: nor by its frame's number.
#[ktest]
fn frames_that_are_mapped_for_good_are_not_mapped_otherwise_by_number_s95_s97() {
    let books = Books::now();
    let had = the_mapping();
    let (frame, below) = (L2.pfn(), minus_page(L2));
    for wanted in [Attributes::WRITE_COMBINE, Attributes::STRONGLY_ORDERED] {
        for frames in [&[frame][..], &[below, frame]] {
            let refused = kernel().vmap_devices(frames.iter().copied(), wanted, NOBODY);
            assert_eq!(refused, Err(VmapError::Static { frame, wanted, had }));
        }
    }
    let number = frame.number();
    let map = |prot| {
        // SAFETY: one number.
        unsafe { vmap_pfn(&raw const number, 1, prot) }
    };
    assert!(map(PageProtection::WRITE_COMBINE).is_null());
    let refused = kernel().vmap_devices([frame].into_iter(), Attributes::WRITE_COMBINE, NOBODY);
    let said = refused.expect_err("mapped for good").to_string();
    for words in ["0x1e00a", "non-cacheable", "device", &had.pages.start().to_string()] {
        assert!(said.contains(words), "{said}");
    }
    // In the same way, and beside it.
    let (same, beside) = ((frame, Attributes::DEVICE), (below, Attributes::WRITE_COMBINE));
    for (frame, attributes) in [same, beside] {
        let area = kernel().vmap_devices([frame].into_iter(), attributes, NOBODY).expect("mapped");
        assert_leads(area.pages.start(), frame.base());
        kernel().vunmap(authority(), area.pages.start()).expect("ours");
    }
    books.assert_unchanged();
}

/// S95: what is more than the board has mapped, in the same way, is a mapping like any other.
#[ktest]
fn registers_that_are_partly_mapped_for_good_get_a_mapping_of_their_own_s95() {
    let books = Books::now();
    let pages = the_mapping().pages;
    for (offset, bytes) in [(0u32.wrapping_sub(PAGE_SIZE), 2 * PAGE_SIZE), (0, PAGE_SIZE + 1)] {
        let physical = L2.raw().wrapping_add(offset);
        let address = map(physical, bytes, Attributes::DEVICE).expect("addresses");
        assert!(kernel().window().contains(address));
        assert_leads(address, PhysAddr::new(physical));
        kernel().iounmap(authority(), address).expect("ours");
        assert_absent(address);
    }
    assert_leads(pages.start(), L2);
    books.assert_unchanged();
}
