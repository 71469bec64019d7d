//! A disk.

use core::fmt;

use safe_mmio::field_shared;
pub use virtio_drivers::Error as ReadError;
use virtio_drivers::Error;
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_hal::{CoherentHal, Slot};

use super::transport::{SlotError, SlotTransport};
use mm::io_mem::IoMem;

/// The device number of a disk (Virtio 1.2, 5.2).
const BLOCK: u32 = 2;

/// Bytes in a sector.
pub const SECTOR: usize = SECTOR_SIZE;

/// The most bytes of one request: one whose buffer the device cannot have in place is copied, and bounce buffers are scarce.
const REQUEST: usize = 64 << 10;

/// Why there is no disk in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The slot gives no transport.
    Slot(SlotError),
    /// The device did not come up.
    Device(Error),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DiskError {}

/// Whether the device in a slot is a disk.
pub fn is_disk(slot: &mut IoMem<Slot>) -> bool {
    field_shared!(slot.registers(), device_id).read() == BLOCK
}

/// How requests are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// By looking into the ring all the time. Any context.
    Polling,
    /// Asleep, until an interrupt comes: the slot has a [`Completion`](super::completion::Completion). Where one may
    /// sleep.
    Interrupt,
}

impl Wait {
    fn until(self, done: &mut dyn FnMut() -> bool) {
        match self {
            Self::Polling => core::hint::spin_loop(),
            Self::Interrupt => arch::cpu::wait_until(done),
        }
    }
}

/// A disk. Its rings are coherent memory; requests are waited for.
pub struct Disk<'a> {
    disk: VirtIOBlk<CoherentHal, SlotTransport<'a>>,
    wait: Wait,
}

impl<'a> Disk<'a> {
    /// Brings the disk in `slot` up, whose requests will be waited for by `wait`. Where one may sleep.
    ///
    /// # Errors
    /// [`DiskError`]; the device is reset and its memory freed.
    pub fn new(slot: &'a mut IoMem<Slot>, wait: Wait) -> Result<Self, DiskError> {
        let transport = SlotTransport::new(slot.registers()).map_err(DiskError::Slot)?;
        let mut disk = VirtIOBlk::new(transport).map_err(DiskError::Device)?;
        match wait {
            Wait::Polling => disk.disable_interrupts(),
            Wait::Interrupt => disk.enable_interrupts(),
        }
        Ok(Self { disk, wait })
    }

    /// Sectors on the disk.
    pub fn sectors(&self) -> u64 {
        self.disk.capacity()
    }

    /// Whether it refuses to be written.
    pub fn is_read_only(&self) -> bool {
        self.disk.readonly()
    }

    /// Reads the sectors from number `sector` on into `buffer`, a whole number of them, and waits for it.
    ///
    /// # Errors
    /// What the device says, such as a sector that it does not have; `InvalidParam` for a buffer that is empty or not
    /// whole sectors. The buffer then holds what was read before.
    pub fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<(), Error> {
        if buffer.is_empty() || !buffer.len().is_multiple_of(SECTOR) {
            return Err(Error::InvalidParam);
        }
        let sector = usize::try_from(sector).map_err(|_| Error::InvalidParam)?;
        let mut first = sector;
        for part in buffer.chunks_mut(REQUEST) {
            virtio_hal::read_blocks(&mut self.disk, first, part, |done| self.wait.until(done))?;
            first = first.checked_add(part.len() / SECTOR).ok_or(Error::InvalidParam)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Disk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("sectors", &self.sectors()).finish_non_exhaustive()
    }
}
