//! A buffer that a device has for one request.
//!
//! ```text
//!   the buffer       new may refuse          the request: share knows the address        end
//!   anywhere    ──▶  coherent: as it is ──▶  its own bytes                          ──▶  nothing to do
//!                    linear: in place   ──▶  its own bytes                          ──▶  unmapped
//!                    else: a copy       ──▶  the copy's bytes, in bounce buffers    ──▶  copied back
//! ```

use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

use dma::debug;
use dma::device::Device;
use dma::in_place;
use dma::streaming::{self, Call, Memory};
use kerncore::addr::DmaAddr;
use kerncore::layout::linear_address;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;
use virtio_drivers::Error;

use crate::error::RequestError;
use crate::hal::place;

/// Buffers that devices have.
static SHARED: AtomicUsize = AtomicUsize::new(0);

/// Buffers that devices have just now; zero when all is quiet.
pub fn shared_buffers() -> usize {
    SHARED.load(Relaxed)
}

/// A buffer that is mapped for a device; or coherent memory, which it has anyway.
#[derive(Debug)]
#[must_use = "it stays mapped until it is ended"]
pub struct Mapped {
    device: &'static Device,
    flow: Flow,
    dma: DmaAddr,
    /// What the device has: the buffer's own bytes, or those of its copy.
    bytes: NonNull<[u8]>,
    is_coherent: bool,
}

impl Mapped {
    /// Maps `buffer`, which may lie anywhere, for `device`, which does not snoop and is not behind an IOMMU. Any context.
    ///
    /// # Errors
    /// [`RequestError::Buffer`], if there is no room for a copy, say; nothing was taken.
    ///
    /// # Safety
    /// The buffer is valid until [`Mapped::end`], and nobody uses it meanwhile but through [`Mapped::bytes`]; what the device only
    /// reads may be read.
    pub unsafe fn new(
        device: &'static Device,
        buffer: NonNull<[u8]>,
        flow: Flow,
    ) -> Result<Self, RequestError> {
        let (address, bytes) = place(buffer);
        let seen = in_place::seen_at(device, address, bytes);
        let mapped = if let Some(dma) = seen {
            Self { device, flow, dma, bytes: buffer, is_coherent: true }
        } else {
            let call = call("virtio map", device, flow);
            // SAFETY: our caller's promise is the same.
            let dma = unsafe { streaming::map(call, Memory::Anywhere(address), bytes) }
                .map_err(|error| RequestError::Buffer { device: device.name(), bytes, error })?;
            debug::asked(device, dma);
            // What is in one piece on the bus is linear: the buffer itself, or its copy.
            let linear = linear_address(device.physical_address(dma)).unwrap_or(address);
            let bytes = if linear == address { buffer } else { copy_at(linear.raw(), buffer) };
            Self { device, flow, dma, bytes, is_coherent: false }
        };
        SHARED.fetch_add(1, Relaxed);
        Ok(mapped)
    }

    /// The bytes that the device has. There may be references to them while it does not know of them, or is done.
    pub const fn bytes(&self) -> NonNull<[u8]> {
        self.bytes
    }

    /// Where the device has them.
    pub const fn dma_address(&self) -> DmaAddr {
        self.dma
    }

    /// Keeps what was mapped for a request that was made, by `token`; ends it if the request was refused.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn given(self, added: Result<u16, Error>) -> Result<(Self, u16), RequestError> {
        match added {
            Ok(token) => Ok((self, token)),
            Err(error) => {
                // SAFETY: no device knows of the bytes.
                unsafe { self.end() }?;
                Err(RequestError::Device(error))
            }
        }
    }

    /// Ends the mapping: the buffer then holds what the device wrote. Any context.
    ///
    /// # Errors
    /// [`RequestError::Back`]: the device is done, but what it wrote is not there, and the buffer might still be listed as its own. Whoever
    /// has that gives it to nobody any more, a device or the heap.
    ///
    /// # Safety
    /// The device is done with the buffer, or never knew of it.
    pub unsafe fn end(self) -> Result<(), RequestError> {
        let Self { device, flow, dma, .. } = self;
        let (_, bytes) = place(self.bytes);
        // Whatever comes of it, the device does not have it any more.
        SHARED.fetch_sub(1, Relaxed);
        if !self.is_coherent {
            // SAFETY: `new` mapped it there, so, and by our caller's promise the device is done.
            unsafe { streaming::unmap(call("virtio unmap", device, flow), dma, bytes) }
                .map_err(|error| RequestError::Back { device: device.name(), dma, bytes, error })?;
        }
        Ok(())
    }
}

// SAFETY: the pointer leads to memory that is this mapping's wherever it goes, and gives nobody access without `unsafe`.
unsafe impl Send for Mapped {}

fn call(name: &'static str, device: &'static Device, flow: Flow) -> Call<'static> {
    let caller = arch::backtrace::return_address();
    Call { name, device, flow, caller, family: Family::Single }
}

/// As many bytes as `buffer` has, at the linear address of its copy.
fn copy_at(linear: u32, buffer: NonNull<[u8]>) -> NonNull<[u8]> {
    let start = NonNull::new(ptr::with_exposed_provenance_mut(linear as usize));
    NonNull::slice_from_raw_parts(start.unwrap_or(buffer.cast()), buffer.len())
}
