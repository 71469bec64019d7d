//! Linux's names for what the kernel does.
//!
//! Each function is thin: a pointer comes in, one call of the layers below is made, a pointer or nothing comes out. An
//! error becomes a null pointer and a line on the console, since that is all these interfaces can say; Rust code has
//! better ones in `mm` and `dma`.
//!
//! Every name is also a C symbol. `scripts/c-symbols.list` is the list that the linker keeps them by.
#![no_std]
#![cfg(target_arch = "arm")]

pub mod areas;
mod cause;
pub mod dma;
pub mod dma_attrs;
pub mod dma_declare;
pub mod dma_mask;
pub mod dma_pool;
pub mod dma_segments;
pub mod dma_sgtable;
pub mod errno;
pub mod exec;
pub mod free;
pub mod iommu;
pub mod ioremap;
pub mod lookup;
pub mod map_ram;
pub mod objects;
pub mod page;
pub mod protection;
pub mod read_write;
pub mod realloc;
pub mod refusal;
mod refusals;
mod request;
pub mod streaming;
pub mod streaming_sg;
pub mod sync_all;
pub mod user;
pub mod vmalloc;
pub mod vmap;

use core::ffi::c_void;
use core::ptr;

use kerncore::addr::VirtAddr;

/// Makes the linker see this crate, whose functions nothing in an image calls: a binary calls it once.
#[inline(always)]
pub fn link() {
    core::hint::black_box(vmalloc::vmalloc as extern "C" fn(u32) -> *mut c_void);
}

/// The pointer to `address`, whose memory was mapped and is owned by whoever is given it.
fn pointer<T>(address: VirtAddr) -> *mut T {
    ptr::with_exposed_provenance_mut(address.raw() as usize)
}

/// The address that a caller's pointer means.
#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn address<T>(pointer: *const T) -> VirtAddr {
    VirtAddr::new(pointer.expose_provenance() as u32)
}
