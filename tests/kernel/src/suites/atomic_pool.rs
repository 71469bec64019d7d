//! The atomic pool: coherent memory for callers that may not sleep (S68 to S77, S85).
//!
//! The four bugs of the change that brought the pool (S72, S73, S75, S76) have a test each. What the pool does before it
//! exists (S69, S70) shows in a boot whose `coherent_pool=` is more than memory can give.

extern crate alloc;

use alloc::vec::Vec;

use arch::irq;
use dma::atomic_pool::{self, InitError, PoolError, PoolUse};
use dma::coherent::{AllocateError, Buffer, CoherentBox, FreeError, allocate, free};
use dma::device::Device;
use image::capture::capture_log;
use image::start;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr, pages_for};
use kerncore::area::{AreaKind, AreaSummary};
use kerncore::coherent::Sleep;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::{CoherentError, RemoveError};
use kerncore::pool;
use ktest::Completion::{self, Ran, Skipped};
use ktest::{assert_err, ktest};
use mm::kernel;

use super::witness::{
    Books, NOBODY, Numbers, ask_host, assert_absent, assert_fenced, assert_leads, authority,
    each_page, feed, frame_at, linear, starve,
};

static DEVICE: Device = Device::new("a test's device");

const NO_POOL: Completion = Skipped("no atomic pool of 16 pages or more in this boot");

/// The pool and its area, all free, if it has a few pages.
fn pool() -> Option<(PoolUse, AreaSummary)> {
    let pool = atomic_pool::usage().filter(|pool| pool.pages >= 16)?;
    assert_eq!(pool.taken, 0, "a test before this one kept something");
    Some((pool, kernel().find(pool.base).expect("the pool's area")))
}

fn taken() -> u32 {
    atomic_pool::usage().map_or(0, |pool| pool.taken)
}

fn try_take(bytes: u32) -> Result<Buffer, AllocateError> {
    allocate(&DEVICE, bytes, Sleep::MayNot, NOBODY)
}

#[track_caller]
fn take(bytes: u32) -> Buffer {
    let buffer = try_take(bytes).unwrap_or_else(|error| panic!("{bytes} bytes: {error}"));
    ask_host(buffer.address);
    buffer
}

fn try_free(bytes: u32, buffer: Buffer) -> Result<(), FreeError> {
    // SAFETY: no test here has a reference to memory whose address it gives back; what is not a buffer is to be refused.
    unsafe { free(&DEVICE, bytes, buffer.address, buffer.dma) }
}

#[track_caller]
fn give(bytes: u32, buffer: Buffer) {
    let (freed, log) = capture_log(|| try_free(bytes, buffer));
    assert_eq!((freed, log.text()), (Ok(()), ""), "{bytes} bytes at {}", buffer.address);
}

/// What lies `offset` bytes into the pool, as the processor and as a device see it.
fn at(area: &AreaSummary, offset: u32) -> Buffer {
    let dma = DmaAddr::new(area.physical.raw().wrapping_add(offset));
    Buffer { address: VirtAddr::new(area.pages.start().raw().wrapping_add(offset)), dma }
}

#[track_caller]
fn index_of(area: &AreaSummary, buffer: Buffer) -> u32 {
    (buffer.address.raw() - area.pages.start().raw()) / PAGE_SIZE
}

#[ktest]
fn the_pool_is_as_large_as_configured_uncached_and_out_of_the_linear_map_s68_s97() -> Completion {
    let Some((pool, area)) = pool() else { return NO_POOL };
    let configured = start::started().expect("the kernel has started").config.coherent_pool;
    assert_eq!(pool.pages, configured / PAGE_SIZE, "S69: a tail that is no page is left out");
    assert_eq!((area.kind, area.pages.count()), (AreaKind::Dma, pool.pages));
    for (index, page) in (0..).zip(each_page(area.pages)) {
        let frame = PhysAddr::new(area.physical.raw() + index * PAGE_SIZE).pfn();
        assert_leads(page, frame.base());
        let entry = kernel().table().translate(page).expect("an entry").descriptor();
        assert_eq!(entry & 0xfff, 0x453, "Normal non-cacheable, never executed");
        assert_eq!(kernel().zones().table().owner_of(frame), FrameOwner::AtomicPool);
        assert_absent(linear(frame));
    }
    assert_fenced(area.pages);
    Ran
}

