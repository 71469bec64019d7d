//! Owners of mappings that could not be ended: their pages stay out of reach, and are not used anew (S23).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use core::num::NonZeroU32;

use arch::failure::fail_nth;
use kerncore::addr::{PAGE_SIZE, Pfn, SECTION_SIZE};
use kerncore::failure::{Afterwards, Point};
use kerncore::frames::{FrameOwner, FrameRequest, NodeId, Place};
use kerncore::kernel_space::{Fill, VmallocError};
use kerncore::va_space::Request;
use ktest::ktest;
use linux::page::{__free_pages, pointer_to};
use mm::bare_area::BareArea;
use mm::kernel;
use mm::kv_bytes::KvBytes;
use mm::mapped_pages::{ShortMap, VmMap};
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::huge::are_allowed;
use super::witness::{Books, assert_leads, authority, each_page, frame_at};

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

/// S86: few bytes lie in the heap, more in an area, and so do few when the heap has none; all are zero, and as many as asked for.
#[ktest]
fn bytes_lie_in_the_heap_or_in_an_area_s86() {
    let books = Books::now();
    let sizes = [1, 15, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE, 40 * PAGE_SIZE + 7];
    for bytes in sizes {
        let mut memory = KvBytes::zeroed(bytes).expect("memory");
        assert_eq!(memory.area().is_some(), bytes > PAGE_SIZE, "{bytes}");
        assert_eq!(memory.len(), bytes as usize);
        assert!(memory.iter().all(|&byte| byte == 0), "{bytes}");
        memory.fill(0xa5);
        assert_eq!(memory.last(), Some(&0xa5));
        let place = memory.area().map(|area| kernel().find(area.address()).map(|area| area.pages));
        assert_eq!(place, memory.area().map(|area| Some(area.pages())), "{bytes}");
    }
    let (memory, outcome) =
        fail_nth(NonZeroU32::MIN, Afterwards::Plenty, || KvBytes::zeroed(PAGE_SIZE));
    assert_eq!(outcome.failed, Some(Point::Heap));
    let memory = memory.expect("an area");
    assert!(memory.area().is_some() && memory.iter().all(|&byte| byte == 0));
    drop(memory);
    assert_eq!(KvBytes::zeroed(0).map(drop), Err(VmallocError::ZeroSize));
    assert!(KvBytes::zeroed(u32::MAX).is_err());
    books.assert_unchanged();
}

/// S28, S90, S117: an owner of memory of each kind.
#[ktest]
fn an_area_owns_memory_of_the_kind_it_asked_for_s28_s90_s117() {
    let books = Books::now();
    let bytes = 3 * PAGE_SIZE;
    for memory in [FrameRequest::ANY, FrameRequest::LOW] {
        let mut area = VmArea::of(memory, bytes, Fill::Zeroed).expect("memory");
        assert!(area.iter().all(|&byte| byte == 0));
        area.fill(0x5a);
        for page in each_page(area.pages()) {
            let frame = frame_at(page);
            let is_low = kernel().linear().pages_of(frame, 1).is_some();
            assert!(is_low || memory != FrameRequest::LOW, "{frame:?}");
            assert_leads(page, frame.base());
        }
    }
    let nobody = FrameRequest::ANY.at(Place::Only(NodeId::new(7)));
    assert!(VmArea::of(nobody, bytes, Fill::Zeroed).is_err(), "there is no such node");
    let mut area = VmArea::huge(SECTION_SIZE, Fill::Zeroed).expect("memory");
    assert!(area.iter().step_by(61).all(|&byte| byte == 0));
    area.fill(0x77);
    assert!(area.resize(2 * SECTION_SIZE, Fill::Zeroed).is_err() || !are_allowed());
    drop(area);
    books.assert_unchanged();
}
