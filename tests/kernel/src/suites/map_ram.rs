//! `vm_map_ram` on the live tables, by its C symbols (S17, S23, S37, S87).

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use arch::{irq, probe, smp};
use kerncore::addr::{PAGE_SIZE, PageRange, Pfn, VirtAddr};
use kerncore::area::AreaKind;
use kerncore::frames::{Frame, FrameOwner};
use kerncore::kernel_space::{RemoveError, VmapError};
use kerncore::map_ram::{BLOCK_PAGES, LARGEST};
use ktest::{Completion, assert_err, ktest};
use linux::map_ram::{vm_map_ram, vm_unmap_ram};
use linux::page::pointer_to;
use mm::kernel;
use mm::mapped_pages::ShortMap;
use mm::page_alloc::Pages;

use super::smp::another;
use super::witness::{
    Books, assert_absent, assert_leads, authority, byte_at, each_page, linear, plus,
};

#[track_caller]
fn pages(count: u32) -> Vec<Pages> {
    (0..count).map(|_| Pages::new(0).expect("memory")).collect()
}

fn frames(pages: &[Pages]) -> Vec<Pfn> {
    pages.iter().flat_map(Pages::frames).collect()
}

fn try_map(records: &[*const Frame]) -> *mut c_void {
    let count = u32::try_from(records.len()).expect("few");
    // SAFETY: so many page pointers, or pointers that are to be refused; who maps pages keeps them, and looks at them by
    // probes alone.
    unsafe { vm_map_ram(records.as_ptr(), count, -1) }
}

#[track_caller]
fn map(frames: &[Pfn]) -> PageRange {
    let records: Vec<*const Frame> = frames.iter().map(|&frame| pointer_to(frame)).collect();
    let mapped = try_map(&records);
    assert!(!mapped.is_null(), "{} pages are refused", frames.len());
    let address = VirtAddr::new(u32::try_from(mapped.expose_provenance()).expect("32 bits"));
    PageRange::new(address, u32::try_from(frames.len()).expect("few")).expect("whole pages")
}

/// Through the C symbol; that it was done is seen by whoever looks.
fn unmap(pages: PageRange) {
    let mapped: *const c_void = ptr::with_exposed_provenance(pages.start().raw() as usize);
    // SAFETY: the tests end mappings of their own, and keep no reference into them.
    unsafe { vm_unmap_ram(mapped, pages.count()) };
}

/// Stores a byte in memory that this test owns and keeps no reference to.
#[track_caller]
fn store(address: VirtAddr, value: u8) {
    // SAFETY: the callers name pages of their own, which nothing borrows meanwhile.
    unsafe { probe::write_u8(address, value) }.unwrap_or_else(|fault| panic!("{fault}"));
}

fn settle() {
    kernel().close_idle_blocks();
}

/// S37, S87: nothing is allocated on any node, but one that is not there is not accepted.
#[ktest]
fn the_node_must_be_there_s87() {
    let own = pages(1);
    let books = Books::now();
    let record = pointer_to(own[0].first());
    for (node, is_there) in [(-1, true), (i32::MIN, true), (0, true), (9, false), (i32::MAX, false)]
    {
        // SAFETY: one page pointer, to a page that the test has and looks at through no address.
        let mapped = unsafe { vm_map_ram(&raw const record, 1, node) };
        assert_eq!(!mapped.is_null(), is_there, "node {node}");
        // SAFETY: nobody uses it.
        unsafe { vm_unmap_ram(mapped, 1) };
    }
    settle();
    books.assert_unchanged();
}

/// S16, S37: of every size that a fragment may have, and one more.
#[ktest]
fn frames_lie_behind_the_pages_in_the_order_given_s87() {
    let own = pages(LARGEST + 1);
    let mut order = frames(&own);
    order.reverse();
    for count in [1, 2, 15, 16, 17, 63, 64, 65] {
        let mapped = map(&order[..count]);
        for (page, &frame) in each_page(mapped).zip(&order) {
            assert_leads(page, frame.base());
        }
        let (first, last) = (mapped.start(), plus(mapped.start(), mapped.bytes() - 1));
        store(first, 0x5a);
        store(last, 0xa5);
        assert_eq!(byte_at(linear(order[0])), if count == 1 { 0x5a } else { byte_at(first) });
        assert_eq!(byte_at(plus(linear(order[count - 1]), PAGE_SIZE - 1)), 0xa5);
        assert_absent(plus(mapped.start(), mapped.bytes()));
        let kind = kernel().find_containing(first).map(|area| area.kind);
        let small = mapped.count() <= LARGEST;
        let wanted = if small { AreaKind::MapRamBlock } else { AreaKind::MapRam };
        assert_eq!(kind, Some(wanted));
        unmap(mapped);
        each_page(mapped).for_each(assert_absent);
    }
}