/// Bug 1: the seed's mask is made from bytes, and aligns nothing.
#[ktest]
fn one_page_and_then_four_pages_lie_at_indices_0_and_4_s72() -> Completion {
    let Some((_, area)) = pool() else { return NO_POOL };
    let sizes = [(1, 0), (4, 4), (1, 1), (2, 2), (3, 8), (1, 11), (2, 12)];
    let live = sizes.map(|(pages, index)| {
        let buffer = take(pages * PAGE_SIZE);
        assert_eq!(index_of(&area, buffer), index, "{pages} pages");
        (pages * PAGE_SIZE, buffer)
    });
    for (bytes, buffer) in live {
        give(bytes, buffer);
    }
    assert_eq!(taken(), 0);
    Ran
}

/// First fit at multiples of the order, against a model of one flag a page; device address and tables agree.
#[ktest]
fn every_buffer_is_the_lowest_aligned_run_at_its_device_address_s71_s72() -> Completion {
    let Some((pool, area)) = pool() else { return NO_POOL };
    let mut model = alloc::vec![false; pool.pages as usize];
    let mut live: Vec<(usize, u32, Buffer)> = Vec::new();
    let mut numbers = Numbers::new(0xa70);
    for step in 0..1500 {
        if !live.is_empty() && numbers.below(100) < 45 {
            let victim = numbers.below(u32::try_from(live.len()).expect("few")) as usize;
            let (first, bytes, buffer) = live.swap_remove(victim);
            give(bytes, buffer);
            model[first..][..pages_for(bytes) as usize].fill(false);
            continue;
        }
        let bytes = 1 + numbers.below(if step % 8 == 0 { 40 } else { 6 } * PAGE_SIZE);
        let pages = pages_for(bytes) as usize;
        let fits = |&first: &usize| {
            model.get(first..first + pages).is_some_and(|run| !run.contains(&true))
        };
        let wanted = (0..model.len()).step_by(pages.next_power_of_two()).find(fits);
        match (wanted, try_take(bytes)) {
            (Some(first), Ok(buffer)) => {
                assert_eq!(index_of(&area, buffer) as usize, first, "step {step}: {pages} pages");
                assert_eq!(buffer, at(&area, buffer.address.raw() - area.pages.start().raw()));
                assert_leads(buffer.address, PhysAddr::new(buffer.dma.raw()));
                model[first..][..pages].fill(true);
                live.push((first, bytes, buffer));
            }
            (None, Err(AllocateError::Pool(PoolError::Refused(_)))) => {}
            (wanted, had) => panic!("step {step}: {pages} pages: wanted {wanted:?}, had {had:?}"),
        }
        assert_eq!(taken() as usize, model.iter().filter(|&&used| used).count());
    }
    for (_, bytes, buffer) in live {
        give(bytes, buffer);
    }
    assert_eq!(taken(), 0);
    Ran
}

/// The seed truncates: a byte would be no page, and a page and a byte one.
#[ktest]
fn sizes_are_rounded_up_to_pages_s71() -> Completion {
    if pool().is_none() {
        return NO_POOL;
    }
    for (bytes, pages) in [(1, 1), (4095, 1), (4096, 1), (4097, 2), (8193, 3), (0x1_0000, 16)] {
        let buffer = take(bytes);
        assert_eq!(taken(), pages, "{bytes} bytes");
        // Freed by another size that fills the same pages.
        give(pages * PAGE_SIZE, buffer);
        assert_eq!(taken(), 0);
    }
    Ran
}

