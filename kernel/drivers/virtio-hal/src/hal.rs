//! Coherent memory for rings; for buffers streaming mappings, unless they are coherent memory themselves.

use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

use dma::coherent;
use dma::debug;
use dma::device::Device;
use dma::in_place;
use dma::streaming::{self, Call, Memory};
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Every virtio-mmio device of the board: none snoops the processor's caches.
static DEVICE: Device = Device::new("virtio-mmio");

/// Buffers that devices have.
static SHARED: AtomicUsize = AtomicUsize::new(0);

/// The Hal over coherent memory and streaming mappings. Used where one may sleep.
#[derive(Debug)]
pub struct CoherentHal;

/// Buffers that devices hold just now; zero when all is quiet.
pub fn shared_buffers() -> usize {
    SHARED.load(Relaxed)
}

// SAFETY: `dma_alloc` gives coherent memory, zeroed, aligned to pages, that nobody else has until `dma_dealloc`; the physical
// address is the device's own view of it. `share` gives the address at which the device has the bytes, or a copy of them, until
// `unshare`; coherent memory it has at that address anyway.
unsafe impl Hal for CoherentHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let none = (0, NonNull::dangling());
        let Some(bytes) = pages.checked_mul(PAGE_SIZE).and_then(|bytes| u32::try_from(bytes).ok())
        else {
            return none;
        };
        let caller = arch::backtrace::return_address();
        match coherent::allocate(&DEVICE, bytes, Sleep::May, caller) {
            Ok(buffer) => {
                let memory = ptr::with_exposed_provenance_mut(buffer.address.raw() as usize);
                let memory = NonNull::new(memory).unwrap_or(NonNull::dangling());
                (PhysAddr::from(buffer.dma.raw()), memory)
            }
            Err(error) => {
                log::error!("virtio: no memory for a ring: {error}");
                none
            }
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        let sizes = (
            u32::try_from(paddr),
            u32::try_from(pages * PAGE_SIZE),
            u32::try_from(vaddr.addr().get()),
        );
        let (Ok(dma), Ok(bytes), Ok(address)) = sizes else { return -1 };
        // SAFETY: the caller gives back what `dma_alloc` gave; it has told the device to forget it.
        let freed =
            unsafe { coherent::free(&DEVICE, bytes, VirtAddr::new(address), DmaAddr::new(dma)) };
        match freed {
            Ok(()) => 0,
            Err(_printed) => -1,
        }
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        // Asked for by the PCI transport alone, and this board has no PCI.
        unreachable!("a PCI region on a board without PCI")
    }

    /// # Panics
    /// If it cannot be mapped, for want of bounce buffers: the trait has no way to say so.
    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let (address, bytes) = place(buffer);
        if let Some(dma) = in_place::seen_at(&DEVICE, address, bytes) {
            SHARED.fetch_add(1, Relaxed);
            return PhysAddr::from(dma.raw());
        }
        let (call, memory) = (call("virtio share", direction), Memory::Anywhere(address));
        // SAFETY: the caller promises that the buffer is valid, and that nobody uses it while it is shared.
        let mapped = unsafe { streaming::map(call, memory, bytes) };
        let dma = mapped.unwrap_or_else(|error| panic!("{}: {error}", DEVICE.name()));
        debug::asked(&DEVICE, dma);
        SHARED.fetch_add(1, Relaxed);
        PhysAddr::from(dma.raw())
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let (address, bytes) = place(buffer);
        if in_place::seen_at(&DEVICE, address, bytes).is_some() {
            SHARED.fetch_sub(1, Relaxed);
            return;
        }
        let Ok(dma) = u32::try_from(paddr) else {
            log::error!("virtio: {paddr:#x} was never shared");
            return;
        };
        // SAFETY: the caller gives back what `share` gave, for the same buffer and direction, and the device is done.
        let unmapped = unsafe {
            streaming::unmap(call("virtio unshare", direction), DmaAddr::new(dma), bytes)
        };
        match unmapped {
            Ok(()) => drop(SHARED.fetch_sub(1, Relaxed)),
            Err(error) => log::error!("virtio: {paddr:#x} is not unshared: {error}"),
        }
    }
}

/// Where a buffer lies: its caller may have it anywhere.
pub(crate) fn place(buffer: NonNull<[u8]>) -> (VirtAddr, u32) {
    let address = u32::try_from(buffer.addr().get()).expect("addresses have 32 bits");
    let bytes = u32::try_from(buffer.len()).expect("a buffer of less than 4 GiB");
    (VirtAddr::new(address), bytes)
}

fn call(name: &'static str, direction: BufferDirection) -> Call<'static> {
    let flow = match direction {
        BufferDirection::DriverToDevice => Flow::ToDevice,
        BufferDirection::DeviceToDriver => Flow::FromDevice,
        BufferDirection::Both => Flow::Bidirectional,
    };
    let caller = arch::backtrace::return_address();
    Call { name, device: &DEVICE, flow, caller, family: Family::Single }
}
