//! A source of random bytes, over the crate's queue: the crate's own driver can only look all the time.

use core::fmt;
use core::ptr::NonNull;

use dma::device::Device;
use kerncore::streaming::Flow;
use virtio_drivers::Error;
use virtio_drivers::device::common::Feature;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::error::RequestError;
use crate::hal::{CoherentHal, Kind};
use crate::link::Waits;
use crate::mapped::Mapped;

/// The only queue.
const REQUESTS: u16 = 0;
/// Its length: there is one request at a time.
const PLACES: usize = 2;

static SOURCES: Device = Device::new("virtio source of random bytes");

struct Sources;

impl Kind for Sources {
    fn device() -> &'static Device {
        &SOURCES
    }
}

/// A source of random bytes (Virtio 1.2, 5.4).
pub struct EntropySource<T: Transport> {
    transport: T,
    queue: VirtQueue<CoherentHal<Sources>, PLACES>,
    /// It has answered what nobody asked, and was reset.
    is_lost: bool,
}

impl<T: Transport> EntropySource<T> {
    /// Brings the device up. Where one may sleep.
    ///
    /// # Errors
    /// What there was no memory for, or what the device refuses; it is reset.
    pub fn new(mut transport: T) -> Result<Self, RequestError> {
        let features = transport.begin_init(Feature::RING_EVENT_IDX | Feature::VERSION_1);
        let has_events = features.contains(Feature::RING_EVENT_IDX);
        let queue = VirtQueue::new(&mut transport, REQUESTS, false, has_events)?;
        transport.finish_init();
        Ok(Self { transport, queue, is_lost: false })
    }

    /// Asks for an interrupt when a request is done, or for none where that can be said.
    pub fn notify(&mut self, notices: Notices) {
        self.queue.set_dev_notify(notices == Notices::Wanted);
    }

    /// Fills `buffer`, by as many requests as that takes: a device may give fewer bytes than it was asked for. `wait` is that of
    /// [`EntropySource::read`].
    ///
    /// # Errors
    /// As for that; `buffer` then begins with what came before.
    pub fn fill(&mut self, buffer: &mut [u8], wait: Waits<'_>) -> Result<(), RequestError> {
        let mut done = 0;
        while done < buffer.len() {
            done += self.read(&mut buffer[done..], &mut *wait)?;
        }
        Ok(())
    }

    /// Asks for as many bytes as `buffer` has, which must be some, and says how many came: at least one. `wait` is called with the
    /// question whether the device is done, and returns when that may be so; it is called again if it is not.
    ///
    /// # Errors
    /// What the device did wrong, or why it cannot have the buffer; `WrongToken` if it answers what nobody asked: then it is reset,
    /// and `NotReady` from then on.
    pub fn read(&mut self, buffer: &mut [u8], wait: Waits<'_>) -> Result<usize, RequestError> {
        if buffer.is_empty() {
            return Err(RequestError::Device(Error::InvalidParam));
        }
        if self.is_lost {
            return Err(RequestError::Device(Error::NotReady));
        }
        let asked = buffer.len();
        // SAFETY: the buffer is borrowed by this call, which does not return before the device is done with it.
        let mapped = unsafe { Mapped::new(&SOURCES, NonNull::from(buffer), Flow::FromDevice)? };
        let mut bytes = mapped.bytes();
        // SAFETY: the device does not know of the bytes.
        let part = unsafe { bytes.as_mut() };
        // SAFETY: as above; nobody uses them before the device is done.
        let added = unsafe { self.queue.add(&[], &mut [part]) };
        let (mapped, token) = mapped.given(added)?;
        if self.queue.should_notify() {
            self.transport.notify(REQUESTS);
        }
        while self.queue.peek_used().is_none() {
            wait(&mut || self.queue.peek_used().is_some());
        }
        // SAFETY: the device is done, or has not asked for these.
        let part = unsafe { bytes.as_mut() };
        // SAFETY: the same that were given to the request of this token.
        let came = unsafe { self.queue.pop_used(token, &[], &mut [part]) };
        if came == Err(Error::WrongToken) {
            log::error!("{}: an answer to what nobody asked: it is reset", SOURCES.name());
            self.transport.set_status(DeviceStatus::empty());
            // The read makes sure that the write has arrived.
            let _status = self.transport.get_status();
            self.is_lost = true;
        }
        // SAFETY: the device is done, or reset.
        unsafe { mapped.end() }?;
        match came? as usize {
            came if came == 0 || came > asked => Err(RequestError::Device(Error::IoError)),
            came => Ok(came),
        }
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