/// S77: with interrupts masked and not one frame free, by bits alone. A remap, a table or a heap block would show.
#[ktest]
fn atomic_callers_touch_no_frame_no_table_and_no_area_s77() -> Completion {
    let Some((pool, _)) = pool() else { return NO_POOL };
    let list = starve(0);
    let books = Books::now();
    let tables = kernel().table_memory().tables_made();
    let buffers = irq::masked(|| [1, 2 * PAGE_SIZE, 5 * PAGE_SIZE].map(|n| (n, take(n))));
    let after = (kernel().table_memory().tables_made(), kernel().zones().free_pages());
    let held = Books::now();
    irq::masked(|| buffers.into_iter().for_each(|(bytes, buffer)| give(bytes, buffer)));
    let freed = Books::now();
    feed(list);
    assert_eq!(after, (tables, 0));
    assert_eq!((held, freed), (books, books));
    assert_eq!(atomic_pool::usage(), Some(pool));
    Ran
}

/// Bug 3: without CMA the seed asks the pool on allocation only, and a free goes to the remapped buffers.
#[ktest]
fn a_free_asks_the_pool_first_in_whatever_context_s75() -> Completion {
    let Some((pool, area)) = pool() else { return NO_POOL };
    let books = Books::now();
    // Taken where one may not sleep and freed where one may, and the other way round.
    let buffer = irq::masked(|| take(3 * PAGE_SIZE));
    give(3 * PAGE_SIZE, buffer);
    let buffer = take(3 * PAGE_SIZE);
    irq::masked(|| give(3 * PAGE_SIZE, buffer));
    books.assert_unchanged();
    assert_eq!(atomic_pool::usage(), Some(pool));
    for page in each_page(area.pages) {
        assert_eq!(kernel().zones().table().owner_of(frame_at(page)), FrameOwner::AtomicPool);
    }
    // And a remapped buffer is none of the pool's.
    let mut remapped = CoherentBox::new(&DEVICE, 2 * PAGE_SIZE).expect("memory");
    assert!(!area.pages.contains(remapped.address()));
    remapped.fill(1);
    drop(remapped);
    books.assert_unchanged();
    Ran
}

#[ktest]
fn an_exhausted_pool_says_so_takes_nothing_and_serves_again_s71_s104() -> Completion {
    let Some((pool, area)) = pool() else { return NO_POOL };
    for pages in [pool.pages + 1, u32::MAX / PAGE_SIZE] {
        assert_err!(try_take(pages * PAGE_SIZE), AllocateError::Pool(PoolError::Refused(
            pool::AllocateError::Exhausted { pages: wanted, free, taken: 0, .. }))
            if wanted == pages && free == pool.pages);
    }
    let all: Vec<_> = (0..pool.pages).map(|_| take(PAGE_SIZE)).collect();
    let none = pool::AllocateError::Exhausted { pages: 1, largest: 0, free: 0, taken: pool.pages };
    for bytes in [1, PAGE_SIZE] {
        assert_eq!(try_take(bytes), Err(AllocateError::Pool(PoolError::Refused(none))));
    }
    assert_eq!(taken(), pool.pages);
    // Every other page comes back: half is free, and no two pages are adjacent.
    for buffer in all.iter().step_by(2) {
        give(PAGE_SIZE, *buffer);
    }
    assert_err!(
        try_take(2 * PAGE_SIZE),
        AllocateError::Pool(PoolError::Refused(pool::AllocateError::Exhausted {
            pages: 2,
            largest: 1,
            ..
        }))
    );
    let again = take(PAGE_SIZE);
    assert_eq!(index_of(&area, again), 0);
    give(PAGE_SIZE, again);
    for buffer in all.iter().skip(1).step_by(2) {
        give(PAGE_SIZE, *buffer);
    }
    assert_eq!(atomic_pool::usage(), Some(pool));
    Ran
}

/// Frees in vain: an error with a backtrace, and no bit is touched.
#[track_caller]
fn refused(bytes: u32, buffer: Buffer) -> pool::FreeError {
    let (books, before) = (Books::now(), atomic_pool::usage());
    let (freed, log) = capture_log(|| try_free(bytes, buffer));
    assert_eq!(log.count("Backtrace:"), 1, "{log:?}");
    let overruns = matches!(freed, Err(FreeError::Pool(pool::FreeError::Overruns { .. })));
    let line = "freeing wrong coherent size from pool";
    assert_eq!(log.count(line), usize::from(overruns), "{log:?}");
    assert_eq!(atomic_pool::usage(), before);
    books.assert_unchanged();
    match freed {
        Err(FreeError::Pool(error)) => error,
        other => panic!("the pool was not asked, or took it: {other:?}"),
    }
}

