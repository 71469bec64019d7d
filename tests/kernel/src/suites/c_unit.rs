//! The C face, called by code that a C compiler has made from `include/mapwright.h` (S85a): `tests/kernel/c/c_unit.c`.
//!
//! Without a compiler for ARM when the image was built, each of these says so.

#[cfg(c_unit)]
use core::ffi::{c_int, c_uint, c_void};
#[cfg(c_unit)]
use core::mem::offset_of;

#[cfg(c_unit)]
use board::vexpress_a9::VRAM;
#[cfg(c_unit)]
use dma::{bounce, device::Device};
use kerncore::area::VmStruct;
#[cfg(c_unit)]
use kerncore::{addr::PAGE_SIZE, area::AreaFlags, coherent::AllocationFlags as Gfp, frames::Frame};
use ktest::{Completion, ktest};
#[cfg(c_unit)]
use linux::{
    errno,
    ioremap::{MEMREMAP_WB, MEMREMAP_WC, MEMREMAP_WT},
    protection::PageProtection,
    user::{VM_RESERVED, VmAreaStruct},
};

#[cfg(c_unit)]
use super::witness::Books;

// What the header asserts of the C compiler's layout, of ours.
const _: () = assert!(size_of::<VmStruct>() == 32);
const _: () = {
    let wanted = [4, 8, 12, 16, 20, 24, 28];
    let mut field = 0;
    while field < wanted.len() {
        assert!(VmStruct::OFFSETS[field] == wanted[field]);
        field += 1;
    }
};

#[cfg(c_unit)]
static DEVICE: Device = Device::new("a C driver's device");

#[cfg(c_unit)]
unsafe extern "C" {
    safe static c_unit_layout: [c_uint; 15];
    safe static c_unit_numbers: [c_uint; 29];
    safe fn c_unit_memory() -> c_int;
    safe fn c_unit_refusals() -> c_int;
    safe fn c_unit_sizes() -> c_int;
    safe fn c_unit_deferred() -> c_int;
    safe fn c_unit_code() -> c_int;
    safe fn c_unit_mappings() -> c_int;
    safe fn c_unit_registers(physical: c_uint) -> c_int;
    safe fn c_unit_areas() -> c_int;
    safe fn c_unit_hook() -> c_int;
    safe fn c_unit_filled_areas() -> c_int;
    safe fn c_unit_copies() -> c_int;
    safe fn c_unit_coherent(device: *const c_void) -> c_int;
    safe fn c_unit_streaming(device: *const c_void) -> c_int;
    safe fn c_unit_iommu(device: *const c_void, copies: c_uint) -> c_int;
    safe fn c_unit_masks(device: *const c_void) -> c_int;
    safe fn c_unit_attributes(device: *const c_void) -> c_int;
    safe fn c_unit_declared(device: *const c_void, physical: c_uint) -> c_int;
    safe fn c_unit_pools(device: *const c_void) -> c_int;
}

/// Runs what is behind it, if there is C code in the image.
macro_rules! in_c {
    ($run:expr) => {{
        #[cfg(c_unit)]
        {
            $run;
            Completion::Ran
        }
        #[cfg(not(c_unit))]
        Completion::Skipped("no C compiler for ARM was there (clang, arm-none-eabi-gcc)")
    }};
}

/// A test of the C file holds, and leaves nothing behind.
#[cfg(c_unit)]
#[track_caller]
fn holds(run: impl FnOnce() -> c_int) {
    let books = Books::now();
    let line = run();
    assert!(line == 0, "the check in tests/kernel/c/c_unit.c:{line} does not hold");
    mm::vm_area::free_deferred();
    kernel_is_as_it_was(&books);
}

#[cfg(c_unit)]
#[track_caller]
fn kernel_is_as_it_was(books: &Books) {
    mm::kernel().close_idle_blocks();
    books.assert_unchanged();
}

#[ktest]
fn the_header_lays_out_what_rust_does_s85a() -> Completion {
    in_c!({
        let word = |number: usize| u32::try_from(number).expect("a small number");
        let [addr, size, flags, pages, nr_pages, phys_addr, caller] = VmStruct::OFFSETS.map(word);
        assert_eq!(c_unit_layout[..8], [32, addr, size, flags, pages, nr_pages, phys_addr, caller]);
        let page = [size_of::<Frame>(), align_of::<Frame>()];
        let window = [
            size_of::<VmAreaStruct>(),
            offset_of!(VmAreaStruct, vm_start),
            offset_of!(VmAreaStruct, vm_end),
            offset_of!(VmAreaStruct, vm_pgoff),
            offset_of!(VmAreaStruct, vm_flags),
        ];
        assert_eq!(c_unit_layout[8..10], page.map(word));
        assert_eq!(c_unit_layout[10..], window.map(word));
    })
}

