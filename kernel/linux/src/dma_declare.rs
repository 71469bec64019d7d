//! Memory of a device's own, by the Linux names (S102).

use core::ffi::{c_int, c_uint};

use dma::declared::DeclareError;
use dma::device::Device;
use kerncore::addr::{DmaAddr, PhysAddr};
use kerncore::kernel_space::IoRemapError;

use crate::errno::{EBUSY, EINVAL, ENOMEM};

/// Declares the `size` bytes at `phys_addr`, which `dev` sees at `device_addr`, to be its own: its coherent buffers lie there from now
/// on, and nowhere else. 0; `-EBUSY` if it has such memory, or another device has some of this; `-EINVAL` for what holds no whole page,
/// passes the top of addresses, or is to be seen where `dev` sees RAM; `-ENOMEM` if it cannot be mapped, as RAM cannot. Where one may
/// sleep.
///
/// # Safety
/// `dev` points to a device, or is null. What lies there is memory, and nobody else uses it.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_declare_coherent_memory(
    dev: *const Device,
    phys_addr: PhysAddr,
    device_addr: DmaAddr,
    size: c_uint,
) -> c_int {
    let caller = arch::backtrace::return_address();
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        log::error!("dma_declare_coherent_memory: no device given");
        return -EINVAL;
    };
    let Err(error) = device.declare_memory((phys_addr, device_addr), size, caller) else {
        return 0;
    };
    log::warn!("dma_declare_coherent_memory: {size:#x} bytes for {}: {error}", device.name());
    match error {
        DeclareError::Again { .. } | DeclareError::Another { .. } | DeclareError::Iommu { .. } => {
            -EBUSY
        }
        DeclareError::Misaligned { .. }
        | DeclareError::Wraps { .. }
        | DeclareError::Ram { .. }
        | DeclareError::Map(IoRemapError::Wraps { .. })
        | DeclareError::Pages(_) => -EINVAL,
        DeclareError::NoBooks | DeclareError::Map(_) => -ENOMEM,
    }
}

/// Takes the memory away from `dev` that was declared for it. If buffers lie in it, that is said and nothing changes. Where one may
/// sleep.
///
/// # Safety
/// `dev` points to a device, or is null; nobody uses its coherent buffers meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_release_coherent_memory(dev: *const Device) {
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else { return };
    // SAFETY: by the caller's promise.
    if let Err(error) = unsafe { device.release_memory() } {
        log::error!("dma_release_coherent_memory: {error}");
    }
}
