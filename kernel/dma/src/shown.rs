//! Coherent buffers as others see them: programs, by windows (S78), and whoever asks for their pages (S99).

use kerncore::addr::{PageRange, Pfn, VirtAddr, pages_for};
use kerncore::area::AreaKind;
use kerncore::coherent::Coherency;
use kerncore::kernel_space::ShareError;
use kerncore::layout::linear_physical;
use kerncore::user::ShowError;
use mm::user::AddressSpace;

use crate::atomic_pool;
use crate::coherent::Buffer;
use crate::declared::Declared;
use crate::device::Device;
use crate::direct;
use crate::iommu::scattered;

/// Shows a buffer that [`crate::coherent::allocate`] gave a device, from its page `offset` on, in all of the reserved window of `space` that begins
/// at `start` (S78). Until that window ends, the buffer cannot be freed. Buffers of the atomic pool cannot be shown: they were
/// never zeroed, and share their area.
///
/// # Errors
/// [`ShowError`]; nothing is mapped if the window does not lie in the buffer.
///
/// # Safety
/// As long as a window shows the buffer, nobody has a reference to its bytes, as to those of a [`CoherentBox`](crate::coherent::CoherentBox): the
/// program writes them.
pub unsafe fn show(
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
    if let Some(declared) = device.declared()
        && declared.contains(buffer.address)
    {
        return show_declared(declared, space, start, (buffer, area), offset);
    }
    if let Some(shown) = scattered::show(device, space, start, buffer, offset) {
        return shown;
    }
    if lies_linear(device, buffer.address) {
        return direct::show(device, space, start, buffer, offset);
    }
    space.show_coherent(start, buffer.address, device.physical_address(buffer.dma), offset)
}

/// Whether a buffer of `device` at `address` is one of frames at their linear addresses, as devices that snoop have them.
fn lies_linear(device: &Device, address: VirtAddr) -> bool {
    device.coherency() == Coherency::Coherent && linear_physical(address).is_some()
}

/// As [`show`], of memory of the device's own, which answers first (S102). It was zeroed when it was given.
fn show_declared(
    declared: &Declared,
    space: &AddressSpace,
    start: VirtAddr,
    (buffer, pages): (Buffer, u32),
    offset: u32,
) -> Result<(), ShowError> {
    let (base, physical, before) = declared.place_of(buffer.address);
    let before = before.saturating_add(offset);
    let may_be = || declared.may_be_shown(buffer.address, pages);
    space.show_device_memory(start, (base, physical), before, may_be)
}

/// The first frame of the buffer of `device` that begins at `buffer`, if it is one of adjacent frames, has `bytes`, and the device sees
/// it where it is said. Memory of a device's own has no frames.
pub fn first_frame(device: &Device, buffer: Buffer, bytes: u32) -> Option<Pfn> {
    let (kernel, physical) = (mm::kernel(), device.physical_address(buffer.dma));
    let is_own = device.declared().is_some_and(|declared| declared.contains(buffer.address));
    if is_own || bytes == 0 || !buffer.address.is_page_aligned() {
        return None;
    }
    let (frame, pages) = (physical.pfn(), pages_for(bytes));
    if device.coherency() == Coherency::Coherent {
        return direct::first_frame(buffer.address, physical, pages);
    }
    let has_so_many = |run: u32| pages <= run;
    let is_in_pool = atomic_pool::contains(buffer.address);
    if is_in_pool && !atomic_pool::pages_at(buffer.address).is_some_and(has_so_many) {
        return None;
    }
    let area = kernel.find_containing(buffer.address).filter(|area| area.kind == AreaKind::Dma)?;
    let offset = buffer.address.checked_sub(area.pages.start())?;
    // The inside of a buffer is none; the pool's area has many.
    if offset != 0 && !is_in_pool {
        return None;
    }
    let left = area.pages.bytes().checked_sub(offset)?;
    let is_there = area.physical.checked_add(offset) == Some(physical);
    (is_there && pages <= pages_for(left)).then_some(frame)
}
