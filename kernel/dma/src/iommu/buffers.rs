//! Coherent buffers that devices see through an IOMMU, and that are not of scattered frames: which, and where (S67, S109).
//!
//! ```text
//!   the pool's run, area, block ──▶ entry here ──▶ device addresses      who frees names both sides, and takes the entry out first
//! ```
//! Their memory is as any other device's, and so are its records: only this says that a free must end a device's view first, and which view
//! is the buffer's own. A device may see the same frames by a mapping for a transfer, too, and that is ended by itself.
//!
//! While a run of the atomic pool is seen so, nothing goes back to that by its short cut, which could not tell it from the others.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use arch::lock::IrqSpinLock;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::lock::Class;

use super::Shared;
use crate::atomic_pool::POOL;
use crate::book::{Book, Leaf};

/// Such a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) address: VirtAddr,
    /// As many as were asked for.
    pub(crate) pages: u32,
    /// Where the domain has its first-level table.
    pub(crate) root: PhysAddr,
    /// Where the device sees it.
    pub(crate) start: DmaAddr,
}

static BUFFERS: IrqSpinLock<Book<Seen>> = IrqSpinLock::new(Class::SeenBuffers, Book::new());

/// How many there are.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Memory for an entry; `None` if the heap has none.
pub(crate) fn prepare(address: VirtAddr, pages: u32, root: PhysAddr) -> Option<Leaf<Seen>> {
    Leaf::new(Seen { address, pages, root, start: DmaAddr::new(0) })
}

/// Notes the buffer of `entry`, which is seen from `start` on.
pub(crate) fn add(mut entry: Leaf<Seen>, start: DmaAddr) {
    entry.value_mut().start = start;
    put(entry);
}

/// Puts back what [`take`] took out.
pub(crate) fn put(entry: Leaf<Seen>) {
    let is_in_pool = is_of_boot(entry.value().address);
    BUFFERS.with(|book| {
        COUNT.fetch_add(1, Relaxed);
        book.add(entry);
        if is_in_pool {
            // No page begins at an odd address.
            POOL.short_cut.store(1, Relaxed);
        }
    });
}

/// Whether the byte at `address` is of the pool's part that was made at boot, which has the short cut.
fn is_of_boot(address: VirtAddr) -> bool {
    POOL.offset_of(address).is_some()
}

/// Takes the entry of the buffer at `address` out, if `judge` allows it: who has it may free the buffer, and nobody else can.
///
/// # Errors
/// What `judge` says; `None` if there is no such buffer.
pub(crate) fn take<E>(
    address: VirtAddr,
    judge: impl FnOnce(&Seen) -> Result<(), E>,
) -> Result<Leaf<Seen>, Option<E>> {
    let is_it = |seen: &Seen| seen.address == address;
    BUFFERS.with(|book| {
        judge(book.iter().find(|seen| is_it(seen)).ok_or(None)?).map_err(Some)?;
        let entry = book.take(is_it).ok_or(None)?;
        COUNT.fetch_sub(1, Relaxed);
        if !book.iter().any(|seen| is_of_boot(seen.address)) {
            POOL.short_cut.store(POOL.buffer_at(0).physical.raw(), Relaxed);
        }
        Ok(entry)
    })
}

/// Whether there is any. Any context.
#[inline(always)]
pub(crate) fn are_any() -> bool {
    COUNT.load(Relaxed) != 0
}

/// The buffer at `address`, if there is one. Any context.
pub(crate) fn at(address: VirtAddr) -> Option<Seen> {
    are_any().then(|| find(|seen| seen.address == address))?
}

/// Whether what a device behind `iommu` sees at `dma` is such a buffer's own view, or inside of its first page. Any context, also under the lock
/// of device addresses.
#[inline(always)]
pub(crate) fn is_view(iommu: &Shared, dma: DmaAddr) -> bool {
    let is_it = |seen: &Seen| {
        let root = iommu.domain().root();
        seen.root == root && seen.start.raw() == dma.raw() & !(PAGE_SIZE - 1)
    };
    are_any() && find(is_it).is_some()
}

#[cold]
#[inline(never)]
fn find(is_it: impl Fn(&Seen) -> bool) -> Option<Seen> {
    BUFFERS.with(|book| book.iter().find(|seen| is_it(seen)).copied())
}
