//! A disk, whose requests are waited for by other means than looking all the time.

use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

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

/// Bytes for them, and as many for those that the crate brings itself.
const HEADERS: u32 = 32;
const _: () = assert!(size_of::<Headers>() <= HEADERS as usize);

/// Where on each CPU the crate's own headers are to lie: it has them on the stack. Zero but during [`Blocks::flush`] there.
static STAND_INS: [AtomicU32; CPUS] = [const { AtomicU32::new(0) }; CPUS];
const CPUS: usize = 4;

/// CPUs that have one now, so that others need not look: it is asked for each buffer.
static FLUSHING: AtomicU32 = AtomicU32::new(0);

/// This CPU's.
fn own_stand_ins() -> Option<&'static AtomicU32> {
    STAND_INS.get(arch::cpu::id() as usize)
}

static DISKS: Device = Device::new("virtio disk");

struct Disks;

impl Kind for Disks {
    fn device() -> &'static Device {
        &DISKS
    }

    #[inline(always)]
    fn stand_in(buffer: NonNull<[u8]>) -> Option<NonNull<[u8]>> {
        // Relaxed: this CPU has counted itself, if it has one.
        if FLUSHING.load(Relaxed) == 0 { None } else { stand_in(buffer) }
    }
}

/// [`Kind::stand_in`] while some CPU has one.
#[cold]
fn stand_in(buffer: NonNull<[u8]>) -> Option<NonNull<[u8]>> {
    let start = own_stand_ins()?.load(Relaxed);
    if start == 0 {
        return None;
    }
    let offset = match buffer.len() {
        length if length == size_of::<BlkReq>() => 0,
        length if length == size_of::<BlkResp>() => size_of::<BlkReq>(),
        _ => return None,
    };
    let start = ptr::with_exposed_provenance_mut::<u8>(start as usize + offset);
    Some(NonNull::slice_from_raw_parts(NonNull::new(start)?, buffer.len()))
}

