//! Coherent buffers of a device behind an IOMMU: memory as for any other, seen by the device through its domain (S109). So are those of
//! callers who may not sleep, and those that must be adjacent frames; the others are of scattered ones ([`super::scattered`]).
//!
//! ```text
//!   allocate   memory, and where the processor sees it ──▶ device addresses for it
//!   free       the processor sees it no more ──▶ the device sees it no more ──▶ the frames are anybody's     each after its flush (S81)
//! ```
//! What is free to name is looked up first: a free that is refused has changed nothing.

use core::cell::Cell;

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr, pages_for};
use kerncore::coherent::BackEnd;
use kerncore::iommu::{DomainMapError, Grant, IovaError};
use kerncore::kernel_space::{FramesError, RemoveError};
use kerncore::layout::linear_physical;

use super::view::type_for;
use super::{Shared, buffers, scattered};
use crate::atomic_pool::{self, PoolFreeError};
use crate::coherent::{AllocateError, Buffer, FreeError, region, told};
use crate::device::Device;
use crate::direct;
use crate::error::{invalid, out_of_use, seen_by_another, wrong_view};

/// The buffer of `bytes` at `address`, which lies at `physical` on the bus, with where the device sees it; it goes back if the device
/// cannot.
#[cold]
#[inline(never)]
pub(crate) fn seen(
    device: &Device,
    iommu: &Shared,
    (address, physical): (VirtAddr, PhysAddr),
    bytes: u32,
) -> Result<Buffer, AllocateError> {
    let give_up = || {
        // SAFETY: nobody knows of the buffer but this call.
        let freed = unsafe { give_back(device, bytes, address, physical, || Ok(())) };
        debug_assert_eq!(freed, Ok(()), "taken by this call");
    };
    let Some(entry) =
        buffers::prepare((address, physical), pages_for(bytes), iommu.domain().root())
    else {
        give_up();
        return Err(AllocateError::NoEntry { bytes });
    };
    if atomic_pool::contains(address) {
        // What the device of another domain has left there is not this one's to see.
        // SAFETY: a run of the pool in whole pages, which this call's caller has taken.
        unsafe { wipe(address, pages_for(bytes)) };
    }
    let memory = type_for(device.coherency());
    // SAFETY: made for the device by this call's caller, and nobody knows of it yet.
    let authority = unsafe { Authority::claim() };
    let shown = iommu.show(authority, (physical, bytes), Grant::ReadWrite, memory);
    let error = match shown {
        Ok(dma) if device.coherent_mask().reaches(dma, bytes) => {
            buffers::add(iommu, entry, dma);
            return Ok(Buffer { address, dma });
        }
        Ok(dma) => {
            // SAFETY: nobody knows of the address but this call.
            let authority = unsafe { Authority::claim() };
            let hidden = iommu.hide(authority, dma, bytes);
            debug_assert_eq!(hidden, Ok(()), "shown above");
            DomainMapError::Iova(IovaError::OutOfReach {
                start: dma,
                last: device.coherent_mask().last(),
            })
        }
        Err(error) => error,
    };
    give_up();
    Err(AllocateError::Iommu { device: device.name(), error })
}

/// [`crate::coherent::free`] of a device behind an IOMMU.
///
/// # Safety
/// As for that.
#[inline(never)]
pub(crate) unsafe fn free(
    device: &Device,
    bytes: u32,
    address: VirtAddr,
    dma: DmaAddr,
) -> Result<(), FreeError> {
    let Some(iommu) = device.iommu() else { return Err(FreeError::Cookie { given: address, dma }) };
    // Where one may not sleep nobody has a buffer of scattered frames; the general way says so if one is named in a handler.
    let may_be_scattered = || !atomic_pool::contains(address) && linear_physical(address).is_none();
    if bytes.wrapping_sub(1) < PAGE_SIZE && may_be_scattered() && !arch::cpu::in_interrupt() {
        // SAFETY: by our caller's promise.
        let freed = unsafe { scattered::free_page(device, iommu, (address, dma)) };
        if let Some(freed) = freed {
            return freed;
        }
    }
    // SAFETY: as above.
    unsafe { free_otherwise(device, iommu, bytes, (address, dma)) }
}

