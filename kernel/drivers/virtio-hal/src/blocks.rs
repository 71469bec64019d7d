//! A disk, whose requests are waited for by other means than looking all the time.

use core::fmt;
use core::ptr::{self, NonNull};

use dma::coherent::{Coherent, CoherentBox};
use dma::device::Device;
use kerncore::streaming::Flow;
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::Transport;

use crate::entropy::Notices;
use crate::error::RequestError;
use crate::hal::{CoherentHal, Kind};
use crate::link::Waits;
use crate::mapped::Mapped;

/// What a request is and what came of it; zeroes are both.
#[repr(C)]
struct Headers {
    request: BlkReq,
    response: BlkResp,
}

/// Bytes for them.
const HEADERS: u32 = 32;
const _: () = assert!(size_of::<Headers>() <= HEADERS as usize);

static DISKS: Device = Device::new("virtio disk");

struct Disks;

impl Kind for Disks {
    fn device() -> &'static Device {
        &DISKS
    }
}

/// A disk (Virtio 1.2, 5.2) with one request at a time.
pub struct Blocks<T: Transport> {
    /// Before what follows: it is reset before that goes.
    disk: VirtIOBlk<CoherentHal<Disks>, T>,
    /// [`Headers`]. Coherent: the crate writes them when the buffers are the device's already.
    headers: Coherent,
}

impl<T: Transport> Blocks<T> {
    /// Brings the disk up. Where one may sleep.
    ///
    /// # Errors
    /// What there was no memory for, or what the device refuses; it is reset.
    pub fn new(transport: T) -> Result<Self, RequestError> {
        let disk = VirtIOBlk::new(transport)?;
        let headers = CoherentBox::new(&DISKS, HEADERS).map_err(|error| {
            log::error!("{}: no memory for headers: {error}", DISKS.name());
            Error::DmaError
        })?;
        Ok(Self { disk, headers: headers.share() })
    }

    /// Asks for an interrupt when a request is done, or for none where that can be said.
    pub fn notify(&mut self, notices: Notices) {
        match notices {
            Notices::Wanted => self.disk.enable_interrupts(),
            Notices::Unwanted => self.disk.disable_interrupts(),
        }
    }

    /// Sectors on the disk.
    pub fn sectors(&self) -> u64 {
        self.disk.capacity()
    }

    /// Whether it refuses to be written.
    pub fn is_read_only(&self) -> bool {
        self.disk.readonly()
    }

    /// Reads `buffer`, whole sectors, from sector `first` on. `wait` is called with the question whether the device is done, and
    /// returns when that may be so; it is called again if it is not. The first time nobody has asked before: who waits for an
    /// interrupt takes the one that belongs to this request.
    ///
    /// # Errors
    /// What the device says; `InvalidParam` for a buffer that is empty or not whole sectors; why it cannot have the buffer.
    pub fn read(
        &mut self,
        first: usize,
        buffer: &mut [u8],
        wait: Waits<'_>,
    ) -> Result<(), RequestError> {
        check(buffer)?;
        // SAFETY: the buffer is borrowed by this call, which does not return before the device is done with it.
        let mapped = unsafe { Mapped::new(&DISKS, NonNull::from(buffer), Flow::FromDevice)? };
        let mut bytes = mapped.bytes();
        // SAFETY: the device has no request, and does not know of the bytes either.
        let Headers { request, response } = unsafe { self.headers().as_mut() };
        *response = BlkResp::default();
        // SAFETY: as above.
        let part = unsafe { bytes.as_mut() };
        // SAFETY: nobody uses the three before the device is done.
        let added = unsafe { self.disk.read_blocks_nb(first, request, part, response) };
        let (mapped, token) = mapped.given(added)?;
        self.wait_for(token, wait);
        // SAFETY: the device is done.
        let Headers { request, response } = unsafe { self.headers().as_mut() };
        // SAFETY: with the bytes as well.
        let part = unsafe { bytes.as_mut() };
        // SAFETY: the same that were given to the request of this token.
        let done = unsafe { self.disk.complete_read_blocks(token, request, part, response) };
        // SAFETY: the device is done.
        unsafe { mapped.end() }?;
        Ok(done?)
    }

    /// Writes `buffer`, whole sectors, from sector `first` on. `wait` is as for [`Blocks::read`].
    ///
    /// # Errors
    /// As for [`Blocks::read`].
    pub fn write(
        &mut self,
        first: usize,
        buffer: &[u8],
        wait: Waits<'_>,
    ) -> Result<(), RequestError> {
        check(buffer)?;
        // SAFETY: the buffer is borrowed by this call, which does not return before the device is done with it; nobody writes to
        // it meanwhile, the device neither.
        let mapped = unsafe { Mapped::new(&DISKS, NonNull::from(buffer), Flow::ToDevice)? };
        // SAFETY: nobody writes to the bytes until the device is done.
        let part = unsafe { mapped.bytes().as_ref() };
        // SAFETY: the device has no request.
        let Headers { request, response } = unsafe { self.headers().as_mut() };
        *response = BlkResp::default();
        // SAFETY: nobody uses the headers before the device is done, nor writes to the bytes.
        let added = unsafe { self.disk.write_blocks_nb(first, request, part, response) };
        let (mapped, token) = mapped.given(added)?;
        self.wait_for(token, wait);
        // SAFETY: the device is done.
        let Headers { request, response } = unsafe { self.headers().as_mut() };
        // SAFETY: the same that were given to the request of this token.
        let done = unsafe { self.disk.complete_write_blocks(token, request, part, response) };
        // SAFETY: the device is done.
        unsafe { mapped.end() }?;
        Ok(done?)
    }

    fn wait_for(&mut self, token: u16, wait: Waits<'_>) {
        loop {
            wait(&mut || self.disk.peek_used() == Some(token));
            if self.disk.peek_used() == Some(token) {
                break;
            }
        }
    }

    /// Where the headers are: at the start of a page.
    fn headers(&self) -> NonNull<Headers> {
        let start = ptr::with_exposed_provenance_mut(self.headers.address().raw() as usize);
        NonNull::new(start).expect("no buffer lies at address zero")
    }
}

fn check(buffer: &[u8]) -> Result<(), RequestError> {
    let is_whole = !buffer.is_empty() && buffer.len().is_multiple_of(SECTOR_SIZE);
    if is_whole { Ok(()) } else { Err(RequestError::Device(Error::InvalidParam)) }
}

impl<T: Transport> fmt::Debug for Blocks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("sectors", &self.sectors()).finish_non_exhaustive()
    }
}
