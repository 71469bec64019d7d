//! Temporary mappings on the live tables, by their owners and by the C symbols (S23, S117). Where all memory is low
//! there are none: pages have their linear addresses, and the tests hold of those or say why they do not run.

extern crate alloc;

use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arch::{irq, smp};
use kerncore::addr::{PAGE_SIZE, Pfn, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::coherent::AllocationFlags;
use kerncore::frames::{FrameOwner, FrameRequest, ZoneKind};
use kerncore::kernel_space::{Fill, VmallocError};
use kerncore::kmap::{KmapError, SLOTS};
use ktest::{Completion, assert_err, ktest};
use linux::page::{alloc_pages, kmap_local_page, kunmap_local, pointer_to};
use mm::any_pages::{AnyPages, MapPageError, Page, PageRef};
use mm::kernel;

use super::interrupts::in_handler;
use super::smp::another;
use super::tables::{assert_entry, bits};
use super::witness::{Books, NOBODY, assert_absent, authority, byte_at, plus};

/// High memory where there is any.
#[track_caller]
fn pages(order: u32) -> AnyPages {
    AnyPages::new(order, FrameRequest::ANY).expect("memory")
}

#[track_caller]
fn frame_of(pages: &AnyPages, index: usize) -> Pfn {
    pages.frames().nth(index).expect("so many")
}

fn is_high() -> bool {
    let mut high = 0;
    kernel().zones().for_each_zone(|zone| {
        high += if zone.kind == ZoneKind::High { zone.pages } else { 0 };
    });
    high != 0
}

/// Without high memory there is nobody who would take a slot, and none can be short, stale or lost.
pub(super) fn slots() -> Result<(), Completion> {
    if !is_high() {
        return Err(Completion::Skipped("all memory is low (lowmem= makes some high)"));
    }
    Ok(())
}

fn taken() -> u32 {
    kernel().temporary().taken()
}

fn fill(page: &mut Page, mark: u8) {
    page.fill(mark);
    page[PAGE_SIZE as usize - 1] = !mark;
}

fn holds(page: &Page, mark: u8) -> bool {
    let (last, rest) = page.split_last().expect("bytes");
    *last == !mark && rest.iter().all(|&byte| byte == mark)
}

/// S2, S112: as the linear map would show it, and nothing beside it.
#[ktest]
fn a_page_has_an_address_until_its_guard_goes_s2_s112_s117() {
    let mut own = pages(2);
    for (index, mark) in (0..own.count()).zip(0x31..) {
        fill(&mut own.map_mut(index).expect("an address"), mark);
    }
    let before = taken();
    let guards: Vec<PageRef<'_>> =
        (0..own.count()).map(|index| own.map(index).expect("an address")).collect();
    let is_high = is_high();
    assert_eq!(taken() - before, if is_high { own.count() } else { 0 });
    for ((page, frame), mark) in guards.iter().zip(own.frames()).zip(0x31..) {
        let address = page.page().start();
        assert!(holds(page, mark), "page {frame}");
        assert_entry(address, frame.base(), bits::DATA);
        if is_high {
            assert_absent(plus(address, PAGE_SIZE));
        }
    }
    let addresses: Vec<VirtAddr> = guards.iter().map(|guard| guard.page().start()).collect();
    drop(guards);
    if is_high {
        addresses.into_iter().for_each(assert_absent);
    }
    assert_eq!(taken(), before);
    assert_err!(own.map(4), MapPageError::NoPage { index: 4, pages: 4 });
    assert_err!(own.map_mut(u32::MAX), MapPageError::NoPage { index: u32::MAX, pages: 4 });
}

/// What is written at a temporary address is what every other mapping of the frame shows.
#[ktest]
fn what_a_page_holds_is_seen_through_other_mappings_s37() {
    let mut own = pages(0);
    let frame = frame_of(&own, 0);
    let area = kernel().vmap(&[frame], Attributes::KERNEL_DATA, NOBODY).expect("addresses");
    for mark in [0x5a, 0xa5] {
        fill(&mut own.map_mut(0).expect("an address"), mark);
        assert_eq!(byte_at(area.pages.start()), mark);
        assert_eq!(byte_at(plus(area.pages.start(), PAGE_SIZE - 1)), !mark);
    }
    assert_eq!(kernel().vunmap(authority(), area.pages.start()), Ok(()));
    assert!(holds(&own.map(0).expect("an address"), 0xa5));
}

/// Whoever asks for one more is told so, changes nothing, and is served when one goes (S28: memory that could not be zeroed).
#[ktest]
fn all_slots_held_is_an_error_that_costs_nothing_s28() -> Completion {
    if let Err(skipped) = slots() {
        return skipped;
    }
    let own = pages(6);
    let record = pointer_to(frame_of(&own, 0));
    irq::masked(|| {
        // Before the guards: what holds them is memory, too.
        let mut guards: Vec<PageRef<'_>> = Vec::with_capacity(SLOTS as usize);
        let books = Books::now();
        guards.extend((0..SLOTS).map(|index| own.map(index).expect("a slot")));
        let exhausted = KmapError::Exhausted { cpu: 0, slots: SLOTS };
        assert_err!(own.map(SLOTS), MapPageError::Address(error) if error == exhausted);
        assert!(kmap_local_page(record).is_null());
        let zeroed = kernel().vmalloc(3 * PAGE_SIZE, Fill::Zeroed, NOBODY);
        assert_err!(zeroed, VmallocError::Zero(error) if error == exhausted);
        let gfp = AllocationFlags::HIGH_USER.0 | AllocationFlags::ZERO;
        assert!(alloc_pages(AllocationFlags(gfp), 1).is_null());
        books.assert_unchanged();

        let place = guards.swap_remove(7).page();
        let again = own.map(SLOTS).expect("the one that went");
        assert_eq!(again.page(), place);
    });
    let area = kernel().vmalloc(3 * PAGE_SIZE, Fill::Zeroed, NOBODY).expect("all are back");
    assert_eq!(kernel().vfree(authority(), area.pages.start()), Ok(()));
    Completion::Ran
}

/// S115: a handler maps while whoever it interrupts has a mapping of his own.
#[ktest]
fn a_handler_maps_pages_of_its_own_s115() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    fn act() {
        let mut inner = pages(0);
        fill(&mut inner.map_mut(0).expect("an address"), 0x77);
        let seen = inner.map(0).map(|page| holds(&page, 0x77));
        SEEN.store(u32::from(seen == Ok(true)), Relaxed);
    }
    let mut own = pages(0);
    let mut guard = own.map_mut(0).expect("an address");
    fill(&mut guard, 0x66);
    SEEN.store(0, Relaxed);
    in_handler(act);
    assert_eq!(SEEN.load(Relaxed), 1);
    assert!(holds(&guard, 0x66));
}

