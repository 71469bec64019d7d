//! Coherent buffers: what a device writes the processor reads, without cache maintenance.
//!
//! [`allocate`] and [`free`] are the functions under every name; [`CoherentBox`] and [`Coherent`] are the owners that
//! Rust code holds. A box is the processor's alone and reads as a slice; [`CoherentBox::share`] makes it a [`Coherent`]
//! that a device may write at any time, and which therefore is copied in and out, never borrowed.

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::area::AreaSummary;
use kerncore::coherent::{BackEnd, Coherency, ContiguousRegion, Sleep};
use kerncore::dma_mask::DmaMask;
use kerncore::frames::{self, FrameOwner, FrameRequest, Freed};
use kerncore::holder::{Holder, Tag};
use kerncore::kernel_space::{CoherentError, CoherentFreed, RemoveError};
use kerncore::layout::linear_physical;
use mm::report::dump_stack;

use crate::atomic_pool::{self, PoolError, PoolFreeError};
use crate::attributes;
pub use crate::coherent_owners::{Coherent, CoherentBox};
use crate::declared::{Declared, DeclaredFreeError};
use crate::device::Device;
pub use crate::error::{AllocateError, Found, FreeError};
use crate::error::{invalid, seen_by_another, wrong_handle, wrong_view};
use crate::iommu::{buffers, coherent as view, scattered};
pub use crate::shown::{first_frame, show};
use crate::{debug, direct, pool_growth};

/// Where a buffer lies, for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// For the processor.
    pub address: VirtAddr,
    /// For the device.
    pub dma: DmaAddr,
}

/// Whether a contiguous region was set aside at boot (S101), all of which the device reaches (S100).
pub(crate) fn region(device: &Device) -> ContiguousRegion {
    match mm::kernel().contiguous() {
        Some(region) => {
            let first = device.dma_address(region.first().base());
            // All of RAM is less than the processor's addresses.
            let bytes = region.pages().saturating_mul(PAGE_SIZE);
            let mask = device.coherent_mask();
            let whole = device.iommu().is_some() || mask.reaches(first, bytes);
            if whole { ContiguousRegion::Present } else { ContiguousRegion::Absent }
        }
        None => ContiguousRegion::Absent,
    }
}

/// Where a buffer of a device without memory of its own comes from.
pub(crate) fn back_end(device: &Device, sleep: Sleep) -> BackEnd {
    BackEnd::for_request(device.coherency(), region(device), sleep)
}

/// Whether memory of `device` there has no mapping of its own: it is the atomic pool's, the device's own, or the linear map's. A device that
/// snoops has no other, but behind an IOMMU, where scattered frames have one.
pub(crate) fn lies_in_shared_memory(device: &Device, address: VirtAddr) -> bool {
    (device.coherency() == Coherency::Coherent
        && (device.iommu().is_none() || linear_physical(address).is_some()))
        || atomic_pool::contains(address)
        || device.declared().is_some_and(|declared| declared.contains(address))
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
    let taken = allocate_quietly(device, bytes, sleep, caller);
    taken.inspect_err(|error| error.complain(device, bytes))
}

/// As [`allocate`], without a word about a pool that has nothing (S99): [`AllocateError::complain`] has them.
///
/// # Errors
/// [`AllocateError`]; nothing was taken.
pub fn allocate_quietly(
    device: &Device,
    bytes: u32,
    sleep: Sleep,
    caller: VirtAddr,
) -> Result<Buffer, AllocateError> {
    allocate_marked(device, bytes, sleep, caller, Tag::NONE)
}

/// As [`allocate_quietly`], of what listings show with the marks of `marks`.
#[inline(always)]
pub(crate) fn allocate_marked(
    device: &Device,
    bytes: u32,
    sleep: Sleep,
    caller: VirtAddr,
    marks: Tag,
) -> Result<Buffer, AllocateError> {
    let Some(tag) = device.takes_any_pool_memory().filter(|_| bytes != 0 && sleep == Sleep::May)
    else {
        return allocate_otherwise(device, bytes, sleep, caller, marks);
    };
    // Most devices, and most of their buffers: any low frame will do.
    let holder = Holder { caller, tag: tag.with(marks), since: mm::clock::now() };
    let kernel = mm::kernel();
    let area = match kernel.contiguous() {
        None => kernel.coherent_alloc(bytes, FrameOwner::Dma, holder),
        Some(_) => kernel.contiguous_alloc(bytes, FrameOwner::Dma, holder),
    };
    let area = area.map_err(AllocateError::Remap)?;
    pool_growth::pass_by();
    Ok(Buffer { address: area.pages.start(), dma: DmaAddr::new(area.physical.raw()) })
}

