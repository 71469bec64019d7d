//! The contiguous region: who gets its memory, and the way back of each buffer to where it came from (S68, S75, S101).
//!
//! Without `cma=` there is none: then these tests show that nothing of it is seen. The host boots them both ways.

extern crate alloc;

use arch::lock::IrqLocks;
use dma::atomic_pool;
use dma::coherent::{AllocateError, allocate};
use dma::device::Device;
use image::start::started;
use kerncore::addr::{PAGE_SIZE, PhysAddr, pages_for};
use kerncore::coherent::{BackEnd, Coherency, ContiguousRegion, Sleep};
use kerncore::contiguous::{Contiguous, ContiguousError, PageUse};
use kerncore::frames::{FrameOwner, order_for};
use kerncore::kernel_space::CoherentError;
use kerncore::layout::linear_address;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::kernel;

use super::buffers::{NO_REGION, give, give_all, take_region};
use super::witness::{Books, NOBODY, ask_host, assert_absent, assert_leads, plus, word_at};

static DEVICE: Device = Device::new("a test's device");
static SNOOPING: Device = Device::coherent("a test's snooping device");

type Region = Contiguous<'static, IrqLocks>;

fn region() -> Option<&'static Region> {
    kernel().contiguous()
}

fn held() -> u32 {
    region().map_or(0, |region| region.usage().held)
}

fn pool_taken() -> u32 {
    atomic_pool::usage().map_or(0, |pool| pool.taken)
}

/// All of what `cma=` says, in whole blocks, at the end of low memory.
#[ktest]
fn as_much_is_set_aside_as_was_asked_for_s101() {
    let started = started().expect("the image has started");
    // As much as all RAM is refused, with a line.
    let wanted = started.config.contiguous.filter(|&bytes| bytes < started.ram.used);
    let wanted = wanted.map(pages_for);
    assert_eq!(region().map(Contiguous::pages), wanted);
    if let Some(region) = region() {
        assert!(region.first().number().is_multiple_of(1 << 10), "at {}", region.first());
        let last = region.first().checked_add(region.pages() - 1).expect("below 4 GiB");
        assert!(linear_address(last.base()).is_some(), "low memory");
        let table = kernel().zones().table();
        assert!(!table.is_managed(region.first()) && !table.is_managed(last), "no allocator's");
    }
}

/// The eight combinations, four of them in a boot with a region and four in one without.
#[ktest]
fn a_buffer_goes_back_where_it_came_from_in_every_combination_s75() -> Completion {
    if atomic_pool::usage().is_none() {
        return Skipped("no atomic pool in this boot");
    }
    let bytes = 3 * PAGE_SIZE;
    let present =
        if region().is_some() { ContiguousRegion::Present } else { ContiguousRegion::Absent };
    for (device, coherency) in [(&DEVICE, Coherency::NonCoherent), (&SNOOPING, Coherency::Coherent)]
    {
        for sleep in [Sleep::May, Sleep::MayNot] {
            let books = Books::now();
            let before = (held(), pool_taken());
            let buffer = allocate(device, bytes, sleep, NOBODY).expect("memory");
            let frame = PhysAddr::new(buffer.dma.raw()).pfn();
            let of_region = region().is_some_and(|region| region.contains(frame));
            let owner = kernel().zones().table().owner_of(frame);
            let (wanted, taken) = match BackEnd::for_request(coherency, present, sleep) {
                BackEnd::Simple => ((FrameOwner::Pages, false), (0, 0)),
                // Whose memory is the region's, too, if there is one.
                BackEnd::AtomicPool => ((FrameOwner::AtomicPool, region().is_some()), (0, 3)),
                BackEnd::Remap => ((FrameOwner::Dma, false), (0, 0)),
                BackEnd::Contiguous => ((FrameOwner::Dma, true), (3, 0)),
            };
            assert_eq!((owner, of_region), wanted, "{coherency:?}, {sleep:?}");
            let now = (held() - before.0, pool_taken() - before.1);
            assert_eq!(now, taken, "{coherency:?}, {sleep:?}");
            give(device, bytes, buffer);
            assert_eq!((held(), pool_taken()), before, "{coherency:?}, {sleep:?}");
            books.assert_unchanged();
        }
    }
    Ran
}

/// S68: the pool is made when the region is up, of its memory.
#[ktest]
fn the_atomic_pool_lies_in_the_region_if_there_is_one_s68() -> Completion {
    let Some(pool) = atomic_pool::usage() else { return Skipped("no atomic pool in this boot") };
    let first = kernel().table().translate(pool.base).expect("mapped").physical.pfn();
    assert_eq!(kernel().zones().table().owner_of(first), FrameOwner::AtomicPool);
    assert_eq!(region().is_some_and(|region| region.contains(first)), region().is_some());
    if let Some(region) = region() {
        assert_eq!(region.use_of(first), Some(PageUse::Held));
        assert!(region.usage().held >= pool.pages);
    }
    Ran
}