/// S23: the emulator's TLB remembers; what it does not forget by itself is gone when the call returns.
#[ktest]
fn one_address_leads_to_a_hundred_pages_one_after_the_other_s23() {
    let mut own = pages(3);
    for (value, page) in (0x31..).zip(&mut own) {
        page.fill(value);
    }
    let frames = frames(&own);
    irq::masked(|| {
        let mut first = None;
        for round in 0..100 {
            let which = round % 3;
            let mapped = map(&frames[which..=which]);
            let address = mapped.start();
            assert_eq!(*first.get_or_insert(address), address, "an empty block begins anew");
            assert_eq!(u32::from(byte_at(address)), 0x31 + u32::try_from(which).expect("few"));
            unmap(mapped);
            assert!(probe::read_u8(address).is_err(), "round {round}");
        }
    });
}

#[ktest]
fn fragments_of_a_block_are_fenced_from_each_other_s2() {
    let own = pages(4);
    let order = frames(&own);
    let mapped: Vec<PageRange> = (1..=4).map(|count| map(&order[..count])).collect();
    for pages in &mapped {
        assert_absent(plus(pages.start(), pages.bytes()));
        let found = kernel().map_ram_blocks().fragment_containing(pages.start());
        assert_eq!(found, Some(*pages));
    }
    // Not in the order in which they came.
    for number in [2, 0, 3, 1] {
        unmap(mapped[number]);
        each_page(mapped[number]).for_each(assert_absent);
    }
}

#[ktest]
fn what_is_no_mapping_of_that_size_is_refused_and_stays_s87() {
    let own = pages(5);
    let mapped = map(&frames(&own));
    let address = mapped.start();
    let books = Books::now();
    let refused = |address, count| kernel().unmap_ram(authority(), address, count);
    assert_err!(refused(address, 4), RemoveError::OtherSize { found: 5, wanted: 4, .. });
    assert_err!(refused(address, 65), RemoveError::OtherSize { found: 5, wanted: 65, .. });
    assert_err!(refused(plus(address, PAGE_SIZE), 4), RemoveError::Unknown { .. });
    assert_err!(refused(plus(address, 1), 5), RemoveError::Misaligned { .. });
    assert_err!(
        kernel().vunmap(authority(), address),
        RemoveError::WrongKind { found: AreaKind::MapRamBlock, .. } | RemoveError::Unknown { .. }
    );
    books.assert_unchanged();
    each_page(mapped).zip(frames(&own)).for_each(|(page, frame)| assert_leads(page, frame.base()));
    unmap(mapped);
    assert_err!(refused(address, 5), RemoveError::Unknown { .. });
}

#[ktest]
fn what_is_no_page_pointer_is_refused_and_leaves_nothing_s37() {
    let own = pages(3);
    let order = frames(&own);
    unmap(map(&order));
    let books = Books::now();
    let good = |frame| pointer_to(frame);
    assert!(try_map(&[]).is_null());
    assert!(try_map(&[good(order[0]), ptr::null(), good(order[2])]).is_null());
    let between = good(order[1]).wrapping_byte_add(4);
    assert!(try_map(&[good(order[0]), between]).is_null());
    // SAFETY: a null array is refused unseen.
    assert!(unsafe { vm_map_ram(ptr::null(), 3, -1) }.is_null());
    // SAFETY: more than RAM has is refused before the array is read.
    assert!(unsafe { vm_map_ram(ptr::dangling(), u32::MAX, -1) }.is_null());
    // SAFETY: nothing lies at null.
    unsafe { vm_unmap_ram(ptr::null(), 3) };
    books.assert_unchanged();
}

