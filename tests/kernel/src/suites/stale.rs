//! What a TLB remembers must be gone before an address or a frame is used again (S14a, S21, S23).
//!
//! ```text
//!   read            the TLB has the entry
//!   change the slot, no maintenance
//!   read            still the old answer: the test has teeth
//!   the code under test
//!   read            the new answer, or a fault
//! ```
//!
//! The middle step matters: on a machine that forgets by itself every such test would pass. The emulated board does
//! remember; but it takes the flush of one kernel page for the flush of all, so that a flush of the wrong pages is
//! not seen here (SoftMachine sees it).

use arch::exception::{Access, FaultStatus};
use arch::{irq, probe};
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::area::AreaSummary;
use kerncore::attributes::Attributes;
use kerncore::descriptor::l2;
use kerncore::frames::{FrameOwner, FrameRequest};
use kerncore::kernel_space::{Fill, VmallocRequest};
use ktest::ktest;
use mm::kernel;
use mm::page_alloc::Pages;

use super::witness::{
    Books, NOBODY, assert_absent, assert_leads, authority, byte_at, each_page, frame_at, is_absent,
    linear, overwrite, plus,
};

/// Lets the TLB remember what `address` leads to, and says whether it does: with the slot emptied it is read all the same.
///
/// It may forget at any time, and there are addresses that the emulator's forgets at once; which ones depends on where code and
/// tables lie. That it remembers most is for [`without_a_flush_the_old_page_is_still_read_and_written`] to prove.
#[track_caller]
fn remembers(address: VirtAddr) -> bool {
    let value = byte_at(address);
    let old = overwrite(address, 0);
    let again = probe::read_u8(address);
    overwrite(address, old);
    let value_is_read = again.ok() == Some(value);
    let _once_more = byte_at(address);
    value_is_read
}

/// The same for stores, which change nothing but `address` itself.
#[track_caller]
fn remembers_for_writing(address: VirtAddr) -> bool {
    store(address, 1).expect("a writable page");
    let old = overwrite(address, 0);
    let again = store(address, 2);
    overwrite(address, old);
    store(address, 3).expect("a writable page");
    again.is_ok()
}

fn store(address: VirtAddr, value: u8) -> Result<(), arch::exception::Fault> {
    // SAFETY: the tests name memory of their own that nothing borrows, or addresses at which the store must fault.
    unsafe { probe::write_u8(address, value) }
}

/// One page that holds `value` throughout.
#[track_caller]
fn page_of(value: u8) -> Pages {
    let mut page = Pages::new(0).expect("memory");
    page.fill(value);
    page
}

#[track_caller]
fn map(page: &Pages) -> AreaSummary {
    map_as(page, Attributes::KERNEL_DATA)
}

