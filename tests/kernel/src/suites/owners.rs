//! Owners of mappings that could not be ended: their pages stay out of reach, and are not used anew (S23).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use kerncore::addr::{PAGE_SIZE, Pfn};
use kerncore::frames::FrameOwner;
use kerncore::va_space::Request;
use ktest::ktest;
use linux::page::{__free_pages, pointer_to};
use mm::bare_area::BareArea;
use mm::kernel;
use mm::mapped_pages::{ShortMap, VmMap};
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::witness::{Books, authority};

/// Gives a page to a mapping that `make` makes and ends behind its owner's back; then that ends it by `end`, which gives no page
/// back.
#[track_caller]
fn keeps_its_page<M>(make: impl Fn(Vec<Pages>) -> M, end: impl Fn(M) -> Vec<Pages>) {
    let page = Pages::new(0).expect("memory");
    let frame = page.first();
    assert!(end(make(vec![page])).is_empty(), "pages that might still be mapped");
    assert!(is_kept(frame), "it is free");
    // Here nothing maps it.
    // SAFETY: nobody uses it.
    unsafe { __free_pages(pointer_to(frame), 0) };
}

fn is_kept(frame: Pfn) -> bool {
    kernel().zones().table().owner_of(frame) == FrameOwner::Pages
}

/// What a drop gives back.
fn dropped<M>(mapping: M) -> Vec<Pages> {
    drop(mapping);
    Vec::new()
}

#[ktest]
fn pages_of_a_map_that_could_not_be_ended_are_not_used_anew_s23() {
    let books = Books::now();
    let make = |pages| {
        let map = VmArea::map(pages).expect("addresses");
        assert_eq!(kernel().vunmap(authority(), map.address()), Ok(()));
        map
    };
    keeps_its_page(make, dropped);
    keeps_its_page(make, VmMap::unmap);
    books.assert_unchanged();
}

#[ktest]
fn pages_of_a_short_map_that_could_not_be_ended_are_not_used_anew_s23_s87() {
    let books = Books::now();
    let make = |pages| {
        let map = ShortMap::new(pages).expect("addresses");
        assert_eq!(kernel().unmap_ram(authority(), map.address(), 1), Ok(()));
        map
    };
    keeps_its_page(make, dropped);
    keeps_its_page(make, ShortMap::unmap);
    kernel().close_idle_blocks();
    books.assert_unchanged();
}

#[ktest]
fn pages_of_a_bare_area_that_could_not_be_unmapped_are_not_used_anew_s23_s55() {
    let books = Books::now();
    let make = |pages| {
        let mut area = BareArea::with_tables(Request::of_bytes(PAGE_SIZE)).expect("addresses");
        area.map(pages).expect("nothing is mapped there");
        assert_eq!(kernel().vunmap(authority(), area.address()), Ok(()));
        area
    };
    keeps_its_page(make, dropped);
    keeps_its_page(make, |mut area: BareArea| area.unmap());
    books.assert_unchanged();
}
