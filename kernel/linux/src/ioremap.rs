//! ioremap and its kin by their Linux names (S93).
//!
//! | name | memory type | ends by |
//! |---|---|---|
//! | [`ioremap`] | Device | [`iounmap`] |
//! | [`ioremap_wc`] | Normal, non-cacheable | [`iounmap`] |
//! | [`ioremap_np`] | Strongly-ordered | [`iounmap`] |
//! | [`ioremap_exec`] | Normal, non-cacheable, executable, read-only; of on-chip memory | [`iounmap`] |
//! | [`memremap`] | Normal, of the type that is asked for | [`memunmap`] |

use core::ffi::{c_uint, c_ulong, c_void};
use core::fmt;
use core::ptr;

use arch::machine::Authority;
use kerncore::addr::{PhysAddr, VirtAddr};
use kerncore::attributes::{Attributes, MemoryType};

use crate::free::report;
use crate::refusal::{mistake, refused_to};
use crate::{address, pointer};

/// Write-back memory, by [`memremap`].
pub const MEMREMAP_WB: c_ulong = 1 << 0;
/// Write-through memory.
pub const MEMREMAP_WT: c_ulong = 1 << 1;
/// Write-combining memory.
pub const MEMREMAP_WC: c_ulong = 1 << 2;

/// Maps `size` bytes of device registers at physical address `phys_addr`, which need not be aligned; null on failure (S93,
/// S94). Not in interrupt context.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ioremap(phys_addr: c_uint, size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    let physical = PhysAddr::new(phys_addr);
    match mm::kernel().ioremap(physical, size, Attributes::DEVICE, caller) {
        Ok(address) => pointer(address),
        Err(error) => {
            refused_to(arch::backtrace::return_address(), "ioremap", size, &error);
            ptr::null_mut()
        }
    }
}

/// As [`ioremap`], but uses what somebody has mapped by this call already, if that has all pages of the request (S58). Each
/// use is ended by an [`iounmap`] of its own, the mapping with its last. Not in interrupt context.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ioremap_shared(phys_addr: c_uint, size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    let physical = PhysAddr::new(phys_addr);
    match mm::kernel().ioremap_shared(physical, size, Attributes::DEVICE, caller) {
        Ok(address) => pointer(address),
        Err(error) => {
            refused_to(arch::backtrace::return_address(), "ioremap_shared", size, &error);
            ptr::null_mut()
        }
    }
}

/// As [`ioremap`], of memory whose writes may be merged and put in another order: frame buffers (S93).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ioremap_wc(phys_addr: c_uint, size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    map_as("ioremap_wc", (phys_addr, size), Attributes::WRITE_COMBINE, caller)
}

/// As [`ioremap`], of registers whose writes are complete before the next access begins (S93).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ioremap_np(phys_addr: c_uint, size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    map_as("ioremap_np", (phys_addr, size), Attributes::STRONGLY_ORDERED, caller)
}

fn map_as(
    name: &str,
    (phys_addr, size): (c_uint, c_uint),
    attributes: Attributes,
    caller: VirtAddr,
) -> *mut c_void {
    match mm::kernel().ioremap(PhysAddr::new(phys_addr), size, attributes, caller) {
        Ok(address) => pointer(address),
        Err(error) => {
            refused_to(caller, name, size, &error);
            ptr::null_mut()
        }
    }
}

/// Maps `size` bytes of on-chip memory at `phys_addr` so that they may be executed, and not written; null on failure, as for memory
/// that is elsewhere, or that is mapped to be written (S93, S112). Not in interrupt context.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ioremap_exec(phys_addr: c_uint, size: c_uint) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    let range = (PhysAddr::new(phys_addr), size);
    match mm::kernel().ioremap_exec(range, mm::bus::on_chip(), caller) {
        Ok(address) => pointer(address),
        Err(error) => {
            refused_to(arch::backtrace::return_address(), "ioremap_exec", size, &error);
            ptr::null_mut()
        }
    }
}

/// Maps `size` bytes of memory at physical address `offset`, of a type that is among `flags` (`MEMREMAP_`): the first of write-back,
/// write-through, write-combining with which it works. Of RAM gives its linear address, which is write-back. Null on failure (S93).
/// Not in interrupt context.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn memremap(offset: c_uint, size: c_uint, flags: c_ulong) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    let known = MEMREMAP_WB | MEMREMAP_WT | MEMREMAP_WC;
    if flags == 0 || flags & !known != 0 {
        mistake("memremap", size, &NoTypes { offset, flags });
        return ptr::null_mut();
    }
    let mut first = None;
    for (flag, memory) in [
        (MEMREMAP_WB, MemoryType::NormalWriteBack),
        (MEMREMAP_WT, MemoryType::NormalWriteThrough),
        (MEMREMAP_WC, MemoryType::NormalNonCacheable),
    ] {
        if flags & flag != 0 {
            match mm::kernel().memremap(PhysAddr::new(offset), size, memory, caller) {
                Ok(address) => return pointer(address),
                Err(error) => _ = first.get_or_insert(error),
            }
        }
    }
    if let Some(error) = first {
        refused_to(arch::backtrace::return_address(), "memremap", size, &error);
    }
    ptr::null_mut()
}

/// Flags that name no memory type, or more than memory types.
struct NoTypes {
    offset: c_uint,
    flags: c_ulong,
}

impl fmt::Display for NoTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = PhysAddr::new(self.offset);
        write!(f, "the flags {:#x} for memory at {at} are no memory types", self.flags)
    }
}

/// Ends a mapping of [`ioremap`] or one of its kin, or a use of one of [`ioremap_shared`] (or of `ioremap` itself, with
/// `ioremap=shared` on the command line), given any address inside it. Null is no-op; anything else is reported and changes nothing.
/// Not in interrupt context.
///
/// # Safety
/// Nobody uses the mapping any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn iounmap(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        report("iounmap", mm::kernel().iounmap(authority, address(addr)));
    }
}

/// Ends what [`memremap`] gave. Null is no-op, and so is a linear address, whose memory stays; anything else is reported and changes
/// nothing. Not in interrupt context.
///
/// # Safety
/// Nobody uses the mapping any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn memunmap(addr: *const c_void) {
    if !addr.is_null() {
        // SAFETY: our caller promises that nobody uses it.
        let authority = unsafe { Authority::claim() };
        report("memunmap", mm::kernel().memunmap(authority, address(addr)));
    }
}