/// S23: frames behind a mapping that nobody will end go to nobody else.
#[ktest]
fn a_guard_that_is_forgotten_keeps_its_frames_from_everybody_s23() -> Completion {
    if let Err(skipped) = slots() {
        return skipped;
    }
    let own = pages(1);
    let first = frame_of(&own, 0);
    let guard = own.map(1).expect("a slot");
    let address = guard.page().start();
    core::mem::forget(guard);
    drop(own);
    let owner = || kernel().zones().table().owner_of(first);
    assert_eq!(owner(), FrameOwner::Pages, "given to somebody else");
    // What only the test can do, who knows that nobody looks.
    assert_eq!(kernel().kunmap(authority(), address), Ok(()));
    let freed = kernel().free_frames_at(authority(), first, 1, FrameOwner::Pages);
    assert_eq!((freed, owner()), (Ok(()), FrameOwner::Free));
    Completion::Ran
}

#[ktest]
fn c_callers_map_by_page_pointer_and_end_by_any_address_inside() {
    let mut own = pages(0);
    fill(&mut own.map_mut(0).expect("an address"), 0x42);
    let record = pointer_to(frame_of(&own, 0));
    let before = taken();
    for _ in 0..3 * SLOTS {
        let mapped = kmap_local_page(record);
        let address = VirtAddr::new(u32::try_from(mapped.addr()).expect("32 bits"));
        assert_eq!(byte_at(address), 0x42);
        // SAFETY: nobody uses the mapping but this test, by probes.
        unsafe { kunmap_local(mapped.wrapping_byte_add(0x123)) };
    }
    assert_eq!(taken(), before);
    assert!(kmap_local_page(ptr::null()).is_null());
    assert!(kmap_local_page(record.wrapping_byte_add(4)).is_null());
    // SAFETY: nothing lies at null.
    unsafe { kunmap_local(ptr::null()) };
}

