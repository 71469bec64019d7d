//! High memory and the kinds of low memory: who is served from which, and what high memory looks like (S30, S54, S117).
//!
//! `lowmem=` makes memory high; what is about high memory alone says without it why it does not run.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kerncore::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr};
use kerncore::attributes::Attributes;
use kerncore::coherent::AllocationFlags;
use kerncore::frames::{AllocateError, FrameOwner, FrameRequest, ZoneKind};
use kerncore::kernel_space::{Fill, Rights, VmallocRequest};
use kerncore::layout::linear_address;
use ktest::{Completion, assert_err, ktest};
use linux::page::{__free_pages, alloc_pages, frame_of};
use linux::vmalloc::{__vmalloc, vmalloc_32, vmalloc_32_user};
use mm::kernel;
use mm::vm_area::VmArea;

use super::kmap::slots;
use super::witness::{NOBODY, assert_absent, authority, each_page, feed, frame_at};

fn kind_of(frame: Pfn) -> ZoneKind {
    kernel().zones().zone_of(frame).expect("RAM").1
}

fn kinds(pages: PageRange) -> Vec<ZoneKind> {
    each_page(pages).map(|page| kind_of(frame_at(page))).collect()
}

fn free(request: FrameRequest) -> u32 {
    kernel().zones().free_pages_of(request)
}

/// Behind an area of C's, which ends here.
#[track_caller]
fn kinds_of(area: *mut core::ffi::c_void, count: u32) -> Vec<ZoneKind> {
    assert!(!area.is_null());
    let start = kerncore::addr::VirtAddr::new(u32::try_from(area.addr()).expect("32 bits"));
    let kinds = kinds(PageRange::new(start, count).expect("whole pages"));
    // SAFETY: made a moment before, and nobody has a reference.
    unsafe { linux::free::vfree(area) };
    kinds
}

#[ktest]
fn vmalloc_takes_high_memory_first_and_low_when_that_is_gone_s30() -> Completion {
    if let Err(skipped) = slots() {
        return skipped;
    }
    let area = VmArea::new(20 * PAGE_SIZE).expect("memory");
    assert!(kinds(area.pages()).iter().all(|&kind| kind == ZoneKind::High));
    drop(area);
    let zones = kernel().zones();
    let high = free(FrameRequest::ANY) - free(FrameRequest::LOW);
    let all = zones.allocate_list_from(FrameRequest::ANY, high, FrameOwner::Test);
    let all = all.expect("as much as is free");
    assert!(all.frames(zones.table()).all(|frame| kind_of(frame) == ZoneKind::High));
    let area = VmArea::new(20 * PAGE_SIZE).expect("low memory");
    assert!(kinds(area.pages()).iter().all(|&kind| kind == ZoneKind::Normal));
    drop(area);
    feed(all);
    Completion::Ran
}

/// Wherever it runs: without high memory there is none that they could have.
#[ktest]
fn vmalloc_32_and_whoever_names_no_high_memory_never_get_it_s30_s54() {
    for _ in 0..3 {
        let gfp = AllocationFlags::KERNEL;
        let protection = linux::protection::PageProtection::KERNEL;
        let areas = [
            vmalloc_32(9 * PAGE_SIZE),
            vmalloc_32_user(9 * PAGE_SIZE),
            __vmalloc(9 * PAGE_SIZE, gfp, protection),
        ];
        for area in areas {
            assert!(!kinds_of(area, 9).contains(&ZoneKind::High));
        }
        let page = alloc_pages(AllocationFlags::KERNEL, 3);
        assert_ne!(kind_of(frame_of(page).expect("a page")), ZoneKind::High);
        // SAFETY: made a moment before, and nobody has a reference.
        unsafe { __free_pages(page, 3) };
    }
}

