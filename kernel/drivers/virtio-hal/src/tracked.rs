//! Buffers that may have to be taken back from a device that has not used them.
//!
//! The queues of `virtio-drivers` end the sharing of a buffer when the device has used it, and not otherwise. A network device
//! has buffers for frames that never came; when it goes, whoever owns them says so here.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::hal::{CoherentHal, place};

/// Buffers that there may be at once, of all devices.
const PLACES: usize = 128;

/// The buffers that devices have: the processor's address in the upper half, the device's in the lower; zero is none.
static HELD: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

/// As [`CoherentHal`], and knows which buffers devices have.
#[derive(Debug)]
pub(crate) struct TrackedHal;

fn key(buffer: NonNull<[u8]>) -> u64 {
    u64::from(place(buffer).0.raw()) << 32
}

/// Notes that a device has `buffer` at `dma`. One that finds no place is only missed when it is never used.
fn note(buffer: NonNull<[u8]>, dma: PhysAddr) {
    let entry = key(buffer) | dma;
    let noted = HELD.iter().any(|held| held.compare_exchange(0, entry, AcqRel, Relaxed).is_ok());
    if !noted {
        log::error!("virtio: more than {PLACES} buffers of network devices at once");
    }
}

/// Where the device has `buffer`, which from now on nobody knows.
fn forget(buffer: NonNull<[u8]>) -> Option<PhysAddr> {
    let key = key(buffer);
    let is_it = |entry: u64| entry != 0 && entry & !u64::from(u32::MAX) == key;
    // Only the owner of the buffer asks for it, so that nobody else takes it meanwhile.
    let held = HELD.iter().find(|held| is_it(held.load(Acquire)))?;
    Some(held.swap(0, AcqRel) & u64::from(u32::MAX))
}

impl TrackedHal {
    /// Takes `buffer` back from a device that has not used it; of a buffer that no device has, nothing.
    ///
    /// # Safety
    /// As for [`Hal::unshare`], and the device was stopped: it will never use the buffer.
    pub(crate) unsafe fn take_back(buffer: NonNull<[u8]>, direction: BufferDirection) {
        if let Some(dma) = forget(buffer) {
            // SAFETY: this is what `share` gave for the buffer, and by our caller's promise the device is done.
            unsafe { CoherentHal::unshare(dma, buffer, direction) };
        }
    }
}

// SAFETY: everything is done by `CoherentHal`, whose argument holds.
unsafe impl Hal for TrackedHal {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        CoherentHal::dma_alloc(pages, direction)
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: our caller's promise is the same.
        unsafe { CoherentHal::dma_dealloc(paddr, vaddr, pages) }
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        // SAFETY: our caller's promise is the same.
        unsafe { CoherentHal::mmio_phys_to_virt(paddr, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: our caller's promise is the same.
        let dma = unsafe { CoherentHal::share(buffer, direction) };
        note(buffer, dma);
        dma
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let _noted = forget(buffer);
        // SAFETY: our caller's promise is the same.
        unsafe { CoherentHal::unshare(paddr, buffer, direction) };
    }
}
