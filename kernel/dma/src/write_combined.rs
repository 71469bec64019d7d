//! Memory that the processor writes and a device reads, both at any time: a picture and its screen (S99).
//!
//! It is what `dma_alloc_wc` gives. Writes wait in the processor's buffers, are merged there and leave in any order;
//! [`drain`] is the point behind which a device sees all of them.

use core::fmt;
use core::ptr;

use arch::barrier::dsb;
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;

use crate::attributes;
use crate::coherent::{AllocateError, Buffer};
use crate::device::Device;

/// The attributes of all such memory.
const ATTRIBUTES: DmaAttributes = DmaAttributes::WRITE_COMBINE;

/// What is stored by one access.
pub trait Word: Copy + sealed::Sealed {
    /// Its bytes.
    type Bytes: AsRef<[u8]>;

    /// How many it has.
    const SIZE: u32;

    /// Its bytes as they lie in memory.
    fn bytes(self) -> Self::Bytes;
}

mod sealed {
    /// Nobody adds words that an access does not store as a whole.
    pub trait Sealed {}
}

macro_rules! words {
    ($($word:ident)*) => {
        $(impl sealed::Sealed for $word {}

        impl Word for $word {
            type Bytes = [u8; size_of::<$word>()];
            const SIZE: u32 = $word::BITS / 8;

            fn bytes(self) -> Self::Bytes {
                self.to_ne_bytes()
            }
        })*
    };
}

words! { u8 u16 u32 }

/// Memory of a device, for the processor to write.
///
/// It is stored into, never borrowed as a slice. Whoever tells a device of it stops the device before dropping it.
pub struct WriteCombined {
    device: &'static Device,
    buffer: Buffer,
    bytes: u32,
}

impl WriteCombined {
    /// Zeroed memory of `bytes` for `device`, as high as its coherent mask allows. Where one may sleep.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn new(device: &'static Device, bytes: u32) -> Result<Self, AllocateError> {
        let caller = arch::backtrace::return_address();
        let buffer = attributes::allocate(device, bytes, Sleep::May, ATTRIBUTES, caller)?;
        Ok(Self { device, buffer, bytes })
    }

    /// Where the device sees it.
    pub const fn dma_address(&self) -> DmaAddr {
        self.buffer.dma
    }

    /// Where the processor sees it.
    pub const fn address(&self) -> VirtAddr {
        self.buffer.address
    }

    /// Its size in bytes, which is not zero.
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Stores as many of `words` as fit at `offset`, in bytes, and behind, and says how many. None fit at an offset that is no
    /// multiple of a word's size.
    pub fn store<W: Word>(&mut self, offset: u32, words: impl IntoIterator<Item = W>) -> usize {
        let size = size_of::<W>();
        let (offset, bytes) = (offset as usize, self.bytes as usize);
        if !offset.is_multiple_of(size) {
            return 0;
        }
        let room = bytes.saturating_sub(offset) / size;
        let start = ptr::with_exposed_provenance_mut::<u8>(self.buffer.address.raw() as usize);
        let mut stored = 0;
        for (index, word) in words.into_iter().take(room).enumerate() {
            let place = start.wrapping_add(offset + index * size).cast::<W>();
            // SAFETY: the word lies inside of the buffer, by the count above; that begins at a page, so that the place is aligned. It
            // is mapped and writable until this is dropped and nobody else's; a volatile access may meet the device's.
            unsafe { place.write_volatile(word) };
            stored = index + 1;
        }
        stored
    }
}

/// Waits until devices see what this CPU stored before, uncached. Any context.
pub fn drain() {
    dsb();
    // The outer cache does not keep such lines, but has buffers of its own for what passes it.
    if let Some(outer) = arch::outer::get() {
        outer.wait();
    }
}

impl Drop for WriteCombined {
    fn drop(&mut self) {
        // What goes wrong is printed by `free`.
        // SAFETY: the buffer was this owner's alone and goes with it; whoever told a device of it has stopped that.
        let _printed =
            unsafe { attributes::free(self.device, self.bytes, self.buffer, ATTRIBUTES) };
    }
}

impl fmt::Debug for WriteCombined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteCombined")
            .field("device", &self.device.name())
            .field("buffer", &self.buffer)
            .field("bytes", &self.bytes)
            .finish()
    }
}