#[ktest]
fn wrong_sizes_insides_and_double_frees_are_refused_bit_by_bit_s74() -> Completion {
    use pool::FreeError::{NotAStart, NotAllocated, Overruns, Unaligned, WrongSize};

    let Some((pool, area)) = pool() else { return NO_POOL };
    let neighbours = [take(4 * PAGE_SIZE), take(4 * PAGE_SIZE)];
    let buffer = neighbours[0];
    let start = buffer.address;
    for pages in [0, 1, 3, 5, 8] {
        let error = refused(pages * PAGE_SIZE, buffer);
        assert_eq!(error, WrongSize { start, pages, allocated: 4 });
    }
    assert_eq!(refused(4 * PAGE_SIZE + 1, buffer), WrongSize { start, pages: 5, allocated: 4 });
    for page in 1..4 {
        let inside = at(&area, page * PAGE_SIZE);
        for pages in [1, 4 - page, 4] {
            let wanted = NotAStart { start: inside.address, run: start, pages: 4 };
            assert_eq!(refused(pages * PAGE_SIZE, inside), wanted);
        }
    }
    for offset in [1, 4, 4095] {
        let inside = at(&area, offset);
        assert_eq!(refused(PAGE_SIZE, inside), Unaligned { start: inside.address });
    }
    for bytes in [(pool.pages + 1) * PAGE_SIZE, u32::MAX, pool.pages * PAGE_SIZE + 1] {
        assert_err!(Err::<(), _>(refused(bytes, buffer)), Overruns { .. });
    }
    // Wrapping: the last page, with a size whose end passes 2³².
    let last = at(&area, (pool.pages - 1) * PAGE_SIZE);
    assert_err!(Err::<(), _>(refused(4097, last)), Overruns { .. });
    assert_err!(Err::<(), _>(refused(last.address.raw().wrapping_neg(), last)), Overruns { .. });
    assert_eq!(refused(PAGE_SIZE, last), NotAllocated { start: last.address });
    for buffer in neighbours {
        give(4 * PAGE_SIZE, buffer);
    }
    assert_eq!(refused(4 * PAGE_SIZE, buffer), NotAllocated { start }, "a double free");
    Ran
}

#[ktest]
fn a_free_of_a_pool_buffer_with_another_device_address_is_refused() -> Completion {
    if pool().is_none() {
        return NO_POOL;
    }
    let buffer = take(PAGE_SIZE);
    let Buffer { address, dma: wanted } = buffer;
    for given in [0, wanted.raw() + 1, wanted.raw() + PAGE_SIZE].map(DmaAddr::new) {
        let freed = try_free(PAGE_SIZE, Buffer { address, dma: given });
        assert_eq!(freed, Err(FreeError::Handle { address, wanted, given }));
        assert_eq!(taken(), 1);
    }
    give(PAGE_SIZE, buffer);
    Ran
}

/// Bug 2: the seed takes a start at the pool's end for inside. Here a guard lies there, so that nothing can begin at it;
/// what matters is which way such an address goes.
#[ktest]
fn an_address_at_the_pools_end_or_before_its_start_goes_its_own_way_s73() -> Completion {
    let Some((pool, area)) = pool() else { return NO_POOL };
    let end = pool.pages * PAGE_SIZE;
    for outside in [at(&area, end), at(&area, 0_u32.wrapping_sub(PAGE_SIZE))] {
        for bytes in [0, 1, PAGE_SIZE, end] {
            let (freed, log) = capture_log(|| try_free(bytes, outside));
            let unknown = RemoveError::Unknown { address: outside.address };
            assert_eq!(freed, Err(FreeError::Invalid(unknown)), "not the pool's answer");
            assert_eq!(log.count("freeing wrong coherent size from pool"), 0, "{log:?}");
        }
    }
    assert_eq!(atomic_pool::usage(), Some(pool));
    Ran
}

