//! The owner of a streaming mapping: ownership by type (S105).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::streaming::{Direction, Outgoing};
use mm::page_alloc::Pages;

use crate::debug;
use crate::device::Device;
use crate::streaming::{self, Call, MapError, Memory, UnmapError};

/// A buffer that a mapping can own.
///
/// # Safety
/// [`Buffer::memory`] is the same memory each time, mapped, readable and writable until the owner is dropped, wherever that is
/// moved; nobody reaches it but through the owner, and an owner that is forgotten leaves it as it is for good.
pub unsafe trait Buffer: 'static {
    /// Its bytes.
    fn memory(&mut self) -> NonNull<[u8]>;
}

// SAFETY: borrowed for good, by the one reference that may write it.
unsafe impl Buffer for &'static mut [u8] {
    fn memory(&mut self) -> NonNull<[u8]> {
        NonNull::from(&mut **self)
    }
}

// SAFETY: the box owns what it points to, which stays where it is when the box is moved or forgotten.
unsafe impl Buffer for Box<[u8]> {
    fn memory(&mut self) -> NonNull<[u8]> {
        NonNull::from(&mut **self)
    }
}

// SAFETY: as for a box; nobody can push, since nobody else has the vector.
unsafe impl Buffer for Vec<u8> {
    fn memory(&mut self) -> NonNull<[u8]> {
        NonNull::from(self.as_mut_slice())
    }
}

// SAFETY: the frames are the owner's, and stay where they are.
unsafe impl Buffer for Pages {
    fn memory(&mut self) -> NonNull<[u8]> {
        NonNull::from(&mut **self)
    }
}

/// A buffer that is a device's, for data that flows as `D` says.
///
/// The processor has no way to its bytes; [`Streaming::unmap`] and [`Streaming::sync_for_cpu`] give one, and are unsafe, because who calls
/// them says that the device is done. Dropped, it keeps the buffer for good, and says so.
#[must_use = "dropped, the buffer stays the device's"]
pub struct Streaming<D: Direction, B: Buffer> {
    device: &'static Device,
    dma: DmaAddr,
    bytes: u32,
    buffer: ManuallyDrop<B>,
    direction: PhantomData<D>,
}

/// A mapping that was not made, and the buffer.
pub struct NotMapped<B> {
    /// Why.
    pub error: MapError,
    /// What was to be mapped.
    pub buffer: B,
}

/// Where `memory` begins, and how long it is.
pub(crate) fn place(memory: NonNull<[u8]>) -> (VirtAddr, u32) {
    let address = u32::try_from(memory.addr().get()).unwrap_or(u32::MAX);
    // No memory has 4 GiB.
    (VirtAddr::new(address), u32::try_from(memory.len()).unwrap_or(u32::MAX))
}

