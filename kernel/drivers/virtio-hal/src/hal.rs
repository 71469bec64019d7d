//! Coherent memory for rings, copies for buffers.

use core::ptr::{self, NonNull};

use arch::lock::IrqSpinLock;
use dma::coherent::{self, Coherent, CoherentBox};
use dma::device::Device;
use heapless::Vec;
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::lock::Class;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Every virtio-mmio device of the board: none snoops the processor's caches.
static DEVICE: Device = Device::new("virtio-mmio");

/// The most buffers that may be lent at once: as many as a queue of the crate has descriptors.
const SHARES: usize = 16;

/// The coherent copies of the buffers that are lent.
static SHARED: IrqSpinLock<Vec<Coherent, SHARES>> =
    IrqSpinLock::new(Class::LentBuffers, Vec::new());

/// The Hal over coherent memory. Used where one may sleep.
#[derive(Debug)]
pub struct CoherentHal;

/// Buffers that devices hold just now; zero when all is quiet.
pub fn shared_buffers() -> usize {
    SHARED.with(|shared| shared.len())
}

// SAFETY: `dma_alloc` gives coherent memory, zeroed, aligned to pages, that nobody else has until `dma_dealloc`; the physical
// address is the device's own view of it. `share` gives the address of a buffer that holds the bytes and outlives
// the request.
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
    /// If there is no memory: the trait has no way to say so.
    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let bytes = u32::try_from(buffer.len()).expect("a buffer of less than 4 GiB");
        let copy = CoherentBox::new(&DEVICE, bytes).expect("coherent memory for a request");
        let mut copy = copy.share();
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the caller promises that the buffer is valid, and that nobody writes it while it is lent.
            copy.write(unsafe { buffer.as_ref() });
        }
        let address = copy.dma_address();
        let kept = SHARED.with(|shared| shared.push(copy));
        assert!(kept.is_ok(), "more than {SHARES} buffers are lent");
        PhysAddr::from(address.raw())
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let copy = SHARED.with(|shared| {
            let of_address = |copy: &Coherent| PhysAddr::from(copy.dma_address().raw()) == paddr;
            shared.iter().position(of_address).map(|index| shared.swap_remove(index))
        });
        let Some(copy) = copy else {
            log::error!("virtio: {paddr:#x} was never lent");
            return;
        };
        if direction != BufferDirection::DriverToDevice {
            // The caller has read in the ring that the device is done. Its own barrier orders processors only, the device
            // is an observer beyond them (ARM DDI 0406C, A3.8.3).
            arch::barrier::dmb();
            // SAFETY: the caller promises that the buffer is valid and that nobody uses it before this returns.
            copy.read(unsafe { buffer.as_mut() });
        }
    }
}
