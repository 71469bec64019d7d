//! Coherent memory for rings and headers; and where a device has what was mapped for it.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use arch::translate::{Direction, translate};
use dma::coherent;
use dma::device::Device;
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::layout::linear_physical;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// What a device is, for messages and listings.
pub(crate) trait Kind {
    /// All of this kind: none of them snoops the processor's caches.
    fn device() -> &'static Device;

    /// As many bytes of coherent memory for `buffer`, which the crate brings itself, and none other than these has been shared: asked when
    /// it is shared, and when that ends. `None` for every other buffer.
    fn stand_in(_buffer: NonNull<[u8]>) -> Option<NonNull<[u8]>> {
        None
    }
}

/// Copies what `from` has into `to`, which is as long.
///
/// # Safety
/// Both are valid, and nobody else's meanwhile.
unsafe fn copy(from: NonNull<[u8]>, to: NonNull<[u8]>) {
    // SAFETY: by our caller's promise; a stand-in is no part of the buffer.
    unsafe { to.cast::<u8>().copy_from_nonoverlapping(from.cast(), from.len()) };
}

/// The Hal of devices of one kind. Rings are taken where one may sleep.
///
/// The crate asks for a buffer's address in the midst of a request, where it takes no refusal. So nothing is mapped there: whoever
/// makes a request has mapped its buffers before ([`Mapped`](crate::mapped::Mapped)), or they are coherent memory, and `share`
/// only says where they are. Therefore this Hal is not for the crate's functions that bring buffers of their own, unless there are
/// stand-ins for these ([`Kind::stand_in`]).
#[derive(Debug)]
pub(crate) struct CoherentHal<K>(PhantomData<K>);

// SAFETY: `dma_alloc` gives coherent memory, zeroed, aligned to pages, that nobody else has until `dma_dealloc`; the physical
// address is the device's own view of it. `share` gives the address of the bytes on the bus, at which the device has them: every
// buffer of a queue in this crate lies in one piece there and is mapped for its device, or is coherent memory.
unsafe impl<K: Kind> Hal for CoherentHal<K> {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let none = (0, NonNull::dangling());
        let Some(bytes) = pages.checked_mul(PAGE_SIZE).and_then(|bytes| u32::try_from(bytes).ok())
        else {
            return none;
        };
        let caller = arch::backtrace::return_address();
        match coherent::allocate(K::device(), bytes, Sleep::May, caller) {
            Ok(buffer) => {
                let memory = ptr::with_exposed_provenance_mut(buffer.address.raw() as usize);
                let memory = NonNull::new(memory).unwrap_or(NonNull::dangling());
                (PhysAddr::from(buffer.dma.raw()), memory)
            }
            Err(error) => {
                log::error!("{}: no memory for a ring: {error}", K::device().name());
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
        let (address, dma) = (VirtAddr::new(address), DmaAddr::new(dma));
        // What cannot be freed stays out of use, as is printed; the crate would end the kernel over it.
        // SAFETY: the caller gives back what `dma_alloc` gave; it has told the device to forget it.
        let _printed = unsafe { coherent::free(K::device(), bytes, address, dma) };
        0
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        // Asked for by the PCI transport alone, and this board has no PCI.
        unreachable!("a PCI region on a board without PCI")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let buffer = K::stand_in(buffer).map_or(buffer, |own| {
            // SAFETY: the caller's buffer, of which the device does not know; the stand-in is its own.
            unsafe { copy(buffer, own) };
            own
        });
        let (address, _) = place(buffer);
        // Most buffers are in the linear map, or copied there.
        let physical = linear_physical(address).unwrap_or_else(|| {
            translate(address, Direction::Read).expect("a reference leads to memory")
        });
        PhysAddr::from(K::device().dma_address(physical).raw())
    }

    /// Nothing where there is no stand-in: whoever has mapped the buffer ends that.
    unsafe fn unshare(_paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        if direction != BufferDirection::DriverToDevice
            && let Some(own) = K::stand_in(buffer)
        {
            // SAFETY: the caller's buffer, which may be written; the device is done.
            unsafe { copy(own, buffer) };
        }
    }
}

/// Where a buffer lies: its caller may have it anywhere.
pub(crate) fn place(buffer: NonNull<[u8]>) -> (VirtAddr, u32) {
    let address = u32::try_from(buffer.addr().get()).expect("addresses have 32 bits");
    let bytes = u32::try_from(buffer.len()).expect("a buffer of less than 4 GiB");
    (VirtAddr::new(address), bytes)
}
