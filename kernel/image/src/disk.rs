//! The main job: every sector of the first disk, by the device's DMA, into one digest.

use core::fmt::{self, Write};

use board::vexpress_a9::VIRTIO_SLOTS;
use drivers::virtio::block::{self, Disk, DiskError, ReadError, SECTOR};
use mm::io_mem::{IoMem, IoMemError};
use sha2::{Digest, Sha256};

/// Why there is no digest.
#[derive(Debug)]
pub(crate) enum DigestError {
    /// No slot holds a disk.
    NoDisk,
    /// A slot's registers could not be mapped.
    Registers(IoMemError),
    /// The disk did not come up.
    Disk(DiskError),
    /// A sector could not be read.
    Read {
        /// Its number.
        sector: u64,
        /// What the device said.
        error: ReadError,
    },
    /// The console took no more text.
    Console,
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDisk => f.write_str("no disk: no virtio slot holds a block device"),
            Self::Registers(error) => error.fmt(f),
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
    for (number, slot) in VIRTIO_SLOTS.iter().enumerate() {
        let mut registers = IoMem::map(slot.base).map_err(DigestError::Registers)?;
        if block::is_disk(&mut registers) {
            let mut disk = Disk::new(&mut registers).map_err(DigestError::Disk)?;
            writeln!(out, "disk: virtio slot {number}, {} sectors", disk.sectors())?;
            return digest_of(&mut disk, out);
        }
    }
    Err(DigestError::NoDisk)
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
