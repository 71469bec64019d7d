//! Coherent buffers of scattered frames, for devices behind an IOMMU (S79 to S82, S109).
//!
//! ```text
//!   may sleep, not FORCE_CONTIGUOUS ──▶ this: frames wherever they lie, contiguous to both by addresses
//!   otherwise                       ──▶ `super::coherent`: memory as for any other device, and then shown to this one
//! ```
//! Which of both a buffer is its area says, so that a free need not be told. A buffer is a holder of its mapping: the device may be
//! detached, and the buffer still goes back by an attachment to the same one, which somebody must still have for that.

use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr, pages_for};
use kerncore::coherent::Sleep;
use kerncore::holder::{Holder, Tag};
use kerncore::iommu::SeenAt;
use kerncore::kernel_space::{ListedKind, RemoveError, ScatteredError, ScatteredFreed, Viewer};
use kerncore::user::ShowError;
use mm::user::AddressSpace;

use super::Shared;
use crate::coherent::{AllocateError, Buffer, FreeError, told};
use crate::device::Device;
use crate::error::wrong_view;

/// The IOMMU by which a buffer that is asked for so is to be seen, if it is to be of scattered frames.
pub(crate) fn serves(device: &Device, sleep: Sleep, marks: Tag) -> Option<&Shared> {
    device.iommu().filter(|_| sleep == Sleep::May && !marks.has(Tag::CONTIGUOUS))
}

/// Takes a zeroed buffer of `bytes` for `device`, which is behind `iommu`. Where one may sleep.
#[inline(never)]
pub(crate) fn allocate(
    device: &Device,
    iommu: &Shared,
    bytes: u32,
    holder: Holder,
) -> Result<Buffer, AllocateError> {
    let viewer = Viewer { coherency: device.coherency(), mask: device.coherent_mask() };
    let is_page = bytes.wrapping_sub(1) < PAGE_SIZE;
    if is_page && let Some((address, dma)) = page(iommu, viewer, holder) {
        iommu.hold();
        return Ok(Buffer { address, dma });
    }
    allocate_otherwise(device, iommu, bytes, (viewer, holder))
}

/// Not inlined: it has all registers to itself.
#[inline(never)]
fn page(iommu: &Shared, viewer: Viewer, holder: Holder) -> Option<(VirtAddr, DmaAddr)> {
    mm::kernel().scattered_page(iommu.domain(), viewer, holder)
}

#[inline(never)]
fn allocate_otherwise(
    device: &Device,
    iommu: &Shared,
    bytes: u32,
    (viewer, holder): (Viewer, Holder),
) -> Result<Buffer, AllocateError> {
    let made = mm::kernel().scattered_alloc(iommu.domain(), bytes, viewer, holder);
    let (area, at) = made.map_err(|error| match error {
        ScatteredError::View(error) => AllocateError::Iommu { device: device.name(), error },
        error => AllocateError::Scattered(error),
    })?;
    iommu.hold();
    Ok(Buffer { address: area.pages.start(), dma: at.start })
}

/// Whether a buffer of scattered frames begins at `address`.
pub(crate) fn is_one(address: VirtAddr) -> bool {
    mm::kernel().with_scattered(address, |_| ()).is_some()
}

/// Which domain's device sees the buffer of scattered frames at `address`, if there is one: where that has its first-level table.
pub(super) fn root_of(address: VirtAddr) -> Option<PhysAddr> {
    mm::kernel().with_scattered(address, |seen| seen.at().root)
}

/// The cookie of the buffer at `address`, if it is of scattered frames: its page array (S79, S99).
pub(crate) fn cookie_of(address: VirtAddr) -> Option<VirtAddr> {
    let kernel = mm::kernel();
    kernel.with_scattered(address, |_| ())?;
    kernel.with_area(address, |record| VirtAddr::new(record.vm.pages()))
}

/// Where `device` sees a buffer, if it is behind an IOMMU.
fn at(device: &Device, dma: DmaAddr) -> Option<SeenAt> {
    let root = device.iommu()?.domain().root();
    Some(SeenAt { root, start: dma, coherency: device.coherency() })
}

