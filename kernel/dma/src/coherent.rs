//! Coherent buffers: what a device writes the processor reads, without cache maintenance.
//!
//! [`allocate`] and [`free`] are the functions under every name; [`CoherentBox`] and [`Coherent`] are the owners that
//! Rust code holds. A box is the processor's alone and reads as a slice; [`CoherentBox::share`] makes it a [`Coherent`]
//! that a device may write at any time, and which therefore is copied in and out, never borrowed.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::slice;

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PageRange, PhysAddr, VirtAddr, pages_for};
use kerncore::coherent::{BackEnd, ContiguousRegion, Sleep};
use kerncore::frames::{self, FrameOwner, Freed, order_for};
use kerncore::kernel_space::{CoherentError, RemoveError, ShareError};
use kerncore::layout::{linear_address, linear_physical};
use kerncore::pool;
use kerncore::user::ShowError;
use mm::report::dump_stack;
use mm::user::AddressSpace;

use crate::atomic_pool::{self, PoolError, PoolFreeError};
use crate::device::Device;

/// Where a buffer lies, for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// For the processor.
    pub address: VirtAddr,
    /// For the device.
    pub dma: DmaAddr,
}

/// Why there is no buffer. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateError {
    /// A size of zero.
    ZeroSize,
    /// The atomic pool has none.
    Pool(PoolError),
    /// No contiguous memory, of the region or by remapping, or no addresses.
    Remap(CoherentError),
    /// No contiguous memory.
    Simple(frames::AllocateError),
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("a size of zero"),
            Self::Pool(error) => error.fmt(f),
            Self::Remap(error) => error.fmt(f),
            Self::Simple(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for AllocateError {}

/// Why a buffer was not freed. Nothing has changed; the error was printed, with a backtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The atomic pool knows the address and refuses (S74).
    Pool(pool::FreeError),
    /// No coherent buffer begins there (S67).
    Invalid(RemoveError),
    /// Not memory that a coherent device was given.
    Simple(frames::FreeError),
    /// The address is not the device's view of the buffer.
    Handle {
        /// The buffer.
        address: VirtAddr,
        /// Where the device should see it.
        wanted: DmaAddr,
        /// What was given.
        given: DmaAddr,
    },
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(error) => error.fmt(f),
            Self::Invalid(error) => error.fmt(f),
            Self::Simple(error) => error.fmt(f),
            Self::Handle { address, wanted, given } => {
                write!(f, "the buffer at {address} is the device's {wanted}, not {given}")
            }
        }
    }
}

impl core::error::Error for FreeError {}

/// Whether a contiguous region was set aside at boot (S101). It never changes after that.
fn region() -> ContiguousRegion {
    if mm::kernel().contiguous().is_some() {
        ContiguousRegion::Present
    } else {
        ContiguousRegion::Absent
    }
}

/// Takes a buffer of at least `bytes` for `device`, rounded up to pages, in the name of `caller`. With [`Sleep::MayNot`]
/// any context will do (S77), and the memory holds whatever it held (S85); with [`Sleep::May`] it is zeroed.
///
/// # Errors
/// [`AllocateError`]; nothing was taken.
pub fn allocate(
    device: &Device,
    bytes: u32,
    sleep: Sleep,
    caller: VirtAddr,
) -> Result<Buffer, AllocateError> {
    if bytes == 0 {
        return Err(AllocateError::ZeroSize);
    }
    let (address, physical) = match BackEnd::for_request(device.coherency(), region(), sleep) {
        BackEnd::AtomicPool => {
            let buffer = atomic_pool::allocate(bytes).map_err(AllocateError::Pool)?;
            (buffer.address, buffer.physical)
        }
        BackEnd::Remap => {
            let area = mm::kernel().coherent_alloc(bytes, FrameOwner::Dma, caller);
            let area = area.map_err(AllocateError::Remap)?;
            (area.pages.start(), area.physical)
        }
        BackEnd::Contiguous => {
            let area = mm::kernel().contiguous_alloc(bytes, FrameOwner::Dma, caller);
            let area = area.map_err(AllocateError::Remap)?;
            (area.pages.start(), area.physical)
        }
        BackEnd::Simple => {
            if sleep == Sleep::May {
                arch::lock::might_sleep("dma_alloc_coherent");
            }
            simple_alloc(bytes).map_err(AllocateError::Simple)?
        }
    };
    Ok(Buffer { address, dma: device.dma_address(physical) })
}

