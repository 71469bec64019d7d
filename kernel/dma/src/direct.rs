//! Memory for devices that snoop: frames at their linear addresses, zeroed, and an index of who has which.
//!
//! Programs see it as the kernel does, cacheable (S97). A window takes hold of the frames under the lock of the index, in which the buffer
//! must be, and a free takes the buffer out of it under that lock, if no window has hold of them: whoever comes first wins (S46, S78).

use arch::lock::IrqSpinLock;
use arch::machine::Authority;
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr, pages_for};
use kerncore::coherent::Sleep;
use kerncore::frames::{FrameOwner, order_for};
use kerncore::holder::Holder;
use kerncore::kernel_space::{FramesError, RemoveError, ShareError};
use kerncore::layout::{linear_address, linear_physical};
use kerncore::lock::Class;
use kerncore::user::ShowError;
use mm::reserve::unless_short;
use mm::user::AddressSpace;

use crate::coherent::{Buffer, out_of_reach, request_of};
use crate::debug;
use crate::device::Device;
use crate::error::{AllocateError, FreeError, invalid, out_of_use, wrong_handle};
use crate::index::{Index, Slip};

/// A buffer that has no area, and so is in no other list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direct {
    /// Each has a larger one than those before it.
    pub(crate) serial: u64,
    pub(crate) address: VirtAddr,
    pub(crate) physical: PhysAddr,
    /// Of a block of frames.
    pub(crate) bytes: u32,
    /// As many of them as were asked for.
    pages: u32,
    pub(crate) holder: Holder,
}

/// All of them, by their addresses, and the last serial number.
static BUFFERS: IrqSpinLock<(Index<Direct>, u64)> =
    IrqSpinLock::new(Class::DirectBuffers, (Index::new(), 0));

pub(crate) fn allocate(
    device: &Device,
    bytes: u32,
    sleep: Sleep,
    holder: Holder,
) -> Result<(VirtAddr, PhysAddr), AllocateError> {
    let nothing = Direct {
        serial: 0,
        address: VirtAddr::new(0),
        physical: PhysAddr::new(0),
        bytes: PAGE_SIZE << order_for(pages_for(bytes)),
        pages: pages_for(bytes),
        holder,
    };
    // The entry first, so that frames once taken need not be given up.
    let mut entry = Slip::new(nothing).ok_or(AllocateError::NoEntry { bytes })?;
    let (request, order) = (request_of(device), order_for(pages_for(bytes)));
    let take = || mm::kernel().zeroed_frames_from(request, order, FrameOwner::Pages);
    let frames = take().or_else(|error| match sleep {
        Sleep::May => unless_short(error, take),
        Sleep::MayNot => Err(error),
    });
    let frames = frames
        .map_err(|none| out_of_reach(device, bytes, none).unwrap_or(AllocateError::Simple(none)))?;
    let physical = frames.leak().0.base();
    let address = linear_address(physical).expect("low memory was asked for");
    *entry.value_mut() = Direct { address, physical, ..nothing };
    BUFFERS.with(|(buffers, last)| {
        *last += 1;
        entry.value_mut().serial = *last;
        buffers.add(address.raw(), entry);
    });
    Ok((address, physical))
}

/// Gives the buffer at `address` back. `between` is called when nothing refuses that any more, and it is nobody's yet; it may say why the
/// frames stay out of use.
pub(crate) fn free(
    authority: Authority,
    device: &Device,
    bytes: u32,
    (address, dma): (VirtAddr, DmaAddr),
    between: impl FnOnce() -> Result<(), FramesError>,
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
    let pages = pages_for(bytes);
    // Whoever takes the entry out frees the buffer, and nobody else can.
    let taken = BUFFERS.with(|(buffers, _)| {
        let found = buffers.at(address.raw());
        let found = found.ok_or(RemoveError::Unknown { address })?.pages;
        if found != pages {
            return Err(RemoveError::OtherSize { address, found, wanted: pages });
        }
        let users = mm::kernel().zones().table().windows_onto(physical.pfn());
        if users != 0 {
            return Err(RemoveError::InUse { address, users });
        }
        Ok(buffers.take(address.raw(), |_| true))
    });
    let Some(entry) = taken.map_err(unknown)? else {
        return Err(unknown(RemoveError::Unknown { address }));
    };
    between().map_err(|error| out_of_use(address, error))?;
    let caller = entry.value().holder.caller;
    debug::freed(device, (address, physical), pages.wrapping_mul(PAGE_SIZE), caller);
    let freed =
        mm::kernel().free_frames_at(authority, physical.pfn(), order_for(pages), FrameOwner::Pages);
    if let Err(error) = freed {
        BUFFERS.with(|(buffers, _)| buffers.add(address.raw(), entry));
        invalid(address, &error);
        return Err(FreeError::Simple(error));
    }
    Ok(())
}

/// Shows the buffer of `device` from its page `offset` on, in all of the window of `space` that begins at `start` (S78).
pub(crate) fn show(
    device: &Device,
    space: &AddressSpace,
    start: VirtAddr,
    Buffer { address, dma }: Buffer,
    offset: u32,
) -> Result<(), ShowError> {
    let physical = device.physical_address(dma);
    space.show_block(start, offset, |window| {
        BUFFERS.with(|(buffers, _)| {
            let found = buffers.at(address.raw());
            let &Direct { physical: found, pages: area, .. } =
                found.ok_or(ShareError::Unknown { address })?;
            if found != physical {
                return Err(ShareError::Elsewhere { address, found });
            }
            // Its block may have more than was asked for.
            if offset >= area || window > area - offset {
                return Err(ShareError::Outside { area, offset, window });
            }
            // SAFETY: a coherent buffer, which its device may write at any time: nobody has a reference to it but who has it for
            // himself, in a box, and does not show it.
            let authority = unsafe { Authority::claim() };
            mm::kernel().show_block(authority, found.pfn(), FrameOwner::Pages)
        })
    })
}

/// The first frame of the first `pages` pages of the buffer at `address`, if it is one, has so many, and lies at `physical`. Any context.
pub(crate) fn first_frame(address: VirtAddr, physical: PhysAddr, pages: u32) -> Option<Pfn> {
    BUFFERS.with(|(buffers, _)| {
        let found = buffers.at(address.raw())?;
        (found.physical == physical && pages <= found.pages).then_some(physical.pfn())
    })
}

/// The first that was made after the one of this serial number, of those that there are.
pub(crate) fn next(serial: u64) -> Option<Direct> {
    BUFFERS.with(|(buffers, _)| {
        let later = buffers.iter_from(0).map(|(_, buffer)| buffer);
        later.filter(|buffer| buffer.serial > serial).min_by_key(|buffer| buffer.serial).copied()
    })
}