#[ktest]
fn the_pools_own_memory_cannot_be_freed_under_it_s67_s74() -> Completion {
    let Some((pool, area)) = pool() else { return NO_POOL };
    let all = pool.pages * PAGE_SIZE;
    let address = pool.base;
    assert_eq!(refused(all, at(&area, 0)), pool::FreeError::NotAllocated { start: address });
    let books = Books::now();
    let wrong = Err(RemoveError::WrongKind { address, found: AreaKind::Dma });
    assert_eq!(kernel().vfree(authority(), address), wrong);
    assert_eq!(kernel().vunmap(authority(), address), wrong);
    assert_eq!(kernel().iounmap(authority(), address), wrong);
    books.assert_unchanged();
    // With every page taken in one run that free is right, and frees bits only.
    if pool.pages.is_power_of_two() {
        let buffer = take(all);
        assert_eq!(buffer, at(&area, 0));
        give(all, buffer);
        assert_eq!(kernel().find(address), Some(area));
        books.assert_unchanged();
    }
    Ran
}

/// S85: atomic callers pay for zeros only if they ask for them.
#[ktest]
fn a_pool_buffer_holds_what_its_last_user_left_s85() -> Completion {
    if pool().is_none() {
        return NO_POOL;
    }
    let mut first = CoherentBox::new_atomic(&DEVICE, PAGE_SIZE).expect("the pool is free");
    first.fill(0xc3);
    let address = first.address();
    drop(first);
    let second = CoherentBox::new_atomic(&DEVICE, PAGE_SIZE).expect("the pool is free");
    assert_eq!(second.address(), address);
    assert!(second.iter().all(|&byte| byte == 0xc3));
    Ran
}

/// S69 and S70, in a boot whose pool could not be made.
#[ktest]
fn without_a_pool_atomic_callers_are_refused_and_told_why_s69_s70() -> Completion {
    if atomic_pool::usage().is_some() {
        return Skipped("there is a pool; it takes coherent_pool=1G to have none");
    }
    let books = Books::now();
    let (refused, log) = capture_log(|| try_take(PAGE_SIZE));
    assert_eq!(refused, Err(AllocateError::Pool(PoolError::NotInitialised)));
    let said = (log.count("coherent pool not initialised!"), log.count("Backtrace:"));
    assert_eq!(said, (1, 1), "{log:?}");
    for bytes in [0, 1, 4095, (4 << 20) + 4096, 1 << 30, u32::MAX] {
        let (made, log) = capture_log(|| atomic_pool::init(bytes));
        match made {
            Err(InitError::Pool(pool::NewError::NoPages { .. })) if bytes < PAGE_SIZE => {}
            Err(InitError::NoMemory(CoherentError::Frames(_))) if bytes > PAGE_SIZE => {}
            other => panic!("{bytes} bytes: {other:?}"),
        }
        let line = alloc::format!(
            "DMA: failed to allocate {} KiB pool for atomic coherent allocation",
            bytes / 1024
        );
        assert_eq!(log.count(&line), 1, "{log:?}");
        books.assert_unchanged();
    }
    // Callers that may sleep do not need it.
    let buffer = CoherentBox::new(&DEVICE, PAGE_SIZE).expect("memory");
    assert_err!(
        CoherentBox::new_atomic(&DEVICE, PAGE_SIZE),
        AllocateError::Pool(PoolError::NotInitialised)
    );
    drop(buffer);
    books.assert_unchanged();
    Ran
}

#[ktest]
fn a_second_pool_is_refused_and_the_first_stays_s68() -> Completion {
    let Some((pool, _)) = pool() else { return NO_POOL };
    let books = Books::now();
    let (again, log) = capture_log(|| atomic_pool::init(256 << 10));
    assert_eq!(again, Err(InitError::Again));
    let line = "failed to allocate 256 KiB pool for atomic coherent allocation";
    for words in [line, "there is a pool already"] {
        assert_eq!(log.text().matches(words).count(), 1, "{log:?}");
    }
    assert_eq!(atomic_pool::usage(), Some(pool));
    books.assert_unchanged();
    Ran
}