/// As [`allocate`] of what the atomic pool has at once; otherwise `None`, nothing was taken, and [`allocate`] goes on or says
/// why not.
#[inline(always)]
pub fn take(device: &Device, bytes: u32, sleep: Sleep) -> Option<Buffer> {
    // What has to be found at once does not depend on the region.
    match BackEnd::for_request(device.coherency(), ContiguousRegion::Absent, sleep) {
        BackEnd::AtomicPool => {
            let buffer = atomic_pool::take(bytes)?;
            let dma = device.dma_address(buffer.physical);
            Some(Buffer { address: buffer.address, dma })
        }
        BackEnd::Remap | BackEnd::Contiguous | BackEnd::Simple => None,
    }
}

/// Gives a buffer back. A buffer of the atomic pool may be freed in any context, others where one may sleep.
///
/// A wrong `bytes` of a remapped buffer is printed, and the buffer's own size counts (S65); the pool's buffers and those of
/// devices that snoop are refused then (S74). A wrong `dma` is refused.
///
/// # Errors
/// [`FreeError`]; nothing has changed.
///
/// # Safety
/// If a buffer lies there, nobody uses it any more: neither the processor, by a reference or an owner such as
/// [`CoherentBox`], nor a device.
pub unsafe fn free(
    device: &Device,
    bytes: u32,
    address: VirtAddr,
    dma: DmaAddr,
) -> Result<(), FreeError> {
    // The pool is asked first, always (S75).
    match atomic_pool::free(address, bytes, device.physical_address(dma)) {
        Ok(()) => return Ok(()),
        Err(PoolFreeError::NotMine) => {}
        Err(PoolFreeError::Elsewhere { wanted }) => {
            return Err(wrong_handle(device, address, wanted, dma));
        }
        Err(PoolFreeError::Refused(error)) => return Err(FreeError::Pool(error)),
    }
    // SAFETY: our caller promises that nobody uses the buffer, the device included.
    let authority = unsafe { Authority::claim() };
    match BackEnd::for_sleeper(device.coherency(), region()) {
        BackEnd::Simple => simple_free(authority, device, bytes, address, dma),
        BackEnd::Remap | BackEnd::Contiguous | BackEnd::AtomicPool => {
            remap_free(authority, device, bytes, address, dma)
        }
    }
}

/// As [`free`] of what the atomic pool takes back at once. Otherwise nothing was changed, and [`free`] goes on or says why not.
///
/// # Safety
/// As for [`free`].
#[inline(always)]
pub unsafe fn give_back(device: &Device, bytes: u32, address: VirtAddr, dma: DmaAddr) -> Freed {
    atomic_pool::give_back(address, bytes, device.physical_address(dma))
}

fn remap_free(
    authority: Authority,
    device: &Device,
    bytes: u32,
    address: VirtAddr,
    dma: DmaAddr,
) -> Result<(), FreeError> {
    let physical = device.physical_address(dma);
    let freed = mm::kernel().coherent_free_at(authority, address, physical, bytes);
    let freed = match freed {
        Ok(freed) => freed,
        Err(RemoveError::Elsewhere { found, .. }) => {
            return Err(wrong_handle(device, address, found, dma));
        }
        Err(error) => {
            invalid(address, &error);
            return Err(FreeError::Invalid(error));
        }
    };
    if freed.actual != freed.given {
        let (actual, given) = (u64::from(freed.actual) << 12, u64::from(freed.given) << 12);
        log::error!("freeing wrong coherent size ({actual} != {given})");
        dump_stack();
    }
    if freed.missing != 0 {
        log::error!("DMA: {} pages of the buffer at {address} were not mapped", freed.missing);
    }
    Ok(())
}