/// [`free`] in every case.
///
/// # Safety
/// As for that.
#[cold]
#[inline(never)]
unsafe fn free_otherwise(
    device: &Device,
    iommu: &Shared,
    bytes: u32,
    (address, dma): (VirtAddr, DmaAddr),
) -> Result<(), FreeError> {
    let refused = |error| {
        let error = FreeError::Iommu { device: device.name(), error };
        log::error!("DMA: {error}");
        mm::report::dump_stack();
        error
    };
    // Every buffer begins a page, for the processor as for the device.
    if !address.is_page_aligned() || !dma.is_page_aligned() {
        let error = RemoveError::Misaligned { address };
        invalid(address, &error);
        return Err(FreeError::Invalid(error));
    }
    iommu.find(dma, bytes).map_err(refused)?;
    if scattered::is_one(address) {
        // SAFETY: by our caller's promise.
        return unsafe { scattered::free(device, iommu, (address, dma)) };
    }
    let root = iommu.domain().root();
    let claimed = buffers::claim(address, |seen| {
        if seen.root != root {
            Err(Other::Domain(seen.start))
        } else if seen.start != dma || seen.pages != pages_for(bytes) {
            Err(Other::View(seen.start))
        } else {
            Ok(())
        }
    });
    let physical = match claimed {
        Ok(seen) => seen.physical,
        Err(None) => return Err(unknown(address, dma)),
        Err(Some(Other::Domain(start))) => return Err(seen_by_another(address, start)),
        Err(Some(Other::View(start))) => return Err(wrong_view(address, start, dma)),
    };
    let is_hidden = Cell::new(false);
    let between = || {
        // SAFETY: our caller promises that nobody uses the buffer, the device included.
        let authority = unsafe { Authority::claim() };
        is_hidden.set(true);
        let left = match iommu.claim(authority, dma, bytes) {
            // Whoever is given the addresses next has a view of his own there.
            Ok(iova) => {
                let mut unseen = None;
                iommu.hide_all_and(iova, || unseen = Some(buffers::unseen(iommu, address)))
            }
            // The device sees nothing there, or what is another's.
            Err(error) => {
                log::error!("DMA: {}: {error}", device.name());
                0
            }
        };
        // The pool's mapping stays, and a block's memory looks like what is mapped for transfers: so does whoever is to be refused, until the
        // domain ends.
        let may_be_asked_for = atomic_pool::contains(address) || linear_physical(address).is_some();
        if left == 0 || !may_be_asked_for {
            buffers::gone(iommu, address);
        }
        // What a foreign entry still shows the device is nobody else's.
        if left == 0 { Ok(()) } else { Err(FramesError::StillMapped) }
    };
    // SAFETY: by our caller's promise.
    let freed = unsafe { give_back(device, bytes, address, physical, between) };
    if !is_hidden.get() {
        buffers::stays(address);
    }
    freed
}

/// What a buffer is that was not named as it is seen: that of another domain's device, or seen there.
enum Other {
    Domain(DmaAddr),
    View(DmaAddr),
}

/// Wipes `pages` pages from `address` on.
///
/// # Safety
/// They are mapped, may be written, and are the caller's alone.
unsafe fn wipe(address: VirtAddr, pages: u32) {
    let first = core::ptr::with_exposed_provenance_mut::<u8>(address.raw() as usize);
    // SAFETY: by our caller's promise.
    unsafe { first.write_bytes(0, (pages * PAGE_SIZE) as usize) };
}

/// The error of a buffer that the device does not see there.
#[cold]
fn unknown(address: VirtAddr, dma: DmaAddr) -> FreeError {
    let error = RemoveError::Unknown { address };
    invalid(address, &error);
    log::error!("DMA: a device sees something else at {dma}");
    FreeError::Invalid(error)
}

/// Gives the buffer at `address`, which lies at `physical` on the bus, back. `between` is called when the processor sees it no more, or
/// never will by this buffer's right, and it is nobody's yet; not if it is refused. It may say why the memory stays out of use.
///
/// # Safety
/// As for [`crate::coherent::free`].
unsafe fn give_back(
    device: &Device,
    bytes: u32,
    address: VirtAddr,
    physical: PhysAddr,
    between: impl FnOnce() -> Result<(), FramesError>,
) -> Result<(), FreeError> {
    let dma = device.dma_address(physical);
    // SAFETY: our caller promises that nobody uses the buffer, the device included.
    let authority = unsafe { Authority::claim() };
    if atomic_pool::contains(address) {
        // Its mapping is the pool's, and stays. What is no such run is refused below, and the device goes on seeing it.
        if atomic_pool::pages_at(address) == Some(pages_for(bytes)) {
            between().map_err(|error| out_of_use(address, error))?;
        }
        return match atomic_pool::free(address, bytes, physical) {
            Ok(()) => Ok(()),
            Err(PoolFreeError::Elsewhere { wanted }) => {
                Err(wrong_view(address, device.dma_address(wanted), dma))
            }
            Err(PoolFreeError::Refused(error)) => Err(FreeError::Pool(error)),
            Err(PoolFreeError::NotMine) => Err(FreeError::Cookie { given: address, dma }),
        };
    }
    match BackEnd::for_sleeper(device.coherency(), region(device)) {
        // The linear map stays.
        BackEnd::Simple => direct::free(authority, device, bytes, (address, dma), between),
        BackEnd::Remap | BackEnd::Contiguous | BackEnd::AtomicPool => {
            let kernel = mm::kernel();
            let freed = kernel.coherent_free_between(authority, address, physical, bytes, between);
            told(device, (address, dma), freed)
        }
    }
}
