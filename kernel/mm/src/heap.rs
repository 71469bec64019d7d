//! The global allocator: `linked_list_allocator` in a region of its own.
//!
//! ```text
//!   HEAP_START                    top                                   HEAP_END
//!   ┌──────────────────────────────┬──────────────────────────────────────┐
//!   │ mapped, managed by the crate │ addresses without frames: grows up   │
//!   └──────────────────────────────┴──────────────────────────────────────┘
//! ```
//!
//! The crate's heap can grow at its top only, hence the region. Frames put there stay: the heap never shrinks.
//! Memory management itself does not use it; it is for what allocates rarely.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use arch::failure;
use arch::lock::{IrqSpinLock, memory_goes};
use kerncore::addr::{PAGE_SIZE, VirtAddr, pages_for};
use kerncore::failure::Point;
use kerncore::frames::FrameOwner;
use kerncore::layout::{HEAP_END, HEAP_START};
use kerncore::lock::Class;
use kerncore::owned_range::OwnedRange;
use linked_list_allocator::Heap;

/// Grow by at least this much, so that small requests do not map page by page.
const GROWTH_PAGES: u32 = 16;

/// The largest alignment that can be had. Rounding an address of the region up to this one cannot pass the end of the
/// address space, which the crate does not look out for.
const ALIGNMENT_AT_MOST: usize = ((HEAP_END.raw() - HEAP_START.raw()) / 2) as usize;
const _: () = assert!(HEAP_END.raw().is_multiple_of(HEAP_END.raw() - HEAP_START.raw()));

#[global_allocator]
static HEAP: KernelHeap = KernelHeap::new();

/// The heap and its region, behind one lock, which is outside all locks of `KernelSpace`.
struct KernelHeap(IrqSpinLock<Region>);

struct Region {
    heap: Heap,
    addresses: Option<OwnedRange>,
    mapped: u32,
}

/// How much the heap has and how much of it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapUse {
    /// Bytes lent.
    pub used: usize,
    /// Pages mapped.
    pub pages: u32,
}

/// Gives the heap its addresses, once, at boot.
pub(crate) fn init(addresses: OwnedRange) {
    HEAP.0.with(|region| region.addresses = Some(addresses));
}

/// How much of the heap is in use.
pub fn usage() -> HeapUse {
    HEAP.0.with(|region| HeapUse { used: region.heap.used(), pages: region.mapped })
}

impl KernelHeap {
    const fn new() -> Self {
        let nothing = Region { heap: Heap::empty(), addresses: None, mapped: 0 };
        Self(IrqSpinLock::new(Class::Heap, nothing))
    }
}

impl Region {
    /// Maps enough pages at the top for `layout`; `None` if that cannot be had.
    fn grow(&mut self, layout: Layout) -> Option<()> {
        let addresses = self.addresses.as_mut()?;
        // Alignment may cost as much again, and the crate keeps a few words of its own.
        let wanted = layout.size().checked_add(layout.align())?.checked_add(64)?;
        let pages = pages_for(u32::try_from(wanted).ok()?);
        let left = addresses.count() - self.mapped;
        let growth = if left >= GROWTH_PAGES { pages.max(GROWTH_PAGES) } else { pages };
        let kernel = crate::try_kernel()?;
        let first_try = kernel.extend(addresses, self.mapped, growth, FrameOwner::Heap);
        let grown = match first_try {
            Ok(()) => growth,
            Err(_) if growth > pages => {
                kernel.extend(addresses, self.mapped, pages, FrameOwner::Heap).ok()?;
                pages
            }
            Err(_) => return None,
        };
        let bytes = (grown * PAGE_SIZE) as usize;
        if self.mapped == 0 {
            let start = ptr::with_exposed_provenance_mut(HEAP_START.raw() as usize);
            // SAFETY: the first `grown` pages of the region were mapped just now, writable, and the region belongs to
            // this heap alone and for good.
            unsafe { self.heap.init(start, bytes) };
        } else {
            // SAFETY: `grown` pages were mapped just now exactly at the heap's top, which always is the end of the
            // mapped part of the region.
            unsafe { self.heap.extend(bytes) };
        }
        self.mapped += grown;
        Some(())
    }
}

// SAFETY: memory comes from `linked_list_allocator`, which keeps the trait's promises for the region that it was given
// and that nothing else uses; the lock makes each call exclusive and masks interrupts, so that handlers may allocate.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNMENT_AT_MOST || failure::fails(Point::Heap) {
            return ptr::null_mut();
        }
        self.0.with(|region| {
            let memory = region.heap.allocate_first_fit(layout).or_else(|()| {
                region.grow(layout).ok_or(())?;
                region.heap.allocate_first_fit(layout)
            });
            memory.map_or(ptr::null_mut(), NonNull::as_ptr)
        })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            let named =
                || u32::try_from(memory.addr().get()).ok().zip(layout.size().try_into().ok());
            memory_goes(|| named().map(|(start, bytes)| (VirtAddr::new(start), bytes)));
            // SAFETY: the caller promises that `memory` came from `alloc` with this layout.
            self.0.with(|region| unsafe { region.heap.deallocate(memory, layout) });
        }
    }
}