#[ktest]
fn the_header_s_numbers_are_rust_s_s85a() -> Completion {
    in_c!({
        let gfp = [
            Gfp::KERNEL.0,
            Gfp::ATOMIC.0,
            Gfp::HIGH_USER.0,
            Gfp::DMA,
            Gfp::HIGH_MEMORY,
            Gfp::NO_WARNING,
            Gfp::ZERO,
            Gfp::THIS_NODE,
            Gfp::WAIT,
        ];
        assert_eq!(c_unit_numbers[..9], gfp);
        let flags = [
            AreaFlags::IOREMAP,
            AreaFlags::ALLOC,
            AreaFlags::MAP,
            AreaFlags::USERMAP,
            AreaFlags::VPAGES,
            AreaFlags::DMA,
        ];
        assert_eq!(c_unit_numbers[9..15], flags.map(AreaFlags::bits));
        assert_eq!(c_unit_numbers[15], VM_RESERVED);
        let protections = [
            PageProtection::KERNEL,
            PageProtection::KERNEL_READ_ONLY,
            PageProtection::NONCACHED,
            PageProtection::WRITE_COMBINE,
        ];
        assert_eq!(c_unit_numbers[16..20], protections.map(|protection| protection.0));
        let errors = [errno::ENXIO, errno::ENOMEM, errno::EBUSY, errno::EINVAL];
        assert_eq!(c_unit_numbers[20..24], errors.map(i32::cast_unsigned));
        assert_eq!(c_unit_numbers[24], PAGE_SIZE);
        assert_eq!(c_unit_numbers[25..28], [MEMREMAP_WB, MEMREMAP_WT, MEMREMAP_WC]);
        assert_eq!(c_unit_numbers[28..], [errno::EIO.cast_unsigned()]);
    })
}

#[ktest]
fn memory_by_every_name_s26_s31_s85a() -> Completion {
    in_c!(holds(|| c_unit_memory()))
}

#[ktest]
fn refusals_are_null_or_a_negative_number_s3_s26_s37_s85a() -> Completion {
    in_c!(holds(|| c_unit_refusals()))
}

#[ktest]
fn memory_of_another_size_and_objects_s85a_s86() -> Completion {
    in_c!(holds(|| c_unit_sizes()))
}

#[ktest]
fn a_deferred_free_s85a_s89() -> Completion {
    in_c!(holds(|| c_unit_deferred()))
}

#[ktest]
fn code_is_written_sealed_and_called_s85a_s112() -> Completion {
    in_c!(holds(|| c_unit_code()))
}

#[ktest]
fn mappings_of_pages_s37_s85a_s87() -> Completion {
    in_c!(holds(|| c_unit_mappings()))
}

#[ktest]
fn registers_by_address_and_by_number_s85a_s93() -> Completion {
    in_c!(holds(|| c_unit_registers(VRAM.base.raw())))
}

#[ktest]
fn areas_by_descriptor_s12_s17_s48_s85a() -> Completion {
    in_c!(holds(|| c_unit_areas()))
}

/// Whoever defines it is called in place of the kernel's own, which does nothing: once, and only when tables were made.
#[ktest]
fn the_hook_after_tables_were_made_is_weak_s47() -> Completion {
    in_c!(holds(|| c_unit_hook()))
}

#[ktest]
fn areas_that_are_filled_s52_s85a() -> Completion {
    in_c!(holds(|| c_unit_filled_areas()))
}

#[ktest]
fn copies_into_and_out_of_areas_s39_s85a() -> Completion {
    in_c!(holds(|| c_unit_copies()))
}

#[ktest]
fn coherent_buffers_s66_s85a() -> Completion {
    in_c!(holds(|| c_unit_coherent((&raw const DEVICE).cast())))
}

#[ktest]
fn how_high_a_device_reaches_s85a_s100() -> Completion {
    in_c!(holds(|| c_unit_masks((&raw const DEVICE).cast())))
}

#[ktest]
fn transfers_of_devices_s85a_s105() -> Completion {
    in_c!(holds(|| c_unit_streaming((&raw const DEVICE).cast())))
}

#[ktest]
fn devices_behind_an_iommu_s85a_s109() -> Completion {
    in_c!(holds(|| c_unit_iommu((&raw const DEVICE).cast(), bounce::is_forced().into())))
}

#[ktest]
fn buffers_with_attributes_and_their_pages_s85a_s99() -> Completion {
    in_c!(holds(|| c_unit_attributes((&raw const DEVICE).cast())))
}

#[ktest]
fn memory_of_a_device_s_own_s85a_s102() -> Completion {
    in_c!(holds(|| c_unit_declared((&raw const DEVICE).cast(), VRAM.base.raw())))
}

#[ktest]
fn pools_of_blocks_s85a_s103() -> Completion {
    in_c!(holds(|| c_unit_pools((&raw const DEVICE).cast())))
}