/// A second end, a gap, and an address of somebody else's are reported and change nothing.
#[ktest]
fn what_is_no_temporary_mapping_is_not_ended() -> Completion {
    if let Err(skipped) = slots() {
        return skipped;
    }
    let own = pages(0);
    let held = own.map(0).expect("a slot");
    let (address, before) = (held.page().start(), taken());
    let area = mm::vm_area::VmArea::new(1).expect("memory");
    for wrong in [plus(address, PAGE_SIZE), plus(address, 2 * PAGE_SIZE), area.address()] {
        // SAFETY: refused, as the assertions below find.
        unsafe { kunmap_local(ptr::with_exposed_provenance(wrong.raw() as usize)) };
        assert_err!(kernel().kunmap(authority(), wrong), error if error.address == wrong);
    }
    assert_eq!(taken(), before);
    _ = byte_at(address);
    _ = byte_at(area.address());
    Completion::Ran
}

/// S23: the other CPU's TLB remembers what it has used; when a guard is gone it does not, and the next who has the address
/// finds his own page there.
#[ktest]
fn a_slot_used_again_shows_its_new_page_on_the_other_cpu_smp_s23() -> Completion {
    let other = match slots().and_then(|()| another()) {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let mut own = pages(1);
    for (index, mark) in [(0, 0x11), (1, 0x22)] {
        fill(&mut own.map_mut(index).expect("a slot"), mark);
    }
    irq::masked(|| {
        let mut last = None;
        for round in 0..50 {
            let guard = own.map(round % 2).expect("a slot");
            let address = guard.page().start();
            assert_eq!(*last.get_or_insert(address), address, "the lowest slot");
            let mark = if round % 2 == 0 { 0x11 } else { 0x22 };
            assert_eq!(smp::run_on(other, || byte_at(address)), Ok(mark), "round {round}");
        }
        let gone = last.expect("some");
        let read = smp::run_on(other, || arch::probe::read_u8(gone).is_ok());
        assert_eq!(read, Ok(false), "{gone} on CPU {other}");
    });
    Completion::Ran
}

/// All CPUs map at once: each its own pages, to be written, and pages that all read.
#[ktest]
fn all_cpus_map_their_own_pages_and_shared_ones_smp_s116() {
    let mut shared = pages(3);
    for (index, mark) in (0..shared.count()).zip(0x80..) {
        fill(&mut shared.map_mut(index).expect("an address"), mark);
    }
    let before = taken();
    let shared = &shared;
    smp::run_on_each(|cpu| {
        let mut own = pages(1);
        for round in 0..60_u32 {
            let index = (round + cpu) % shared.count();
            let theirs = shared.map(index).expect("an address");
            let mark = u8::try_from(round * 4 + cpu).expect("below 256");
            let mut ours = own.map_mut(round % 2).expect("an address");
            fill(&mut ours, mark);
            assert_ne!(ours.page(), theirs.page());
            assert!(theirs[0] == 0x80 + u8::try_from(index).expect("few"), "CPU {cpu}");
            drop(theirs);
            assert!(ours[0] == mark && ours[PAGE_SIZE as usize - 1] == !mark, "CPU {cpu}");
        }
    });
    assert_eq!(taken(), before);
}

/// Whichever CPU made a mapping, any may end it.
#[ktest]
fn a_guard_may_be_dropped_on_another_cpu_smp_s116() -> Completion {
    let other = match slots().and_then(|()| another()) {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let own = pages(0);
    let before = taken();
    let guard = own.map(0).expect("a slot");
    let address = guard.page().start();
    let ended = smp::run_on(other, move || drop(guard));
    assert_eq!((ended, taken()), (Ok(()), before));
    assert_absent(address);
    Completion::Ran
}
