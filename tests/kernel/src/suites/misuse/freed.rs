//! Coherent buffers that are freed while another device has them mapped for a transfer, or by another device than their own: the free is
//! accused, and both are named (S107).

use core::hint::black_box;
use core::ptr;

use dma::attributes;
use dma::bounce;
use dma::coherent::Buffer;
use dma::debug::{found, is_on, mappings};
use dma::device::Device;
use dma::iommu::detach;
use dma::scatter::ScatterTable;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma_attrs::dma_alloc_attrs;
use linux::dma_sgtable::{dma_get_sgtable, sg_free_table};
use linux::page::pointer_to;
use linux::streaming::{dma_debug_device_goes, dma_map_page, dma_mapping_error, dma_unmap_page};
use linux::streaming_sg::{dma_map_sg, dma_unmap_sg};

use super::{CARD, DISK, TO, assert_names};
use crate::suites::iommu::Attached;
use crate::suites::witness::frame_at;

static PLAIN: Device = Device::new("a careless plain disk");
static OTHER: Device = Device::new("a careless plain card");

const WINDOW: u32 = 1 << 20;
const BYTES: u32 = 2 * PAGE_SIZE;
/// At its linear address, also behind an IOMMU: other memory of buffers is not mapped for transfers at all.
const MARKS: DmaAttributes = DmaAttributes::FORCE_CONTIGUOUS;

/// Not the last thing that it does, so that it is the caller.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn buffer() -> Buffer {
    let (mut dma, flags) = (DmaAddr::new(0), AllocationFlags::KERNEL);
    // SAFETY: a device, and a place for an address.
    let memory =
        unsafe { dma_alloc_attrs(&raw const DISK, BYTES, &raw mut dma, flags, MARKS.bits()) };
    assert!(!memory.is_null(), "no memory");
    black_box(Buffer { address: VirtAddr::new(memory.addr() as u32), dma })
}

/// Frees it. Gives what was told.
fn free(buffer: Buffer) -> Option<alloc::string::String> {
    // SAFETY: no device is at work, and the processor has no reference.
    let (freed, log) = capture_log(|| unsafe { attributes::free(&DISK, BYTES, buffer, MARKS) });
    assert_eq!(freed, Ok(()), "{log:?}");
    log.text().lines().find(|line| line.contains("DMA misuse: ")).map(Into::into)
}

/// Lets go what is left of mappings of memory that is nobody's any more.
fn forget() {
    // SAFETY: a device.
    capture_log(|| unsafe { dma_debug_device_goes(&raw const CARD) });
    assert_eq!(mappings(), 0);
}

fn assert_accused(buffer: Buffer, before: u32, mapped: &str) {
    let line = free(buffer).expect("accused");
    let frees = alloc::format!(
        "a careless disk: frees 8192 bytes at {}, a coherent buffer",
        buffer.address
    );
    assert_names(
        &line,
        &[&frees, "allocated by ", "which is mapped still: a careless card: ", mapped],
    );
    assert_eq!(found(), before + 1);
}

/// By its second page, and by a list of all of it.
fn frees_while_mapped() {
    let (card, second) = (&raw const CARD, buffer());
    let page = pointer_to(frame_at(VirtAddr::new(second.address.raw() + PAGE_SIZE)));
    // SAFETY: a device, and memory that is in use, which nobody touches.
    let dma = unsafe { dma_map_page(card, page, 0, 64, TO) };
    // SAFETY: a device.
    assert_eq!(unsafe { dma_mapping_error(card, dma) }, 0);
    assert_accused(second, found(), "64 bytes at ");
    // SAFETY: mapped above, and there is no device.
    capture_log(|| unsafe { dma_unmap_page(card, dma, 64, TO) });
    forget();

    let all = buffer();
    let mut table = ScatterTable::NONE;
    let memory = ptr::without_provenance_mut(all.address.raw() as usize);
    // SAFETY: a device, and a place for a table.
    let made = unsafe { dma_get_sgtable(&raw const DISK, &raw mut table, memory, all.dma, BYTES) };
    assert_eq!((made, table.nents), (0, 1));
    // SAFETY: the list was made above.
    assert_eq!(unsafe { dma_map_sg(card, table.sgl, 1, TO) }, 1);
    assert_accused(all, found(), "8192 bytes at ");
    // SAFETY: mapped above, and there is no device.
    capture_log(|| unsafe { dma_unmap_sg(card, table.sgl, 1, TO) });
    forget();
    // SAFETY: made above.
    unsafe { sg_free_table(&raw mut table) };

    // Whose transfers are over is freed in peace, and so is what another buffer's neighbour has mapped.
    let (one, before) = ([buffer(), buffer()], found());
    let page = pointer_to(frame_at(one[0].address));
    // SAFETY: as above.
    let dma = unsafe { dma_map_page(card, page, 0, BYTES, TO) };
    // SAFETY: a device.
    assert_eq!(unsafe { dma_mapping_error(card, dma) }, 0);
    assert_eq!(free(one[1]), None);
    // SAFETY: mapped above, and there is no device.
    unsafe { dma_unmap_page(card, dma, BYTES, TO) };
    assert_eq!((free(one[0]), found(), mappings()), (None, before, 0));
}

