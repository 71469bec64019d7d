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
//! Who knows a buffer by its address finds it here; who knows it by a device's address, among the domain's [`Views`].
//!
//! While a run of the atomic pool is seen so, nothing goes back to that by its short cut, which could not tell it from the others. Where a domain
//! ends with buffers left, nobody sees them any more, and they are as any other.

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use arch::lock::IrqSpinLock;
use kerncore::addr::{DmaAddr, PAGE_SHIFT, PhysAddr, VirtAddr};
use kerncore::layout::linear_physical;
use kerncore::lock::Class;

use super::Shared;
use crate::atomic_pool::POOL;
use crate::index::{Index, Slip};

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

/// All of them by their addresses, and how many are of the pool's part that was made at boot.
static BUFFERS: IrqSpinLock<(Index<Seen>, u32)> =
    IrqSpinLock::new(Class::SeenBuffers, (Index::new(), 0));

/// How many there are.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A device's own view of such a buffer.
#[derive(Debug)]
struct View {
    address: VirtAddr,
    /// Its frames are such as are mapped for transfers: of their owner, and of their type.
    is_block: bool,
}

/// The views of a domain's devices, by the page that they begin with.
pub(super) struct Views {
    by_page: IrqSpinLock<Index<View>>,
    count: AtomicU32,
    /// How many of them are of blocks at linear addresses.
    blocks: AtomicU32,
}

impl Views {
    pub(super) const fn new() -> Self {
        let by_page = IrqSpinLock::new(Class::SeenBuffers, Index::new());
        Self { by_page, count: AtomicU32::new(0), blocks: AtomicU32::new(0) }
    }

    fn add(&self, page: u32, view: Slip<View>) {
        self.count.fetch_add(1, Relaxed);
        self.blocks.fetch_add(view.value().is_block.into(), Relaxed);
        self.by_page.with(|views| views.add(page, view));
    }

    fn take(&self, page: u32, address: VirtAddr) -> Option<Slip<View>> {
        let view = self.by_page.with(|views| views.take(page, |view| view.address == address))?;
        self.count.fetch_sub(1, Relaxed);
        self.blocks.fetch_sub(view.value().is_block.into(), Relaxed);
        Some(view)
    }

