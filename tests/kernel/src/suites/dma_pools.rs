//! Pools of small coherent blocks (S103).

extern crate alloc;

use alloc::vec::Vec;

use arch::irq;
use dma::atomic_pool;
use dma::coherent::{AllocateError, Buffer};
use dma::device::Device;
use dma::dma_pool::{DmaPool, GiveBackError, TakeError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::Sleep;
use kerncore::dma_mask::DmaMask;
use kerncore::dma_pool::{BlockError, LayoutError};
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;

use super::witness::{Books, NOBODY, frame_at, plus};

static DEVICE: Device = Device::new("a test's device");

fn pool(size: u32, alignment: u32, boundary: u32) -> DmaPool<'static> {
    DmaPool::new("a test's pool", &DEVICE, size, alignment, boundary).expect("such blocks can be")
}

#[track_caller]
fn destroy(pool: DmaPool<'_>) {
    // SAFETY: nobody uses a block.
    let (live, log) = capture_log(|| unsafe { pool.destroy() });
    assert_eq!((live, log.text()), (0, ""));
}

/// S103: aligned, apart, across no boundary, and where the device is told.
#[ktest]
fn blocks_lie_apart_and_keep_to_their_boundary_s103() {
    let books = Books::now();
    for (size, alignment, boundary) in [(24, 8, 64), (100, 32, 0), (1000, 4, 4096), (5000, 64, 0)] {
        let pool = pool(size, alignment, boundary);
        let mut blocks: Vec<Buffer> = Vec::new();
        for _ in 0..20 {
            let block = pool.allocate(Sleep::May, NOBODY).expect("memory");
            let offset = block.address.page_offset();
            assert_eq!(frame_at(block.address).base().raw() + offset, block.dma.raw());
            assert!(block.dma.raw().is_multiple_of(alignment));
            // Of no boundary, each is in none.
            let between = |at: u32| at.checked_div(boundary);
            let last = block.dma.raw() + size - 1;
            assert_eq!(between(block.dma.raw()), between(last), "{size} at {}", block.dma);
            for other in &blocks {
                let apart = block.dma.raw().abs_diff(other.dma.raw());
                assert!(apart >= size, "{} and {}", block.dma, other.dma);
            }
            blocks.push(block);
        }
        for block in blocks.iter().rev() {
            assert_eq!(pool.free(*block), Ok(()));
        }
        let again = pool.allocate(Sleep::May, NOBODY).expect("a block that came back");
        assert!(blocks.contains(&again), "no new pages while a block is free");
        assert_eq!(pool.free(again), Ok(()));
        destroy(pool);
        books.assert_unchanged();
    }
}

/// S103: a double free, one of another's memory, one inside a block, one with another handle: each is named, none changes anything.
#[ktest]
fn double_and_foreign_frees_are_diagnosed_s103() {
    let books = Books::now();
    let (pool, other) = (pool(32, 32, 0), pool(32, 32, 0));
    let block = pool.allocate(Sleep::May, NOBODY).expect("memory");
    let stranger = other.allocate(Sleep::May, NOBODY).expect("memory");
    let refused = |block: Buffer| {
        let (freed, log) = capture_log(|| pool.free(block));
        assert!(log.text().contains("dma_pool_free: a free to a test's pool of a test's device"));
        assert!(log.text().contains("Backtrace:"), "{log:?}");
        freed.expect_err("the free was accepted")
    };
    let moved = |bytes| Buffer {
        address: plus(block.address, bytes),
        dma: DmaAddr::new(block.dma.raw() + bytes),
    };
    let address = stranger.address;
    assert_eq!(refused(stranger), GiveBackError::Foreign { address });
    let inside = moved(4);
    let error = BlockError::Inside { offset: inside.address.page_offset(), block: 0 };
    let error = GiveBackError::Block { address: inside.address, error };
    assert_eq!(refused(inside), error);
    // Right behind its pages, where another's may begin.
    let end = PAGE_SIZE - block.address.page_offset();
    let address = moved(end).address;
    assert_eq!(refused(moved(end)), GiveBackError::Foreign { address });
    let never = moved(32);
    let error = BlockError::AlreadyFree { offset: never.address.page_offset() };
    assert_eq!(refused(never), GiveBackError::Block { address: never.address, error });
    let given = DmaAddr::new(block.dma.raw() + 32);
    let address = block.address;
    let handle = GiveBackError::Handle { address, wanted: block.dma, given };
    assert_eq!(refused(Buffer { dma: given, ..block }), handle);
    assert_eq!(pool.free(block), Ok(()));
    let error = BlockError::AlreadyFree { offset: address.page_offset() };
    assert_eq!(refused(block), GiveBackError::Block { address, error });
    assert_eq!(other.free(stranger), Ok(()));
    destroy(other);
    destroy(pool);
    books.assert_unchanged();
}

