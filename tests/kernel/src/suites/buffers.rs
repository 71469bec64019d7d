//! What the suites of coherent memory share: buffers given back, all that the contiguous region has, and the pages of the atomic pool,
//! taken one by one while somebody, or nobody, has time to make that grow.

extern crate alloc;

use alloc::vec::Vec;

use arch::cpu;
use dma::atomic_pool;
use dma::coherent::{self, AllocateError, Buffer, allocate, free};
use dma::device::Device;
use dma::pool_growth::{Growth, grown, set_growth};
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::holder::Moment;
use kerncore::user::ShowError;
use ktest::Completion::{self, Skipped};
use mm::user::AddressSpace;

use super::witness::NOBODY;

/// Whose the buffers are that are taken here.
pub(super) static DEVICE: Device = Device::new("a thirsty device");

pub(super) const NO_REGION: Completion = Skipped("no contiguous region in this boot");
pub(super) const NO_POOL: Completion = Skipped("no atomic pool of 16 pages or more in this boot");

/// Gives back a buffer of the test's, which has no reference to its memory.
#[track_caller]
pub(super) fn give(device: &Device, bytes: u32, buffer: Buffer) {
    // SAFETY: as above.
    let freed = unsafe { free(device, bytes, buffer.address, buffer.dma) };
    assert_eq!(freed, Ok(()), "{bytes} bytes at {}", buffer.address);
}

/// Takes all of the contiguous region that can be had, in buffers of ever smaller sizes, and says why there is no page more.
pub(super) fn take_region() -> (Vec<(Buffer, u32)>, AllocateError) {
    let mut buffers = Vec::with_capacity(8192);
    for order in (0..=8).rev() {
        let bytes = PAGE_SIZE << order;
        while let Ok(buffer) = allocate(&DEVICE, bytes, Sleep::May, NOBODY) {
            buffers.push((buffer, bytes));
        }
    }
    (buffers, allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect_err("there was no more"))
}

#[track_caller]
pub(super) fn give_all(buffers: impl IntoIterator<Item = (Buffer, u32)>) {
    for (buffer, bytes) in buffers {
        give(&DEVICE, bytes, buffer);
    }
}

/// Somebody has time for the atomic pool while this lives.
pub(super) struct InBackground;

impl InBackground {
    pub(super) fn begin(patience: Moment) -> Self {
        set_growth(Growth::InBackground { patience });
        Self
    }
}

impl Drop for InBackground {
    fn drop(&mut self) {
        set_growth(Growth::WhenAsked);
    }
}

/// Pages of the atomic pool, if it has a few; all are free.
#[track_caller]
pub(super) fn pool_pages() -> Option<u32> {
    let pool = atomic_pool::usage().filter(|pool| pool.pages >= 16)?;
    assert_eq!((pool.taken, grown()), (0, (0, 0)), "a test before this one kept something");
    Some(pool.pages)
}

pub(super) fn one_page() -> Option<Buffer> {
    allocate(&DEVICE, PAGE_SIZE, Sleep::MayNot, NOBODY).ok()
}

/// So many single pages, which there are.
#[track_caller]
pub(super) fn take_pages(count: u32) -> Vec<Buffer> {
    let taken: Vec<Buffer> = (0..count).filter_map(|_| one_page()).collect();
    assert_eq!(taken.len(), count as usize);
    taken
}

#[track_caller]
pub(super) fn give_pages(buffers: impl IntoIterator<Item = Buffer>) {
    for buffer in buffers {
        give(&DEVICE, PAGE_SIZE, buffer);
    }
}

/// Polls, never asleep, with a bound of some seconds.
pub(super) fn comes(mut condition: impl FnMut() -> bool) -> bool {
    (0..2_000_000_u32).any(|_| {
        cpu::relax();
        condition()
    })
}

/// [`coherent::show`] of a buffer that a test reaches by pointers alone.
pub(super) fn show(
    device: &Device,
    space: &AddressSpace,
    start: VirtAddr,
    buffer: (Buffer, u32),
    offset: u32,
) -> Result<(), ShowError> {
    // SAFETY: no test has a reference to the bytes of a buffer that it has by its address.
    unsafe { coherent::show(device, space, start, buffer, offset) }
}
