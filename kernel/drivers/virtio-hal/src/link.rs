//! A network device with the buffers that are under way.

use alloc::vec::Vec;
use core::fmt;
use core::mem::{self, ManuallyDrop};
use core::ops::DerefMut;
use core::ptr::NonNull;

use dma::coherent::CoherentBox;
use dma::device::Device;
use kerncore::streaming::Flow;
use mm::page_alloc::Pages;
use virtio_drivers::Error;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::Transport;

use crate::error::RequestError;
use crate::hal::{CoherentHal, Kind};
use crate::mapped::Mapped;

/// Frames that may be under way in either direction.
pub const QUEUE: usize = 16;

/// Memory whose bytes stay where they are when their owner is moved.
///
/// # Safety
/// As long as the owner lives and is not borrowed mutably by others, `deref` gives the same bytes at the same place.
pub unsafe trait Steady: DerefMut<Target = [u8]> {}

// SAFETY: the bytes are in the heap, and nothing here makes a vector longer.
unsafe impl Steady for Vec<u8> {}
// SAFETY: the buffer lies where its mapping is.
unsafe impl Steady for CoherentBox {}
// SAFETY: the bytes are in the linear map.
unsafe impl Steady for Pages {}

static CARDS: Device = Device::new("virtio network card");

struct Cards;

impl Kind for Cards {
    fn device() -> &'static Device {
        &CARDS
    }
}

/// A buffer that the device has.
type UnderWay<B> = Option<(B, Mapped)>;

/// A network device (Virtio 1.2, 5.1) and its buffers, for frames of Ethernet.
pub struct Link<T: Transport, B: Steady> {
    device: ManuallyDrop<VirtIONetRaw<CoherentHal<Cards>, T, QUEUE>>,
    /// Buffers for frames to come, by the token of the request.
    incoming: [UnderWay<B>; QUEUE],
    /// Buffers for frames to come that the device does not have, for want of room for their copies.
    kept: Vec<B>,
    /// Buffers of frames that are sent.
    outgoing: [UnderWay<B>; QUEUE],
    /// Buffers for frames to be sent.
    idle: Vec<B>,
    /// Buffers that the device is done with and that were not taken back: kept from everybody, for good. There is room for all.
    stuck: Vec<ManuallyDrop<B>>,
}

/// What waits: it is called with the question whether something has come, and returns when that may be so.
pub type Waits<'w> = &'w mut dyn FnMut(&mut dyn FnMut() -> bool);

impl<T: Transport, B: Steady> Link<T, B> {
    /// Brings the device up and gives it `incoming` for frames to come, at most [`QUEUE`]; `outgoing` are for those that will be
    /// sent. Each has room for a whole frame, at least 1,526 bytes. Where one may sleep.
    ///
    /// # Errors
    /// What there was no memory for, what the device refuses, such as a buffer that is too small, or why it cannot have one; it is
    /// reset.
    pub fn new(transport: T, incoming: Vec<B>, outgoing: Vec<B>) -> Result<Self, RequestError> {
        let mut stuck = Vec::new();
        stuck.try_reserve_exact(incoming.len() + outgoing.len()).map_err(|_| Error::DmaError)?;
        let mut link = Self {
            device: ManuallyDrop::new(VirtIONetRaw::new(transport)?),
            incoming: [const { None }; QUEUE],
            kept: incoming,
            outgoing: [const { None }; QUEUE],
            idle: outgoing,
            stuck,
        };
        link.device.enable_interrupts();
        link.offer_kept()?;
        Ok(link)
    }

    /// How many buffers were not taken back from the device ([`RequestError::Back`]): they are used no more.
    pub const fn stuck_buffers(&self) -> usize {
        self.stuck.len()
    }

    /// Gives the device all buffers for frames to come that it does not have.
    fn offer_kept(&mut self) -> Result<(), RequestError> {
        while let Some(buffer) = self.kept.pop() {
            self.offer(buffer)?;
        }
        Ok(())
    }