#[cold]
fn invalid(address: VirtAddr, why: &dyn fmt::Display) {
    log::error!("trying to free invalid coherent area: {address}");
    log::error!("DMA: {why}");
    dump_stack();
}

#[cold]
fn wrong_handle(
    device: &Device,
    address: VirtAddr,
    physical: PhysAddr,
    given: DmaAddr,
) -> FreeError {
    let error = FreeError::Handle { address, wanted: device.dma_address(physical), given };
    log::error!("DMA: {error}");
    dump_stack();
    error
}

/// Memory for a device that snoops: frames at their linear addresses, zeroed.
fn simple_alloc(bytes: u32) -> Result<(VirtAddr, PhysAddr), frames::AllocateError> {
    let order = order_for(pages_for(bytes));
    let (first, _) = mm::kernel().zeroed_frames(order, FrameOwner::Pages)?.leak();
    let address = linear_address(first.base()).expect("low memory was asked for");
    Ok((address, first.base()))
}

fn simple_free(
    authority: Authority,
    device: &Device,
    bytes: u32,
    address: VirtAddr,
    dma: DmaAddr,
) -> Result<(), FreeError> {
    let unknown = |error: RemoveError| {
        invalid(address, &error);
        FreeError::Invalid(error)
    };
    if !address.is_page_aligned() {
        return Err(unknown(RemoveError::Misaligned { address }));
    }
    let Some(physical) = linear_physical(address) else {
        return Err(unknown(RemoveError::Unknown { address }));
    };
    if device.dma_address(physical) != dma {
        return Err(wrong_handle(device, address, physical, dma));
    }
    let order = order_for(pages_for(bytes));
    let kernel = mm::kernel();
    let freed = kernel.free_frames_at(authority, physical.pfn(), order, FrameOwner::Pages);
    freed.map_err(|error| {
        invalid(address, &error);
        FreeError::Simple(error)
    })
}

/// Shows a buffer that [`allocate`] gave a device, from its page `offset` on, in all of the reserved window of `space` that begins
/// at `start` (S78). Until that window ends, the buffer cannot be freed. Only buffers of their own area can be shown: those of the
/// atomic pool were never zeroed and share their area, and those of devices that snoop have none.
///
/// # Errors
/// [`ShowError`]; nothing is mapped if the window does not lie in the buffer.
pub fn show(
    device: &Device,
    space: &AddressSpace,
    start: VirtAddr,
    (buffer, bytes): (Buffer, u32),
    offset: u32,
) -> Result<(), ShowError> {
    let area = pages_for(bytes);
    let window = space.window_of(start).map_or(0, PageRange::count);
    // Of what the caller says the buffer has, and then of what it has: subtracted, never added.
    if window != 0 && (offset >= area || window > area - offset) {
        return Err(ShowError::Share(ShareError::Outside { area, offset, window }));
    }
    space.show_coherent(start, buffer.address, device.physical_address(buffer.dma), offset)
}

/// The memory of a buffer, as the processor reaches it.
fn memory(buffer: Buffer, bytes: u32) -> (*mut u8, usize) {
    let start = ptr::with_exposed_provenance_mut(buffer.address.raw() as usize);
    (start, bytes as usize)
}

/// A coherent buffer that no device uses yet, or any more.
#[derive(Debug)]
pub struct CoherentBox {
    device: &'static Device,
    buffer: Buffer,
    bytes: u32,
}