/// S85, S97: as a buffer by remapping is.
#[ktest]
fn a_buffer_of_the_region_is_zeroed_uncached_and_has_no_linear_view() -> Completion {
    let Some(region) = region() else { return NO_REGION };
    for round in 0..2 {
        let bytes = 4 * PAGE_SIZE;
        let buffer = allocate(&DEVICE, bytes, Sleep::May, NOBODY).expect("memory");
        let first = PhysAddr::new(buffer.dma.raw());
        assert!(region.contains(first.pfn()));
        for offset in (0..bytes).step_by(4) {
            assert_eq!(word_at(plus(buffer.address, offset)), 0, "round {round}, at {offset}");
        }
        for page in 0..4 {
            let physical = first.checked_add(page * PAGE_SIZE).expect("RAM");
            let address = plus(buffer.address, page * PAGE_SIZE);
            assert_leads(address, physical);
            assert_absent(linear_address(physical).expect("low memory"));
            // SAFETY: the buffer is this test's alone, mapped and writable.
            unsafe {
                core::ptr::with_exposed_provenance_mut::<u32>(address.raw() as usize)
                    .write_volatile(7);
            }
        }
        ask_host(buffer.address);
        give(&DEVICE, bytes, buffer);
    }
    Ran
}

/// S101: and more than any block of the allocator.
#[ktest]
fn runs_are_aligned_to_their_order_up_to_a_section() -> Completion {
    let Some(region) = region() else { return NO_REGION };
    let books = Books::now();
    let most = region.usage().largest;
    for pages in [1, 2, 3, 16, 17, 255, 256, 257, 1025] {
        if pages > most {
            continue;
        }
        let buffer = allocate(&DEVICE, pages * PAGE_SIZE, Sleep::May, NOBODY).expect("room");
        let alignment = PAGE_SIZE << order_for(pages).min(8);
        assert!(buffer.dma.raw().is_multiple_of(alignment), "{pages} pages at {}", buffer.dma);
        give(&DEVICE, pages * PAGE_SIZE, buffer);
    }
    books.assert_unchanged();
    Ran
}

/// Whoever finds no room learns who has it, and what to raise. Remapping would have found some: the region is meant.
#[ktest]
fn a_full_region_says_who_has_it_and_what_to_raise() -> Completion {
    let Some(region) = region() else { return NO_REGION };
    let books = Books::now();
    let before = region.usage();
    let (buffers, _) = take_region();
    let usage = region.usage();
    assert_eq!((usage.held, usage.largest), (region.pages(), 0));
    let refused = allocate(&DEVICE, 1, Sleep::May, NOBODY);
    let exhausted = ContiguousError::Exhausted { pages: 1, usage };
    let error = AllocateError::Remap(CoherentError::Contiguous(exhausted));
    assert_eq!(refused, Err(error));
    assert!(alloc::format!("{error}").ends_with("raise it with cma=<size>"));
    let pages = region.pages() + 1;
    let too_large = ContiguousError::TooLarge { pages, region: region.pages() };
    let refused = allocate(&DEVICE, pages * PAGE_SIZE, Sleep::May, NOBODY);
    assert_eq!(refused, Err(AllocateError::Remap(CoherentError::Contiguous(too_large))));
    give_all(buffers);
    assert_eq!(region.usage(), before);
    books.assert_unchanged();
    Ran
}

/// Remapping is there beside the region, and each block finds its way back by where it lies.
#[ktest]
fn buffers_by_remapping_and_of_the_region_do_not_meet_s75() {
    let books = Books::now();
    let remapped = kernel().coherent_alloc(PAGE_SIZE, FrameOwner::Dma, NOBODY).expect("memory");
    let of_region = |frame| region().is_some_and(|region| region.contains(frame));
    assert!(!of_region(remapped.physical.pfn()));
    let contiguous = kernel().contiguous_alloc(PAGE_SIZE, FrameOwner::Dma, NOBODY);
    if region().is_none() {
        assert_eq!(contiguous, Err(CoherentError::Contiguous(ContiguousError::Absent)));
    }
    for area in contiguous.into_iter().chain([remapped]) {
        // SAFETY: this test's own, of which it has no reference.
        let authority = unsafe { arch::machine::Authority::claim() };
        let freed = kernel().coherent_free(authority, area.pages.start(), PAGE_SIZE);
        assert_eq!(freed.map(|freed| freed.actual), Ok(1));
    }
    books.assert_unchanged();
}