    #[cold]
    #[inline(never)]
    fn has(&self, page: u32) -> bool {
        self.by_page.with(|views| views.at(page).is_some())
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Memory for what is noted of a buffer.
pub(crate) struct Entry(Slip<Seen>, Slip<View>);

/// Memory for an entry; `None` if the heap has none.
pub(crate) fn prepare(
    (address, physical): (VirtAddr, PhysAddr),
    pages: u32,
    root: PhysAddr,
) -> Option<Entry> {
    let start = DmaAddr::new(0);
    let seen = Slip::new(Seen { address, physical, pages, root, start, is_going: false })?;
    let view = Slip::new(View { address, is_block: linear_physical(address).is_some() })?;
    Some(Entry(seen, view))
}

/// Notes the buffer of `entry`, which devices behind `iommu` see from `start` on.
pub(crate) fn add(iommu: &Shared, Entry(mut seen, view): Entry, start: DmaAddr) {
    seen.value_mut().start = start;
    let address = seen.value().address;
    iommu.views.add(start.raw() >> PAGE_SHIFT, view);
    BUFFERS.with(|(buffers, of_boot)| {
        COUNT.fetch_add(1, Relaxed);
        buffers.add(address.raw(), seen);
        if is_of_boot(address) {
            *of_boot += 1;
            // No handle of a buffer is odd.
            POOL.short_cut.store(1, Relaxed);
        }
    });
}

/// Whether the byte at `address` is of the pool's part that was made at boot, which has the short cut.
fn is_of_boot(address: VirtAddr) -> bool {
    POOL.offset_of(address).is_some()
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
    let claimed = BUFFERS.with(|(buffers, _)| {
        buffers.change(address.raw(), |seen| {
            if seen.is_going {
                return Err(None);
            }
            judge(seen).map_err(Some)?;
            seen.is_going = true;
            Ok(*seen)
        })
    });
    claimed.unwrap_or(Err(None))
}

/// The buffer that was claimed at `address` is not freed.
pub(crate) fn stays(address: VirtAddr) {
    BUFFERS.with(|(buffers, _)| buffers.change(address.raw(), |seen| seen.is_going = false));
}

/// What is left of the note of a view that has ended: memory, to be dropped where one may free some.
pub(crate) struct Unseen(
    #[expect(dead_code, reason = "it is held until it is dropped")] Option<Slip<View>>,
);

/// The device's view of the buffer that was claimed at `address` has ended; its addresses are about to be free. Under the lock of device
/// addresses, so that nobody has them while the entry still names them.
pub(super) fn unseen(iommu: &Shared, address: VirtAddr) -> Unseen {
    let start = BUFFERS.with(|(buffers, _)| {
        buffers.change(address.raw(), |seen| core::mem::replace(&mut seen.start, NOWHERE))
    });
    Unseen(start.and_then(|start| iommu.views.take(start.raw() >> PAGE_SHIFT, address)))
}

/// The buffer that was claimed at `address` is seen by no device any more, not by those behind `iommu` either; its memory is not free yet.
pub(crate) fn gone(iommu: &Shared, address: VirtAddr) {
    let Some(seen) = take(address, |seen| seen.is_going) else { return };
    let start = seen.value().start;
    if start != NOWHERE {
        drop(iommu.views.take(start.raw() >> PAGE_SHIFT, address));
    }
}

/// The domain at `root` ends, and its views with it: nobody sees its buffers any more.
pub(super) fn forget(root: PhysAddr) {
    let mut from = 0;
    while are_any() {
        let next = BUFFERS.with(|(buffers, _)| {
            let found = buffers.iter_from(from).find(|(_, seen)| seen.root == root);
            found.map(|(_, seen)| seen.address)
        });
        let Some(address) = next else { return };
        drop(take(address, |seen| seen.root == root));
        from = address.raw();
    }
}

fn take(address: VirtAddr, is_it: impl FnOnce(&Seen) -> bool) -> Option<Slip<Seen>> {
    BUFFERS.with(|(buffers, of_boot)| {
        let entry = buffers.take(address.raw(), is_it)?;
        COUNT.fetch_sub(1, Relaxed);
        if is_of_boot(address) {
            *of_boot -= 1;
            if *of_boot == 0 {
                POOL.short_cut.store(POOL.buffer_at(0).physical.raw(), Relaxed);
            }
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
    BUFFERS.with(|(buffers, _)| {
        let all = buffers.iter_from(0).map(|(_, seen)| seen);
        all.filter(|seen| seen.root == root && seen.is_going).count()
    })
}

/// The domain at whose root the buffer at `address` is seen, if there is one, and nobody has freed it.
pub(super) fn root_of(address: VirtAddr) -> Option<PhysAddr> {
    at(address).filter(|seen| !seen.is_going).map(|seen| seen.root)
}

/// The buffer at `address`, if there is one that is seen. Any context.
pub(crate) fn at(address: VirtAddr) -> Option<Seen> {
    let found = are_any().then(|| BUFFERS.with(|(buffers, _)| buffers.at(address.raw()).copied()));
    found?.filter(|seen| seen.start != NOWHERE)
}

/// Whether what a device behind `iommu` sees at `dma` is such a buffer's own view, or inside of its first page. Any context, also under the lock
/// of device addresses.
#[inline(always)]
pub(crate) fn is_view(iommu: &Shared, dma: DmaAddr) -> bool {
    iommu.views.count.load(Relaxed) != 0 && iommu.views.has(dma.raw() >> PAGE_SHIFT)
}

/// The same, for whoever knows that the frames are such as are mapped for transfers.
#[inline(always)]
pub(crate) fn is_view_of_block(iommu: &Shared, dma: DmaAddr) -> bool {
    iommu.views.blocks.load(Relaxed) != 0 && iommu.views.has(dma.raw() >> PAGE_SHIFT)
}