/// As [`allocate_marked`], in every case.
#[inline(never)]
fn allocate_otherwise(
    device: &Device,
    bytes: u32,
    sleep: Sleep,
    caller: VirtAddr,
    marks: Tag,
) -> Result<Buffer, AllocateError> {
    if bytes == 0 {
        return Err(AllocateError::ZeroSize);
    }
    // Before any lock is taken: of a device that nobody knew yet, its tag's is.
    if sleep == Sleep::May {
        arch::lock::might_sleep("dma_alloc_coherent");
    }
    let holder = Holder { caller, tag: device.tag().with(marks), since: mm::clock::now() };
    if let Some(declared) = device.declared() {
        return declared.allocate(device, bytes, holder);
    }
    if let Some(iommu) = scattered::serves(device, sleep, marks) {
        let buffer = scattered::allocate(device, iommu, bytes, holder)?;
        pool_growth::pass_by();
        return Ok(buffer);
    }
    let (address, physical) = match back_end(device, sleep) {
        BackEnd::AtomicPool => from_pool(device, bytes, holder)?,
        BackEnd::Remap => {
            let area = remapped(device, bytes, holder)?;
            (area.pages.start(), area.physical)
        }
        BackEnd::Contiguous => {
            let area = mm::kernel().contiguous_alloc(bytes, FrameOwner::Dma, holder);
            let area = area.map_err(AllocateError::Remap)?;
            (area.pages.start(), area.physical)
        }
        BackEnd::Simple => direct::allocate(device, bytes, sleep, holder)?,
    };
    if sleep == Sleep::May {
        pool_growth::pass_by();
    }
    match device.iommu() {
        None => Ok(Buffer { address, dma: device.dma_address(physical) }),
        Some(iommu) => view::seen(device, iommu, (address, physical), bytes),
    }
}

/// The frames that will do for `device`. Behind an IOMMU all do: it is their device addresses that must be within reach.
pub(crate) fn request_of(device: &Device) -> FrameRequest {
    if device.iommu().is_some() {
        return FrameRequest::LOW;
    }
    device.coherent_mask().narrow(FrameRequest::LOW)
}

/// A buffer of the pool that the device reaches.
fn from_pool(
    device: &Device,
    bytes: u32,
    holder: Holder,
) -> Result<(VirtAddr, PhysAddr), AllocateError> {
    match atomic_pool::allocate(device, bytes, (holder.caller, holder.tag)) {
        Ok(buffer) => Ok((buffer.address, buffer.physical)),
        Err(PoolError::Beyond { lowest }) => {
            let (name, mask) = (device.name(), device.coherent_mask());
            let found = Found::Pool(device.dma_address(lowest));
            Err(AllocateError::OutOfReach { device: name, mask, bytes, found })
        }
        Err(error) => Err(AllocateError::Pool(error)),
    }
}

/// Frames that the device reaches, mapped uncached.
fn remapped(device: &Device, bytes: u32, holder: Holder) -> Result<AreaSummary, AllocateError> {
    let (kernel, request) = (mm::kernel(), request_of(device));
    if request == FrameRequest::LOW {
        let area = kernel.coherent_alloc(bytes, FrameOwner::Dma, holder);
        return area.map_err(AllocateError::Remap);
    }
    let area = kernel.coherent_alloc_below(request, bytes, FrameOwner::Dma, holder);
    area.map_err(|error| match error {
        CoherentError::Frames(none) => {
            out_of_reach(device, bytes, none).unwrap_or(AllocateError::Remap(error))
        }
        _ => AllocateError::Remap(error),
    })
}

/// What it means that there are no frames, if the device does not reach all of them.
#[cold]
pub(crate) fn out_of_reach(
    device: &Device,
    bytes: u32,
    none: frames::AllocateError,
) -> Option<AllocateError> {
    let mask = device.coherent_mask();
    match none {
        frames::AllocateError::Exhausted { free, .. } if mask != DmaMask::ALL => {
            let found = Found::Frames(free);
            Some(AllocateError::OutOfReach { device: device.name(), mask, bytes, found })
        }
        _ => None,
    }
}

/// As [`allocate`] of what the atomic pool has at once; otherwise `None`, nothing was taken, and [`allocate`] goes on or says
/// why not.
#[inline(always)]
pub fn take(device: &Device, bytes: u32, caller: VirtAddr) -> Option<Buffer> {
    let buffer = atomic_pool::take(bytes, device.takes_any_pool_memory()?, caller)?;
    let dma = device.dma_address(buffer.physical);
    Some(Buffer { address: buffer.address, dma })
}

/// As [`take`], wherever in the pool there is room.
#[inline(always)]
pub fn take_otherwise(device: &Device, bytes: u32, caller: VirtAddr) -> Option<Buffer> {
    let buffer = atomic_pool::take_otherwise(bytes, device.takes_any_pool_memory()?, caller)?;
    let dma = device.dma_address(buffer.physical);
    Some(Buffer { address: buffer.address, dma })
}

