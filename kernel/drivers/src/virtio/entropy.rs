//! A source of random bytes.

use core::fmt;

use mm::io_mem::IoMem;
use virtio_hal::{EntropySource, Slot};

use super::transport::{SlotTransport, device_in};
use super::{DeviceError, RequestError, Wait, most_of_a_request};

/// The device number of a source of random bytes (Virtio 1.2, 5.4).
const ENTROPY: u32 = 4;

/// Whether the device in a slot is a source of random bytes.
pub fn is_entropy(slot: &mut IoMem<Slot>) -> bool {
    device_in(slot) == ENTROPY
}

/// A source of random bytes. Its ring is coherent memory; requests are waited for.
pub struct Entropy<'a> {
    source: EntropySource<SlotTransport<'a>>,
    wait: Wait,
}

impl<'a> Entropy<'a> {
    /// Brings the source in `slot` up, whose requests will be waited for by `wait`. Where one may sleep.
    ///
    /// # Errors
    /// [`DeviceError`]; the device is reset and its memory freed.
    pub fn new(slot: &'a mut IoMem<Slot>, wait: Wait) -> Result<Self, DeviceError> {
        let transport = SlotTransport::new(slot.registers(), ENTROPY).map_err(DeviceError::Slot)?;
        let mut source = EntropySource::new(transport).map_err(DeviceError::Device)?;
        source.notify(wait.notices());
        Ok(Self { source, wait })
    }

    /// Fills `buffer`, and waits for it.
    ///
    /// # Errors
    /// What the device did wrong, or why it cannot have the buffer. That then begins with what came before.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RequestError> {
        let wait = self.wait;
        for part in buffer.chunks_mut(most_of_a_request()) {
            self.source.fill(part, &mut |came| wait.until(came))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Entropy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").field("wait", &self.wait).finish_non_exhaustive()
    }
}
