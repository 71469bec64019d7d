//! A source of random bytes, over the crate's queue: the crate's own driver can only look all the time.

use core::fmt;

use virtio_drivers::device::common::Feature;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::{Error, Result};

use crate::CoherentHal;

/// The only queue.
const REQUESTS: u16 = 0;
/// Its length: there is one request at a time.
const PLACES: usize = 2;

/// A source of random bytes (Virtio 1.2, 5.4).
pub struct EntropySource<T: Transport> {
    transport: T,
    queue: VirtQueue<CoherentHal, PLACES>,
}

impl<T: Transport> EntropySource<T> {
    /// Brings the device up. Where one may sleep.
    ///
    /// # Errors
    /// What there was no memory for, or what the device refuses; it is reset.
    pub fn new(mut transport: T) -> Result<Self> {
        let features = transport.begin_init(Feature::RING_EVENT_IDX | Feature::VERSION_1);
        let has_events = features.contains(Feature::RING_EVENT_IDX);
        let queue = VirtQueue::new(&mut transport, REQUESTS, false, has_events)?;
        transport.finish_init();
        Ok(Self { transport, queue })
    }

    /// Asks for an interrupt when a request is done, or for none where that can be said.
    pub fn notify(&mut self, notices: Notices) {
        self.queue.set_dev_notify(notices == Notices::Wanted);
    }

    /// Asks for as many bytes as `buffer` has, which must be some, and says how many came: at least one. `wait` is called with the
    /// question whether the device is done, and returns when that may be so; it is called again if it is not.
    ///
    /// # Errors
    /// What the device did wrong.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        mut wait: impl FnMut(&mut dyn FnMut() -> bool),
    ) -> Result<usize> {
        if buffer.is_empty() {
            return Err(Error::InvalidParam);
        }
        // SAFETY: the buffer is borrowed by this call, which does not return before the device is done with it, and nobody else
        // uses it meanwhile.
        let token = unsafe { self.queue.add(&[], &mut [&mut *buffer])? };
        if self.queue.should_notify() {
            self.transport.notify(REQUESTS);
        }
        while self.queue.peek_used() != Some(token) {
            wait(&mut || self.queue.peek_used() == Some(token));
        }
        // SAFETY: the same that was given to the request of this token.
        let came = unsafe { self.queue.pop_used(token, &[], &mut [&mut *buffer])? } as usize;
        if came == 0 || came > buffer.len() { Err(Error::IoError) } else { Ok(came) }
    }
}

/// Whether a device is to say that it has used a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notices {
    /// By an interrupt.
    Wanted,
    /// Not at all: somebody looks.
    Unwanted,
}

/// Takes the ring away before its memory goes.
impl<T: Transport> Drop for EntropySource<T> {
    fn drop(&mut self) {
        self.transport.queue_unset(REQUESTS);
    }
}

impl<T: Transport> fmt::Debug for EntropySource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntropySource").finish_non_exhaustive()
    }
}