impl<D: Direction, B: Buffer> Streaming<D, B> {
    /// Gives `buffer` to `device`. Any context. What it cannot have in place is copied, and copied back when it is taken.
    ///
    /// # Errors
    /// [`NotMapped`], with the buffer.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn map(device: &'static Device, buffer: B) -> Result<Self, NotMapped<B>> {
        let call = Self::call(device, "Streaming::map", arch::backtrace::return_address());
        let mut buffer = buffer;
        let (address, bytes) = place(buffer.memory());
        // SAFETY: the memory is the buffer's alone, whose owner is in the result, or forgotten with it; nobody reaches it until
        // `unmap` or `sync_for_cpu` has taken it back.
        match unsafe { streaming::map(call, Memory::Anywhere(address), bytes) } {
            Ok(dma) => {
                debug::asked(device, dma);
                let buffer = ManuallyDrop::new(buffer);
                Ok(Self { device, dma, bytes, buffer, direction: PhantomData })
            }
            Err(error) => Err(NotMapped { error, buffer }),
        }
    }

    const fn call<'d>(device: &'d Device, name: &'static str, caller: VirtAddr) -> Call<'d> {
        Call { name, device, flow: D::FLOW, caller, family: debug::OWNED }
    }

    /// Where the device sees it.
    pub const fn dma_address(&self) -> DmaAddr {
        self.dma
    }

    /// Its size in bytes.
    pub const fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Whether it has no bytes; there is no such mapping.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes the buffer back. Any context.
    ///
    /// # Errors
    /// [`UnmapError`], which does not come to pass of a buffer that its owner has mapped: it would stay the device's.
    ///
    /// # Safety
    /// The device is done with it, and will not touch it again.
    #[inline(never)] // as in `map`
    pub unsafe fn unmap(self) -> Result<B, UnmapError> {
        let call = Self::call(self.device, "Streaming::unmap", arch::backtrace::return_address());
        let mut whole = ManuallyDrop::new(self);
        // SAFETY: mapped by `map`, with these bytes and this flow; our caller promises the rest.
        unsafe { streaming::unmap(call, whole.dma, whole.bytes)? };
        // SAFETY: taken once: `whole` is not used again, and its drop does not run.
        Ok(unsafe { ManuallyDrop::take(&mut whole.buffer) })
    }

    /// Takes the bytes back for as long as the result lives; then they are the device's again. Any context.
    ///
    /// # Errors
    /// As for [`Streaming::unmap`].
    ///
    /// # Safety
    /// The device does not touch the buffer until the result is dropped.
    #[inline(never)] // as in `map`
    pub unsafe fn sync_for_cpu(&mut self) -> Result<Synced<'_, D, B>, UnmapError> {
        let caller = arch::backtrace::return_address();
        let call = Self::call(self.device, "Streaming::sync_for_cpu", caller);
        // SAFETY: mapped by `map`, with these bytes and this flow; our caller promises the rest.
        unsafe { streaming::sync_for_cpu(call, self.dma, self.bytes)? };
        let memory = self.buffer.memory();
        Ok(Synced { mapping: self, memory })
    }
}

/// Says that what was mapped for `device` at `dma` is dropped.
pub(crate) fn kept(device: &Device, dma: DmaAddr, bytes: u32) {
    let name = device.name();
    log::error!(
        "DMA: a mapping for {name} of {bytes} bytes at {dma} was dropped: the buffer stays the device's"
    );
}

impl<D: Direction, B: Buffer> Drop for Streaming<D, B> {
    fn drop(&mut self) {
        kept(self.device, self.dma, self.bytes);
    }
}

impl<D: Direction, B: Buffer> fmt::Debug for Streaming<D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming")
            .field("device", &self.device.name())
            .field("dma", &self.dma)
            .field("bytes", &self.bytes)
            .field("flow", &D::FLOW)
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for NotMapped<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotMapped").field("error", &self.error).finish_non_exhaustive()
    }
}

/// The bytes of a mapped buffer, the processor's until this is dropped.
#[must_use = "dropped, the bytes are the device's again"]
pub struct Synced<'m, D: Direction, B: Buffer> {
    mapping: &'m mut Streaming<D, B>,
    memory: NonNull<[u8]>,
}

impl<D: Direction, B: Buffer> fmt::Debug for Synced<'_, D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Synced").field(&self.mapping).finish()
    }
}

impl<D: Direction, B: Buffer> Deref for Synced<'_, D, B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped until the owner is dropped, and nobody else's: whoever took the bytes back promised it for the device.
        unsafe { self.memory.as_ref() }
    }
}

/// Not of what the device only writes: nothing that was written there would reach it.
impl<D: Outgoing, B: Buffer> DerefMut for Synced<'_, D, B> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { self.memory.as_mut() }
    }
}

impl<D: Direction, B: Buffer> Drop for Synced<'_, D, B> {
    fn drop(&mut self) {
        let device = self.mapping.device;
        let caller = arch::backtrace::return_address();
        let call = Streaming::<D, B>::call(device, "Synced::drop", caller);
        let Streaming { dma, bytes, .. } = *self.mapping;
        // SAFETY: `sync_for_cpu` took them back, and the slice that this gave is gone.
        if let Err(error) = unsafe { streaming::sync_for_device(call, dma, bytes) } {
            log::error!("DMA: {} does not get its buffer back: {error}", device.name());
        }
    }
}