#[track_caller]
fn map_as(page: &Pages, attributes: Attributes) -> AreaSummary {
    kernel().vmap(&[page.first()], attributes, NOBODY).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn unmap(area: AreaSummary) {
    kernel().vunmap(authority(), area.pages.start()).unwrap_or_else(|error| panic!("{error}"));
}

/// The proof that the rest of this suite can fail: without a flush the old page is read, written, and outlives its entry, at
/// most addresses.
#[ktest]
fn without_a_flush_the_old_page_is_still_read_and_written() {
    const PLACES: usize = 32;
    let (mut old, new) = (page_of(0x0d), page_of(0x3e));
    irq::masked(|| {
        let mut stale = 0;
        // Each a little higher than the one before, which stays where it is.
        let areas: [AreaSummary; PLACES] = core::array::from_fn(|_| {
            let area = map(&old);
            let address = area.pages.start();
            if !remembers(address) || !remembers_for_writing(address) {
                return area;
            }
            store(address, 0x0d).expect("a writable page");
            let word = l2::SmallPages::new(Attributes::KERNEL_DATA).word(new.first());
            overwrite(address, word);
            assert_leads(address, new.physical());
            if byte_at(address) == 0x0d {
                store(address, 0x1d).expect("a writable page");
                let now = (byte_at(linear(old.first())), byte_at(linear(new.first())));
                stale += usize::from(now == (0x1d, 0x3e));
            }
            store(linear(new.first()), 0x3e).expect("a writable page");
            area
        });
        assert!(stale > PLACES / 2, "no teeth: stale at {stale} of {PLACES} addresses");
        for area in areas {
            unmap(area);
            assert_absent(area.pages.start());
        }
    });
    old.fill(0);
}

#[ktest]
fn two_hundred_owners_of_one_address_never_see_each_others_bytes_s23() {
    let pages: [Pages; 3] = [page_of(0xa1), page_of(0xb2), page_of(0xc3)];
    let values = [0xa1, 0xb2, 0xc3];
    let books = Books::now();
    irq::masked(|| {
        let mut first = None;
        for round in 0..200 {
            let now = round % 3;
            let area = map(&pages[now]);
            let address = area.pages.start();
            assert_eq!(
                *first.get_or_insert(address),
                address,
                "the lowest fit is the hole just made"
            );
            assert_eq!(byte_at(address), values[now], "round {round}");
            assert_eq!(byte_at(plus(address, PAGE_SIZE - 1)), values[now], "round {round}");
            remembers(address);
            unmap(area);
            // In every other round nothing touches the address between two owners.
            if round % 2 == 0 {
                assert_absent(address);
            }
        }
    });
    books.assert_unchanged();
}

#[ktest]
fn a_freed_area_can_be_neither_read_nor_written_and_its_frames_are_left_alone_s23() {
    const PAGES: u32 = 40; // fewer than the emulated TLB holds
    irq::masked(|| {
        // Of low memory: what its frames hold is looked at when they are nobody's.
        let request = VmallocRequest::new(PAGES * PAGE_SIZE, Fill::Zeroed, NOBODY);
        let request = VmallocRequest { memory: FrameRequest::LOW, ..request };
        let area = kernel().vmalloc_with(request).expect("memory");
        each_page(area.pages).for_each(|page| store(page, 0x77).expect("a writable page"));
        remembers_for_writing(area.pages.start());
        remembers(plus(area.pages.start(), (PAGES - 1) * PAGE_SIZE));
        each_page(area.pages).for_each(|page| store(page, 0x77).expect("a writable page"));
        let frames: [_; PAGES as usize] = {
            let mut each = each_page(area.pages);
            core::array::from_fn(|_| frame_at(each.next().expect("a page")))
        };
        kernel().vfree(authority(), area.pages.start()).expect("ours");
        for (page, frame) in each_page(area.pages).zip(frames) {
            assert_eq!(kernel().zones().table().owner_of(frame), FrameOwner::Free);
            let fault = store(page, 0x99).expect_err("a freed frame was written");
            assert!(is_absent(&fault) && fault.access == Access::Write, "{fault}");
            assert_eq!(byte_at(linear(frame)), 0x77, "what the frame holds");
            assert_absent(page);
        }
    });
}

/// The old owner could write; the new owner of the same address and the same frame only reads.
#[ktest]
fn the_right_to_write_ends_with_the_mapping_that_had_it() {
    let page = page_of(0x42);
    irq::masked(|| {
        let writable = map(&page);
        remembers_for_writing(writable.pages.start());
        unmap(writable);
        let readable = map_as(&page, Attributes::KERNEL_RODATA);
        assert_eq!(readable.pages, writable.pages);
        let before = byte_at(readable.pages.start());
        let fault = store(readable.pages.start(), 0x43).expect_err("a read-only page was written");
        assert!(matches!(fault.status, FaultStatus::Permission(_)), "{fault}");
        assert_eq!(byte_at(linear(page.first())), before);
        unmap(readable);
    });
}

/// S14a: Device mappings are never left to a later flush.
#[ktest]
fn registers_are_out_of_reach_as_soon_as_iounmap_returns_s14a() {
    let system = board::vexpress_a9::SYSTEM_REGISTERS.base;
    let page = page_of(0x5e);
    irq::masked(|| {
        for _ in 0..20 {
            let address =
                kernel().ioremap(system, 4, Attributes::DEVICE, NOBODY).expect("addresses");
            remembers(address);
            kernel().iounmap(authority(), address).expect("ours");
            let memory = map(&page);
            assert_eq!(memory.pages.start(), address, "the lowest fit is the hole just made");
            assert_eq!(byte_at(address), 0x5e, "memory, not a register");
            unmap(memory);
            assert_absent(address);
        }
    });
}

/// S97: while a frame is lent uncached its linear address must not answer, not even from a TLB; and the other way round.
#[ktest]
fn a_lent_frame_is_never_reached_by_both_of_its_addresses_s97() {
    irq::masked(|| {
        // Several times, for the emulated TLB may have had to make room in between.
        for _ in 0..20 {
            let block = Pages::new(0).expect("memory");
            let (frame, address) = (block.first(), linear(block.first()));
            remembers(address);
            drop(block);
            // Whoever frees last is served first, so this is the same frame.
            let lent = kernel().coherent_alloc(PAGE_SIZE, FrameOwner::Dma, NOBODY).expect("memory");
            assert_eq!(lent.physical.pfn(), frame, "the frame just freed is lent");
            let fault = probe::read_u8(address).expect_err("the cacheable view is still there");
            assert!(is_absent(&fault), "{fault}");
            remembers(lent.pages.start());
            kernel().coherent_free(authority(), lent.pages.start(), PAGE_SIZE).expect("ours");
            assert_absent(lent.pages.start());
            let _back = byte_at(address);
        }
    });
}

/// S89, S92: areas freed in turn from where nothing can be torn down are read by nobody any more once they are purged, all of
/// them, and were not given to anybody before.
#[ktest]
fn what_is_purged_together_is_forgotten_together_s23_s92() {
    const AREAS: usize = 20;
    let books = Books::now();
    irq::masked(|| {
        let areas: [AreaSummary; AREAS] = core::array::from_fn(|_| {
            let area = kernel().vmalloc(2 * PAGE_SIZE, Fill::Zeroed, NOBODY);
            area.unwrap_or_else(|error| panic!("{error}"))
        });
        let mut remembered = 0;
        for area in &areas {
            remembered += usize::from(remembers(area.pages.start()));
            kernel().vfree_atomic(authority(), area.pages.start()).expect("a live area");
            assert_eq!(byte_at(area.pages.start()), 0, "mapped until the purge");
        }
        assert!(remembered > AREAS / 2, "no teeth: {remembered} of {AREAS}");
        assert!(kernel().free_deferred() >= 20);
        for area in areas {
            each_page(area.pages).for_each(assert_absent);
        }
    });
    books.assert_unchanged();
}
