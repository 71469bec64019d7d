//! Whoever may sleep is given what the atomic pool keeps and nobody uses, before he is refused pages, by whatever name he asks (S104).

extern crate alloc;

use alloc::vec::Vec;

use arch::irq;
use dma::coherent::{allocate, free};
use dma::device::Device;
use dma::pool_growth::{Growth, PATIENCE, grow, grown, is_low, set_growth};
use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::frames::{FrameBlock, FrameOwner, FrameRequest};
use kerncore::user::Protection;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::page::{__free_pages, alloc_pages};
use mm::any_pages::AnyPages;
use mm::kernel;
use mm::movable_buffer::MovableBuffer;
use mm::page_alloc::Pages;
use mm::user::AddressSpace;

use super::buffers::{NO_POOL, pool_pages};
use super::witness::{Books, NOBODY};

static SNOOPING: Device = Device::coherent("a snooping device that is short of memory");

/// Takes pages of a C caller's, if there are any, and gives them back.
fn pages_by(flags: AllocationFlags) -> bool {
    // Two: single ones may be spare.
    let pages = alloc_pages(flags, 1);
    // SAFETY: nobody else knows of them. Null is a no-op.
    unsafe { __free_pages(pages, 1) };
    !pages.is_null()
}

/// The same of a snooping device's buffer.
fn buffer_by(sleep: Sleep) -> bool {
    let buffer = allocate(&SNOOPING, PAGE_SIZE, sleep, NOBODY);
    buffer.is_ok_and(|buffer| {
        // SAFETY: no reference to its memory was ever made.
        unsafe { free(&SNOOPING, PAGE_SIZE, buffer.address, buffer.dma) }.is_ok()
    })
}

/// The same of a program's memory.
fn data_of(space: &AddressSpace) -> bool {
    let start = VirtAddr::new(0x1000_0000);
    let pages = PageRange::new(start, 1).expect("one page");
    let mapped = space.map_data(pages, Protection::ReadWrite);
    mapped.is_ok_and(|()| space.unmap(start).is_ok())
}

#[ktest]
fn whoever_may_sleep_is_given_what_the_pool_has_grown_by_before_he_is_refused_pages_s104()
-> Completion {
    let Some(pool) = pool_pages() else { return NO_POOL };
    if kernel().contiguous().is_some() {
        return Skipped("the pool's parts are the contiguous region's, which lends no such pages");
    }
    let books = Books::now();
    let space = AddressSpace::new().expect("memory");
    let mut blocks: Vec<FrameBlock> = Vec::with_capacity(8192);
    let may: [(&str, &dyn Fn() -> bool); 8] = [
        ("Pages", &|| Pages::new(0).is_ok()),
        ("Pages, so many", &|| Pages::exactly(3).is_ok()),
        ("AnyPages", &|| AnyPages::new(0, FrameRequest::LOW).is_ok()),
        ("MovableBuffer", &|| MovableBuffer::new(1).is_ok()),
        ("alloc_pages", &|| pages_by(AllocationFlags::KERNEL)),
        ("a snooping device's buffer", &|| buffer_by(Sleep::May)),
        ("a program's space", &|| AddressSpace::new().is_ok()),
        ("a program's data", &|| data_of(&space)),
    ];
    for (name, has) in may {
        grow().expect("memory for a larger pool");
        for order in (0..=10).rev() {
            let zones = kernel().zones();
            blocks.extend(core::iter::from_fn(|| zones.allocate(order, FrameOwner::Test).ok()));
        }
        assert!(!has(), "{name}: there was memory, or somebody gave some back unasked");
        set_growth(Growth::InBackground { patience: PATIENCE });
        // Who may not wait, by his own word or by where he is, is refused.
        let by_word = pages_by(AllocationFlags::ATOMIC) || buffer_by(Sleep::MayNot);
        let saved = irq::save_and_mask();
        let by_place = Pages::new(0).is_ok()
            || AnyPages::new(0, FrameRequest::LOW).is_ok()
            || MovableBuffer::new(1).is_ok()
            || pages_by(AllocationFlags::KERNEL);
        saved.restore();
        let before = grown();
        let has_some = has();
        set_growth(Growth::WhenAsked);
        assert_eq!((by_word, by_place, before), (false, false, (pool, 0)), "{name}");
        assert!(has_some, "{name}: refused, and the pool had some");
        assert_eq!(grown(), (0, 0), "{name}");
        blocks.drain(..).for_each(|block| kernel().zones().free(block).expect("a live block"));
    }
    drop((space, blocks));
    assert!(!is_low(), "so that it may grow again");
    books.assert_unchanged();
    Ran
}
