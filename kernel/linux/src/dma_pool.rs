//! Pools of small coherent blocks, by the Linux names (S103).

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_uint, c_void};
use core::ptr;

use dma::coherent::Buffer;
use dma::device::Device;
use dma::dma_pool::DmaPool;
use kerncore::addr::DmaAddr;
use kerncore::coherent::AllocationFlags;
use kerncore::gfp::Warning;
use mm::report::RateLimit;

use crate::{address, pointer};

static REFUSED: RateLimit = RateLimit::new();

/// A pool as C callers hold it: the only one of a boxed array.
type Held = [DmaPool<'static>; 1];

/// A pool of blocks of `size` bytes for `dev`, aligned to `align`, none of which crosses a multiple of `boundary` if that is not zero;
/// null on failure. Of `name` 32 bytes are kept. Any context.
///
/// # Safety
/// `name` points to a string, or is null; `dev` to a device that lives as long as the pool, or is null.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_pool_create(
    name: *const c_char,
    dev: *const Device,
    size: c_uint,
    align: c_uint,
    boundary: c_uint,
) -> *mut Held {
    let name = if name.is_null() {
        "a pool"
    } else {
        // SAFETY: the caller promises a string.
        unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("a pool")
    };
    // SAFETY: the caller promises a device that lives long enough, or passes null.
    let Some(device) = (unsafe { dev.as_ref() }) else {
        log::error!("dma_pool_create: {name}: no device given");
        return ptr::null_mut();
    };
    let pool = match DmaPool::new(name, device, size, align, boundary) {
        Ok(pool) => pool,
        Err(error) => {
            log::warn!("dma_pool_create: {name} of {}: {error}", device.name());
            return ptr::null_mut();
        }
    };
    let mut memory = Vec::new();
    if memory.try_reserve_exact(1).is_err() {
        log::warn!("dma_pool_create: {name} of {}: no memory for its books", device.name());
        return ptr::null_mut();
    }
    memory.push(pool);
    let held: Result<Box<Held>, _> = memory.into_boxed_slice().try_into();
    held.map_or(ptr::null_mut(), Box::into_raw)
}

/// A block of `pool`, and in `handle` the device's view of it; null on failure. It holds whatever it held, unless the flags ask for
/// zeros. With flags that do not let it sleep in any context.
///
/// # Safety
/// `pool` is a pool, or null; `handle` points to a place for an address.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_pool_alloc(
    pool: *mut Held,
    mem_flags: AllocationFlags,
    handle: *mut DmaAddr,
) -> *mut c_void {
    let caller = arch::backtrace::return_address();
    // SAFETY: the caller promises a pool, or passes null.
    let Some([pool]) = (unsafe { pool.as_ref() }) else { return ptr::null_mut() };
    let sleep = mem_flags.sleep();
    let taken = match mem_flags.warning() {
        Warning::Told => pool.allocate(sleep, caller),
        Warning::Untold => pool.allocate_quietly(sleep, caller),
    };
    let block = match taken {
        Ok(block) => block,
        Err(error) => {
            if mem_flags.warning() == Warning::Told {
                REFUSED.warn(format_args!(
                    "dma_pool_alloc: a block of {} bytes of {} was refused: {error}",
                    pool.block_bytes(),
                    pool.name()
                ));
            }
            return ptr::null_mut();
        }
    };
    // SAFETY: the caller promises a place for the address.
    unsafe { handle.write(block.dma) };
    let memory: *mut u8 = pointer(block.address);
    if mem_flags.zero() {
        // SAFETY: the block has so many bytes, is mapped and writable, and nobody else knows of it yet.
        unsafe { memory.write_bytes(0, pool.block_bytes() as usize) };
    }
    memory.cast()
}

/// Gives a block back to `pool`. Null is a no-op; a block that is free, or no block of the pool's, is reported and changes nothing.
/// Any context.
///
/// # Safety
/// `pool` is a pool, or null; nobody uses the block any more, the device included.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_pool_free(pool: *mut Held, vaddr: *const c_void, dma: DmaAddr) {
    // SAFETY: the caller promises a pool, or passes null.
    let Some([pool]) = (unsafe { pool.as_ref() }) else { return };
    if !vaddr.is_null() {
        // What goes wrong was printed.
        let _printed = pool.free(Buffer { address: address(vaddr), dma });
    }
}

/// Ends `pool`. Blocks that are still taken are named, and their pages stay out of use. Null is a no-op. Where one may sleep.
///
/// # Safety
/// `pool` is a pool that nobody uses any more, or null; nobody uses a block that was given back.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_pool_destroy(pool: *mut Held) {
    if pool.is_null() {
        return;
    }
    // SAFETY: `dma_pool_create` made it of a box, and the caller gives it up.
    let [pool] = *unsafe { Box::from_raw(pool) };
    // Each was named.
    // SAFETY: by the caller's promise.
    let _live = unsafe { pool.destroy() };
}
