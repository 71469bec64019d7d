//! Mapping the kernel's memory to programs, by the Linux names.

use core::ffi::{c_int, c_uint, c_void};

use dma::attributes;
use dma::coherent::Buffer;
use dma::device::Device;
use kerncore::addr::{DmaAddr, PageRange, VirtAddr};
use kerncore::dma_attributes::DmaAttributes;
use kerncore::user::ShowError;
use mm::user::AddressSpace;

use crate::address;
use crate::errno::{EBUSY, EINVAL, ENOMEM, ENXIO};

/// A window of a program, as C callers read it. It was made by [`AddressSpace::reserve`], and nothing is mapped in it yet.
#[derive(Debug)]
#[repr(C)]
#[expect(clippy::struct_field_names, reason = "they are C callers' names")]
pub struct VmAreaStruct {
    /// The program's address space.
    pub vm_mm: *const AddressSpace,
    /// The first byte.
    pub vm_start: VirtAddr,
    /// The byte behind the last.
    pub vm_end: VirtAddr,
    /// Where it begins in what is shown, in pages.
    pub vm_pgoff: c_uint,
    /// [`VM_RESERVED`], when memory of the kernel's is shown in it.
    pub vm_flags: c_uint,
}

/// Nobody may take the window's pages away (S45).
pub const VM_RESERVED: c_uint = 0x0008_0000;

impl VmAreaStruct {
    /// The window's space, if it is the window that it says.
    ///
    /// # Safety
    /// `vm_mm` points to an address space, or is null.
    unsafe fn space(&self) -> Option<&AddressSpace> {
        // SAFETY: by the caller's promise.
        let space = unsafe { self.vm_mm.as_ref() }?;
        let bytes = self.vm_end.checked_sub(self.vm_start)?;
        let is_it = |pages: &PageRange| pages.start() == self.vm_start && pages.bytes() == bytes;
        space.window_of(self.vm_start).filter(is_it).map(|_| space)
    }

    /// What a C caller is told, and the mark of success.
    fn answer(&mut self, shown: Result<(), ShowError>, refused: c_int) -> c_int {
        match shown {
            Ok(()) => {
                self.vm_flags |= VM_RESERVED;
                0
            }
            Err(ShowError::NoWindow(_)) => -EINVAL,
            Err(ShowError::InUse { .. }) => -EBUSY,
            Err(ShowError::Share(_)) => -refused,
            Err(ShowError::Map(_)) => -ENOMEM,
        }
    }
}

/// Shows the memory of [`crate::vmalloc::vmalloc_user`] at `addr`, from its page `pgoff` on, in all of the window: 0, or `-EINVAL` if
/// that is not such memory or has not so many pages (S43, S44). From then on until the window ends, `vfree` is refused (S46).
///
/// # Safety
/// `vma` points to a window whose address space lives.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn remap_vmalloc_range(
    vma: *mut VmAreaStruct,
    addr: *const c_void,
    pgoff: c_uint,
) -> c_int {
    // SAFETY: the caller promises a window, or passes null.
    let Some(vma) = (unsafe { vma.as_mut() }) else { return -EINVAL };
    // SAFETY: the caller promises that its space lives.
    let shown = match unsafe { vma.space() } {
        Some(space) => space.show_vmalloc(vma.vm_start, address(addr), pgoff),
        None => return -EINVAL,
    };
    vma.answer(shown, EINVAL)
}

/// Shows the coherent buffer that [`crate::dma::dma_alloc_coherent`] gave, from the window's page offset on, in all of the window: 0,
/// or `-ENXIO` if the window does not lie in it, or it is no buffer that can be shown (S78).
///
/// # Safety
/// `dev` points to the device, `vma` to a window whose address space lives.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_mmap_coherent(
    dev: *const Device,
    vma: *mut VmAreaStruct,
    cpu_addr: *const c_void,
    dma_handle: DmaAddr,
    size: c_uint,
) -> c_int {
    let buffer = Buffer { address: address(cpu_addr), dma: dma_handle };
    // SAFETY: by the caller's promise.
    unsafe { show(dev, vma, (buffer, size), DmaAttributes::NONE) }
}

/// [`dma_mmap_coherent`] of what [`crate::dma_attrs::dma_alloc_wc`] gave (S78, S99).
///
/// # Safety
/// As for [`dma_mmap_coherent`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_mmap_wc(
    dev: *const Device,
    vma: *mut VmAreaStruct,
    cpu_addr: *const c_void,
    dma_handle: DmaAddr,
    size: c_uint,
) -> c_int {
    let buffer = Buffer { address: address(cpu_addr), dma: dma_handle };
    // SAFETY: by the caller's promise.
    unsafe { show(dev, vma, (buffer, size), DmaAttributes::WRITE_COMBINE) }
}

/// [`dma_mmap_coherent`] of what [`crate::dma_attrs::dma_alloc_attrs`] gave with the attributes `attrs`: by its cookie, if it is one
/// without a mapping (S78, S99). `-EINVAL` if they mean nothing.
///
/// # Safety
/// As for [`dma_mmap_coherent`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_mmap_attrs(
    dev: *const Device,
    vma: *mut VmAreaStruct,
    cpu_addr: *const c_void,
    dma_handle: DmaAddr,
    size: c_uint,
    attrs: c_uint,
) -> c_int {
    let Ok(attributes) = DmaAttributes::from_bits(attrs) else { return -EINVAL };
    let buffer = Buffer { address: address(cpu_addr), dma: dma_handle };
    // SAFETY: by the caller's promise.
    unsafe { show(dev, vma, (buffer, size), attributes) }
}

/// # Safety
/// As for [`dma_mmap_coherent`].
unsafe fn show(
    dev: *const Device,
    vma: *mut VmAreaStruct,
    buffer: (Buffer, c_uint),
    attributes: DmaAttributes,
) -> c_int {
    // SAFETY: the caller promises a device, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else { return -EINVAL };
    // SAFETY: the caller promises a window, or passes null.
    let Some(vma) = (unsafe { vma.as_mut() }) else { return -EINVAL };
    // SAFETY: the caller promises that its space lives.
    let shown = match unsafe { vma.space() } {
        // SAFETY: a caller in C has pointers alone, and promises the rest.
        Some(space) => unsafe {
            attributes::show(device, space, vma.vm_start, buffer, vma.vm_pgoff, attributes)
        },
        None => return -EINVAL,
    };
    vma.answer(shown, ENXIO)
}