/// A disk (Virtio 1.2, 5.2) with one request at a time.
pub struct Blocks<T: Transport> {
    /// Before what follows: it is reset before that goes. None any more if it has answered what nobody asked.
    disk: Option<VirtIOBlk<CoherentHal<Disks>, T>>,
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
        let headers = CoherentBox::new(&DISKS, 2 * HEADERS).map_err(|error| {
            log::error!("{}: no memory for headers: {error}", DISKS.name());
            Error::DmaError
        })?;
        Ok(Self { disk: Some(disk), headers: headers.share() })
    }

    /// Asks for an interrupt when a request is done, or for none where that can be said.
    pub fn notify(&mut self, notices: Notices) {
        match (&mut self.disk, notices) {
            (Some(disk), Notices::Wanted) => disk.enable_interrupts(),
            (Some(disk), Notices::Unwanted) => disk.disable_interrupts(),
            (None, _) => {}
        }
    }

    /// Sectors on the disk; none any more if it was reset.
    pub fn sectors(&self) -> u64 {
        self.disk.as_ref().map_or(0, VirtIOBlk::capacity)
    }

    /// Whether it refuses to be written.
    pub fn is_read_only(&self) -> bool {
        self.disk.as_ref().is_some_and(VirtIOBlk::readonly)
    }

    /// Reads `buffer`, whole sectors, from sector `first` on. `wait` is called with the question whether the device is done, and
    /// returns when that may be so; it is called again if it is not. The first time nobody has asked before: who waits for an
    /// interrupt takes the one that belongs to this request.
    ///
    /// # Errors
    /// What the device says; `InvalidParam` for a buffer that is empty or not whole sectors; why it cannot have the buffer;
    /// `WrongToken` if it answers what nobody asked: then it is reset, and `NotReady` from then on.
    pub fn read(
        &mut self,
        first: usize,
        buffer: &mut [u8],
        wait: Waits<'_>,
    ) -> Result<(), RequestError> {
        check(buffer)?;
        let mut headers = headers_in(&self.headers);
        let disk = self.disk.as_mut().ok_or(Error::NotReady)?;
        // SAFETY: the buffer is borrowed by this call, which does not return before the device is done with it.
        let mapped = unsafe { Mapped::new(&DISKS, NonNull::from(buffer), Flow::FromDevice)? };
        let mut bytes = mapped.bytes();
        // SAFETY: the device has no request, and does not know of the bytes either.
        let Headers { request, response } = unsafe { headers.as_mut() };
        *response = BlkResp::default();
        // SAFETY: as above.
        let part = unsafe { bytes.as_mut() };
        // SAFETY: nobody uses the three before the device is done.
        let added = unsafe { disk.read_blocks_nb(first, request, part, response) };
        let (mapped, token) = mapped.given(added)?;
        let done = wait_for(disk, token, wait).and_then(|()| {
            // SAFETY: the device is done.
            let Headers { request, response } = unsafe { headers.as_mut() };
            // SAFETY: with the bytes as well.
            let part = unsafe { bytes.as_mut() };
            // SAFETY: the same that were given to the request of this token.
            unsafe { disk.complete_read_blocks(token, request, part, response) }
        });
        self.reset_if_wrong(done);
        // SAFETY: the device is done, or reset.
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
        let mut headers = headers_in(&self.headers);
        let disk = self.disk.as_mut().ok_or(Error::NotReady)?;
        // SAFETY: the buffer is borrowed by this call, which does not return before the device is done with it; nobody writes to
        // it meanwhile, the device neither.
        let mapped = unsafe { Mapped::new(&DISKS, NonNull::from(buffer), Flow::ToDevice)? };
        // SAFETY: nobody writes to the bytes until the device is done.
        let part = unsafe { mapped.bytes().as_ref() };
        // SAFETY: the device has no request.
        let Headers { request, response } = unsafe { headers.as_mut() };
        *response = BlkResp::default();
        // SAFETY: nobody uses the headers before the device is done, nor writes to the bytes.
        let added = unsafe { disk.write_blocks_nb(first, request, part, response) };
        let (mapped, token) = mapped.given(added)?;
        let done = wait_for(disk, token, wait).and_then(|()| {
            // SAFETY: the device is done.
            let Headers { request, response } = unsafe { headers.as_mut() };
            // SAFETY: the same that were given to the request of this token.
            unsafe { disk.complete_write_blocks(token, request, part, response) }
        });
        self.reset_if_wrong(done);
        // SAFETY: the device is done, or reset.
        unsafe { mapped.end() }?;
        Ok(done?)
    }

    /// Has the disk put everything that was written where it stays without power, and waits for that: by looking, as the crate does. One
    /// that has nothing to put off does nothing. Not in a handler, nor in one's way: on this CPU nobody uses a disk meanwhile.
    ///
    /// # Errors
    /// What the device says; `WrongToken` and `NotReady` as for [`Blocks::read`].
    pub fn flush(&mut self) -> Result<(), RequestError> {
        let disk = self.disk.as_mut().ok_or(Error::NotReady)?;
        let own = own_stand_ins().ok_or(Error::NotReady)?;
        // Behind ours, in the same page.
        own.store(self.headers.address().raw() + HEADERS, Relaxed);
        FLUSHING.fetch_add(1, Relaxed);
        let done = disk.flush();
        FLUSHING.fetch_sub(1, Relaxed);
        own.store(0, Relaxed);
        self.reset_if_wrong(done);
        Ok(done?)
    }

    /// What answers another request than the only one may do anything with that one's buffers: it is reset.
    fn reset_if_wrong(&mut self, done: Result<(), Error>) {
        if done == Err(Error::WrongToken) {
            log::error!("{}: an answer to what nobody asked: it is reset", DISKS.name());
            self.disk = None;
        }
    }
}

/// Waits until the only request is answered.
fn wait_for<T: Transport>(
    disk: &mut VirtIOBlk<CoherentHal<Disks>, T>,
    token: u16,
    wait: Waits<'_>,
) -> Result<(), Error> {
    loop {
        wait(&mut || disk.peek_used().is_some());
        match disk.peek_used() {
            Some(answered) if answered == token => return Ok(()),
            Some(_) => return Err(Error::WrongToken),
            None => {}
        }
    }
}

/// Where the headers are: at the start of a page.
fn headers_in(memory: &Coherent) -> NonNull<Headers> {
    let start = ptr::with_exposed_provenance_mut(memory.address().raw() as usize);
    NonNull::new(start).expect("no buffer lies at address zero")
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