    /// Gives the device a buffer for a frame to come; one that it cannot have is kept.
    fn offer(&mut self, mut buffer: B) -> Result<(), RequestError> {
        // SAFETY: the buffer stays where it is, and is kept, unused, until the mapping ends.
        let mapped = unsafe { Mapped::new(&CARDS, NonNull::from(&mut *buffer), Flow::FromDevice) };
        let given = mapped.and_then(|mapped| {
            // SAFETY: the device does not know of the bytes.
            let bytes = unsafe { mapped.bytes().as_mut() };
            // SAFETY: as above; nobody uses them until the device is done or reset.
            let begun = unsafe { self.device.receive_begin(bytes) };
            mapped.given(begun)
        });
        match given {
            Ok((mapped, token)) => {
                self.incoming[usize::from(token)] = Some((buffer, mapped));
                Ok(())
            }
            Err(error) => {
                // There is room: it was among them before.
                keep(&mut self.kept, &mut self.stuck, buffer, error);
                Err(error)
            }
        }
    }

    /// Waits for the next frame and shows it to `look`.
    ///
    /// # Errors
    /// What the device did wrong; or why it can have none of the buffers, so that no frame would come: later it may. `QueueFull` if there
    /// is no buffer; [`RequestError::Back`] if the frame's was not taken back, which is used no more.
    pub fn receive<R>(
        &mut self,
        wait: Waits<'_>,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, RequestError> {
        let offered = self.offer_kept();
        if self.incoming.iter().all(Option::is_none) {
            return Err(offered.err().unwrap_or(RequestError::Device(Error::QueueFull)));
        }
        let token = loop {
            match self.device.poll_receive() {
                Some(token) => break token,
                None => wait(&mut || self.device.poll_receive().is_some()),
            }
        };
        let place = self.incoming.get_mut(usize::from(token)).ok_or(Error::WrongToken)?;
        let (buffer, mapped) = place.take().ok_or(Error::WrongToken)?;
        // SAFETY: the device is done with the bytes.
        let bytes = unsafe { mapped.bytes().as_mut() };
        // SAFETY: these were given to the request of this token.
        let came = unsafe { self.device.receive_complete(token, bytes) };
        if let Err(error @ (Error::NotReady | Error::WrongToken)) = came {
            *place = Some((buffer, mapped));
            return Err(error.into());
        }
        // SAFETY: the device is done.
        if let Err(error) = unsafe { mapped.end() } {
            self.stuck.push(ManuallyDrop::new(buffer));
            return Err(error);
        }
        let seen = came.map_err(RequestError::Device).and_then(|(header, length)| {
            let frame = buffer.get(header..).and_then(|frame| frame.get(..length));
            Ok(frame.map(look).ok_or(Error::IoError)?)
        });
        // One that the device cannot have now is offered again by the next call.
        let _kept = self.offer(buffer);
        seen
    }