#[ktest]
fn a_buffer_that_is_freed_while_another_device_has_it_mapped_names_both_s107() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    if bounce::is_forced() {
        return Skipped("what is mapped are copies");
    }
    frees_while_mapped();
    Ran
}

/// The same of devices behind IOMMUs, each of a domain of its own.
#[ktest]
fn a_buffer_behind_an_iommu_that_is_freed_while_mapped_names_both_s107_s109() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    if bounce::is_forced() {
        return Skipped("what is mapped are copies");
    }
    let _mappings = [Attached::new(&DISK, WINDOW), Attached::new(&CARD, WINDOW)];
    frees_while_mapped();
    Ran
}

/// A buffer of `device`'s is given back by `other`, which is told when it is done, and never when the owner does it.
fn freed_by_another(device: &Device, other: &Device) {
    let kinds = [
        (Sleep::May, DmaAttributes::NONE),
        (Sleep::May, DmaAttributes::FORCE_CONTIGUOUS),
        (Sleep::MayNot, DmaAttributes::NONE),
        (Sleep::May, DmaAttributes::NO_KERNEL_MAPPING),
    ];
    for (sleep, marks) in kinds {
        for (by, is_told) in [(other, true), (device, false)] {
            let before = found();
            let buffer = attributes::allocate(device, BYTES, sleep, marks, black_box(caller()));
            let buffer = buffer.expect("memory");
            // SAFETY: no device is at work, and the processor has no reference.
            let (freed, log) =
                capture_log(|| unsafe { attributes::free(by, BYTES, buffer, marks) });
            assert_eq!(freed, Ok(()), "{marks:?}: {log:?}");
            assert_eq!(found(), before + u32::from(is_told), "{marks:?}: {log:?}");
            if !is_told {
                assert!(log.text().is_empty(), "{log:?}");
                continue;
            }
            let line = log.text().lines().find(|line| line.contains("DMA misuse: "));
            let frees = alloc::format!("{}: frees 8192 bytes at ", by.name());
            let owner = alloc::format!(" for another device: {}", device.name());
            let words = [&frees, "a coherent buffer, allocated by ", &owner];
            assert_names(line.expect("told"), &words);
            assert!(log.text().contains("Backtrace:"), "{log:?}");
        }
    }
}

/// Somewhere in a function.
#[inline(never)]
fn caller() -> VirtAddr {
    arch::backtrace::return_address()
}

#[ktest]
fn a_buffer_that_another_device_frees_names_both_s107() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    freed_by_another(&DISK, &CARD);
    freed_by_another(&PLAIN, &OTHER);
    Ran
}

/// The same of two devices behind one IOMMU.
#[ktest]
fn a_buffer_that_a_neighbour_behind_the_iommu_frees_names_both_s107_s109() -> Completion {
    if !is_on() {
        return Skipped("dma_debug is off");
    }
    for [device, other] in [[&DISK, &CARD], [&PLAIN, &OTHER]] {
        let attached = Attached::new(device, WINDOW);
        // SAFETY: it has nothing.
        unsafe { attached.1.attach(other) }.expect("attached to nothing");
        freed_by_another(device, other);
        // SAFETY: as above.
        unsafe { detach(other) }.expect("attached");
    }
    Ran
}
