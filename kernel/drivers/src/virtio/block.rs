//! A disk.

use core::fmt;

use mm::io_mem::IoMem;
use virtio_drivers::Error;
use virtio_drivers::device::blk::SECTOR_SIZE;
use virtio_hal::{Blocks, Notices, Slot, Waits};

use super::transport::{SlotTransport, device_in};
use super::{DeviceError, RequestError, Wait, most_of_a_request};

/// The device number of a disk (Virtio 1.2, 5.2).
const BLOCK: u32 = 2;

/// Bytes in a sector.
pub const SECTOR: usize = SECTOR_SIZE;

/// Whether the device in a slot is a disk.
pub fn is_disk(slot: &mut IoMem<Slot>) -> bool {
    device_in(slot) == BLOCK
}

/// A disk. Its rings and headers are coherent memory; requests are waited for.
pub struct Disk<'a> {
    disk: Blocks<SlotTransport<'a>>,
    wait: Wait,
}

impl<'a> Disk<'a> {
    /// Brings the disk in `slot` up, whose requests will be waited for by `wait`. Where one may sleep.
    ///
    /// # Errors
    /// [`DeviceError`]; the device is reset and its memory freed.
    pub fn new(slot: &'a mut IoMem<Slot>, wait: Wait) -> Result<Self, DeviceError> {
        let transport = SlotTransport::new(slot.registers(), BLOCK).map_err(DeviceError::Slot)?;
        let mut disk = Blocks::new(transport).map_err(DeviceError::Device)?;
        disk.notify(wait.notices());
        Ok(Self { disk, wait })
    }

    /// Sectors on the disk.
    pub fn sectors(&self) -> u64 {
        self.disk.sectors()
    }

    /// Whether it refuses to be written.
    pub fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    /// Reads the sectors from number `sector` on into `buffer`, a whole number of them, and waits for it.
    ///
    /// # Errors
    /// What the device says, such as a sector that it does not have; `InvalidParam` for a buffer that is empty or not
    /// whole sectors; why the device cannot have the buffer. That then holds what was read before.
    pub fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<(), RequestError> {
        let wait = self.wait;
        self.read_by(sector, buffer, &mut |done| wait.until(done))
    }

    /// As [`Disk::read`]; what waits is the caller's. It is called once for each request, and again while the device is not done,
    /// with the question whether it is.
    ///
    /// # Errors
    /// As for [`Disk::read`].
    pub fn read_by(
        &mut self,
        sector: u64,
        buffer: &mut [u8],
        wait: Waits<'_>,
    ) -> Result<(), RequestError> {
        let mut first = checked(sector, buffer)?;
        for part in buffer.chunks_mut(most_of_a_request()) {
            self.disk.read(first, part, &mut *wait)?;
            first = first.checked_add(part.len() / SECTOR).ok_or(Error::InvalidParam)?;
        }
        Ok(())
    }

    /// Writes `buffer`, a whole number of sectors, from number `sector` on, and waits for it.
    ///
    /// # Errors
    /// As for [`Disk::read`]; a disk that refuses to be written gives `IoError`. What was written before is on the disk.
    pub fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<(), RequestError> {
        let mut first = checked(sector, buffer)?;
        let wait = self.wait;
        for part in buffer.chunks(most_of_a_request()) {
            self.disk.write(first, part, &mut |done| wait.until(done))?;
            first = first.checked_add(part.len() / SECTOR).ok_or(Error::InvalidParam)?;
        }
        Ok(())
    }

    /// Has the disk put everything that was written where it stays without power, and waits for that by looking, whatever it waits by
    /// otherwise. Where one may sleep.
    ///
    /// # Errors
    /// What the device says.
    pub fn flush(&mut self) -> Result<(), RequestError> {
        arch::lock::might_sleep("flushing a disk");
        self.disk.notify(Notices::Unwanted);
        let done = self.disk.flush();
        self.disk.notify(self.wait.notices());
        done
    }
}

/// The first sector of a request with `buffer`, as the crate counts.
fn checked(sector: u64, buffer: &[u8]) -> Result<usize, RequestError> {
    if buffer.is_empty() || !buffer.len().is_multiple_of(SECTOR) {
        return Err(RequestError::Device(Error::InvalidParam));
    }
    usize::try_from(sector).map_err(|_| RequestError::Device(Error::InvalidParam))
}

impl fmt::Debug for Disk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("sectors", &self.sectors()).finish_non_exhaustive()
    }
}
