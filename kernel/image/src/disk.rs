//! The main job: every sector of the first disk, by the device's DMA, into one digest.

use core::fmt::{self, Write};

use board::vexpress_a9::{VIRTIO_INTERRUPTS, VIRTIO_SLOTS};
use drivers::interrupts::InterruptError;
use drivers::virtio::block::{self, Disk, SECTOR};
use drivers::virtio::completion::Completion;
use drivers::virtio::{DeviceError, RequestError, Wait};
use mm::io_mem::{IoMem, IoMemError};
use sha2::{Digest, Sha256};
use virtio_hal::Slot;

/// Why there is no digest.
#[derive(Debug)]
pub(crate) enum DigestError {
    /// No slot holds a disk.
    NoDisk,
    /// A slot's registers could not be mapped.
    Registers(IoMemError),
    /// The disk's interrupt could not be had.
    Interrupt(InterruptError),
    /// The disk did not come up.
    Disk(DeviceError),
    /// A sector could not be read.
    Read {
        /// Its number.
        sector: u64,
        /// What the device said.
        error: RequestError,
    },
    /// The console took no more text.
    Console,
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDisk => f.write_str("no disk: no virtio slot holds a block device"),
            Self::Registers(error) => error.fmt(f),
            Self::Interrupt(error) => write!(f, "no interrupt for the disk: {error}"),
            Self::Disk(error) => write!(f, "the disk did not come up: {error}"),
            Self::Read { sector, error } => write!(f, "sector {sector} could not be read: {error}"),
            Self::Console => f.write_str("the console takes no more text"),
        }
    }
}

impl From<fmt::Error> for DigestError {
    fn from(_: fmt::Error) -> Self {
        Self::Console
    }
}

/// Reads the first disk, sector by sector, and prints how it goes and the digest.
pub(crate) fn digest(out: &mut impl Write) -> Result<(), DigestError> {
    for (number, (slot, interrupt)) in VIRTIO_SLOTS.iter().zip(VIRTIO_INTERRUPTS).enumerate() {
        let map = || IoMem::map(slot.base).map_err(DigestError::Registers);
        let mut registers = map()?;
        if block::is_disk(&mut registers) {
            let line = interrupt.id();
            COMPLETION.listen(map()?, line).map_err(DigestError::Interrupt)?;
            let digest = digest_in(&mut registers, number, out);
            let stopped = COMPLETION.stop(line).map_err(DigestError::Interrupt);
            return digest.and(stopped);
        }
    }
    Err(DigestError::NoDisk)
}

/// The interrupt of the disk that is read.
static COMPLETION: Completion = Completion::new();

fn digest_in(
    registers: &mut IoMem<Slot>,
    number: usize,
    out: &mut impl Write,
) -> Result<(), DigestError> {
    let mut disk = Disk::new(registers, Wait::Interrupt).map_err(DigestError::Disk)?;
    writeln!(out, "disk: virtio slot {number}, {} sectors", disk.sectors())?;
    digest_of(&mut disk, out)
}

fn digest_of(disk: &mut Disk<'_>, out: &mut impl Write) -> Result<(), DigestError> {
    let sectors = disk.sectors();
    let mut hash = Sha256::new();
    let mut buffer = [0; SECTOR];
    let mut quarters = 0;
    for sector in 0..sectors {
        disk.read(sector, &mut buffer).map_err(|error| DigestError::Read { sector, error })?;
        hash.update(buffer);
        let done = (sector + 1) * 4 / sectors;
        if done > quarters {
            quarters = done;
            writeln!(out, "read: {:>3} %, {} sectors", quarters * 25, sector + 1)?;
        }
    }
    write!(out, "SHA-256: ")?;
    hash.finalize().iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
    writeln!(out)?;
    Ok(())
}
