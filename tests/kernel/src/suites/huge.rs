//! Large mappings on the live tables: `vmalloc_huge` by its C symbol, and vmap of blocks (S23, S24, S37, S88, S90).

use alloc::vec::Vec;
use core::ffi::c_void;

use arch::{irq, probe};
use image::start;
use kerncore::addr::{LARGE_PAGE_SIZE, PAGE_SIZE, PageRange, Pfn, SECTION_SIZE, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::config::LargeMappings;
use kerncore::descriptor::PageSize;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::{Fill, UnmapAreaError};
use ktest::{Completion, ktest};
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

/// Whether large mappings may be made in this boot.
pub(super) fn are_allowed() -> bool {
    let config = &start::started().expect("the kernel has started").config;
    config.large_mappings != LargeMappings::Forbidden
}

fn allowed() -> Result<(), Completion> {
    let skipped = Completion::Skipped("large mappings are forbidden (nohugevmalloc)");
    if are_allowed() { Ok(()) } else { Err(skipped) }
}

fn store(address: VirtAddr, value: u8) {
    // SAFETY: the callers name memory of their own, which nothing borrows meanwhile.
    unsafe { probe::write_u8(address, value) }.unwrap_or_else(|fault| panic!("{fault}"));
}

#[ktest]
fn whole_mebibytes_are_sections_and_lead_to_adjacent_frames_s88_s90() -> Completion {
    if let Err(skipped) = allowed() {
        return skipped;
    }
    let area = take(2 * SECTION_SIZE + LARGE_PAGE_SIZE + 5 * PAGE_SIZE);
    assert!(area.start().raw().is_multiple_of(SECTION_SIZE));
    for (number, page) in each_page(area).enumerate() {
        let size = match number {
            0..512 => PageSize::Section,
            512..528 => PageSize::Large,
            _ => PageSize::Small,
        };
        assert_eq!(size_at(page), size, "page {number}");
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
    for number in [0, 255, 256, 511, 512, 527, 528, 532] {
        assert_absent(plus(area.start(), number * PAGE_SIZE));
    }
    Completion::Ran
}

/// S23, S24: sections and small pages take turns at the same addresses, and no table is made anew.
#[ktest]
fn sections_and_small_pages_take_turns_at_an_address_s23_s24() -> Completion {
    if let Err(skipped) = allowed() {
        return skipped;
    }
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
    Completion::Ran
}

#[ktest]
fn less_than_a_mebibyte_is_large_pages_s90() -> Completion {
    if let Err(skipped) = allowed() {
        return skipped;
    }
    let area = take(SECTION_SIZE - PAGE_SIZE);
    for (number, page) in each_page(area).enumerate() {
        let size = if number < 240 { PageSize::Large } else { PageSize::Small };
        assert_eq!(size_at(page), size, "page {number}");
        assert_leads(page, frame_at(page).base());
    }
    free(area);
    let area = take(LARGE_PAGE_SIZE - PAGE_SIZE);
    each_page(area).for_each(|page| assert_eq!(size_at(page), PageSize::Small));
    free(area);
    assert!(vmalloc_huge(0).is_null());
    assert!(vmalloc_huge(u32::MAX).is_null());
    Completion::Ran
}

/// S23, S90: large pages and small ones take turns at the same addresses, with other frames behind them.
#[ktest]
fn large_and_small_pages_take_turns_at_an_address_s23_s90() -> Completion {
    if let Err(skipped) = allowed() {
        return skipped;
    }
    irq::masked(|| {
        for round in 0..12 {
            let large = take(LARGE_PAGE_SIZE);
            let places = [0, 7, 15].map(|number| plus(large.start(), number * PAGE_SIZE));
            for page in places {
                assert_eq!(size_at(page), PageSize::Large);
                assert_leads(page, frame_at(page).base());
                store(page, round);
                assert_eq!(byte_at(page), round);
            }
            free(large);
            places.into_iter().for_each(assert_absent);
            // Kept in use, so that other frames come.
            let block = kernel().zones().allocate(4, FrameOwner::Test).expect("frames");
            let small = kernel().vmalloc(LARGE_PAGE_SIZE, Fill::Uninitialised, NOBODY);
            let small = small.expect("memory").pages;
            for page in each_page(small) {
                assert_eq!(size_at(page), PageSize::Small);
                assert_leads(page, frame_at(page).base());
                store(page, !round);
                assert_eq!(byte_at(page), !round);
            }
            free(small);
            kernel().zones().free(block).expect("the test's");
        }
    });
    Completion::Ran
}

/// S37, S90: vmap of a block is by sections and large pages, and shows the very bytes; a part of it is not unmapped.
#[ktest]
fn vmap_of_a_block_is_by_large_entries_s37_s90() -> Completion {
    if let Err(skipped) = allowed() {
        return skipped;
    }
    for (order, size) in [(8, PageSize::Section), (5, PageSize::Large), (3, PageSize::Small)] {
        let block = kernel().zones().allocate(order, FrameOwner::Test).expect("frames");
        let first = block.first().number();
        let frames: Vec<Pfn> = (first..first + block.pages()).filter_map(Pfn::new).collect();
        let area =
            kernel().vmap(&frames, Attributes::KERNEL_DATA, NOBODY).expect("addresses").pages;
        for (page, &frame) in each_page(area).zip(&frames) {
            assert_eq!(size_at(page), size);
            assert_leads(page, frame.base());
            let linear = kernel().linear().pages_of(frame, 1).expect("low memory").start();
            store(plus(linear, 5), 0x5a);
            assert_eq!(byte_at(plus(page, 5)), 0x5a);
        }
        let part = area.sub_range(1, 2).expect("pages");
        let refused = kernel().unmap_area(authority(), part);
        if size == PageSize::Small {
            assert_eq!(refused.map(|removal| removal.pages), Ok(2));
        } else {
            assert_eq!(refused, Err(UnmapAreaError::Large { pages: part, area }));
            assert_leads(plus(area.start(), PAGE_SIZE), frames[1].base());
        }
        kernel().vunmap(authority(), area.start()).expect("a live area");
        each_page(area).for_each(assert_absent);
        kernel().zones().free(block).expect("the test's");
    }
    Completion::Ran
}

/// S90: with `nohugevmalloc` the same calls give small pages, which lead to the same kind of memory.
#[ktest]
fn where_they_are_forbidden_all_pages_are_small_s90() -> Completion {
    if are_allowed() {
        return Completion::Skipped("large mappings are allowed (nohugevmalloc forbids them)");
    }
    let area = take(2 * SECTION_SIZE + LARGE_PAGE_SIZE);
    for (number, page) in each_page(area).enumerate() {
        assert_eq!(size_at(page), PageSize::Small, "page {number}");
        if number % 37 == 0 {
            assert_leads(page, frame_at(page).base());
            store(page, 0x33);
            assert_eq!(byte_at(page), 0x33);
        }
    }
    assert_absent(plus(area.start(), area.bytes()));
    free(area);
    let block = kernel().zones().allocate(8, FrameOwner::Test).expect("frames");
    let first = block.first().number();
    let frames: Vec<Pfn> = (first..first + block.pages()).filter_map(Pfn::new).collect();
    let area = kernel().vmap(&frames, Attributes::KERNEL_DATA, NOBODY).expect("addresses").pages;
    for (page, &frame) in each_page(area).zip(&frames) {
        assert_eq!(size_at(page), PageSize::Small);
        assert_eq!(frame_at(page), frame);
    }
    // So that a part of them can go.
    let part = area.sub_range(1, 2).expect("pages");
    let removed = kernel().unmap_area(authority(), part).expect("small pages");
    assert_eq!(removed.pages, 2);
    kernel().vunmap(authority(), area.start()).expect("a live area");
    kernel().zones().free(block).expect("the test's");
    Completion::Ran
}
