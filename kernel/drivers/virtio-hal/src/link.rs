//! A network device with the buffers that are under way.

use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::DerefMut;
use core::ptr::NonNull;

use dma::coherent::CoherentBox;
use mm::page_alloc::Pages;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::Transport;
use virtio_drivers::{BufferDirection, Error, Result};

use crate::tracked::TrackedHal;

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

/// A network device (Virtio 1.2, 5.1) and its buffers, for frames of Ethernet.
pub struct Link<T: Transport, B: Steady> {
    device: ManuallyDrop<VirtIONetRaw<TrackedHal, T, QUEUE>>,
    /// Buffers for frames to come, by the token of the request.
    incoming: [Option<B>; QUEUE],
    /// Buffers of frames that are sent, and how much of each.
    outgoing: [Option<(B, usize)>; QUEUE],
    /// Buffers for frames to be sent.
    idle: Vec<B>,
}

/// What waits: it is called with the question whether something has come, and returns when that may be so.
pub type Waits<'w> = &'w mut dyn FnMut(&mut dyn FnMut() -> bool);

impl<T: Transport, B: Steady> Link<T, B> {
    /// Brings the device up and gives it `incoming` for frames to come, at most [`QUEUE`]; `outgoing` are for those that will be
    /// sent. Each has room for a whole frame, at least 1,526 bytes. Where one may sleep.
    ///
    /// # Errors
    /// What there was no memory for, or what the device refuses, such as a buffer that is too small; it is reset.
    pub fn new(transport: T, incoming: Vec<B>, outgoing: Vec<B>) -> Result<Self> {
        let mut link = Self {
            device: ManuallyDrop::new(VirtIONetRaw::new(transport)?),
            incoming: [const { None }; QUEUE],
            outgoing: [const { None }; QUEUE],
            idle: outgoing,
        };
        link.device.enable_interrupts();
        incoming.into_iter().try_for_each(|buffer| link.offer(buffer))?;
        Ok(link)
    }

    /// Gives the device a buffer for a frame to come.
    fn offer(&mut self, mut buffer: B) -> Result<()> {
        // SAFETY: the buffer stays where it is, and is kept, unused, until the device is done with it or stopped.
        let token = unsafe { self.device.receive_begin(&mut buffer)? };
        self.incoming[usize::from(token)] = Some(buffer);
        Ok(())
    }

    /// Waits for the next frame and shows it to `look`.
    ///
    /// # Errors
    /// What the device did wrong.
    pub fn receive<R>(&mut self, wait: Waits<'_>, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let token = loop {
            match self.device.poll_receive() {
                Some(token) => break token,
                None => wait(&mut || self.device.poll_receive().is_some()),
            }
        };
        let place = self.incoming.get_mut(usize::from(token)).ok_or(Error::WrongToken)?;
        let mut buffer = place.take().ok_or(Error::WrongToken)?;
        // SAFETY: this is the buffer that was given to the request of this token.
        let came = unsafe { self.device.receive_complete(token, &mut buffer) };
        let seen = came.and_then(|(header, length)| {
            let frame = buffer.get(header..).and_then(|frame| frame.get(..length));
            frame.map(look).ok_or(Error::IoError)
        });
        self.offer(buffer)?;
        seen
    }

    /// Sends `frame`, as soon as there is a buffer for it.
    ///
    /// # Errors
    /// `InvalidParam` for a frame that no buffer has room for; what the device did wrong.
    pub fn send(&mut self, frame: &[u8], wait: Waits<'_>) -> Result<()> {
        self.reclaim()?;
        let mut buffer = loop {
            match self.idle.pop() {
                Some(buffer) => break buffer,
                None => self.await_sent(wait)?,
            }
        };
        let filled = self.device.fill_buffer_header(&mut buffer).and_then(|header| {
            let end = header.checked_add(frame.len()).ok_or(Error::InvalidParam)?;
            buffer.get_mut(header..end).ok_or(Error::InvalidParam)?.copy_from_slice(frame);
            Ok(end)
        });
        // SAFETY: the buffer stays where it is, and is kept, unused, until the device is done with it or stopped.
        let begun = filled
            .and_then(|end| Ok((unsafe { self.device.transmit_begin(&buffer[..end]) }?, end)));
        match begun {
            Ok((token, end)) => self.outgoing[usize::from(token)] = Some((buffer, end)),
            Err(error) => {
                self.idle.push(buffer);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits until everything is sent.
    ///
    /// # Errors
    /// What the device did wrong.
    pub fn flush(&mut self, wait: Waits<'_>) -> Result<()> {
        while self.outgoing.iter().any(Option::is_some) {
            self.await_sent(wait)?;
        }
        Ok(())
    }

    fn await_sent(&mut self, wait: Waits<'_>) -> Result<()> {
        while self.device.poll_transmit().is_none() {
            wait(&mut || self.device.poll_transmit().is_some());
        }
        self.reclaim()
    }

    /// Takes back the buffers of what is sent.
    fn reclaim(&mut self) -> Result<()> {
        while let Some(token) = self.device.poll_transmit() {
            let place = self.outgoing.get_mut(usize::from(token)).ok_or(Error::WrongToken)?;
            let (buffer, end) = place.take().ok_or(Error::WrongToken)?;
            // SAFETY: these are the bytes that were given to the request of this token.
            unsafe { self.device.transmit_complete(token, &buffer[..end]) }?;
            self.idle.push(buffer);
        }
        Ok(())
    }
}

/// 1. The device is reset. 2. What it had is taken back. 3. The buffers go.
impl<T: Transport, B: Steady> Drop for Link<T, B> {
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        unsafe { ManuallyDrop::drop(&mut self.device) };
        for buffer in self.incoming.iter_mut().flatten() {
            let bytes = NonNull::from(&mut **buffer);
            // SAFETY: the device was reset above, and the buffer is borrowed here.
            unsafe { TrackedHal::take_back(bytes, BufferDirection::DeviceToDriver) };
        }
        for (buffer, end) in self.outgoing.iter_mut().flatten() {
            let bytes = NonNull::from(&mut buffer[..*end]);
            // SAFETY: as above.
            unsafe { TrackedHal::take_back(bytes, BufferDirection::DriverToDevice) };
        }
    }
}

impl<T: Transport, B: Steady> fmt::Debug for Link<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
