//! Device registers, owned and typed.
//!
//! A driver is handed an [`IoMem`] and never sees an address. The registers are reached through
//! [`safe_mmio::UniqueMmioPointer`], whose every access is one volatile access of the register's width (S98).
//!
//! | made by | memory type | as the C name (S93) |
//! |---|---|---|
//! | [`IoMem::map`] | Device | `ioremap` |
//! | [`IoMem::map_shared`] | Device | `ioremap_shared` |
//! | [`IoMem::map_non_posted`] | Strongly-ordered | `ioremap_np` |
//! | [`IoMem::map_combining`] | Normal, non-cacheable | `ioremap_wc` |
//!
//! What is no register is [`crate::io_memory`]'s: bytes, and code.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use arch::machine::Authority;
use kerncore::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::kernel_space::IoRemapError;
use safe_mmio::UniqueMmioPointer;
use zerocopy::{FromBytes, Immutable};

use crate::kernel;

/// Why registers were not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMemError {
    /// The block is not aligned as its registers must be.
    Misaligned {
        /// Where it lies.
        physical: PhysAddr,
        /// What it must be a multiple of.
        alignment: usize,
    },
    /// The mapping was refused.
    Map(IoRemapError),
}

impl fmt::Display for IoMemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { physical, alignment } => {
                write!(f, "registers at {physical} must be aligned to {alignment} bytes")
            }
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for IoMemError {}

/// A block of registers of type `T`, mapped for as long as this lives.
///
/// The mapping may be its own, or one that it shares: then each of those who share it has an `IoMem` like this one, they go in
/// whatever order, and the last takes the mapping along. No use can be given up twice, since it goes with its owner.
///
/// Made where one may sleep; used in any context.
#[derive(Debug)]
pub struct IoMem<T> {
    address: VirtAddr,
    physical: PhysAddr,
    registers: PhantomData<T>,
}

impl<T: FromBytes + Immutable> IoMem<T> {
    /// Maps the block of registers at `physical`. It need not lie on a page boundary. A `T` that is to be aligned to more than a
    /// page is no block of registers, and does not compile.
    ///
    /// Which block lies where is the board's to say; two owners of one block each get a mapping of their own (S57).
    ///
    /// # Errors
    /// [`IoMemError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn map(physical: PhysAddr) -> Result<Self, IoMemError> {
        let caller = arch::backtrace::return_address();
        Self::mapped(physical, |bytes| {
            kernel().ioremap(physical, bytes, Attributes::DEVICE, caller)
        })
    }

    /// As [`IoMem::map`], by a mapping that is shared with others who ask so for registers in the same pages, as those of several
    /// devices may be (S58, S59).
    ///
    /// # Errors
    /// [`IoMemError`]; nothing was taken.
    #[inline(never)] // as above
    pub fn map_shared(physical: PhysAddr) -> Result<Self, IoMemError> {
        let caller = arch::backtrace::return_address();
        Self::mapped(physical, |bytes| {
            kernel().ioremap_shared(physical, bytes, Attributes::DEVICE, caller)
        })
    }

    /// As [`IoMem::map`], of registers whose writes are complete before the next access begins.
    ///
    /// # Errors
    /// [`IoMemError`]; nothing was taken.
    #[inline(never)] // as above
    pub fn map_non_posted(physical: PhysAddr) -> Result<Self, IoMemError> {
        let caller = arch::backtrace::return_address();
        Self::mapped(physical, |bytes| {
            kernel().ioremap(physical, bytes, Attributes::STRONGLY_ORDERED, caller)
        })
    }

    /// As [`IoMem::map`], of what bears that its writes are merged and put in another order: the pixels of a screen.
    ///
    /// # Errors
    /// [`IoMemError`]; nothing was taken.
    #[inline(never)] // as above
    pub fn map_combining(physical: PhysAddr) -> Result<Self, IoMemError> {
        let caller = arch::backtrace::return_address();
        Self::mapped(physical, |bytes| {
            kernel().ioremap(physical, bytes, Attributes::WRITE_COMBINE, caller)
        })
    }

    fn mapped(
        physical: PhysAddr,
        map: impl FnOnce(u32) -> Result<VirtAddr, IoRemapError>,
    ) -> Result<Self, IoMemError> {
        // A mapping keeps the offset in a page, and no more: what is shared, or was mapped at boot, may begin at any page.
        const { assert!(align_of::<T>() <= PAGE_SIZE as usize, "no registers need more than a page") };
        let alignment = align_of::<T>();
        if !physical.raw().is_multiple_of(u32::try_from(alignment).unwrap_or(u32::MAX)) {
            return Err(IoMemError::Misaligned { physical, alignment });
        }
        let bytes = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
        let address = map(bytes).map_err(IoMemError::Map)?;
        Ok(Self { address, physical, registers: PhantomData })
    }

    /// The registers.
    pub fn registers(&mut self) -> UniqueMmioPointer<'_, T> {
        let pointer = self.pointer();
        // SAFETY: the block is mapped, and never cached, from its first to its last byte, aligned (checked in `mapped`), until
        // this is dropped; `&mut self` makes the pointer unique. Any bits are a valid `T`.
        unsafe { UniqueMmioPointer::new(pointer) }
    }

    /// The registers of a device that stays for good; the mapping is never given back.
    pub fn leak(self) -> UniqueMmioPointer<'static, T> {
        let pointer = self.pointer();
        core::mem::forget(self);
        // SAFETY: as in `registers`; the owner is forgotten, so that the mapping lives for good and nobody else points to it.
        unsafe { UniqueMmioPointer::new(pointer) }
    }
}

impl<T> IoMem<T> {
    /// Where the registers are mapped.
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// Where they lie on the bus.
    pub const fn physical(&self) -> PhysAddr {
        self.physical
    }

    fn pointer(&self) -> NonNull<T> {
        let address = ptr::with_exposed_provenance_mut(self.address.raw() as usize);
        // An address in the vmalloc window is never null.
        NonNull::new(address).unwrap_or(NonNull::dangling())
    }
}

impl<T> Drop for IoMem<T> {
    fn drop(&mut self) {
        // SAFETY: the owner is going, so no pointer to its registers lives. Who shares the mapping has a use of his own.
        let authority = unsafe { Authority::claim() };
        if let Err(error) = kernel().iounmap(authority, self.address) {
            log::error!("registers could not be unmapped: {error}");
        }
    }
}
