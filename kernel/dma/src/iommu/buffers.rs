//! Coherent buffers that devices see through an IOMMU, and that are not of scattered frames: which, and where (S67, S109).
//!
//! ```text
//!   the pool's run, area, block ──▶ entry here ──▶ device addresses
//!   free: claim the entry, by both sides' addresses ──▶ the processor's view ends ──▶ the device's, and the entry names none
//!         ──▶ no entry ──▶ memory
//! ```
//! Their memory is as any other device's, and so are its records: only this says that a free must end a device's view first, and which view
//! is the buffer's own. A device may see the same frames by a mapping for a transfer, too, and that is ended by itself.
//!
//! While a run of the atomic pool is seen so, nothing goes back to that by its short cut, which could not tell it from the others. Where a domain
//! ends with buffers left, nobody sees them any more, and they are as any other.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use arch::lock::IrqSpinLock;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::layout::linear_physical;
use kerncore::lock::Class;

use super::Shared;
use crate::atomic_pool::POOL;
use crate::book::{Book, Leaf};

/// Such a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) address: VirtAddr,
    /// Where it lies on the bus.
    pub(crate) physical: PhysAddr,
    /// As many as were asked for.
    pub(crate) pages: u32,
    /// Where the domain has its first-level table.
    pub(crate) root: PhysAddr,
    /// Where the device sees it, or [`NOWHERE`].
    pub(crate) start: DmaAddr,
    /// Somebody is freeing it; or did, and it stays out of use.
    is_going: bool,
}

/// The start of what is seen no more: of no page.
const NOWHERE: DmaAddr = DmaAddr::new(1);

static BUFFERS: IrqSpinLock<Book<Seen>> = IrqSpinLock::new(Class::SeenBuffers, Book::new());

/// How many there are.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// How many of them are blocks at linear addresses: of the owner, and of the type, of what is mapped for a transfer.
static BLOCKS: AtomicU32 = AtomicU32::new(0);

/// Memory for an entry; `None` if the heap has none.
pub(crate) fn prepare(
    (address, physical): (VirtAddr, PhysAddr),
    pages: u32,
    root: PhysAddr,
) -> Option<Leaf<Seen>> {
    Leaf::new(Seen { address, physical, pages, root, start: DmaAddr::new(0), is_going: false })
}

/// Notes the buffer of `entry`, which is seen from `start` on.
pub(crate) fn add(mut entry: Leaf<Seen>, start: DmaAddr) {
    let seen = entry.value_mut();
    seen.start = start;
    let (is_in_pool, is_block) = (is_of_boot(seen.address), is_linear(seen));
    BUFFERS.with(|book| {
        COUNT.fetch_add(1, Relaxed);
        BLOCKS.fetch_add(is_block.into(), Relaxed);
        book.add(entry);
        if is_in_pool {
            // No handle of a buffer is odd.
            POOL.short_cut.store(1, Relaxed);
        }
    });
}

/// Whether the byte at `address` is of the pool's part that was made at boot, which has the short cut.
fn is_of_boot(address: VirtAddr) -> bool {
    POOL.offset_of(address).is_some()
}

/// Whether it lies at its linear address.
fn is_linear(seen: &Seen) -> bool {
    linear_physical(seen.address).is_some()
}

/// Claims the buffer at `address`, if `judge` allows it: who has that may free it, and nobody else can, until he has said [`gone`] or
/// [`stays`].
///
/// # Errors
/// What `judge` says; `None` if there is no such buffer, or somebody is freeing it.
pub(crate) fn claim<E>(
    address: VirtAddr,
    judge: impl FnOnce(&Seen) -> Result<(), E>,
) -> Result<Seen, Option<E>> {
    BUFFERS.with(|book| {
        let mut judge = Some(judge);
        let claimed = book.find(|seen| {
            if seen.address != address || seen.is_going {
                return None;
            }
            let judged = judge.take()?(seen);
            seen.is_going = judged.is_ok();
            Some(judged.map(|()| *seen))
        });
        claimed.ok_or(None)?.map_err(Some)
    })
}

/// The buffer that was claimed at `address` is not freed.
pub(crate) fn stays(address: VirtAddr) {
    BUFFERS.with(|book| {
        book.find(|seen| (seen.address == address).then(|| seen.is_going = false));
    });
}

/// The device's view of the buffer that was claimed at `address` has ended; its addresses are about to be free. Under the lock of device
/// addresses, so that nobody has them while the entry still names them.
pub(super) fn unseen(address: VirtAddr) {
    BUFFERS.with(|book| {
        book.find(|seen| (seen.address == address && seen.is_going).then(|| seen.start = NOWHERE));
    });
}

/// The buffer that was claimed at `address` is seen by no device any more; its memory is not free yet.
pub(crate) fn gone(address: VirtAddr) {
    drop(take(|seen| seen.address == address && seen.is_going));
}

/// The domain at `root` ends: nobody sees its buffers any more.
pub(super) fn forget(root: PhysAddr) {
    while are_any() && take(|seen| seen.root == root).is_some() {}
}

fn take(is_it: impl Fn(&Seen) -> bool) -> Option<Leaf<Seen>> {
    BUFFERS.with(|book| {
        let entry = book.take(is_it)?;
        COUNT.fetch_sub(1, Relaxed);
        BLOCKS.fetch_sub(is_linear(entry.value()).into(), Relaxed);
        if !book.iter().any(|seen| is_of_boot(seen.address)) {
            POOL.short_cut.store(POOL.buffer_at(0).physical.raw(), Relaxed);
        }
        Some(entry)
    })
}

/// Whether there is any. Any context.
#[inline(always)]
pub(crate) fn are_any() -> bool {
    COUNT.load(Relaxed) != 0
}

/// How many buffers somebody has freed that stay out of use, since foreign entries still show them to devices of the domain at `root`.
pub(super) fn out_of_use(root: PhysAddr) -> usize {
    if !are_any() {
        return 0;
    }
    BUFFERS.with(|book| book.iter().filter(|seen| seen.root == root && seen.is_going).count())
}

/// The domain at whose root the buffer at `address` is seen, if there is one, and nobody has freed it.
pub(super) fn root_of(address: VirtAddr) -> Option<PhysAddr> {
    at(address).filter(|seen| !seen.is_going).map(|seen| seen.root)
}

/// The buffer at `address`, if there is one that is seen. Any context.
pub(crate) fn at(address: VirtAddr) -> Option<Seen> {
    are_any().then(|| find(|seen| seen.address == address && seen.start != NOWHERE))?
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

/// The same of a view whose frames are such as are mapped for transfers.
#[inline(always)]
pub(crate) fn is_view_of_block(iommu: &Shared, dma: DmaAddr) -> bool {
    BLOCKS.load(Relaxed) != 0 && is_view(iommu, dma)
}

#[cold]
#[inline(never)]
fn find(is_it: impl Fn(&Seen) -> bool) -> Option<Seen> {
    BUFFERS.with(|book| book.iter().find(|seen| is_it(seen)).copied())
}