    /// Sends `frame`, as soon as there is a buffer for it, and room for a copy of that.
    ///
    /// # Errors
    /// `InvalidParam` for a frame that no buffer has room for; `QueueFull` if there is no buffer; why the device cannot have it,
    /// though nothing else is under way; what the device did wrong; [`RequestError::Back`] if a buffer of what was sent before was not
    /// taken back, which is used no more: this frame is not sent then.
    pub fn send(&mut self, frame: &[u8], wait: Waits<'_>) -> Result<(), RequestError> {
        self.reclaim()?;
        let mut buffer = loop {
            match self.idle.pop() {
                Some(buffer) => break buffer,
                None if self.is_sending() => self.await_sent(wait)?,
                None => return Err(RequestError::Device(Error::QueueFull)),
            }
        };
        let mapped = match self.fill(&mut buffer, frame) {
            Ok(end) => self.map_to_send(NonNull::from(&buffer[..end]), wait),
            Err(error) => Err(error.into()),
        };
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(error) => {
                self.idle.push(buffer);
                return Err(error);
            }
        };
        match self.begin(mapped) {
            Ok((mapped, token)) => {
                self.outgoing[usize::from(token)] = Some((buffer, mapped));
                Ok(())
            }
            Err(error) => {
                keep(&mut self.idle, &mut self.stuck, buffer, error);
                Err(error)
            }
        }
    }

    /// Puts `frame` into `buffer` behind a header, and says where it ends.
    fn fill(&self, buffer: &mut [u8], frame: &[u8]) -> Result<usize, Error> {
        let header = self.device.fill_buffer_header(buffer)?;
        let end = header.checked_add(frame.len()).ok_or(Error::InvalidParam)?;
        buffer.get_mut(header..end).ok_or(Error::InvalidParam)?.copy_from_slice(frame);
        Ok(end)
    }

    /// Maps `bytes` to be sent; what is under way already may have to make room for a copy.
    fn map_to_send(
        &mut self,
        bytes: NonNull<[u8]>,
        wait: Waits<'_>,
    ) -> Result<Mapped, RequestError> {
        loop {
            // SAFETY: our caller's buffer stays where it is, and is kept, unused, until the mapping ends.
            match unsafe { Mapped::new(&CARDS, bytes, Flow::ToDevice) } {
                Err(RequestError::Buffer { .. }) if self.is_sending() => self.await_sent(wait)?,
                other => return other,
            }
        }
    }

    /// Gives the device what is mapped to be sent.
    fn begin(&mut self, mapped: Mapped) -> Result<(Mapped, u16), RequestError> {
        // SAFETY: nobody writes to the bytes.
        let bytes = unsafe { mapped.bytes().as_ref() };
        // SAFETY: nor does anybody until the device is done or reset.
        let begun = unsafe { self.device.transmit_begin(bytes) };
        mapped.given(begun)
    }

    /// Waits until everything is sent.
    ///
    /// # Errors
    /// What the device did wrong.
    pub fn flush(&mut self, wait: Waits<'_>) -> Result<(), RequestError> {
        while self.is_sending() {
            self.await_sent(wait)?;
        }
        Ok(())
    }

    fn is_sending(&self) -> bool {
        self.outgoing.iter().any(Option::is_some)
    }

    fn await_sent(&mut self, wait: Waits<'_>) -> Result<(), RequestError> {
        while self.device.poll_transmit().is_none() {
            wait(&mut || self.device.poll_transmit().is_some());
        }
        self.reclaim()
    }

    /// Takes back the buffers of what is sent.
    fn reclaim(&mut self) -> Result<(), RequestError> {
        while let Some(token) = self.device.poll_transmit() {
            let place = self.outgoing.get_mut(usize::from(token)).ok_or(Error::WrongToken)?;
            let (buffer, mapped) = place.take().ok_or(Error::WrongToken)?;
            // SAFETY: nobody writes to the bytes.
            let bytes = unsafe { mapped.bytes().as_ref() };
            // SAFETY: these were given to the request of this token.
            if let Err(error) = unsafe { self.device.transmit_complete(token, bytes) } {
                // It was not taken off the queue.
                *place = Some((buffer, mapped));
                return Err(error.into());
            }
            // SAFETY: the device is done.
            if let Err(error) = unsafe { mapped.end() } {
                self.stuck.push(ManuallyDrop::new(buffer));
                return Err(error);
            }
            self.idle.push(buffer);
        }
        Ok(())
    }
}

/// 1. The device is reset. 2. What it had is taken back. 3. The buffers go, but those that were not taken back.
impl<T: Transport, B: Steady> Drop for Link<T, B> {
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        unsafe { ManuallyDrop::drop(&mut self.device) };
        for place in self.incoming.iter_mut().chain(&mut self.outgoing) {
            let Some((buffer, mapped)) = place.take() else { continue };
            // SAFETY: the device was reset above, and the buffer is still there.
            match unsafe { mapped.end() } {
                Ok(()) => drop(buffer),
                Err(error) => {
                    log::error!("{error}");
                    mem::forget(buffer);
                }
            }
        }
    }
}

/// Keeps a buffer that the device was not given among those that may be used again; not one whose mapping did not end.
fn keep<B>(usable: &mut Vec<B>, stuck: &mut Vec<ManuallyDrop<B>>, buffer: B, why: RequestError) {
    match why {
        RequestError::Back { .. } => stuck.push(ManuallyDrop::new(buffer)),
        RequestError::Device(_) | RequestError::Buffer { .. } => usable.push(buffer),
    }
}

impl<T: Transport, B: Steady> fmt::Debug for Link<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