/// S103: whoever ends a pool too early hears of each block, and its pages stay out of use.
#[ktest]
fn blocks_that_live_when_their_pool_ends_are_named_s103() -> Completion {
    // In memory of the pool of pages, which tells how much of it is out of use, and takes it back.
    if atomic_pool::usage().is_none_or(|pages| pages.pages < 4) {
        return Skipped("no atomic pool of 4 pages in this boot");
    }
    let before = atomic_pool::usage().map(|pages| pages.taken);
    let pool = pool(2048, 4, 0);
    let blocks: Vec<Buffer> =
        (0..5).map(|_| pool.allocate(Sleep::MayNot, NOBODY).expect("pages")).collect();
    for freed in [2, 3] {
        assert_eq!(pool.free(blocks[freed]), Ok(()));
    }
    // SAFETY: nobody uses a block that was given back.
    let (live, log) = capture_log(|| unsafe { pool.destroy() });
    assert_eq!(live, 3, "two of them in one page");
    for block in [blocks[0], blocks[1], blocks[4]] {
        let line = alloc::format!(
            "dma_pool_destroy: a test's pool of a test's device: the block at {} is busy",
            block.address
        );
        assert_eq!(log.count(&line), 1, "{log:?}");
    }
    let lost = atomic_pool::usage().map(|pages| pages.taken);
    assert_eq!(lost, before.map(|before| before + 2), "the pages of those");
    for block in [blocks[1], blocks[4]] {
        let (address, dma) = (block.address.page_base(), block.dma.page_base());
        // SAFETY: nobody uses the block any more.
        let freed = unsafe { dma::coherent::free(&DEVICE, PAGE_SIZE, address, dma) };
        assert_eq!(freed, Ok(()));
    }
    Ran
}

/// S77, S103: with interrupts off, out of the atomic pool.
#[ktest]
fn blocks_are_had_with_interrupts_off_s77_s103() -> Completion {
    if atomic_pool::usage().is_none_or(|pages| pages.pages < 4) {
        return Skipped("no atomic pool of 4 pages in this boot");
    }
    let books = Books::now();
    let pool = pool(64, 64, 0);
    let block = irq::masked(|| pool.allocate(Sleep::MayNot, NOBODY)).expect("pages");
    assert_eq!(irq::masked(|| pool.free(block)), Ok(()));
    destroy(pool);
    books.assert_unchanged();
    Ran
}

#[ktest]
fn what_no_pool_can_be_made_of_is_refused_and_a_pool_without_pages_says_why_s103() {
    let made = DmaPool::new("none", &DEVICE, 64, 4, 32).map(|_| ());
    assert_eq!(made, Err(LayoutError::Boundary { boundary: 32, size: 64 }));
    let device = Device::new("a device of few lines");
    let least = mm::kernel().zones().table().first().base().raw() + PAGE_SIZE - 1;
    assert_eq!(device.set_coherent_mask(DmaMask::new(u64::from(least))), Ok(()));
    // A run of three pages does not lie in one frame.
    let pool = DmaPool::new("out of reach", &device, 2 * PAGE_SIZE + 1, 1, 0).expect("a layout");
    let refused = pool.allocate(Sleep::May, NOBODY);
    assert!(
        matches!(refused, Err(TakeError::Pages(AllocateError::OutOfReach { .. }))),
        "{refused:?}"
    );
    destroy(pool);
}

#[ktest]
fn a_pool_keeps_as_much_of_its_name_as_fits() {
    fn name(given: &str) -> alloc::string::String {
        let pool = DmaPool::new(given, &DEVICE, 4, 4, 0).expect("a layout");
        pool.name().into()
    }
    assert_eq!(name("descriptors"), "descriptors");
    assert_eq!(name(&"x".repeat(40)), "x".repeat(32));
    // The 32nd byte is the first of two.
    assert_eq!(name("0123456789012345678901234567890\u{fc}"), "0123456789012345678901234567890");
}
