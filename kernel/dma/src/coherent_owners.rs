//! The owners of coherent buffers: the processor's alone, or a device's, too.

use core::ops::{Deref, DerefMut};
use core::ptr;
use core::slice;

use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::user::ShowError;
use mm::user::AddressSpace;

use crate::coherent::{Buffer, allocate, free, show};
use crate::device::Device;
use crate::error::AllocateError;

/// The memory of a buffer, as the processor reaches it.
fn memory(buffer: Buffer, bytes: u32) -> (*mut u8, usize) {
    let start = ptr::with_exposed_provenance_mut(buffer.address.raw() as usize);
    (start, bytes as usize)
}

/// A coherent buffer that no device uses yet, or any more.
#[derive(Debug)]
pub struct CoherentBox {
    device: &'static Device,
    buffer: Buffer,
    bytes: u32,
}

impl CoherentBox {
    /// A zeroed buffer of `bytes` for `device`. Where one may sleep.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn new(device: &'static Device, bytes: u32) -> Result<Self, AllocateError> {
        let caller = arch::backtrace::return_address();
        let buffer = allocate(device, bytes, Sleep::May, caller)?;
        Ok(Self { device, buffer, bytes })
    }

    /// A buffer of `bytes` for `device`, with whatever it held before. Any context.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    #[inline(never)] // as in `new`
    pub fn new_atomic(device: &'static Device, bytes: u32) -> Result<Self, AllocateError> {
        let caller = arch::backtrace::return_address();
        let buffer = allocate(device, bytes, Sleep::MayNot, caller)?;
        Ok(Self { device, buffer, bytes })
    }

    /// Where the device will see it.
    pub const fn dma_address(&self) -> DmaAddr {
        self.buffer.dma
    }

    /// Where the processor sees it.
    pub const fn address(&self) -> VirtAddr {
        self.buffer.address
    }

    /// Hands the buffer to the device.
    pub const fn share(self) -> Coherent {
        Coherent(self)
    }
}

impl Deref for CoherentBox {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = memory(self.buffer, self.bytes);
        // SAFETY: the buffer is mapped, readable and writable, until this is dropped; it was handed out to this owner
        // alone, and no device was told of it; `&self` keeps writers out.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl DerefMut for CoherentBox {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = memory(self.buffer, self.bytes);
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

impl Drop for CoherentBox {
    fn drop(&mut self) {
        let Self { device, buffer, bytes } = self;
        // What goes wrong is printed by `free`.
        // SAFETY: the buffer was this owner's alone and goes with it. No device has it: none was told of it, or it was reclaimed
        // from the one that was, or whoever drops a `Coherent` has stopped that one.
        let _printed = unsafe { free(device, *bytes, buffer.address, buffer.dma) };
    }
}

/// A coherent buffer that a device may read and write at any time. Whoever tells a device of it stops the device before
/// dropping it.
#[derive(Debug)]
pub struct Coherent(CoherentBox);

impl Coherent {
    /// Where the device sees it.
    pub const fn dma_address(&self) -> DmaAddr {
        self.0.buffer.dma
    }

    /// Where the processor sees it.
    pub const fn address(&self) -> VirtAddr {
        self.0.buffer.address
    }

    /// Its size in bytes.
    pub const fn len(&self) -> usize {
        self.0.bytes as usize
    }

    /// Whether it has no bytes; there is no such buffer.
    pub const fn is_empty(&self) -> bool {
        self.0.bytes == 0
    }

    /// Copies as much of `from` into the buffer as fits, from its start, and says how much.
    pub fn write(&mut self, from: &[u8]) -> usize {
        let (start, bytes) = memory(self.0.buffer, self.0.bytes);
        let count = bytes.min(from.len());
        for (index, &byte) in from.iter().take(count).enumerate() {
            // SAFETY: `index` is less than the buffer's size.
            let place = unsafe { start.add(index) };
            // SAFETY: the place is mapped and writable; a volatile access may meet the device's.
            unsafe { place.write_volatile(byte) };
        }
        count
    }

    /// Copies as much of the buffer into `to` as fits, from its start, and says how much.
    pub fn read(&self, to: &mut [u8]) -> usize {
        let (start, bytes) = memory(self.0.buffer, self.0.bytes);
        let count = bytes.min(to.len());
        for (index, byte) in to.iter_mut().take(count).enumerate() {
            // SAFETY: `index` is less than the buffer's size.
            let place = unsafe { start.add(index) };
            // SAFETY: the place is mapped and readable; a volatile access may meet the device's.
            *byte = unsafe { place.read_volatile() };
        }
        count
    }

    /// Shows the buffer to a program, as [`show`] does. The program's windows must end before this is dropped; otherwise that says
    /// so, and the buffer stays out of use.
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show(
        &self,
        space: &AddressSpace,
        start: VirtAddr,
        offset: u32,
    ) -> Result<(), ShowError> {
        let CoherentBox { device, buffer, bytes } = &self.0;
        // SAFETY: this owner gives no reference to the bytes, and the box comes out of it when the device is done.
        unsafe { show(device, space, start, (*buffer, *bytes), offset) }
    }

    /// Takes the buffer back from the device.
    ///
    /// # Safety
    /// The device has finished with the buffer and will not touch it again.
    pub unsafe fn reclaim(self) -> CoherentBox {
        self.0
    }
}