/// [`crate::coherent::free`] of a buffer of scattered frames, whose size was compared with the run of device addresses at `dma`.
///
/// # Safety
/// As for that.
pub(crate) unsafe fn free(
    device: &Device,
    iommu: &Shared,
    (address, dma): (VirtAddr, DmaAddr),
) -> Result<(), FreeError> {
    // SAFETY: our caller promises that nobody uses the buffer, the device included.
    let authority = unsafe { Authority::claim() };
    let freed = mm::kernel().scattered_free(authority, iommu.domain(), (address, dma));
    ended(device, iommu, (address, dma), freed)
}

/// [`free`] of a buffer of one page, if all is at hand. Otherwise `None`, nothing has changed, and that one says why.
///
/// # Safety
/// As for that.
#[inline(never)]
pub(super) unsafe fn free_page(
    device: &Device,
    iommu: &Shared,
    (address, dma): (VirtAddr, DmaAddr),
) -> Option<Result<(), FreeError>> {
    // SAFETY: as in `free`.
    let authority = unsafe { Authority::claim() };
    match mm::kernel().scattered_free_page(authority, iommu.domain(), (address, dma))? {
        Ok(ScatteredFreed { hidden, .. }) if hidden.oddities == 0 => {
            iommu.let_go();
            Some(Ok(()))
        }
        odd => Some(ended(device, iommu, (address, dma), odd)),
    }
}

/// Says what was odd about a free, or why there was none.
#[inline(never)]
fn ended(
    device: &Device,
    iommu: &Shared,
    (address, dma): (VirtAddr, DmaAddr),
    freed: Result<ScatteredFreed, RemoveError>,
) -> Result<(), FreeError> {
    let freed = match freed {
        Ok(ScatteredFreed { freed, hidden }) => {
            if hidden.oddities != 0 {
                log::error!("DMA: device addresses from {dma}: {hidden:?}");
            }
            Ok(freed)
        }
        Err(RemoveError::SeenElsewhere { found, .. }) => {
            return Err(wrong_view(address, found, dma));
        }
        Err(error) => Err(error),
    };
    // Gone, also where its frames did not come back.
    if matches!(freed, Ok(_) | Err(RemoveError::Frames { .. })) {
        iommu.let_go();
    }
    told(device, (address, dma), freed)
}

/// As [`crate::coherent::show`], if the buffer is of scattered frames (S82).
pub(crate) fn show(
    device: &Device,
    space: &AddressSpace,
    start: VirtAddr,
    buffer: Buffer,
    offset: u32,
) -> Option<Result<(), ShowError>> {
    let at = at(device, buffer.dma).filter(|_| is_one(buffer.address))?;
    let shown = space.show_seen(start, buffer.address, at, offset);
    if let Err(ShowError::Map(error)) = &shown {
        log::error!("Remapping memory failed: {error}");
    }
    Some(shown)
}

/// Shows `visit` the first frame and the bytes of each run of adjacent frames in the first `bytes` of `buffer`, in whole pages, and
/// says how many there are; `None` if that is no buffer of scattered frames of this device's, or not so large (S82). Any context.
pub fn for_each_run(
    device: &Device,
    buffer: Buffer,
    bytes: u32,
    mut visit: impl FnMut(Pfn, u32),
) -> Option<u32> {
    let at = at(device, buffer.dma)?;
    let mut runs = 0;
    let visit = &mut |first, pages: u32| {
        runs += 1;
        // Of RAM: less than 4 GiB.
        visit(first, pages.wrapping_mul(PAGE_SIZE));
    };
    mm::kernel().scattered_runs((buffer.address, at), pages_for(bytes), visit)?;
    Some(runs)
}

/// Whether what a device behind `iommu` sees at `dma` is the first page of such a buffer. Looks at every area, for who has an error to
/// name. Any context.
#[cold]
#[inline(never)]
pub(crate) fn is_view(iommu: &Shared, dma: DmaAddr) -> bool {
    let (kernel, root) = (mm::kernel(), iommu.domain().root());
    let start = DmaAddr::new(dma.raw() & !(PAGE_SIZE - 1));
    let mut next = Some(kernel.window().start());
    while let Some(listed) = next.and_then(|from| kernel.next_listed(from)) {
        if let ListedKind::Live(area) = &listed.what
            && area.seen.is_some_and(|(at, _)| (at.root, at.start) == (root, start))
        {
            return true;
        }
        next = listed.next();
    }
    false
}