/// S100: no frame above what its user reaches, and none is an error that says so.
#[ktest]
fn memory_for_who_reaches_few_addresses_lies_below_its_limit_s100() {
    let zones = kernel().zones();
    let ram = zones.table().first().base().raw();
    for limit in [0x01ff_ffff, 0x03ff_ffff, 0x0180_0abc].map(|offset| PhysAddr::new(ram + offset)) {
        let memory = FrameRequest::ANY.reached_by(limit);
        let request = VmallocRequest::new(40 * PAGE_SIZE, Fill::Zeroed, NOBODY);
        let area = kernel().vmalloc_with(VmallocRequest { memory, ..request }).expect("memory");
        for page in each_page(area.pages) {
            assert!(frame_at(page).base().raw() + (PAGE_SIZE - 1) <= limit.raw(), "{limit}");
        }
        assert_eq!(kernel().vfree(authority(), area.pages.start()), Ok(()));
    }
    // The few frames below the image, all of them, and then one more.
    let few = FrameRequest::ANY.reached_by(PhysAddr::new(ram + 0xffff));
    let all = zones.allocate_list_from(few, free(few), FrameOwner::Test).expect("they are free");
    let (pages, owner) = (1, FrameOwner::Test);
    assert_err!(
        zones.allocate_from(few, 0, owner),
        AllocateError::Exhausted { pages: 1, free: 0, from, .. } if from == few
    );
    feed(all);
    let none = FrameRequest::ANY.reached_by(PhysAddr::new(0x0fff_ffff));
    assert_err!(
        zones.allocate_pages_from(none, pages, owner),
        AllocateError::Exhausted { free: 0, largest: None, from, .. } if from == none
    );
}

/// `GFP_DMA`: the first sixteen MiB, which others get last.
#[ktest]
fn memory_of_the_dma_zone_is_for_who_asks_for_it() {
    let gfp = AllocationFlags(AllocationFlags::KERNEL.0 | AllocationFlags::DMA);
    let area = __vmalloc(5 * PAGE_SIZE, gfp, linux::protection::PageProtection::KERNEL);
    assert!(kinds_of(area, 5).iter().all(|&kind| kind == ZoneKind::Dma));
    let area = VmArea::new(5 * PAGE_SIZE).expect("memory");
    assert!(!kinds(area.pages()).contains(&ZoneKind::Dma));
}

/// S30: what was there before is gone, wherever the memory lies.
#[ktest]
fn zeroed_memory_is_zero_and_may_be_read_only() {
    for _ in 0..2 {
        let mut area = VmArea::new(16 * PAGE_SIZE).expect("memory");
        area.fill(0xa5);
        drop(area);
        let area = VmArea::zeroed(16 * PAGE_SIZE).expect("memory");
        assert!(area.iter().all(|&byte| byte == 0));
    }
    let request = VmallocRequest::new(PAGE_SIZE, Fill::Zeroed, NOBODY);
    let request = VmallocRequest { rights: Rights::ReadOnly, ..request };
    let area = kernel().vmalloc_with(request).expect("memory");
    let found = kernel().table().translate(area.pages.start()).map(|found| found.attributes());
    assert_eq!(found, Some(Ok(Attributes::KERNEL_RODATA)));
    assert_eq!(kernel().vfree(authority(), area.pages.start()), Ok(()));
}

/// S117: it has no address that is not asked for, and the map says where it is.
#[ktest]
fn high_memory_has_no_linear_address_and_a_line_of_the_map_s117() {
    let mut lines: Vec<String> = Vec::new();
    let (mut shown, mut first) = (0, None);
    mm::memory_map::for_each_high(|high| {
        let (frame, pages) = high.frames();
        lines.push(high.to_string());
        shown += pages;
        first.get_or_insert(frame);
    });
    let mut high = 0;
    kernel().zones().for_each_zone(|zone| {
        high += if zone.kind == ZoneKind::High { zone.pages } else { 0 };
    });
    assert_eq!((shown, lines.is_empty()), (high, slots().is_err()));
    let mut text = String::new();
    monitor::execute("map", &mut text).expect("the map");
    assert!(lines.iter().all(|line| text.lines().any(|shown| shown == line)), "{lines:?}");
    assert_eq!(text.matches("high memory").count(), lines.len());
    let Some(first) = first else { return };
    assert!(kernel().linear().pages_of(first, 1).is_none());
    assert!(lines[0].contains(&first.base().to_string()), "{}", lines[0]);
    assert_absent(linear_address(first.base()).expect("within the linear map's region"));
}
