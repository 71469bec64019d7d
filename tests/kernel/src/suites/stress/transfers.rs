//! Transfers of a device that each CPU plays for itself, and small blocks of one pool that all CPUs have in common (S103, S105, S106).

extern crate alloc;

use core::ops::{Deref, DerefMut};
use core::ptr;
use core::slice;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{Acquire, Release};

use dma::dma_pool::DmaPool;
use dma::mapping::{Buffer, Streaming};
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::coherent::AllocationFlags;
use kerncore::layout::linear_address;
use kerncore::streaming::Bidirectional;
use linux::dma_pool::{dma_pool_alloc, dma_pool_create, dma_pool_destroy, dma_pool_free};
use mm::page_alloc::Pages;

use super::named::{address, pointer};
use super::{DEVICE, Worker};

impl Worker<'_> {
    /// Lends a device a page in place, or bytes of the heap by a copy.
    pub(super) fn transfer(&mut self) {
        let (mark, bytes) = (self.draw.next().to_le_bytes()[0], 1 + self.draw.below(3 * PAGE_SIZE));
        if self.draw.below(2) == 0 {
            lend(Pages::new(0).expect("memory"), mark);
        } else {
            lend(alloc::vec![0; bytes as usize], mark);
        }
    }
}

/// The device finds what is in `buffer`, and what it writes comes back, once while it has the buffer and once at the end.
fn lend<B: Buffer + DerefMut<Target = [u8]>>(mut buffer: B, mark: u8) {
    buffer.fill(mark);
    let mut mapped = Streaming::<Bidirectional, B>::map(&DEVICE, buffer).expect("room for a copy");
    let (dma, count) = (mapped.dma_address(), u32::try_from(mapped.len()).expect("few"));
    exchange(dma, count, (mark, !mark));
    // SAFETY: the device is this CPU, which does something else meanwhile.
    let mut synced = unsafe { mapped.sync_for_cpu() }.expect("low memory");
    assert!(synced.iter().all(|&byte| byte == !mark), "a transfer by CPU {}", arch::cpu::id());
    synced.fill(mark ^ 0x0f);
    drop(synced);
    exchange(dma, count, (mark ^ 0x0f, mark ^ 0xf0));
    // SAFETY: the device is done.
    let buffer = unsafe { mapped.unmap() }.expect("low memory");
    assert!(buffer.iter().all(|&byte| byte == mark ^ 0xf0), "by CPU {}", arch::cpu::id());
}

/// The device finds `found` in all of `count` bytes at `dma`, and writes `written` there.
fn exchange(dma: DmaAddr, count: u32, (found, written): (u8, u8)) {
    let start = linear_address(PhysAddr::new(dma.raw())).expect("low memory");
    for index in 0..count {
        let byte: *mut u8 = pointer(VirtAddr::new(start.raw() + index));
        // SAFETY: mapped for the device that this CPU plays; the driver leaves it alone.
        assert_eq!(unsafe { byte.read_volatile() }, found, "byte {index} on its way to a device");
        // SAFETY: as above.
        unsafe { byte.write_volatile(written) };
    }
}

/// Bytes of a block; some of them share a page, and none crosses a KiB.
const BLOCK: u32 = 200;

/// All CPUs' pool of blocks.
static POOL: AtomicPtr<[DmaPool<'static>; 1]> = AtomicPtr::new(ptr::null_mut());

pub(super) fn open_pool() {
    // SAFETY: a string, and a device for good.
    let pool = unsafe { dma_pool_create(c"stress".as_ptr(), &raw const DEVICE, BLOCK, 8, 1024) };
    assert!(!pool.is_null(), "no pool of blocks");
    POOL.store(pool, Release);
}

/// When no block is anybody's.
pub(super) fn close_pool() {
    // SAFETY: made by `open_pool`, and nobody uses it any more.
    unsafe { dma_pool_destroy(POOL.swap(ptr::null_mut(), Release)) };
}

/// A block of the pool.
pub(super) struct Block {
    start: VirtAddr,
    dma: DmaAddr,
}

impl Block {
    pub(super) fn new() -> Self {
        let mut dma = DmaAddr::new(0);
        // SAFETY: the pool of this test, and a place for an address.
        let block =
            unsafe { dma_pool_alloc(POOL.load(Acquire), AllocationFlags::KERNEL, &raw mut dma) };
        assert!(!block.is_null(), "a block of {BLOCK} bytes");
        Self { start: address(block), dma }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is mapped until it is dropped, and this one's alone; no device knows of it.
        unsafe { slice::from_raw_parts(pointer(self.start), BLOCK as usize) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(pointer(self.start), BLOCK as usize) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: a block of the pool of this test, which goes with its owner.
        unsafe { dma_pool_free(POOL.load(Acquire), pointer(self.start), self.dma) };
    }
}
