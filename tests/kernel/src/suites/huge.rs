//! `vmalloc_huge` on the live tables, by its C symbol (S23, S24, S88, S90).

use core::ffi::c_void;

use arch::{irq, probe};
use kerncore::addr::{PAGE_SIZE, PageRange, SECTION_SIZE, VirtAddr};
use kerncore::descriptor::PageSize;
use kerncore::kernel_space::Fill;
use ktest::ktest;
use linux::lookup::vmalloc_to_page;
use linux::page::page_to_phys;
use linux::vmalloc::vmalloc_huge;
use mm::kernel;

use super::witness::{
    NOBODY, assert_absent, assert_leads, authority, byte_at, each_page, frame_at, plus,
};

/// What the C symbol gives, as pages.
#[track_caller]
fn take(bytes: u32) -> PageRange {
    let memory: *mut c_void = vmalloc_huge(bytes);
    assert!(!memory.is_null(), "{bytes} bytes are refused");
    let base = VirtAddr::new(u32::try_from(memory.expose_provenance()).expect("32 bits"));
    kernel().find(base).expect("an area").pages
}

#[track_caller]
fn free(pages: PageRange) {
    kernel().vfree(authority(), pages.start()).unwrap_or_else(|error| panic!("{error}"));
}

#[track_caller]
fn size_at(address: VirtAddr) -> PageSize {
    kernel().table().translate(address).expect("mapped").size
}

fn store(address: VirtAddr, value: u8) {
    // SAFETY: the callers name memory of their own, which nothing borrows meanwhile.
    unsafe { probe::write_u8(address, value) }.unwrap_or_else(|fault| panic!("{fault}"));
}

#[ktest]
fn whole_mebibytes_are_sections_and_lead_to_adjacent_frames_s88_s90() {
    let area = take(2 * SECTION_SIZE + 5 * PAGE_SIZE);
    assert!(area.start().raw().is_multiple_of(SECTION_SIZE));
    for (number, page) in each_page(area).enumerate() {
        let small = number >= 512;
        assert_eq!(size_at(page) == PageSize::Small, small, "page {number}");
        let frame = frame_at(page);
        if number % 51 == 0 || number >= 510 {
            assert_leads(page, frame.base());
            store(plus(page, 9), 0x77);
            assert_eq!(byte_at(plus(page, 9)), 0x77);
        }
        let pointer: *const c_void = core::ptr::with_exposed_provenance(page.raw() as usize);
        assert_eq!(page_to_phys(vmalloc_to_page(pointer)), frame.base());
    }
    assert_absent(plus(area.start(), area.bytes()));
    free(area);
    for number in [0, 255, 256, 511, 512, 516] {
        assert_absent(plus(area.start(), number * PAGE_SIZE));
    }
}

/// S23, S24: sections and small pages take turns at the same addresses, and no table is made anew.
#[ktest]
fn sections_and_small_pages_take_turns_at_an_address_s23_s24() {
    let pages = take(SECTION_SIZE);
    free(pages);
    let small = |bytes| kernel().vmalloc(bytes, Fill::Uninitialised, NOBODY).expect("memory").pages;
    // Up to the section, so that what comes next lies in it.
    let below = pages.start().raw() - kernel().window().start().raw();
    let filler = (below > PAGE_SIZE).then(|| small(below - PAGE_SIZE));
    free(small(SECTION_SIZE));
    let made = kernel().table_memory().tables_made();
    irq::masked(|| {
        for round in 0..12 {
            let section = take(SECTION_SIZE);
            for page in [section.start(), plus(section.start(), SECTION_SIZE - PAGE_SIZE)] {
                assert_eq!(size_at(page), PageSize::Section);
                store(page, round);
                assert_eq!(byte_at(page), round);
            }
            free(section);
            let pages = small(SECTION_SIZE);
            for page in [pages.start(), plus(pages.start(), SECTION_SIZE - PAGE_SIZE)] {
                assert_eq!(size_at(page), PageSize::Small);
                store(page, !round);
                assert_leads(page, frame_at(page).base());
                assert_eq!(byte_at(page), !round);
            }
            free(pages);
        }
    });
    assert_eq!(kernel().table_memory().tables_made(), made);
    if let Some(filler) = filler {
        free(filler);
    }
}

#[ktest]
fn less_than_a_mebibyte_is_small_pages_s90() {
    let area = take(SECTION_SIZE - PAGE_SIZE);
    each_page(area).for_each(|page| assert_eq!(size_at(page), PageSize::Small));
    free(area);
    assert!(vmalloc_huge(0).is_null());
    assert!(vmalloc_huge(u32::MAX).is_null());
}