impl CoherentBox {
    /// A zeroed buffer of `bytes` for `device`. Where one may sleep.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn new(device: &'static Device, bytes: u32) -> Result<Self, AllocateError> {
        let caller = arch::backtrace::return_address();
        let buffer = allocate(device, bytes, Sleep::May, caller)?;
        Ok(Self { device, buffer, bytes })
    }

    /// A buffer of `bytes` for `device`, with whatever it held before. Any context.
    ///
    /// # Errors
    /// [`AllocateError`]; nothing was taken.
    #[inline(never)] // as in `new`
    pub fn new_atomic(device: &'static Device, bytes: u32) -> Result<Self, AllocateError> {
        let caller = arch::backtrace::return_address();
        let buffer = allocate(device, bytes, Sleep::MayNot, caller)?;
        Ok(Self { device, buffer, bytes })
    }

    /// Where the device will see it.
    pub const fn dma_address(&self) -> DmaAddr {
        self.buffer.dma
    }

    /// Where the processor sees it.
    pub const fn address(&self) -> VirtAddr {
        self.buffer.address
    }

    /// Hands the buffer to the device.
    pub const fn share(self) -> Coherent {
        Coherent(self)
    }
}

impl Deref for CoherentBox {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = memory(self.buffer, self.bytes);
        // SAFETY: the buffer is mapped, readable and writable, until this is dropped; it was handed out to this owner
        // alone, and no device was told of it; `&self` keeps writers out.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl DerefMut for CoherentBox {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = memory(self.buffer, self.bytes);
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

impl Drop for CoherentBox {
    fn drop(&mut self) {
        let Self { device, buffer, bytes } = self;
        // What goes wrong is printed by `free`.
        // SAFETY: the buffer was this owner's alone and goes with it. No device has it: none was told of it, or it was reclaimed
        // from the one that was, or whoever drops a `Coherent` has stopped that one.
        let _printed = unsafe { free(device, *bytes, buffer.address, buffer.dma) };
    }
}

/// A coherent buffer that a device may read and write at any time. Whoever tells a device of it stops the device before
/// dropping it.
#[derive(Debug)]
pub struct Coherent(CoherentBox);

impl Coherent {
    /// Where the device sees it.
    pub const fn dma_address(&self) -> DmaAddr {
        self.0.buffer.dma
    }

    /// Where the processor sees it.
    pub const fn address(&self) -> VirtAddr {
        self.0.buffer.address
    }

    /// Its size in bytes.
    pub const fn len(&self) -> usize {
        self.0.bytes as usize
    }

    /// Whether it has no bytes; there is no such buffer.
    pub const fn is_empty(&self) -> bool {
        self.0.bytes == 0
    }

    /// Copies as much of `from` into the buffer as fits, from its start, and says how much.
    pub fn write(&mut self, from: &[u8]) -> usize {
        let (start, bytes) = memory(self.0.buffer, self.0.bytes);
        let count = bytes.min(from.len());
        for (index, &byte) in from.iter().take(count).enumerate() {
            // SAFETY: `index` is less than the buffer's size.
            let place = unsafe { start.add(index) };
            // SAFETY: the place is mapped and writable; a volatile access may meet the device's.
            unsafe { place.write_volatile(byte) };
        }
        count
    }

    /// Copies as much of the buffer into `to` as fits, from its start, and says how much.
    pub fn read(&self, to: &mut [u8]) -> usize {
        let (start, bytes) = memory(self.0.buffer, self.0.bytes);
        let count = bytes.min(to.len());
        for (index, byte) in to.iter_mut().take(count).enumerate() {
            // SAFETY: `index` is less than the buffer's size.
            let place = unsafe { start.add(index) };
            // SAFETY: the place is mapped and readable; a volatile access may meet the device's.
            *byte = unsafe { place.read_volatile() };
        }
        count
    }

    /// Shows the buffer to a program, as [`show`] does. The program's windows must end before this is dropped; otherwise that says
    /// so, and the buffer stays out of use.
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show(
        &self,
        space: &AddressSpace,
        start: VirtAddr,
        offset: u32,
    ) -> Result<(), ShowError> {
        let CoherentBox { device, buffer, bytes } = &self.0;
        show(device, space, start, (*buffer, *bytes), offset)
    }

    /// Takes the buffer back from the device.
    ///
    /// # Safety
    /// The device has finished with the buffer and will not touch it again.
    pub unsafe fn reclaim(self) -> CoherentBox {
        self.0
    }
}