/// Gives a buffer back. A buffer of the atomic pool may be freed in any context, others where one may sleep.
///
/// A wrong `bytes` of a remapped buffer is printed, and the buffer's own size counts (S65); the pool's buffers and those of
/// devices that snoop or are behind an IOMMU are refused then (S74). A wrong `dma` is refused.
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
    if let Some(cookie) = attributes::cookie_of(address) {
        return Err(hidden(address, cookie));
    }
    // The pool is asked first of all, always (S75).
    if device.takes_any_pool_memory().is_some()
        && !buffers::are_any()
        && !atomic_pool::contains(address)
    {
        // SAFETY: our caller promises that nobody uses the buffer, the device included.
        let authority = unsafe { Authority::claim() };
        let physical = PhysAddr::new(dma.raw());
        let freed = mm::kernel().coherent_free_at(authority, address, physical, bytes);
        return told(device, (address, dma), freed);
    }
    // SAFETY: by our caller's promise.
    unsafe { free_otherwise(device, bytes, address, dma) }
}

/// As [`free`], in every case.
///
/// # Safety
/// As for [`free`].
#[inline(never)]
unsafe fn free_otherwise(
    device: &Device,
    bytes: u32,
    address: VirtAddr,
    dma: DmaAddr,
) -> Result<(), FreeError> {
    if debug::is_on() {
        // SAFETY: by our caller's promise.
        return unsafe { free_watched(device, bytes, address, dma) };
    }
    // SAFETY: as above.
    unsafe { free_any(device, bytes, address, dma) }
}

/// Whoever frees another's buffer is accused when that was done (S107).
///
/// # Safety
/// As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_watched(
    device: &Device,
    bytes: u32,
    address: VirtAddr,
    dma: DmaAddr,
) -> Result<(), FreeError> {
    let anothers = debug::anothers(device, address);
    // SAFETY: by our caller's promise.
    let freed = unsafe { free_any(device, bytes, address, dma) };
    if let (Ok(()), Some(line)) = (freed, &anothers) {
        debug::freed_by_another(device, line);
    }
    freed
}

/// # Safety
/// As for [`free`].
#[inline(always)]
unsafe fn free_any(
    device: &Device,
    bytes: u32,
    address: VirtAddr,
    dma: DmaAddr,
) -> Result<(), FreeError> {
    if device.iommu().is_some() {
        // SAFETY: by our caller's promise.
        return unsafe { view::free(device, bytes, address, dma) };
    }
    if let Some(seen) = buffers::at(address) {
        return Err(seen_by_another(address, seen.start));
    }
    if let Some(declared) = device.declared()
        && declared.contains(address)
    {
        return declared_free(device, declared, bytes, address, dma);
    }
    // The pool is asked first of all that serve more than one, always (S75).
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
    match BackEnd::for_sleeper(device.coherency(), region(device)) {
        BackEnd::Simple => direct::free(authority, device, bytes, (address, dma), || Ok(())),
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
    if device.takes_any_pool_memory().is_none() {
        return Freed::No;
    }
    atomic_pool::give_back(address, bytes, PhysAddr::new(dma.raw()))
}

#[cold]
fn declared_free(
    device: &Device,
    declared: &Declared,
    bytes: u32,
    address: VirtAddr,
    dma: DmaAddr,
) -> Result<(), FreeError> {
    declared.free(address, bytes, dma).map_err(|error| match error {
        DeclaredFreeError::Handle { wanted } => wrong_view(address, wanted, dma),
        DeclaredFreeError::Busy => {
            let error = RemoveError::Busy { address };
            invalid(address, &error);
            FreeError::Invalid(error)
        }
        DeclaredFreeError::Shown { windows } => {
            let error =
                RemoveError::InUse { address, users: u16::try_from(windows).unwrap_or(u16::MAX) };
            invalid(address, &error);
            FreeError::Invalid(error)
        }
        DeclaredFreeError::Pages(error) => FreeError::Declared { device: device.name(), error },
    })
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
    told(device, (address, dma), freed)
}

/// Says what was odd about the free of a remapped buffer, or why there was none.
#[inline(always)]
pub(crate) fn told(
    device: &Device,
    handles: (VirtAddr, DmaAddr),
    freed: Result<CoherentFreed, RemoveError>,
) -> Result<(), FreeError> {
    match freed {
        Ok(CoherentFreed { actual, given, missing: 0 }) if actual == given => Ok(()),
        odd => told_otherwise(device, handles, odd),
    }
}

#[cold]
#[inline(never)]
fn told_otherwise(
    device: &Device,
    (address, dma): (VirtAddr, DmaAddr),
    freed: Result<CoherentFreed, RemoveError>,
) -> Result<(), FreeError> {
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
fn hidden(given: VirtAddr, cookie: VirtAddr) -> FreeError {
    let error = FreeError::Hidden { given, cookie };
    log::error!("DMA: {error}");
    dump_stack();
    error
}
