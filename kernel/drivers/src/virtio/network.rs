//! A network card.

extern crate alloc;

use alloc::vec::Vec;
use core::fmt;

use mm::io_mem::IoMem;
use virtio_hal::{Link, Slot};
pub use virtio_hal::{QUEUE, Steady};

use super::transport::{SlotTransport, device_in};
use super::{DeviceError, RequestError, Wait};

/// The device number of a network card (Virtio 1.2, 5.1).
const NETWORK: u32 = 1;

/// Whether the device in a slot is a network card.
pub fn is_network(slot: &mut IoMem<Slot>) -> bool {
    device_in(slot) == NETWORK
}

/// A network card, which sends and receives frames of Ethernet in buffers of type `B`. Its rings are coherent memory.
pub struct Network<'a, B: Steady> {
    link: Link<SlotTransport<'a>, B>,
    wait: Wait,
}

impl<'a, B: Steady> Network<'a, B> {
    /// Brings the card in `slot` up; who waits for it, does so by `wait`. It gets `incoming`, at most [`QUEUE`] buffers, for
    /// frames to come, and uses `outgoing` for those that are sent. Each has room for a whole frame, at least 1,526 bytes. Where
    /// one may sleep.
    ///
    /// # Errors
    /// [`DeviceError`]; the device is reset and its memory freed.
    pub fn new(
        slot: &'a mut IoMem<Slot>,
        wait: Wait,
        (incoming, outgoing): (Vec<B>, Vec<B>),
    ) -> Result<Self, DeviceError> {
        let transport = SlotTransport::new(slot.registers(), NETWORK).map_err(DeviceError::Slot)?;
        let link = Link::new(transport, incoming, outgoing).map_err(DeviceError::Device)?;
        Ok(Self { link, wait })
    }

    /// Waits for the next frame and shows it to `look`.
    ///
    /// # Errors
    /// What the device did wrong; or why it can have none of the buffers, so that no frame would come: later it may. `QueueFull` if there
    /// is no buffer; [`RequestError::Back`] if the frame's was not taken back, which is used no more.
    pub fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, RequestError> {
        let wait = self.wait;
        self.link.receive(&mut |came| wait.until(came), look)
    }

    /// Sends `frame`, and waits only if all buffers are under way, or what is under way leaves no room for a copy.
    ///
    /// # Errors
    /// `InvalidParam` for a frame that no buffer has room for; `QueueFull` if there are no buffers; why the device cannot have one,
    /// though nothing else is under way; what the device did wrong; [`RequestError::Back`] if a buffer of what was sent before was not
    /// taken back, which is used no more: this frame is not sent then.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), RequestError> {
        let wait = self.wait;
        self.link.send(frame, &mut |sent| wait.until(sent))
    }

    /// Waits until everything is sent.
    ///
    /// # Errors
    /// What the device did wrong.
    pub fn flush(&mut self) -> Result<(), RequestError> {
        let wait = self.wait;
        self.link.flush(&mut |sent| wait.until(sent))
    }
}

impl<B: Steady> fmt::Debug for Network<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("wait", &self.wait).finish_non_exhaustive()
    }
}
