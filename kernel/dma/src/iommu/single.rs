//! One piece of memory, mapped for a device behind an IOMMU (S105, S109): given to it, and then seen by it. What it cannot see is taken
//! back. Ordinary memory goes by the short cut of lists, which is no other for a list of one ([`super::lender`]).

use arch::machine::Authority;
use kerncore::addr::DmaAddr;
use kerncore::iommu::{Grant, IovaError};

use super::Shared;
use super::lender::Lender;
use super::view::type_for;
use crate::debug;
use crate::streaming::{self, Call, MapError, Memory};

/// [`streaming::map`] of a device behind `iommu`.
///
/// # Safety
/// As for that.
#[cold]
#[inline(never)]
pub(crate) unsafe fn map(
    call: Call<'_>,
    iommu: &Shared,
    memory: Memory,
    bytes: u32,
) -> Result<DmaAddr, MapError> {
    // SAFETY: by our caller's promise.
    let (physical, _) = unsafe { Lender::new(call).give(memory, bytes)? };
    let (grant, memory) = (Grant::for_flow(call.flow), type_for(call.device.coherency()));
    // SAFETY: given to the device above, by our caller's promise.
    let authority = unsafe { Authority::claim() };
    let error = match iommu.show(authority, (physical, bytes), grant, memory) {
        Ok(dma) if call.device.mask().reaches(dma, bytes) => {
            debug::mapped(&call, dma, bytes);
            return Ok(dma);
        }
        Ok(start) => {
            // SAFETY: nobody knows of it yet.
            let authority = unsafe { Authority::claim() };
            let hidden = iommu.hide(authority, start, bytes);
            debug_assert_eq!(hidden, Ok(()), "shown above");
            IovaError::OutOfReach { start, last: call.device.mask().last() }.into()
        }
        Err(error) => error,
    };
    // SAFETY: given to the device above, which was not told.
    let ended = unsafe { streaming::unmap_on_bus(call, physical, bytes) };
    debug_assert_eq!(ended, Ok(()), "mapped by this call");
    Err(MapError::Iommu(error))
}
