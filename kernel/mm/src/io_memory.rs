//! Memory of devices, owned: bytes that are copied in and out, and code in on-chip memory (S93).
//!
//! ```text
//!   IoMem      registers, by their type     each access one volatile access
//!   IoMemory   bytes, of any Normal type    copied: the device may look at them meanwhile
//!   IoText     code, in on-chip memory      executed, and written by nobody
//! ```
//!
//! All are made and dropped where one may sleep, never in interrupt context (S10, S35), and used in any.

use core::fmt;
use core::ptr;

use arch::machine::Authority;
use kerncore::addr::{PhysAddr, VirtAddr};
use kerncore::attributes::MemoryType;
use kerncore::kernel_space::{IoRemapError, MemRemapError};

use crate::{bus, kernel};

/// Memory at a physical address, mapped for as long as this lives: what `memremap` gives.
///
/// It is copied, never borrowed as a slice: a device may read and write it at any time, and so may another owner, who has a mapping
/// of his own (S57).
#[derive(Debug)]
pub struct IoMemory {
    address: VirtAddr,
    physical: PhysAddr,
    bytes: u32,
}

impl IoMemory {
    /// Maps `bytes` at `physical`, which are no RAM, as `memory`: write-back, write-through or non-cacheable.
    ///
    /// # Errors
    /// [`MemRemapError`]; nothing was taken. RAM is refused whoever owns it: it is had from the allocators.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn map(physical: PhysAddr, bytes: u32, memory: MemoryType) -> Result<Self, MemRemapError> {
        let caller = arch::backtrace::return_address();
        let address = kernel().memremap(physical, bytes, memory, caller)?;
        if kernel().linear().window().contains(address) {
            // There is nothing to end.
            let ram = physical;
            return Err(MemRemapError::Map(IoRemapError::Ram { physical, bytes, ram }));
        }
        Ok(Self { address, physical, bytes })
    }

    /// As [`IoMemory::map`], and of RAM by its linear address, if that is such memory.
    ///
    /// # Safety
    /// What of it is RAM nobody else reads or writes while this lives.
    ///
    /// # Errors
    /// [`MemRemapError`]; nothing was taken.
    #[inline(never)] // as above
    pub unsafe fn map_ram(
        physical: PhysAddr,
        bytes: u32,
        memory: MemoryType,
    ) -> Result<Self, MemRemapError> {
        let caller = arch::backtrace::return_address();
        let address = kernel().memremap(physical, bytes, memory, caller)?;
        Ok(Self { address, physical, bytes })
    }

    /// Where it is mapped.
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// Where it lies on the bus.
    pub const fn physical(&self) -> PhysAddr {
        self.physical
    }

    /// Its size in bytes, which is not zero.
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Copies as much of `from` to `offset` and behind as fits, and says how much.
    pub fn write(&mut self, offset: u32, from: &[u8]) -> usize {
        let (start, count) = self.within(offset, from.len());
        for (index, &byte) in from.iter().take(count).enumerate() {
            // SAFETY: the place is one of the bytes that are mapped, writable, until this is dropped; they are no Rust object's:
            // no RAM, or lent to this by the promise of `map_ram`. A volatile access may meet the device's.
            unsafe { start.wrapping_add(index).write_volatile(byte) };
        }
        count
    }

    /// Copies as much of what lies at `offset` and behind into `to` as there is, and says how much.
    pub fn read(&self, offset: u32, to: &mut [u8]) -> usize {
        let (start, count) = self.within(offset, to.len());
        for (index, byte) in to.iter_mut().take(count).enumerate() {
            // SAFETY: as in `write`; the bytes can be read, too.
            *byte = unsafe { start.wrapping_add(index).read_volatile() };
        }
        count
    }

    /// Where the byte at `offset` is, and how many there are from there on, of no more than `wanted`.
    fn within(&self, offset: u32, wanted: usize) -> (*mut u8, usize) {
        let left = self.bytes.saturating_sub(offset) as usize;
        let start = ptr::with_exposed_provenance_mut::<u8>(self.address.raw() as usize);
        (start.wrapping_add(offset as usize), left.min(wanted))
    }
}

impl Drop for IoMemory {
    fn drop(&mut self) {
        // SAFETY: the owner is going, and nobody else was shown an address of its own.
        let authority = unsafe { Authority::claim() };
        if let Err(error) = kernel().memunmap(authority, self.address) {
            log::error!("memory of a device could not be unmapped: {error}");
        }
    }
}

/// Code in on-chip memory, executed and written by nobody for as long as this lives: what `ioremap_exec` gives.
#[derive(Debug)]
pub struct IoText {
    address: VirtAddr,
    physical: PhysAddr,
}

/// Why code was not put into on-chip memory and mapped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It may not be executed there; nothing was written.
    Execute(MemRemapError),
    /// It may be executed there, but not be written first; nothing was.
    Write(MemRemapError),
    /// It was written; then somebody else began to use the memory otherwise, or there was no room.
    Again(MemRemapError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Execute(error) => error.fmt(f),
            Self::Write(error) => write!(f, "code could not be written: {error}"),
            Self::Again(error) => write!(f, "code was written, and is not mapped: {error}"),
        }
    }
}

impl core::error::Error for LoadError {}

impl IoText {
    /// Maps `bytes` of on-chip memory at `physical`, with the code that lies there.
    ///
    /// # Errors
    /// [`MemRemapError`]; nothing was taken. Memory that is mapped to be written is refused (S112).
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn map(physical: PhysAddr, bytes: u32) -> Result<Self, MemRemapError> {
        Self::map_for(physical, bytes, arch::backtrace::return_address())
    }

    /// Puts `code` into on-chip memory at `physical`, and maps it there.
    ///
    /// # Errors
    /// [`LoadError`]; nothing was taken.
    #[inline(never)] // as above
    pub fn load(physical: PhysAddr, code: &[u8]) -> Result<Self, LoadError> {
        let caller = arch::backtrace::return_address();
        let bytes = u32::try_from(code.len()).unwrap_or(u32::MAX);
        // Before anything is written: is it on-chip memory?
        drop(Self::map_for(physical, bytes, caller).map_err(LoadError::Execute)?);
        let memory = IoMemory::map(physical, bytes, MemoryType::NormalNonCacheable);
        memory.map_err(LoadError::Write)?.write(0, code);
        Self::map_for(physical, bytes, caller).map_err(LoadError::Again)
    }

    fn map_for(physical: PhysAddr, bytes: u32, caller: VirtAddr) -> Result<Self, MemRemapError> {
        let address = kernel().ioremap_exec((physical, bytes), bus::on_chip(), caller)?;
        Ok(Self { address, physical })
    }

    /// The first byte's address. To call it is `unsafe` as every pointer is, and ends before this value does; a CPU that
    /// learned of the address by polling, and not by an interrupt, executes an ISB first.
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// Where it lies on the bus.
    pub const fn physical(&self) -> PhysAddr {
        self.physical
    }
}

impl Drop for IoText {
    fn drop(&mut self) {
        // SAFETY: the owner is going, and whoever executed the code promised not to any more.
        let authority = unsafe { Authority::claim() };
        if let Err(error) = kernel().iounmap(authority, self.address) {
            log::error!("code in on-chip memory could not be unmapped: {error}");
        }
    }
}