/// Twenty of the largest need several blocks, of which one is left, and goes when somebody asks.
#[ktest]
fn blocks_come_with_need_and_go_with_their_last_fragment_s87() {
    settle();
    let own = pages(LARGEST);
    let order = frames(&own);
    let areas = || kernel().area_counts().areas;
    let before = areas();
    let mapped: Vec<PageRange> = (0..20).map(|_| map(&order)).collect();
    let blocks = areas() - before;
    assert_eq!(blocks, 20_u32.div_ceil(BLOCK_PAGES / LARGEST));
    mapped.into_iter().rev().for_each(unmap);
    assert_eq!(areas(), before + 1, "the block that this CPU cuts from is kept");
    assert_eq!(kernel().close_idle_blocks(), 1);
    assert_eq!(areas(), before);
}

/// S87: what one CPU maps another ends, and every CPU cuts from a block of its own.
#[ktest]
fn a_mapping_is_ended_on_another_cpu_smp_s23_s87() -> Completion {
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let own = pages(3);
    let order = frames(&own);
    let here = map(&order);
    let there = smp::run_on(other, || map(&order)).expect("it is up");
    let base = |pages: PageRange| kernel().find_containing(pages.start()).map(|area| area.pages);
    assert_ne!(base(here), base(there), "each has its own block");
    for pages in [here, there] {
        each_page(pages).zip(&order).for_each(|(page, frame)| assert_leads(page, frame.base()));
    }
    let ended = smp::run_on(other, || {
        _ = byte_at(here.start());
        unmap(here);
    });
    assert_eq!(ended, Ok(()));
    _ = byte_at(there.start());
    unmap(there);
    for gone in each_page(here).chain(each_page(there)) {
        assert_absent(gone);
        let read = smp::run_on(other, || probe::read_u8(gone).is_ok());
        assert_eq!(read, Ok(false), "{gone} on CPU {other}");
    }
    Completion::Ran
}

/// All CPUs map, look, pass on and end, at once.
#[ktest]
fn all_cpus_map_and_end_each_others_mappings_smp_s23_s87() {
    const PLACES: usize = 8;
    static PASSED: [AtomicU32; PLACES] = [const { AtomicU32::new(0) }; PLACES];
    let own = pages(9);
    let order = frames(&own);
    // The address and the count of a mapping that nobody has in hand.
    let end = |word: u32| {
        if word != 0 {
            let pages = PageRange::new(VirtAddr::new(word).page_base(), word % PAGE_SIZE);
            unmap(pages.expect("whole pages"));
        }
    };
    smp::run_on_each(|cpu| {
        for round in 0..300_u32 {
            let count = 1 + (round + cpu * 3) % 9;
            let mapped = map(&order[..count as usize]);
            let last = plus(mapped.start(), mapped.bytes() - 1);
            let seen = kernel().table().translate(last).map(|found| found.physical.pfn());
            assert_eq!(seen, Some(order[count as usize - 1]));
            let place = &PASSED[(round * 5 + cpu) as usize % PLACES];
            end(place.swap(mapped.start().raw() | count, Ordering::AcqRel));
        }
    });
    for place in &PASSED {
        end(place.swap(0, Ordering::AcqRel));
    }
}

/// The owner unmaps by itself, and gives the pages back or frees them with the mapping.
#[ktest]
fn an_owner_s_pages_are_one_slice_until_it_goes_s87() {
    for count in [3, LARGEST + 1] {
        let mut own = pages(count);
        for (value, page) in (0_u8..).zip(&mut own) {
            page.fill(value);
        }
        let order = frames(&own);
        let mut mapped = ShortMap::new(own).expect("addresses");
        assert_eq!(mapped.len(), (count * PAGE_SIZE) as usize);
        for (page, (number, &frame)) in each_page(mapped.pages()).zip((0_u8..).zip(&order)) {
            assert_leads(page, frame.base());
            assert_eq!(byte_at(page), number);
        }
        mapped[PAGE_SIZE as usize] = 0xee;
        let gone = mapped.pages();
        let back = mapped.unmap();
        each_page(gone).for_each(assert_absent);
        assert_eq!((frames(&back), back[1][0]), (order.clone(), 0xee));
        let again = ShortMap::new(back).expect("addresses");
        let gone = again.pages();
        drop(again);
        each_page(gone).for_each(assert_absent);
        let owner = |frame: &Pfn| kernel().zones().table().owner_of(*frame);
        assert!(order.iter().all(|frame| owner(frame) == FrameOwner::Free));
    }
    let refused = ShortMap::new(Vec::new());
    assert_err!(refused, error if error.reason == VmapError::NoPages && error.pages.is_empty());
}
